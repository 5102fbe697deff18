//! UDP as fast as it goes: the highest rate of which less than 1 % is lost.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::namespace::Namespace;
use nix::sys::socket::{setsockopt, sockopt};

/// Not counted, so that whoever finds out a link's rate has time to.
const WARM_UP: Duration = Duration::from_millis(700);
const COUNTED: Duration = Duration::from_millis(800);
/// How long packets under way are waited for.
const LINGER: Duration = Duration::from_millis(150);
/// Packets handed over in one system call, at most.
const BURST: usize = 64;
/// The sender looks at the clock this often.
const PACE: Duration = Duration::from_micros(100);
const FIRST_RATE: u64 = 10_000;
const HIGHEST_RATE: u64 = 3_000_000;
const STEP: f64 = 1.5;
/// Attempts between the highest rate that went and the lowest that did not.
const REFINEMENTS: u32 = 3;
const SOCKET_BUFFER: usize = 8 << 20;
/// Each datagram's first byte.
const UNCOUNTED: u8 = 0;
const TO_COUNT: u8 = 1;

struct Outcome {
    sent: u64,
    received: u64,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.received * 100 >= self.sent * 99
    }
}

/// The highest rate in packets per second. A rate counts as carried when one of two attempts carries it, since other
/// processes of the machine may take its processors for a moment.
pub fn highest_rate(client: &Namespace, server: &Namespace, target: IpAddr, size: usize) -> io::Result<u64> {
    let carries = |rate: u64| -> io::Result<Option<u64>> {
        for _ in 0..2 {
            let outcome = attempt(client, server, target, size, rate)?;
            if outcome.is_good() {
                return Ok(Some((outcome.received as f64 / COUNTED.as_secs_f64()) as u64));
            }
        }
        Ok(None)
    };
    let (mut good, mut measured, mut bad) = (0, 0, FIRST_RATE);
    while bad <= HIGHEST_RATE {
        let Some(rate) = carries(bad)? else { break };
        (good, measured) = (bad, measured.max(rate));
        // The sender itself does not get further.
        if (rate as f64) < 0.9 * bad as f64 {
            return Ok(measured);
        }
        bad = (bad as f64 * STEP) as u64;
    }
    for _ in 0..REFINEMENTS {
        let middle = good.midpoint(bad);
        match carries(middle)? {
            Some(rate) => (good, measured) = (middle, measured.max(rate)),
            None => bad = middle,
        }
    }
    Ok(measured)
}

fn attempt(
    client: &Namespace,
    server: &Namespace,
    target: IpAddr,
    size: usize,
    rate: u64,
) -> io::Result<Outcome> {
    let receiver = server.run(|| UdpSocket::bind(SocketAddr::new(target, 0)))?;
    let to = receiver.local_addr()?;
    let sender = client.run(|| {
        let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok::<_, io::Error>(socket)
    })?;
    // Packets are not to be lost at the sockets of this program.
    let _ = setsockopt(&receiver, sockopt::RcvBufForce, &SOCKET_BUFFER);
    let _ = setsockopt(&sender, sockopt::SndBufForce, &SOCKET_BUFFER);
    receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (over, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let sent = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                received.fetch_add(count_counted(&receiver), Ordering::Relaxed);
            }
        });
        let sent = send(&sender, size, rate);
        thread::sleep(LINGER);
        over.store(true, Ordering::Relaxed);
        sent
    });
    Ok(Outcome { sent, received: received.into_inner() })
}

/// Sends at `rate`, and returns how many counted packets it has sent.
fn send(socket: &UdpSocket, size: usize, rate: u64) -> u64 {
    let started = Instant::now();
    let mut payload = vec![UNCOUNTED; size];
    let (mut sent, mut counted) = (0u64, 0);
    loop {
        let elapsed = started.elapsed();
        if elapsed >= WARM_UP + COUNTED {
            return counted;
        }
        let counts = elapsed >= WARM_UP;
        if let Some(first) = payload.first_mut() {
            *first = if counts { TO_COUNT } else { UNCOUNTED };
        }
        let due = (elapsed.as_nanos() as u64).saturating_mul(rate) / 1_000_000_000;
        // What could not be sent in time is not made up for in one burst.
        let behind = due.saturating_sub(sent);
        if behind > rate / 100 {
            sent = due - rate / 100;
        }
        let burst = due.saturating_sub(sent).min(BURST as u64) as usize;
        if burst == 0 {
            thread::sleep(PACE);
            continue;
        }
        let done = send_burst(socket, &mut payload, burst);
        sent += done.max(1);
        counted += if counts { done } else { 0 };
    }
}

/// Sends the same payload several times by one system call.
fn send_burst(socket: &UdpSocket, payload: &mut [u8], count: usize) -> u64 {
    let mut piece = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() };
    // SAFETY: all zeroes are valid for these plain structures. Every header points to `piece`, and that to `payload`;
    // both live until the call returns, and the kernel only reads them. `count` is at most the length of the array.
    let sent = unsafe {
        let mut messages: [libc::mmsghdr; BURST] = std::mem::zeroed();
        for message in &mut messages {
            message.msg_hdr.msg_iov = &raw mut piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count.min(BURST) as libc::c_uint, 0)
    };
    u64::try_from(sent).unwrap_or(0)
}

/// Waits for packets, and counts those that are to be counted.
fn count_counted(socket: &UdpSocket) -> u64 {
    let mut firsts = [UNCOUNTED; BURST];
    let mut pieces = [const { libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 } }; BURST];
    for (piece, first) in pieces.iter_mut().zip(&mut firsts) {
        piece.iov_base = (&raw mut *first).cast();
    }
    // SAFETY: all zeroes are valid for these plain structures. Every header points to a piece of its own, and that to
    // a byte of its own in `firsts`; all of them live until the call returns. Longer datagrams are cut by the kernel.
    let received = unsafe {
        let mut messages: [libc::mmsghdr; BURST] = std::mem::zeroed();
        for (message, piece) in messages.iter_mut().zip(&mut pieces) {
            message.msg_hdr.msg_iov = &raw mut *piece;
            message.msg_hdr.msg_iovlen = 1;
        }
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            BURST as libc::c_uint,
            libc::MSG_WAITFORONE,
            std::ptr::null_mut(),
        )
    };
    let received = usize::try_from(received).unwrap_or(0);
    firsts.iter().take(received).filter(|first| **first == TO_COUNT).count() as u64
}
