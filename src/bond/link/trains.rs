//! Trains: packets sent back to back, by whose spacing on arrival the other end sees how fast the link is. One is sent
//! when a link joins whose rate is not known, and now and then on one that gets nothing because it is said to add too
//! little.

use std::time::Duration;

use super::{Link, LinkState};
use crate::Time;
use crate::wire::{Frame, TICK_NANOS};

/// Packets and size of the train that shows a link's rate when it joins.
const LENGTH: u8 = 10;
const PACKET: usize = 1_200;
/// If that train took much less than this many seconds, a second one that should take as long follows, of so many
/// packets at the most.
const TIME: f64 = 0.025;
const LONGEST: u8 = 60;
/// A train's answer is waited for so long and two round trips.
const ANSWER_LIMIT: Duration = Duration::from_millis(300);
/// Without one, another train is sent, so often.
const RETRIES: u8 = 3;
/// A link that is left out shows its rate after so long.
const LEFT_OUT: Duration = Duration::from_millis(500);
/// That train takes at most this many seconds at the believed rate, but has at least so many packets.
const CHECK_TIME: f64 = 0.04;
const SHORTEST: u8 = 4;
/// Pauses between trains for the same reason grow from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(16);

/// The sending end of a link's trains.
pub(super) struct Trains {
    /// The name of the last one, how many packets it has, and how many of them are yet to be sent.
    id: u8,
    length: u8,
    left: u8,
    /// When the answer is waited for no longer.
    until: Option<Time>,
    /// How often it may still be sent again.
    retries: u8,
    /// One was answered since the link joined.
    answered: bool,
    /// Since when the link gets nothing although packets wait.
    left_out_since: Option<Time>,
    joins: Pauses,
    checks: Pauses,
}

impl Trains {
    pub(super) fn new(now: Time) -> Self {
        Trains {
            id: 0,
            length: 0,
            left: 0,
            until: None,
            retries: RETRIES,
            answered: false,
            left_out_since: None,
            joins: Pauses::new(now),
            checks: Pauses::new(now),
        }
    }

    /// A train is on its way, so that the delays are not those of the data.
    pub(super) fn are_on_their_way(&self, now: Time) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// When the answer is overdue.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.until
    }

    /// The link has left the session; it may be another one when it comes back.
    pub(super) fn forget(&mut self) {
        self.answered = false;
    }

    /// The next packet of a train and its size on the line.
    pub(super) fn poll(&mut self) -> Option<(Frame<'static>, usize)> {
        let index = self.length.checked_sub(self.left)?;
        self.left = self.left.checked_sub(1)?;
        Some((Frame::Train { id: self.id, index, count: self.length }, PACKET))
    }
}

/// When the same may be done again: other ends decide how often there is a reason to.
struct Pauses {
    due: Time,
    pause: Duration,
}

impl Pauses {
    fn new(now: Time) -> Self {
        Pauses { due: now, pause: FIRST_PAUSE }
    }

    /// Whether it may be done now, which begins the next pause.
    fn are_over(&mut self, now: Time) -> bool {
        if now < self.due {
            return false;
        }
        if now.since(self.due) > LAST_PAUSE {
            self.pause = FIRST_PAUSE;
        }
        self.due = now + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        true
    }
}

impl Link {
    /// The train `id` arrived: `bytes` in `ticks` after its first packet.
    pub fn train_reply(&mut self, id: u8, bytes: u32, ticks: u32, now: Time) {
        if id != self.trains.id {
            return;
        }
        if self.trains.until.take().is_some() {
            // The end of the train may be lost where the queue is short: what is sent next tells.
            self.next_probe = self.next_probe.map(|due| due.min(now));
        }
        self.trains.answered = true;
        let seconds = f64::from(ticks.max(1)) * TICK_NANOS as f64 / 1e9;
        let rate = f64::from(bytes) / seconds;
        // A short train on a quick line, or between two moods of a radio, says little: a longer one follows.
        let packets = (rate * TIME / PACKET as f64) as u8;
        let longer = packets > LENGTH && self.trains.length <= LENGTH;
        if longer && (!self.capacity.is_known() || self.capacity.is_doubted(rate)) {
            self.start_train(packets.min(LONGEST), now);
        } else if !longer {
            self.capacity.correct(rate);
        }
        self.capacity.seed(rate);
        self.pacer.set_rate(self.capacity.rate());
    }

    /// Whether the link gets nothing although packets wait, because it is said to add too little. What is believed of it may
    /// be wrong, and nothing would ever correct that: a train now and then does.
    pub fn left_out(&mut self, left_out: bool, now: Time) {
        if !left_out {
            self.trains.left_out_since = None;
            return;
        }
        let since = *self.trains.left_out_since.get_or_insert(now);
        if self.state != LinkState::Up || self.trains.are_on_their_way(now) || now < since + LEFT_OUT {
            return;
        }
        if self.trains.checks.are_over(now) {
            // On a slow line even a short train is a long queue.
            let packets = (self.capacity.rate() as f64 * CHECK_TIME / PACKET as f64) as u8;
            self.start_train(packets.clamp(SHORTEST, LENGTH), now);
        }
    }

    /// The link has come up: shows what it carries, if that is not known. Where a train was what made it look silent, since
    /// it filled the queue of a slow line, there is no other one.
    pub(super) fn show_rate(&mut self, now: Time) {
        if !self.capacity.is_known() && !self.trains.answered && self.trains.joins.are_over(now) {
            self.start_train(LENGTH, now);
        }
    }

    /// Sends a train again that was not answered in time.
    pub(super) fn watch_train(&mut self, now: Time) {
        if self.trains.until.is_none_or(|until| until > now) {
            return;
        }
        self.trains.until = None;
        if !self.capacity.is_known()
            && let Some(left) = self.trains.retries.checked_sub(1)
        {
            self.trains.retries = left;
            self.start_train(LENGTH, now);
        }
    }

    /// The name of the last train.
    #[cfg(test)]
    pub fn train(&self) -> u8 {
        self.trains.id
    }

    fn start_train(&mut self, length: u8, now: Time) {
        let trains = &mut self.trains;
        trains.until = Some(now + self.rtt.smoothed_or(ANSWER_LIMIT) * 2 + ANSWER_LIMIT);
        trains.id = trains.id.wrapping_add(1);
        trains.length = length;
        trains.left = length;
    }
}
