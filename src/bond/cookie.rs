//! `mac1`, `mac2` and cookies: what a stranger's handshake message costs (WireGuard paper, sections 5.3 and 5.4.7).
//!
//! Every handshake message carries `mac1`, which only somebody who knows the receiver's public key can make; it costs
//! one hash to check. Under load the responder also wants `mac2`, keyed with a cookie that it sends to the address the
//! message came from: whoever cannot receive there gets no further.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bonding_ciphers::{Key, LONG_NONCE_LEN as NONCE_LEN};
use zeroize::Zeroizing;

use super::Time;
use super::hash::{self, MAC_LEN};
use super::header::{DatagramType, TAG_LEN};
use super::keys::{PublicKey, Random};

const MAC1_LABEL: &[u8] = b"bonding mac1 v1";
const COOKIE_LABEL: &[u8] = b"bonding cookie v1";

/// How long one secret makes cookies (WireGuard paper, section 5.4.7).
pub const COOKIE_SECRET_LIFETIME: Duration = Duration::from_secs(120);

/// How long the other end uses a cookie: the secret's lifetime less the longest way.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(115);

/// The length of a cookie reply, in bytes.
pub const COOKIE_REPLY_LEN: usize = 8 + NONCE_LEN + MAC_LEN + TAG_LEN;

pub(crate) type Mac = [u8; MAC_LEN];

/// The key of `mac1` in messages to `receiver`.
pub(crate) fn mac1_key(receiver: &PublicKey) -> [u8; 32] {
    hash::hash(&[MAC1_LABEL, receiver.as_bytes()])
}

/// The key under which `sender`'s cookies travel.
fn cookie_key(sender: &PublicKey) -> [u8; 32] {
    hash::hash(&[COOKIE_LABEL, sender.as_bytes()])
}

/// The responder's cookies.
pub(crate) struct CookieJar {
    reply_key: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
    since: Option<Time>,
}

impl CookieJar {
    pub fn new(local: &PublicKey) -> Self {
        CookieJar { reply_key: cookie_key(local), secret: Zeroizing::new([0; 32]), since: None }
    }

    /// Whether `mac2` was made over `message` with a cookie that this end gave to `source`.
    pub fn verify(&self, source: SocketAddr, message: &[u8], mac2: &Mac, now: Time) -> bool {
        let fresh = self.since.is_some_and(|since| now.since(since) < COOKIE_SECRET_LIFETIME);
        fresh && hash::equal(&hash::mac128(&self.cookie(source), &[message]), mac2)
    }

    /// The reply to a message with this sender index and `mac1` from `source`.
    pub fn reply(
        &mut self,
        index: u32,
        mac1: &Mac,
        source: SocketAddr,
        now: Time,
        random: &mut Random<'_>,
    ) -> [u8; COOKIE_REPLY_LEN] {
        if self.since.is_none_or(|since| now.since(since) >= COOKIE_SECRET_LIFETIME) {
            random(&mut *self.secret);
            self.since = Some(now);
        }
        let mut nonce = [0; NONCE_LEN];
        random(&mut nonce);
        let mut cookie = self.cookie(source);
        let (key, rest) = Key::xchacha20_poly1305(&self.reply_key, &nonce);
        let tag = key.seal(&rest, mac1, &mut cookie);

        let mut reply = [0; COOKIE_REPLY_LEN];
        let parts: [&[u8]; 5] =
            [&DatagramType::CookieReply.handshake_prefix(), &index.to_be_bytes(), &nonce, &cookie, &tag];
        let mut at = 0;
        for part in parts {
            reply[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        reply
    }

    fn cookie(&self, source: SocketAddr) -> Mac {
        let port = source.port().to_be_bytes();
        match source.ip() {
            IpAddr::V4(ip) => hash::mac128(&self.secret, &[&ip.octets(), &port]),
            IpAddr::V6(ip) => hash::mac128(&self.secret, &[&ip.octets(), &port]),
        }
    }
}

/// A cookie reply, taken apart but not authenticated.
pub(crate) struct CookieReply<'m> {
    pub index: u32,
    nonce: &'m [u8; NONCE_LEN],
    cookie: Mac,
    tag: &'m [u8; TAG_LEN],
}

impl<'m> CookieReply<'m> {
    /// Takes `datagram` apart; `None` when its length or its first four bytes are wrong.
    pub fn parse(datagram: &'m [u8]) -> Option<Self> {
        let (prefix, rest) = datagram.split_first_chunk::<4>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (cookie, tag) = rest.split_first_chunk::<MAC_LEN>()?;
        let tag = tag.try_into().ok()?;
        (*prefix == DatagramType::CookieReply.handshake_prefix()).then_some(CookieReply {
            index: u32::from_be_bytes(*index),
            nonce,
            cookie: *cookie,
            tag,
        })
    }

    /// The cookie, if `remote` sent it in reply to a message with this `mac1`.
    pub fn open(mut self, remote: &PublicKey, mac1: &Mac) -> Option<Mac> {
        let (key, rest) = Key::xchacha20_poly1305(&cookie_key(remote), self.nonce);
        key.open(&rest, mac1, &mut self.cookie, self.tag).ok()?;
        Some(self.cookie)
    }
}
