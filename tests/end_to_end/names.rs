//! The server by its name, for which each link asks through its own line.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lab::bond::{Bond, End, links_in_state};
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};

use crate::{network, setup};

const LIMIT: Duration = Duration::from_secs(30);

/// A name server that knows one name, at the server's own address.
struct NameServer {
    /// Who has asked.
    askers: Arc<Mutex<BTreeSet<IpAddr>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    fn start(network: &Topology) -> NameServer {
        let socket = network.server.run(|| UdpSocket::bind((Topology::SERVER_V4, 53))).expect("the port");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
        let (askers, stop): (Arc<Mutex<BTreeSet<IpAddr>>>, Arc<AtomicBool>) = Default::default();
        let (heard, ended) = (askers.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut buffer = [0; 512];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                heard.lock().expect("nobody fails with it").insert(from.ip());
                socket.send_to(&answer(&buffer[..length]), from).expect("a way back");
            }
        });
        NameServer { askers, stop, thread: Some(thread) }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `vpn.example` is an alias of the server's name; other names do not exist.
fn answer(question: &[u8]) -> Vec<u8> {
    let IpAddr::V4(address) = Topology::SERVER_V4 else { unreachable!("it is IPv4") };
    let mut message = question.to_vec();
    message[2] |= 0x80;
    let asked = &question[12..question.len() - 4];
    if asked != b"\x03vpn\x07example\0" {
        message[3] |= 3;
        return message;
    }
    message[7] = 2;
    // The alias: "dc" and the question's "example" from byte 16 on; the address of that, which begins at byte 41.
    message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x05\x02dc\xc0\x10");
    message.extend(b"\xc0\x29\0\x01\0\x01\0\0\0\x3c\0\x04");
    message.extend(address.octets());
    message
}

#[test]
fn each_link_resolves_the_servers_name_through_its_own_line() {
    let plan = Plan::new(Scenario::sym2()).nat(false);
    let Some(network) = network("names of servers", plan) else { return };
    let nobody = Ipv4Addr::new(203, 0, 113, 99);
    let mut bond = Bond::prepare(&network, &setup()).expect("files and keys");
    let path = bond.config(End::Client);
    let mut text = fs::read_to_string(path).expect("the file");
    text =
        text.replace(&format!("\toption server '{}'", Topology::SERVER_V4), "\toption server 'VPN.example'");
    for (name, server) in [("line1", Topology::SERVER_V4), ("line2", nobody.into())] {
        let head = format!("config link '{name}'\n");
        text = text.replace(&head, &format!("{head}\tlist dns '{server}'\n"));
    }
    fs::write(path, text).expect("the file");
    let captures = [0, 1].map(|line| network.line(line).capture(1_000));

    // As at the first boot: there is no name server yet.
    for end in [End::Server, End::Client] {
        bond.launch(end).expect("the daemon starts");
    }
    let note = |status: &serde_json::Value, link: &str| {
        status["links"][link]["note"].as_str().unwrap_or_default().to_owned()
    };
    let without =
        bond.wait_for(End::Client, LIMIT, |status| note(status, "line1").contains("cannot be resolved"));
    let without = without.expect("the link says what it lacks");
    assert!(note(&without, "line1").contains("203.0.113.1"), "{without}");

    let server = NameServer::start(&network);
    bond.wait_for(End::Client, LIMIT, |status| links_in_state(status, "up") == 2)
        .expect("the second link uses what the first one has found");
    let own = network.lines[0].address_v4().expect("an address");
    assert_eq!(*server.askers.lock().expect("nobody fails with it"), BTreeSet::from([own]));

    // Who asked whom through which line, by the destination in the IPv4 header.
    let asked = captures.map(|capture| {
        let packets = capture.take();
        let to = |address: IpAddr| {
            let IpAddr::V4(address) = address else { unreachable!("they are IPv4") };
            packets.iter().any(|seen| {
                seen.packet.get(16..20) == Some(&address.octets())
                    && seen.packet.get(22..24) == Some(&[0, 53])
            })
        };
        [to(Topology::SERVER_V4), to(nobody.into())]
    });
    assert_eq!(asked, [[true, false], [false, true]]);
}
