//! The user's scripts: when they are run, and that none of them can hold up the bond.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lab::bond::{Bond, End, Setup, links_in_state};
use lab::directory::{Directory, write_program};
use lab::emulator::Cut;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::Udp;

use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);

/// A directory of scripts.
struct Scripts(Directory);

impl Scripts {
    fn new(test: &str) -> Scripts {
        Scripts(Directory::new(&format!("bonding-{test}")).expect("a directory"))
    }

    fn log(&self) -> PathBuf {
        self.0.path("log")
    }

    /// Lines that scripts have written to `$LOG`.
    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.log()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn wait_for(&self, line: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.lines().iter().any(|known| known == line) {
            assert!(Instant::now() < deadline, "no '{line}' in {:#?}", self.lines());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes a script and gives the setup the option that names it.
    fn add(&self, setup: &mut Setup, option: &str, mode: u32, text: &str) {
        let path = self.0.path(&format!("{option}.sh"));
        let text = format!("#!/bin/sh\nLOG='{}'\n{text}\n", self.log().display());
        write_program(&path, mode, &text).expect("a script");
        setup.bond.push((option.into(), path.display().to_string()));
    }
}

#[test]
fn scripts_follow_the_life_of_the_bond_in_order() {
    reached(life_of_a_bond);
}

fn life_of_a_bond() -> Result<(), String> {
    let Some(network) = network("hooks", Plan::new(Scenario::sym2())) else { return Ok(()) };
    let (scripts, mut setup) = (Scripts::new("hooks"), setup());
    let device = "$([ -d /proc/sys/net/ipv4/conf/$1 ] && echo there || echo absent)";
    for option in ["preup", "up", "predown", "down"] {
        scripts.add(&mut setup, option, 0o755, &format!("echo \"$BONDING_EVENT $# $1 {device}\" >> $LOG"));
    }
    let words = "echo \"$*; $IP4 $IP4_GATEWAY $BONDING_LINK $BONDING_LINK_DEVICE\" >> $LOG";
    scripts.add(&mut setup, "link_script", 0o700, words);
    let mut bond = Bond::start(&network, &setup).expect("the bond comes up");

    network.line(1).cut(Cut::Silent);
    bond.wait_for(End::Client, LIMIT, |status| links_in_state(status, "up") == 1).expect("the cut is seen");
    let environment = "10.77.0.2/24 10.77.0.1";
    let [up, down] = ["rtun_up", "rtun_down"]
        .map(|word| format!("bond0 {word} line2; {environment} line2 {}", network.lines[1].device));
    scripts.wait_for(&down);
    bond.stop().expect("both daemons stop");

    let lines = scripts.lines();
    println!("{lines:#?}");
    // A machine that stands still takes a link down and up that nobody has cut.
    demand(lines.len() == 9, || format!("{lines:#?}"))?;
    let place = |line: &str| {
        let found: Vec<_> = (0..lines.len()).filter(|at| lines[*at] == line).collect();
        assert_eq!(found.len(), 1, "'{line}' in {lines:#?}");
        found[0]
    };
    let order = [
        "preup 1 bond0 absent",
        "up 1 bond0 there",
        &up,
        &down,
        "predown 1 bond0 there",
        &format!("bond0 tuntap_down; {environment}  "),
        "down 1 bond0 absent",
    ];
    let places: Vec<_> = order.iter().map(|line| place(line)).collect();
    assert!(places.is_sorted(), "{lines:#?}");
    place(&format!("bond0 tuntap_up; {environment}  "));
    Ok(())
}

#[test]
fn bad_scripts_do_no_harm() {
    reached(bad_scripts);
}

fn bad_scripts() -> Result<(), String> {
    let Some(network) = network("bad hooks", Plan::new(Scenario::sym2())) else { return Ok(()) };
    let (scripts, mut setup) = (Scripts::new("bad-hooks"), setup());
    setup.bond.push(("hook_timeout".into(), "4".into()));
    // 20 MB would be noticed in the log.
    scripts.add(&mut setup, "preup", 0o755, "head -c 20000000 /dev/zero | tr '\\0' 'x'; echo done >> $LOG");
    scripts.add(&mut setup, "up", 0o755, "echo $$ >> $LOG; trap '' TERM; while :; do sleep 1; done");
    scripts.add(&mut setup, "predown", 0o755, "echo 'no such thing' >&2; exit 3");
    scripts.add(&mut setup, "down", 0o777, "echo never >> $LOG");
    let mut bond = Bond::start(&network, &setup).expect("the bond comes up");

    // The script of `up` hangs, is asked to end, and is ended, while packets flow.
    let stream = Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(100).seconds(7);
    let stream = stream.start().expect("a stream");
    let reason = "up: was ended because it ran for more than 4 s";
    bond.wait_for(End::Client, LIMIT, |status| {
        let events = status["events"].as_array().into_iter().flatten();
        events.into_iter().any(|event| event["what"] == "hook failed" && event["why"] == reason)
    })
    .expect("the hanging script is ended");
    let report = stream.finish();
    let lines = scripts.lines();
    let (done, hanging) = (&lines[0], &lines[1]);
    assert_eq!(done, "done", "the whole output was taken");
    assert!(!PathBuf::from(format!("/proc/{hanging}")).exists(), "it is gone");

    let outputs = bond.stop().expect("both daemons stop");
    let said = |part: &str| outputs[0].iter().any(|line| line.contains(part));
    assert!(said("hook failed: predown: ended with exit status 3: no such thing"), "{:#?}", outputs[0]);
    assert!(said("(mode 0777): run `chmod go-w "), "{:#?}", outputs[0]);
    assert!(said("bytes more"), "long output is cut");
    let size: usize = outputs[0].iter().map(String::len).sum();
    assert!(size < 200_000, "the log has {size} bytes");
    assert_eq!(scripts.lines().len(), 2, "{:?}", scripts.lines());
    demand(report.lost == 0, || format!("{} of {} packets lost", report.lost, report.sent))
}
