//! The one-way delay of a link: its base, how far it strays by itself, and what of it is a queue.

use std::time::Duration;

use super::{CLOCK_MARGIN, Capacity, Context};
use crate::Time;
use crate::time::seconds;
use crate::window::Windowed;
use crate::wire::{NO_DELAY, Report, TICK_NANOS, TICKS, tick_distance};

/// Clocks that have drifted so many ticks apart, in weeks, are about to be more apart than can be told (67 s).
const FAR: u32 = TICKS / 4;
/// A single change of the delay counts as jitter up to this, in seconds.
const MAX_JITTER: f64 = 0.05;
/// Nor does the queue of others that has come between two reports: so much and three times the jitter are believed.
const USUAL_CHANGE: f64 = 0.002;
/// Samples of the jitter that are averaged.
const JITTER_SAMPLES: u32 = 24;
/// With so many samples from a quiet link, those of the busy one are not needed.
const ENOUGH_QUIET: u32 = 3;
/// Before so many, a sample says nothing about what is usual.
const FEW_SAMPLES: u32 = 3;
/// The part of a bend in the delay of a busy link that is taken for jitter: the rest may be our own queue's.
const BEND_SHARE: f64 = 0.6;
/// Delays of a busy link are compared at least so far apart, as those of a quiet one are: a report may come every few
/// milliseconds, within which the air does not change its mood.
const BEND_SPACING: Duration = Duration::from_millis(20);
/// So many reports after a train still have its queue in them.
const AFTER_TRAIN: u32 = 2;
/// How far the delay is above the smallest on average, in multiples of its mean change: of values spread evenly over a
/// range, a half and a third of it.
const NOISE_OF_JITTER: f64 = 1.5;
/// A link is quiet that was offered less than this share of its rate.
const QUIET: f64 = 0.3;
/// Time in which the smallest delay is looked for, in multiples of the jitter,
const QUEUE_SPAN_JITTER: f64 = 12.0;
/// and how far above the base the smallest is on average without a queue, as a part of the noise.
const NOISE_IN_MINIMUM: f64 = 0.35;
/// A delay that changes by so much from one time to the next is so much above the smallest at the most: half of a range
/// whose values differ by a third of it on average, and as much again.
const NOISE_PER_JITTER: f64 = 3.0;

/// The last delays of a busy link. A queue of ours grows and shrinks steadily; what goes to and fro is the line.
#[derive(Default)]
pub(super) struct Bend {
    before: Option<f64>,
    last: Option<(Time, f64)>,
}

impl Bend {
    /// Enters a delay. Returns how far the one before it is from the mean of its neighbours.
    fn enter(&mut self, delay: f64, now: Time) -> Option<f64> {
        let last = self.last;
        if last.is_some_and(|(at, _)| now.since(at) < BEND_SPACING) {
            return None;
        }
        self.last = Some((now, delay));
        let last = last?.1;
        let before = self.before.replace(last)?;
        Some((last - (delay + before) / 2.0).abs())
    }
}

impl Capacity {
    /// Counts the reports in a row before which little was sent, so that a change of the delay is not our own queue's.
    /// What arrived does not tell: little comes also from a line that has just become slower than we send.
    pub(super) fn count_quiet(&mut self, context: &Context) {
        let quiet = context.newest.is_some_and(|(sent, idle)| {
            self.samples.back().is_some_and(|last| {
                let time = sent.since(last.sent).as_secs_f64();
                idle.as_secs_f64() - last.idle > (1.0 - QUIET) * time
            })
        });
        self.quiet_reports = if quiet { self.quiet_reports.saturating_add(1) } else { 0 };
    }

    pub(super) fn enter_delays(&mut self, report: &Report<'_>, training: bool, now: Time) -> Option<f64> {
        // A queue of ours from before may still drain at the first quiet report.
        let quiet = self.quiet_reports >= 2 && self.competition.is_none() && self.congested.is_none();
        self.since_train = if training { 0 } else { self.since_train.saturating_add(1) };
        if self.since_train <= AFTER_TRAIN {
            self.forget_last_delays();
        }
        let mut above: Option<f64> = None;
        for (class, delay) in [report.short_delay, report.long_delay].into_iter().enumerate() {
            if delay == NO_DELAY {
                continue;
            }
            let mut value = self.delay_of(delay);
            if self.base[class].get().is_some_and(|base| value < base - CLOCK_MARGIN) {
                // A clock stood still, or the path is a shorter one: nor does the base of the other class hold.
                self.forget_delays();
                value = self.delay_of(delay);
            }
            let last = self.last_delay[class].replace(value);
            if let Some(last) = last.filter(|_| quiet) {
                // From report to report, not from packet to packet: neighbours in a burst share their fate.
                self.quiet_samples = (self.quiet_samples + 1).min(JITTER_SAMPLES);
                self.enter_jitter((value - last).abs());
                let excess = self.base[class].get().map_or(0.0, |base| (value - base).clamp(0.0, MAX_JITTER));
                self.noise += (excess - self.noise) / f64::from(self.jitter_samples);
                self.bends[class] = Bend::default();
            } else if self.quiet_samples < ENOUGH_QUIET
                && self.since_train > AFTER_TRAIN
                && let Some(bend) = self.bends[class].enter(value, now)
            {
                self.enter_jitter(BEND_SHARE * bend);
                self.noise = NOISE_OF_JITTER * self.jitter;
            }
            self.base[class].push(value, now);
            if let Some(held) = self.held[class].filter(|held| self.base[class].get() > Some(*held)) {
                self.base[class].restart(held, now);
            }
            let base = self.base[class].get().unwrap_or(value);
            let excess = value - base;
            above = Some(above.map_or(excess, |a: f64| a.min(excess)));
        }
        let above = above?;
        self.queue.push_back((now, above));
        let keep = seconds(self.queue_span());
        while self.queue.len() > 1 && self.queue.front().is_some_and(|(at, _)| now.since(*at) > keep) {
            self.queue.pop_front();
        }
        let smallest = self.queue.iter().map(|(_, q)| *q).fold(f64::INFINITY, f64::min);
        self.queue_delay = (smallest - NOISE_IN_MINIMUM * self.noise).max(0.0);
        if self.queue_delay < 0.001 {
            self.base_met = now;
        }
        Some(above)
    }

    /// Seconds by which a delay is longer than the reference, which is the first one.
    fn delay_of(&mut self, ticks: u32) -> f64 {
        let reference = *self.reference.get_or_insert(ticks);
        let distance = tick_distance(ticks, reference);
        if distance.unsigned_abs() < FAR {
            return f64::from(distance) * TICK_NANOS as f64 / 1e9;
        }
        self.forget_delays();
        self.reference = Some(ticks);
        0.0
    }

    /// No delay from before can be compared with those to come.
    pub(super) fn forget_delays(&mut self) {
        self.base.iter_mut().for_each(Windowed::clear);
        self.queue.clear();
        self.reference = None;
        self.forget_last_delays();
        self.congested = None;
        self.moved = None;
        self.held = [None; 2];
    }

    pub(super) fn forget_last_delays(&mut self) {
        self.last_delay = [None; 2];
        self.bends = [Bend::default(), Bend::default()];
    }

    fn enter_jitter(&mut self, change: f64) {
        let usual =
            if self.jitter_samples > FEW_SAMPLES { USUAL_CHANGE + 3.0 * self.jitter } else { MAX_JITTER };
        self.jitter_samples = (self.jitter_samples + 1).min(JITTER_SAMPLES);
        self.jitter += (change.min(usual).min(MAX_JITTER) - self.jitter) / f64::from(self.jitter_samples);
    }

    /// Length of the time of whose delays the smallest counts, in seconds.
    pub(super) fn queue_span(&self) -> f64 {
        0.02 + (QUEUE_SPAN_JITTER * self.jitter).min(0.15)
    }

    /// The noise without what others queue: a delay above the smallest that hardly changes is no noise.
    pub(super) fn own_noise(&self) -> f64 {
        self.noise.min(NOISE_PER_JITTER * self.jitter)
    }

    /// So much of the delay, in seconds, is no queue.
    pub(super) fn move_base(&mut self, shift: f64, now: Time) {
        for base in &mut self.base {
            if let Some(value) = base.get() {
                base.restart(value + shift, now);
            }
        }
        self.queue.iter_mut().for_each(|(_, q)| *q = (*q - shift).max(0.0));
        self.queue_delay = (self.queue_delay - shift).max(0.0);
    }
}
