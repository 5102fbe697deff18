use proptest::prelude::*;

use super::*;
use crate::wire::{NO_DELAY, TICKS};

const RTT: f64 = 0.03;

fn report(received: u32, bytes: u32, delays: [u32; 2]) -> Report<'static> {
    Report {
        link: 0,
        largest: 0,
        received,
        hold: 0,
        bytes,
        marked: 0,
        short_delay: delays[0],
        long_delay: delays[1],
        jitter: 0,
        run: 0,
        bitmap: &[],
    }
}

/// The receiver's clock is slower than ours: after weeks it has lost more than fits into the numbers on the wire.
#[test]
fn clocks_that_drift_apart_make_no_queue() {
    let mut capacity = Capacity::new(None, Time::ZERO);
    for step in 1..2_000_u32 {
        let now = Time::from_millis(u64::from(step) * 100);
        let context = Context { rtt: RTT, newest: Some((now, Duration::ZERO)), loss: 0.0, lost: 0 };
        let delay = step.wrapping_mul(12_500).wrapping_neg() % (TICKS - 1);
        capacity.report(&report(step * 12_500 % TICKS, step * 10_000, [delay; 2]), context, now);
        let queue = capacity.queue_delay();
        assert!(queue < Duration::from_millis(1), "{queue:?} after {step} reports");
    }
}

/// What has not been filled yet is worth what its train has shown, although it begins with less.
#[test]
fn a_link_that_was_not_used_yet_is_worth_the_rate_of_its_train() {
    let mut capacity = Capacity::new(None, Time::ZERO);
    capacity.seed(400_000.0);
    assert_eq!((capacity.worth(), capacity.rate()), (400_000, 340_000));
}

#[derive(Clone, Debug)]
enum Step {
    Report { received: u32, bytes: u32, delays: [u32; 2], context: Context },
    Train { received: u32, bytes: u32, delays: [u32; 2] },
    Answer(f64),
    PathChanged,
    Limit(Option<u64>),
}

/// A number that somebody who looks for mistakes would take.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(TICKS - 2), Just(TICKS / 2), 0..5_000u32, any::<u32>()]
}

fn delay() -> impl Strategy<Value = u32> {
    prop_oneof![Just(NO_DELAY), number().prop_map(|number| number % TICKS), 1_000..3_000u32]
}

fn step() -> impl Strategy<Value = Step> {
    let delays = || [delay(), delay()];
    let received = || number().prop_map(|number| number % TICKS);
    let share = || prop_oneof![Just(0.0), Just(1.0), 0.0..1.0f64];
    let rtt = prop_oneof![Just(0.0), Just(134.0), 0.0..0.5f64];
    let context =
        (rtt, share(), number(), any::<bool>(), 0..3u64).prop_map(|(rtt, loss, ago, news, lost)| {
            let newest =
                news.then(|| (Time::from_millis(u64::from(ago)), Duration::from_micros(u64::from(ago))));
            Context { rtt, newest, loss, lost }
        });
    prop_oneof![
        8 => (received(), number(), delays(), context).prop_map(|(received, bytes, delays, context)| {
            Step::Report { received, bytes, delays, context }
        }),
        1 => (received(), number(), delays()).prop_map(|(received, bytes, delays)| {
            Step::Train { received, bytes, delays }
        }),
        1 => prop_oneof![Just(0.0), Just(f64::from(u32::MAX) / 8e-6), 0.0..1e9f64].prop_map(Step::Answer),
        1 => Just(Step::PathChanged),
        1 => proptest::option::of(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()]).prop_map(Step::Limit),
    ]
}

proptest! {
    #[test]
    fn whatever_is_reported_the_rate_is_one(
        steps in proptest::collection::vec((step(), prop_oneof![0..30_000u64, 0..30_000_000u64]), 1..200),
    ) {
        let mut now = Time::from_millis(1_000);
        let mut capacity = Capacity::new(None, now);
        let mut limit = MAX_RATE;
        for (step, micros) in steps {
            now += Duration::from_micros(micros);
            match step {
                Step::Report { received, bytes, delays, mut context } => {
                    // It was sent before, and not all of the time nothing was offered.
                    context.newest = context.newest.map(|(sent, idle)| (sent.min(now), idle));
                    capacity.report(&report(received, bytes, delays), context, now);
                }
                Step::Train { received, bytes, delays } => {
                    capacity.report_train(&report(received, bytes, delays), now);
                }
                Step::Answer(rate) => {
                    capacity.correct(rate);
                    capacity.seed(rate);
                }
                Step::PathChanged => capacity.path_changed(now),
                Step::Limit(most) => {
                    limit = most.map_or(MAX_RATE, |most| (most as f64).clamp(MIN_RATE, MAX_RATE));
                    capacity.set_limit(most);
                }
            }
            let rate = capacity.rate();
            prop_assert!((MIN_RATE as u64..=limit as u64).contains(&rate), "{rate} of {limit}");
            prop_assert!(capacity.queue_delay() <= Duration::from_secs(60));
            prop_assert!(capacity.jitter() <= Duration::from_millis(50));
            prop_assert!(capacity.delay(true, now).is_none_or(|delay| delay < TICKS));
            let _ = (capacity.worth(), capacity.is_growing(), capacity.is_doubted(rate as f64));
        }
    }
}
