//! The handshake: who the other end is, and fresh keys for one epoch.
//!
//! Noise IKpsk2 in two messages: the initiator (the router) sends an initiation, the responder (the server) answers
//! with a response, and the initiator's first transport packet confirms that it has the keys. Around it, as in
//! WireGuard: `mac1` so that a stranger's packet costs one hash, cookies under load, and a timestamp against replay.
//!
//! * [`Initiator`]: one for each server that a router talks to.
//! * [`Responder`]: one for each private key of a server, for all its peers; [`PeerRecord`]: what it remembers of one.
//!
//! Both are pure: they take datagrams, the time and randomness, and return datagrams and keys.

mod initiator;
mod message;
mod responder;

pub use initiator::Initiator;
pub use responder::{Answer, Initiation, PeerRecord, Received, Responder};

use super::cipher::{Cipher, CipherPolicy};
use super::cookie::Mac;
use super::keys::KEY_LEN;
use super::noise::Secrets;
use super::session::{EpochId, Lineage, LineageId, OpeningKey, SealingKey};

/// The most bytes of settings that either end can send along with the handshake.
pub const MAX_SETTINGS: usize = 64;

/// The keys of a new epoch, and what the ends have told each other.
#[derive(Debug)]
pub struct Established {
    /// The session index that this end chose.
    pub local_index: u32,
    /// The session index that the other end chose.
    pub remote_index: u32,
    /// Whether the former session goes on, or everything begins at zero.
    pub lineage: Lineage,
    /// What protects the data.
    pub cipher: Cipher,
    /// The key for sending, for [`Sealer`](super::session::Sealer).
    pub sealing: SealingKey,
    /// The key for receiving, for [`Opener`](super::session::Opener).
    pub opening: OpeningKey,
    /// The other end's settings: authenticated, at most [`MAX_SETTINGS`] bytes, not interpreted here.
    pub settings: Vec<u8>,
}

/// Why a handshake message is dropped, or cannot be made; the caller counts each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Wrong length, type or reserved bits, or a content that makes no sense.
    #[error("not a handshake message of this protocol")]
    Malformed,
    /// `mac1` is wrong: the sender does not know this end's public key.
    #[error("the message was made for another public key")]
    WrongMac1,
    /// Under load, this source has sent too many handshakes.
    #[error("too many handshakes from this address")]
    RateLimited,
    /// The message does not decrypt: other keys, another pre-shared key, another protocol version, or changed under
    /// way.
    #[error("the message does not decrypt: check both ends' keys and the pre-shared key")]
    Undecryptable,
    /// The initiation is from a known peer that has another pre-shared key, or none.
    #[error("the peer uses another pre-shared key: set the same 'preshared_key' at both ends")]
    WrongPresharedKey,
    /// A copy of an initiation that has been accepted; each is sent over all links.
    #[error("a copy of an initiation that was accepted before")]
    Duplicate,
    /// The initiation is older than the last one accepted from this peer: a replay, or the peer's clock went back.
    #[error("the initiation is older than the last one: a replay, or the peer lost its clock")]
    Replayed,
    /// The message answers no handshake that is under way.
    #[error("the message answers no handshake that is under way")]
    NotAwaited,
    /// The other end's public key is a point of small order.
    #[error("the peer's public key is not usable")]
    WeakKey,
    /// More settings than fit.
    #[error("the settings for the other end are longer than 64 bytes")]
    SettingsTooLong,
    /// The peer is who it says, and the ends do not fit together.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why two ends that trust each other get no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no cipher that both allow.
    #[error(
        "no common cipher: this end allows {local}, the peer allows only {remote}; set the same 'cipher' at both ends"
    )]
    NoCommonCipher {
        /// What this end allows.
        local: CipherPolicy,
        /// What the other end allows.
        remote: CipherPolicy,
    },
    /// The other end speaks another version of the protocol.
    #[error("the peer speaks another version of the protocol: install the same version at both ends")]
    UnsupportedVersion,
}

/// Which end of a handshake this is.
#[derive(Clone, Copy)]
enum Role {
    Initiator,
    Responder,
}

/// The keys of an epoch from a handshake's secrets.
fn establish(
    role: Role,
    secrets: &Secrets,
    (local_index, remote_index): (u32, u32),
    resumed: Option<LineageId>,
    cipher: Cipher,
    settings: Vec<u8>,
) -> Established {
    let lineage = match resumed {
        Some(id) => Lineage::Continued(id),
        None => Lineage::New(new_lineage(secrets)),
    };
    let id = EpochId { local_index, remote_index, lineage: lineage.id() };
    let (tx, rx): (&[u8; KEY_LEN], &[u8; KEY_LEN]) = match role {
        Role::Initiator => (&secrets.initiator_to_responder, &secrets.responder_to_initiator),
        Role::Responder => (&secrets.responder_to_initiator, &secrets.initiator_to_responder),
    };
    Established {
        local_index,
        remote_index,
        lineage,
        cipher,
        sealing: SealingKey::new(cipher, tx, id),
        opening: OpeningKey::new(cipher, rx, id),
        settings,
    }
}

/// The name of a lineage that begins with this handshake.
fn new_lineage(secrets: &Secrets) -> LineageId {
    let hash = super::hash::mac256(&secrets.initiator_to_responder, &[b"bonding lineage v1"]);
    let mut number = [0; 8];
    number.copy_from_slice(&hash[..8]);
    // Zero stands for "none"; it turns up once in 2^64 handshakes.
    LineageId::new(u64::from_be_bytes(number).max(1)).expect("not zero")
}

/// The last few of something, oldest overwritten first: MACs of initiations that were accepted.
#[derive(Clone, Debug, Default)]
struct Recent {
    macs: [Option<Mac>; 4],
    next: usize,
}

impl Recent {
    fn push(&mut self, mac: Mac) {
        self.macs[self.next] = Some(mac);
        self.next = (self.next + 1) % self.macs.len();
    }

    fn contains(&self, mac: &Mac) -> bool {
        self.macs.iter().flatten().any(|m| m == mac)
    }
}

#[cfg(test)]
mod tests;
