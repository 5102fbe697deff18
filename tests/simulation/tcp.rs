//! A modelled TCP connection: both its ends, with real segments between them.
//!
//! The client's host opens it (SYN with MSS, window scale, SACK, timestamps, ECN), then one side sends in bulk.
//! There is no FIN: a transfer is over when all is acknowledged.

pub mod control;
pub mod receiver;
pub mod sender;

use self::control::Algorithm;
use self::receiver::Receiver;
use self::sender::{Acknowledgement, Sender};
use crate::packet::{self, ACK, CE, CWR, ECE, ECT0, SYN, Side, TCP_OVERHEAD, TcpHeader};
use crate::world::Outbox;
use crate::{MILLI, Nanos, SECOND};

/// The receive window: 6 MB, the default maximum of Linux.
const RECEIVE_WINDOW: u64 = 6 << 20;
const WINDOW_SCALE: u8 = 7;
/// Milliseconds by which the timestamp of a segment may be older than that of the one that filled the last hole
/// (RFC 7323, 5.3; Linux: TCP_PAWS_WINDOW). One that is still older is dropped: it may be of another age.
const PAWS_WINDOW: i32 = 1;

/// What is asked of a connection.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// The side whose host sends the data.
    pub sender: Side,
    pub algorithm: Algorithm,
    pub ecn: bool,
    /// When the SYN is sent.
    pub start: Nanos,
    /// When the sender stops; `None`: never.
    pub stop: Option<Nanos>,
    /// Bytes to send; `None`: without end.
    pub bytes: Option<u64>,
    /// MTU of both hosts; `None`: the tunnel's when the SYN is sent.
    pub mtu: Option<usize>,
}

impl TcpConfig {
    /// An endless CUBIC transfer without ECN that begins now.
    pub fn bulk(sender: Side) -> Self {
        TcpConfig {
            sender,
            algorithm: Algorithm::Cubic,
            ecn: false,
            start: 0,
            stop: None,
            bytes: None,
            mtu: None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct TcpFlow {
    flow: usize,
    config: TcpConfig,
    sender: Option<Sender>,
    pub receiver: Receiver,
    phase: Phase,
    handshake_timer: Option<Nanos>,
    handshake_backoff: u32,
    syn_sent: Nanos,
    syn_ack_sent: Option<Nanos>,
    mtu: usize,
    mss: [usize; 2],
    ecn: bool,
    /// Initial sequence numbers, by side.
    isn: [u32; 2],
    /// Newest timestamp of the other side, by side (RFC 7323's TS.Recent).
    recent: [u32; 2],
    ce_seen: bool,
    finished_at: Option<Nanos>,
    /// Segments dropped by the model because they were not of this connection's grid.
    pub odd: u64,
    /// Segments dropped because of their old timestamps.
    pub stale: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    SynSent,
    Established,
}

impl TcpFlow {
    pub fn new(flow: usize, config: TcpConfig) -> Self {
        TcpFlow {
            flow,
            sender: None,
            receiver: Receiver::default(),
            phase: Phase::Closed,
            handshake_timer: Some(config.start),
            handshake_backoff: 0,
            syn_sent: 0,
            syn_ack_sent: None,
            mtu: 0,
            mss: [536; 2],
            ecn: false,
            // Near the wrap, so that every longer run crosses it.
            isn: [u32::MAX - 300_000, u32::MAX - 700_000],
            recent: [0; 2],
            ce_seen: false,
            finished_at: None,
            config,
            odd: 0,
            stale: 0,
        }
    }

    /// When all bytes were acknowledged.
    pub fn finished_at(&self) -> Option<Nanos> {
        self.finished_at
    }

    /// What the sender did.
    pub fn counters(&self) -> sender::Counters {
        self.sender.as_ref().map(|sender| sender.counters).unwrap_or_default()
    }

    /// The sending half, for a look at its window.
    pub fn sender(&self) -> Option<&Sender> {
        self.sender.as_ref()
    }

    /// Bytes of payload in a full segment.
    pub fn segment_size(&self) -> usize {
        self.mss[self.config.sender.index()]
    }

    /// When to call [`TcpFlow::on_timer`].
    pub fn next_timer(&self) -> Option<Nanos> {
        let sender = self.sender.as_ref().and_then(Sender::next_timer);
        self.handshake_timer.into_iter().chain(sender).chain(self.receiver.next_timer()).min()
    }

    /// A time that [`TcpFlow::next_timer`] gave has come.
    pub fn on_timer(&mut self, now: Nanos, out: &mut Outbox) {
        if self.handshake_timer.is_some_and(|at| at <= now) {
            self.handshake(now, out);
        }
        if let Some(sender) = &mut self.sender {
            sender.on_timer(now);
        }
        self.send(now, out);
        if self.receiver.must_acknowledge(now) {
            self.acknowledge(now, out);
        }
    }

    /// A segment arrived at the host of `at`.
    pub fn receive(
        &mut self,
        at: Side,
        header: &TcpHeader,
        payload: usize,
        ecn: u8,
        now: Nanos,
        out: &mut Outbox,
    ) {
        if let Some((value, _)) = header.timestamps
            && header.flags & SYN == 0
        {
            let newer_by = value.wrapping_sub(self.recent[at.index()]) as i32;
            if payload > 0 && newer_by < -PAWS_WINDOW {
                self.stale += 1;
                self.acknowledge(now, out);
                return;
            }
            let at_the_edge = |number: u64| (number..=number + 1).contains(&self.receiver.announced);
            if newer_by >= 0 && (payload == 0 || self.number(header.seq).is_some_and(at_the_edge)) {
                self.recent[at.index()] = value;
            }
        }
        if header.flags & SYN != 0 {
            self.on_syn(at, header, now, out);
        } else if at == self.config.sender {
            self.on_acknowledgement(header, now, out);
        } else if payload > 0 {
            self.on_data(header, payload, ecn, now, out);
        }
    }

    fn handshake(&mut self, now: Nanos, out: &mut Outbox) {
        let wait = SECOND << self.handshake_backoff.min(5);
        self.handshake_backoff += 1;
        self.handshake_timer = Some(now + wait);
        match self.phase {
            Phase::Closed | Phase::SynSent => {
                self.phase = Phase::SynSent;
                self.mtu = self.config.mtu.unwrap_or(out.mtu);
                self.syn_sent = now;
                let ecn = if self.config.ecn { ECE | CWR } else { 0 };
                self.send_syn(Side::Client, SYN | ecn, now, out);
            }
            // The acknowledgement of the SYN-ACK stands for a request: it is repeated until data comes.
            Phase::Established if self.config.sender == Side::Server && self.receiver.next == 0 => {
                self.acknowledge(now, out);
            }
            Phase::Established => self.handshake_timer = None,
        }
    }

    fn send_syn(&self, from: Side, flags: u8, now: Nanos, out: &mut Outbox) {
        let header = TcpHeader {
            seq: self.isn[from.index()],
            ack: if flags & ACK != 0 { self.isn[from.other().index()].wrapping_add(1) } else { 0 },
            flags,
            window: u16::MAX,
            mss: Some((self.mtu - 40) as u16),
            window_scale: Some(WINDOW_SCALE),
            sack_permitted: true,
            timestamps: Some((milliseconds(now), self.recent[from.index()])),
            ..TcpHeader::default()
        };
        out.send(from, packet::tcp(self.flow, from, &header, 0, 0));
    }

    fn on_syn(&mut self, at: Side, header: &TcpHeader, now: Nanos, out: &mut Outbox) {
        let mss = usize::from(header.mss.unwrap_or(536)).min(self.mtu - 40);
        if let Some((value, _)) = header.timestamps {
            self.recent[at.index()] = value;
        }
        self.mss[at.index()] = mss - (TCP_OVERHEAD - 40);
        match at {
            Side::Server => {
                self.syn_ack_sent.get_or_insert(now);
                self.ecn = self.config.ecn && header.flags & (ECE | CWR) == ECE | CWR;
                self.send_syn(Side::Server, SYN | ACK | if self.ecn { ECE } else { 0 }, now, out);
            }
            Side::Client => {
                // Also for a SYN-ACK that is repeated: the acknowledgement of the first was lost.
                self.phase = Phase::Established;
                self.handshake_backoff = 0;
                self.handshake_timer = Some(now + SECOND);
                self.ecn = self.ecn && header.flags & ECE != 0;
                if self.config.sender == Side::Client {
                    self.start_sender(now - self.syn_sent);
                    self.send(now, out);
                } else {
                    self.acknowledge(now, out);
                }
            }
        }
    }

    fn start_sender(&mut self, rtt: Nanos) {
        if self.sender.is_some() {
            return;
        }
        let size = self.segment_size() as u64;
        let total = self.config.bytes.map(|bytes| bytes.div_ceil(size));
        let mut sender = Sender::new(self.config.algorithm, total);
        sender.on_established(rtt, RECEIVE_WINDOW / size);
        self.sender = Some(sender);
    }

    fn on_acknowledgement(&mut self, header: &TcpHeader, now: Nanos, out: &mut Outbox) {
        if self.config.stop.is_some_and(|stop| now >= stop) {
            return;
        }
        if self.sender.is_none() {
            let rtt = now - self.syn_ack_sent.unwrap_or(now);
            self.start_sender(rtt);
        }
        let size = self.segment_size() as u64;
        let base = self.isn[self.config.sender.index()].wrapping_add(1);
        let Some(sender) = &mut self.sender else { return };
        let next = sender.unwrap(header.ack.wrapping_sub(base), size);
        let mut ack = Acknowledgement {
            next,
            sacked: Vec::with_capacity(header.sack.len()),
            duplicate: false,
            echo: header
                .timestamps
                .map(|(_, echo)| now / MILLI - u64::from(milliseconds(now).wrapping_sub(echo))),
            congestion: self.ecn && header.flags & ECE != 0,
            window: (u64::from(header.window) << WINDOW_SCALE) / size,
        };
        for (index, &(start, end)) in header.sack.iter().enumerate() {
            let range =
                (sender.unwrap(start.wrapping_sub(base), size), sender.unwrap(end.wrapping_sub(base), size));
            let inside = header.sack.get(1).is_some_and(|&(s, e)| {
                let second =
                    (sender.unwrap(s.wrapping_sub(base), size), sender.unwrap(e.wrapping_sub(base), size));
                second.0 <= range.0 && range.1 <= second.1
            });
            if index == 0 && (range.1 <= next || inside) {
                ack.duplicate = true;
            } else {
                ack.sacked.push(range);
            }
        }
        sender.on_ack(&ack, now);
        if sender.is_finished() {
            self.finished_at.get_or_insert(now);
        }
        self.send(now, out);
    }

    fn on_data(&mut self, header: &TcpHeader, payload: usize, ecn: u8, now: Nanos, out: &mut Outbox) {
        let Some(number) = self.number(header.seq).filter(|_| payload == self.segment_size()) else {
            self.odd += 1;
            return;
        };
        if header.flags & CWR != 0 {
            self.ce_seen = false;
        }
        if ecn == CE {
            if !self.ce_seen {
                self.receiver.hurry();
            }
            self.ce_seen = true;
        }
        self.receiver.on_segment(number, payload as u64, now);
        if self.receiver.must_acknowledge(now) {
            self.acknowledge(now, out);
        }
    }

    /// The number of the data segment that begins at a sequence number, near what the receiver expects.
    fn number(&self, seq: u32) -> Option<u64> {
        let size = self.segment_size() as u64;
        let base = self.isn[self.config.sender.index()].wrapping_add(1);
        let expected = self.receiver.next * size;
        let distance = seq.wrapping_sub(base).wrapping_sub(expected as u32) as i32;
        let offset = expected.checked_add_signed(i64::from(distance))?;
        (offset % size == 0).then_some(offset / size)
    }

    fn send(&mut self, now: Nanos, out: &mut Outbox) {
        if self.config.stop.is_some_and(|stop| now >= stop) {
            // Nothing is retransmitted either: the flow is gone.
            if let Some(sender) = &mut self.sender {
                sender.silence();
            }
            return;
        }
        let from = self.config.sender;
        let size = self.segment_size();
        let Some(sender) = &mut self.sender else { return };
        while let Some(send) = sender.poll_send(now) {
            let offset = (send.segment * size as u64) as u32;
            let header = TcpHeader {
                seq: self.isn[from.index()].wrapping_add(1).wrapping_add(offset),
                ack: self.isn[from.other().index()].wrapping_add(1),
                flags: ACK | if send.reduced && self.ecn { CWR } else { 0 },
                window: u16::MAX,
                timestamps: Some((milliseconds(now), self.recent[from.index()])),
                ..TcpHeader::default()
            };
            // RFC 3168, 6.1.5: retransmissions are not ECN-capable.
            let ecn = if self.ecn && !send.retransmission { ECT0 } else { 0 };
            out.send(from, packet::tcp(self.flow, from, &header, size, ecn));
        }
    }

    fn acknowledge(&mut self, now: Nanos, out: &mut Outbox) {
        let from = self.config.sender.other();
        let size = self.segment_size() as u64;
        let base = self.isn[self.config.sender.index()].wrapping_add(1);
        let wire = |number: u64| base.wrapping_add((number * size) as u32);
        let window = RECEIVE_WINDOW.saturating_sub(self.receiver.waiting() * size);
        let header = TcpHeader {
            seq: self.isn[from.index()].wrapping_add(1),
            ack: wire(self.receiver.next),
            flags: ACK | if self.ce_seen { ECE } else { 0 },
            window: (window >> WINDOW_SCALE).min(0xffff) as u16,
            timestamps: Some((milliseconds(now), self.recent[from.index()])),
            sack: self.receiver.sack().iter().map(|&(start, end)| (wire(start), wire(end))).collect(),
            ..TcpHeader::default()
        };
        out.send(from, packet::tcp(self.flow, from, &header, 0, 0));
        self.receiver.acknowledged();
    }
}

fn milliseconds(now: Nanos) -> u32 {
    (now / MILLI) as u32
}
