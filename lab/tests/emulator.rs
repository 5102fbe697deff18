//! The emulator's accuracy and its behaviour as a box, on the running kernel.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::emulator::{Cut, Direction, NatConfig};
use lab::line::{LineConfig, QueueLimit, Verdict};
use lab::packet::Header;
use lab::scenario::{LinePlan, Scenario};
use lab::topology::{Cards, Plan, Topology};
use lab::traffic::{Echo, Udp};
use lab::{becomes, demand, reached};

const SECOND: Duration = Duration::from_secs(1);
/// How long what must come is waited for.
const LIMIT: Duration = Duration::from_secs(30);
/// The same of what must not come. What does takes a few milliseconds.
const NOTHING: Duration = Duration::from_millis(200);

fn one_line(line: LineConfig) -> Topology {
    let plan = LinePlan { down: line.clone(), up: line };
    Plan::new(Scenario { name: "one", lines: vec![plan] }).build().expect("the network can be built")
}

/// An unloaded second socket of the server, for packets by hand.
fn server_socket(net: &Topology) -> UdpSocket {
    let socket = net.server.run(|| UdpSocket::bind((Topology::SERVER_V4, 0))).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn router_socket(net: &Topology, to: &UdpSocket) -> UdpSocket {
    let socket = net.router.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(to.local_addr().unwrap()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn receives_within(socket: &UdpSocket, limit: Duration) -> bool {
    socket.set_read_timeout(Some(limit)).unwrap();
    let received = socket.recv(&mut [0; 2000]).is_ok();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    received
}

fn receives(socket: &UdpSocket) -> bool {
    receives_within(socket, LIMIT)
}

fn receives_nothing(socket: &UdpSocket) -> bool {
    !receives_within(socket, NOTHING)
}

#[test]
fn the_rate_is_right_within_two_percent() {
    lab::need_privilege!();
    let _alone = lab::alone();
    for rate in [1_000_000u64, 10_000_000, 100_000_000] {
        reached(|| carries(rate));
    }
}

fn carries(rate: u64) -> Result<(), String> {
    let queue = QueueLimit::Time(Duration::from_millis(50));
    let net = one_line(LineConfig::new(rate, Duration::from_millis(5)).with_queue(queue));
    // 20 % too much, both ways at once; 1228 bytes are on the line for 1200 of payload.
    let udp = Udp::new(&net.router, &net.server, Topology::SERVER_V4).size(1200).bit_rate(rate * 12 / 10);
    let udp = udp.seconds(3);
    let runs = [udp.clone().upload().start().unwrap(), udp.start().unwrap()];
    std::thread::sleep(SECOND);
    let count = || Direction::BOTH.map(|direction| (Instant::now(), net.line(0).counters(direction)));
    let before = count();
    std::thread::sleep(SECOND * 3 / 2);
    let after = count();
    let reports = runs.map(lab::traffic::UdpRun::finish);
    for ((begun, before), (ended, after)) in before.into_iter().zip(after) {
        let seconds = (ended - begun).as_secs_f64();
        let on_line = (after.bytes - before.bytes) as f64 * 8.0 / seconds;
        let right = (on_line / rate as f64 - 1.0).abs() < 0.02;
        demand(right, || format!("{rate}: {on_line} on the line"))?;
        demand(after.dropped_queue > before.dropped_queue, || "the queue is not full".into())?;
    }
    for report in reports {
        // What the receiver saw of the three seconds, and of the queue after them, in IP bytes.
        let seen = report.received as f64 * 1228.0 * 8.0 / 3.05;
        demand((seen / rate as f64 - 1.0).abs() < 0.02, || format!("{rate}: {seen} received"))?;
    }
    Ok(())
}

#[test]
fn the_delay_is_right_within_a_millisecond() {
    lab::need_privilege!();
    let _alone = lab::alone();
    // Idle, and at 90 % of 100 Mbit/s.
    for (packets, delay) in [(100, 20), (100, 50), (9000, 20)] {
        reached(|| delays(packets, delay));
    }
}

fn delays(packets: u32, delay: u64) -> Result<(), String> {
    let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(delay)));
    for upload in [true, false] {
        let udp = Udp::new(&net.router, &net.server, Topology::SERVER_V4).size(1222).rate(packets).seconds(2);
        let report = if upload { udp.upload() } else { udp }.run().unwrap();
        // 1250 bytes take 0.1 ms.
        let expected = delay as f64 + 0.1;
        let measured = |delay: Duration| delay.as_secs_f64() * 1e3;
        for (name, value) in [("min", report.delay.min), ("median", report.delay.median)] {
            let error = measured(value) - expected;
            let right = (-0.05..1.0).contains(&error);
            demand(right, || format!("{packets}/s {delay} ms: {name} is off by {error} ms"))?;
        }
        demand(report.lost == 0, || format!("{report:?}"))?;
    }
    Ok(())
}

#[test]
fn loss_is_right_within_its_statistics() {
    lab::need_privilege!();
    let _alone = lab::alone();
    reached(|| {
        let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(2)).with_loss(0.02));
        let udp = Udp::new(&net.router, &net.server, Topology::SERVER_V4).rate(5000).seconds(2);
        let report = udp.upload().run().unwrap();
        // 5 sigma of a binomial with n = 10000, p = 0.02 are 70.
        demand(report.lost.abs_diff(200) <= 70, || format!("{report:?}"))?;
        let dropped = net.line(0).counters(Direction::Up).dropped_loss;
        demand(dropped == report.lost, || format!("{dropped} dropped, {} lost", report.lost))
    });
}

#[test]
fn figures_change_at_run_time() {
    lab::need_privilege!();
    let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(5)));
    let rtt = || Echo::new(&net.router, Topology::SERVER_V4).count(3).ping().unwrap().rtt.min;
    assert!(becomes(|| rtt() < Duration::from_millis(25)));
    net.line(0).change(Direction::Down, |line| line.delay = Duration::from_millis(45));
    assert!(rtt() >= Duration::from_millis(50));
    assert_eq!(net.line(0).config(Direction::Up).delay, Duration::from_millis(5));
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        net.line(0).change_both(|line| line.loss = 2.0);
    }));
    assert!(refused.is_err());
    assert!(rtt() >= Duration::from_millis(50), "the emulator lives");
}

#[test]
fn cuts_are_what_they_are_called() {
    lab::need_privilege!();
    let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(2)));
    let line = net.line(0);
    let gateway = net.lines[0].gateway_v4().unwrap();
    let carrier = || net.router.has_carrier("wan1").unwrap();
    let reaches = |to: IpAddr| {
        let echo = Echo::new(&net.router, to).count(2).interval(Duration::from_millis(10));
        echo.timeout(Duration::from_millis(200)).ping().is_ok_and(|report| report.received > 0)
    };
    assert!(becomes(|| reaches(Topology::SERVER_V4)) && becomes(|| reaches(gateway)) && carrier());
    line.cut(Cut::Silent);
    assert!(!reaches(Topology::SERVER_V4) && becomes(|| reaches(gateway)));
    line.restore();
    assert!(becomes(|| reaches(Topology::SERVER_V4)));
    line.cut(Cut::PowerOff);
    assert!(carrier());
    // The kernel may still know the box's hardware address, but nobody is there.
    assert!(!reaches(gateway));
    line.cut(Cut::Carrier);
    assert!(!carrier() && !reaches(gateway));
    assert_eq!(line.is_cut(), Some(Cut::Carrier));
    line.cut(Cut::Unreachable);
    let server = server_socket(&net);
    let client = router_socket(&net, &server);
    // Without it a UDP socket hears of nothing but closed ports.
    set_option(&client, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
    client.send(b"x").unwrap();
    let error = client.recv(&mut [0; 9]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH), "{error}");
    line.restore();
    assert!(becomes(|| reaches(Topology::SERVER_V4)) && carrier());
}

#[test]
fn carrier_is_lost_for_all_boxes_on_a_card() {
    lab::need_privilege!();
    let quick = Scenario { name: "quick", lines: vec![LinePlan::new(100, 100, 2); 2] };
    let net = Plan::new(quick).cards(Cards::OneSubnet).build().unwrap();
    let reaches = |to: IpAddr| {
        let echo = Echo::new(&net.router, to).count(2).interval(Duration::from_millis(10));
        echo.timeout(Duration::from_millis(200)).ping().is_ok_and(|report| report.received > 0)
    };
    let gateways: Vec<IpAddr> = net.lines.iter().filter_map(|end| end.gateway_v4()).collect();
    assert!(gateways.iter().all(|gateway| becomes(|| reaches(*gateway))));
    net.line(1).cut(Cut::Silent);
    net.line(0).cut(Cut::Carrier);
    assert!(!gateways.iter().any(|gateway| reaches(*gateway)));
    assert!(net.line(0).config(Direction::Up).blackhole);
    net.line(0).restore();
    // The kernel looks after a carrier that comes and goes once a second, and asks for a neighbour once a second.
    assert!(gateways.iter().all(|gateway| becomes(|| reaches(*gateway))));
    assert!(net.line(1).config(Direction::Up).blackhole, "the other cut goes on");
    assert!(!net.line(0).config(Direction::Up).blackhole);
}

#[test]
fn too_big_packets_are_answered_or_fragmented() {
    lab::need_privilege!();
    let line = LineConfig::new(100_000_000, Duration::from_millis(2)).with_mtu(1280);
    let net = one_line(line);
    for server in [Topology::SERVER_V4, Topology::SERVER_V6] {
        let listener = net.server.run(|| UdpSocket::bind((server, 0))).unwrap();
        listener.set_read_timeout(Some(SECOND)).unwrap();
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = net.router.run(|| UdpSocket::bind(any)).unwrap();
        client.connect(listener.local_addr().unwrap()).unwrap();
        set_dont_fragment(&client, server.is_ipv4());
        client.send(&[1; 1400]).unwrap();
        assert!(receives_nothing(&listener), "{server}");
        let too_long =
            || client.send(&[1; 1400]).is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE));
        assert!(becomes(too_long), "{server}: the kernel learns the path MTU");
        // What the ICMP message has left on the socket.
        client.take_error().unwrap();
        client.send(&[1; 1200]).unwrap();
        assert!(receives(&listener), "{server}");
    }
    assert!(net.line(0).counters(Direction::Up).dropped_mtu >= 2);

    // Without DF the box cuts it to pieces, as real ones do, and a capture shows it.
    let capture = net.line(0).capture(100);
    let listener = server_socket(&net);
    let client = router_socket(&net, &listener);
    forget_path_mtu(&client);
    client.send(&[2; 1400]).unwrap();
    assert!(receives(&listener));
    let fragments = capture.wait_for(2, LIMIT);
    assert!(
        fragments.iter().all(|seen| Header::parse(&seen.packet).unwrap().fragment.is_some()),
        "{fragments:?}"
    );

    net.line(0).change_both(|line| line.pmtu_blackhole = true);
    client.send(&[2; 1400]).unwrap();
    assert!(receives_nothing(&listener));
}

#[test]
fn a_packet_whose_ttl_runs_out_is_answered() {
    lab::need_privilege!();
    let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(2)));
    let server = server_socket(&net);
    let client = router_socket(&net, &server);
    set_option(&client, libc::IPPROTO_IP, libc::IP_RECVERR, 1);
    // A line is one hop: box and provider are one router.
    for (ttl, arrives) in [(1, false), (2, true)] {
        client.set_ttl(ttl).unwrap();
        client.send(b"x").unwrap();
        assert!(if arrives { receives(&server) } else { receives_nothing(&server) }, "TTL {ttl}");
        let error = || client.take_error().unwrap().and_then(|error| error.raw_os_error());
        match arrives {
            true => assert_eq!(error(), None),
            false => assert!(becomes(|| error() == Some(libc::EHOSTUNREACH))),
        }
    }
}

fn set_dont_fragment(socket: &UdpSocket, v4: bool) {
    let (level, name, value) = if v4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
    };
    set_option(socket, level, name, value);
}

/// Sends without DF, and without regard to what the kernel has learnt.
fn forget_path_mtu(socket: &UdpSocket) {
    const IP_PMTUDISC_OMIT: libc::c_int = 5;
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, IP_PMTUDISC_OMIT);
}

fn set_option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    use std::os::fd::AsRawFd;
    // SAFETY: the kernel reads one int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn translation_hides_the_inside_and_rebinds() {
    lab::need_privilege!();
    let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(2)));
    let line = net.line(0);
    let server = server_socket(&net);
    let client = router_socket(&net, &server);
    let mut buffer = [0; 100];
    let mut seen = || {
        client.send(b"hello").unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"back", from).unwrap();
        assert!(receives(&client), "the answer to {from} comes back");
        from
    };
    let first = seen();
    assert_eq!(first.ip().to_string(), "192.0.2.1");
    assert_eq!(seen(), first, "a mapping lasts");

    line.rebind(None);
    server.send_to(b"stale", first).unwrap();
    assert!(receives_nothing(&client));
    let second = seen();
    assert_eq!(second.ip(), first.ip());
    assert_ne!(second.port(), first.port());

    line.set_outside("192.0.2.77".parse().unwrap());
    let third = seen();
    assert_eq!((third.ip().to_string().as_str(), third.port()), ("192.0.2.77", second.port()));

    line.rebind(Some("192.0.2.78".parse().unwrap()));
    let fourth = seen();
    assert_eq!(fourth.ip().to_string(), "192.0.2.78");
    assert_ne!(fourth.port(), third.port());

    let stranger = server_socket(&net);
    stranger.send_to(b"knock", fourth).unwrap();
    assert!(receives_nothing(&client));
    assert!(line.nat_dropped() >= 2);
    line.set_nat(NatConfig { full_cone: true, ..line.nat() });
    let fifth = seen();
    stranger.send_to(b"knock", fifth).unwrap();
    // From another port than the one the client is connected to: its kernel refuses it, but it has passed the box.
    let before = line.nat_dropped();
    assert!(receives_nothing(&client));
    assert_eq!(line.nat_dropped(), before);

    line.set_nat(NatConfig::default());
    assert_eq!(Some(seen().ip()), net.lines[0].address_v4(), "routed");
}

#[test]
fn captured_packets_can_be_replayed() {
    lab::need_privilege!();
    let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(2)));
    let line = net.line(0);
    let server = server_socket(&net);
    let client = router_socket(&net, &server);
    let capture = line.capture(10);
    client.send(b"secret").unwrap();
    let (_, from) = server.recv_from(&mut [0; 100]).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert!(receives(&client));
    let captured = capture.wait_for(2, LIMIT);
    let by = |direction| captured.iter().find(|seen| seen.direction == direction).unwrap();
    let (up, down) = (by(Direction::Up), by(Direction::Down));
    assert!(up.packet.ends_with(b"secret") && up.verdict == Verdict::Queued);
    assert!(down.packet.ends_with(b"answer") && down.at > up.at);
    assert_eq!(Header::parse(&up.packet).unwrap().source, from.ip());

    assert_eq!(line.inject(Direction::Up, up.packet.clone()), Verdict::Queued);
    assert_eq!(server.recv_from(&mut [0; 100]).unwrap().1, from, "a replay looks like the original");
    line.inject(Direction::Down, down.packet.clone());
    assert!(receives(&client));
    let mut flipped = up.packet.clone();
    *flipped.last_mut().unwrap() ^= 1;
    line.inject(Direction::Up, flipped);
    assert!(receives_nothing(&server), "its checksum is wrong, and the kernel sees it");
    line.inject(Direction::Down, vec![0xff; 77]);
    line.inject(Direction::Up, vec![]);
    assert!(capture.take().is_empty(), "what is injected is not captured");
}

#[test]
fn nothing_is_left_when_it_ends() {
    lab::need_privilege!();
    let net = one_line(LineConfig::new(100_000_000, Duration::from_millis(2)));
    let (router, handle) = (net.router.clone(), net.line(0).clone());
    assert!(router.link_index("wan1").is_ok());
    drop(net);
    assert!(router.link_index("wan1").is_err());
    handle.cut(Cut::Carrier);
    assert_eq!(handle.inject(Direction::Up, vec![1]), Verdict::Cut, "a handle that outlives it is harmless");
}
