//! What an idle laboratory costs. Alone in its process, because it looks at the process's CPU time.

use std::time::Duration;

use lab::scenario::Scenario;
use lab::topology::Plan;
use nix::time::{ClockId, clock_gettime};

#[test]
fn an_idle_emulator_sleeps() {
    lab::need_privilege!();
    let net = Plan::new(Scenario::lte2()).build().unwrap();
    let used = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    lab::reached(|| {
        let before = used();
        std::thread::sleep(Duration::from_secs(1));
        let cpu = used() - before;
        lab::demand(cpu < Duration::from_millis(20), || format!("{cpu:?} of CPU in an idle second"))
    });
    drop(net);
}
