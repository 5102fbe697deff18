//! A queue that does not go away: tells a path that has become longer from others that fill the line.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Capacity, Context, HISTORY};
use crate::Time;
use crate::competition::{self, Competition};

/// So much more than the queue must have drained in theory before it is taken for none.
const DRAIN_PROOF: f64 = 1.3;
/// A base that has to move up twice within this time is not the path's.
const MOVED_AGAIN: Duration = Duration::from_secs(4);
/// A queue that grows by more than this (in seconds) while ours must drain is not ours.
const RISING: f64 = 0.010;
/// Provided that this part of it should have drained.
const RISING_PROOF: f64 = 0.8;
/// The rate of a train is believed up to so many times what the link has delivered since.
const SEED_TRUST: f64 = 3.0;

/// The base delay was moved up, since the path seems to be longer.
pub(super) struct Moved {
    pub(super) at: Time,
    /// What it was before.
    pub(super) bases: [Option<f64>; 2],
    /// And the rate.
    pub(super) rate: f64,
}

pub(super) struct Congestion {
    since: Time,
    /// The rate before it was lowered.
    rate: f64,
    worst: f64,
    /// Seconds of queue by which what was sent until a time fell short of what the link delivers.
    short: VecDeque<(Time, f64)>,
    /// Seconds of queue that should have gone when the newest packet arrived that is known of: reports may be late, and
    /// what has been done since it was sent shows in none of them.
    drained: f64,
    /// The queue when what is done began to show, and `drained` by then.
    shown: Option<(f64, f64)>,
}

impl Congestion {
    fn new(queue: f64, rate: f64, now: Time) -> Self {
        Congestion { since: now, rate, worst: queue, short: VecDeque::new(), drained: 0.0, shown: None }
    }

    /// In the last `elapsed` seconds we sent less than the link delivers by the share `deficit`; the newest packet that
    /// has arrived was sent at `newest`.
    fn enter(&mut self, deficit: f64, elapsed: f64, newest: Option<Time>, now: Time) {
        let total = self.short.back().map_or(self.drained, |(_, total)| *total) + deficit * elapsed;
        self.short.push_back((now, total));
        while let Some((at, total)) = self.short.front()
            && (self.short.len() > HISTORY || newest.is_some_and(|sent| *at <= sent))
        {
            self.drained = *total;
            self.short.pop_front();
        }
    }
}

impl Capacity {
    /// A queue that does not shrink although we send less than the link delivers is no queue: the path has become
    /// longer, or others keep it filled.
    pub(super) fn watch_for_longer_path(
        &mut self,
        queue: f64,
        target: f64,
        idle: f64,
        context: Context,
        elapsed: f64,
        now: Time,
    ) {
        if queue < 1.5 * target + self.jitter {
            self.congested = None;
            return;
        }
        // What the link was not offered is missing from the queue, too. Before it was filled once the rate is that of a
        // train, which the air may have compressed: a queue can be ours although far less than that is offered.
        let offered = if self.known { 1.0 - idle } else { 1.0 };
        let deficit = (1.0 - offered * (self.rate / self.delivery.max(1.0)).min(1.0)).clamp(0.0, 1.0);
        let (rate, noise) = (self.rate, self.own_noise());
        let state = self.congested.get_or_insert_with(|| Congestion::new(queue, rate, now));
        state.worst = state.worst.max(queue);
        state.enter(deficit, elapsed, context.newest.map(|(sent, _)| sent), now);
        if now.since(state.since).as_secs_f64() <= 1.5 * context.rtt + 0.1 {
            return;
        }
        let (shown, drained) = *state.shown.get_or_insert((queue, state.drained));
        let rising = queue > shown + RISING + noise && state.drained - drained > RISING_PROOF * state.worst;
        if !rising && state.drained < DRAIN_PROOF * state.worst {
            return;
        }
        if queue < 0.7 * state.worst {
            *state = Congestion::new(queue, state.rate, now);
            return;
        }
        let before = state.rate;
        self.congested = None;
        let bases = [self.base[0].get(), self.base[1].get()];
        // A path becomes longer once: it does not go on to grow, and not again and again.
        let again = self.moved.take().filter(|moved| now.since(moved.at) < MOVED_AGAIN);
        if again.is_none() && !rising {
            self.moved = Some(Moved { at: now, bases, rate: before });
            self.move_base(queue - 0.25 * target, now);
            self.gain = 0.2;
            // It was lowered for a queue that is none.
            self.rate = self.rate.max(competition::LEAST_SHARE * self.carried(before));
            self.bound();
            return;
        }
        let (bases, before) = again.map_or((bases, before), |moved| (moved.bases, moved.rate.max(before)));
        for (base, old) in self.base.iter_mut().zip(bases) {
            if let Some(old) = old {
                base.restart(old, now);
            }
        }
        self.held = bases;
        self.competition = Some(Competition::new(self.delivery, self.carried(before), now));
    }

    /// What the line is known to have carried, in bytes a second; `rate` if nothing is. Who has met others from the start
    /// knows more from the train, unless the air has compressed that.
    pub(super) fn carried(&self, rate: f64) -> f64 {
        let delivered = self.largest.get().unwrap_or(rate);
        delivered.max(self.seed.min(SEED_TRUST * delivered))
    }
}
