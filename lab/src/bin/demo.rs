//! `make demo`: two emulated ADSL lines, each alone and then joined, and one of them cut in the middle of a download.
//!
//! Everything happens in network namespaces that exist only as long as this process.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::bond::{Bond, End, Setup, links_in_state};
use lab::emulator::Cut;
use lab::scenario::{LinePlan, Scenario};
use lab::topology::{Plan, Topology};
use lab::traffic::{Echo, Tcp, TcpReport};
use serde_json::Value;

/// What part of the lines' sum the bond must reach.
const SHARE: f64 = 0.85;
/// The longest pause of a download when a line is cut.
const PAUSE: Duration = Duration::from_secs(1);
/// How soon a restored line is used again.
const RETURN: Duration = Duration::from_secs(2);
const TRANSFER: u64 = 8;
const WARM_UP: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(250);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    if let Err(why) = lab::enter_privileged() {
        eprintln!("demo: {why}");
        return ExitCode::FAILURE;
    }
    let Some(program) = std::env::args_os().nth(1) else {
        eprintln!("demo: which program? Use `make demo`, or give the path of the bonding binary");
        return ExitCode::from(2);
    };
    catch_interrupt();
    match demo(&Setup::new(program)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(_) if INTERRUPTED.load(Ordering::Relaxed) => {
            eprintln!("\ndemo: interrupted; nothing is left behind");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demonstration; tells whether every figure is as it should be.
fn demo(setup: &Setup) -> io::Result<bool> {
    let scenario =
        Scenario { lines: vec![LinePlan::new(12, 1, 25), LinePlan::new(8, 1, 50)], ..Scenario::asym2() };
    let (down_sum, up_sum) = (scenario.down_rate(), scenario.up_rate());
    println!(
        "Two networks, joined by two ADSL lines: 12/1 Mbit/s with 25 ms, and 8/1 Mbit/s with 50 ms one way.\n"
    );
    println!("  lan ── router ══ line1, line2 ══ server ── inet\n");
    let network = Plan::new(scenario).build()?;
    let mut table = Table::default();

    for line in &network.lines {
        let name = format!("line{} alone", line.number);
        step(&format!("{name}: one TCP download, without the bond"));
        let transfer = Tcp::new(&network.router, &network.server, Topology::SERVER_V4);
        let transfer = match line.address_v4() {
            Some(address) => transfer.source(address),
            None => transfer,
        };
        let run = transfer.device(&line.device).seconds(4).start()?;
        watch(None, Duration::from_secs(4))?;
        let report = run.finish();
        table.row(&name, &mbit(settled(&report, Duration::from_secs(1))), "");
    }

    step("starting the daemon at both ends, each from its UCI file");
    let mut bond = Bond::prepare(&network, setup)?;
    show_config(&bond)?;
    bond.launch(End::Server)?;
    let launched = Instant::now();
    bond.launch(End::Client)?;
    bond.wait_until_up(network.lines.len(), Duration::from_secs(10))?;
    table.row("start to all links up", &format!("{} ms", launched.elapsed().as_millis()), "");
    let idle = Echo::new(&network.lan, Topology::INET_V4).count(10).ping()?.rtt.median;
    table.row("ping through the idle bond", &ms(idle), "");

    let mut good = true;
    for (name, up, sum) in [("download", false, down_sum), ("upload", true, up_sum)] {
        step(&format!("one TCP {name} through the bond, from the LAN to the internet"));
        let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(TRANSFER);
        let run = if up { transfer.upload() } else { transfer }.start()?;
        watch(Some(&bond), WARM_UP)?;
        let ping = Echo::new(&network.lan, Topology::INET_V4).count(20).ping()?.rtt.median;
        watch(Some(&bond), Duration::from_secs(TRANSFER).saturating_sub(WARM_UP))?;
        let rate = settled(&run.finish(), WARM_UP);
        let share = rate as f64 / sum as f64;
        good &= share >= SHARE;
        table.row(
            &format!("{name} through the bond"),
            &mbit(rate),
            &format!("{:.0} % of the sum{}", 100.0 * share, verdict(share >= SHARE)),
        );
        table.row(&format!("ping during the {name}"), &ms(ping), "");
    }

    step("one TCP download; after 4 s line2 is cut without a sign, after 8 s it is restored");
    let run = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(13).start()?;
    watch(Some(&bond), Duration::from_secs(4))?;
    network.line(1).cut(Cut::Silent);
    println!("  --- line2 is cut ---");
    watch(Some(&bond), Duration::from_secs(4))?;
    network.line(1).restore();
    println!("  --- line2 is restored ---");
    let restored = Instant::now();
    bond.wait_for(End::Server, Duration::from_secs(10), |status| links_in_state(status, "up") == 2)?;
    let back = restored.elapsed();
    watch(Some(&bond), Duration::from_secs(4))?;
    let report = run.finish();
    let pause = report.longest_gap.length;
    good &= report.completed && pause <= PAUSE && back <= RETURN;
    table.row("longest pause of that download", &ms(pause), verdict(report.completed && pause <= PAUSE));
    table.row("restored line in use again after", &ms(back), verdict(back <= RETURN));

    step("stopping both daemons");
    bond.stop()?;
    println!("\n{}", table.text);
    println!(
        "{}",
        if good { "Every figure is as it should be." } else { "Some figures are not as they should be." }
    );
    Ok(good)
}

/// Waits, and shows the lines meanwhile.
fn watch(bond: Option<&Bond>, time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    let redraw = io::stdout().is_terminal();
    let mut drawn = 0;
    let mut shown = Instant::now();
    while Instant::now() < end {
        if INTERRUPTED.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        let due = redraw || shown.elapsed() >= Duration::from_secs(1);
        if let Some(status) = bond.filter(|_| due).and_then(|bond| bond.status(End::Client).ok()) {
            shown = Instant::now();
            if redraw && drawn > 0 {
                print!("\x1b[{drawn}A");
            }
            drawn = draw(&status, if redraw { "\x1b[K" } else { "" });
            io::stdout().flush()?;
        }
        std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

/// Shows the lines, each with `end` behind it; gives the number of rows.
fn draw(status: &Value, end: &str) -> usize {
    let links = status["endpoint"]["peers"][0]["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    for link in links {
        let rate = |field: &str| link[field].as_u64().unwrap_or(0);
        let rtt = link["rtt_ms"].as_f64().map_or("    -   ".into(), |rtt| format!("{rtt:5.1} ms"));
        println!(
            "  {:<6} {:<8} rtt {rtt}  loss {:>4.1} %   down {:>10}   up {:>10}{end}",
            link["name"].as_str().unwrap_or("?"),
            link["state"].as_str().unwrap_or("?"),
            100.0 * link["tx_loss"].as_f64().unwrap_or(0.0).max(0.0),
            mbit(rate("rx_rate")),
            mbit(rate("tx_rate")),
        );
    }
    links.len()
}

/// The client's file, without its comments and keys' paths.
fn show_config(bond: &Bond) -> io::Result<()> {
    println!("  the router's file, {}:", bond.config(End::Client).display());
    for line in std::fs::read_to_string(bond.config(End::Client))?.lines() {
        println!("  | {line}");
    }
    Ok(())
}

/// The rate after the warm-up.
fn settled(report: &TcpReport, warm_up: Duration) -> u64 {
    report.goodput_between(warm_up, report.duration)
}

#[derive(Default)]
struct Table {
    text: String,
}

impl Table {
    fn row(&mut self, name: &str, value: &str, remark: &str) {
        println!("  {name}: {value} {remark}");
        self.text.push_str(&format!("  {name:<34} {value:>12}  {remark}\n"));
    }
}

fn step(what: &str) {
    println!("\n* {what}");
}

fn verdict(good: bool) -> &'static str {
    if good { "" } else { "  <- should be better" }
}

fn mbit(bits: u64) -> String {
    format!("{:.2} Mbit/s", bits as f64 / 1e6)
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

/// Ctrl-C ends the watching; everything that was made is then dropped in order.
fn catch_interrupt() {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn interrupted(_: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(interrupted), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is allowed at any moment.
        if let Err(error) = unsafe { sigaction(signal, &action) } {
            eprintln!("demo: Ctrl-C will not tidy up: {error}");
        }
    }
}
