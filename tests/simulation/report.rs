//! Tables to look at while the core is tuned. Nothing is asserted.
//!
//! ```text
//! cargo test --profile simulation --test simulation -- --ignored report::table --nocapture
//! SCENARIO=asym2,random7 SECONDS=60 FLOWS=1 DIRECTION=down … -- --ignored report::table --nocapture
//! SCENARIO=lte2 CUT=0@8-12 … -- --ignored report::timeline --nocapture
//! ```
//!
//! | variable | default | |
//! | --- | --- | --- |
//! | `SCENARIO` | the four named | names, separated by commas (`random7`: the random set of seed 7; `10/2/20+8/1/50/l2`: lines of Mbit/s down and up, and ms; more: `scenarios::written`), `others`, or `random`: a set for each seed |
//! | `DIRECTION` | `down,up` | |
//! | `FLOWS` | `1,4` | |
//! | `CONGESTION` | `cubic` | `reno`, `cubic`, `cubic-nohystart`, `bbr` |
//! | `ECN` | 0 | 1: the flows negotiate ECN |
//! | `SECONDS` | 15 | after 3 s of warm-up |
//! | `POLICY` | `adaptive` | |
//! | `SEED`, `SEEDS` | 1, 1 | first seed, and how many; each is a row |
//! | `SLACK_US` | 0 | timers of the tunnel come up to this late |
//! | `RATES` | 0 | 1: the core is told the rates |
//! | `CIPHER` | `auto` | `none`: faster |
//! | `TUNNEL` | `bond` | `rr`: round robin without order |
//! | `JOBS` | 2 | rows that run at the same time |
//! | `OTHER` | 0 | timeline only: 1: show the links of the end that receives |
//! | `OUTSIDE` | | timeline only: `line@from-to`: a CUBIC stream outside the bond on a line, in seconds from one before the transfer |
//! | `CUT`, `RATE`, `DELAY` | | timeline only: `line@from-to`, `line@at:factor`, `line@at:ms` |

use std::env;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bonding::bond::Policy;

use crate::baseline::RoundRobin;
use crate::endpoint::{self, BondConfig};
use crate::measure::{Outcome, Plan, measure};
use crate::packet::Side;
use crate::scenarios::{self, Scenario};
use crate::tcp::TcpConfig;
use crate::tcp::control::Algorithm;
use crate::world::{Via, World};
use crate::{MILLI, Nanos, SECOND};

fn setting<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => text.trim().parse().ok().unwrap_or_else(|| panic!("{name}={text} is not a value")),
        Err(_) => default,
    }
}

fn list<T>(name: &str, default: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let text = env::var(name).unwrap_or_else(|_| default.into());
    let parse = |word: &str| parse(word.trim()).unwrap_or_else(|| panic!("{name}: {word} is not known"));
    text.split(',').map(parse).collect()
}

fn direction(name: &str) -> Option<Side> {
    match name {
        "down" => Some(Side::Server),
        "up" => Some(Side::Client),
        _ => None,
    }
}

fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "reno" => Some(Algorithm::Reno),
        "cubic" => Some(Algorithm::Cubic),
        "cubic-nohystart" => Some(Algorithm::CubicNoHystart),
        "bbr" => Some(Algorithm::Bbr),
        _ => None,
    }
}

fn policy(name: &str) -> Option<Policy> {
    match name {
        "adaptive" => Some(Policy::Adaptive),
        "weighted" => Some(Policy::Weighted),
        "round-robin" => Some(Policy::RoundRobin),
        "flow" => Some(Policy::Flow),
        "active-backup" => Some(Policy::ActiveBackup),
        "redundant" => Some(Policy::Redundant),
        _ => None,
    }
}

fn bond_config() -> BondConfig {
    let policies = list("POLICY", "adaptive", policy);
    let config = BondConfig {
        policy: policies.into_iter().next().unwrap_or_default(),
        rates_configured: setting("RATES", 0) == 1,
        ..BondConfig::default()
    };
    if setting("CIPHER", String::from("auto")) == "none" { config.in_the_clear() } else { config }
}

#[derive(Clone, Debug)]
struct Row {
    scenario: Scenario,
    plan: Plan,
    seed: u64,
}

impl Row {
    fn run(&self) -> Outcome {
        let slack = setting("SLACK_US", 0) * 1000;
        if setting("TUNNEL", String::from("bond")) == "rr" {
            let tunnel = || RoundRobin::new(self.scenario.lines.len());
            return measure(
                &mut World::new(&self.scenario, [tunnel(), tunnel()], self.seed),
                &self.scenario,
                &self.plan,
            );
        }
        let mut world = endpoint::world(&self.scenario, &bond_config(), self.seed);
        world.timer_slack = slack;
        measure(&mut world, &self.scenario, &self.plan)
    }

    fn print(&self, outcome: &Outcome, took: Duration) {
        let Row { scenario, plan, seed } = self;
        println!(
            "{:>9} {:>4} {:>5} {:>5} {:>4} │ {:>5.1} {:>5.1} │ {:>6.1} {:>+6.1} {:>+6.1} {:>3} │ {:>5} {:>3} {:>5.0} {:>5} {:>3} │ {:>5.2}",
            scenario.name,
            if plan.sender == Side::Server { "down" } else { "up" },
            plan.flows,
            format!("{:?}{}", plan.algorithm, if plan.ecn { "+ecn" } else { "" }),
            seed,
            outcome.efficiency * 100.0,
            outcome.first_second * 100.0,
            outcome.ping_idle,
            outcome.ping_added.0,
            outcome.ping_added.1,
            outcome.ping_unanswered,
            outcome.retransmitted,
            outcome.timeouts,
            outcome.longest_gap,
            outcome.reordered,
            outcome.duplicates,
            took.as_secs_f64(),
        );
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let first = setting("SEED", 1u64);
    let scenarios = match env::var("SCENARIO").as_deref() {
        Ok("others") => scenarios::others(),
        Ok("random") => (first..first + setting("SEEDS", 1)).map(scenarios::random).collect(),
        _ => list("SCENARIO", "sym2,asym2,lte2,loss2", scenarios::by_name),
    };
    let paired = env::var("SCENARIO").as_deref() == Ok("random");
    for (index, scenario) in (0..).zip(scenarios) {
        let seeds =
            if paired { first + index..first + index + 1 } else { first..first + setting("SEEDS", 1u64) };
        for sender in list("DIRECTION", "down,up", direction) {
            for algorithm in list("CONGESTION", "cubic", algorithm) {
                for flows in list("FLOWS", "1,4", |text| text.parse().ok()) {
                    for seed in seeds.clone() {
                        let plan = Plan {
                            flows,
                            algorithm,
                            ecn: setting("ECN", 0) == 1,
                            duration: setting("SECONDS", 15) * SECOND,
                            ..Plan::new(sender)
                        };
                        rows.push(Row { scenario: scenario.clone(), plan, seed });
                    }
                }
            }
        }
    }
    rows
}

#[test]
#[ignore = "prints a table, asserts nothing"]
fn table() {
    println!(
        "                                │   efficiency │  ping ms  added added  no │            longest           │"
    );
    println!(
        " scenario  dir flows    cc seed │  all  1st s │   idle median   p95 ans │ rexmt rto gap ms reord dup │  took s"
    );
    let rows = rows();
    let next = AtomicUsize::new(0);
    // Rows come out in order although they run at the same time.
    let done = Mutex::new((0, Vec::<Option<(Outcome, Duration)>>::new()));
    done.lock().expect("nobody has it").1.resize(rows.len(), None);
    std::thread::scope(|scope| {
        for _ in 0..setting("JOBS", 2).max(1) {
            scope.spawn(|| {
                while let Some((index, row)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    rows.get(index).map(|row| (index, row))
                } {
                    let start = Instant::now();
                    let outcome = row.run();
                    let mut done = done.lock().expect("no row panicked");
                    done.1[index] = Some((outcome, start.elapsed()));
                    while let Some(Some((outcome, took))) = done.1.get(done.0) {
                        rows[done.0].print(outcome, *took);
                        done.0 += 1;
                    }
                }
            });
        }
    });
}

/// What happens to a line in a timeline.
#[derive(Clone, Copy, Debug)]
enum Change {
    Cut(bool),
    Rate(f64),
    Delay(u64),
}

fn seconds(text: &str) -> Option<Nanos> {
    Some((text.parse::<f64>().ok()? * SECOND as f64) as Nanos)
}

/// `NAME=line@from-to`, in seconds.
fn span(name: &str) -> Option<(usize, Nanos, Nanos)> {
    let text = env::var(name).ok()?;
    let parsed = text.split_once('@').and_then(|(line, span)| {
        let (from, to) = span.split_once('-')?;
        Some((line.parse().ok()?, seconds(from)?, seconds(to)?))
    });
    Some(parsed.unwrap_or_else(|| panic!("{name}={text} is not line@from-to, in seconds")))
}

fn changes() -> Vec<(Nanos, usize, Change)> {
    let mut changes = Vec::new();
    if let Some((line, from, to)) = span("CUT") {
        changes.extend([(from, line, Change::Cut(true)), (to, line, Change::Cut(false))]);
    }
    for (name, kind) in [("RATE", 0), ("DELAY", 1)] {
        for item in env::var(name).iter().flat_map(|items| items.split(',')) {
            let parsed = item.split_once('@').and_then(|(line, rest)| {
                let (at, value) = rest.split_once(':')?;
                let change = if kind == 0 {
                    Change::Rate(value.parse().ok()?)
                } else {
                    Change::Delay(value.parse().ok()?)
                };
                Some((seconds(at)?, line.parse().ok()?, change))
            });
            changes.push(parsed.unwrap_or_else(|| panic!("{name}={item} is not line@at:value")));
        }
    }
    changes.sort_by_key(|change| change.0);
    changes
}

/// Every 100 ms (`STEP_MS`): goodput, ping, window, and for each line what the core believes and what is.
#[test]
#[ignore = "prints a timeline, asserts nothing"]
fn timeline() {
    for row in rows() {
        let Row { scenario, plan, seed } = row;
        println!("{} {plan:?} seed {seed}", scenario.name);
        print!("   s │ Mbit/s  ping window");
        for line in 0..scenario.lines.len() {
            print!(" │ line{line}: sent  cap  queue est");
        }
        println!(" │ queue drops held resent given-up");
        let mut world = endpoint::world(&scenario, &bond_config(), seed);
        world.timer_slack = setting("SLACK_US", 0) * 1000;
        world.run_until_ready();
        let ping = world.add_ping(10 * MILLI);
        world.run_for(plan.idle - SECOND);
        if let Some((line, from, to)) = span("OUTSIDE") {
            let stream = TcpConfig { start: from, stop: Some(to), ..TcpConfig::bulk(plan.sender) };
            world.add_tcp_via(stream, Via::Line(line));
        }
        world.run_for(SECOND);
        let start = world.now();
        let config = TcpConfig { algorithm: plan.algorithm, ecn: plan.ecn, ..TcpConfig::bulk(plan.sender) };
        let flows: Vec<usize> = (0..plan.flows).map(|_| world.add_tcp(config.clone())).collect();
        let step = setting("STEP_MS", 100) * MILLI;
        let mut pending = changes().into_iter().peekable();
        let mut sent = vec![0; scenario.lines.len()];
        while world.now() < start + plan.duration {
            while let Some((_, line, change)) = pending.next_if(|(at, _, _)| start + at <= world.now()) {
                let pair = &scenario.lines[line];
                match change {
                    Change::Cut(cut) => world.cut(line, cut),
                    Change::Rate(factor) => {
                        for (side, original) in [(Side::Client, &pair.up), (Side::Server, &pair.down)] {
                            let rate = original.rate.map(|rate| (rate as f64 * factor) as u64);
                            world.change(line, side, |config| config.rate = rate);
                        }
                    }
                    Change::Delay(ms) => {
                        world.change_both(line, |config| config.delay = Duration::from_millis(ms))
                    }
                }
                println!("     │ line{line}: {change:?}");
            }
            let before = world.now();
            world.run_for(step);
            let now = world.now();
            let goodput: f64 = flows.iter().map(|&flow| world.tcp(flow).receiver.goodput(before, now)).sum();
            let window: f64 = flows
                .iter()
                .filter_map(|&flow| world.tcp(flow).sender())
                .map(|sender| sender.control.window)
                .sum();
            let trips = world.ping(ping).round_trips(before - step, before);
            print!(
                "{:>5.1}│ {:>6.2} {:>5.0} {:>6.0}",
                (now - start) as f64 / SECOND as f64,
                goodput / 1e6,
                trips.median(),
                window
            );
            let shown = if setting("OTHER", 0) == 1 { plan.sender.other() } else { plan.sender };
            let sending = world.tunnels[shown.index()].status();
            let receiving = world.tunnels[shown.other().index()].status();
            for (line, sent) in sent.iter_mut().enumerate() {
                let bytes = world.line_counters(line, shown).bytes;
                let link = sending.links.iter().find(|link| usize::from(link.id) == line);
                let capacity = link.and_then(|link| link.tx_capacity).unwrap_or(0) as f64 / 1e6;
                print!(
                    " │ {:>11.2} {:>5.2} {:>4.0} {:>4.0}",
                    (bytes - *sent) as f64 * 8.0 / (step as f64 / SECOND as f64) / 1e6,
                    capacity,
                    world.line_queue(line, shown) as f64 / MILLI as f64,
                    link.map_or(0.0, |link| link.queue_ms),
                );
                *sent = bytes;
            }
            println!(
                " │ {:>5} {:>5} {:>4} {:>6} {:>5}",
                sending.queue_packets,
                sending.queue_drops,
                receiving.resequencer_held,
                sending.resent,
                receiving.gaps_given_up
            );
        }
    }
}
