//! `kill -9` at any moment of start, work and stop.

use std::time::{Duration, Instant};

use lab::bond::{Bond, End};
use lab::random::Random;
use lab::scenario::Scenario;
use lab::topology::Plan;
use nix::sys::signal::Signal;

use crate::routing::{settled, state};
use crate::{network, setup};

const LIMIT: Duration = Duration::from_secs(30);
const KILLS: u64 = 50;

/// What the daemon is doing when it is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Start,
    Work,
    Stop,
}

#[test]
fn fifty_kills_leave_nothing_that_the_next_start_does_not_mend() {
    let Some(network) = network("50 kills", Plan::new(Scenario::sym2())) else { return };
    let before = [settled(&network.router), settled(&network.server)];
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let working = [settled(&network.router), settled(&network.server)];
    let mut random = Random::new(0x6b69_6c6c);
    for number in 0..KILLS {
        let end = if number % 2 == 0 { End::Client } else { End::Server };
        let moment = [Moment::Start, Moment::Work, Moment::Stop][usize::try_from(number % 3).unwrap_or(0)];
        match moment {
            Moment::Work => {}
            Moment::Start => {
                bond.halt(end).expect("the daemon stops");
                bond.launch(end).expect("the daemon starts");
            }
            Moment::Stop => bond.process(end).signal(Signal::SIGTERM).expect("the daemon runs"),
        }
        // A start takes some 30 ms, a stop some 10 ms.
        std::thread::sleep(Duration::from_micros(random.below(match moment {
            Moment::Stop => 15_000,
            _ => 60_000,
        })));
        // One that has stopped already needs no more.
        let _ = bond.process(end).signal(Signal::SIGKILL);
        bond.process(end).wait(LIMIT).expect("it is our child").expect("the daemon ends");
        bond.launch(end).expect("the daemon starts again");
        if let Err(error) = bond.wait_until_up(2, LIMIT) {
            panic!("kill {number}, {moment:?} of {end:?}: {error}");
        }
        // The MTU is found a moment later.
        let deadline = Instant::now() + LIMIT;
        let now = || [state(&network.router), state(&network.server)];
        while now() != working {
            assert!(Instant::now() < deadline, "{moment:?} of {end:?}:\n{:#?}\n{working:#?}", now());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    bond.stop().expect("both daemons stop");
    assert_eq!([state(&network.router), state(&network.server)], before);
}
