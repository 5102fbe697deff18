//! One connection gets the sum of the lines.

use lab::bond::Bond;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::{Echo, Tcp};

use crate::{network, setup};

#[test]
fn one_stream_gets_the_sum_of_the_lines_both_ways() {
    let Some(network) = network("one_stream", Plan::new(Scenario::sym2())) else { return };
    let bond = Bond::start(&network, &setup()).expect("the bond");
    let ping = Echo::new(&network.lan, Topology::INET_V4).count(10).ping().expect("ping");
    eprintln!("{ping:?}");
    let down =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(10).run().expect("a download");
    eprintln!("down {} kbit/s {:?}", down.goodput / 1000, down.intervals);
    let up = Tcp::new(&network.lan, &network.inet, Topology::INET_V4)
        .upload()
        .seconds(10)
        .run()
        .expect("an upload");
    eprintln!("up {} kbit/s {:?}", up.goodput / 1000, up.intervals);
    eprintln!("{}", bond.command(lab::bond::End::Client, &["status"]).unwrap());
    assert!(down.goodput >= network.plan.scenario.down_rate() * 85 / 100);
    assert!(up.goodput >= network.plan.scenario.up_rate() * 85 / 100);
}
