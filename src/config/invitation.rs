//! The line `bonding://…` that a server prints for one router: all that the router must know, to be pasted or scanned.
//!
//! ```text
//! bonding://BASE64URL(version, fields, check sum)
//! ```
//!
//! A field is a type, a length (a byte each) and a value. Fields of a type from 128 on may be ignored by those who do
//! not know them; any other unknown type makes the line one of a newer version. The check sum finds a line that was
//! copied wrongly. It is no protection: who can change the line can make another one. See `docs/protocol.md`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use blake2::{Blake2s256, Digest as _};
use zeroize::Zeroizing;

use super::key::{KEY_BYTES, PublicKey, Secret};
use super::value::{self, Host, IpNet};

/// What every line begins with.
pub const SCHEME: &str = "bonding://";

/// The version of the line's content.
const VERSION: u8 = 1;

/// Bytes of the check sum: one wrong line in 2^32 is not noticed.
const CHECK_BYTES: usize = 4;

/// Characters of a line, at most.
const MAX_LINE: usize = 4_096;

/// Values of one field, at most.
const MAX_VALUES: usize = 16;

mod field {
    pub const SERVER_KEY: u8 = 1;
    pub const SECRET: u8 = 2;
    pub const EXPIRES: u8 = 3;
    pub const PORT: u8 = 4;
    pub const SERVER_ADDRESS: u8 = 5;
    pub const SERVER_NAME: u8 = 6;
    pub const ADDRESS: u8 = 7;
    pub const REMOTE_ADDRESS: u8 = 8;
    pub const CIPHER: u8 = 9;
    /// From here on, fields may be ignored.
    pub const OPTIONAL: u8 = 128;
    pub const PEER_NAME: u8 = 128;
}

/// What a server tells a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// What the server calls the router: letters, digits and `_`.
    pub name: String,
    /// The server's public key.
    pub server_key: PublicKey,
    /// The pre-shared key. Where the server does not know the router's public key yet, it is also what the router
    /// introduces itself with, once.
    pub secret: Option<Secret>,
    /// Seconds since 1970 after which the server takes no introduction; `None` where none is needed.
    pub expires: Option<u64>,
    /// The server's addresses and names, at least one; the router tries them in this order.
    pub servers: Vec<Host>,
    /// The server's UDP ports, at least one.
    pub ports: Vec<u16>,
    /// The router's addresses inside the bond, at least one, with the length of their network's prefix.
    pub addresses: Vec<IpNet>,
    /// The server's addresses inside the bond.
    pub remote_addresses: Vec<IpAddr>,
    /// The `cipher` that the server insists on, where it does.
    pub cipher: Option<String>,
}

/// Why a line is of no use, in words for the person who has pasted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvitationError {
    /// It is something else.
    #[error("this is not a line of `bonding server add-peer`: it begins with bonding://")]
    NotALine,
    /// A character was changed, or a part is missing.
    #[error("the line is damaged or not whole: copy all of it, from bonding:// to its end")]
    Damaged,
    /// Made by a later version.
    #[error("the line was made by a newer version: install the server's version of bonding here")]
    Newer,
    /// The check sum is right and the content is not.
    #[error("the line has no meaning although it is whole: make a new one with `bonding server add-peer`")]
    Malformed,
    /// Too old.
    #[error(
        "the line has expired: make a new one on the server with `bonding server add-peer` (or set this router's clock)"
    )]
    Expired,
}

impl Invitation {
    /// Whether its time is over at `now`.
    ///
    /// # Errors
    ///
    /// [`InvitationError::Expired`].
    pub fn check_expiry(&self, now: SystemTime) -> Result<(), InvitationError> {
        match self.expires {
            Some(expires) if now > UNIX_EPOCH + Duration::from_secs(expires) => Err(InvitationError::Expired),
            _ => Ok(()),
        }
    }

    /// The line. It holds a secret: who reads it before the router has used it can take the router's place.
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1_024));
        bytes.push(VERSION);
        let mut put = |kind: u8, value: &[u8]| {
            // Names are shorter than 254 bytes, all else has a fixed size.
            if let Ok(length) = u8::try_from(value.len()) {
                bytes.extend_from_slice(&[kind, length]);
                bytes.extend_from_slice(value);
            }
        };
        put(field::SERVER_KEY, self.server_key.as_bytes());
        if let Some(secret) = &self.secret {
            put(field::SECRET, secret.as_bytes());
        }
        if let Some(expires) = self.expires {
            put(field::EXPIRES, &expires.to_be_bytes());
        }
        for port in &self.ports {
            put(field::PORT, &port.to_be_bytes());
        }
        for server in &self.servers {
            match server {
                Host::Address(IpAddr::V4(address)) => put(field::SERVER_ADDRESS, &address.octets()),
                Host::Address(IpAddr::V6(address)) => put(field::SERVER_ADDRESS, &address.octets()),
                Host::Name(name) => put(field::SERVER_NAME, name.as_bytes()),
            }
        }
        for net in &self.addresses {
            let mut value = octets(net.address);
            value.push(net.prefix);
            put(field::ADDRESS, &value);
        }
        for address in &self.remote_addresses {
            put(field::REMOTE_ADDRESS, &octets(*address));
        }
        if let Some(cipher) = &self.cipher {
            put(field::CIPHER, cipher.as_bytes());
        }
        put(field::PEER_NAME, self.name.as_bytes());
        let check = check_sum(&bytes);
        bytes.extend_from_slice(&check);
        let mut line = Zeroizing::new(String::with_capacity(MAX_LINE));
        line.push_str(SCHEME);
        line.push_str(&Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes)));
        line
    }
}

impl fmt::Display for Invitation {
    /// In words, without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<String> = self.servers.iter().map(Host::to_string).collect();
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let addresses: Vec<String> = self.addresses.iter().map(IpNet::to_string).collect();
        write!(
            f,
            "peer {}, server {} port {}, key {}, inside {}",
            self.name,
            servers.join(" "),
            ports.join(" "),
            self.server_key,
            addresses.join(" ")
        )
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    /// Reads a line. White space around and within it, as e-mail programs put it there, does not matter.
    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let (text, _) = text.split_at_checked(MAX_LINE).unwrap_or((text, ""));
        let mut line = Zeroizing::new(String::with_capacity(MAX_LINE));
        line.extend(text.chars().filter(|character| !character.is_whitespace() && *character != '\u{feff}'));
        let body = line
            .split_at_checked(SCHEME.len())
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(SCHEME))
            .map(|(_, body)| body.trim_end_matches(['/', '=']))
            .ok_or(InvitationError::NotALine)?;
        let bytes = Base64UrlUnpadded::decode_vec(body).map_err(|_| InvitationError::Damaged)?;
        let bytes = Zeroizing::new(bytes);
        let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(InvitationError::Damaged)?;
        if check_sum(content) != *check {
            return Err(InvitationError::Damaged);
        }
        let (version, fields) = content.split_first().ok_or(InvitationError::Damaged)?;
        if *version != VERSION {
            return Err(InvitationError::Newer);
        }
        let mut found = Found::default();
        let mut rest = fields;
        while let [kind, length, tail @ ..] = rest {
            let value;
            (value, rest) = tail.split_at_checked(usize::from(*length)).ok_or(InvitationError::Malformed)?;
            found.take(*kind, value)?;
        }
        match rest {
            [] => found.finish().ok_or(InvitationError::Malformed),
            _ => Err(InvitationError::Malformed),
        }
    }
}

#[derive(Default)]
struct Found {
    name: Option<String>,
    server_key: Option<PublicKey>,
    secret: Option<Secret>,
    expires: Option<u64>,
    servers: Vec<Host>,
    ports: Vec<u16>,
    addresses: Vec<IpNet>,
    remote_addresses: Vec<IpAddr>,
    cipher: Option<String>,
}

impl Found {
    fn take(&mut self, kind: u8, value: &[u8]) -> Result<(), InvitationError> {
        self.read(kind, value).ok_or(match kind {
            field::SERVER_KEY..=field::CIPHER | field::PEER_NAME => InvitationError::Malformed,
            _ => InvitationError::Newer,
        })
    }

    /// `None` when the value is not right, there is one too many, or the field is not known.
    fn read(&mut self, kind: u8, value: &[u8]) -> Option<()> {
        match kind {
            field::SERVER_KEY => once(&mut self.server_key, PublicKey::new(value.try_into().ok()?)),
            field::SECRET => {
                let bytes: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(value.try_into().ok()?);
                once(&mut self.secret, Secret::new(bytes))
            }
            field::EXPIRES => once(&mut self.expires, u64::from_be_bytes(value.try_into().ok()?)),
            field::PORT => {
                let port = u16::from_be_bytes(value.try_into().ok()?);
                (port != 0).then_some(())?;
                one_more(&mut self.ports, port)
            }
            field::SERVER_ADDRESS => one_more(&mut self.servers, Host::Address(address(value)?)),
            field::SERVER_NAME => {
                let name = std::str::from_utf8(value).ok()?;
                one_more(&mut self.servers, value::host(name).filter(|host| matches!(host, Host::Name(_)))?)
            }
            field::ADDRESS => {
                let (prefix, octets) = value.split_last()?;
                let address = address(octets)?;
                (*prefix <= IpNet::host(address).prefix).then_some(())?;
                one_more(&mut self.addresses, IpNet { address, prefix: *prefix })
            }
            field::REMOTE_ADDRESS => one_more(&mut self.remote_addresses, address(value)?),
            field::CIPHER => once(&mut self.cipher, word(value, b"-")?),
            field::PEER_NAME => once(&mut self.name, word(value, b"_")?),
            _ => (kind >= field::OPTIONAL).then_some(()),
        }
    }

    fn finish(self) -> Option<Invitation> {
        let whole = !self.servers.is_empty() && !self.ports.is_empty() && !self.addresses.is_empty();
        whole.then_some(())?;
        Some(Invitation {
            name: self.name.unwrap_or_else(|| "router".into()),
            server_key: self.server_key?,
            secret: self.secret,
            expires: self.expires,
            servers: self.servers,
            ports: self.ports,
            addresses: self.addresses,
            remote_addresses: self.remote_addresses,
            cipher: self.cipher,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.is_none().then_some(())?;
    *place = Some(value);
    Some(())
}

fn one_more<T>(list: &mut Vec<T>, value: T) -> Option<()> {
    (list.len() < MAX_VALUES).then(|| list.push(value))
}

/// Letters, digits and some more: nothing that a shell, a terminal or a file could take for something else.
fn word(value: &[u8], more: &[u8]) -> Option<String> {
    let fits =
        !value.is_empty() && value.iter().all(|byte| byte.is_ascii_alphanumeric() || more.contains(byte));
    fits.then(|| String::from_utf8(value.to_vec()).ok())?
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn check_sum(content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut sum = [0; CHECK_BYTES];
    let digest = Blake2s256::new_with_prefix(b"bonding line v1").chain_update(content).finalize();
    sum.iter_mut().zip(digest).for_each(|(byte, hashed)| *byte = hashed);
    sum
}

#[cfg(test)]
#[path = "invitation_tests.rs"]
mod tests;
