//! A bond over two emulated lines that does what its standard input says: for tests that are not written in Rust, such
//! as those of the web pages.
//!
//! The first line that it prints names the configuration files of both ends. Each line of its input is one order:
//!
//! ```text
//! cut N | restore N           line N (from 1) dies without a sign, or comes back
//! stop END | start END        the daemon of END, client or server
//! download S | upload S       a TCP transfer from or to the internet, of S seconds
//! ```
//!
//! It answers each with `ok` or an error, and ends with its input.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

use lab::bond::{Bond, End, Setup};
use lab::emulator::Cut;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::{Tcp, TcpRun};

fn main() -> ExitCode {
    if let Err(why) = lab::enter_privileged() {
        eprintln!("stage: {why}");
        return ExitCode::FAILURE;
    }
    let Some(program) = std::env::args_os().nth(1) else {
        eprintln!("stage: which program? Give the path of the bonding binary");
        return ExitCode::from(2);
    };
    match serve(&Setup::new(program)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stage: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(setup: &Setup) -> io::Result<()> {
    let network = Plan::new(Scenario::asym2()).build()?;
    let mut bond = Bond::start(&network, setup)?;
    let mut runs = Vec::new();
    let mut out = io::stdout();
    let places =
        serde_json::json!({ "client": bond.config(End::Client), "server": bond.config(End::Server) });
    writeln!(out, "{places}")?;
    for order in io::stdin().lock().lines() {
        let answer = match carry_out(order?.trim(), &network, &mut bond, &mut runs) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string().replace('\n', " "),
        };
        writeln!(out, "{answer}")?;
    }
    // Transfers end when their network does.
    drop(bond);
    Ok(())
}

fn carry_out(order: &str, network: &Topology, bond: &mut Bond, runs: &mut Vec<TcpRun>) -> io::Result<()> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("not an order: {order}"));
    let (verb, what) = order.split_once(' ').ok_or_else(wrong)?;
    let line = || {
        let number = what.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        number.filter(|index| *index < network.lines.len()).map(|index| network.line(index)).ok_or_else(wrong)
    };
    let end = || match what {
        "client" => Ok(End::Client),
        "server" => Ok(End::Server),
        _ => Err(wrong()),
    };
    match verb {
        "cut" => line()?.cut(Cut::Silent),
        "restore" => line()?.restore(),
        "stop" => bond.halt(end()?)?,
        "start" => bond.launch(end()?)?,
        "download" | "upload" => {
            let seconds = what.parse().map_err(|_| wrong())?;
            let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(seconds);
            runs.push(if verb == "upload" { transfer.upload() } else { transfer }.start()?);
        }
        _ => return Err(wrong()),
    }
    Ok(())
}
