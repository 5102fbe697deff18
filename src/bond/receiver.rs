//! The receiving half of a peer: from opened transport packets to inner packets in order.

use std::time::Duration;

use super::meter::Meter;
use super::packet::{Packet, Pool};
use super::reception::{Arrived, Reception};
use super::resequencer::{Arrival, Order, Patience, Resequencer};
use super::session::{Lifetimes, Opener};
use super::time::earliest;
use super::train::Train;
use super::wire::{Frame, Frames, Kind, MAX_BITMAP, Report, Shim};
use super::{LinkId, MAX_LINKS, Time, ip};

/// Packets that the resequencer holds at the most.
const MAX_HELD: usize = 4_096;
/// Packets that are being put together from fragments at the most.
const MAX_PARTIAL: usize = 64;
const MAX_INNER: usize = 2_048;
/// Fragments wait for the others of their packet for at most so long: no part of it is sent again after that, and their
/// number may name another packet later.
const MAX_ASSEMBLY: Duration = Duration::from_secs(5);

/// What came with an opened transport packet.
pub struct Opened<'a> {
    /// Over which link.
    pub link: LinkId,
    /// Full packet number.
    pub number: u64,
    /// Bytes on the line, with IP and UDP headers.
    pub line_bytes: usize,
    /// The outer packet had the mark CE.
    pub marked: bool,
    /// Only header and shim are authentic: the cipher is `none`.
    pub clear: bool,
    /// Shim, frames and payload.
    pub plain: &'a [u8],
}

/// One link in the receiving direction.
pub struct Incoming {
    reception: Reception,
    /// Packets and bytes on the line that came.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    meter: Meter,
    train: Option<Train>,
}

struct Partial {
    since: Time,
    bucket: u16,
    sequence: u32,
    parts: [Option<Packet>; 15],
}

/// The receiving half.
pub struct Receiver {
    /// The keys.
    pub opener: Opener,
    links: [Option<Box<Incoming>>; MAX_LINKS],
    resequencer: Resequencer,
    partial: Vec<Partial>,
    pool: Pool,
    whole: Packet,
    /// Answers for the sending half to send.
    replies: Vec<Frame<'static>>,
    /// Inner packets and bytes delivered.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Transport packets whose inside made no sense.
    pub malformed: u64,
}

impl Receiver {
    /// A receiver that knows no links yet.
    pub fn new(lifetimes: Lifetimes) -> Self {
        Receiver {
            opener: Opener::new(lifetimes),
            links: [const { None }; MAX_LINKS],
            resequencer: Resequencer::new(MAX_HELD),
            partial: Vec::new(),
            pool: Pool::new(MAX_PARTIAL),
            whole: Packet::default(),
            replies: Vec::new(),
            packets: 0,
            bytes: 0,
            malformed: 0,
        }
    }

    /// A new session lineage: nothing of the old order holds.
    pub fn restart(&mut self) {
        for link in self.links.iter_mut().flatten() {
            link.reception = Reception::new();
            link.train = None;
        }
        self.resequencer.reset();
        self.partial.clear();
    }

    /// Takes an opened packet that is new. Inner packets go to `deliver`, frames for the sending half to `on_frame`.
    pub fn receive(
        &mut self,
        opened: &Opened<'_>,
        now: Time,
        deliver: &mut dyn FnMut(&[u8]),
        on_frame: &mut dyn FnMut(Frame<'_>),
    ) {
        let Some((shim, frames, payload)) = Shim::parse(opened.plain) else {
            self.malformed += 1;
            return;
        };
        if opened.clear && (!frames.is_empty() || matches!(shim.kind, Kind::Control)) {
            self.malformed += 1;
            return;
        }
        let Some(slot) = self.links.get_mut(usize::from(opened.link)) else { return };
        let incoming = slot.get_or_insert_with(|| Box::new(Incoming::new()));
        incoming.packets += 1;
        incoming.bytes += opened.line_bytes as u64;
        incoming.meter.add(opened.line_bytes, now);
        let mut elicits = !matches!(shim.kind, Kind::Control);
        let mut asked = false;
        for frame in Frames::new(frames) {
            elicits |= !matches!(frame, Frame::Report(_));
            match frame {
                Frame::Ping => asked = true,
                Frame::GiveUp { bucket, sequence } => {
                    let (packets, bytes) = (&mut self.packets, &mut self.bytes);
                    self.resequencer.give_up(bucket, sequence, now, &mut |packet| {
                        *packets += 1;
                        *bytes += packet.len() as u64;
                        deliver(packet);
                    });
                }
                Frame::MtuProbe { size } => self.replies.push(Frame::MtuReply { link: opened.link, size }),
                Frame::Train { id, index, count } => {
                    if Train::enter(&mut incoming.train, (id, index, count), opened.line_bytes, now) {
                        self.replies.extend(incoming.end_train(opened.link));
                    }
                }
                frame => on_frame(frame),
            }
        }
        let arrived = Arrived {
            number: opened.number,
            line_bytes: opened.line_bytes,
            sent: shim.sent,
            marked: opened.marked,
            elicits,
        };
        incoming.reception.record(&arrived, now);
        if asked {
            incoming.reception.request(now);
        }
        match shim.kind {
            Kind::Control => {}
            Kind::Data => self.sequence(opened.link, &shim, payload, now, deliver),
            Kind::Fragment { index, count } => {
                if self.assemble(&shim, (index, count), payload, now) {
                    let whole = std::mem::take(&mut self.whole);
                    self.sequence(opened.link, &shim, &whole, now, deliver);
                    self.whole = whole;
                }
            }
        }
    }

    /// The answers to what came, or came no more.
    pub fn take_replies(&mut self) -> impl Iterator<Item = Frame<'static>> + '_ {
        self.replies.drain(..)
    }

    /// How long a gap is waited for.
    pub fn set_patience(&mut self, patience: Patience) {
        self.resequencer.set_patience(patience);
    }

    /// Reports on a link are sent about four times this.
    pub fn set_round_trip(&mut self, link: LinkId, rtt: Duration) {
        if let Some(Some(incoming)) = self.links.get_mut(usize::from(link)) {
            incoming.reception.set_round_trip(rtt);
        }
    }

    /// When [`Receiver::handle_timeout`] or [`Receiver::poll_reports`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.links.iter().flatten().fold(self.resequencer.poll_timeout(), |first, link| {
            earliest(&[first, link.reception.due(), link.train.as_ref().map(Train::due)])
        })
    }

    /// Lets go what waited long enough. There may be [replies](Receiver::take_replies) afterwards.
    pub fn handle_timeout(&mut self, now: Time, deliver: &mut dyn FnMut(&[u8])) {
        for (id, incoming) in self.links.iter_mut().enumerate() {
            let Some(incoming) = incoming else { continue };
            if incoming.train.as_ref().is_some_and(|train| train.due() <= now) {
                self.replies.extend(incoming.end_train(id as LinkId));
            }
        }
        let (packets, bytes) = (&mut self.packets, &mut self.bytes);
        self.resequencer.handle_timeout(now, &mut |packet| {
            *packets += 1;
            *bytes += packet.len() as u64;
            deliver(packet);
        });
    }

    /// Gives the reports that are due, and whether each tells of a loss.
    pub fn poll_reports(&mut self, now: Time, mut send: impl FnMut(Report<'_>, bool)) {
        for (id, incoming) in self.links.iter_mut().enumerate() {
            let Some(incoming) = incoming else { continue };
            if incoming.reception.due().is_some_and(|due| due <= now) {
                let mut memory = [0; MAX_BITMAP];
                let hole = incoming.reception.tells_of_holes();
                if let Some(report) = incoming.reception.report(id as LinkId, now, &mut memory) {
                    send(report, hole);
                }
            }
        }
    }

    /// What came over a link.
    pub fn incoming(&self, link: LinkId) -> Option<&Incoming> {
        self.links.get(usize::from(link))?.as_deref()
    }

    /// The resequencer, for its counters.
    pub fn resequencer(&self) -> &Resequencer {
        &self.resequencer
    }

    fn sequence(
        &mut self,
        link: LinkId,
        shim: &Shim,
        payload: &[u8],
        now: Time,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        let arrival = Arrival {
            bucket: shim.bucket,
            seq: shim.sequence,
            order: match shim.ordered {
                false => Order::Any,
                true if ip::is_tcp(payload) => Order::Stream,
                true => Order::Datagrams,
            },
            link,
            sent: u64::from(shim.sent),
        };
        let (packets, bytes) = (&mut self.packets, &mut self.bytes);
        self.resequencer.receive(arrival, payload, now, &mut |packet| {
            *packets += 1;
            *bytes += packet.len() as u64;
            deliver(packet);
        });
    }

    /// Enters a fragment; true when `self.whole` now holds the whole packet.
    fn assemble(&mut self, shim: &Shim, (index, count): (u8, u8), payload: &[u8], now: Time) -> bool {
        while self.partial.first().is_some_and(|p| now.since(p.since) > MAX_ASSEMBLY) {
            self.partial.remove(0);
        }
        let same = |p: &Partial| p.bucket == shim.bucket && p.sequence == shim.sequence;
        let at = match self.partial.iter().position(same) {
            Some(at) => at,
            None => {
                if self.partial.len() >= MAX_PARTIAL {
                    self.partial.remove(0);
                }
                self.partial.push(Partial {
                    since: now,
                    bucket: shim.bucket,
                    sequence: shim.sequence,
                    parts: [const { None }; 15],
                });
                self.partial.len() - 1
            }
        };
        let Some(partial) = self.partial.get_mut(at) else { return false };
        let Some(slot) = partial.parts.get_mut(usize::from(index)) else { return false };
        if slot.is_none() {
            let mut packet = self.pool.take();
            packet.copy_from(payload);
            *slot = Some(packet);
        }
        let parts = partial.parts.iter().take(usize::from(count));
        let length: usize = parts.clone().flatten().map(|p| p.len()).sum();
        if parts.flatten().count() < usize::from(count) {
            return false;
        }
        let partial = self.partial.remove(at);
        self.whole.set_len(0);
        for part in partial.parts.into_iter().flatten() {
            if length <= MAX_INNER {
                self.whole.append(&part);
            }
            self.pool.put(part);
        }
        length <= MAX_INNER
    }
}

impl Incoming {
    fn new() -> Self {
        Incoming { reception: Reception::new(), packets: 0, bytes: 0, meter: Meter::default(), train: None }
    }

    /// Bits a second on the line.
    pub fn rate(&self, now: Time) -> u64 {
        self.meter.rate(now)
    }

    /// Share of packet numbers that did not come.
    pub fn loss(&self) -> f64 {
        let (packets, lost) = self.reception.counts();
        lost as f64 / (packets + lost).max(1) as f64
    }

    /// The answer to the train that is arriving, whose other packets are waited for no longer.
    fn end_train(&mut self, link: LinkId) -> Option<Frame<'static>> {
        self.train.take()?.reply(link)
    }
}
