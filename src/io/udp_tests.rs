use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::io::udp::*;
use crate::net::namespace::{Bench, Namespace, run};

const LIMIT: Duration = Duration::from_secs(20);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What comes within [`LIMIT`], until there are `count`: payload, sender, our address.
async fn receive(socket: &Socket, count: usize) -> Vec<(Vec<u8>, SocketAddr, SocketAddr)> {
    let mut batch = RecvBatch::new(4);
    let mut received = Vec::new();
    let look = async {
        while received.len() < count {
            socket.readable().await.unwrap();
            match socket.try_recv(&mut batch) {
                Ok(_) => {
                    received.extend(batch.datagrams().map(|d| (d.payload.to_vec(), d.remote, d.local)));
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    };
    if tokio::time::timeout(LIMIT, look).await.is_err() {
        panic!("{} of {count} came", received.len());
    }
    received
}

async fn send(socket: &Socket, transmit: &Transmit<'_>) -> Result<usize, SendError> {
    loop {
        match socket.try_send(transmit) {
            Err(SendError::WouldBlock) => {
                tokio::time::timeout(LIMIT, socket.writable()).await.expect("never writable").unwrap();
            }
            other => return other,
        }
    }
}

/// Two namespaces and a cable: `here` in that of the test, `there` in the other.
async fn two_ends(bench: &Bench) -> (Namespace, Bench) {
    let other = Namespace::another();
    let other_bench = Bench::in_namespace(&other);
    bench.cable("here", "there", &other, &other_bench).await;
    for (address, prefix_len) in [("192.0.2.1", 24), ("192.0.2.2", 24), ("fd00::1", 64), ("fd00::2", 64)] {
        bench.address("here", address, prefix_len).await;
    }
    other_bench.address("there", "192.0.2.9", 24).await;
    other_bench.address("there", "fd00::9", 64).await;
    (other, other_bench)
}

#[test]
fn a_reply_leaves_from_the_address_that_was_asked() {
    run(|bench| async move {
        let (other, _other_bench) = two_ends(&bench).await;
        for (listen, second, client) in [
            ("0.0.0.0:5000", "192.0.2.2:5000", "192.0.2.9:0"),
            ("[::]:5000", "[fd00::2]:5000", "[fd00::9]:0"),
        ] {
            let server = Socket::open(SocketOptions::new(at(listen))).unwrap();
            let client = other.enter(|| Socket::open(SocketOptions::new(at(client)))).unwrap();
            send(&client, &Transmit::new(at(second), b"question")).await.unwrap();
            let (payload, remote, local) = receive(&server, 1).await.remove(0);
            assert_eq!(
                (payload.as_slice(), remote, local),
                (&b"question"[..], client.local_addr(), at(second))
            );

            let reply = Transmit { source: Some(local.ip()), ..Transmit::new(remote, b"answer") };
            send(&server, &reply).await.unwrap();
            let (payload, remote, _) = receive(&client, 1).await.remove(0);
            assert_eq!((payload.as_slice(), remote), (&b"answer"[..], at(second)));
        }
    });
}

/// `FragCreates` and `Ip6FragCreates` of the calling thread's network namespace.
fn fragments() -> (u64, u64) {
    let v4 = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = v4.lines().filter(|line| line.starts_with("Ip:")).map(|line| line.split_whitespace());
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let v4 = names.zip(values).find(|(name, _)| *name == "FragCreates").unwrap().1.parse().unwrap();
    let v6 = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let v6 = v6.lines().find_map(|line| line.strip_prefix("Ip6FragCreates")).unwrap().trim().parse().unwrap();
    (v4, v6)
}

#[test]
fn nothing_is_ever_sent_in_fragments() {
    run(|bench| async move {
        let (other, _other_bench) = two_ends(&bench).await;
        let index = bench.link("here").await.index;
        bench.netlink.set_link_mtu(index, 1280).await.unwrap();
        for (local, remote, headers) in
            [("192.0.2.1:0", "192.0.2.9:5000", 28), ("[fd00::1]:0", "[fd00::9]:5000", 48)]
        {
            let remote = at(remote);
            let receiver = other.enter(|| Socket::open(SocketOptions::new(remote))).unwrap();
            let socket = Socket::open(SocketOptions::new(at(local))).unwrap();
            let largest = vec![7; 1280 - headers];
            assert_eq!(send(&socket, &Transmit::new(remote, &largest)).await.unwrap(), 1);
            assert_eq!(receive(&receiver, 1).await[0].0.len(), largest.len());
            for too_large in [1280 - headers + 1, 1400, 9000, 65_000] {
                let payload = vec![7; too_large];
                match send(&socket, &Transmit::new(remote, &payload)).await {
                    Err(error @ SendError::TooLarge) => assert!(!error.needs_reopen()),
                    other => panic!("{too_large}: {other:?}"),
                }
            }
            // And it still works.
            send(&socket, &Transmit::new(remote, &largest)).await.unwrap();
            receive(&receiver, 1).await;
        }
        assert_eq!(fragments(), (0, 0));
    });
}

#[test]
fn many_at_once() {
    let _descriptors = lab::descriptors();
    run(|bench| async move {
        let (other, _other_bench) = two_ends(&bench).await;
        for gro in [true, false] {
            let remote = at("192.0.2.9:5000");
            let options = SocketOptions { gro, ..SocketOptions::new(remote) };
            let receiver = other.enter(|| Socket::open(options)).unwrap();
            assert_eq!(receiver.gro(), gro);
            let socket = Socket::open(SocketOptions::new(at("192.0.2.1:0"))).unwrap();
            assert_eq!(socket.max_segments(), 64, "this kernel has segmentation offload");
            // 40 datagrams and a shorter one, told apart by their bytes.
            let contents: Vec<u8> =
                (0..41u8).flat_map(|n| vec![n; if n == 40 { 100 } else { 1000 }]).collect();
            let transmit = Transmit { segment_size: Some(1000), ..Transmit::new(remote, &contents) };
            assert_eq!(send(&socket, &transmit).await.unwrap(), 41);
            let mut received = receive(&receiver, 41).await;
            // A sender that moves to another processor between two calls may overtake itself.
            received.sort();
            for (n, (payload, _, _)) in received.iter().enumerate() {
                assert_eq!(payload, &vec![n as u8; if n == 40 { 100 } else { 1000 }]);
            }
            // More than the kernel takes at once, in number and in bytes.
            for (count, size) in [(150, 100), (100, 1400)] {
                let contents: Vec<u8> = (0..count).flat_map(|n| vec![n as u8; size]).collect();
                let transmit = Transmit { segment_size: Some(size), ..Transmit::new(remote, &contents) };
                assert_eq!(send(&socket, &transmit).await.unwrap(), count);
                let mut received = receive(&receiver, count).await;
                received.sort();
                for (n, (payload, _, _)) in received.iter().enumerate() {
                    assert_eq!(payload, &vec![n as u8; size]);
                }
            }
        }
    });
}

#[test]
fn congestion_bits_pass_both_ways() {
    run(|bench| async move {
        let (other, _other_bench) = two_ends(&bench).await;
        for (local, remote) in [("192.0.2.1:0", "192.0.2.9:5000"), ("[fd00::1]:0", "[fd00::9]:5000")] {
            let receiver = other.enter(|| Socket::open(SocketOptions::new(at(remote)))).unwrap();
            let socket = Socket::open(SocketOptions::new(at(local))).unwrap();
            let mut batch = RecvBatch::new(1);
            for ecn in [None, Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce)] {
                send(&socket, &Transmit { ecn, ..Transmit::new(at(remote), b"x") }).await.unwrap();
                tokio::time::timeout(LIMIT, receiver.readable()).await.unwrap().unwrap();
                // Readiness may be left over from the last one.
                while receiver.try_recv(&mut batch).is_err() {
                    tokio::time::timeout(LIMIT, receiver.readable()).await.unwrap().unwrap();
                }
                assert_eq!(batch.datagrams().next().unwrap().ecn, ecn);
            }
        }
    });
}

/// `quinn-udp` takes the refusal of a source address for a lack of segmentation offload.
#[test]
fn a_source_that_is_gone_costs_no_offload() {
    run(|bench| async move {
        let (other, _other_bench) = two_ends(&bench).await;
        let remote = at("192.0.2.9:5000");
        let receiver = other.enter(|| Socket::open(SocketOptions::new(remote))).unwrap();
        let server = Socket::open(SocketOptions::new(at("0.0.0.0:5000"))).unwrap();
        let gone = Transmit { source: Some([198, 51, 100, 1].into()), ..Transmit::new(remote, b"x") };
        let contents = [7; 3000];
        let gone_many = Transmit { contents: &contents, segment_size: Some(1000), ..gone };
        for transmit in [gone, gone_many, gone, gone_many] {
            match send(&server, &transmit).await {
                Err(error @ SendError::Unreachable(_)) => assert!(!error.needs_reopen()),
                other => panic!("{other:?}"),
            }
            assert_eq!(server.max_segments(), 64);
        }
        let ecn = Some(Ecn::Ect0);
        send(&server, &Transmit { ecn, ..Transmit::new(remote, b"y") }).await.unwrap();
        let mut batch = RecvBatch::new(1);
        tokio::time::timeout(LIMIT, receiver.readable()).await.unwrap().unwrap();
        receiver.try_recv(&mut batch).unwrap();
        assert_eq!(batch.datagrams().next().unwrap().ecn, ecn);
    });
}

#[test]
fn a_device_that_vanishes_and_comes_back() {
    let _descriptors = lab::descriptors();
    run(|bench| async move {
        let other = Namespace::another();
        let other_bench = Bench::in_namespace(&other);
        bench.cable("here", "there", &other, &other_bench).await;
        bench.address("here", "192.0.2.1", 24).await;
        other_bench.address("there", "192.0.2.9", 24).await;
        let remote = at("192.0.2.9:5000");
        let options =
            SocketOptions { device: Some("here".to_owned()), ..SocketOptions::new(at("192.0.2.1:0")) };
        let socket = Socket::open(options).unwrap();
        let port = socket.local_addr().port();
        send(&socket, &Transmit::new(remote, b"x")).await.unwrap();

        bench.delete("here").await;
        match send(&socket, &Transmit::new(remote, b"x")).await {
            Err(error) => assert!(error.needs_reopen(), "{error:?}"),
            Ok(_) => panic!("sent into nowhere"),
        }
        let options = socket.close();
        match Socket::open(options.clone()) {
            Err(OpenError::NoDevice(name)) => assert_eq!(name, "here"),
            other => panic!("{other:?}"),
        }

        bench.cable("here", "there", &other, &other_bench).await;
        match Socket::open(options.clone()) {
            Err(OpenError::NotLocal(_)) => {}
            other => panic!("{other:?}"),
        }
        bench.address("here", "192.0.2.1", 24).await;
        other_bench.address("there", "192.0.2.9", 24).await;
        let receiver = other.enter(|| Socket::open(SocketOptions::new(remote))).unwrap();
        let socket = Socket::open(options).unwrap();
        assert_eq!(socket.local_addr().port(), port, "the same port as before");
        send(&socket, &Transmit::new(remote, b"again")).await.unwrap();
        assert_eq!(receive(&receiver, 1).await[0].0, b"again");
    });
}

#[test]
fn an_address_that_vanishes() {
    run(|bench| async move {
        let (_other, _other_bench) = two_ends(&bench).await;
        let address = bench.address("here", "192.0.2.77", 24).await;
        let socket = Socket::open(SocketOptions::new(at("192.0.2.77:0"))).unwrap();
        send(&socket, &Transmit::new(at("192.0.2.9:5000"), b"x")).await.unwrap();
        bench.netlink.remove_address(&address).await.unwrap();
        match send(&socket, &Transmit::new(at("192.0.2.9:5000"), b"x")).await {
            Err(error) => assert!(error.needs_reopen(), "{error:?}"),
            Ok(_) => panic!("sent from nowhere"),
        }
    });
}

#[test]
fn no_route_is_no_reason_to_give_up() {
    run(|bench| async move {
        let (_other, _other_bench) = two_ends(&bench).await;
        let socket = Socket::open(SocketOptions::new(at("192.0.2.1:0"))).unwrap();
        for _ in 0..2 {
            match send(&socket, &Transmit::new(at("203.0.113.1:5000"), b"x")).await {
                Err(error @ SendError::Unreachable(_)) => assert!(!error.needs_reopen()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(send(&socket, &Transmit::new(at("192.0.2.9:5000"), b"x")).await.unwrap(), 1);
    });
}

#[test]
fn refusals_are_explained() {
    run(|_bench| async move {
        let first = Socket::open(SocketOptions::new(at("127.0.0.1:5000"))).unwrap();
        match Socket::open(SocketOptions::new(at("127.0.0.1:5000"))) {
            Err(OpenError::InUse(address)) => assert_eq!(address, first.local_addr()),
            other => panic!("{other:?}"),
        }
        match Socket::open(SocketOptions::new(at("192.0.2.1:5000"))) {
            Err(OpenError::NotLocal(_)) => {}
            other => panic!("{other:?}"),
        }
        // A preferred port that is taken is no reason to fail.
        let options = SocketOptions { preferred_port: Some(5000), ..SocketOptions::new(at("127.0.0.1:0")) };
        let second = Socket::open(options).unwrap();
        assert_ne!(second.local_addr().port(), 5000);
        // An IPv4 and an IPv6 server on one port.
        let _v4 = Socket::open(SocketOptions::new(at("0.0.0.0:6000"))).unwrap();
        let _v6 = Socket::open(SocketOptions::new(at("[::]:6000"))).unwrap();
    });
}

#[test]
fn buffers_are_as_large_as_allowed() {
    run(|_bench| async move {
        let socket = Socket::open(SocketOptions::new(at("127.0.0.1:0"))).unwrap();
        let (receive, send) = socket.buffer_sizes().unwrap();
        assert!(receive >= 200 << 10 && send >= 200 << 10, "{receive} {send}");
    });
}

#[test]
fn small_buffers_need_a_socket_without_coalescing() {
    run(|_bench| async move {
        let mut small = RecvBatch::with_buffer_len(1, 2048);
        let socket = Socket::open(SocketOptions::new(at("127.0.0.1:0"))).unwrap();
        assert_eq!(socket.try_recv(&mut small).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let options = SocketOptions { gro: false, ..SocketOptions::new(at("127.0.0.1:0")) };
        let socket = Socket::open(options).unwrap();
        send(&socket, &Transmit::new(socket.local_addr(), b"x")).await.unwrap();
        let received = async {
            loop {
                socket.readable().await.unwrap();
                if let Ok(count) = socket.try_recv(&mut small) {
                    return count;
                }
            }
        };
        assert_eq!(tokio::time::timeout(LIMIT, received).await.unwrap(), 1);
    });
}
