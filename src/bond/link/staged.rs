//! What the scheduler has given to a link before the link can send it.

use std::collections::VecDeque;

use crate::flight::Outgoing;
use crate::{Time, wire};

/// Bytes that tunnel, UDP and IPv4 add to a packet on the line.
const LINE_OVERHEAD: usize = wire::OVERHEAD + 28;

/// Data that the scheduler has given to a link and that its pacer has not let go yet.
#[derive(Default)]
pub struct Staged {
    packets: VecDeque<Outgoing>,
    /// So many of them, at the front, belong to flows that send little.
    urgent: usize,
    bytes: usize,
}

impl Staged {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes on the line, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first of those that wait for all others was staged.
    pub fn oldest(&self) -> Option<Time> {
        self.packets.get(self.urgent).map(|outgoing| outgoing.born)
    }

    /// Adds a packet behind the others.
    pub fn push(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.packet.len() + LINE_OVERHEAD;
        self.packets.push_back(outgoing);
    }

    /// Adds a packet of a flow that sends little: behind others of this kind, before the rest.
    pub fn push_urgent(&mut self, outgoing: Outgoing) {
        self.bytes += outgoing.packet.len() + LINE_OVERHEAD;
        self.packets.insert(self.urgent, outgoing);
        self.urgent += 1;
    }

    /// A flow has come to send little: moves what it has here before the rest. Returns whether there was something.
    pub fn promote(&mut self, bucket: u16) -> bool {
        let mut found = false;
        for index in self.urgent..self.packets.len() {
            if self.packets.get(index).is_some_and(|outgoing| outgoing.bucket == bucket) {
                found = true;
                if let Some(outgoing) = self.packets.remove(index) {
                    self.packets.insert(self.urgent, outgoing);
                    self.urgent += 1;
                }
            }
        }
        found || self.packets.iter().take(self.urgent).any(|outgoing| outgoing.bucket == bucket)
    }

    /// Takes the packet that is next.
    pub fn pop(&mut self) -> Option<Outgoing> {
        let outgoing = self.packets.pop_front()?;
        self.urgent = self.urgent.saturating_sub(1);
        self.bytes -= outgoing.packet.len() + LINE_OVERHEAD;
        Some(outgoing)
    }

    /// Takes all of them.
    pub fn take_all(&mut self, into: &mut Vec<Outgoing>) {
        into.extend(std::mem::take(self).packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;
    use crate::wire::Kind;

    fn outgoing(bucket: u16, sequence: u32) -> Outgoing {
        let mut packet = Packet::default();
        packet.copy_from(&[0; 100]);
        Outgoing {
            packet,
            kind: Kind::Data,
            ordered: true,
            bucket,
            sequence,
            born: Time::ZERO,
            attempts: 0,
            pinned: None,
            sparse: false,
            class: 0,
        }
    }

    #[test]
    fn a_promoted_flow_goes_first_and_stays_in_order() {
        let mut staged = Staged::default();
        for (bucket, sequence) in [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2)] {
            staged.push(outgoing(bucket, sequence));
        }
        assert!(!staged.promote(3), "nothing of that flow");
        assert!(staged.promote(2));
        staged.push_urgent(outgoing(2, 2));
        staged.push(outgoing(1, 3));
        assert!(staged.promote(2), "it is there already");
        let order: Vec<_> = std::iter::from_fn(|| staged.pop()).map(|o| (o.bucket, o.sequence)).collect();
        assert_eq!(order, [(2, 0), (2, 1), (2, 2), (1, 0), (1, 1), (1, 2), (1, 3)]);
        assert_eq!(staged.bytes(), 0);
    }
}
