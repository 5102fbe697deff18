//! ICMP and ICMPv6 echo (RFC 792, RFC 4443) out of one device, whatever the routes say.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout};

/// Bytes that tell our echo from others': with 16 random ones nobody can answer without having seen it.
pub const TOKEN_BYTES: usize = 16;

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// Sends one echo request by `device` and waits for its answer. Needs CAP_NET_RAW.
///
/// # Errors
///
/// `TimedOut` after `limit`; or why it could not be sent.
pub async fn echo(
    device: &str,
    to: IpAddr,
    token: [u8; TOKEN_BYTES],
    limit: Duration,
) -> io::Result<Duration> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    // Open no longer than the answer takes: everybody's ICMP is copied to it.
    let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.send_to(&request(to, &token), &SockAddr::from(SocketAddr::new(to, 0)))?;
    let sent = Instant::now();
    // SAFETY: the descriptor belongs to the socket, which the AsyncFd owns from here on; nothing else closes it.
    let socket =
        unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)?;
    let answer = async {
        let mut buffer = [0; 256];
        loop {
            let received = socket.async_io(Interest::READABLE, |mut socket| socket.read(&mut buffer)).await?;
            if is_answer(buffer.get(..received).unwrap_or_default(), to, &token) {
                return Ok(sent.elapsed());
            }
        }
    };
    timeout(limit, answer).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn request(to: IpAddr, token: &[u8; TOKEN_BYTES]) -> [u8; HEADER + TOKEN_BYTES] {
    let mut packet = [0; HEADER + TOKEN_BYTES];
    let (header, data) = packet.split_at_mut(HEADER);
    data.copy_from_slice(token);
    // The identifier; the sequence number stays 0.
    if let (Some(to), Some(from)) = (header.get_mut(4..6), token.get(..2)) {
        to.copy_from_slice(from);
    }
    let kind = if to.is_ipv4() { 8 } else { 128 };
    if let Some(first) = packet.first_mut() {
        *first = kind;
    }
    // The kernel computes that of ICMPv6, which covers addresses it chooses.
    if to.is_ipv4() {
        let sum = checksum(&packet).to_be_bytes();
        if let Some(field) = packet.get_mut(2..4) {
            field.copy_from_slice(&sum);
        }
    }
    packet
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether a raw socket's packet (IPv4: with IP header) answers our request.
fn is_answer(packet: &[u8], to: IpAddr, token: &[u8; TOKEN_BYTES]) -> bool {
    let (message, kind) = match to {
        IpAddr::V4(_) => {
            let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
            (packet.get(header..).unwrap_or_default(), 0)
        }
        IpAddr::V6(_) => (packet, 129),
    };
    message.first() == Some(&kind) && message.get(HEADER..HEADER + TOKEN_BYTES) == Some(token.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: [u8; TOKEN_BYTES] = *b"0123456789abcdef";

    #[test]
    fn a_request_is_valid_and_its_answer_known() {
        let to = "192.0.2.1".parse().unwrap();
        let packet = request(to, &TOKEN);
        assert_eq!(checksum(&packet), 0, "the sum over a packet with its checksum");
        assert_eq!((packet[0], &packet[8..]), (8, TOKEN.as_slice()));
        let mut answer = vec![0x46; 24];
        answer.extend(packet);
        assert!(!is_answer(&answer, to, &TOKEN), "that is our own request");
        answer[24] = 0;
        assert!(is_answer(&answer, to, &TOKEN));
        assert!(!is_answer(&answer, to, b"0123456789abcdeX"));
        for length in 0..answer.len() {
            assert!(!is_answer(&answer[..length], to, &TOKEN));
        }
        let v6 = request("2001:db8::1".parse().unwrap(), &TOKEN);
        assert_eq!((v6[0], v6[2], v6[3]), (128, 0, 0));
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2,
            "RFC 1071, section 3"
        );
    }
}
