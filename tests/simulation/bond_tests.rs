//! What a bond must do, and a table to look at.

use crate::SECOND;
use crate::endpoint::{BondSettings, pair};
use crate::measure::{Plan, measure};
use crate::packet::Side;
use crate::scenarios::{Scenario, by_name, named};
use crate::world::World;

fn outcome(scenario: &Scenario, settings: &BondSettings, plan: &Plan) -> crate::measure::Outcome {
    let mut world = World::new(scenario, pair(scenario, settings), settings.seed);
    measure(&mut world, scenario, plan)
}

/// `SCENARIO=asym2 SECONDS=5 FLOWS=1 cargo test --release --test simulation -- --ignored table --nocapture`
#[test]
#[ignore = "prints a table to tune by"]
fn table() {
    let variable = |name: &str| std::env::var(name).ok();
    let scenarios = match variable("SCENARIO") {
        Some(names) => names.split(',').map(|name| by_name(name).expect("a scenario")).collect(),
        None => named(),
    };
    let seconds = variable("SECONDS").and_then(|s| s.parse().ok()).unwrap_or(15);
    let flows: Vec<usize> =
        variable("FLOWS").map_or(vec![1, 4], |f| f.split(',').map(|n| n.parse().unwrap()).collect());
    println!("scenario  dir  flows   eff  first s   ping idle  +median  +p95   gap ms  retx  dup  reord");
    for scenario in &scenarios {
        for side in [Side::Server, Side::Client] {
            for &flows in &flows {
                let plan = Plan { flows, duration: seconds * SECOND, ..Plan::new(side) };
                let o = outcome(scenario, &BondSettings::default(), &plan);
                let direction = if side == Side::Server { "down" } else { "up" };
                println!(
                    "{:<10}{direction:<5}{flows:>5} {:>5.1} % {:>5.1} %  {:>7.1}  {:>8.1} {:>6.1} {:>8.0} {:>5} {:>4} {:>5}",
                    scenario.name,
                    100.0 * o.efficiency,
                    100.0 * o.first_second,
                    o.ping_idle,
                    o.ping_added.0,
                    o.ping_added.1,
                    o.longest_gap,
                    o.retransmitted,
                    o.duplicates,
                    o.reordered,
                );
            }
        }
    }
}
