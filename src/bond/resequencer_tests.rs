use proptest::prelude::*;

use super::*;

fn arrival(bucket: u16, seq: u32, ordered: bool) -> Arrival {
    let order = if ordered { Order::Stream } else { Order::Any };
    Arrival { bucket, seq: seq & (SEQUENCES - 1), order, link: 0, sent: 0 }
}

const PATIENCE: Patience =
    Patience { stream: Duration::from_millis(100), datagrams: Duration::from_millis(30) };

/// Feeds packets whose content is their number, and collects what comes out.
struct Rig {
    resequencer: Resequencer,
    out: Vec<u32>,
}

impl Rig {
    fn new() -> Self {
        Rig { resequencer: Resequencer::new(64), out: Vec::new() }
    }

    fn feed(&mut self, seq: u32, ordered: bool, ms: u64) -> Outcome {
        let out = &mut self.out;
        self.resequencer.receive(
            arrival(1, seq, ordered),
            &seq.to_be_bytes(),
            Time::from_millis(ms),
            &mut |packet| out.push(u32::from_be_bytes(packet.try_into().unwrap())),
        )
    }

    fn feed_datagram(&mut self, seq: u32, ms: u64) -> Outcome {
        let arrival = Arrival { order: Order::Datagrams, ..arrival(1, seq, true) };
        let out = &mut self.out;
        self.resequencer.receive(arrival, &seq.to_be_bytes(), Time::from_millis(ms), &mut |packet| {
            out.push(u32::from_be_bytes(packet.try_into().unwrap()))
        })
    }

    fn wait(&mut self, ms: u64) {
        let out = &mut self.out;
        self.resequencer.handle_timeout(Time::from_millis(ms), &mut |packet| {
            out.push(u32::from_be_bytes(packet.try_into().unwrap()));
        });
    }
}

#[test]
fn a_gap_holds_what_follows_until_it_is_filled() {
    let mut rig = Rig::new();
    assert_eq!(rig.feed(0, true, 0), Outcome::Delivered);
    assert_eq!(rig.feed(2, true, 1), Outcome::Held);
    assert_eq!(rig.feed(3, true, 2), Outcome::Held);
    assert_eq!(rig.feed(3, true, 2), Outcome::Duplicate);
    assert_eq!(rig.feed(1, true, 3), Outcome::Delivered);
    assert_eq!(rig.out, [0, 1, 2, 3]);
    assert_eq!(rig.feed(2, true, 3), Outcome::Duplicate);
    assert_eq!((rig.resequencer.held(), rig.resequencer.poll_timeout()), (0, None));
}

#[test]
fn later_arrivals_do_not_extend_the_wait() {
    let mut rig = Rig::new();
    rig.resequencer.set_patience(PATIENCE);
    for (seq, at) in [(0, 0), (2, 10), (3, 50), (5, 60), (6, 90)] {
        rig.feed(seq, true, at);
    }
    assert_eq!(rig.resequencer.poll_timeout(), Some(Time::from_millis(110)));
    rig.wait(109);
    assert_eq!(rig.out, [0]);
    rig.wait(110);
    assert_eq!(rig.out, [0, 2, 3]);
    assert_eq!(rig.resequencer.poll_timeout(), Some(Time::from_millis(160)), "the second gap was seen at 60");
    assert_eq!(rig.feed(1, true, 120), Outcome::Late);
    rig.wait(160);
    assert_eq!(rig.out, [0, 2, 3, 1, 5, 6]);
    assert_eq!(rig.resequencer.gaps_given_up(), 2);
}

#[test]
fn datagrams_wait_less_than_a_stream() {
    let mut rig = Rig::new();
    rig.resequencer.set_patience(PATIENCE);
    for (seq, at) in [(0, 0), (3, 10), (1, 20)] {
        rig.feed_datagram(seq, at);
    }
    assert_eq!(rig.out, [0, 1]);
    rig.wait(39);
    assert_eq!(rig.out, [0, 1]);
    rig.wait(40);
    assert_eq!((rig.out.as_slice(), rig.resequencer.poll_timeout()), (&[0, 1, 3][..], None));
    assert_eq!(rig.feed_datagram(2, 50), Outcome::Late, "still better than never");
}

#[test]
fn the_senders_word_closes_a_gap_at_once() {
    let mut rig = Rig::new();
    for seq in [0, 3, 5] {
        rig.feed(seq, true, 0);
    }
    for seq in [4, 2, 1] {
        let out = &mut rig.out;
        rig.resequencer.give_up(1, seq, Time::ZERO, &mut |packet| {
            out.push(u32::from_be_bytes(packet.try_into().unwrap()));
        });
    }
    assert_eq!(rig.out, [0, 3, 5]);
    assert_eq!(rig.resequencer.poll_timeout(), None);
}

#[test]
fn packets_whose_order_does_not_matter_pass_at_once_and_once() {
    let mut rig = Rig::new();
    for seq in [0, 4, 2, 4, 1, 2, 3, 0] {
        rig.feed(seq, false, 0);
    }
    assert_eq!(rig.out, [0, 4, 2, 1, 3]);
    assert_eq!((rig.resequencer.duplicates(), rig.resequencer.poll_timeout()), (3, None));
}

#[test]
fn the_first_packet_of_a_flow_may_be_overtaken() {
    let mut rig = Rig::new();
    rig.feed(1, true, 0);
    rig.feed(0, true, 5);
    assert_eq!(rig.out, [0, 1]);
}

#[test]
fn a_jump_ahead_and_the_wrap_of_the_numbers_are_followed() {
    let mut rig = Rig::new();
    rig.feed(0, true, 0);
    rig.feed(2, true, 0);
    rig.feed(SEQUENCES / 2 - 1, true, 0);
    assert_eq!(rig.out, [0, 2, SEQUENCES / 2 - 1]);
    rig.feed(SEQUENCES - 2, true, 0);
    rig.feed(SEQUENCES - 1, true, 0);
    rig.feed(0, true, 0);
    rig.feed(1, true, 0);
    assert_eq!(rig.out[3..], [SEQUENCES - 2, SEQUENCES - 1, 0, 1]);
}

#[test]
fn what_is_held_is_bounded() {
    let mut rig = Rig::new();
    for seq in 1..1_000 {
        rig.feed(seq, true, u64::from(seq));
        assert!(rig.resequencer.held() <= 64);
    }
    assert_eq!(rig.out, (1..1_000).collect::<Vec<_>>());
}

proptest! {
    /// Links are FIFO with delays of their own; some packets are lost and some are sent twice.
    #[test]
    fn order_holds_and_nothing_comes_twice_or_is_lost(
        delays in proptest::collection::vec(1u64..80, 2..5),
        packets in proptest::collection::vec((0usize..5, 0u8..20, 0u64..4), 1..400),
        start in 0u32..SEQUENCES,
    ) {
        let patience = 50;
        let mut resequencer = Resequencer::new(4_096);
        resequencer.set_patience(Patience { stream: Duration::from_millis(patience), ..PATIENCE });
        resequencer.flows.resize_with(BUCKETS, || None);
        resequencer.flow(1).next = start;
        let mut events = Vec::new();
        let mut free = vec![0u64; delays.len()];
        let (mut now, mut sent) = (0, 0u32);
        for (link, luck, pause) in &packets {
            now += pause;
            let link = link % delays.len();
            for copy in 0..if *luck == 1 { 2 } else { 1 } {
                let link = (link + copy) % delays.len();
                free[link] = free[link].max(now) + 1;
                if *luck != 0 {
                    events.push((free[link] + delays[link], events.len(), sent));
                }
            }
            sent += 1;
        }
        events.sort_unstable();
        let mut out: Vec<(u32, u64)> = Vec::new();
        let mut late = Vec::new();
        let mut arrived = std::collections::HashMap::new();
        for (at, _, number) in &events {
            let now = Time::from_millis(*at);
            resequencer.handle_timeout(now, &mut |p| out.push((u32::from_be_bytes(p.try_into().unwrap()), *at)));
            arrived.entry(*number).or_insert(*at);
            let outcome = resequencer.receive(
                arrival(1, start.wrapping_add(*number), true),
                &number.to_be_bytes(),
                now,
                &mut |p| out.push((u32::from_be_bytes(p.try_into().unwrap()), *at)),
            );
            if outcome == Outcome::Late {
                late.push(*number);
            }
        }
        let mut end = events.last().map_or(0, |e| e.0);
        while let Some(at) = resequencer.poll_timeout() {
            end = end.max(at.as_micros() / 1_000);
            resequencer.handle_timeout(at, &mut |p| out.push((u32::from_be_bytes(p.try_into().unwrap()), end)));
        }
        prop_assert_eq!(resequencer.held(), 0);
        let in_order: Vec<u32> = out.iter().map(|(n, _)| *n).filter(|n| !late.contains(n)).collect();
        prop_assert!(in_order.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", in_order);
        let mut all: Vec<u32> = out.iter().map(|(n, _)| *n).collect();
        all.sort_unstable();
        let mut expected: Vec<u32> = arrived.keys().copied().collect();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
        let mut previous = 0;
        for (number, at) in &out {
            // Timers are only served at arrivals here, so a packet may wait for the next one.
            let next_arrival = events.iter().map(|e| e.0).find(|t| *t >= arrived[number] + patience).unwrap_or(end);
            prop_assert!(*at <= next_arrival.max(arrived[number] + patience).max(previous));
            previous = *at;
        }
    }
}

/// Bytes that the flows take for what is ahead of their gaps.
fn memory(resequencer: &Resequencer) -> usize {
    let flows = resequencer.flows.iter().flatten();
    flows.map(|flow| flow.ahead.capacity() * size_of::<Held>()).sum()
}

#[test]
fn what_is_remembered_of_gaps_is_bounded_however_they_are_made() {
    for way in 0..3 {
        let mut resequencer = Resequencer::new(4_096);
        for round in 0..3u32 {
            let now = Time::from_millis(u64::from(round));
            for bucket in 0..BUCKETS as u16 {
                resequencer.receive(arrival(bucket, round * WINDOW, true), &[0; 20], now, &mut |_| ());
                let far = round * WINDOW + WINDOW - 1;
                match way {
                    0 => drop(resequencer.receive(arrival(bucket, far, true), &[0; 20], now, &mut |_| ())),
                    1 => drop(resequencer.receive(arrival(bucket, far, false), &[0; 20], now, &mut |_| ())),
                    _ => resequencer.give_up(bucket, far, now, &mut |_| ()),
                }
                assert!(resequencer.places <= MAX_PLACES && resequencer.held() <= 4_096);
            }
            assert!(memory(&resequencer) < 8 << 20, "{way}: {} bytes", memory(&resequencer));
        }
        assert!(resequencer.places > 0);
        resequencer.handle_timeout(Time::from_millis(10_000), &mut |_| ());
        assert_eq!((resequencer.places, resequencer.held(), resequencer.poll_timeout()), (0, 0, None));
        let spare = BUCKETS * SPARE_PLACES * size_of::<Held>();
        assert!(memory(&resequencer) <= spare, "{way}: {} bytes are kept", memory(&resequencer));
    }
}

#[test]
fn a_gap_in_front_of_what_was_delivered_at_once_passes_and_its_packet_is_still_welcome() {
    let mut rig = Rig::new();
    rig.resequencer.set_patience(PATIENCE);
    for (seq, at) in [(0, 0), (3, 10), (4, 20)] {
        rig.feed(seq, false, at);
    }
    assert_eq!(rig.resequencer.poll_timeout(), Some(Time::from_millis(110)));
    rig.wait(110);
    assert_eq!((rig.resequencer.places, rig.resequencer.gaps_given_up()), (0, 0), "nobody has waited");
    assert_eq!(rig.feed(2, false, 120), Outcome::Late);
    assert_eq!(rig.feed(2, false, 120), Outcome::Duplicate);
    assert_eq!(rig.feed(3, false, 120), Outcome::Duplicate);
    assert_eq!(rig.out, [0, 3, 4, 2]);
}

#[test]
fn what_is_far_ahead_takes_no_more_than_what_is_near() {
    let mut rig = Rig::new();
    rig.feed(0, true, 0);
    rig.feed(WINDOW, true, 0);
    rig.resequencer.give_up(1, WINDOW - 1, Time::ZERO, &mut |_| ());
    assert_eq!(rig.resequencer.places, 2);
    assert!(memory(&rig.resequencer) <= SPARE_PLACES * size_of::<Held>());
    assert_eq!(rig.feed(WINDOW + 1, true, 0), Outcome::Delivered, "too far: the gap is given up");
    assert_eq!(rig.out, [0, WINDOW, WINDOW + 1]);
    assert_eq!(rig.feed(WINDOW - 2, true, 0), Outcome::Late);
    assert_eq!(rig.feed(WINDOW, true, 0), Outcome::Duplicate);
}

#[test]
fn a_gap_that_was_filled_does_not_shorten_the_wait_for_the_next() {
    let mut rig = Rig::new();
    rig.resequencer.set_patience(PATIENCE);
    for (seq, at) in [(0, 0), (2, 10), (4, 50), (6, 80), (1, 90)] {
        rig.feed(seq, true, at);
    }
    assert_eq!(rig.out, [0, 1, 2]);
    rig.wait(110);
    assert_eq!(rig.out, [0, 1, 2], "the first gap's deadline");
    assert_eq!(rig.resequencer.poll_timeout(), Some(Time::from_millis(150)));
    rig.wait(180);
    assert_eq!(rig.out, [0, 1, 2, 4, 6], "both at once");
    assert_eq!((rig.resequencer.gaps_given_up(), rig.resequencer.poll_timeout()), (2, None));
}
