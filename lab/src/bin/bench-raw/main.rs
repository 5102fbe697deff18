//! `make bench-raw`: how fast the program is where nothing but the processor limits it, beside others on the same
//! machine in the same run.
//!
//! Two network namespaces are joined by plain veth pairs of 1500 bytes, without any emulation. Through each tunnel go
//! one TCP stream, four, one each way, and UDP at the highest rate of which less than 1 % is lost. The figures of
//! different machines cannot be compared; the ratios within one run can. Nothing leaves the namespaces, which are gone
//! with this process.
//!
//! ```text
//! bench-raw PROGRAM [--seconds N] [--only NAME,NAME…] [--json FILE]
//! ```

mod contender;
mod flood;
mod measure;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use contender::{Contender, Started};
use measure::Figures;
use serde_json::json;

/// What is to be run.
struct Plan {
    program: PathBuf,
    seconds: u64,
    only: Vec<String>,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    if let Err(why) = lab::enter_privileged() {
        eprintln!("bench-raw: {why}");
        return ExitCode::FAILURE;
    }
    let plan = match arguments() {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!(
                "bench-raw: {why}\nusage: bench-raw PROGRAM [--seconds N] [--only NAME,NAME…] [--json FILE]"
            );
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
    let program = arguments.next().ok_or("which program? Give the path of the bonding binary")?;
    let mut plan = Plan { program: program.into(), seconds: 5, only: Vec::new(), json: None };
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--seconds" => plan.seconds = value.parse().map_err(|_| format!("'{value}' is no number"))?,
            "--only" => plan.only = value.split(',').map(str::to_owned).collect(),
            "--json" => plan.json = Some(value.into()),
            _ => return Err(format!("there is no option {option}")),
        }
    }
    Ok(plan)
}

fn run(plan: &Plan) -> io::Result<()> {
    let mut json = plan.json.as_ref().map(File::create).transpose()?;
    let mut rows: Vec<(Contender, Figures)> = Vec::new();
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
    print_table(&rows);
    print_ratios(&rows);
    Ok(())
}

fn print_table(rows: &[(Contender, Figures)]) {
    println!(
        "\n{:<12} {:>16} {:>16} {:>22} {:>15} {:>14} {:>14}",
        "", "TCP, 1 stream", "TCP, 4 streams", "TCP, both ways", "UDP 1200", "UDP 64", "resident, MB"
    );
    println!(
        "{:<12} {:>16} {:>16} {:>22} {:>15} {:>14} {:>14}",
        "", "Mbit/s   s/GB", "Mbit/s   s/GB", "Mbit/s          s/GB", "packets/s", "packets/s", "idle   most"
    );
    for (contender, figures) in rows {
        let [one, four, both] = [&figures.tcp_one, &figures.tcp_four, &figures.tcp_both];
        println!(
            "{:<12} {:>9.0} {:>6.1} {:>9.0} {:>6.1} {:>15} {:>6.1} {:>15} {:>14} {:>14}",
            contender.name(),
            one.mbit(),
            one.cpu_per_gigabyte,
            four.mbit(),
            four.cpu_per_gigabyte,
            format!("{:.0} + {:.0}", both.forth as f64 / 1e6, both.back as f64 / 1e6),
            both.cpu_per_gigabyte,
            figures.udp_1200,
            figures.udp_64,
            format!("{:.1} {:>6.1}", megabytes(figures.resident_idle), megabytes(figures.resident_peak)),
        );
    }
    println!(
        "\ns/GB: seconds of processor time (user and system) of the daemons at both ends for 10⁹ bytes of payload"
    );
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Ours against the faster of the others.
fn print_ratios(rows: &[(Contender, Figures)]) {
    let others = || rows.iter().filter(|(c, _)| c.is_peer()).map(|(_, f)| f);
    if others().next().is_none() {
        return;
    }
    let best = |of: fn(&Figures) -> f64| others().map(of).fold(0.0, f64::max);
    let cheapest = others().map(|f| f.tcp_one.cpu_per_gigabyte).fold(f64::INFINITY, f64::min);
    let fastest = others().max_by(|a, b| a.tcp_one.mbit().total_cmp(&b.tcp_one.mbit()));
    let cpu = fastest.map_or(cheapest, |f| f.tcp_one.cpu_per_gigabyte);
    println!("\nagainst the faster of the others:");
    for (contender, figures) in rows.iter().filter(|(c, _)| c.is_ours()) {
        println!(
            "{:<12} TCP 1 × {:.1}, 4 × {:.1}, both ways × {:.1}; CPU ÷ {:.1}; UDP 1200 × {:.1}, 64 × {:.1}",
            contender.name(),
            figures.tcp_one.mbit() / best(|f| f.tcp_one.mbit()),
            figures.tcp_four.mbit() / best(|f| f.tcp_four.mbit()),
            figures.tcp_both.mbit() / best(|f| f.tcp_both.mbit()),
            cpu / figures.tcp_one.cpu_per_gigabyte,
            figures.udp_1200 as f64 / best(|f| f.udp_1200 as f64),
            figures.udp_64 as f64 / best(|f| f.udp_64 as f64),
        );
    }
}
