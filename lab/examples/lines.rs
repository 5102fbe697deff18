//! Builds a named scenario and measures each of its lines by itself: what a bond has to work with.
//!
//! ```text
//! cargo run -p lab --example lines -- lte2
//! ```
//!
//! Needs root, or a kernel that lets everybody make user namespaces and open `/dev/net/tun`.

use std::error::Error;
use std::process::ExitCode;

use lab::emulator::Direction;
use lab::namespace::Route;
use lab::prefix::Prefix;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::{Echo, Tcp};

fn main() -> ExitCode {
    // First of all, because it must come before any thread.
    if let Err(why) = lab::enter_privileged() {
        eprintln!("lines: {why}");
        return ExitCode::FAILURE;
    }
    let name = std::env::args().nth(1).unwrap_or_else(|| "sym2".into());
    match Scenario::named(&name).ok_or_else(|| unknown(&name)).and_then(measure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn unknown(name: &str) -> Box<dyn Error> {
    let names: Vec<&str> = Scenario::all().iter().map(|scenario| scenario.name).collect();
    format!("no scenario {name:?}; there are {}", names.join(", ")).into()
}

fn measure(scenario: Scenario) -> Result<(), Box<dyn Error>> {
    let net = Plan::new(scenario).build()?;
    println!("line   down Mbit/s   up Mbit/s   idle RTT ms   lost down");
    for end in &net.lines {
        let gateway = end.gateway_v4().ok_or("the line has no IPv4")?;
        let to = Prefix { address: Topology::SERVER_V4, length: 32 };
        let route = Route::to(to).via(gateway).device(&end.device);
        net.router.add_route(&route)?;
        let rtt = Echo::new(&net.router, Topology::SERVER_V4).ping()?.rtt.median;
        let tcp = Tcp::new(&net.router, &net.server, Topology::SERVER_V4).seconds(5);
        let down = tcp.clone().run()?;
        let up = tcp.upload().run()?;
        net.router.remove_route(&route)?;
        println!(
            "{:<6} {:>11.1} {:>11.1} {:>13.1} {:>11}",
            end.device,
            down.goodput as f64 / 1e6,
            up.goodput as f64 / 1e6,
            rtt.as_secs_f64() * 1e3,
            end.line.counters(Direction::Down).dropped_loss,
        );
    }
    Ok(())
}
