//! What a running transfer feels when a line is cut, restored, slower, quicker or longer; and the first seconds.

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use lab::emulator::{Cut, Direction, LineHandle};
use lab::line::LineConfig;
use lab::scenario::{LinePlan, Scenario};
use lab::topology::Topology;
use lab::traffic::{Tcp, TcpRun, Udp};
use serde_json::json;

use crate::{Options, Rows, median, milliseconds, plot, start};

/// Between two looks at the counters.
const TICK: Duration = Duration::from_millis(20);
/// Over how many looks a rate is drawn.
const WINDOW: usize = 10;
/// For how long a rate must last to count as reached, in seconds.
const SETTLED: f64 = 0.5;
/// When the change comes.
const CHANGE: Duration = Duration::from_secs(5);
/// How long a change is looked at.
const AFTER: Duration = Duration::from_secs(5);
/// The part of the best possible rate that counts as all of it: headers and TCP's own dips are in the rest.
const FULL: f64 = 0.8;

/// What was seen over time.
#[derive(Default)]
pub struct Trace {
    /// Time of each look, in seconds since the transfer began.
    pub time: Vec<f64>,
    /// TCP's payload bytes received by then.
    pub goodput: Vec<u64>,
    /// Bytes that each line had passed by then, with the line's queue in ms.
    pub lines: Vec<Vec<(u64, f64)>>,
    /// What was done, and when.
    pub marks: Vec<(f64, String)>,
}

impl Trace {
    /// bit/s over the window that ends at a look.
    pub fn rate(&self, bytes: impl Fn(usize) -> u64, at: usize) -> f64 {
        let from = at.saturating_sub(WINDOW);
        let time = self.time[at] - self.time[from];
        if time <= 0.0 { 0.0 } else { 8.0 * (bytes(at) - bytes(from)) as f64 / time }
    }

    /// The rate of TCP's payload.
    pub fn goodput_rate(&self, at: usize) -> f64 {
        self.rate(|look| self.goodput[look], at)
    }

    /// The rate of a line.
    pub fn line_rate(&self, line: usize, at: usize) -> f64 {
        self.rate(|look| self.lines[line][look].0, at)
    }

    /// How long after `from` a counter begins to grow by `rate` bit/s, on average over [`SETTLED`]; looks up to `to`.
    fn settles(&self, from: f64, to: f64, rate: f64, bytes: impl Fn(usize) -> u64) -> Option<f64> {
        let at = |time: f64| self.time.partition_point(|&look| look < time);
        (at(from)..at(to))
            .find(|&begin| {
                let end = at(self.time[begin] + SETTLED);
                end < self.time.len()
                    && 8.0 * (bytes(end) - bytes(begin)) as f64 >= rate * (self.time[end] - self.time[begin])
            })
            .map(|begin| self.time[begin] - from)
    }

    /// How long after `from` the value is last above `limit`.
    fn above_until(&self, from: f64, to: f64, limit: f64, of: impl Fn(usize) -> f64) -> f64 {
        let looks = (0..self.time.len()).filter(|&at| self.time[at] >= from && self.time[at] < to);
        looks.into_iter().filter(|&at| of(at) > limit).map(|at| self.time[at] - from).fold(0.0, f64::max)
    }
}

/// Watches a download for a time.
fn watch(network: &Topology, transfer: &TcpRun, trace: &mut Trace, until: Duration) {
    trace.lines.resize(network.lines.len(), Vec::new());
    while transfer.elapsed() < until {
        trace.time.push(transfer.elapsed().as_secs_f64());
        trace.goodput.push(transfer.received());
        for (seen, line) in trace.lines.iter_mut().zip(&network.lines) {
            let bytes = line.line.counters(Direction::Down).bytes;
            seen.push((bytes, milliseconds(line.line.queue_delay(Direction::Down))));
        }
        std::thread::sleep(TICK);
    }
}

/// What is done to a line.
struct Change {
    name: &'static str,
    scenario: Scenario,
    line: usize,
    does: fn(&mut LineConfig),
}

/// Measures, and gives the table.
pub fn measure(options: &Options, rows: &mut Rows) -> io::Result<String> {
    let mut text = format!(
        "One CUBIC download through the bond while its lines change; medians of {} run(s). A rate counts as reached when the \
         {} ms from then on bring {} % of what the lines carry.\n\n| what happens | what is measured | |\n| --- | --- | --- |\n",
        options.runs,
        1000.0 * SETTLED,
        100.0 * FULL,
    );
    let cuts = [
        ("sym2, one line is cut", Scenario::sym2(), 1),
        ("asym2, the quick line is cut", Scenario::asym2(), 0),
        ("asym2, the slow line is cut", Scenario::asym2(), 1),
    ];
    for (name, scenario, line) in cuts.into_iter().filter(|(name, ..)| options.wants(name)) {
        cut(options, rows, &mut text, name, &scenario, line)?;
    }
    let slow_first =
        Scenario { lines: vec![LinePlan::new(5, 4, 15), LinePlan::new(8, 1, 50)], ..Scenario::asym2() };
    let changes = [
        Change {
            name: "asym2, the quick line falls from 20 to 5 Mbit/s",
            scenario: Scenario::asym2(),
            line: 0,
            does: |line| line.rate = Some(5_000_000),
        },
        Change {
            name: "5 + 8 Mbit/s, the first line rises to 40 Mbit/s",
            scenario: slow_first,
            line: 0,
            does: |line| line.rate = Some(40_000_000),
        },
        Change {
            name: "asym2, the quick line grows by 25 ms",
            scenario: Scenario::asym2(),
            line: 0,
            does: |line| line.delay += Duration::from_millis(25),
        },
    ];
    for change in changes.iter().filter(|change| options.wants(change.name)) {
        changed(options, rows, &mut text, change)?;
    }
    for scenario in options.scenarios.iter().filter(|scenario| options.wants(&first_name(scenario))) {
        first(options, rows, &mut text, scenario)?;
    }
    text.push('\n');
    Ok(text)
}

fn download(network: &Topology, duration: Duration) -> io::Result<TcpRun> {
    Tcp::new(&network.lan, &network.inet, Topology::INET_V4).duration(duration).start()
}

fn cut(
    options: &Options,
    rows: &mut Rows,
    text: &mut String,
    name: &str,
    scenario: &Scenario,
    line: usize,
) -> io::Result<()> {
    let (mut gaps, mut lost, mut waits, mut single, mut restored) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 1..=options.runs {
        let (network, _bond) = start(options, scenario, number as u64)?;
        let restore = CHANGE + AFTER;
        let end = restore + AFTER;
        let stream =
            Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(100).duration(end).start()?;
        let transfer = download(&network, end)?;
        let mut trace = Trace::default();
        watch(&network, &transfer, &mut trace, CHANGE);
        let at = mark(&mut trace, &transfer, "cut");
        network.line(line).cut(Cut::Silent);
        watch(&network, &transfer, &mut trace, restore);
        let back = mark(&mut trace, &transfer, "restored");
        network.line(line).restore();
        watch(&network, &transfer, &mut trace, end);
        let (report, stream) = (transfer.finish(), stream.finish());

        let rest: u64 = scenario.down_rate() - scenario.lines[line].down.rate.unwrap_or(0);
        // What arrives first after the cut left before it.
        let flight = (2 * scenario.lines[line].down.delay).as_secs_f64();
        let goodput = |look: usize| trace.goodput[look];
        let one = trace.settles(at + flight, back, FULL * rest as f64, goodput).map(|time| time + flight);
        let all = trace.settles(back, end.as_secs_f64(), FULL * scenario.down_rate() as f64, goodput);
        let around = (Duration::from_secs_f64(at - 0.5), Duration::from_secs_f64(at + 2.0));
        let wait = stream.delay_between(around.0, around.1).max - stream.delay.min;
        let missing = stream.lost_between(around.0, around.1);
        gaps.push(milliseconds(report.longest_gap.length));
        lost.push(missing);
        waits.push(milliseconds(wait));
        single.push(one.unwrap_or(f64::INFINITY));
        restored.push(all.unwrap_or(f64::INFINITY));
        rows.add(&json!({
            "kind": "cut", "name": name, "run": number, "gap_ms": gaps.last(), "udp_lost": missing,
            "udp_lost_in_all": stream.lost, "udp_twice": stream.duplicated, "udp_wait_ms": waits.last(),
            "single_rate_after_s": one, "full_rate_after_s": all, "completed": report.completed,
        }))?;
        println!(
            "{name}, run {number}: TCP stops {:.0} ms, UDP {missing} lost, waits {:.0} ms; one line's rate after {}; restored: all after {}",
            gaps.last().copied().unwrap_or_default(),
            waits.last().copied().unwrap_or_default(),
            seconds(one),
            seconds(all),
        );
        if number == 1 && line == 0 {
            plot::draw(&options.out.join("cut.svg"), &format!("{name}, and restored"), &trace)?;
        }
    }
    let _ = writeln!(
        text,
        "| {name} | longest pause of TCP | {:.0} ms |\n| | 100 packets/s of UDP: lost, longest wait more | {}, {:.0} ms |\n\
         | | until the other line's rate | {} |\n| … and restored | until the rate of all | {} |",
        median(&mut gaps).unwrap_or_default(),
        median(&mut lost).unwrap_or_default(),
        median(&mut waits).unwrap_or_default(),
        seconds(median(&mut single)),
        seconds(median(&mut restored)),
    );
    Ok(())
}

fn changed(options: &Options, rows: &mut Rows, text: &mut String, change: &Change) -> io::Result<()> {
    let Change { name, scenario, line, does } = change;
    let (mut times, mut queues) = (Vec::new(), Vec::new());
    for number in 1..=options.runs {
        let (network, _bond) = start(options, scenario, number as u64)?;
        let end = CHANGE + AFTER;
        let transfer = download(&network, end)?;
        let mut trace = Trace::default();
        watch(&network, &transfer, &mut trace, CHANGE);
        let at = mark(&mut trace, &transfer, "change");
        let handle: &LineHandle = network.line(*line);
        handle.change(Direction::Down, does);
        watch(&network, &transfer, &mut trace, end);
        drop(transfer.finish());

        let rate = handle.config(Direction::Down).rate.unwrap_or(0) as f64;
        let stop = end.as_secs_f64();
        let reached =
            trace.settles(at, stop, FULL * rate, |look| trace.lines[*line][look].0).unwrap_or(f64::INFINITY);
        let queue = trace.above_until(at, stop, 50.0, |look| trace.lines[*line][look].1);
        times.push(reached);
        queues.push(queue);
        let looks: Vec<_> = (0..trace.time.len())
            .filter(|&look| trace.time[look] >= at - 0.5)
            .map(|look| {
                (trace.time[look] - at, trace.lines[*line][look].1, trace.line_rate(*line, look) / 1e6)
            })
            .collect();
        rows.add(&json!({
            "kind": "change", "name": name, "run": number, "rate_reached_s": reached, "queue_above_50ms_until_s": queue,
            "s_queue_ms_mbit": looks,
        }))?;
        println!(
            "{name}, run {number}: followed after {}, queue under 50 ms after {queue:.2} s",
            seconds(Some(reached))
        );
        if number == 1 && rate < scenario.lines[*line].down.rate.unwrap_or(0) as f64 {
            plot::draw(&options.out.join("rate.svg"), name, &trace)?;
        }
    }
    let _ = writeln!(
        text,
        "| {name} | until the line is full; until its queue stays under 50 ms | {}, {} |",
        seconds(median(&mut times)),
        seconds(median(&mut queues)),
    );
    Ok(())
}

fn first_name(scenario: &Scenario) -> String {
    format!("{}, the first download after the start", scenario.name)
}

fn first(options: &Options, rows: &mut Rows, text: &mut String, scenario: &Scenario) -> io::Result<()> {
    let mut times = Vec::new();
    for number in 1..=options.runs {
        let (network, _bond) = start(options, scenario, number as u64)?;
        let begun = Instant::now();
        let transfer = download(&network, AFTER)?;
        let connected = begun.elapsed();
        let mut trace = Trace::default();
        watch(&network, &transfer, &mut trace, AFTER);
        drop(transfer.finish());
        let goal = FULL * scenario.down_rate() as f64;
        let time = trace.settles(0.0, AFTER.as_secs_f64(), goal, |look| trace.goodput[look]);
        times.push(time.unwrap_or(f64::INFINITY));
        rows.add(&json!({
            "kind": "first", "scenario": scenario.name, "run": number, "reached_s": time,
            "connected_ms": milliseconds(connected),
        }))?;
        println!(
            "{}, first download, run {number}: {} % after {}",
            scenario.name,
            100.0 * FULL,
            seconds(time)
        );
    }
    let _ = writeln!(
        text,
        "| {} | until {:.0} % of the sum | {} |",
        first_name(scenario),
        100.0 * FULL,
        seconds(median(&mut times)),
    );
    Ok(())
}

fn mark(trace: &mut Trace, transfer: &TcpRun, what: &str) -> f64 {
    let at = transfer.elapsed().as_secs_f64();
    trace.marks.push((at, what.into()));
    at
}

fn seconds(time: Option<f64>) -> String {
    match time {
        Some(time) if time.is_finite() => format!("{time:.2} s"),
        _ => "not reached".into(),
    }
}
