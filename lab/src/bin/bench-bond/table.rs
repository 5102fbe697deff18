//! Goodput and ping of each scenario.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use lab::bond::Bond;
use lab::scenario::Scenario;
use lab::topology::Topology;
use lab::traffic::{Echo, Tcp, Way};
use serde_json::json;

use crate::{Options, Rows, median, milliseconds, start};

/// In which TCP finds its rate.
const WARM_UP: Duration = Duration::from_secs(3);
const PING_EVERY: Duration = Duration::from_millis(50);

/// One run.
struct Run {
    share: f64,
    /// Above the idle median, in ms.
    ping: f64,
    ping_p95: f64,
}

/// Measures, and gives the table.
pub fn measure(options: &Options, rows: &mut Rows) -> io::Result<String> {
    let mut text = format!(
        "Share of the sum of the lines' rates that TCP delivers, and ping through the bond meanwhile minus ping through the \
         idle bond (median, 95th percentile). Medians of {} run(s) of {} s, of which the first {} s do not count. No rate \
         configured.\n\n| lines | | streams | TCP | goodput | ping |\n| --- | --- | --- | --- | --- | --- |\n",
        options.runs,
        options.duration.as_secs(),
        WARM_UP.as_secs(),
    );
    for scenario in &options.scenarios {
        let (network, bond) = start(options, scenario, 1)?;
        for way in [Way::Download, Way::Upload] {
            for congestion in &options.congestion {
                for &streams in &options.streams {
                    let mut runs = Vec::new();
                    for number in 1..=options.runs {
                        let run = run(
                            options,
                            scenario,
                            &network,
                            &bond,
                            (way, congestion, streams),
                            number,
                            rows,
                        )?;
                        runs.push(run);
                    }
                    let of = |value: fn(&Run) -> f64| {
                        median(&mut runs.iter().map(value).collect::<Vec<_>>()).unwrap_or_default()
                    };
                    let _ = writeln!(
                        text,
                        "| {} | {} | {streams} | {congestion} | {:.1} % | {:+.0} ms, {:+.0} ms |",
                        scenario.name,
                        direction(way),
                        100.0 * of(|run| run.share),
                        of(|run| run.ping),
                        of(|run| run.ping_p95),
                    );
                }
            }
        }
    }
    text.push('\n');
    Ok(text)
}

fn direction(way: Way) -> &'static str {
    match way {
        Way::Download => "down",
        Way::Upload => "up",
    }
}

fn run(
    options: &Options,
    scenario: &Scenario,
    network: &Topology,
    bond: &Bond,
    (way, congestion, streams): (Way, &str, usize),
    number: usize,
    rows: &mut Rows,
) -> io::Result<Run> {
    // Also the pause that lets the queues of the run before run empty.
    let ping = || Echo::new(&network.lan, Topology::INET_V4).interval(PING_EVERY);
    let idle = ping().count(20).ping()?.rtt;
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4)
        .way(way)
        .congestion(congestion)
        .streams(streams)
        .duration(options.duration)
        .start()?;
    std::thread::sleep(WARM_UP);
    let count = options.duration.saturating_sub(WARM_UP).as_millis() / PING_EVERY.as_millis();
    let loaded = ping().count(u16::try_from(count.saturating_sub(4)).unwrap_or(u16::MAX)).ping()?;
    let report = transfer.finish();
    let sum = match way {
        Way::Download => scenario.down_rate(),
        Way::Upload => scenario.up_rate(),
    };
    let goodput = report.goodput_after(WARM_UP);
    let above = |rtt: Duration| milliseconds(rtt) - milliseconds(idle.median);
    let run = Run {
        share: goodput as f64 / sum as f64,
        ping: above(loaded.rtt.median),
        ping_p95: above(loaded.rtt.p95),
    };
    rows.add(&json!({
        "kind": "table", "scenario": scenario.name, "way": direction(way), "streams": streams,
        "congestion": congestion, "run": number, "goodput": goodput, "share": run.share,
        "idle_ms": milliseconds(idle.median), "ping_ms": milliseconds(loaded.rtt.median),
        "ping_p95_ms": milliseconds(loaded.rtt.p95), "pings_lost": loaded.lost(),
        "retransmits": report.retransmits(), "cipher": cipher(bond),
    }))?;
    println!(
        "{:<6} {:<4} {streams} {congestion:<5} run {number}: {:5.1} %  ping {:+5.1} ms, p95 {:+5.1} ms",
        scenario.name,
        direction(way),
        100.0 * run.share,
        run.ping,
        run.ping_p95,
    );
    Ok(run)
}

fn cipher(bond: &Bond) -> Option<String> {
    let status = bond.status(lab::bond::End::Client).ok()?;
    status["endpoint"]["peers"][0]["cipher"].as_str().map(str::to_owned)
}
