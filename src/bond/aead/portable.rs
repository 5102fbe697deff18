//! The ciphers of RustCrypto, which run on every processor.

pub use bonding_ciphers::Key;

use super::half;
use crate::cipher::Cipher;

/// As [`AeadKey::derive`](super::AeadKey::derive), with the key itself.
pub fn key(cipher: Cipher, key: &[u8; 32]) -> Key {
    match cipher {
        Cipher::Aes256Gcm => Key::aes_256_gcm(key),
        Cipher::Aes128Gcm => Key::aes_128_gcm(half(key)),
        Cipher::ChaCha20Poly1305 | Cipher::None => Key::chacha20_poly1305(key),
    }
}
