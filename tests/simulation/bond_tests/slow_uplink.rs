//! A line whose direction back is so slow that a few packets fill its queue.

use super::*;

fn scenario() -> Scenario {
    scenarios::by_name("2.2/1.8/8+3.1/0.5/27/l0.2").expect("well written")
}

/// Ten packets are twice what the queue of the slow direction holds: the train that shows its rate makes it silent for a
/// while, which is no reason to send another one. It takes the loss of a certain packet to begin with.
#[test]
fn a_train_is_not_sent_for_ever() {
    for seed in 1..=400 {
        let mut world = endpoint::world(&scenario(), &BondConfig::default(), seed);
        world.run_until_ready();
        world.add_ping(10 * MILLI);
        world.run_for(SECOND);
        let before = world.line_counters(1, Side::Client).bytes;
        let mut suspect = 0;
        for _ in 0..500 {
            world.run_for(10 * MILLI);
            let links = world.tunnels[Side::Client.index()].status().links;
            suspect += links.iter().filter(|link| link.state != LinkState::Up).count();
        }
        let bytes = world.line_counters(1, Side::Client).bytes - before;
        assert!(
            bytes < 10_000,
            "seed {seed}: {bytes} bytes in five seconds in which there was nothing to send"
        );
        assert!(suspect < 20, "seed {seed}: the link was not up in {suspect} of 500 looks");
    }
}

/// Reports that queue on their way back tell of a queue that was, not of one that is.
#[test]
fn late_reports_do_not_make_a_longer_path() {
    for flows in [1, 4] {
        for seed in [1, 2, 323] {
            let plan = Plan { flows, ..Plan::new(Side::Server) };
            let outcome = transfer(&scenario(), &BondConfig::default(), &plan, seed);
            assert!(outcome.efficiency > 0.85, "{flows} flows, seed {seed}: {outcome:?}");
            assert!(outcome.ping_added.1 < 30.0, "{flows} flows, seed {seed}: {outcome:?}");
        }
    }
}

/// A stream's acknowledgements ask for a little more than the quickest line carries, and for less than was believed of
/// it: the queue that they make is nobody else's, and does not grow.
#[test]
fn what_acknowledgements_queue_is_not_taken_for_that_of_others() {
    for lines in ["3/0.5/11+53/40/67", "3/0.5/11+90/40/60"] {
        let scenario = scenarios::by_name(lines).expect("well written");
        let outcome = transfer(&scenario, &BondConfig::default(), &Plan::new(Side::Server), 1);
        assert!(outcome.ping_added.0 < 35.0, "{lines}: {outcome:?}");
        assert!(outcome.efficiency > 0.72, "{lines}: {outcome:?}");
    }
}

/// Streams that wait for acknowledgements find the queue empty again and again. They do not go before what others have
/// staged for the quickest line: a stream waits for its next packet, wherever that is.
#[test]
fn what_is_staged_for_a_slow_line_gets_its_turn() {
    for lines in ["3/0.5/11+53/40/67", "3/0.5/11+90/40/60"] {
        let scenario = scenarios::by_name(lines).expect("well written");
        let plan = Plan { flows: 4, ..Plan::new(Side::Server) };
        let outcome = transfer(&scenario, &BondConfig::default(), &plan, 1);
        assert!(outcome.timeouts == 0 && outcome.longest_gap < 500.0, "{lines}: {outcome:?}");
        assert!(outcome.efficiency > 0.83, "{lines}: {outcome:?}");
    }
}
