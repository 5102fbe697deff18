//! `make bench-raw`, second part: a server with many routers, each with two links, over a plain cable.
//!
//! What a thousand idle ones need, and the highest rate at which less than 1 % is lost of what one, ten and a hundred
//! of them send together. The routers are simulated by one thread of this process, which is busy like the server: where
//! the rate ends because of it, what the server spends on a packet tells more.
//!
//! ```text
//! cargo bench --bench many_peers -- PROGRAM [--document FILE | ROUTERS RATE]
//! ```
//!
//! With a number of routers and packets a second, only those are carried, for ten seconds: to look at with a profiler.

mod crowd;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crowd::{Carried, Crowd, LINKS, PAYLOAD};

/// Routers that do nothing.
const IDLE: usize = 1_000;
/// Routers that send.
const BUSY: [usize; 3] = [1, 10, 100];
/// Until then they still look for their lines' MTU and rate.
const SETTLED: Duration = Duration::from_secs(5);
/// How long the idle ones are watched.
const WATCHED: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_millis(1_000);
const COUNTED: Duration = Duration::from_millis(1_000);
/// Packets a second, all routers together.
const FIRST_RATE: usize = 20_000;
const HIGHEST_RATE: usize = 2_000_000;
/// Attempts between the highest rate that went and the lowest that did not.
const REFINEMENTS: u32 = 3;
/// All routers are in session by then.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if let Err(why) = lab::enter_privileged() {
        eprintln!("many_peers: {why}");
        return ExitCode::FAILURE;
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        [program] => all(Path::new(program)).map(|report| print!("{report}")),
        [program, "--document", document] => all(Path::new(program)).and_then(|report| {
            print!("{report}");
            lab::document::renew(Path::new(document), "many_peers", &report)
        }),
        [program, routers, rate] => match (routers.parse(), rate.parse()) {
            (Ok(routers), Ok(rate)) => profiled(Path::new(program), routers, rate),
            _ => Err(io::Error::other(format!("'{routers}' and '{rate}' must be numbers"))),
        },
        _ => {
            eprintln!("usage: many_peers PROGRAM [--document FILE | ROUTERS RATE]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("many_peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All figures, in Markdown.
fn all(program: &Path) -> io::Result<String> {
    Ok(format!("{}\n\n{}", idle(program)?, busy(program)?))
}

fn idle(program: &Path) -> io::Result<String> {
    let crowd = Crowd::start(program, IDLE)?;
    crowd.wait_until_up(LIMIT)?;
    std::thread::sleep(SETTLED);
    let before = crowd.usage()?.cpu;
    std::thread::sleep(WATCHED);
    let usage = crowd.usage()?;
    let share = (usage.cpu - before).as_secs_f64() / WATCHED.as_secs_f64();
    let resident = usage.resident as f64 / f64::from(1 << 20);
    Ok(format!(
        "With {IDLE} idle routers of {LINKS} links each the server has {resident:.1} MB resident and takes {:.1} % of a \
         core.",
        share * 100.0
    ))
}

fn busy(program: &Path) -> io::Result<String> {
    let mut table = format!(
        "| routers that send | packets/s of {PAYLOAD} bytes | server's time a packet |\n| ---: | ---: | ---: |\n"
    );
    for routers in BUSY {
        let crowd = Crowd::start(program, routers)?;
        crowd.wait_until_up(LIMIT)?;
        let row = match highest(&crowd)? {
            Some(carried) => format!(
                "| {routers} | {:.0} | {} ns |\n",
                carried.received as f64 / COUNTED.as_secs_f64(),
                (carried.cpu / carried.received.max(1) as u32).as_nanos()
            ),
            None => format!("| {routers} | less than {FIRST_RATE} | |\n"),
        };
        table += &row;
    }
    Ok(table)
}

/// What is carried at the highest rate that is.
fn highest(crowd: &Crowd) -> io::Result<Option<Carried>> {
    let (mut best, mut good, mut bad) = (None, 0, FIRST_RATE);
    while bad < HIGHEST_RATE {
        let Some(carried) = attempt(crowd, bad)? else { break };
        (best, good, bad) = (Some(carried), bad, bad * 3 / 2);
    }
    for _ in 0..REFINEMENTS {
        let middle = good.midpoint(bad);
        match attempt(crowd, middle)? {
            Some(carried) => (best, good) = (Some(carried), middle),
            None => bad = middle,
        }
    }
    Ok(best)
}

fn profiled(program: &Path, routers: usize, rate: usize) -> io::Result<()> {
    let crowd = Crowd::start(program, routers)?;
    crowd.wait_until_up(LIMIT)?;
    let carried = crowd.carry(rate, WARM_UP, 10 * COUNTED)?;
    println!("{carried:?}, {:?} a packet", carried.cpu / carried.received.max(1) as u32);
    Ok(())
}

/// What is carried at a rate, if less than 1 % is lost in one of two attempts: other processes of the machine may take
/// its processors for a moment.
fn attempt(crowd: &Crowd, rate: usize) -> io::Result<Option<Carried>> {
    for _ in 0..2 {
        let carried = crowd.carry(rate, WARM_UP, COUNTED)?;
        let offered = rate as f64 * COUNTED.as_secs_f64();
        if carried.received * 100 >= carried.sent * 99 && carried.sent as f64 >= 0.98 * offered {
            return Ok(Some(carried));
        }
    }
    Ok(None)
}
