//! The end that answers: the server.

use std::net::SocketAddr;

use crate::Time;
use crate::cipher::{CipherOffer, CipherPolicy, negotiate};
use crate::cookie::{COOKIE_REPLY_LEN, CookieJar, Mac, mac1_key};
use crate::hash;
use crate::header::DatagramType;
use crate::keys::{PresharedKey, PrivateKey, PublicKey, Random};
use crate::load::{HandshakeLoad, SourceLimiter};
use crate::noise::{KeyPair, MESSAGE_2_OVERHEAD, Noise};
use crate::session::LineageId;

use super::message::{
    InitiationParts, InitiationPayload, PayloadError, ResponsePayload, Status, append_mac, psk_proof,
};
use super::{Established, HandshakeError, MAX_SETTINGS, Recent, Refusal, Role, establish};

/// Answers initiations to one private key, from any number of peers.
///
/// In two steps, because the peer is not known before its message is decrypted: [`receive`](Self::receive), then find
/// the peer by [`Initiation::peer`] and call [`Initiation::accept`].
pub struct Responder {
    local: KeyPair,
    aes_instructions: bool,
    mac1: [u8; 32],
    cookies: CookieJar,
    load: HandshakeLoad,
    limiter: SourceLimiter,
}

/// What to do about a datagram.
#[derive(Debug)]
pub enum Received {
    /// Find the peer and call [`Initiation::accept`].
    Initiation(Box<Initiation>),
    /// The responder is under load: send this to where the datagram came from, and forget the datagram.
    Cookie([u8; COOKIE_REPLY_LEN]),
}

impl Responder {
    /// A responder with this private key. `aes_instructions`: see
    /// [`has_aes_instructions`](crate::cipher::has_aes_instructions).
    pub fn new(private: PrivateKey, aes_instructions: bool, load: HandshakeLoad) -> Self {
        let local = KeyPair::from(private);
        Responder {
            aes_instructions,
            mac1: mac1_key(&local.public),
            cookies: CookieJar::new(&local.public),
            local,
            load,
            limiter: SourceLimiter::default(),
        }
    }

    /// The public key that peers know this end by.
    pub fn public_key(&self) -> &PublicKey {
        &self.local.public
    }

    /// Whether initiations must show a cookie now.
    pub fn is_under_load(&self, now: Time) -> bool {
        self.load.is_heavy(now)
    }

    /// Checks and decrypts an initiation. Nothing costs more than a hash before `mac1`, and under load `mac2`, is right.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]: drop the datagram, count it, answer nothing.
    pub fn receive(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        now: Time,
        random: &mut Random<'_>,
    ) -> Result<Received, HandshakeError> {
        let parts = InitiationParts::parse(datagram).ok_or(HandshakeError::Malformed)?;
        if !hash::equal(&hash::mac128(&self.mac1, &[parts.before_mac1]), parts.mac1) {
            return Err(HandshakeError::WrongMac1);
        }
        if self.load.arrived(now) {
            if !self.cookies.verify(source, parts.before_mac2, parts.mac2, now) {
                let reply = self.cookies.reply(parts.sender, parts.mac1, source, now, random);
                return Ok(Received::Cookie(reply));
            }
            if !self.limiter.allow(source.ip(), now) {
                return Err(HandshakeError::RateLimited);
            }
        }
        let mut noise = Noise::responder(&self.local, parts.head, random);
        let payload = noise.read(parts.noise).map_err(|_| HandshakeError::Undecryptable)?;
        let peer = noise.remote_static().ok_or(HandshakeError::Undecryptable)?;
        let (timestamp, psk_proof, content) = match InitiationPayload::parse(&payload) {
            Ok(payload) => (payload.timestamp, payload.psk_proof, Some(payload)),
            Err(PayloadError::Version { timestamp, psk_proof, .. }) => (timestamp, psk_proof, None),
            Err(PayloadError::Malformed) => return Err(HandshakeError::Malformed),
        };
        Ok(Received::Initiation(Box::new(Initiation {
            noise,
            peer,
            sender: parts.sender,
            mac1: *parts.mac1,
            timestamp,
            psk_proof,
            content,
            aes_instructions: self.aes_instructions,
        })))
    }
}

/// What a responder remembers of one peer between handshakes.
#[derive(Clone, Debug)]
pub struct PeerRecord {
    psk: PresharedKey,
    policy: CipherPolicy,
    /// That of the last initiation accepted. It is not kept over a restart: then the first initiation is answered whatever
    /// its age, and a replay gains nothing by that, for nobody but the peer can confirm the epoch.
    pub(super) last_timestamp: Option<u64>,
    recent: Recent,
}

impl PeerRecord {
    /// A peer from which no initiation has been accepted yet.
    pub fn new(psk: PresharedKey, policy: CipherPolicy) -> Self {
        PeerRecord { psk, policy, last_timestamp: None, recent: Recent::default() }
    }

    /// Changes what a reload of the configuration can change; running sessions keep what they have.
    pub fn configure(&mut self, psk: PresharedKey, policy: CipherPolicy) {
        self.psk = psk;
        self.policy = policy;
    }
}

/// A decrypted initiation: made by the holder of [`peer`](Self::peer)'s private key, but perhaps a replay.
pub struct Initiation {
    noise: Noise,
    peer: PublicKey,
    sender: u32,
    mac1: Mac,
    pub(super) timestamp: u64,
    pub(super) psk_proof: Mac,
    /// `None` when it is of another version.
    content: Option<InitiationPayload>,
    aes_instructions: bool,
}

impl std::fmt::Debug for Initiation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Initiation").field("peer", &self.peer).field("timestamp", &self.timestamp).finish()
    }
}

/// The answer to an initiation.
#[derive(Debug)]
pub struct Answer {
    /// Send this to where the initiation came from.
    pub response: Vec<u8>,
    /// The new epoch: stage both keys. Or why there is none, which the response tells the peer too.
    pub result: Result<Established, Refusal>,
}

impl Initiation {
    /// Who made the initiation.
    pub fn peer(&self) -> &PublicKey {
        &self.peer
    }

    /// The peer's settings; not fresh before [`accept`](Self::accept) has succeeded.
    pub fn settings(&self) -> &[u8] {
        self.content.as_ref().map_or(&[], |content| &content.settings)
    }

    /// Whether the initiation was made by somebody who has `psk`.
    pub fn proves(&self, psk: &PresharedKey) -> bool {
        hash::equal(&psk_proof(psk, self.timestamp, &self.peer), &self.psk_proof)
    }

    /// Checks that the initiation is fresh and made with the peer's pre-shared key, and answers it.
    ///
    /// `local_index` must differ from the indexes of this end's other sessions; `resumable` is what
    /// [`Sealer::lineage`](crate::session::Sealer::lineage) says of this peer; `settings` are for the peer's
    /// daemon.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]: count it, answer nothing.
    pub fn accept(
        mut self,
        record: &mut PeerRecord,
        local_index: u32,
        resumable: Option<LineageId>,
        settings: &[u8],
    ) -> Result<Answer, HandshakeError> {
        if settings.len() > MAX_SETTINGS {
            return Err(HandshakeError::SettingsTooLong);
        }
        if !self.proves(&record.psk) {
            return Err(HandshakeError::WrongPresharedKey);
        }
        if record.last_timestamp.is_some_and(|last| self.timestamp <= last) {
            let copy = record.recent.contains(&self.mac1);
            return Err(if copy { HandshakeError::Duplicate } else { HandshakeError::Replayed });
        }
        record.last_timestamp = Some(self.timestamp);
        record.recent.push(self.mac1);

        let (status, remote) = match &self.content {
            None => (Status::UnsupportedVersion, CipherPolicy::Auto),
            Some(content) => {
                let initiator =
                    CipherOffer { policy: content.policy, aes_instructions: content.aes_instructions };
                let local = CipherOffer { policy: record.policy, aes_instructions: self.aes_instructions };
                let resumed = content.lineage.is_some() && content.lineage == resumable;
                let status = match negotiate(&initiator, &local) {
                    Some(cipher) => Status::Accepted { cipher, resumed },
                    None => Status::NoCommonCipher,
                };
                (status, content.policy)
            }
        };
        let payload = ResponsePayload {
            sender: local_index,
            status,
            policy: record.policy,
            settings: settings.to_vec(),
        };
        self.noise.set_psk(&record.psk);
        let mut response = Vec::with_capacity(192);
        response.extend_from_slice(&DatagramType::Response.handshake_prefix());
        response.extend_from_slice(&self.sender.to_be_bytes());
        self.noise
            .write(&payload.to_bytes(), MESSAGE_2_OVERHEAD, &mut response)
            .map_err(|_| HandshakeError::Undecryptable)?;
        append_mac(&mut response, &mac1_key(&self.peer));

        let result = match status {
            Status::Accepted { cipher, resumed } => {
                let secrets = self.noise.into_secrets().ok_or(HandshakeError::Malformed)?;
                let indexes = (local_index, self.sender);
                let resumed = if resumed { resumable } else { None };
                let settings = self.content.map(|content| content.settings).unwrap_or_default();
                Ok(establish(Role::Responder, &secrets, indexes, resumed, cipher, settings))
            }
            Status::NoCommonCipher => Err(Refusal::NoCommonCipher { local: record.policy, remote }),
            Status::UnsupportedVersion => Err(Refusal::UnsupportedVersion),
        };
        Ok(Answer { response, result })
    }
}
