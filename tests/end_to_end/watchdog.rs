//! The watchdog: pings through the bond, and what is done when nobody answers.

use std::fs;
use std::time::Duration;

use lab::bond::{Bond, End, links_in_state};
use lab::directory::{Directory, write_program};
use lab::emulator::Cut;
use lab::scenario::Scenario;
use lab::topology::Plan;

use crate::{network, setup};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn the_action_is_run_when_nobody_answers_and_not_while_no_link_is_up() {
    let Some(network) = network("watchdog", Plan::new(Scenario::sym2())) else { return };
    let directory = Directory::new("bonding-watchdog").expect("a directory");
    let (script, log) = (directory.path("action.sh"), directory.path("log"));
    let text = format!("#!/bin/sh\necho \"$*\" >> {}\n", log.display());
    write_program(&script, 0o755, &text).expect("a script");
    let actions =
        || fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect::<Vec<_>>();

    let mut setup = setup();
    let action = format!("{} mend it", script.display());
    let options = [("watchdog", "1"), ("watchdog_period", "1"), ("watchdog_timeout", "2")];
    for (option, value) in options {
        setup.bond.push((option.into(), value.into()));
    }
    setup.bond.push(("watchdog_action".into(), action));
    let mut bond = Bond::start(&network, &setup).expect("the bond comes up");
    // A round trip through the bond takes 40 ms; the first ones may wait for the machine.
    let likely = |rtt: f64| (20.0..500.0).contains(&rtt);
    let ok = bond
        .wait_for(End::Client, LIMIT, |status| {
            status["watchdog"]["state"] == "ok" && status["watchdog"]["rtt_ms"].as_f64().is_some_and(likely)
        })
        .expect("the server answers pings");
    assert_eq!(ok["watchdog"]["addresses"], serde_json::json!(["10.77.0.1"]));

    // Somebody who does not exist is pinged from now on; the bond itself is well.
    let file = bond.config(End::Client).to_owned();
    let config = fs::read_to_string(&file).expect("the configuration");
    let changed = config.replacen(
        "\toption watchdog '1'",
        "\toption watchdog '1'\n\toption watchdog_ip '10.77.0.99'",
        1,
    );
    fs::write(&file, changed).expect("the configuration");
    bond.command(End::Client, &["reload"]).expect("it is taken over");
    let acted = bond
        .wait_for(End::Client, LIMIT, |status| status["watchdog"]["actions"] == 2)
        .expect("the action is run twice");
    let events = acted["events"].as_array().expect("events").clone();
    let times: Vec<u64> = events
        .iter()
        .filter(|event| event["what"] == "watchdog")
        .filter_map(|event| event["age_ms"].as_u64())
        .collect();
    assert_eq!(times.len(), 2, "{events:#?}");
    let pause = times[0] - times[1];
    assert!((3_000..9_000).contains(&pause), "twice the time-out between the actions: {pause} ms");
    // It counts from its beginning.
    let _ = bond.wait_for(End::Client, LIMIT, |_| actions().len() == 2);
    assert_eq!(actions(), ["mend it"; 2]);

    // Without any link nothing can be mended.
    for line in 0..2 {
        network.line(line).cut(Cut::Carrier);
    }
    bond.wait_for(End::Client, LIMIT, |status| {
        links_in_state(status, "up") == 0 && status["watchdog"]["state"] == "waiting"
    })
    .expect("the cut is seen");
    let ran = actions().len();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(actions().len(), ran, "no action while no link is up");
    bond.stop().expect("both daemons stop");
}
