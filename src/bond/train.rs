//! The receiving end of a train: packets sent back to back, whose spacing on arrival shows the rate of their link.

use std::time::Duration;

use super::wire::{Frame, TICKS, ticks};
use super::{LinkId, Time};

/// What has not come for so long after its neighbour will not come: the queue in front of the line was too short for
/// all of the train, or the line lost it.
const PATIENCE: Duration = Duration::from_millis(60);

/// A train that is arriving.
#[derive(Debug)]
pub struct Train {
    id: u8,
    first: Time,
    last: Time,
    /// All that came after the first packet.
    bytes: u32,
}

impl Train {
    /// Takes a packet of the train `id`, and begins with it when it belongs to none that is `arriving`. True when it is
    /// the last one of `count`.
    pub fn enter(
        arriving: &mut Option<Train>,
        (id, index, count): (u8, u8, u8),
        line_bytes: usize,
        now: Time,
    ) -> bool {
        match arriving {
            Some(train) if train.id == id && index > 0 => {
                train.bytes = train.bytes.saturating_add(line_bytes as u32);
                train.last = now;
                index.saturating_add(1) >= count
            }
            _ => {
                *arriving = Some(Train { id, first: now, last: now, bytes: 0 });
                false
            }
        }
    }

    /// When the rest is waited for no longer.
    pub fn due(&self) -> Time {
        self.last + PATIENCE
    }

    /// What to answer; nothing when a single packet came.
    pub fn reply(&self, link: LinkId) -> Option<Frame<'static>> {
        let span = ticks(self.last).wrapping_sub(ticks(self.first)) & (TICKS - 1);
        (self.bytes > 0).then_some(Frame::TrainReply { link, id: self.id, bytes: self.bytes, ticks: span })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spacing_is_that_of_the_packets_that_came() {
        let mut train = None;
        let mut enter = |index, at| Train::enter(&mut train, (7, index, 10), 1_200, Time::from_millis(at));
        assert!(!enter(0, 100) && !enter(1, 101) && !enter(3, 103));
        let arrived = train.take().unwrap();
        assert_eq!(arrived.due(), Time::from_millis(103) + PATIENCE);
        let ticks = ticks(Time::from_millis(3));
        assert_eq!(arrived.reply(2), Some(Frame::TrainReply { link: 2, id: 7, bytes: 2_400, ticks }));
    }

    #[test]
    fn a_train_ends_with_its_last_packet_and_a_new_one_takes_its_place() {
        let mut train = None;
        let mut enter = |id, index| Train::enter(&mut train, (id, index, 3), 1_200, Time::from_millis(5));
        assert!(!enter(1, 0) && !enter(1, 1) && enter(1, 2));
        assert!(!enter(2, 2), "all of it but the last packet was lost");
        assert_eq!(train.and_then(|train| train.reply(0)), None);
        assert!(!Train::enter(&mut None, (3, 255, 255), 1_200, Time::ZERO));
    }
}
