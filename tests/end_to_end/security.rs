//! What strangers see and what they can do.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::bond::{Bond, End, Setup, links_in_state};
use lab::emulator::{Capture, Captured, Direction};
use lab::line::Verdict;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::Tcp;
use serde_json::Value;

use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);
/// IPv4 and UDP headers.
const HEADERS: usize = 28;

fn dropped(status: &Value) -> u64 {
    let drops = status["endpoint"]["drops"].as_object();
    drops.into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}

/// A datagram whose checksum is left out, so that it reaches the daemon however it was changed.
fn without_checksum(mut packet: Vec<u8>) -> Vec<u8> {
    packet[26..28].fill(0);
    packet
}

fn of(captured: &[Captured], direction: Direction) -> Vec<Vec<u8>> {
    captured.iter().filter(|c| c.direction == direction).map(|c| c.packet.clone()).collect()
}

/// With keys that do not fit nothing comes up, and the server says nothing to the client.
fn stays_silent(test: &str, preshared: bool, change: impl Fn(&str) -> String) {
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return };
    let setup = Setup { preshared, ..setup() };
    let mut bond = Bond::prepare(&network, &setup).expect("the files");
    let config = bond.config(End::Client).to_owned();
    let text = std::fs::read_to_string(&config).expect("the file");
    std::fs::write(&config, change(&text)).expect("the file");
    let capture = network.line(0).capture(10_000);
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_for(End::Server, LIMIT, |status| dropped(status) >= 3).expect("the server drops and counts");
    let status = bond.status(End::Client).expect("a status");
    assert_eq!(links_in_state(&status, "up"), 0);
    let captured = capture.take();
    assert!(!of(&captured, Direction::Up).is_empty());
    assert_eq!(of(&captured, Direction::Down), Vec::<Vec<u8>>::new(), "{test}: nothing is answered");
}

/// Another key in place of that of an option.
fn other_key(text: &str, option: &str) -> String {
    let line = text.lines().find(|line| line.contains(option)).expect("the option");
    text.replace(line, &format!("\toption {option} 'YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY='"))
}

#[test]
fn a_client_with_the_wrong_server_key_is_not_answered() {
    stays_silent("wrong key", false, |text| other_key(text, "public_key"));
}

#[test]
fn a_client_with_the_wrong_preshared_key_is_not_answered() {
    stays_silent("wrong psk", true, |text| other_key(text, "preshared_key"));
}

/// Counts what the capture has seen in one direction within a time.
fn count(capture: &Capture, direction: Direction, time: Duration) -> usize {
    let end = Instant::now() + time;
    let mut seen = 0;
    while Instant::now() < end {
        seen += of(&capture.take(), direction).len();
        std::thread::sleep(Duration::from_millis(10));
    }
    seen
}

#[test]
fn forged_and_replayed_packets_are_dropped_counted_and_not_answered() {
    let Some(network) = network("forged", Plan::new(Scenario::sym2())) else { return };
    let capture = network.line(0).capture(10_000);
    let bond = Bond::start(&network, &setup()).expect("the bond comes up");
    for (to, end) in [(Direction::Up, End::Server), (Direction::Down, End::Client)] {
        let back = if to == Direction::Up { Direction::Down } else { Direction::Up };
        let is_transport = |p: &Vec<u8>| p.len() > HEADERS && p[HEADERS] >> 5 == 4;
        let deadline = Instant::now() + LIMIT;
        let mut transport = Vec::new();
        while transport.is_empty() && Instant::now() < deadline {
            // An idle link is pinged, so that packets come both ways.
            let captured = capture.wait_for(1, LIMIT);
            transport.extend(of(&captured, to).into_iter().filter(is_transport));
        }
        let model = transport.first().expect("a transport packet").clone();
        let mut hostile = Vec::new();
        hostile.extend(std::iter::repeat_n(model.clone(), 50));
        for bit in 0..(model.len() - HEADERS) * 8 {
            let mut packet = without_checksum(model.clone());
            packet[HEADERS + bit / 8] ^= 1 << (bit % 8);
            hostile.push(packet);
        }
        for first in 0..=255u8 {
            let mut packet = without_checksum(model.clone());
            for (i, byte) in packet[HEADERS..].iter_mut().enumerate() {
                *byte = first.wrapping_add((i as u8).wrapping_mul(first | 1));
            }
            packet[HEADERS] = first;
            hostile.push(packet);
        }
        if to == Direction::Up {
            // The same replayed from another address must move nobody. (The box lets no other server in.)
            let mut elsewhere = without_checksum(model.clone());
            elsewhere[20..22].copy_from_slice(&40_000u16.to_be_bytes());
            hostile.extend(std::iter::repeat_n(elsewhere, 50));
        }

        let before = dropped(&bond.status(end).expect("a status"));
        let usual = count(&capture, back, Duration::from_secs(2));
        let number = hostile.len() as u64;
        let mut status = Value::Null;
        // The daemon's buffers are short, and it may have to wait for the machine.
        for (packets, sent) in hostile.chunks(100).zip((100..).step_by(100)) {
            for packet in packets {
                // So is the line's queue.
                while network.line(0).inject(to, packet.clone()) == Verdict::QueueFull {
                    std::thread::sleep(Duration::from_micros(600));
                }
            }
            let counted = bond.wait_for(end, LIMIT, |status| dropped(status) >= before + number.min(sent));
            status = counted.expect("each one is counted");
        }
        let answers = count(&capture, back, Duration::from_secs(2));
        println!(
            "{end:?}: {number} packets, usual {usual} in 2 s, then {answers}: {}",
            status["endpoint"]["drops"]
        );
        assert!(answers <= usual + 4 * 4, "{answers} packets, usually {usual}");
        assert_eq!(links_in_state(&status, "up"), 2);
        let remote = &status["endpoint"]["peers"][0]["links"][0]["remote"];
        assert!(!remote.as_str().unwrap_or_default().ends_with(":40000"), "{remote}");
    }
}

/// Whether a text that is sent through the bond is to be read on a line.
fn readable(test: &str, setup: &Setup) -> Option<bool> {
    let network = network(test, Plan::new(Scenario::sym2()))?;
    let captures: Vec<_> = (0..2).map(|line| network.line(line).capture(10_000)).collect();
    let bond = Bond::start(&network, setup).expect("the bond comes up");
    let text = b"in the beginning was the word, and nobody on the line shall read it";
    network.lan.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        for _ in 0..20 {
            socket.send_to(text, (Topology::INET_V4, 9)).expect("the text is sent");
        }
    });
    let sent = |status: &Value| status["endpoint"]["peers"][0]["rx_packets"].as_u64() >= Some(20);
    bond.wait_for(End::Server, LIMIT, sent).expect("the text arrives");
    let captured: Vec<_> = captures.iter().flat_map(Capture::take).collect();
    assert!(captured.len() >= 20);
    Some(captured.iter().any(|c| c.packet.windows(text.len()).any(|window| window == text)))
}

#[test]
fn payload_is_not_readable_on_a_line() {
    for cipher in ["auto", "aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"] {
        let Some(found) = readable(cipher, &setup().global("cipher", cipher)) else { return };
        assert!(!found, "{cipher}");
    }
}

#[test]
fn without_cipher_payload_is_readable_as_it_says() {
    if let Some(found) = readable("no cipher", &setup().global("cipher", "none")) {
        assert!(found);
    }
}

/// Datagrams a second that strangers send in [`a_flood_of_strangers_does_not_stop_the_bond`].
const FLOOD: usize = 20_000;

/// Sends datagrams of a set, in turn and from many ports, until told to stop. Returns how many.
fn flood(datagrams: &[Vec<u8>], to: IpAddr, rate: usize, stop: &AtomicBool) -> usize {
    let sockets: Vec<_> = (0..16).map(|_| UdpSocket::bind("0.0.0.0:0").expect("a socket")).collect();
    let (started, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (started.elapsed().as_secs_f64() * rate as f64) as usize;
        if sent >= due {
            std::thread::sleep(Duration::from_micros(500));
        }
        for number in sent..due {
            let socket = &sockets[number / 32 % sockets.len()];
            // A full queue drops it, as one in the network would.
            let _ = socket.send_to(&datagrams[number % datagrams.len()], (to, 5510));
        }
        sent = due.max(sent);
    }
    sent
}

/// A stop that is told also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A quarter each of nonsense, copies of the client's transport packets and handshakes, and packets with its session's
/// index that are wrong only in their tag. The handshakes cost most, so that the server asks for cookies.
fn hostile(seen: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let of_type = |kind: u8| seen.iter().filter(move |d| d.first().is_some_and(|first| first >> 5 == kind));
    let initiations: Vec<_> = of_type(1).collect();
    let transport: Vec<_> = of_type(4).collect();
    assert!(!initiations.is_empty() && transport.len() > 100);
    let newest = transport.iter().rev().take(100);
    let each = newest.zip(0u8..).flat_map(|(packet, n)| {
        let mut forged = packet.to_vec();
        forged[1] = forged[1].wrapping_add(100);
        forged.resize(1_400, n);
        let nonsense = vec![n.wrapping_mul(37); 60 + usize::from(n)];
        [nonsense, packet.to_vec(), initiations[usize::from(n) % initiations.len()].clone(), forged]
    });
    each.collect()
}

#[test]
fn a_flood_of_strangers_does_not_stop_the_bond() {
    let Some(network) = network("flood", Plan::new(Scenario::sym2())) else { return };
    let capture = network.line(0).capture(100_000);
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let download = || {
        let run = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(2).run();
        run.expect("a download").goodput as f64 / 1e6
    };
    let quiet = download();
    let up = of(&capture.take(), Direction::Up);
    let seen: Vec<Vec<u8>> =
        up.iter().filter_map(|packet| packet.get(HEADERS..)).map(<[u8]>::to_vec).collect();
    let datagrams = hostile(&seen);
    let before = dropped(&bond.status(End::Server).expect("a status"));
    let stop = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let attacker =
            scope.spawn(|| network.server.run(|| flood(&datagrams, Topology::SERVER_V4, FLOOD, &stop)));
        let stop = Stop(&stop);
        reached(|| {
            let flooded = download();
            println!("{flooded:.1} Mbit/s, {quiet:.1} before");
            demand(flooded > 0.6 * quiet, || format!("{flooded} Mbit/s in the flood, {quiet} before"))
        });
        // A new handshake gets through, too: it can show the cookie that it is asked for.
        bond.halt(End::Client).expect("the client stops");
        bond.launch(End::Client).expect("the client starts again");
        bond.wait_until_up(2, LIMIT).expect("the client gets in during the flood");
        drop(stop);
        attacker.join().expect("the attacker")
    });
    let status = bond.status(End::Server).expect("a status");
    let drops = &status["endpoint"]["drops"];
    println!("{sent} sent, {} counted: {drops}", dropped(&status) - before);
    for reason in ["replayed", "not authentic", "unknown type", "handshake without cookie under load"] {
        assert!(drops[reason].as_u64() > Some(500), "{reason}: {drops}");
    }
}
