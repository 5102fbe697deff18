//! What nothing was tuned to: more lines, satellites, cellular traces, bursts of loss, a line that flaps, company on a
//! line, both directions at once, short flows beside a long one, and UDP in bulk.

use std::fmt::Write as _;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::emulator::{Cut, Direction};
use lab::random::Random;
use lab::scenario::{LinePlan, Scenario};
use lab::topology::Topology;
use lab::traffic::{Echo, EchoReport, Percentiles, Tcp, TcpReport, Udp, UdpReport, Way};
use serde_json::json;

use crate::{Options, Rows, median, milliseconds, start};

/// Between two pings, and between two packets of the stream beside a transfer.
const EVERY: Duration = Duration::from_millis(50);
/// Between two changes of the weather.
const TICK: Duration = Duration::from_millis(100);
/// What of a line's rate is left to TCP's payload, at best: see the table's head.
const CEILING: f64 = 0.925;
/// What a web page's larger parts are.
const SHORT_FLOW: u64 = 60_000;

/// What happens to the lines meanwhile.
#[derive(Clone, Copy)]
enum Weather {
    Steady,
    /// The rates of these lines walk at random between two limits, in Mbit/s, as a cellular line's do.
    Cellular(&'static [usize], f64, f64),
    /// The first line is cut for one second of every four.
    Flap,
}

/// What the bond carries.
#[derive(Clone, Copy)]
enum Load {
    /// One transfer.
    Tcp(Way),
    /// One each way.
    Both,
    /// A download, and a CUBIC download outside the bond on the line of this index.
    Company(usize),
    /// A download, and one short flow after the other.
    Short,
    /// UDP packets of 1200 bytes at 80 % of what the lines carry.
    Udp,
}

struct Case {
    name: &'static str,
    scenario: Scenario,
    weather: Weather,
    load: Load,
    /// In which TCP finds its rate, and how long is looked then.
    settle: Duration,
    look: Duration,
}

fn cases() -> Vec<Case> {
    let case = |scenario: Scenario, load| Case {
        name: scenario.name,
        scenario,
        weather: Weather::Steady,
        load,
        settle: Duration::from_secs(3),
        look: Duration::from_secs(7),
    };
    let down = Load::Tcp(Way::Download);
    let mut cases: Vec<Case> = Scenario::others().into_iter().map(|scenario| case(scenario, down)).collect();
    for slow in cases.iter_mut().filter(|case| case.name == "satellite") {
        (slow.settle, slow.look) = (Duration::from_secs(8), Duration::from_secs(8));
    }
    let cellular = |name, lines, scenario| Case {
        name,
        weather: Weather::Cellular(lines, 4.0, 40.0),
        look: Duration::from_secs(10),
        ..case(scenario, down)
    };
    let one = Scenario { name: "cellular", lines: vec![LinePlan::new(20, 8, 30), LinePlan::new(16, 2, 15)] };
    let two = Scenario { name: "cellular", lines: vec![LinePlan::new(20, 8, 30), LinePlan::new(20, 8, 40)] };
    cases.push(cellular("cellular", &[0], one));
    cases.push(cellular("cellular, both", &[0, 1], two));
    cases.push(Case {
        name: "sym2, one flaps",
        weather: Weather::Flap,
        look: Duration::from_secs(12),
        ..case(Scenario::sym2(), down)
    });
    for (name, load) in [
        ("asym2, up", Load::Tcp(Way::Upload)),
        ("asym2, both ways", Load::Both),
        ("asym2, short flows", Load::Short),
        ("asym2, UDP bulk", Load::Udp),
    ] {
        cases.push(Case { name, ..case(Scenario::asym2(), load) });
    }
    for (name, scenario, line) in [
        ("sym2, company", Scenario::sym2(), 0),
        ("asym2, company", Scenario::asym2(), 0),
        ("asym2, company on the slow line", Scenario::asym2(), 1),
    ] {
        // Two senders need some seconds to share a line, and BBR learns the round trip anew after ten.
        cases.push(Case {
            name,
            settle: Duration::from_secs(10),
            look: Duration::from_secs(20),
            ..case(scenario, Load::Company(line))
        });
    }
    cases.push(Case { name: "four, up", ..case(Scenario::four(), Load::Tcp(Way::Upload)) });
    cases.push(Case { name: "lte2, UDP bulk", ..case(Scenario::lte2(), Load::Udp) });
    cases
}

/// One run.
struct Run {
    share: f64,
    /// Above the idle median, in ms.
    ping: f64,
    ping_p95: f64,
    /// The longest time without progress of TCP, in ms.
    pause: f64,
    udp_lost: u64,
    udp_reordered: u64,
    /// Above the smallest delay, in ms.
    udp_wait: f64,
    more: String,
}

/// Measures, and gives the table.
pub fn measure(options: &Options, rows: &mut Rows) -> io::Result<String> {
    let mut text = format!(
        "Other lines and other loads; medians of {} run(s). Goodput is the share of what the lines carried at best meanwhile \
         (`company`: of the line that is shared, half), ping is above the idle bond's, the pause is the longest in which TCP \
         delivered nothing, and the last column is a UDP stream of 20 packets/s beside it: lost, overtaken, and the 95th \
         percentile of its delay above the smallest.\n\n\
         | lines | TCP | goodput | ping | pause | UDP | |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        options.runs,
    );
    for case in cases().iter().filter(|case| options.wants(case.name)) {
        let bulk = matches!(case.load, Load::Udp);
        for congestion in options.congestion.iter().take(if bulk { 1 } else { usize::MAX }) {
            let mut runs = Vec::new();
            for number in 1..=options.runs {
                let run = run(options, case, congestion, number as u64)?;
                rows.add(&json!({
                    "kind": "other", "name": case.name, "congestion": congestion, "run": number, "share": run.share,
                    "ping_ms": run.ping, "ping_p95_ms": run.ping_p95, "pause_ms": run.pause,
                    "udp_lost": run.udp_lost, "udp_reordered": run.udp_reordered, "udp_wait_ms": run.udp_wait,
                    "more": run.more,
                }))?;
                println!(
                    "{:<18} {congestion:<5} run {number}: {:5.1} %  ping {:+5.1} ms, p95 {:+6.1} ms, pause {:4.0} ms; \
                     UDP {} lost, {} overtaken, {:.0} ms{}{}",
                    case.name,
                    100.0 * run.share,
                    run.ping,
                    run.ping_p95,
                    run.pause,
                    run.udp_lost,
                    run.udp_reordered,
                    run.udp_wait,
                    if run.more.is_empty() { "" } else { "; " },
                    run.more,
                );
                runs.push(run);
            }
            let of = |value: fn(&Run) -> f64| {
                median(&mut runs.iter().map(value).collect::<Vec<_>>()).unwrap_or_default()
            };
            let _ = writeln!(
                text,
                "| {} | {} | {:.1} % | {:+.0} ms, {:+.0} ms | {} | {:.0}, {:.0}, {:.0} ms | {} |",
                case.name,
                if bulk { "" } else { congestion },
                100.0 * of(|run| run.share),
                of(|run| run.ping),
                of(|run| run.ping_p95),
                if bulk { String::new() } else { format!("{:.0} ms", of(|run| run.pause)) },
                of(|run| run.udp_lost as f64),
                of(|run| run.udp_reordered as f64),
                of(|run| run.udp_wait),
                runs.first().map_or("", |run| &run.more),
            );
        }
    }
    text.push('\n');
    Ok(text)
}

/// What the lines could carry meanwhile: each direction's mean rate in bit/s.
#[derive(Default)]
struct Possible {
    down: f64,
    up: f64,
}

fn run(options: &Options, case: &Case, congestion: &str, seed: u64) -> io::Result<Run> {
    let (network, _bond) = start(options, &case.scenario, seed)?;
    let idle = Echo::new(&network.lan, Topology::INET_V4).interval(EVERY).ping()?.rtt;
    let stop = AtomicBool::new(false);
    let total = case.settle + case.look;
    thread::scope(|scope| {
        let weather = scope.spawn(|| weather(&network, case, seed, &stop));
        let run = load(&network, case, congestion, total);
        stop.store(true, Ordering::Relaxed);
        let possible = weather.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(judge(case, run?, &idle, &possible))
    })
}

/// Makes the weather, and says what the lines can carry in the time that is looked at.
fn weather(network: &Topology, case: &Case, seed: u64, stop: &AtomicBool) -> Possible {
    let begun = Instant::now();
    let mut random = Random::new(seed);
    let (mut sum, mut looks) = (Possible::default(), 0.0);
    let mut tick = 0u32;
    while !stop.load(Ordering::Relaxed) {
        match case.weather {
            Weather::Steady => {}
            Weather::Cellular(lines, low, high) => {
                for &line in lines {
                    network.line(line).change(Direction::Down, |config| {
                        let rate = config.rate.unwrap_or(0) as f64 / 1e6;
                        // Up to a fifth more or less every tick; half as much again when the cell's load changes.
                        let step = if random.chance(0.03) { 1.2 } else { 0.2 };
                        let rate = (rate * (step * (random.unit() * 2.0 - 1.0)).exp()).clamp(low, high);
                        config.rate = Some((rate * 1e6) as u64);
                    });
                }
            }
            Weather::Flap => match tick % 40 {
                20 => network.line(0).cut(Cut::Silent),
                30 => network.line(0).restore(),
                _ => {}
            },
        }
        if begun.elapsed() >= case.settle && begun.elapsed() < case.settle + case.look {
            looks += 1.0;
            for line in network.lines.iter().filter(|line| line.line.is_cut().is_none()) {
                let rate = |direction| line.line.config(direction).rate.unwrap_or(0) as f64;
                sum.down += rate(Direction::Down);
                sum.up += rate(Direction::Up);
            }
        }
        tick += 1;
        thread::sleep((TICK * tick).saturating_sub(begun.elapsed()));
    }
    Possible { down: sum.down / f64::max(looks, 1.0), up: sum.up / f64::max(looks, 1.0) }
}

/// What came of a load.
struct Loaded {
    ping: EchoReport,
    stream: UdpReport,
    main: Option<TcpReport>,
    /// The other direction, or the one outside the bond.
    second: Option<TcpReport>,
    bulk: Option<UdpReport>,
    short: Vec<Duration>,
}

fn load(network: &Topology, case: &Case, congestion: &str, total: Duration) -> io::Result<Loaded> {
    let tcp = |way| {
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4)
            .way(way)
            .congestion(congestion)
            .duration(total)
    };
    let beside = Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(20).duration(total);
    let stream = match case.load {
        Load::Tcp(way) => beside.way(way),
        _ => beside,
    }
    .start()?;
    let (mut main, mut second, mut bulk) = (None, None, None);
    match case.load {
        Load::Tcp(way) => main = Some(tcp(way).start()?),
        Load::Both => (main, second) = (Some(tcp(Way::Download).start()?), Some(tcp(Way::Upload).start()?)),
        Load::Company(line) => {
            let outside = Tcp::new(&network.router, &network.server, Topology::SERVER_V4);
            let outside = outside.device(&format!("wan{}", line + 1));
            second = Some(outside.duration(total).start()?);
            main = Some(tcp(Way::Download).start()?);
        }
        Load::Short => main = Some(tcp(Way::Download).start()?),
        Load::Udp => {
            let rate = 0.8 * case.scenario.down_rate() as f64;
            let udp = Udp::new(&network.lan, &network.inet, Topology::INET_V4).size(1200);
            bulk = Some(udp.bit_rate(rate as u64).duration(total).start()?);
        }
    }
    let short = Mutex::new(Vec::new());
    let over = AtomicBool::new(false);
    let ping = thread::scope(|scope| {
        thread::sleep(case.settle);
        if matches!(case.load, Load::Short) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let flow =
                        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).congestion(congestion);
                    let flow = flow.bytes(SHORT_FLOW).deadline(Duration::from_secs(5)).run();
                    if flow.is_ok_and(|report| report.completed)
                        && let Ok(mut short) = short.lock()
                    {
                        short.push(begun.elapsed());
                    }
                }
            });
        }
        let count = (case.look.as_millis() / EVERY.as_millis()).saturating_sub(4);
        let ping = Echo::new(&network.lan, Topology::INET_V4).interval(EVERY);
        let ping = ping.count(u16::try_from(count).unwrap_or(u16::MAX)).ping();
        over.store(true, Ordering::Relaxed);
        ping
    })?;
    Ok(Loaded {
        ping,
        main: main.map(|run| run.finish()),
        second: second.map(|run| run.finish()),
        bulk: bulk.map(|run| run.finish()),
        stream: stream.finish(),
        short: short.into_inner().unwrap_or_default(),
    })
}

fn judge(case: &Case, loaded: Loaded, idle: &Percentiles, possible: &Possible) -> Run {
    let goodput = |report: &Option<TcpReport>| {
        report
            .as_ref()
            .map_or(0.0, |report| report.goodput_between(case.settle, case.settle + case.look) as f64)
    };
    let (main, second) = (goodput(&loaded.main), goodput(&loaded.second));
    let mut more = String::new();
    let share = match case.load {
        Load::Tcp(Way::Download) | Load::Short => main / possible.down,
        Load::Tcp(Way::Upload) => main / possible.up,
        Load::Both => {
            let _ = write!(more, "up {:.1} %", 100.0 * second / possible.up);
            main / possible.down
        }
        Load::Company(line) => {
            let shared = case.scenario.lines.get(line).and_then(|line| line.down.rate).unwrap_or(0) as f64;
            let rest = possible.down - shared;
            let _ = write!(
                more,
                "of the shared line {:.0} % ours, {:.0} % the other's",
                100.0 * (main / CEILING - rest) / shared,
                100.0 * second / shared
            );
            main / (possible.down - shared / 2.0)
        }
        Load::Udp => loaded.bulk.as_ref().map_or(0.0, |bulk| bulk.goodput as f64) / possible.down,
    };
    if let Some(bulk) = &loaded.bulk {
        let _ = write!(
            more,
            "of {} sent {} lost, {} overtaken, p95 {:.0} ms above the smallest delay",
            bulk.sent,
            bulk.lost,
            bulk.reordered,
            milliseconds(bulk.delay.p95 - bulk.delay.min)
        );
    }
    if !loaded.short.is_empty() {
        let took = Percentiles::of(loaded.short.iter().copied());
        let _ = write!(
            more,
            "{} flows of {} kB took {:.0} ms, p95 {:.0} ms",
            loaded.short.len(),
            SHORT_FLOW / 1000,
            milliseconds(took.median),
            milliseconds(took.p95)
        );
    }
    let above = |rtt: Duration| milliseconds(rtt) - milliseconds(idle.median);
    Run {
        share,
        ping: above(loaded.ping.rtt.median),
        ping_p95: above(loaded.ping.rtt.p95),
        pause: loaded.main.as_ref().map_or(0.0, |report| milliseconds(report.longest_gap.length)),
        udp_lost: loaded.stream.lost,
        udp_reordered: loaded.stream.reordered,
        udp_wait: milliseconds(loaded.stream.delay.p95 - loaded.stream.delay.min),
        more,
    }
}
