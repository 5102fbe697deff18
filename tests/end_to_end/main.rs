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

/// Measures until the figures are reached, three times at the most: what else a machine does makes them worse, never
/// better. `measure` tells what was not reached.
fn reached(mut measure: impl FnMut() -> Result<(), String>) {
    let mut missed = Vec::new();
    while missed.len() < 3 {
        match measure() {
            Ok(()) => return,
            Err(message) => {
                println!("not reached: {message}");
                missed.push(message);
            }
        }
    }
    panic!("not reached in {} measurements: {missed:#?}", missed.len());
}

/// For [`reached`].
fn demand(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}
