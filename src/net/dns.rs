//! Questions for the addresses of a name, and their answers, as DNS has them on the wire (RFC 1035, RFC 3596).
//!
//! Only what finding a server needs: one question of type A or AAAA, and an answer of which aliases (CNAME) and addresses
//! are read. An answer must repeat identifier and question (RFC 5452); which socket it came to, the caller checks. No
//! answer is believed further than that it names where to send handshakes, which only the right server answers.
//!
//! Reading is bounded by the message: a compression pointer must lead to before the name that has it, an alias may be
//! followed [`MAX_ALIASES`] times.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::Family;

/// The port of name servers.
pub const PORT: u16 = 53;

/// The longest answer over UDP without extensions, in bytes (RFC 1035, section 4.2.1).
pub const MAX_MESSAGE: usize = 512;

/// Aliases that are followed, at most.
const MAX_ALIASES: usize = 8;

/// The longest name on the wire, in bytes, and the longest label (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;
const MAX_LABEL: usize = 63;

const HEADER: usize = 12;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
const INTERNET: u16 = 1;

// The second word of the header.
const IS_RESPONSE: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RCODE: u16 = 0xf;

const NO_SUCH_NAME: u16 = 3;

/// A question for the addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    id: u16,
    name: Name,
    kind: u16,
}

/// What a name server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Addresses in the server's order; none where the name has none of this family.
    pub addresses: Vec<IpAddr>,
    /// How long this may be taken for true: the shortest of all records on the way. Zero without an address.
    pub ttl: Duration,
}

/// Why a message says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It answers another question, or is no answer at all: the right one may still come.
    #[error("the message does not answer the question")]
    Unrelated,
    /// The name does not exist.
    #[error("there is no such name")]
    NoSuchName,
    /// The name server failed or refused; its code (RFC 6895).
    #[error("the name server answered with error {0}")]
    Failed(u16),
    /// It does not fit in a datagram.
    #[error("the name server's answer is too long")]
    Truncated,
    /// It is not well formed.
    #[error("the name server's answer cannot be understood")]
    Malformed,
}

impl Question {
    /// A question for the addresses of one family. `id` must be random. `None` for a name that cannot be asked for.
    pub fn new(name: &str, family: Family, id: u16) -> Option<Question> {
        let kind = match family {
            Family::V4 => A,
            Family::V6 => AAAA,
        };
        Some(Question { id, name: Name::parse(name)?, kind })
    }

    /// The message that asks it.
    pub fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(HEADER + self.name.0.len() + 4);
        // One question and nothing else.
        for word in [self.id, RECURSION_DESIRED, 1, 0, 0, 0] {
            message.extend(word.to_be_bytes());
        }
        message.extend(&self.name.0);
        for word in [self.kind, INTERNET] {
            message.extend(word.to_be_bytes());
        }
        message
    }

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// When there is no answer to this question in it.
    pub fn answer(&self, message: &[u8]) -> Result<Answer, NoAnswer> {
        let mut reader = Reader { message, position: 0 };
        self.check_question(&mut reader)?;
        let mut header = Reader { message, position: 2 };
        let flags = header.word().ok_or(NoAnswer::Malformed)?;
        match flags & RCODE {
            0 => {}
            NO_SUCH_NAME => return Err(NoAnswer::NoSuchName),
            code => return Err(NoAnswer::Failed(code)),
        }
        header.position = 6;
        let count = header.word().ok_or(NoAnswer::Malformed)?;
        let is_truncated = flags & TRUNCATED != 0;
        let mut records = Vec::new();
        for _ in 0..count {
            match reader.record() {
                Some(record) => records.push(record),
                // The rest was cut off.
                None if is_truncated => break,
                None => return Err(NoAnswer::Malformed),
            }
        }
        let answer = self.follow(&records);
        if is_truncated && answer.addresses.is_empty() {
            return Err(NoAnswer::Truncated);
        }
        Ok(answer)
    }

    /// Leaves `reader` behind the question.
    fn check_question(&self, reader: &mut Reader<'_>) -> Result<(), NoAnswer> {
        let header = [reader.word(), reader.word(), reader.word()];
        let [Some(id), Some(flags), Some(questions)] = header else { return Err(NoAnswer::Unrelated) };
        if id != self.id || flags & IS_RESPONSE == 0 || flags & OPCODE != 0 || questions != 1 {
            return Err(NoAnswer::Unrelated);
        }
        reader.position = HEADER;
        let question = (reader.name(), reader.word(), reader.word());
        match question == (Some(self.name.clone()), Some(self.kind), Some(INTERNET)) {
            true => Ok(()),
            false => Err(NoAnswer::Unrelated),
        }
    }

    /// From alias to alias to the addresses. Records may come in any order.
    fn follow(&self, records: &[Record]) -> Answer {
        let mut name = &self.name;
        let mut ttl = u32::MAX;
        for _ in 0..=MAX_ALIASES {
            let mut addresses = Vec::new();
            let mut alias = None;
            for record in records.iter().filter(|record| record.owner == *name) {
                match &record.data {
                    Data::Address(address) if record.kind == self.kind => {
                        ttl = ttl.min(record.ttl);
                        addresses.push(*address);
                    }
                    Data::Alias(target) => alias = Some((target, record.ttl)),
                    _ => {}
                }
            }
            if !addresses.is_empty() {
                return Answer { addresses, ttl: Duration::from_secs(ttl.into()) };
            }
            let Some((target, its_ttl)) = alias else { break };
            ttl = ttl.min(its_ttl);
            name = target;
        }
        Answer::default()
    }
}

/// A name as it is on the wire: labels with their lengths, in lower case, and an empty one at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name(Vec<u8>);

impl Name {
    fn parse(text: &str) -> Option<Name> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.strip_suffix('.').unwrap_or(text).split('.') {
            if label.is_empty() || label.len() > MAX_LABEL || !label.is_ascii() {
                return None;
            }
            wire.push(u8::try_from(label.len()).ok()?);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then_some(Name(wire))
    }
}

struct Record {
    owner: Name,
    kind: u16,
    ttl: u32,
    data: Data,
}

enum Data {
    Address(IpAddr),
    Alias(Name),
    Other,
}

struct Reader<'a> {
    message: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.position.checked_add(length)?;
        let bytes = self.message.get(self.position..end)?;
        self.position = end;
        Some(bytes)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn name(&mut self) -> Option<Name> {
        let mut wire = Vec::new();
        // Where reading goes on behind the name, once a pointer has led away.
        let mut behind = None;
        // A pointer leads to before what has been read last, so that this ends.
        let mut before = self.position;
        loop {
            let length = *self.take(1)?.first()?;
            match length >> 6 {
                0 => {
                    let label = self.take(length.into())?;
                    wire.push(length);
                    wire.extend(label.iter().map(u8::to_ascii_lowercase));
                    if wire.len() > MAX_NAME {
                        return None;
                    }
                    if length == 0 {
                        break;
                    }
                }
                3 => {
                    let low = *self.take(1)?.first()?;
                    let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    if target >= before {
                        return None;
                    }
                    behind = behind.or(Some(self.position));
                    (before, self.position) = (target, target);
                }
                _ => return None,
            }
        }
        self.position = behind.unwrap_or(self.position);
        Some(Name(wire))
    }

    fn record(&mut self) -> Option<Record> {
        let owner = self.name()?;
        let (kind, class) = (self.word()?, self.word()?);
        let ttl = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        let length = self.word()?;
        let start = self.position;
        let bytes = self.take(length.into())?;
        let data = match (class, kind) {
            (INTERNET, A) => Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
            (INTERNET, AAAA) => Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
            (INTERNET, CNAME) => {
                // It may point to anything before it.
                let mut alias = Reader { message: self.message, position: start };
                let target = alias.name()?;
                if alias.position != self.position {
                    return None;
                }
                Data::Alias(target)
            }
            _ => Data::Other,
        };
        // RFC 2181, section 8: the highest bit means nothing that a name server may say.
        let ttl = if ttl >> 31 == 0 { ttl } else { 0 };
        Some(Record { owner, kind, ttl, data })
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
