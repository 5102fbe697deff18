//! The ciphers of transport packets, and which of them two ends agree on. What they do is in [`aead`](super::aead).

use std::fmt;
use std::str::FromStr;

/// What protects the data of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm = 1,
    /// AES-128-GCM (NIST SP 800-38D).
    Aes128Gcm = 2,
    /// ChaCha20-Poly1305 (RFC 8439): the fastest without AES instructions.
    ChaCha20Poly1305 = 3,
    /// Data in the clear; control packets, headers and handshake stay authenticated.
    None = 4,
}

impl Cipher {
    /// Every cipher, strongest first.
    pub const ALL: [Cipher; 4] =
        [Cipher::Aes256Gcm, Cipher::Aes128Gcm, Cipher::ChaCha20Poly1305, Cipher::None];

    /// The name in the configuration and in status reports.
    pub const fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::Aes128Gcm => "aes-128-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
            Cipher::None => "none",
        }
    }

    /// The cipher's number in handshake messages.
    pub(crate) const fn id(self) -> u8 {
        self as u8
    }

    /// The cipher with this number.
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|cipher| cipher.id() == id)
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no cipher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a cipher (aes-256-gcm, aes-128-gcm, chacha20-poly1305, none)")]
pub struct UnknownCipher(String);

impl FromStr for Cipher {
    type Err = UnknownCipher;

    fn from_str(text: &str) -> Result<Self, UnknownCipher> {
        Self::ALL
            .into_iter()
            .find(|cipher| cipher.name() == text)
            .ok_or_else(|| UnknownCipher(text.to_owned()))
    }
}

/// A list of ciphers without repetition, in order of preference.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CipherList {
    len: u8,
    ciphers: [Cipher; Cipher::ALL.len()],
}

impl CipherList {
    /// The list of these ciphers; a repeated one counts once.
    pub fn new(ciphers: impl IntoIterator<Item = Cipher>) -> Self {
        let mut list = CipherList { len: 0, ciphers: Cipher::ALL };
        for cipher in ciphers {
            if !list.contains(cipher) {
                list.ciphers[usize::from(list.len)] = cipher;
                list.len += 1;
            }
        }
        list
    }

    /// The ciphers, most preferred first.
    pub fn as_slice(&self) -> &[Cipher] {
        &self.ciphers[..usize::from(self.len)]
    }

    /// Whether `cipher` is in the list.
    pub fn contains(&self, cipher: Cipher) -> bool {
        self.as_slice().contains(&cipher)
    }
}

impl fmt::Debug for CipherList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Which ciphers one end allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CipherPolicy {
    /// Any cipher that protects the data; AES-GCM where both ends have AES instructions.
    #[default]
    Auto,
    /// These, most preferred first. `none` is used only when both ends list it.
    Only(CipherList),
}

impl CipherPolicy {
    /// Whether this end accepts `cipher`.
    pub fn allows(&self, cipher: Cipher) -> bool {
        match self {
            CipherPolicy::Auto => cipher != Cipher::None,
            CipherPolicy::Only(list) => list.contains(cipher),
        }
    }
}

impl fmt::Display for CipherPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CipherPolicy::Auto => f.write_str("auto"),
            CipherPolicy::Only(list) => {
                for (i, cipher) in list.as_slice().iter().enumerate() {
                    write!(f, "{}{cipher}", if i == 0 { "" } else { " " })?;
                }
                Ok(())
            }
        }
    }
}

/// What one end says about ciphers in its handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CipherOffer {
    /// What it allows.
    pub policy: CipherPolicy,
    /// Whether it has AES instructions, see [`has_aes_instructions`].
    pub aes_instructions: bool,
}

/// The cipher for a session between two ends; `None` when there is none that both allow.
///
/// An explicit list goes before `auto`, the initiator's order before the responder's. Between two `auto`s the slower
/// end decides: AES-256-GCM if both have AES instructions, else ChaCha20-Poly1305.
pub fn negotiate(initiator: &CipherOffer, responder: &CipherOffer) -> Option<Cipher> {
    let pick = |list: &CipherList, other: &CipherPolicy| {
        list.as_slice().iter().copied().find(|&cipher| other.allows(cipher))
    };
    match (&initiator.policy, &responder.policy) {
        (CipherPolicy::Only(list), other) | (other @ CipherPolicy::Auto, CipherPolicy::Only(list)) => {
            pick(list, other)
        }
        (CipherPolicy::Auto, CipherPolicy::Auto) => {
            let both = initiator.aes_instructions && responder.aes_instructions;
            Some(if both { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 })
        }
    }
}

/// Whether this processor has the instructions that make AES-GCM the faster cipher.
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub fn has_aes_instructions() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

/// Whether this processor has the instructions that make AES-GCM the faster cipher.
#[cfg(target_arch = "aarch64")]
pub fn has_aes_instructions() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

/// Whether this processor has the instructions that make AES-GCM the faster cipher.
#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
pub fn has_aes_instructions() -> bool {
    false
}
