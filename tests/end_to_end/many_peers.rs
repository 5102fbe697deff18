//! A server with many routers.

use std::path::Path;
use std::time::Duration;

use crate::crowd::Crowd;
use crate::{demand, reached};

const LIMIT: Duration = Duration::from_secs(60);
/// Packets a second of all together: 100 Mbit/s.
const RATE: usize = 10_000;

fn crowd(test: &str, routers: usize) -> Option<Crowd> {
    if let Err(why) = lab::privileged() {
        lab::privilege::skip(test, &why);
        return None;
    }
    let crowd = Crowd::start(Path::new(env!("CARGO_BIN_EXE_bonding")), routers).expect("the server starts");
    crowd.wait_until_up(LIMIT).expect("all routers are let in");
    Some(crowd)
}

#[test]
fn a_thousand_idle_routers_need_little() {
    let Some(crowd) = crowd("a thousand routers", 1_000) else { return };
    // Links are probed meanwhile.
    let before = crowd.usage().expect("the server runs").cpu;
    let span = Duration::from_secs(3);
    std::thread::sleep(span);
    crowd.wait_until_up(LIMIT).expect("none was lost");
    let usage = crowd.usage().expect("the server runs");
    let share = (usage.cpu - before).as_secs_f64() / span.as_secs_f64();
    println!("1 000 routers, 2 links each: {} kB, {:.1} % of a core", usage.resident >> 10, share * 100.0);
    assert!(usage.resident < 64 << 20, "{usage:?}");
}

/// Who shares the server with others has what one alone would have.
#[test]
fn a_hundred_busy_routers_are_carried_as_one_is() {
    reached(|| {
        let mut carried = Vec::new();
        for routers in [1, 100] {
            let Some(crowd) = crowd("a hundred routers", routers) else { return Ok(()) };
            let (warm_up, time) = (Duration::from_secs(1), Duration::from_secs(2));
            let result = crowd.carry(RATE, warm_up, time).expect("the server runs");
            let each = result.cpu / result.received.max(1) as u32;
            println!("{routers} routers: {} of {} arrive, {each:?} each", result.received, result.sent);
            carried.push(result.received as f64 / time.as_secs_f64());
        }
        let [alone, together] = carried[..] else { return Err("two measurements".into()) };
        demand(alone > 0.95 * RATE as f64, || format!("one router: {alone} packets a second"))?;
        demand(together > 0.8 * alone, || {
            format!("a hundred routers: {together} packets a second, not {alone}")
        })
    });
}
