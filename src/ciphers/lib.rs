//! The ciphers of RustCrypto: for every processor, with AES instructions where they are.
//!
//! A package of its own and no generic code at its edge, so that it is built for speed where what is around it is built
//! for size: what a package makes of somebody's generic code is optimised as that package is.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20::{R20, hchacha};
use chacha20poly1305::ChaCha20Poly1305;
use zeroize::Zeroize as _;

/// The length of the nonce of every cipher, in bytes.
pub const NONCE_LEN: usize = 12;

/// The length of the tag of every cipher, in bytes.
pub const TAG_LEN: usize = 16;

/// The length of the nonce of XChaCha20-Poly1305, in bytes.
pub const LONG_NONCE_LEN: usize = 24;

/// The tag does not match: the packet was not made, or was changed, by somebody who does not hold the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authentication tag does not match")]
pub struct TagMismatch;

/// A key with its cipher; erased when dropped.
pub struct Key(Kind);

// AES round keys are large and of a size that depends on the platform: boxed, so that a session stays small.
enum Kind {
    Aes256Gcm(Box<Aes256Gcm>),
    Aes128Gcm(Box<Aes128Gcm>),
    ChaCha20Poly1305(ChaCha20Poly1305),
}

impl Key {
    /// For AES-256-GCM (NIST SP 800-38D).
    pub fn aes_256_gcm(key: &[u8; 32]) -> Key {
        Key(Kind::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))))
    }

    /// For AES-128-GCM (NIST SP 800-38D).
    pub fn aes_128_gcm(key: &[u8; 16]) -> Key {
        Key(Kind::Aes128Gcm(Box::new(Aes128Gcm::new(key.into()))))
    }

    /// For ChaCha20-Poly1305 (RFC 8439).
    pub fn chacha20_poly1305(key: &[u8; 32]) -> Key {
        Key(Kind::ChaCha20Poly1305(ChaCha20Poly1305::new(key.into())))
    }

    /// For XChaCha20-Poly1305 with one nonce (draft-irtf-cfrg-xchacha-03, section 2.3): ChaCha20-Poly1305 under a key that
    /// comes from both, and the nonce that is left for it.
    pub fn xchacha20_poly1305(key: &[u8; 32], nonce: &[u8; LONG_NONCE_LEN]) -> (Key, [u8; NONCE_LEN]) {
        let (first, last) = nonce.split_at(LONG_NONCE_LEN - 8);
        let first = first.try_into().expect("16 of 24 bytes");
        let mut own = hchacha::<R20>(key.into(), first);
        let key = Key(Kind::ChaCha20Poly1305(ChaCha20Poly1305::new(&own)));
        own.zeroize();
        let mut rest = [0; NONCE_LEN];
        rest[4..].copy_from_slice(last);
        (key, rest)
    }

    /// Encrypts `text` in place and returns the tag over `aad` and the result.
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let text = InOutBuf::from(text);
        let nonce = nonce.into();
        match &self.0 {
            Kind::Aes256Gcm(key) => key.encrypt_inout_detached(nonce, aad, text),
            Kind::Aes128Gcm(key) => key.encrypt_inout_detached(nonce, aad, text),
            Kind::ChaCha20Poly1305(key) => key.encrypt_inout_detached(nonce, aad, text),
        }
        .expect("a datagram is shorter than the cipher's limit of 64 GiB")
        .into()
    }

    /// Decrypts `text` in place if `tag` matches it and `aad`.
    ///
    /// # Errors
    ///
    /// [`TagMismatch`]; what is in `text` then has no meaning.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), TagMismatch> {
        let text = InOutBuf::from(text);
        let (nonce, tag) = (nonce.into(), tag.into());
        match &self.0 {
            Kind::Aes256Gcm(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
            Kind::Aes128Gcm(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
            Kind::ChaCha20Poly1305(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
        }
        .map_err(|_| TagMismatch)
    }
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::XChaCha20Poly1305;

    use super::*;

    #[test]
    fn xchacha20_poly1305_is_that_of_others() {
        let (key, aad) = ([7; 32], [3; 5]);
        let nonce = std::array::from_fn(|index| index as u8);
        let (mut ours, mut theirs) = (*b"a cookie", *b"a cookie");
        let (derived, rest) = Key::xchacha20_poly1305(&key, &nonce);
        let tag = derived.seal(&rest, &aad, &mut ours);
        let other = XChaCha20Poly1305::new((&key).into())
            .encrypt_inout_detached((&nonce).into(), &aad, InOutBuf::from(&mut theirs[..]))
            .unwrap();
        assert_eq!((ours, tag), (theirs, other.into()));
        assert_eq!(derived.open(&rest, &aad, &mut ours, &tag), Ok(()));
        assert_eq!(&ours, b"a cookie");
        assert_eq!(derived.open(&rest, &[4; 5], &mut theirs, &tag), Err(TagMismatch));
    }
}
