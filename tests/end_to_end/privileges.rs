//! What an intruder would find: a process that can do little, and files that others cannot read.

use std::fs;
use std::time::Duration;

use lab::bond::{Bond, End};
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::Tcp;

use crate::{network, setup};

#[test]
fn the_daemon_keeps_three_capabilities_at_most_and_still_does_its_work() {
    let Some(network) = network("privileges", Plan::new(Scenario::sym2())) else { return };
    let mut setup = setup();
    setup.server_globals.push(("listen_port".into(), "443".into()));
    setup.bond.push(("remote_port".into(), "443".into()));
    let mut bond = Bond::start(&network, &setup).expect("the bond comes up");
    for (end, capabilities, names) in [
        (End::Client, 0x3000, vec!["CAP_NET_ADMIN", "CAP_NET_RAW"]),
        (End::Server, 0x3400, vec!["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW"]),
    ] {
        let pid = bond.process(end).id();
        // Of every thread: what one has given up another one must not keep.
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("threads");
        for task in tasks {
            let status =
                fs::read_to_string(task.expect("a thread").path().join("status")).expect("its status");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
                line.unwrap_or_else(|| panic!("{name} in {status}")).to_owned()
            };
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                let bits = u64::from_str_radix(&field(set), 16).expect("a number");
                assert_eq!(bits & !capabilities, 0, "{end:?}: {set} is {bits:x}");
            }
            assert_eq!(field("NoNewPrivs"), "1");
            assert_eq!(field("Seccomp"), "2");
        }
        let status = bond.status(end).expect("a status");
        assert_eq!(status["privileges"]["capabilities"], serde_json::json!(names));
        assert_eq!(status["privileges"]["seccomp"], true);
    }

    // A new socket, the file read again, the kernel asked: all of that still works.
    bond.command(End::Client, &["link", "line1", "reconnect"]).expect("a new socket");
    bond.command(End::Client, &["reload"]).expect("a reload");
    bond.command(End::Client, &["status", "--routes"]).expect("a list of routes");
    bond.wait_until_up(2, Duration::from_secs(10)).expect("the link comes back");
    let report =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).bytes(1_000_000).run().expect("a download");
    assert!(report.completed, "{:?}", report.errors());
    bond.stop().expect("both daemons stop");
}
