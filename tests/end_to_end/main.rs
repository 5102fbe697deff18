//! The real binary between network namespaces, over emulated lines. Needs root; without it every test says that it
//! skips.

mod classes;
mod failure;
mod mtu;
mod rekey;
mod routing;
mod security;
mod server;
mod throughput;

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
