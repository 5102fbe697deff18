//! The ciphers of RustCrypto: for every processor, with AES instructions where they are.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Aes256Gcm};
use chacha20poly1305::ChaCha20Poly1305;

use super::{Algorithm, NONCE_LEN, TagMismatch, half};
use crate::bond::header::TAG_LEN;

/// A key; erased when dropped.
// AES round keys are large and of a size that depends on the platform: boxed, so that a session stays small.
pub(super) enum Key {
    Aes256Gcm(Box<Aes256Gcm>),
    Aes128Gcm(Box<Aes128Gcm>),
    ChaCha20Poly1305(ChaCha20Poly1305),
}

impl Key {
    pub(super) fn new(algorithm: Algorithm, key: &[u8; 32]) -> Key {
        match algorithm {
            Algorithm::Aes256Gcm => Key::Aes256Gcm(Box::new(Aes256Gcm::new(key.into()))),
            Algorithm::Aes128Gcm => Key::Aes128Gcm(Box::new(Aes128Gcm::new(half(key).into()))),
            Algorithm::ChaCha20Poly1305 => Key::ChaCha20Poly1305(ChaCha20Poly1305::new(key.into())),
        }
    }

    pub(super) fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let text = InOutBuf::from(text);
        let nonce = nonce.into();
        match self {
            Key::Aes256Gcm(key) => key.encrypt_inout_detached(nonce, aad, text),
            Key::Aes128Gcm(key) => key.encrypt_inout_detached(nonce, aad, text),
            Key::ChaCha20Poly1305(key) => key.encrypt_inout_detached(nonce, aad, text),
        }
        .expect("a datagram is shorter than the cipher's limit of 64 GiB")
        .into()
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), TagMismatch> {
        let text = InOutBuf::from(text);
        let (nonce, tag) = (nonce.into(), tag.into());
        match self {
            Key::Aes256Gcm(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
            Key::Aes128Gcm(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
            Key::ChaCha20Poly1305(key) => key.decrypt_inout_detached(nonce, aad, text, tag),
        }
        .map_err(|_| TagMismatch)
    }
}
