//! The ciphers of RustCrypto: for every processor, with AES instructions where they are.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;

use super::{NONCE_LEN, TagMismatch, half};
use crate::cipher::Cipher;
use crate::header::TAG_LEN;

/// A key; erased when dropped.
pub struct Key(Kind);

// AES round keys are large and of a size that depends on the platform: boxed, so that a session stays small.
enum Kind {
    Aes256Gcm(Box<Aes256Gcm>),
    Aes128Gcm(Box<Aes128Gcm>),
    ChaCha20Poly1305(ChaCha20Poly1305),
}

impl Key {
    /// As [`AeadKey::derive`](super::AeadKey::derive), with the key itself.
    pub fn new(cipher: Cipher, key: &[u8; 32]) -> Key {
        Key(match cipher {
            Cipher::Aes256Gcm => Kind::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))),
            Cipher::Aes128Gcm => Kind::Aes128Gcm(Box::new(Aes128Gcm::new(half(key).into()))),
            Cipher::ChaCha20Poly1305 | Cipher::None => {
                Kind::ChaCha20Poly1305(ChaCha20Poly1305::new(key.into()))
            }
        })
    }

    /// As [`AeadKey::seal`](super::AeadKey::seal).
    #[inline]
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
