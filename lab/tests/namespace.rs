//! Namespaces on the running kernel.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::namespace::{Namespace, Route, Rule};
use lab::prefix::prefix;
use nix::sys::signal::Signal;

const SOON: Duration = Duration::from_secs(30);

fn shell(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]);
    command
}

#[test]
fn two_namespaces_talk_over_a_veth_pair() {
    lab::need_privilege!();
    let (left, right) = (Namespace::new("left").unwrap(), Namespace::new("right").unwrap());
    left.add_veth("eth0", &right, "eth1").unwrap();
    for (ns, device, host) in [(&left, "eth0", 1), (&right, "eth1", 2)] {
        ns.add_address(device, prefix(&format!("10.9.0.{host}/24"))).unwrap();
        ns.add_address(device, prefix(&format!("fd09::{host}/64"))).unwrap();
    }
    for address in ["10.9.0.2:0", "[fd09::2]:0"] {
        let listener = right.run(|| TcpListener::bind(address)).unwrap();
        let to = listener.local_addr().unwrap();
        let stream = left.run(|| TcpStream::connect_timeout(&to, SOON)).unwrap();
        assert_eq!(listener.accept().unwrap().1, stream.local_addr().unwrap());
    }
    assert!(left.run(|| TcpListener::bind("10.9.0.2:0")).is_err(), "the address of another namespace");
}

#[test]
fn what_is_added_can_be_seen_and_removed() {
    lab::need_privilege!();
    let ns = Namespace::new("routes").unwrap();
    let other = Namespace::new("other").unwrap();
    let empty = ns.snapshot().unwrap();
    ns.add_veth("eth0", &other, "eth0").unwrap();
    ns.set_mtu("eth0", 1400).unwrap();
    let linked = ns.snapshot().unwrap();
    assert!(linked.contains(&"link eth0 up mtu 1400".to_owned()), "{linked:#?}");

    let address = prefix("10.9.0.1/24");
    let address6 = prefix("fd09::1/64");
    let route = Route::default_via("10.9.0.2".parse().unwrap()).device("eth0").table(1000).metric(7);
    let route6 = Route::to(prefix("2001:db8::/32")).via("fd09::2".parse().unwrap()).table(100);
    let rule = Rule::lookup(1000).from(prefix("10.9.0.1/32")).priority(500);
    let rule6 = Rule::lookup(100).mark(0x77).v6().priority(501);
    ns.add_address("eth0", address).unwrap();
    ns.add_address("eth0", address6).unwrap();
    ns.add_route(&route).unwrap();
    ns.add_route(&route6).unwrap();
    ns.add_rule(&rule).unwrap();
    ns.add_rule(&rule6).unwrap();
    let full = ns.snapshot().unwrap();
    for line in [
        "address 10.9.0.1/24 device eth0",
        "address fd09::1/64 device eth0",
        "route Inet Unicast table 1000 default via 10.9.0.2 device eth0 metric 7",
        "rule Inet from 10.9.0.1/32 priority 500 lookup 1000",
        "rule Inet6 fwmark 0x77/0xffffffff priority 501 lookup 100",
    ] {
        assert!(full.contains(&line.to_owned()), "no {line:?} in {full:#?}");
    }
    assert!(full.iter().any(|line| line.contains("table 100 2001:db8::/32 via fd09::2")), "{full:#?}");
    assert!(ns.addresses("eth0").unwrap().contains(&address6));

    ns.remove_rule(&rule).unwrap();
    ns.remove_rule(&rule6).unwrap();
    ns.remove_route(&route).unwrap();
    ns.remove_route(&route6).unwrap();
    ns.remove_address("eth0", address).unwrap();
    ns.remove_address("eth0", address6).unwrap();
    assert_eq!(ns.snapshot().unwrap(), linked);
    ns.remove_link("eth0").unwrap();
    assert_eq!(ns.snapshot().unwrap(), empty);

    let error = ns.link_up("eth0").unwrap_err();
    assert_eq!(error.raw_os_error().or(Some(libc::ENODEV)), Some(libc::ENODEV));
    assert!(error.to_string().contains("eth0"), "{error}");
    assert!(ns.remove_address("lo", address).is_err());
}

#[test]
fn sysctls_belong_to_the_namespace() {
    lab::need_privilege!();
    let (one, two) = (Namespace::new("one").unwrap(), Namespace::new("two").unwrap());
    one.enable_forwarding().unwrap();
    assert_eq!(one.sysctl("net.ipv4.ip_forward").unwrap(), "1");
    assert_eq!(one.sysctl("net/ipv6/conf/all/forwarding").unwrap(), "1");
    assert_eq!(two.sysctl("net.ipv4.ip_forward").unwrap(), "0");
    assert_eq!(one.sysctl("net.no.such").unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_process_runs_inside_and_its_output_is_kept() {
    lab::need_privilege!();
    let ns = Namespace::new("process").unwrap();
    ns.add_veth("inside0", &ns, "inside1").unwrap();
    let done =
        ns.execute(shell("cat /proc/net/dev; ls /sys/class/net; echo oops >&2; exit 3"), SOON).unwrap();
    assert_eq!(done.status.code(), Some(3));
    let seen = done.output.iter().filter(|line| line.contains("inside0")).count();
    assert_eq!(seen, 2, "in /proc and /sys: {:#?}", done.output);
    assert!(done.output.contains(&"oops".to_owned()));

    // The first one may be too short for its beginning.
    let begun = [300, 3_000, 30_000].into_iter().any(|limit| {
        let endless = ns.execute(shell("echo begun; sleep 100"), Duration::from_millis(limit)).unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::TimedOut);
        endless.to_string().contains("begun")
    });
    assert!(begun);
    assert!(ns.spawn(Command::new("/no/such/program")).is_err());
}

#[test]
fn a_process_is_asked_to_end_and_killed_when_dropped() {
    lab::need_privilege!();
    let ns = Namespace::new("process").unwrap();
    let polite = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let process = ns.spawn(shell(polite)).unwrap();
    assert_eq!(process.wait_for_output("ready", SOON).as_deref(), Some("ready"));
    let done = process.terminate(SOON).unwrap();
    assert!(done.status.success());
    assert_eq!(done.output.last().map(String::as_str), Some("bye"));

    // From a thread that ends at once: the process must not end with it.
    let mut process =
        std::thread::scope(|scope| scope.spawn(|| ns.spawn(shell("echo up; exec sleep 60"))).join())
            .unwrap()
            .unwrap();
    process.wait_for_output("up", SOON).unwrap();
    assert!(process.is_running().unwrap());
    process.signal(Signal::SIGTERM).unwrap();
    assert!(process.wait(SOON).unwrap().is_some());
    assert!(process.signal(Signal::SIGTERM).is_err());

    let process = ns.spawn(shell("exec sleep 60")).unwrap();
    let id = process.id();
    drop(process);
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
}

#[test]
fn waiting_for_output_is_bounded() {
    lab::need_privilege!();
    let ns = Namespace::new("process").unwrap();
    let process = ns.spawn(shell("exec sleep 60")).unwrap();
    let begun = Instant::now();
    assert_eq!(process.wait_for_output("never", Duration::from_millis(200)), None);
    assert!(begun.elapsed() < SOON);
    let process = ns.spawn(shell("echo one")).unwrap();
    assert_eq!(process.wait_for_output("two", Duration::from_secs(60)), None);
    assert!(begun.elapsed() < SOON, "the end of the output ends the wait");
}

/// The root of the promise that nothing is left behind: a child of this test makes a namespace with a process in it,
/// says its id, and is killed without a chance to clean up.
#[test]
fn nothing_survives_kill_9() {
    lab::need_privilege!();
    const ROLE: &str = "LAB_TEST_ROLE";
    if std::env::var_os(ROLE).is_some() {
        let ns = Namespace::new("doomed").unwrap();
        let process = ns.spawn(shell("exec sleep 60")).unwrap();
        println!("child {}", process.id());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let keeper = Namespace::new("keeper").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "nothing_survives_kill_9", "--nocapture"]).env(ROLE, "doomed");
    let mut doomed = keeper.spawn(command).unwrap();
    let line = doomed.wait_for_output("child ", SOON).expect("the child says its id");
    let id: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    // A zombie that its new parent has not yet buried is dead enough.
    let alive = || {
        let status = std::fs::read_to_string(format!("/proc/{id}/status"));
        status.is_ok_and(|status| !status.contains("State:\tZ") && !status.contains("State:\tX"))
    };
    assert!(alive(), "{:#?}", doomed.output());
    doomed.signal(Signal::SIGKILL).unwrap();
    doomed.wait(SOON).unwrap().expect("killed");
    let deadline = Instant::now() + SOON;
    while alive() {
        assert!(Instant::now() < deadline, "process {id} outlives its laboratory");
        std::thread::yield_now();
    }
}
