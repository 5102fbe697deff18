//! Classes of traffic (`config rule`), and links that are not to carry all that they could.

use std::fs;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::bond::{Bond, End, links_in_state};
use lab::emulator::{Capture, Cut, Direction};
use lab::packet::Header;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::Tcp;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{network, setup};

const LIMIT: Duration = Duration::from_secs(30);
/// Where the class's traffic goes to.
const PORT: u16 = 3_478;
/// Where all else goes to.
const OTHER: u16 = 3_479;
const WORD: &[u8] = b"a word to be sent back";

/// Prepares a bond whose client has these sections besides, and starts it.
fn start(network: &Topology, sections: &str) -> Bond {
    let mut bond = Bond::prepare(network, &setup()).expect("the files");
    let path = bond.config(End::Client).to_owned();
    let text = fs::read_to_string(&path).expect("the file");
    fs::write(&path, format!("{text}\n{sections}")).expect("the file");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_until_up(network.lines.len(), LIMIT).expect("the bond comes up");
    bond
}

/// A port of the host in the internet.
fn port(network: &Topology, port: u16) -> UdpSocket {
    network.inet.run(|| UdpSocket::bind(("0.0.0.0", port))).expect("a socket")
}

/// Sends the word to a port of the host in the internet until it comes back.
fn is_answered(network: &Topology, echo: &UdpSocket) -> bool {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let port = echo.local_addr().expect("it is bound").port();
        let tick = Some(Duration::from_millis(100));
        echo.set_read_timeout(tick).expect("a time-out");
        let done = &done;
        scope.spawn(move || {
            let mut buffer = [0; 100];
            while !done.load(Ordering::Relaxed) {
                if let Ok((length, from)) = echo.recv_from(&mut buffer) {
                    echo.send_to(&buffer[..length], from).expect("an answer");
                }
            }
        });
        let socket = network.router.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
        socket.set_read_timeout(tick).expect("a time-out");
        let end = Instant::now() + LIMIT;
        let mut buffer = [0; 100];
        let mut answered = false;
        while !answered && Instant::now() < end {
            // While routes change, sending may fail.
            let _ = socket.send_to(WORD, (Topology::INET_V4, port));
            answered = socket.recv_from(&mut buffer).is_ok();
        }
        done.store(true, Ordering::Relaxed);
        answered
    })
}

/// How many packets of the class were seen in the clear.
fn plain(capture: &Capture) -> usize {
    let is_of_class = |packet: &[u8]| {
        let ports = Header::parse(packet).and_then(|header| header.ports(packet));
        ports.is_some_and(|(from, to)| [from, to].contains(&PORT) || [from, to].contains(&OTHER))
    };
    capture.take().iter().filter(|captured| is_of_class(&captured.packet)).count()
}

#[test]
fn a_class_leaves_outside_the_bond_by_the_first_link_that_works() {
    let Some(network) = network("outside", Plan::new(Scenario::sym2())) else { return };
    let rule = format!(
        "config rule 'stun'\n\toption proto 'udp'\n\toption dest_port '{PORT}'\n\tlist link 'line2'\n\tlist link 'line1'\n\toption \
         outside '1'\n"
    );
    let bond = start(&network, &rule);
    let (of_class, other) = (port(&network, PORT), port(&network, OTHER));
    let captures: Vec<_> = (0..2).map(|line| network.line(line).capture(10_000)).collect();
    assert!(is_answered(&network, &other), "through the bond");
    assert_eq!([plain(&captures[0]), plain(&captures[1])], [0, 0], "what is in the bond is encrypted");
    assert!(is_answered(&network, &of_class), "outside the bond");
    assert_eq!(plain(&captures[0]), 0);
    assert!(plain(&captures[1]) >= 2, "there and back by the first link of the rule");

    network.line(1).cut(Cut::Silent);
    bond.wait_for(End::Client, LIMIT, |status| links_in_state(status, "up") == 1).expect("the cut is seen");
    plain(&captures[1]);
    assert!(is_answered(&network, &of_class), "by the other link");
    assert!(plain(&captures[0]) >= 2, "there and back by the second link of the rule");
}

#[test]
fn a_class_stays_on_its_link_in_both_directions() {
    let Some(network) = network("class on a link", Plan::new(Scenario::sym2())) else { return };
    let rule = "config rule 'bulk'\n\toption proto 'tcp'\n\toption link 'line2'\n";
    let bond = start(&network, rule);
    let knows = |status: &Value| {
        status["endpoint"]["peers"][0]["rules"].as_array().is_some_and(|rules| rules.len() == 1)
    };
    bond.wait_for(End::Server, LIMIT, knows).expect("the server is told the rule");
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(2);
    for (direction, report) in [
        (Direction::Down, transfer.clone().run().expect("a download")),
        (Direction::Up, transfer.clone().upload().run().expect("an upload")),
    ] {
        let carried = [0, 1].map(|line| network.line(line).counters(direction).bytes);
        println!("{direction:?}: {} bytes, the lines have carried {carried:?}", report.bytes);
        assert!(
            report.bytes > 200_000 && carried[1] > report.bytes,
            "{direction:?}: line 2 carries the class"
        );
        assert!(carried[0] < report.bytes / 5, "{direction:?}: line 1 carries what is not of the class");
    }
    let status = bond.command(End::Client, &["status"]).expect("a status");
    assert!(status.contains("rule bulk: "), "{status}");
}

#[test]
fn a_link_whose_quota_is_used_up_rests_also_after_a_restart() {
    let Some(network) = network("quota", Plan::new(Scenario::sym2())) else { return };
    let mut bond = Bond::prepare(&network, &setup()).expect("the files");
    let config = bond.config(End::Client).to_owned();
    let text = fs::read_to_string(&config).expect("the file");
    let text = text.replace("config link 'line2'\n", "config link 'line2'\n\toption quota '400k'\n");
    fs::write(&config, text).expect("the file");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up");

    let used_up = |status: &Value| status["links"]["line2"]["quota"]["used_up"] == true;
    assert!(!used_up(&bond.status(End::Client).expect("a status")));
    let download = Tcp::new(&network.lan, &network.inet, Topology::INET_V4);
    download.clone().seconds(2).run().expect("a download");
    bond.wait_for(End::Client, LIMIT, used_up).expect("the quota is used up");

    bond.process(End::Client).signal(Signal::SIGTERM).expect("the daemon runs");
    bond.process(End::Client).wait(LIMIT).expect("it is our child").expect("it stops");
    fs::remove_file(bond.socket(End::Client).with_extension("usage")).expect("what a reboot loses");
    bond.launch(End::Client).expect("the client starts again");
    let rests = |status: &Value| {
        let links = status["endpoint"]["peers"][0]["links"].as_array();
        links.is_some_and(|links| links.len() == 2 && links.iter().any(|link| link["last_resort"] == true))
    };
    for end in [End::Client, End::Server] {
        bond.wait_for(end, LIMIT, rests).expect("the link rests at both ends");
    }
    bond.wait_until_up(2, LIMIT).expect("both links are up");
    let before = [0, 1].map(|line| network.line(line).counters(Direction::Down).bytes);
    let report = download.seconds(2).run().expect("a download");
    let carried = [0, 1].map(|line| network.line(line).counters(Direction::Down).bytes - before[line]);
    println!("{} bytes, the lines have carried {carried:?}", report.bytes);
    assert!(report.bytes > 500_000 && carried[0] > report.bytes, "line 1 carries all");
    assert!(carried[1] < 100_000, "line 2 carries nothing but probes: {carried:?}");
    let status = bond.command(End::Client, &["status"]).expect("a status");
    assert!(status.contains("only used while no"), "{status}");
}
