//! From planned packets and waiting frames to sealed datagrams.

use super::Sender;
use crate::cipher::Cipher;
use crate::flight::Outgoing;
use crate::header::{self, Seal};
use crate::link::Link;
use crate::session::Sealer;
use crate::wire::{self, Frame, Kind, Shim, ticks};
use crate::{LinkId, Path, Time, Transmit};

/// Payload bytes kept for sending again, over all links.
const MAX_KEPT: usize = 12 << 20;
/// Datagrams in one transmit at the most, and bytes of them: what `UDP_SEGMENT` takes at once.
const MAX_BATCH: usize = 64;
const MAX_BATCH_BYTES: usize = 65_000;

impl Sender {
    pub(super) fn poll_direct(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        for index in 0..self.links.len() {
            if let Some((path, frames)) = self.links[index].take_direct() {
                let size = self.control(index, path, &frames, 0, false, now, out);
                if size > 0 {
                    return Some(Transmit { path, segment_size: size, ecn: 0 });
                }
            }
        }
        None
    }

    pub(super) fn poll_data(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        let mut transmit: Option<Transmit> = None;
        let mut count = 0;
        while let Some((id, outgoing)) = self.planned.pop_front().or_else(|| self.plan(now)) {
            let Some(index) = self.links.iter().position(|l| l.id == id && l.path.is_some()) else {
                self.resends.push_back(outgoing);
                continue;
            };
            let Some(path) = self.links[index].path else { continue };
            let size = self.datagram_size(index, &outgoing);
            if let Some(transmit) = &transmit
                && (transmit.path != path
                    || size > transmit.segment_size
                    || count >= MAX_BATCH
                    || out.len() + size > MAX_BATCH_BYTES)
            {
                self.planned.push_front((id, outgoing));
                break;
            }
            if !self.data(index, outgoing, now, out) {
                continue;
            }
            count += 1;
            let first = transmit.get_or_insert(Transmit { path, segment_size: size, ecn: 0 });
            if size < first.segment_size {
                break;
            }
        }
        transmit
    }

    pub(super) fn poll_frames(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if link.frames().is_empty() {
                continue;
            }
            let Some(path) = link.path else {
                link.clear_frames();
                continue;
            };
            let frames = link.take_frames();
            let elicits = !wire::Frames::new(&frames).all(|f| matches!(f, Frame::Report(_)));
            let size = self.control(index, path, &frames, 0, elicits, now, out);
            if size > 0 {
                return Some(Transmit { path, segment_size: size, ecn: 0 });
            }
        }
        None
    }

    pub(super) fn poll_padded(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            let Some((frame, size)) = link.poll_padded(now) else { continue };
            let Some(path) = link.path else { continue };
            let mut frames = std::mem::take(&mut self.frames);
            frames.clear();
            frame.write(&mut frames);
            let size = self.control(index, path, &frames, size, false, now, out);
            self.frames = frames;
            if size > 0 {
                return Some(Transmit { path, segment_size: size, ecn: 0 });
            }
        }
        None
    }

    /// Seals a packet of frames, padded to `line_bytes` on the line, and returns its size.
    #[allow(clippy::too_many_arguments)]
    fn control(
        &mut self,
        index: usize,
        path: Path,
        frames: &[u8],
        line_bytes: usize,
        elicits: bool,
        now: Time,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some(link) = self.links.get_mut(index) else { return 0 };
        let start = out.len();
        out.resize(start + wire::HEADER, 0);
        Shim::control(ticks(now)).write(&[], out);
        out.extend_from_slice(frames);
        let padded = line_bytes.saturating_sub(path.header_bytes() + wire::TAG);
        if out.len() - start < padded {
            out.resize(start + padded, 0);
        }
        if !seal(&mut self.sealer, Seal::Sealed, link.id, out, start, now) {
            return 0;
        }
        let size = out.len() - start;
        // Padded probes are few, and there to fill the line.
        if line_bytes == 0 {
            link.pacer.sent(size + path.header_bytes(), now);
        }
        account(link, size + path.header_bytes(), elicits, None, now);
        if elicits {
            link.asked(now);
        }
        size
    }

    /// Data goes in the clear.
    fn is_clear(&self) -> bool {
        self.sealer.cipher() == Some(Cipher::None)
    }

    fn datagram_size(&self, index: usize, outgoing: &Outgoing) -> usize {
        let fragment = usize::from(matches!(outgoing.kind, Kind::Fragment { .. }));
        let size = wire::OVERHEAD + fragment + outgoing.packet.len();
        size + self.piggyback(index, size)
    }

    /// Bytes that waiting frames add to a datagram of `size`, when they fit.
    fn piggyback(&self, index: usize, size: usize) -> usize {
        let Some(link) = self.links.get(index) else { return 0 };
        let length = link.frames().len();
        let room = usize::from(link.mtu.mtu()).saturating_sub(link.path.map_or(48, |p| p.header_bytes()));
        let rides =
            length > 0 && length <= wire::MAX_PIGGYBACK && !self.is_clear() && size + 1 + length <= room;
        if rides { 1 + length } else { 0 }
    }

    fn data(&mut self, index: usize, mut outgoing: Outgoing, now: Time, out: &mut Vec<u8>) -> bool {
        let fragment = usize::from(matches!(outgoing.kind, Kind::Fragment { .. }));
        let rides = self.piggyback(index, wire::OVERHEAD + fragment + outgoing.packet.len()) > 0;
        let clear = self.is_clear();
        let Some(link) = self.links.get_mut(index) else { return false };
        let start = out.len();
        out.resize(start + wire::HEADER, 0);
        let shim = Shim {
            kind: outgoing.kind,
            ordered: outgoing.ordered,
            sent: ticks(now),
            bucket: outgoing.bucket,
            sequence: outgoing.sequence,
        };
        shim.write(if rides { link.frames() } else { &[] }, out);
        if rides {
            link.clear_frames();
        }
        out.extend_from_slice(&outgoing.packet);
        let mode = if clear { Seal::Clear } else { Seal::Sealed };
        if !seal(&mut self.sealer, mode, link.id, out, start, now) {
            self.pool.put(outgoing.packet);
            return false;
        }
        let line_bytes = out.len() - start + link.path.map_or(48, |p| p.header_bytes());
        outgoing.attempts += 1;
        link.pacer.sent(line_bytes, now);
        let forgotten = account(link, line_bytes, true, Some(outgoing), now);
        link.asked(now);
        if let Some(forgotten) = forgotten {
            self.pool.put(forgotten.packet);
        }
        self.bound_kept();
        true
    }

    fn bound_kept(&mut self) {
        if self.links.iter().map(|l| l.flight.payload_bytes()).sum::<usize>() <= MAX_KEPT {
            return;
        }
        let fullest = self.links.iter_mut().max_by_key(|l| l.flight.payload_bytes());
        if let Some(dropped) = fullest.and_then(|l| l.flight.drop_oldest_payload()) {
            self.pool.put(dropped.packet);
        }
    }
}

/// Seals what stands in `out` from `start`. Removes it when the keys do not allow it.
fn seal(sealer: &mut Sealer, mode: Seal, link: LinkId, out: &mut Vec<u8>, start: usize, now: Time) -> bool {
    out.resize(out.len() + wire::TAG, 0);
    let sealed = match (header::LinkId::new(link), out.get_mut(start..)) {
        (Some(link), Some(packet)) => sealer.seal(mode, link, packet, now).is_ok(),
        _ => false,
    };
    if !sealed {
        out.truncate(start);
    }
    sealed
}

fn account(
    link: &mut Link,
    line_bytes: usize,
    elicits: bool,
    payload: Option<Outgoing>,
    now: Time,
) -> Option<Outgoing> {
    link.sent.packets += 1;
    link.sent.bytes += line_bytes as u64;
    link.meter.add(line_bytes, now);
    link.flight.sent(line_bytes, elicits, payload, link.pacer.idle(now), now)
}
