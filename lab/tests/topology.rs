//! The standard network in all its forms, and the traffic tools over it.

use std::net::IpAddr;
use std::time::Duration;

use lab::emulator::{Cut, Direction};
use lab::scenario::{LinePlan, Scenario};
use lab::topology::{Cards, Family, Plan, Topology};
use lab::traffic::{Echo, Tcp, Udp};
use lab::{demand, reached};

fn build(plan: Plan) -> Topology {
    plan.build().expect("the network can be built")
}

/// Two quick lines.
fn quick() -> Scenario {
    Scenario { name: "quick", lines: vec![LinePlan::new(100, 100, 5), LinePlan::new(100, 100, 5)] }
}

fn pings(net: &Topology, from: &lab::namespace::Namespace, to: IpAddr) -> bool {
    let echo = Echo::new(from, to).count(3).interval(Duration::from_millis(10));
    let report = echo.timeout(Duration::from_secs(20)).ping().expect("there is a route");
    assert_eq!(report.sent, 3, "{:?}", net.plan);
    report.lost() == 0
}

#[test]
fn every_host_reaches_its_neighbours() {
    lab::need_privilege!();
    let net = build(Plan::new(quick()));
    for (from, to) in [
        (&net.lan, Topology::ROUTER_V4),
        (&net.lan, Topology::ROUTER_V6),
        (&net.inet, Topology::SERVER_V4),
        (&net.inet, Topology::SERVER_V6),
        (&net.router, Topology::SERVER_V4),
        (&net.router, Topology::SERVER_V6),
        (&net.router, Topology::INET_V4),
        (&net.router, Topology::INET_V6),
        (&net.lan, Topology::INET_V4),
    ] {
        assert!(pings(&net, from, to), "{} to {to}", from.name());
    }
    for end in &net.lines {
        for gateway in &end.gateways {
            assert!(pings(&net, &net.router, *gateway), "the box at {gateway}");
        }
    }
}

#[test]
fn each_line_carries_what_is_sent_to_its_box() {
    lab::need_privilege!();
    for (cards, family, nat) in [
        (Cards::Each, Family::Dual, true),
        (Cards::Each, Family::V4, false),
        (Cards::Each, Family::V6, true),
        (Cards::OneSubnet, Family::Dual, true),
        (Cards::TwoSubnets, Family::Dual, true),
        (Cards::TwoSubnets, Family::Dual, false),
    ] {
        let net = build(Plan::new(quick()).cards(cards).family(family).nat(nat));
        for (i, end) in net.lines.iter().enumerate() {
            for (gateway, server) in
                [(end.gateway_v4(), Topology::SERVER_V4), (end.gateway_v6(), Topology::SERVER_V6)]
            {
                let Some(gateway) = gateway else { continue };
                let before = end.line.counters(Direction::Down).passed;
                let other = net.line(1 - i).counters(Direction::Up).passed;
                let to =
                    lab::prefix::Prefix { address: server, length: if server.is_ipv4() { 32 } else { 128 } };
                let route = lab::namespace::Route::to(to).via(gateway).device(&end.device);
                let source = if server.is_ipv4() { end.address_v4() } else { end.address_v6() };
                let route = route.source(source.expect("an address of the gateway's family"));
                net.router.add_route(&route).unwrap();
                assert!(pings(&net, &net.router, server), "{cards:?} {family:?} via {gateway}");
                net.router.remove_route(&route).unwrap();
                assert_eq!(end.line.counters(Direction::Down).passed, before + 3, "{cards:?} via {gateway}");
                assert_eq!(net.line(1 - i).counters(Direction::Up).passed, other, "the other line is idle");
            }
        }
    }
}

#[test]
fn plans_that_cannot_work_are_refused() {
    lab::need_privilege!();
    assert!(Plan::new(quick()).cards(Cards::OneSubnet).nat(false).build().is_err());
    assert!(Plan::new(Scenario { name: "none", lines: vec![] }).build().is_err());
    let many = Scenario { name: "many", lines: vec![LinePlan::new(1, 1, 1); 10] };
    assert!(Plan::new(many).build().is_err());
}

#[test]
fn tcp_fills_a_line_both_ways() {
    lab::need_privilege!();
    let _alone = lab::alone();
    reached(|| {
        let net = build(Plan::new(Scenario { name: "one", lines: vec![LinePlan::new(10, 2, 20)] }));
        // 1448 bytes of payload in 1500 are 96.5 % of the rate (IPv6: 95.2 %). After the warm-up it may be more for a while:
        // a resend releases what came in during the warm-up.
        for (to, family) in [(Topology::SERVER_V4, "IPv4"), (Topology::SERVER_V6, "IPv6")] {
            let down = Tcp::new(&net.router, &net.server, to).seconds(4).run().unwrap();
            demand(down.completed, || format!("{down:?}"))?;
            let rate = down.goodput_after(Duration::from_secs(1));
            demand((9_000_000..=10_300_000).contains(&rate) && down.goodput < 9_700_000, || {
                format!("{family} down {rate}: {down:?}")
            })?;
            assert_eq!(down.intervals.len(), 40);
            assert_eq!(down.intervals.iter().sum::<u64>(), down.bytes);

            let up = Tcp::new(&net.router, &net.server, to).upload().streams(3).seconds(4).run().unwrap();
            demand(up.completed && up.streams.len() == 3, || format!("{up:?}"))?;
            let rate = up.goodput_after(Duration::from_secs(1));
            demand((1_750_000..=2_200_000).contains(&rate) && up.goodput < 1_950_000, || {
                format!("{family} up {rate}: {up:?}")
            })?;
        }
        Ok(())
    });
}

#[test]
fn a_number_of_bytes_arrives_whole() {
    lab::need_privilege!();
    let net = build(Plan::new(quick()));
    for upload in [true, false] {
        let tcp =
            Tcp::new(&net.lan, &net.inet, Topology::INET_V4).bytes(1_000_000).streams(2).congestion("bbr");
        let report = if upload { tcp.upload() } else { tcp.download() }.run().unwrap();
        assert!(report.completed, "{report:?}");
        assert_eq!((report.bytes, report.streams[0].bytes), (2_000_000, 1_000_000));
        assert!(report.duration < Duration::from_secs(30));
    }
    let error = Tcp::new(&net.lan, &net.inet, Topology::INET_V4).congestion("no-such").run().unwrap_err();
    assert!(error.to_string().contains("no-such"), "{error}");
}

#[test]
fn a_cut_is_seen_as_a_gap() {
    lab::need_privilege!();
    let _alone = lab::alone();
    reached(|| {
        let net = build(Plan::new(Scenario { name: "one", lines: vec![LinePlan::new(10, 2, 5)] }));
        let run = Tcp::new(&net.router, &net.server, Topology::SERVER_V4).seconds(5).start().unwrap();
        assert!(run.wait_for_bytes(1_000_000, Duration::from_secs(30)));
        let cut_at = run.elapsed();
        net.line(0).cut(Cut::Silent);
        std::thread::sleep(Duration::from_millis(500));
        net.line(0).restore();
        let report = run.finish();
        demand(report.completed, || format!("{report:?}"))?;
        let gap = report.longest_gap;
        demand(gap.length > Duration::from_millis(480) && gap.length < Duration::from_secs(3), || {
            format!("{gap:?}")
        })?;
        demand(gap.at.abs_diff(cut_at) < Duration::from_millis(60), || {
            format!("{gap:?} but cut at {cut_at:?}")
        })?;

        net.line(0).cut(Cut::Silent);
        let dead =
            Tcp::new(&net.router, &net.server, Topology::SERVER_V4).deadline(Duration::from_millis(300));
        assert_eq!(dead.run().unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        Ok(())
    });
}

#[test]
fn a_run_that_is_stopped_says_so() {
    lab::need_privilege!();
    reached(|| {
        let net = build(Plan::new(quick()));
        let run = Tcp::new(&net.router, &net.server, Topology::SERVER_V4).bytes(u64::MAX).start().unwrap();
        assert!(run.wait_for_bytes(100_000, Duration::from_secs(30)));
        let report = run.stop();
        assert!(!report.completed && report.bytes >= 100_000, "{report:?}");
        assert!(!report.errors().is_empty());
        let run = Udp::new(&net.router, &net.server, Topology::SERVER_V4).seconds(60).start().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let report = run.stop();
        demand(report.sent >= 5 && report.sent < 1000 && report.lost == 0, || format!("{report:?}"))
    });
}

#[test]
fn udp_streams_are_accounted_for() {
    lab::need_privilege!();
    let _alone = lab::alone();
    reached(|| {
        let scenario = Scenario { name: "one", lines: vec![LinePlan::new(10, 10, 20)] };
        let net = build(Plan::new(scenario));
        for (to, upload) in
            [(Topology::SERVER_V4, true), (Topology::INET_V4, false), (Topology::SERVER_V6, false)]
        {
            let udp =
                Udp::new(&net.router, if to == Topology::INET_V4 { &net.inet } else { &net.server }, to);
            let udp = udp.rate(200).size(500).seconds(1);
            let report = if upload { udp.upload() } else { udp }.run().unwrap();
            demand((report.sent, report.received, report.lost) == (200, 200, 0), || format!("{report:?}"))?;
            demand((report.duplicated, report.reordered) == (0, 0), || format!("{report:?}"))?;
            let delay = report.delay.median;
            demand((20.3..22.0).contains(&(delay.as_secs_f64() * 1e3)), || format!("{to} {delay:?}"))?;
            demand(report.longest_gap.length < Duration::from_millis(100), || format!("{report:?}"))?;
        }
        net.line(0).change_both(|line| line.loss = 0.5);
        let lossy = Udp::new(&net.router, &net.server, Topology::SERVER_V4).rate(1000).upload().seconds(1);
        let report = lossy.run().unwrap();
        // 6 sigma of a binomial with n = 1000, p = 1/2 are 95.
        demand(report.lost.abs_diff(500) < 95, || format!("{report:?}"))?;
        assert_eq!(report.lost, report.lost_between(Duration::ZERO, Duration::from_secs(2)));

        net.line(0).change(Direction::Up, |line| {
            line.loss = 0.0;
            line.jitter = Duration::from_millis(10);
            line.reorder = true;
        });
        let report = Udp::new(&net.router, &net.server, Topology::SERVER_V4)
            .rate(500)
            .upload()
            .seconds(1)
            .run()
            .unwrap();
        demand(report.reordered > 50 && report.lost == 0, || format!("{report:?}"))
    });
}

#[test]
fn echoes_measure_the_round_trip() {
    lab::need_privilege!();
    let _alone = lab::alone();
    reached(|| {
        let net = build(Plan::new(Scenario { name: "one", lines: vec![LinePlan::new(100, 100, 15)] }));
        for to in [Topology::SERVER_V4, Topology::SERVER_V6] {
            let udp = Echo::new(&net.router, to).udp(&net.server).unwrap();
            let ping = Echo::new(&net.router, to).ping().unwrap();
            for report in [udp, ping] {
                demand((report.sent, report.lost()) == (20, 0), || format!("{report:?}"))?;
                let rtt = report.rtt.median.as_secs_f64() * 1e3;
                demand((30.0..32.0).contains(&rtt), || format!("{report:?}"))?;
            }
        }
        Ok(())
    });
}
