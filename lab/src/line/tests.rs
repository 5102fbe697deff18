//! The model against what its figures promise, in virtual time.

use super::*;

const MS: Duration = Duration::from_millis(1);
const BYTES: usize = 1250;

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs `line` to its end: (arrival, packet) in the order of arrival.
fn drain<T>(line: &mut Line<T>) -> Vec<(Duration, T)> {
    let mut arrivals = Vec::new();
    while let Some(due) = line.next_due() {
        while let Some(packet) = line.pop_due(due) {
            arrivals.push((due, packet));
        }
    }
    arrivals
}

/// Pushes `count` packets, one every `gap`, and gives the delay of those that arrive.
fn delays(line: &mut Line<Duration>, count: u32, gap: Duration) -> Vec<Duration> {
    let mut delays = Vec::new();
    for i in 0..count {
        let now = gap * i;
        while let Some(due) = line.next_due().filter(|due| *due <= now) {
            delays.extend(line.pop_due(due).map(|sent| due - sent));
        }
        line.push(now, now, 100);
    }
    delays.extend(drain(line).into_iter().map(|(due, sent)| due - sent));
    delays
}

#[test]
fn a_packet_takes_its_serialisation_and_the_delay() {
    // 1250 bytes at 10 Mbit/s are 1 ms.
    let mut line = Line::new(LineConfig::new(10_000_000, 20 * MS), 1);
    assert_eq!(line.push(at(5), 'a', BYTES), Verdict::Queued);
    assert_eq!(line.push(at(5), 'b', BYTES), Verdict::Queued);
    assert_eq!(line.queue_delay(at(5)), 2 * MS);
    assert_eq!(line.next_due(), Some(at(26)));
    assert_eq!(line.pop_due(Duration::from_micros(25_999)), None);
    assert_eq!(line.pop_due(at(26)), Some('a'));
    assert_eq!(line.pop_due(at(26)), None);
    assert_eq!(drain(&mut line), [(at(27), 'b')]);
    assert!(line.is_empty());
    assert_eq!(line.counters(), Counters { passed: 2, bytes: 2500, ..Counters::default() });
}

#[test]
fn a_perfect_wire_gives_packets_back_at_once() {
    let mut line = Line::new(LineConfig::default(), 1);
    for i in 0..1000 {
        line.push(at(3), i, 65_535);
    }
    let arrivals = drain(&mut line);
    assert!(arrivals.iter().enumerate().all(|(i, &(due, packet))| due == at(3) && packet == i));
    assert_eq!(arrivals.len(), 1000);
}

#[test]
fn an_overloaded_line_carries_exactly_its_rate() {
    for rate in [1_000_000, 10_000_000, 123_456_789] {
        let mut line = Line::new(LineConfig::new(rate, 20 * MS), 1);
        let mut bits = 0;
        let gap = Duration::from_nanos(1500 * 8 * 1_000_000_000 / rate * 4 / 5);
        let mut now = Duration::ZERO;
        while now < at(10_000) {
            line.push(now, (), 1500);
            // The first second fills the queue.
            while line.pop_due(now).is_some() {
                bits += if now >= at(1000) { 1500 * 8 } else { 0 };
            }
            now += gap;
        }
        let measured = bits as f64 / 9.0;
        assert!((measured / rate as f64 - 1.0).abs() < 0.002, "{rate} bit/s: measured {measured}");
        assert!(line.counters().dropped_queue > 0);
    }
}

#[test]
fn a_queue_of_100_ms_delays_by_at_most_that() {
    let mut line = Line::new(LineConfig::new(10_000_000, Duration::ZERO), 1);
    let accepted = (0..1000).filter(|_| line.push(Duration::ZERO, (), BYTES) == Verdict::Queued).count();
    // 100 ms of waiting packets, and the one that waits 100 ms exactly.
    assert_eq!(accepted, 101);
    assert_eq!(line.counters().dropped_queue, 899);
    assert_eq!(drain(&mut line).last().unwrap().0, at(101));
}

#[test]
fn a_queue_may_count_packets_or_bytes() {
    let config = LineConfig::new(10_000_000, Duration::ZERO);
    let accepted = |queue| {
        let mut line = Line::new(config.clone().with_queue(queue), 1);
        (0..100).filter(|_| line.push(Duration::ZERO, (), BYTES) == Verdict::Queued).count()
    };
    assert_eq!(accepted(QueueLimit::Packets(10)), 10);
    assert_eq!(accepted(QueueLimit::Bytes(10 * BYTES)), 10);
    assert_eq!(accepted(QueueLimit::Bytes(10 * BYTES - 1)), 9);
    assert_eq!(accepted(QueueLimit::Bytes(1)), 1);
    assert_eq!(accepted(QueueLimit::Unlimited), 100);
}

#[test]
fn a_new_rate_serves_what_waits() {
    let mut line = Line::new(LineConfig::new(10_000_000, 20 * MS), 1);
    for packet in 0..10 {
        line.push(Duration::ZERO, packet, BYTES);
    }
    // Two and a half packets are sent; the other seven and a half now take 2 ms each.
    line.set_rate(Duration::from_micros(2500), Some(5_000_000));
    let arrivals: Vec<u64> = drain(&mut line).iter().map(|(due, _)| due.as_micros() as u64).collect();
    let expected = [1000, 2000, 3500, 5500, 7500, 9500, 11_500, 13_500, 15_500, 17_500].map(|us| us + 20_000);
    assert_eq!(arrivals, expected);
}

#[test]
fn a_line_that_stands_still_goes_on_later() {
    let mut line = Line::new(LineConfig::new(10_000_000, Duration::ZERO), 1);
    line.set_rate(Duration::ZERO, Some(0));
    line.push(Duration::ZERO, 'a', BYTES);
    assert_eq!(line.next_due(), None);
    assert_eq!(line.queue_delay(at(1)), Duration::MAX);
    assert_eq!(line.push(at(1), 'b', BYTES), Verdict::QueueFull, "it would wait for ever");
    line.set_rate(at(50), Some(10_000_000));
    assert_eq!(drain(&mut line), [(at(51), 'a')]);
}

#[test]
fn a_rate_trace_is_followed_within_a_packet() {
    let step = |ms, rate| RateStep { at: at(ms), rate };
    let trace = vec![step(10, Some(1_000_000)), step(20, Some(0)), step(30, Some(10_000_000))];
    let mut line = Line::new(LineConfig::new(10_000_000, Duration::ZERO).with_rate_trace(trace), 1);
    // Half of it (0.5 ms) at 10 Mbit/s, the other 5000 bits at 1 Mbit/s.
    line.push(Duration::from_micros(9500), 'a', BYTES);
    // 5000 bits from 15 to 20 ms, none until 30 ms, 5000 bits at 10 Mbit/s.
    line.push(Duration::from_micros(9500), 'b', BYTES);
    assert_eq!(drain(&mut line), [(at(15), 'a'), (Duration::from_micros(30_500), 'b')]);
    assert_eq!(line.config().rate_at(at(25)), Some(0));
    assert_eq!(line.config().rate_at(at(9)), Some(10_000_000));
}

#[test]
fn a_shorter_delay_does_not_reorder() {
    let mut line = Line::new(LineConfig { delay: at(100), ..LineConfig::default() }, 1);
    line.push(at(0), 1, 100);
    line.set_delay(at(1), at(10));
    line.push(at(1), 2, 100);
    line.push(at(95), 3, 100);
    assert_eq!(drain(&mut line), [(at(100), 1), (at(100), 2), (at(105), 3)]);
}

#[test]
fn jitter_keeps_order_and_mean() {
    let config = LineConfig { delay: at(30), jitter: at(10), ..LineConfig::default() };
    let mut line = Line::new(config, 42);
    let mut expected = 0;
    let mut delays = Vec::new();
    for sent in 0..600_000u64 {
        let now = at(sent);
        line.push(now, (sent, now), 100);
        while let Some(due) = line.next_due().filter(|due| *due <= now) {
            let (number, pushed) = line.pop_due(due).expect("next_due is exact");
            assert_eq!(number, expected, "reordered");
            expected += 1;
            delays.push((due - pushed).as_secs_f64() * 1e3);
        }
    }
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    let low = delays.iter().copied().fold(f64::MAX, f64::min);
    let high = delays.iter().copied().fold(0.0, f64::max);
    let variance = delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / delays.len() as f64;
    // 30000 independent slots with a deviation near 5.5 ms: 5 sigma of the mean is 0.16 ms.
    assert!((mean - 30.0).abs() < 0.16, "mean {mean}");
    assert!(low > 30.0 - 10.84 && low < 21.0, "lowest {low}");
    assert!(high < 30.0 + 9.17 && high > 38.5, "highest {high}");
    assert!((4.5..6.5).contains(&variance.sqrt()), "deviation {}", variance.sqrt());
}

#[test]
fn reordering_must_be_asked_for() {
    let config = LineConfig { delay: at(30), jitter: at(10), reorder: true, ..LineConfig::default() };
    let mut line = Line::new(config, 42);
    for i in 0..10_000u64 {
        line.push(Duration::from_micros(i * 1000), i, 100);
    }
    let arrivals = drain(&mut line);
    let late = arrivals.windows(2).filter(|pair| pair[1].1 < pair[0].1).count();
    assert!(late > 1000, "{late} reordered");
    assert_eq!(arrivals.len(), 10_000);
    for (due, i) in arrivals {
        let delay = due - Duration::from_micros(i * 1000);
        assert!((at(20)..=at(40)).contains(&delay), "{delay:?}");
    }
}

#[test]
fn next_due_makes_progress_when_reordering() {
    let config = LineConfig { jitter: at(10), reorder: true, ..LineConfig::new(1_000_000, at(30)) };
    let mut line = Line::new(config, 3);
    for i in 0..8 {
        line.push(Duration::ZERO, i, BYTES);
    }
    let mut calls = 0;
    let mut last = Duration::ZERO;
    while let Some(due) = line.next_due() {
        assert!(due >= last);
        last = due;
        calls += 1;
        assert!(calls <= 16, "one call for the serialiser and one for the arrival of each packet");
        while line.pop_due(due).is_some() {}
    }
    assert_eq!(line.counters().passed, 8);
}

#[test]
fn random_loss_has_its_share_and_uses_the_rate() {
    let n = 200_000u32;
    for loss in [0.005, 0.02, 0.3] {
        let mut line = Line::new(LineConfig { loss, ..LineConfig::default() }, 9);
        let lost = n as usize - delays(&mut line, n, MS).len();
        let sigma = (f64::from(n) * loss * (1.0 - loss)).sqrt();
        assert!((lost as f64 - f64::from(n) * loss).abs() < 5.0 * sigma, "{loss}: lost {lost} of {n}");
        assert_eq!(line.counters().dropped_loss, lost as u64);
    }
    let mut line = Line::new(LineConfig::new(10_000_000, Duration::ZERO).with_loss(1.0), 1);
    assert_eq!(line.push(Duration::ZERO, (), BYTES), Verdict::Lost);
    assert_eq!(line.queue_delay(Duration::ZERO), MS);
    assert_eq!(line.next_due(), None);
}

#[test]
fn burst_loss_has_its_share_and_length() {
    let n = 1_000_000;
    let (share, mean_length) = (0.02, 8.0);
    let mut line = Line::new(LineConfig::default().with_burst_loss(share, mean_length), 5);
    let lost: Vec<bool> = (0..n).map(|i| line.push(MS * i, (), 100) == Verdict::Lost).collect();
    let total = lost.iter().filter(|lost| **lost).count() as f64;
    let bursts = lost.windows(2).filter(|pair| !pair[0] && pair[1]).count() as f64;
    // About 2500 bursts whose lengths deviate by 7.5: 5 sigma are 11 % of the share and 9 % of the length.
    assert!((total / f64::from(n) / share - 1.0).abs() < 0.11, "share {}", total / f64::from(n));
    assert!((total / bursts / mean_length - 1.0).abs() < 0.09, "length {}", total / bursts);
}

#[test]
fn what_exceeds_the_mtu_is_dropped() {
    let mut line = Line::new(LineConfig::default().with_mtu(1492), 1);
    assert_eq!(line.push(Duration::ZERO, (), 1493), Verdict::TooBig);
    assert_eq!(line.push(Duration::ZERO, (), 1492), Verdict::Queued);
    assert_eq!(line.counters().dropped_mtu, 1);
}

#[test]
fn a_cut_loses_all_that_is_queued_or_under_way() {
    let mut line = Line::new(LineConfig::new(10_000_000, 20 * MS), 1);
    for _ in 0..10 {
        line.push(Duration::ZERO, 'a', BYTES);
    }
    line.set_blackhole(Duration::from_micros(4500), true);
    assert!(line.is_empty());
    assert_eq!(line.push(at(5), 'b', BYTES), Verdict::Cut);
    assert_eq!(line.next_due(), None);
    assert_eq!(line.counters().dropped_cut, 11);
    line.set_blackhole(at(6), false);
    line.push(at(6), 'c', BYTES);
    assert_eq!(drain(&mut line), [(at(27), 'c')], "the restored line begins with an empty queue");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let config = LineConfig::new(20_000_000, 30 * MS)
            .with_jitter(10 * MS)
            .with_loss(0.01)
            .with_burst_loss(0.01, 3.0);
        delays(&mut Line::new(config, seed), 5000, Duration::from_micros(50))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn figures_that_cannot_be_are_refused() {
    let ok = LineConfig::default();
    assert!(ok.check().is_ok());
    assert!(ok.clone().with_loss(1.5).check().is_err());
    assert!(ok.clone().with_loss(f64::NAN).check().is_err());
    assert!(ok.clone().with_burst_loss(1.0, 3.0).check().is_err());
    assert!(ok.clone().with_burst_loss(0.1, 0.5).check().is_err());
    assert!(ok.clone().with_burst_loss(0.9, 2.0).check().is_err());
    let step = RateStep { at: at(1), rate: None };
    assert!(ok.with_rate_trace(vec![step, step]).check().is_err());
}
