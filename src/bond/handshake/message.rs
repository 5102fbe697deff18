//! The byte layout of initiation and response, outside and inside the Noise messages. See `docs/protocol.md`.

use crate::cipher::{Cipher, CipherList, CipherPolicy};
use crate::cookie::Mac;
use crate::hash::{self, MAC_LEN};
use crate::header::DatagramType;
use crate::keys::{PresharedKey, PublicKey};
use crate::noise::{MESSAGE_1_OVERHEAD, MESSAGE_2_OVERHEAD};
use crate::session::LineageId;

use super::MAX_SETTINGS;

/// The version of the messages' content. Version, timestamp and proof of the pre-shared key come first in every version.
pub(crate) const VERSION: u8 = 1;

/// Type and reserved bytes, session index.
const HEAD_LEN: usize = 8;

/// Version, timestamp, proof: all that is known of a payload of another version.
const MIN_INITIATION_PAYLOAD: usize = 1 + 8 + MAC_LEN;

const MAX_CIPHERS: usize = 8;
const MAX_INITIATION_PAYLOAD: usize = MIN_INITIATION_PAYLOAD + 1 + 8 + 1 + MAX_CIPHERS + 1 + MAX_SETTINGS;
const MAX_RESPONSE_PAYLOAD: usize = 1 + 4 + 1 + 1 + 1 + 1 + MAX_CIPHERS + 1 + MAX_SETTINGS;

/// An initiation, taken apart; nothing but its layout has been checked.
pub(crate) struct InitiationParts<'m> {
    /// Type, reserved bytes and sender index, which the Noise message authenticates.
    pub head: &'m [u8],
    pub sender: u32,
    pub noise: &'m [u8],
    pub mac1: &'m Mac,
    pub mac2: &'m Mac,
    /// What `mac1` is made over.
    pub before_mac1: &'m [u8],
    /// What `mac2` is made over.
    pub before_mac2: &'m [u8],
}

impl<'m> InitiationParts<'m> {
    pub fn parse(datagram: &'m [u8]) -> Option<Self> {
        let (before_mac2, mac2) = datagram.split_last_chunk::<MAC_LEN>()?;
        let (before_mac1, mac1) = before_mac2.split_last_chunk::<MAC_LEN>()?;
        let (head, noise) = before_mac1.split_first_chunk::<HEAD_LEN>()?;
        let (prefix, sender) = split_head(head);
        let payload = noise.len().checked_sub(MESSAGE_1_OVERHEAD)?;
        let fits = (MIN_INITIATION_PAYLOAD..=MAX_INITIATION_PAYLOAD).contains(&payload);
        (fits && prefix == DatagramType::Initiation.handshake_prefix()).then_some(InitiationParts {
            head,
            sender,
            noise,
            mac1,
            mac2,
            before_mac1,
            before_mac2,
        })
    }
}

/// A response, taken apart; nothing but its layout has been checked.
pub(crate) struct ResponseParts<'m> {
    pub receiver: u32,
    pub noise: &'m [u8],
    pub mac1: &'m Mac,
    /// What `mac1` is made over.
    pub before_mac1: &'m [u8],
}

impl<'m> ResponseParts<'m> {
    pub fn parse(datagram: &'m [u8]) -> Option<Self> {
        let (before_mac1, mac1) = datagram.split_last_chunk::<MAC_LEN>()?;
        let (head, noise) = before_mac1.split_first_chunk::<HEAD_LEN>()?;
        let (prefix, receiver) = split_head(head);
        let payload = noise.len().checked_sub(MESSAGE_2_OVERHEAD)?;
        let fits = (2..=MAX_RESPONSE_PAYLOAD).contains(&payload);
        (fits && prefix == DatagramType::Response.handshake_prefix()).then_some(ResponseParts {
            receiver,
            noise,
            mac1,
            before_mac1,
        })
    }
}

fn split_head(&[t, r0, r1, r2, i0, i1, i2, i3]: &[u8; HEAD_LEN]) -> ([u8; 4], u32) {
    ([t, r0, r1, r2], u32::from_be_bytes([i0, i1, i2, i3]))
}

/// Appends the MAC over everything that is in `message`.
pub(crate) fn append_mac<const KEY: usize>(message: &mut Vec<u8>, key: &[u8; KEY]) -> Mac {
    let mac = hash::mac128(key, &[message]);
    message.extend_from_slice(&mac);
    mac
}

/// Shows in an initiation that its maker has the pre-shared key too. In IKpsk2 that key enters with the response: without
/// the proof a responder would have to answer before it knows.
pub(crate) fn psk_proof(psk: &PresharedKey, timestamp: u64, initiator: &PublicKey) -> Mac {
    hash::mac128(psk.as_bytes(), &[b"bonding psk v1", &timestamp.to_be_bytes(), initiator.as_bytes()])
}

/// What an initiation says, behind the version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InitiationPayload {
    pub timestamp: u64,
    /// See [`psk_proof`].
    pub psk_proof: Mac,
    pub aes_instructions: bool,
    /// The lineage that the initiator wants to continue.
    pub lineage: Option<LineageId>,
    pub policy: CipherPolicy,
    pub settings: Vec<u8>,
}

/// Why a payload is not understood.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// It is of another version; timestamp and proof are known all the same.
    Version {
        version: u8,
        timestamp: u64,
        psk_proof: Mac,
    },
    Malformed,
}

impl InitiationPayload {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.psk_proof);
        out.push(u8::from(self.aes_instructions));
        out.extend_from_slice(&self.lineage.map_or(0, LineageId::get).to_be_bytes());
        write_policy(&mut out, &self.policy);
        write_settings(&mut out, &self.settings);
        out
    }

    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader(payload);
        let version = reader.byte()?;
        let timestamp = reader.u64()?;
        let psk_proof = reader.mac()?;
        if version != VERSION {
            return Err(PayloadError::Version { version, timestamp, psk_proof });
        }
        let aes_instructions = reader.flag()?;
        let lineage = LineageId::new(reader.u64()?);
        let policy = reader.policy()?;
        let settings = reader.settings()?;
        reader.end()?;
        Ok(InitiationPayload { timestamp, psk_proof, aes_instructions, lineage, policy, settings })
    }
}

/// What a response says, behind the version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ResponsePayload {
    /// The responder's session index.
    pub sender: u32,
    pub status: Status,
    /// The responder's policy, so that the initiator can say what is wrong.
    pub policy: CipherPolicy,
    pub settings: Vec<u8>,
}

/// Whether a responder agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Accepted { cipher: Cipher, resumed: bool },
    NoCommonCipher,
    UnsupportedVersion,
}

impl ResponsePayload {
    pub fn to_bytes(&self) -> Vec<u8> {
        let (status, cipher, resumed) = match self.status {
            Status::Accepted { cipher, resumed } => (0, cipher.id(), resumed),
            Status::NoCommonCipher => (1, 0, false),
            Status::UnsupportedVersion => (2, 0, false),
        };
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.sender.to_be_bytes());
        out.extend_from_slice(&[status, u8::from(resumed), cipher]);
        write_policy(&mut out, &self.policy);
        write_settings(&mut out, &self.settings);
        out
    }

    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        let mut reader = Reader(payload);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(PayloadError::Version { version, timestamp: 0, psk_proof: [0; MAC_LEN] });
        }
        let sender = reader.u32()?;
        let status = reader.byte()?;
        let resumed = reader.flag()?;
        let cipher = Cipher::from_id(reader.byte()?);
        let status = match (status, cipher, resumed) {
            (0, Some(cipher), resumed) => Status::Accepted { cipher, resumed },
            (1, None, false) => Status::NoCommonCipher,
            (2, None, false) => Status::UnsupportedVersion,
            _ => return Err(PayloadError::Malformed),
        };
        let policy = reader.policy()?;
        let settings = reader.settings()?;
        reader.end()?;
        Ok(ResponsePayload { sender, status, policy, settings })
    }
}

fn write_policy(out: &mut Vec<u8>, policy: &CipherPolicy) {
    match policy {
        CipherPolicy::Auto => out.push(0),
        // No cipher at all is not `auto`: a list of one number that no cipher has.
        CipherPolicy::Only(list) if list.as_slice().is_empty() => out.extend([1, 0]),
        CipherPolicy::Only(list) => {
            out.push(list.as_slice().len() as u8);
            out.extend(list.as_slice().iter().map(|cipher| cipher.id()));
        }
    }
}

fn write_settings(out: &mut Vec<u8>, settings: &[u8]) {
    out.push(settings.len() as u8);
    out.extend_from_slice(settings);
}

struct Reader<'p>(&'p [u8]);

impl<'p> Reader<'p> {
    fn take(&mut self, len: usize) -> Result<&'p [u8], PayloadError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(PayloadError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, PayloadError> {
        let (&byte, rest) = self.0.split_first().ok_or(PayloadError::Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    fn u32(&mut self) -> Result<u32, PayloadError> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(PayloadError::Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, PayloadError> {
        let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(PayloadError::Malformed)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*bytes))
    }

    fn mac(&mut self) -> Result<Mac, PayloadError> {
        let (bytes, rest) = self.0.split_first_chunk::<MAC_LEN>().ok_or(PayloadError::Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// One byte of which only the lowest bit may be set.
    fn flag(&mut self) -> Result<bool, PayloadError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(PayloadError::Malformed),
        }
    }

    /// Ciphers that do not exist yet are passed over.
    fn policy(&mut self) -> Result<CipherPolicy, PayloadError> {
        let len = usize::from(self.byte()?);
        if len > MAX_CIPHERS {
            return Err(PayloadError::Malformed);
        }
        let ids = self.take(len)?;
        if ids.is_empty() {
            return Ok(CipherPolicy::Auto);
        }
        Ok(CipherPolicy::Only(CipherList::new(ids.iter().filter_map(|&id| Cipher::from_id(id)))))
    }

    fn settings(&mut self) -> Result<Vec<u8>, PayloadError> {
        let len = usize::from(self.byte()?);
        if len > MAX_SETTINGS {
            return Err(PayloadError::Malformed);
        }
        self.take(len).map(<[u8]>::to_vec)
    }

    fn end(self) -> Result<(), PayloadError> {
        if self.0.is_empty() { Ok(()) } else { Err(PayloadError::Malformed) }
    }
}
