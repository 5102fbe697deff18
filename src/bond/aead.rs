//! Authenticated encryption with a key of a session.
//!
//! Two implementations stand behind [`AeadKey`]: the crates of RustCrypto, which run everywhere, and `ring`, whose
//! assembly exists for some processors. Each target uses what is faster there for every cipher, which
//! `cargo bench --bench hot_path` shows: `ring` on x86-64 and AArch64 (AES-256-GCM 2 to 4 times, ChaCha20-Poly1305 3 times
//! as fast with packets of 1400 bytes), RustCrypto on all others.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod assembly;
pub mod portable;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use assembly as implementation;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use portable as implementation;

use std::fmt;

pub use bonding_ciphers::{NONCE_LEN, TagMismatch};
use zeroize::Zeroizing;

use super::cipher::Cipher;
use super::hash;
use super::header::TAG_LEN;

/// A key with its cipher, ready for use; erased when dropped.
pub struct AeadKey(implementation::Key);

impl AeadKey {
    /// The key that `cipher` takes from `secret`, one direction's secret of a handshake: BLAKE2s keyed with the
    /// secret over "bonding transport v1 " and the cipher's name; AES-128 uses the first half.
    ///
    /// [`Cipher::None`] seals its control packets with ChaCha20-Poly1305 under a key of its own.
    pub fn derive(cipher: Cipher, secret: &[u8; 32]) -> Self {
        let key = Zeroizing::new(hash::mac256(secret, &[b"bonding transport v1 ", cipher.name().as_bytes()]));
        AeadKey(implementation::key(cipher, &key))
    }

    /// Encrypts `text` in place and returns the tag over `aad` and the result.
    #[inline]
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.0.seal(nonce, aad, text)
    }

    /// Decrypts `text` in place if `tag` matches it and `aad`.
    ///
    /// # Errors
    ///
    /// [`TagMismatch`]; what is in `text` then has no meaning.
    #[inline]
    pub fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), TagMismatch> {
        self.0.open(nonce, aad, text, tag)
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(redacted)")
    }
}

/// The first half of a key.
fn half(key: &[u8; 32]) -> &[u8; 16] {
    key.first_chunk().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests;
