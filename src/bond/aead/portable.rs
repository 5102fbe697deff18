//! The ciphers of RustCrypto, which run on every processor.

use bonding_ciphers as ciphers;

use super::{NONCE_LEN, TagMismatch, half};
use crate::cipher::Cipher;
use crate::header::TAG_LEN;

/// A key; erased when dropped.
pub struct Key(ciphers::Key);

impl Key {
    /// As [`AeadKey::derive`](super::AeadKey::derive), with the key itself.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Key {
        Key(match cipher {
            Cipher::Aes256Gcm => ciphers::Key::aes_256_gcm(key),
            Cipher::Aes128Gcm => ciphers::Key::aes_128_gcm(half(key)),
            Cipher::ChaCha20Poly1305 | Cipher::None => ciphers::Key::chacha20_poly1305(key),
        })
    }

    /// As [`AeadKey::seal`](super::AeadKey::seal).
    #[inline]
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        self.0.seal(nonce, aad, text)
    }

    /// As [`AeadKey::open`](super::AeadKey::open).
    ///
    /// # Errors
    ///
    /// [`TagMismatch`].
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
