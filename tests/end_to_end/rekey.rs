//! New keys while traffic flows.

use std::time::Duration;

use lab::bond::{Bond, End};
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::{Tcp, Udp, UdpReport};

use crate::{demand, network, reached, setup};

/// A stream beside a download, with a rekey every `interval`: the stream, the download's Mbit/s and the rekeys.
fn under_load(test: &str, interval: &str) -> Option<(UdpReport, f64, u64)> {
    let network = network(test, Plan::new(Scenario::sym2()))?;
    let bond = Bond::start(&network, &setup().global("rekey_interval", interval)).expect("the bond comes up");
    let download =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(12).start().expect("a download");
    let stream = Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(200).seconds(11);
    let stream = stream.run().expect("a stream");
    let rate = download.finish().goodput_after(Duration::from_secs(3)) as f64 / 1e6;
    let status = bond.status(End::Server).expect("a status");
    let rekeys = status["endpoint"]["peers"][0]["rekeys"].as_u64().expect("a number");
    println!("{test}: {rekeys} rekeys, {rate:.1} Mbit/s, lost {}, delay {:?}", stream.lost, stream.delay);
    Some((stream, rate, rekeys))
}

#[test]
fn a_rekey_every_two_seconds_is_not_felt() {
    reached(|| {
        let Some((quiet, rate, none)) = under_load("one key", "120s") else { return Ok(()) };
        let Some((stream, rekeyed, rekeys)) = under_load("rekey every 2 s", "2s") else { return Ok(()) };
        assert!(none == 0 && rekeys >= 4, "{none} and {rekeys} rekeys");
        assert_eq!(stream.duplicated, 0);
        demand(stream.lost == 0, || format!("{} of {} lost", stream.lost, stream.sent))?;
        demand(rekeyed > 0.95 * rate, || format!("{rekeyed} of {rate} Mbit/s"))?;
        // TCP's own start makes the stream wait more than anything later does, sometimes more and sometimes less.
        let steady =
            |stream: &UdpReport| stream.delay_between(Duration::from_secs(3), Duration::from_secs(11));
        let (quiet, stream) = (steady(&quiet), steady(&stream));
        let slower = [(stream.median, quiet.median), (stream.p95, quiet.p95)];
        let limit = Duration::from_millis(15);
        let alike = slower.into_iter().all(|(with, without)| with < without + limit);
        demand(alike, || format!("{stream:?} against {quiet:?}"))
    });
}
