use super::*;
use crate::ip::Classifier;

fn udp(flow: u8, length: usize, ecn: u8) -> Vec<u8> {
    let mut p = vec![0u8; length];
    p[0] = 0x45;
    p[1] = ecn;
    p[9] = 17;
    p[12..20].copy_from_slice(&[10, 0, 0, flow, 10, 0, 0, 2]);
    p[20..24].copy_from_slice(&[1, flow, 2, 2]);
    p
}

struct Rig {
    queue: Queue,
    pool: Pool,
    classifier: Classifier,
}

impl Rig {
    fn new(config: QueueConfig) -> Self {
        Rig { queue: Queue::new(config), pool: Pool::new(16), classifier: Classifier::new(5) }
    }

    fn push(&mut self, bytes: &[u8], now: Time) {
        let mut packet = self.pool.take();
        packet.copy_from(bytes);
        let info = self.classifier.parse(bytes).unwrap();
        self.queue.push(packet, info, None, now, &mut self.pool);
    }

    fn pop(&mut self, now: Time) -> Option<Packet> {
        self.queue.reset_skips();
        self.queue.head(now, &mut self.pool)?;
        self.queue.pop().map(|(packet, _)| packet)
    }
}

/// A segment that acknowledges up to `number`, with `length` bytes of data.
fn acknowledgement(number: u32, length: usize) -> Vec<u8> {
    let mut p = udp(1, 40 + length, 0);
    p[9] = 6;
    p[28..32].copy_from_slice(&number.to_be_bytes());
    (p[32], p[33]) = (5 << 4, 0x10);
    p
}

#[test]
fn of_acknowledgements_that_wait_the_last_is_enough() {
    let mut rig = Rig::new(QueueConfig::default());
    let late = Time::ZERO + ACK_PATIENCE;
    // Beside another flow at once, alone only after a while.
    for (beside, then) in [(true, Time::ZERO), (false, late)] {
        if beside {
            rig.push(&udp(1, 100, 0), Time::ZERO);
        }
        rig.push(&acknowledgement(1, 0), Time::ZERO);
        for (number, length) in [(2, 0), (3, 0), (3, 0), (4, 8)] {
            rig.push(&acknowledgement(number, length), then);
        }
        rig.push(&acknowledgement(5, 0), Time::ZERO);
        rig.push(&acknowledgement(6, 0), then);
        // The duplicate is a signal, and nothing passes data.
        let mut left: Vec<_> = std::iter::from_fn(|| rig.pop(then)).filter(|p| p.len() < 100).collect();
        let left: Vec<_> = left.drain(..).map(|packet| (packet[31], packet.len())).collect();
        assert_eq!(left, [(3, 40), (3, 40), (4, 48), (6, 40)], "beside another flow: {beside}");
        assert_eq!((rig.queue.bytes(), rig.queue.drops()), (0, 0));
    }
}

#[test]
fn acknowledgements_that_wait_for_each_other_alone_all_go() {
    let mut rig = Rig::new(QueueConfig::default());
    for number in 1..=6 {
        rig.push(&acknowledgement(number, 0), Time::ZERO);
    }
    assert_eq!(rig.queue.len(), 6);
}

#[test]
fn flows_share_by_bytes_and_a_new_flow_goes_first() {
    let mut rig = Rig::new(QueueConfig::default());
    for _ in 0..100 {
        rig.push(&udp(1, 1_400, 0), Time::ZERO);
    }
    for _ in 0..400 {
        rig.push(&udp(2, 350, 0), Time::ZERO);
    }
    let mut bytes = [0usize; 3];
    for _ in 0..150 {
        let packet = rig.pop(Time::ZERO).unwrap();
        bytes[usize::from(packet[15])] += packet.len();
    }
    assert!(bytes[1].abs_diff(bytes[2]) <= 4_000, "{bytes:?}");
    rig.push(&udp(3, 100, 0), Time::ZERO);
    assert_eq!(rig.pop(Time::ZERO).unwrap()[15], 3);
}

#[test]
fn a_skipped_flow_keeps_its_place_and_the_others_go_on() {
    let mut rig = Rig::new(QueueConfig::default());
    rig.push(&udp(1, 100, 0), Time::ZERO);
    rig.push(&udp(2, 100, 0), Time::ZERO);
    assert_eq!(rig.queue.head(Time::ZERO, &mut rig.pool).unwrap().packet[15], 1);
    rig.queue.skip_flow();
    assert_eq!(rig.queue.head(Time::ZERO, &mut rig.pool).unwrap().packet[15], 2);
    rig.queue.skip_flow();
    assert!(rig.queue.head(Time::ZERO, &mut rig.pool).is_none());
    assert_eq!(rig.pop(Time::ZERO).unwrap()[15], 1);
    assert_eq!(rig.pop(Time::ZERO).unwrap()[15], 2);
    assert!(rig.pop(Time::ZERO).is_none() && rig.queue.is_empty() && rig.queue.bytes() == 0);
}

#[test]
fn a_round_through_many_flows_ends_and_the_next_begins_with_the_others() {
    let mut rig = Rig::new(QueueConfig::default());
    for flow in 0..150 {
        rig.push(&udp(flow, 100, 0), Time::ZERO);
    }
    let mut seen = Vec::new();
    for skipped in [64, 64, 64] {
        rig.queue.reset_skips();
        for number in 1..=skipped {
            seen.push(rig.queue.head(Time::ZERO, &mut rig.pool).unwrap().packet[15]);
            assert_eq!(rig.queue.skip_flow(), number < skipped);
        }
    }
    // A few of them share a bucket.
    assert!(seen[..140].is_sorted() && seen[150..].is_sorted(), "{seen:?}");
    assert_eq!(std::iter::from_fn(|| rig.pop(Time::ZERO)).count(), 150);
}

/// Offers a flow 25 % more than it is served for ten seconds, and returns the delay at the end.
fn overload(ecn: u8) -> (Duration, u64, u64) {
    let mut rig = Rig::new(QueueConfig::default());
    let mut waited = Duration::ZERO;
    for ms in 0..10_000u64 {
        let now = Time::from_millis(ms);
        if ms % 4 == 0 {
            rig.push(&udp(1, 1_000, ecn), now);
        }
        if ms % 5 == 0
            && let Some(head) = rig.queue.head(now, &mut rig.pool)
        {
            waited = head.waited;
            rig.queue.pop();
        }
    }
    (waited, rig.queue.drops(), rig.queue.marks())
}

#[test]
fn lasting_delay_is_answered_by_drops_or_marks() {
    let (waited, drops, marks) = overload(0);
    assert!(waited < Duration::from_millis(400) && drops > 100 && marks == 0, "{waited:?} {drops} {marks}");
    let (_, drops, marks) = overload(2);
    assert!(drops == 0 && marks > 20, "{drops} {marks}");
}

#[test]
fn a_full_queue_takes_from_the_fattest_flow() {
    let config = QueueConfig { max_packets: 50, ..QueueConfig::default() };
    let mut rig = Rig::new(config);
    rig.push(&udp(2, 100, 0), Time::ZERO);
    for _ in 0..1_000 {
        rig.push(&udp(1, 1_000, 0), Time::ZERO);
        assert!(rig.queue.len() <= 50);
    }
    assert!((0..51).filter_map(|_| rig.pop(Time::ZERO)).any(|packet| packet[15] == 2));
}

#[test]
fn the_first_drop_waits_for_what_the_longest_round_trip_allows() {
    let first_drop = |round_trip: u64| {
        let mut rig = Rig::new(QueueConfig::default());
        rig.queue.set_round_trip(Duration::from_millis(round_trip), Duration::ZERO);
        for _ in 0..3_000 {
            rig.push(&udp(1, 1_000, 0), Time::ZERO);
        }
        (0..3_000).find(|&ms| {
            rig.pop(Time::from_millis(ms));
            rig.queue.drops() > 0
        })
    };
    // Target 40 ms, interval 160 ms; and two fifths of 600 ms, and twice as long as those and the round trip.
    assert_eq!(first_drop(0), Some(200));
    assert_eq!(first_drop(40), Some(200));
    assert_eq!(first_drop(600), Some(240 + 1_680));
}
