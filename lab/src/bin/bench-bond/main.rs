//! `make bench-bond`: what the bond makes of the named lines, with nothing configured.
//!
//! A table of goodput and ping (each scenario, both directions, one stream and four, CUBIC and BBR), what happens when a
//! line is cut or changes, and on request other lines and loads that nothing was tuned to. Prints the tables, writes the raw rows as JSON lines, plots a cut and a change of
//! rate, and on request renews the tables in `docs/performance.md`. Everything happens in network namespaces that exist only
//! as long as this process.

mod changes;
mod others;
mod plot;
mod table;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use lab::bond::{Bond, Setup};
use lab::document::renew;
use lab::scenario::Scenario;
use lab::topology::Plan;
use lexopt::prelude::*;
use serde_json::Value;

const USAGE: &str = "usage: bench-bond PROGRAM [--runs N] [--seconds N] [--scenario NAME]... [--streams N]... \
[--congestion NAME]... [--only table|changes|more] [--case PART-OF-A-NAME]... [--out DIRECTORY] [--document FILE]";

/// What is to be measured.
struct Options {
    program: PathBuf,
    runs: usize,
    duration: Duration,
    scenarios: Vec<Scenario>,
    streams: Vec<usize>,
    congestion: Vec<String>,
    table: bool,
    changes: bool,
    others: bool,
    /// Which of the changes and others, by parts of their names; empty: all.
    cases: Vec<String>,
    out: PathBuf,
    document: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Err(why) = lab::enter_privileged() {
        eprintln!("bench-bond: {why}");
        return ExitCode::FAILURE;
    }
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("bench-bond: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-bond: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    /// Whether a case of this name is to be measured.
    fn wants(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|part| name.contains(part.as_str()))
    }
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        program: PathBuf::new(),
        runs: 1,
        duration: Duration::from_secs(8),
        scenarios: Vec::new(),
        streams: Vec::new(),
        congestion: Vec::new(),
        table: true,
        changes: true,
        others: false,
        cases: Vec::new(),
        out: "target/bench-bond".into(),
        document: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(program) => options.program = program.into(),
            Long("runs") => options.runs = parser.value()?.parse::<usize>()?.max(1),
            Long("seconds") => options.duration = Duration::from_secs(parser.value()?.parse::<u64>()?.max(5)),
            Long("scenario") => {
                let name = parser.value()?.string()?;
                let known = || format!("no scenario '{name}'; there are sym2, asym2, lte2, loss2");
                options.scenarios.push(Scenario::named(&name).ok_or_else(known)?);
            }
            Long("streams") => options.streams.push(parser.value()?.parse()?),
            Long("congestion") => options.congestion.push(parser.value()?.string()?),
            Long("only") => match parser.value()?.string()?.as_str() {
                "table" => options.changes = false,
                "changes" => options.table = false,
                "more" => (options.table, options.changes, options.others) = (false, false, true),
                other => return Err(format!("--only table, changes or more, not '{other}'").into()),
            },
            Long("case") => options.cases.push(parser.value()?.string()?),
            Long("out") => options.out = parser.value()?.into(),
            Long("document") => options.document = Some(parser.value()?.into()),
            other => return Err(other.unexpected()),
        }
    }
    if options.program.as_os_str().is_empty() {
        return Err("which program? Use `make bench-bond`, or give the path of the bonding binary".into());
    }
    if options.scenarios.is_empty() {
        options.scenarios = Scenario::all();
    }
    if options.streams.is_empty() {
        options.streams = vec![1, 4];
    }
    if options.congestion.is_empty() {
        options.congestion = vec!["cubic".into()];
        let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
        if known.is_ok_and(|known| known.split_whitespace().any(|name| name == "bbr")) {
            options.congestion.push("bbr".into());
        } else {
            eprintln!("bench-bond: this kernel has no BBR; CUBIC only");
        }
    }
    Ok(options)
}

fn bench(options: &Options) -> io::Result<()> {
    fs::create_dir_all(&options.out)?;
    let file = if options.others { "more.jsonl" } else { "rows.jsonl" };
    let mut rows = Rows::create(&options.out.join(file))?;
    let mut report = String::new();
    if options.table {
        report.push_str(&table::measure(options, &mut rows)?);
    }
    if options.changes {
        report.push_str(&changes::measure(options, &mut rows)?);
    }
    let part = if options.others { "bench-bond-more" } else { "bench-bond" };
    if options.others {
        report.push_str(&others::measure(options, &mut rows)?);
    }
    println!("\n{report}");
    println!("raw rows: {}", rows.path.display());
    if let Some(document) = &options.document {
        renew(document, part, &report)?;
        println!("renewed: {}", document.display());
    }
    Ok(())
}

/// A bond over the lines of a scenario, with nothing configured but what must be.
fn start(options: &Options, scenario: &Scenario, seed: u64) -> io::Result<(lab::topology::Topology, Bond)> {
    let network = Plan::new(scenario.clone()).seed(seed).build()?;
    let bond = Bond::start(&network, &Setup::new(&options.program))?;
    Ok((network, bond))
}

/// The raw results, a JSON object a line.
pub struct Rows {
    path: PathBuf,
    file: File,
}

impl Rows {
    fn create(path: &Path) -> io::Result<Rows> {
        Ok(Rows { path: path.to_owned(), file: File::create(path)? })
    }

    fn add(&mut self, row: &Value) -> io::Result<()> {
        writeln!(self.file, "{row}")
    }
}

/// The middle one; of an even number, the lower of the two.
fn median<T: PartialOrd + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len().saturating_sub(1) / 2).copied()
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}
