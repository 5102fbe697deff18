//! Tells the loss of a line that loses packets whatever is sent from the loss of a queue that is too short to be seen.
//!
//! The latter goes when no more is sent than arrives. Where packets are still lost after that, they are lost anyway.

use std::time::Duration;

use super::Time;

/// So much loss more than is known of the line asks for a reason.
const UNEXPLAINED: f64 = 0.04;
/// A trial is over when it has become so little,
const EXPLAINED: f64 = 0.02;
/// or after a round trip and so many packets, of which it is known how many were lost,
const TRIAL_PACKETS: f64 = 200.0;
/// but no later than this besides the round trip, in seconds.
const TRIAL_LIMIT: f64 = 2.0;
/// and no sooner than this.
const TRIAL_LEAST: f64 = 0.2;
/// It sends no less than this part of the rate before.
const TRIAL_SHARE: f64 = 0.7;
/// When loss was our own doing, that is the reason for the next one as well, for so long, unless it stays although the
/// rate has fallen as far as in a trial.
const OURS: Duration = Duration::from_secs(10);
/// No line is believed to lose more than this by itself.
const MOST: f64 = 0.3;
/// Time constants, in seconds: with which less loss is believed, and with which all of it is forgotten, so that what was
/// wrongly believed does not stay.
const LESS: f64 = 1.0;
const FORGET: f64 = 15.0;

/// What is known of a line's own loss.
#[derive(Debug, Default)]
pub struct RandomLoss {
    share: f64,
    trial: Option<Trial>,
    /// Until when loss is our own doing, and the rate when that was found out.
    ours: Option<(Time, f64)>,
}

#[derive(Debug)]
struct Trial {
    since: Time,
    rate: f64,
    delivery: f64,
    loss: f64,
}

/// What is known at the time of a report; rates in bytes a second, shares from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// What is sent.
    pub rate: f64,
    /// What arrives.
    pub delivery: f64,
    /// Of the recent packets that were sent.
    pub loss: f64,
    /// Round trip, in seconds.
    pub rtt: f64,
    /// Since the report before, in seconds.
    pub elapsed: f64,
}

/// What to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Advice {
    /// What the queue's length allows.
    Free,
    /// No more than arrives: the loss is our own doing.
    NoMore,
    /// This, in bytes a second.
    Rate(f64),
}

impl RandomLoss {
    /// The part of `loss` that the line does not lose by itself.
    pub fn excess(&self, loss: f64) -> f64 {
        (loss - self.share).max(0.0)
    }

    /// Whether so much loss is only what the line loses by itself, or hardly more.
    pub fn explains(&self, loss: f64) -> bool {
        self.excess(loss) <= UNEXPLAINED
    }

    /// What was sent, of which so much has arrived.
    pub fn sent(&self, delivery: f64) -> f64 {
        delivery / (1.0 - self.share)
    }

    /// The queue is to be seen again, or little is sent: loss tells nothing.
    pub fn cancel(&mut self) {
        self.trial = None;
    }

    /// Learns while the line is busy and no queue is to be seen.
    pub fn observe(&mut self, seen: &Observation, now: Time) -> Advice {
        self.share *= (-seen.elapsed / FORGET).exp();
        self.share += (seen.loss - self.share).min(0.0) * (1.0 - (-seen.elapsed / LESS).exp());
        let Observation { rate, delivery, loss, rtt, .. } = *seen;
        let Some(trial) = self.trial.take_if(|_| self.share + EXPLAINED < loss) else {
            self.trial = None;
            if self.explains(loss) {
                return Advice::Free;
            }
            if self.ours.is_none_or(|(until, then)| until <= now || rate < TRIAL_SHARE * then) {
                self.trial = Some(Trial { since: now, rate, delivery, loss });
            }
            return Advice::NoMore;
        };
        let least = TRIAL_SHARE * trial.rate;
        if now.since(trial.since).as_secs_f64()
            < rtt + (TRIAL_PACKETS * 1500.0 / rate).clamp(TRIAL_LEAST, TRIAL_LIMIT)
        {
            self.trial = Some(trial);
            return if rate > least { Advice::NoMore } else { Advice::Rate(least) };
        }
        // What would still be lost if the line carried no more than at the start, and what if the line lost it all.
        let ours = (1.0 - trial.delivery / rate).max(0.0);
        let own = trial.loss.max(1.0 - trial.delivery / trial.rate);
        if loss > (ours + own) / 2.0 {
            self.share = loss.min(MOST);
            return Advice::Rate(trial.rate);
        }
        self.ours = Some((now + OURS, rate));
        Advice::NoMore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three seconds of a line that carries so much and loses a share of it by itself; the mean of what was sent in the
    /// last two.
    fn run(random: &mut RandomLoss, capacity: f64, lost: f64, mut rate: f64) -> f64 {
        let (mut loss, mut sum) = (0.0, 0.0);
        for step in 0..300u32 {
            let delivery = rate.min(capacity) * (1.0 - lost);
            loss += (1.0 - delivery / rate - loss) * 0.1;
            let seen = Observation { rate, delivery, loss, rtt: 0.05, elapsed: 0.01 };
            rate = match random.observe(&seen, Time::from_millis(u64::from(step) * 10)) {
                Advice::Free => rate * 1.001,
                Advice::NoMore => delivery,
                Advice::Rate(rate) => rate,
            };
            sum += if step >= 100 { rate } else { 0.0 };
        }
        sum / 200.0
    }

    #[test]
    fn a_line_that_loses_whatever_is_sent_keeps_its_rate() {
        for lost in [0.05, 0.1, 0.2] {
            let mut random = RandomLoss::default();
            let mean = run(&mut random, 1e9, lost, 1e6);
            assert!(mean >= 1e6 && random.explains(lost), "{lost}: {mean} {random:?}");
        }
    }

    /// The delivery of a moment may have been a burst's.
    #[test]
    fn a_wrong_verdict_is_doubted_when_the_loss_stays() {
        let mut random = RandomLoss { ours: Some((Time::from_millis(60_000), 1e6)), ..RandomLoss::default() };
        let mean = run(&mut random, 1e9, 0.1, 1e6);
        assert!(mean > 0.5e6 && random.explains(0.1), "{mean} {random:?}");
    }

    #[test]
    fn a_short_queue_is_not_overrun() {
        for rate in [1.06e6, 1.3e6, 2e6, 4e6] {
            let mut random = RandomLoss::default();
            let mean = run(&mut random, 1e6, 0.0, rate);
            assert!(mean < 1.1e6 && random.excess(0.2) > 0.15, "{rate}: {mean} {random:?}");
        }
    }

    #[test]
    fn what_was_wrongly_believed_is_forgotten() {
        let mut random = RandomLoss { share: 0.3, ..RandomLoss::default() };
        run(&mut random, 1e9, 0.0, 1e6);
        assert!(random.excess(0.1) > 0.08, "{random:?}");
    }
}
