//! Transport packets: the keys of one epoch, and which epoch is used now, for sending and for receiving.
//!
//! A handshake yields an *epoch*: one key for each direction. Epochs that follow each other without an interruption
//! form a *lineage*: packet numbers go on, each link keeps its replay window, and no packet notices the rekey. After a
//! restart of either end a new lineage begins, and everything that counts begins at zero.
//!
//! [`Sealer`] and [`Opener`] are the two halves of one peer's session. They share no state, so they can live on
//! different threads; a handshake puts a key into each.

use std::fmt;
use std::time::Duration;

use super::Time;
use super::aead::{AeadKey, NONCE_LEN};
use super::cipher::Cipher;
use super::header::{
    HEADER_LEN, LinkId, MAX_LINKS, SHIM_LEN, Seal, TAG_LEN, TransportHeader, expand_packet_number,
};
use super::replay::{ReplayError, ReplayWindow};

/// Packets sealed or opened under one key after which a rekey is due.
///
/// Half of [`REJECT_AFTER_PACKETS`].
pub const REKEY_AFTER_PACKETS: u64 = 1 << 27;

/// Packets after which a key seals no more: the confidentiality limit of AES-GCM for packets of up to 2^11 bytes
/// (RFC 9001, appendix B.1.1). ChaCha20-Poly1305 has none; one limit for all is simpler and costs nothing.
///
/// The integrity limits (2^36 forged packets for ChaCha20-Poly1305, more for AES-GCM: RFC 9001, section 6.6) are out
/// of reach within the lifetime of a key.
pub const REJECT_AFTER_PACKETS: u64 = 1 << 28;

/// Packet numbers end here; a lineage would have to send a million packets a second for 36 000 years.
const MAX_PACKET_NUMBER: u64 = 1 << 60;

/// Epochs of which packets are still accepted after a newer one took over.
const MAX_PREVIOUS: usize = 3;

/// Epochs that wait for their first packet.
pub(crate) const MAX_STAGED: usize = 4;

/// How long keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Age of a key after which the client starts a new handshake.
    pub rekey_after: Duration,
    /// Age of a key after which nothing is sent under it.
    pub reject_after: Duration,
    /// How long packets under a key that was replaced are still accepted: longer than any packet is under way.
    pub keep_previous: Duration,
}

impl Default for Lifetimes {
    /// Two and three minutes as in WireGuard (paper, section 6.1), and 15 seconds for the slowest queue.
    fn default() -> Self {
        Lifetimes {
            rekey_after: Duration::from_secs(120),
            reject_after: Duration::from_secs(180),
            keep_previous: Duration::from_secs(15),
        }
    }
}

/// The name of a lineage; both ends know it, nobody else does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LineageId(u64);

impl LineageId {
    /// The lineage with this number; `None` for zero, which stands for "no lineage".
    pub(crate) const fn new(number: u64) -> Option<Self> {
        if number == 0 { None } else { Some(LineageId(number)) }
    }

    /// The lineage's number.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineageId({:04x}…)", self.0 >> 48)
    }
}

/// What identifies an epoch, the same in both halves of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochId {
    /// The session index that this end chose: the epoch's name on this end.
    pub local_index: u32,
    /// The session index that the other end chose.
    pub remote_index: u32,
    pub lineage: LineageId,
}

/// The sending key of one epoch.
#[derive(Debug)]
pub struct SealingKey {
    aead: AeadKey,
    cipher: Cipher,
    id: EpochId,
}

impl SealingKey {
    pub(crate) fn new(cipher: Cipher, secret: &[u8; 32], id: EpochId) -> Self {
        SealingKey { aead: AeadKey::derive(cipher, secret), cipher, id }
    }

    /// Writes the header of packet `number` and seals the packet in place.
    ///
    /// `packet` is header room, text, tag room. The caller guarantees that no number is used twice on a link.
    fn seal(&self, seal: Seal, link: LinkId, number: u64, packet: &mut [u8]) -> Result<(), SealError> {
        let clear_len = clear_len(seal);
        let Some((body, tag)) = packet.split_last_chunk_mut::<TAG_LEN>() else {
            return Err(SealError::TooShort);
        };
        let Some((aad, mut text)) = body.split_at_mut_checked(clear_len) else {
            return Err(SealError::TooShort);
        };
        let Some(header) = aad.first_chunk_mut::<HEADER_LEN>() else { return Err(SealError::TooShort) };
        let low = (number & 0x00ff_ffff) as u32;
        *header = TransportHeader { seal, link, packet_number: low, index: self.id.remote_index }.to_bytes();
        if seal == Seal::Clear {
            text = &mut [];
        }
        *tag = self.aead.seal(&nonce(link, number), aad, text);
        Ok(())
    }
}

/// The receiving key of one epoch.
#[derive(Debug)]
pub struct OpeningKey {
    aead: AeadKey,
    cipher: Cipher,
    id: EpochId,
}

impl OpeningKey {
    pub(crate) fn new(cipher: Cipher, secret: &[u8; 32], id: EpochId) -> Self {
        OpeningKey { aead: AeadKey::derive(cipher, secret), cipher, id }
    }

    /// Opens packet `number` in place and returns what is between header and tag.
    fn open<'p>(
        &self,
        seal: Seal,
        link: LinkId,
        number: u64,
        packet: &'p mut [u8],
    ) -> Result<&'p mut [u8], OpenError> {
        if seal == Seal::Clear && self.cipher != Cipher::None {
            return Err(OpenError::ClearRefused);
        }
        let (body, tag) = packet.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::Malformed)?;
        let (aad, mut text) = body.split_at_mut_checked(clear_len(seal)).ok_or(OpenError::Malformed)?;
        if seal == Seal::Clear {
            text = &mut [];
        }
        self.aead.open(&nonce(link, number), aad, text, tag).map_err(|_| OpenError::Forged)?;
        body.get_mut(HEADER_LEN..).ok_or(OpenError::Malformed)
    }
}

/// How many bytes at a packet's start are authenticated and not encrypted.
const fn clear_len(seal: Seal) -> usize {
    match seal {
        Seal::Sealed => HEADER_LEN,
        Seal::Clear => HEADER_LEN + SHIM_LEN,
    }
}

/// Each link counts its own packets under the common key; the link's id in the nonce keeps them apart.
fn nonce(link: LinkId, number: u64) -> [u8; NONCE_LEN] {
    // In the pieces in which it is read again: a processor cannot forward other ones from its stores to its loads.
    let first = u64::from(link.get()) << 32 | number >> 32;
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&first.to_be_bytes());
    nonce[8..].copy_from_slice(&(number as u32).to_be_bytes());
    nonce
}

/// Why a packet cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No handshake has completed.
    #[error("there is no session yet")]
    NoSession,
    /// The key is too old or was used too often: a handshake must complete first.
    #[error("the session's key has expired")]
    Expired,
    /// The buffer has no room for header, shim and tag.
    #[error("the packet buffer is too short")]
    TooShort,
    /// A packet in the clear, but the session's cipher is not `none`.
    #[error("this session's cipher allows no packets in the clear")]
    ClearRefused,
}

/// The sending half of a peer's session: the key used now, and each link's next packet number.
#[derive(Debug)]
pub struct Sealer {
    lifetimes: Lifetimes,
    current: Option<Sealing>,
    staged: Vec<Sealing>,
    lineage: Option<LineageId>,
    next: [u64; MAX_LINKS],
}

#[derive(Debug)]
struct Sealing {
    key: SealingKey,
    since: Time,
    /// Nothing is sealed from here on; kept so that no packet has to compute it.
    reject: Time,
    packets: u64,
}

impl Sealing {
    fn new(key: SealingKey, now: Time, lifetimes: &Lifetimes) -> Self {
        Sealing { key, since: now, reject: now + lifetimes.reject_after, packets: 0 }
    }

    fn is_usable(&self, now: Time) -> bool {
        now < self.reject && self.packets < REJECT_AFTER_PACKETS
    }
}

impl Sealer {
    /// A sending half without a key.
    pub fn new(lifetimes: Lifetimes) -> Self {
        Sealer { lifetimes, current: None, staged: Vec::new(), lineage: None, next: [0; MAX_LINKS] }
    }

    /// Replaces the key now: the client's side of a handshake.
    pub fn install(&mut self, key: SealingKey, now: Time) {
        self.staged.clear();
        self.activate(Sealing::new(key, now, &self.lifetimes));
    }

    /// Keeps the key until the client has shown that it holds it too: the server's side of a handshake.
    ///
    /// At most four keys wait; the oldest gives way.
    pub fn stage(&mut self, key: SealingKey, now: Time) {
        if self.staged.len() >= MAX_STAGED {
            self.staged.remove(0);
        }
        self.staged.push(Sealing::new(key, now, &self.lifetimes));
    }

    /// Takes the staged key of the epoch that [`Opened::confirmed`] has named into use.
    ///
    /// Returns whether there is such a key.
    pub fn confirm(&mut self, epoch: u32) -> bool {
        let Some(at) = self.staged.iter().position(|s| s.key.id.local_index == epoch) else { return false };
        let sealing = self.staged.swap_remove(at);
        self.staged.clear();
        self.activate(sealing);
        true
    }

    /// Seals a packet in place and returns its packet number.
    ///
    /// `packet` holds [`HEADER_LEN`] bytes of room, the text, and [`TAG_LEN`] bytes of room. With [`Seal::Clear`] the
    /// first [`SHIM_LEN`] bytes of the text are authenticated and nothing is encrypted.
    ///
    /// # Errors
    ///
    /// [`SealError`]; no packet number is used up then.
    pub fn seal(&mut self, seal: Seal, link: LinkId, packet: &mut [u8], now: Time) -> Result<u64, SealError> {
        let current = self.current.as_mut().ok_or(SealError::NoSession)?;
        if seal == Seal::Clear && current.key.cipher != Cipher::None {
            return Err(SealError::ClearRefused);
        }
        let next = &mut self.next[link.index()];
        if !current.is_usable(now) || *next >= MAX_PACKET_NUMBER {
            return Err(SealError::Expired);
        }
        let number = *next;
        current.key.seal(seal, link, number, packet)?;
        *next += 1;
        current.packets += 1;
        Ok(number)
    }

    /// The packet number that the next packet on `link` gets.
    pub fn next_packet_number(&self, link: LinkId) -> u64 {
        self.next[link.index()]
    }

    /// Whether packets can be sealed now.
    pub fn is_usable(&self, now: Time) -> bool {
        self.current.as_ref().is_some_and(|current| current.is_usable(now))
    }

    /// Whether the client should start a handshake: there is no key, or it grows old.
    pub fn wants_rekey(&self, now: Time) -> bool {
        self.current.as_ref().is_none_or(|current| {
            now.since(current.since) >= self.lifetimes.rekey_after || current.packets >= REKEY_AFTER_PACKETS
        })
    }

    /// When [`wants_rekey`](Self::wants_rekey) becomes true by age.
    pub fn rekey_time(&self) -> Option<Time> {
        self.current.as_ref().map(|current| current.since + self.lifetimes.rekey_after)
    }

    /// When the key in use was agreed on.
    pub fn established(&self) -> Option<Time> {
        self.current.as_ref().map(|current| current.since)
    }

    /// The cipher in use.
    pub fn cipher(&self) -> Option<Cipher> {
        self.current.as_ref().map(|current| current.key.cipher)
    }

    /// The lineage that a new handshake may continue; it outlives its keys.
    pub fn lineage(&self) -> Option<LineageId> {
        self.lineage
    }

    /// Erases the keys of the session that the other end has ended. A handshake that has begun another one since then is
    /// not part of it.
    pub fn close(&mut self) {
        let closed = self.lineage.take();
        self.current = None;
        self.staged.retain(|sealing| Some(sealing.key.id.lineage) != closed);
    }

    /// Erases keys that have expired.
    pub fn expire(&mut self, now: Time) {
        self.staged.retain(|sealing| now < sealing.reject);
        self.current.take_if(|sealing| now >= sealing.reject);
    }

    /// As after so many packets that the key is to be renewed.
    #[cfg(test)]
    pub(crate) fn wear_out(&mut self) {
        self.current.iter_mut().for_each(|current| current.packets = REKEY_AFTER_PACKETS);
    }

    fn activate(&mut self, sealing: Sealing) {
        let lineage = sealing.key.id.lineage;
        if self.lineage != Some(lineage) {
            self.lineage = Some(lineage);
            self.next = [0; MAX_LINKS];
        }
        self.current = Some(sealing);
    }
}

/// Why a transport packet is dropped; the caller counts each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Too short, or not a transport packet.
    #[error("not a transport packet")]
    Malformed,
    /// The session index names no epoch whose packets are accepted.
    #[error("no session with this index, or it has expired")]
    UnknownSession,
    /// The packet number was accepted before, or is too old to tell.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The tag does not match.
    #[error("the authentication tag does not match")]
    Forged,
    /// A packet in the clear under a cipher that encrypts.
    #[error("a packet in the clear, but this session's cipher is not 'none'")]
    ClearRefused,
}

/// A transport packet that has been authenticated.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'p> {
    /// How much of the packet was encrypted. Of a [`Seal::Clear`] packet only the shim is authenticated: control
    /// frames in it must be ignored.
    pub seal: Seal,
    /// The link that the packet was sent over.
    pub link: LinkId,
    /// The packet's number on that link.
    pub packet_number: u64,
    /// The epoch's name on this end: the session index of its handshake.
    pub epoch: u32,
    /// Set on the first packet under an epoch that was staged: pass [`epoch`](Self::epoch) to [`Sealer::confirm`].
    pub confirmed: Option<Lineage>,
    /// What is between header and tag, in the clear; begins with the shim.
    pub text: &'p mut [u8],
}

/// Whether an epoch goes on where the one before has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// Packet numbers, replay windows and everything else that counts begin at zero: one end has restarted.
    New(LineageId),
    /// A rekey: everything goes on.
    Continued(LineageId),
}

impl Lineage {
    /// The lineage's name.
    pub const fn id(self) -> LineageId {
        match self {
            Lineage::New(id) | Lineage::Continued(id) => id,
        }
    }

    /// Whether this is a new lineage.
    pub const fn is_new(self) -> bool {
        matches!(self, Lineage::New(_))
    }
}

/// The receiving half of a peer's session: the keys whose packets are accepted, and each link's replay window.
#[derive(Debug)]
pub struct Opener {
    lifetimes: Lifetimes,
    current: Option<Opening>,
    /// Newest first.
    previous: Vec<Opening>,
    /// Oldest first.
    staged: Vec<Opening>,
    lineage: Option<LineageId>,
    windows: [Option<Box<ReplayWindow>>; MAX_LINKS],
}

#[derive(Debug)]
struct Opening {
    key: OpeningKey,
    expires: Time,
    packets: u64,
}

/// Where an epoch was found.
enum Slot {
    Current,
    Previous(usize),
    Staged(usize),
}

impl Opener {
    /// A receiving half without a key.
    pub fn new(lifetimes: Lifetimes) -> Self {
        Opener {
            lifetimes,
            current: None,
            previous: Vec::new(),
            staged: Vec::new(),
            lineage: None,
            windows: [const { None }; MAX_LINKS],
        }
    }

    /// Makes the key the current one now: the client's side of a handshake.
    ///
    /// If it continues the lineage, packets under the former key are accepted for a while; else they are not.
    pub fn install(&mut self, key: OpeningKey, now: Time) {
        self.staged.clear();
        let opening = self.opening(key, now);
        self.activate(opening, now);
    }

    /// Accepts packets under the key; the first one makes it current: the server's side of a handshake.
    ///
    /// At most four keys wait; the oldest gives way. Returns the session index of the key that did, which the caller
    /// can use again.
    pub fn stage(&mut self, key: OpeningKey, now: Time) -> Option<u32> {
        let evicted = (self.staged.len() >= MAX_STAGED).then(|| self.staged.remove(0).key.id.local_index);
        let opening = self.opening(key, now);
        self.staged.push(opening);
        evicted
    }

    /// Authenticates and decrypts a transport packet in place.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; then no state has changed, and the packet's text has no meaning.
    pub fn open<'p>(&mut self, packet: &'p mut [u8], now: Time) -> Result<Opened<'p>, OpenError> {
        let header = TransportHeader::read(packet).ok_or(OpenError::Malformed)?;
        let TransportHeader { seal, link, .. } = header;
        if packet.len() < clear_len(seal) + TAG_LEN {
            return Err(OpenError::Malformed);
        }
        let (slot, opening) = self.find(header.index).ok_or(OpenError::UnknownSession)?;
        if now >= opening.expires {
            return Err(OpenError::UnknownSession);
        }
        let id = opening.key.id;
        // A new lineage has used none of the packet numbers that the windows remember.
        let window = match &self.windows[link.index()] {
            Some(window) if self.lineage == Some(id.lineage) => Some(window),
            _ => None,
        };
        let number = expand_packet_number(header.packet_number, window.map_or(0, |window| window.next()));
        if let Some(window) = window {
            window.check(number)?;
        }
        let text = opening.key.open(seal, link, number, packet)?;

        let confirmed = match slot {
            Slot::Staged(at) => {
                let opening = self.staged.remove(at);
                self.staged.clear();
                Some(self.activate(opening, now))
            }
            Slot::Current | Slot::Previous(_) => None,
        };
        self.windows[link.index()].get_or_insert_default().commit(number)?;
        let opening = match slot {
            Slot::Previous(at) => self.previous.get_mut(at),
            Slot::Current | Slot::Staged(_) => self.current.as_mut(),
        };
        if let Some(opening) = opening {
            opening.packets += 1;
        }
        Ok(Opened { seal, link, packet_number: number, epoch: id.local_index, confirmed, text })
    }

    /// One above the highest packet number accepted on `link`; zero when none was.
    pub fn next_packet_number(&self, link: LinkId) -> u64 {
        self.windows[link.index()].as_ref().map_or(0, |window| window.next())
    }

    /// Whether the client should start a handshake because so many packets came under the current key.
    pub fn wants_rekey(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.packets >= REKEY_AFTER_PACKETS)
    }

    /// The session indexes under which packets are accepted.
    pub fn indexes(&self) -> impl Iterator<Item = u32> {
        self.current
            .iter()
            .chain(&self.previous)
            .chain(&self.staged)
            .map(|opening| opening.key.id.local_index)
    }

    /// Erases the keys of the session that the other end has ended, as [`Sealer::close`].
    pub fn close(&mut self) {
        let closed = self.lineage.take();
        self.current = None;
        self.previous.clear();
        self.staged.retain(|opening| Some(opening.key.id.lineage) != closed);
    }

    /// Erases keys that have expired; call it at [`next_expiry`](Self::next_expiry).
    pub fn expire(&mut self, now: Time) {
        self.previous.retain(|opening| now < opening.expires);
        self.staged.retain(|opening| now < opening.expires);
        self.current.take_if(|opening| now >= opening.expires);
    }

    /// When the next key expires.
    pub fn next_expiry(&self) -> Option<Time> {
        self.current.iter().chain(&self.previous).chain(&self.staged).map(|opening| opening.expires).min()
    }

    /// As after so many packets that the key is to be renewed.
    #[cfg(test)]
    pub(crate) fn wear_out(&mut self) {
        self.current.iter_mut().for_each(|current| current.packets = REKEY_AFTER_PACKETS);
    }

    fn find(&self, index: u32) -> Option<(Slot, &Opening)> {
        let is = |opening: &Opening| opening.key.id.local_index == index;
        if let Some(opening) = self.current.as_ref().filter(|opening| is(opening)) {
            return Some((Slot::Current, opening));
        }
        if let Some(at) = self.staged.iter().position(is) {
            return Some((Slot::Staged(at), &self.staged[at]));
        }
        let at = self.previous.iter().position(is)?;
        Some((Slot::Previous(at), &self.previous[at]))
    }

    fn opening(&self, key: OpeningKey, now: Time) -> Opening {
        // The sender's key is younger by up to one handshake, and its last packets are under way for a while.
        let expires = now + self.lifetimes.reject_after + self.lifetimes.keep_previous;
        Opening { key, expires, packets: 0 }
    }

    fn activate(&mut self, opening: Opening, now: Time) -> Lineage {
        let lineage = opening.key.id.lineage;
        let former = self.current.replace(opening);
        if self.lineage != Some(lineage) {
            self.lineage = Some(lineage);
            self.previous.clear();
            self.windows = [const { None }; MAX_LINKS];
            return Lineage::New(lineage);
        }
        if let Some(mut former) = former {
            former.expires = former.expires.min(now + self.lifetimes.keep_previous);
            self.previous.insert(0, former);
            self.previous.truncate(MAX_PREVIOUS);
        }
        Lineage::Continued(lineage)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
