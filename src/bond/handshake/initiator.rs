//! The end that begins: the router.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Time;
use crate::cipher::CipherOffer;
use crate::cookie::{self, COOKIE_LIFETIME, CookieReply, Mac, mac1_key};
use crate::hash::{self, MAC_LEN};
use crate::header::{DatagramType, LinkId, MAX_LINKS};
use crate::keys::{PresharedKey, PrivateKey, PublicKey, Random};
use crate::noise::{KeyPair, MESSAGE_1_OVERHEAD, Noise};
use crate::session::LineageId;

use super::message::{
    InitiationPayload, PayloadError, ResponseParts, ResponsePayload, Status, append_mac, psk_proof,
};
use super::{Established, HandshakeError, MAX_SETTINGS, Refusal, Role, establish};

/// Attempts whose answer is still welcome: a link's round trip can be longer than the pause between two attempts.
const MAX_ATTEMPTS: usize = 4;

/// Cookies are taken no more often than this on a link. Each makes us send an initiation at once, and whoever reads along
/// can repeat a reply.
const COOKIE_PAUSE: Duration = Duration::from_millis(500);

/// Makes initiations to one responder and understands the answers.
///
/// An attempt: [`initiate`](Self::initiate), then send [`datagram`](Self::datagram) over every link. After a second or
/// so without an answer begin another. The responder answers only the copy that arrives first, over the link that it
/// came by: send every second attempt over a single link, each in turn, so that a fast link that works in one
/// direction only cannot hold up the handshake for ever.
pub struct Initiator {
    local: KeyPair,
    remote: PublicKey,
    psk: PresharedKey,
    offer: CipherOffer,
    /// For `mac1` of messages to the responder.
    remote_mac1: [u8; 32],
    /// For `mac1` of messages to us.
    local_mac1: [u8; 32],
    /// Oldest first.
    attempts: VecDeque<Attempt>,
    /// A cookie holds for one source address, and each link has its own.
    cookies: [Option<(Mac, Time)>; MAX_LINKS],
}

struct Attempt {
    local_index: u32,
    lineage: Option<LineageId>,
    noise: Noise,
    /// The initiation up to and with `mac1`.
    message: Vec<u8>,
    mac1: Mac,
}

impl Initiator {
    /// An initiator that talks to the holder of `remote`.
    pub fn new(private: PrivateKey, remote: PublicKey, psk: PresharedKey, offer: CipherOffer) -> Self {
        let local = KeyPair::from(private);
        Initiator {
            remote_mac1: mac1_key(&remote),
            local_mac1: mac1_key(&local.public),
            local,
            remote,
            psk,
            offer,
            attempts: VecDeque::new(),
            cookies: [None; MAX_LINKS],
        }
    }

    /// Begins an attempt.
    ///
    /// `local_index` must differ from the indexes of this end's other sessions and attempts; `timestamp` must be
    /// greater than that of every initiation before, also across restarts (see
    /// [`LogicalClock`](crate::logical_clock::LogicalClock)); `lineage` is what
    /// [`Sealer::lineage`](crate::session::Sealer::lineage) says; `settings` are for the other end's daemon.
    ///
    /// Returns the index of an attempt that was given up for it, if there was one.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::SettingsTooLong`], [`HandshakeError::WeakKey`].
    pub fn initiate(
        &mut self,
        local_index: u32,
        timestamp: u64,
        lineage: Option<LineageId>,
        settings: &[u8],
        random: &mut Random<'_>,
    ) -> Result<Option<u32>, HandshakeError> {
        if settings.len() > MAX_SETTINGS {
            return Err(HandshakeError::SettingsTooLong);
        }
        let payload = InitiationPayload {
            timestamp,
            psk_proof: psk_proof(&self.psk, timestamp, &self.local.public),
            aes_instructions: self.offer.aes_instructions,
            lineage,
            policy: self.offer.policy,
            settings: settings.to_vec(),
        };
        let mut message = Vec::with_capacity(256);
        message.extend_from_slice(&DatagramType::Initiation.handshake_prefix());
        message.extend_from_slice(&local_index.to_be_bytes());
        let mut noise = Noise::initiator(&self.local, &self.remote, &self.psk, &message, random);
        noise
            .write(&payload.to_bytes(), MESSAGE_1_OVERHEAD, &mut message)
            .map_err(|_| HandshakeError::WeakKey)?;
        let mac1 = append_mac(&mut message, &self.remote_mac1);

        let given_up = if self.attempts.len() >= MAX_ATTEMPTS { self.attempts.pop_front() } else { None };
        self.attempts.push_back(Attempt { local_index, lineage, noise, message, mac1 });
        Ok(given_up.map(|attempt| attempt.local_index))
    }

    /// The newest attempt's initiation as it is to be sent over `link`; `None` when no attempt is under way.
    ///
    /// The same on every link, but for `mac2` where the responder has sent a cookie.
    pub fn datagram(&self, link: LinkId, now: Time) -> Option<Vec<u8>> {
        let attempt = self.attempts.back()?;
        let mut datagram = Vec::with_capacity(attempt.message.len() + MAC_LEN);
        datagram.extend_from_slice(&attempt.message);
        match &self.cookies[link.index()] {
            Some((cookie, since)) if now.since(*since) < COOKIE_LIFETIME => {
                append_mac(&mut datagram, cookie);
            }
            _ => datagram.extend_from_slice(&[0; MAC_LEN]),
        }
        Some(datagram)
    }

    /// Whether an attempt is under way.
    pub fn is_pending(&self) -> bool {
        !self.attempts.is_empty()
    }

    /// The session indexes of the attempts under way: the receiver indexes of responses and cookie replies to them.
    pub fn pending_indexes(&self) -> impl Iterator<Item = u32> {
        self.attempts.iter().map(|attempt| attempt.local_index)
    }

    /// Takes a response. On success every attempt is over; install both keys and send a packet at once: the responder
    /// uses the new epoch only when it has received something under it.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; [`Refused`](HandshakeError::Refused) ends the attempts too, after any other error they go on.
    pub fn handle_response(&mut self, datagram: &[u8]) -> Result<Established, HandshakeError> {
        let parts = ResponseParts::parse(datagram).ok_or(HandshakeError::Malformed)?;
        if !hash::equal(&hash::mac128(&self.local_mac1, &[parts.before_mac1]), parts.mac1) {
            return Err(HandshakeError::WrongMac1);
        }
        let at = self
            .attempts
            .iter()
            .position(|attempt| attempt.local_index == parts.receiver)
            .ok_or(HandshakeError::NotAwaited)?;
        let payload = self.attempts[at].noise.read(parts.noise).map_err(|_| HandshakeError::Undecryptable)?;

        // From here on the responder has spoken: whatever it said, these attempts are over.
        let attempt = self.attempts.swap_remove_back(at).ok_or(HandshakeError::NotAwaited)?;
        self.attempts.clear();
        let payload = ResponsePayload::parse(&payload).map_err(|error| match error {
            PayloadError::Version { .. } => Refusal::UnsupportedVersion.into(),
            PayloadError::Malformed => HandshakeError::Malformed,
        })?;
        let (cipher, resumed) = match payload.status {
            Status::Accepted { cipher, resumed } => (cipher, resumed),
            Status::NoCommonCipher => {
                return Err(self.no_common_cipher(&payload));
            }
            Status::UnsupportedVersion => return Err(Refusal::UnsupportedVersion.into()),
        };
        if !self.offer.policy.allows(cipher) {
            return Err(self.no_common_cipher(&payload));
        }
        let resumed = match (resumed, attempt.lineage) {
            (true, None) => return Err(HandshakeError::Malformed),
            (true, lineage) => lineage,
            (false, _) => None,
        };
        let secrets = attempt.noise.into_secrets().ok_or(HandshakeError::Malformed)?;
        let indexes = (attempt.local_index, payload.sender);
        Ok(establish(Role::Initiator, &secrets, indexes, resumed, cipher, payload.settings))
    }

    /// Takes a cookie reply that came over `link`. On success send [`datagram`](Self::datagram) over it again.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Malformed`], [`NotAwaited`](HandshakeError::NotAwaited),
    /// [`Undecryptable`](HandshakeError::Undecryptable).
    pub fn handle_cookie(&mut self, link: LinkId, datagram: &[u8], now: Time) -> Result<(), HandshakeError> {
        let reply = CookieReply::parse(datagram).ok_or(HandshakeError::Malformed)?;
        let attempt = self
            .attempts
            .iter()
            .find(|attempt| attempt.local_index == reply.index)
            .ok_or(HandshakeError::NotAwaited)?;
        if self.cookies[link.index()].is_some_and(|(_, since)| now.since(since) < COOKIE_PAUSE) {
            return Err(HandshakeError::NotAwaited);
        }
        let cookie: cookie::Mac =
            reply.open(&self.remote, &attempt.mac1).ok_or(HandshakeError::Undecryptable)?;
        self.cookies[link.index()] = Some((cookie, now));
        Ok(())
    }

    /// Gives up every attempt.
    pub fn cancel(&mut self) {
        self.attempts.clear();
    }

    fn no_common_cipher(&self, payload: &ResponsePayload) -> HandshakeError {
        Refusal::NoCommonCipher { local: self.offer.policy, remote: payload.policy }.into()
    }
}
