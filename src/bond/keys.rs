//! Keys as WireGuard users know them: 32 bytes, written as 44 characters of base64.
//!
//! Secrets are compared in constant time, erased from memory when dropped, and never shown by `Debug`.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use curve25519_dalek::MontgomeryPoint;
use curve25519_dalek::constants::X25519_BASEPOINT;
use curve25519_dalek::scalar::clamp_integer;
use zeroize::{Zeroize, Zeroizing};

use super::hash;

/// The length of every key, in bytes.
pub const KEY_LEN: usize = 32;

/// The length of a key's text form, in characters.
pub const KEY_TEXT_LEN: usize = 44;

/// A source of random bytes: fills the whole slice.
///
/// The daemon passes the kernel's generator, tests pass a seeded one.
pub type Random<'a> = dyn FnMut(&mut [u8]) + 'a;

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text has another length than 44 characters.
    #[error(
        "a key has 44 characters, this has {0}: copy the whole line that `bonding genkey`, `pubkey` or `genpsk` printed"
    )]
    Length(usize),
    /// The text is not the canonical base64 form of 32 bytes.
    #[error(
        "this is not a key: a key is 43 letters, digits, '+' or '/' and one '=', as `bonding genkey` prints it"
    )]
    Encoding,
    /// The point has a small order: every private key would yield the same shared secret.
    #[error("this public key is not usable: nobody holds a private key for it")]
    WeakPoint,
}

/// An X25519 private key (RFC 7748), stored clamped.
#[derive(Clone)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// A new key from 32 random bytes.
    pub fn generate(random: &mut Random<'_>) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random(&mut *bytes);
        Self::from_bytes(*bytes)
    }

    /// The key with these bytes; they are clamped (RFC 7748, section 5), which changes no public key.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        PrivateKey(clamp_integer(bytes))
    }

    /// The key's bytes, clamped.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The public key that belongs to this private key.
    pub fn public(&self) -> PublicKey {
        PublicKey(X25519_BASEPOINT.mul_clamped(self.0).to_bytes())
    }

    /// The secret shared with the holder of `remote`; `None` when `remote` is a point of small order
    /// (RFC 7748, section 6.1: the all-zero result is refused).
    pub(crate) fn diffie_hellman(&self, remote: &[u8; KEY_LEN]) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        let shared = Zeroizing::new(MontgomeryPoint(*remote).mul_clamped(self.0).to_bytes());
        (!hash::equal(&*shared, &[0; KEY_LEN])).then_some(shared)
    }

    /// The text form, erased when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(encode(&self.0))
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|bytes| Self::from_bytes(*bytes))
    }
}

impl PartialEq for PrivateKey {
    fn eq(&self, other: &Self) -> bool {
        hash::equal(&self.0, &other.0)
    }
}

impl Eq for PrivateKey {}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

/// An X25519 public key: the name of a peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// The key with these bytes, unchecked: a point of small order fails in the handshake.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        PublicKey(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = *decode(text)?;
        // Any clamped scalar is a multiple of the cofactor, so it takes every point of small order to zero.
        let probe = PrivateKey::from_bytes([0; KEY_LEN]);
        probe.diffie_hellman(&bytes).map(|_| PublicKey(bytes)).ok_or(KeyError::WeakPoint)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A secret that both ends hold beside their key pairs: protects against an attacker who can break X25519 later.
///
/// All zeros means "none", as in WireGuard.
#[derive(Clone)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    /// The key that stands for "no pre-shared key".
    pub const NONE: PresharedKey = PresharedKey([0; KEY_LEN]);

    /// A new key from 32 random bytes.
    pub fn generate(random: &mut Random<'_>) -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random(&mut *bytes);
        PresharedKey(*bytes)
    }

    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        PresharedKey(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// The text form, erased when dropped.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(encode(&self.0))
    }
}

impl Default for PresharedKey {
    fn default() -> Self {
        Self::NONE
    }
}

impl FromStr for PresharedKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|bytes| PresharedKey(*bytes))
    }
}

impl PartialEq for PresharedKey {
    fn eq(&self, other: &Self) -> bool {
        hash::equal(&self.0, &other.0)
    }
}

impl Eq for PresharedKey {}

impl Drop for PresharedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

fn encode(bytes: &[u8; KEY_LEN]) -> String {
    Base64::encode_string(bytes)
}

fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    if text.len() != KEY_TEXT_LEN {
        return Err(KeyError::Length(text.chars().count()));
    }
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    match Base64::decode(text, &mut *bytes) {
        Ok(decoded) if decoded.len() == KEY_LEN => {}
        _ => return Err(KeyError::Encoding),
    }
    // Two unused bits are left in the 43rd character: only one of the four spellings is the key's own.
    let canonical = Zeroizing::new(encode(&bytes));
    if hash::equal(canonical.as_bytes(), text.as_bytes()) { Ok(bytes) } else { Err(KeyError::Encoding) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> [u8; 32] {
        std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn diffie_hellman_of_rfc_7748() {
        // RFC 7748, section 6.1.
        let alice = bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let (alice, bob) = (PrivateKey::from_bytes(alice), PrivateKey::from_bytes(bob));
        let alice_public = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let bob_public = bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(alice.public().as_bytes(), &alice_public);
        assert_eq!(bob.public().as_bytes(), &bob_public);
        assert_eq!(*alice.diffie_hellman(&bob_public).unwrap(), shared);
        assert_eq!(*bob.diffie_hellman(&alice_public).unwrap(), shared);
    }

    #[test]
    fn text_forms_round_trip() {
        let mut byte = 0_u8;
        let mut random = |out: &mut [u8]| {
            out.fill_with(|| {
                byte = byte.wrapping_mul(61).wrapping_add(17);
                byte
            })
        };
        let private = PrivateKey::generate(&mut random);
        assert_eq!(private.as_bytes()[0] & 7, 0);
        assert_eq!(private.as_bytes()[31] & 0xc0, 0x40);
        assert_eq!(private.to_text().parse::<PrivateKey>().unwrap(), private);
        assert_eq!(private.public().to_string().parse::<PublicKey>().unwrap(), private.public());
        let psk = PresharedKey::generate(&mut random);
        assert_eq!(psk.to_text().parse::<PresharedKey>().unwrap(), psk);
        assert_ne!(psk, PresharedKey::NONE);
    }

    #[test]
    fn a_key_that_wg_pubkey_knows() {
        let private: PrivateKey = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=".parse().unwrap();
        assert_eq!(private.public().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let good = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert!(good.parse::<PublicKey>().is_ok());
        for (text, error) in [
            ("", KeyError::Length(0)),
            ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo", KeyError::Length(43)),
            (" hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", KeyError::Length(45)),
            ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm==", KeyError::Encoding),
            ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmoo", KeyError::Encoding),
            ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmp=", KeyError::Encoding),
            ("hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo=", KeyError::Encoding),
            ("hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066Spjqqb\nmo=", KeyError::Encoding),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", KeyError::WeakPoint),
            ("AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", KeyError::WeakPoint),
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(error), "{text:?}");
        }
        assert_eq!("Ü".repeat(22).parse::<PrivateKey>(), Err(KeyError::Encoding), "44 bytes, but not ASCII");
    }

    #[test]
    fn debug_shows_no_secret() {
        let private = PrivateKey::from_bytes([0x5a; 32]);
        let psk = PresharedKey::from_bytes([0x5a; 32]);
        let shown = format!("{private:?} {psk:?}");
        assert_eq!(shown, "PrivateKey(redacted) PresharedKey(redacted)");
    }
}
