//! The real binary between network namespaces, over emulated lines. Needs root; without it every test says that it
//! skips.

mod change;
mod classes;
mod clock;
#[path = "../../benches/crowd/mod.rs"]
mod crowd;
mod failure;
mod fallback;
mod firewall;
mod hooks;
mod kernel_mode;
mod kill;
mod many_peers;
mod mtu;
mod names;
mod peers;
mod privileges;
mod rekey;
mod reload;
mod routing;
mod security;
mod server;
mod servers;
mod speedtest;
mod status;
mod throughput;
mod watchdog;

// What is packed, and what the manual says.
mod deb;
mod manual;
mod recipes;

use lab::bond::Setup;
use lab::topology::{Plan, Topology};
use lab::{demand, reached};

/// The program under test.
fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_bonding"))
}

/// Builds the network, or says why the test is skipped.
fn network(test: &str, plan: Plan) -> Option<Topology> {
    if let Err(why) = lab::privileged() {
        lab::privilege::skip(test, &why);
        return None;
    }
    Some(plan.build().expect("the network"))
}
