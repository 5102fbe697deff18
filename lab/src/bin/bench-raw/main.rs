//! `make bench-raw`: how fast the program is where nothing but the processor limits it, beside others on the same
//! machine in the same run.
//!
//! Two network namespaces are joined by plain veth pairs of 1500 bytes, without any emulation. Through each tunnel go
//! one TCP stream, four, one each way, and UDP at the highest rate of which less than 1 % is lost. The figures of
//! different machines cannot be compared; the ratios within one run can. Nothing leaves the namespaces, which are gone
//! with this process.
//!
//! ```text
//! bench-raw PROGRAM [--seconds N] [--only NAME,NAME…] [--json FILE] [--document FILE]
//! ```

mod contender;
mod flood;
mod measure;
mod table;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use contender::{Contender, Started};
use lab::document::renew;
use serde_json::json;

const USAGE: &str = "bench-raw PROGRAM [--seconds N] [--only NAME,NAME…] [--json FILE] [--document FILE]";

/// What is to be run.
struct Plan {
    program: PathBuf,
    seconds: u64,
    only: Vec<String>,
    json: Option<PathBuf>,
    document: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Err(why) = lab::enter_privileged() {
        eprintln!("bench-raw: {why}");
        return ExitCode::FAILURE;
    }
    let plan = match arguments() {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("bench-raw: {why}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-raw: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Plan, String> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().map(PathBuf::from).filter(|path| path.is_file());
    let program = program.ok_or("which program? Give the path of the bonding binary")?;
    let mut plan = Plan { program, seconds: 5, only: Vec::new(), json: None, document: None };
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--seconds" => plan.seconds = value.parse().map_err(|_| format!("'{value}' is no number"))?,
            "--only" => plan.only = value.split(',').map(str::to_owned).collect(),
            "--json" => plan.json = Some(value.into()),
            "--document" => plan.document = Some(value.into()),
            _ => return Err(format!("there is no option {option}")),
        }
    }
    Ok(plan)
}

fn run(plan: &Plan) -> io::Result<()> {
    let mut json = plan.json.as_ref().map(File::create).transpose()?;
    let mut rows = Vec::new();
    for contender in Contender::ALL {
        if !plan.only.is_empty() && !plan.only.iter().any(|name| name == contender.name()) {
            continue;
        }
        eprintln!("* {}", contender.name());
        let mut tunnel = match contender.start(&plan.program)? {
            Started::Running(tunnel) => tunnel,
            Started::Missing(why) => {
                eprintln!("  skipped: {why}");
                continue;
            }
        };
        let figures = measure::all(&mut tunnel, Duration::from_secs(plan.seconds))?;
        if let Some(json) = &mut json {
            writeln!(json, "{}", json!({ "contender": contender.name(), "figures": figures }))?;
        }
        rows.push((contender, figures));
    }
    let report = table::report(&rows);
    println!("\n{report}");
    println!(
        "s/GB: seconds of processor time (user and system) of the daemons at both ends for 10⁹ bytes of payload"
    );
    match &plan.document {
        Some(document) => renew(document, "bench-raw", &report),
        None => Ok(()),
    }
}
