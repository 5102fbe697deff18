//! The ciphers of `ring`, in assembly for the processor that is found at run time.

use std::hint::black_box;

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{NONCE_LEN, TagMismatch, half};
use crate::cipher::Cipher;
use crate::header::TAG_LEN;

/// A key; erased when dropped.
// Boxed, so that a session stays small and no copies are left behind when it is moved.
pub struct Key(Box<LessSafeKey>);

/// As [`AeadKey::derive`](super::AeadKey::derive), with the key itself.
pub fn key(cipher: Cipher, key: &[u8; 32]) -> Key {
    let (algorithm, key) = match cipher {
        Cipher::Aes256Gcm => (&aead::AES_256_GCM, &key[..]),
        Cipher::Aes128Gcm => (&aead::AES_128_GCM, &half(key)[..]),
        Cipher::ChaCha20Poly1305 | Cipher::None => (&aead::CHACHA20_POLY1305, &key[..]),
    };
    Key(Box::new(keyed(algorithm, key)))
}

impl Key {
    /// As [`AeadKey::seal`](super::AeadKey::seal).
    #[inline]
    pub fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), text);
        let tag = tag.expect("a datagram is shorter than the cipher's limit of 64 GiB");
        *tag.as_ref().first_chunk().expect("every tag has 16 bytes")
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
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::from(aad), (*tag).into(), text, 0..);
        opened.map(|_| ()).map_err(|_| TagMismatch)
    }
}

impl Drop for Key {
    /// `ring` erases no keys. Another key of the same kind takes its place in memory.
    fn drop(&mut self) {
        let algorithm = self.0.algorithm();
        *self.0 = keyed(algorithm, &[0; 32][..algorithm.key_len()]);
        // Or else nobody would read it, and the compiler would leave it out.
        black_box(&mut self.0);
    }
}

fn keyed(algorithm: &'static aead::Algorithm, key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("the key is as long as its algorithm says"))
}
