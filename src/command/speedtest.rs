//! `bonding speedtest`: what one TCP connection carries between this router and its server, down and up, over the whole
//! bond and over each link alone.
//!
//! With `--json` each line is an object. Its `phase` is `latency` at first, then `download` or `upload`, each with the
//! share of all that is done (`progress`), the `link` (null for the bond) and the `rate` so far; the last line of a
//! measurement has its result. At last comes `done`, with all results. Rates are in bits a second.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use super::text::{bar, milliseconds, rate};
use crate::bond::LinkId;
use crate::daemon::control::{Command as Request, ask};
use crate::daemon::spawn_blocking;
use crate::daemon::speedtest::{Direction, Order, UNSENT};
use crate::json::{items, texts};

/// Seconds of one measurement when nothing else is said.
const SECONDS: u64 = 5;

/// What a connection needs to fill a line does not count, if the measurement is long enough.
const WARM_UP: Duration = Duration::from_secs(1);

/// How long the server may take to answer.
const CONNECT: Duration = Duration::from_secs(5);

/// Nothing comes for so long: it is over.
const SILENCE: Duration = Duration::from_secs(10);

/// Round trips that are measured before there is a load, and the pause between those under load.
const ROUND_TRIPS: usize = 5;
const PAUSE: Duration = Duration::from_millis(250);

/// Between two updates of the bar.
const UPDATE: Duration = Duration::from_millis(200);

/// Cells of the bar.
const CELLS: usize = 24;

/// What a person typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Seconds of one measurement.
    pub seconds: u64,
    /// The links are not measured one by one.
    pub bond_only: bool,
    /// These links alone; all that are up if empty.
    pub links: Vec<String>,
    /// JSON instead of text.
    pub json: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { socket: PathBuf::new(), seconds: SECONDS, bond_only: false, links: Vec::new(), json: false }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Outcome {
    /// The link; none for the bond.
    link: Option<String>,
    direction: Direction,
    bits_per_second: u64,
    bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Leg {
    link: Option<(String, LinkId)>,
    direction: Direction,
}

/// Measures; gives the exit code.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let plan = match ask(&options.socket, &Request::SpeedTest) {
        Ok(plan) if plan["ok"] == true => plan,
        Ok(reply) => return Ok(super::failure(&refusal(&reply))),
        Err(error) => return Ok(super::no_daemon(&options.socket, &error)),
    };
    let legs = match legs(&plan, options) {
        Ok(legs) => legs,
        Err(error) => return Ok(super::failure(&format!("speedtest: {error}"))),
    };
    let mut screen = Screen { out, json: options.json, bar: io::stdout().is_terminal() && !options.json };
    screen.start(&legs, options.seconds)?;
    let idle = match (0..ROUND_TRIPS).map(|_| round_trip(&plan)).collect::<io::Result<Vec<_>>>() {
        Ok(idle) => idle,
        Err(error) => return Ok(super::failure(&format!("speedtest: {error}"))),
    };
    let mut delays = Delays { idle, loaded: Vec::new() };
    let mut outcomes = Vec::new();
    for (number, leg) in legs.iter().enumerate() {
        // Only the whole bond is under load while the whole bond is measured.
        let pinging = leg.link.is_none().then(|| Pinging::start(&plan));
        let measured = measure(&plan, leg, options, (number, legs.len()), &mut screen);
        delays.loaded.extend(pinging.into_iter().flat_map(Pinging::stop));
        let outcome = match measured {
            Ok(outcome) => outcome,
            Err(error) => {
                screen.clear()?;
                return Ok(super::failure(&format!("speedtest: {}: {error}", name(leg))));
            }
        };
        screen.result(leg, &outcome)?;
        outcomes.push(outcome);
    }
    screen.end(&outcomes, &mut delays)?;
    Ok(0)
}

fn refusal(reply: &Value) -> String {
    format!("speedtest: {}", super::text::clean(reply["error"].as_str().unwrap_or("the daemon refuses")))
}

fn name(leg: &Leg) -> &str {
    leg.link.as_ref().map_or("bond", |(name, _)| name)
}

/// The bond first, then each link; each down and up.
fn legs(plan: &Value, options: &Options) -> Result<Vec<Leg>, String> {
    let known = items(&plan["links"]);
    let text = |link: &Value, field: &str| link[field].as_str().unwrap_or_default().to_owned();
    let up: Vec<(String, LinkId)> = known
        .iter()
        .filter(|link| link["state"] == "up")
        .filter_map(|link| {
            let number = LinkId::try_from(link["id"].as_u64()?).ok()?;
            Some((text(link, "name"), number))
        })
        .collect();
    if up.is_empty() {
        return Err("no link is up: see `bonding status`".into());
    }
    let mut places: Vec<Option<(String, LinkId)>> = Vec::new();
    match options.links.as_slice() {
        [] => {
            places.push(None);
            // With one link, the bond is the link.
            if !options.bond_only && up.len() > 1 {
                places.extend(up.into_iter().map(Some));
            }
        }
        wanted => {
            for wanted in wanted {
                let found = up.iter().find(|(name, _)| name == wanted);
                let missing = || format!("there is no link '{}' that is up", super::text::clean(wanted));
                places.push(Some(found.ok_or_else(missing)?.clone()));
            }
        }
    }
    let both = [Direction::Download, Direction::Upload];
    Ok(places
        .into_iter()
        .flat_map(|link| both.map(|direction| Leg { link: link.clone(), direction }))
        .collect())
}

/// Bytes and when they were there, as often as it was looked.
#[derive(Debug, Default)]
struct Samples(Vec<(Duration, u64)>);

impl Samples {
    /// Bits a second without the first second, where that leaves enough.
    fn rate(&self) -> u64 {
        let Some(&(end, all)) = self.0.last() else { return 0 };
        let skipped = if end > WARM_UP * 5 / 2 { WARM_UP } else { Duration::ZERO };
        let before = self.0.iter().rev().find(|(at, _)| *at <= skipped).copied();
        let (start, bytes) = before.unwrap_or_default();
        let micros = u64::try_from((end - start).as_micros()).unwrap_or(u64::MAX).max(1);
        (all - bytes).saturating_mul(8 * 1_000_000) / micros
    }

    fn bytes(&self) -> u64 {
        self.0.last().map_or(0, |(_, bytes)| *bytes)
    }
}

fn measure(
    plan: &Value,
    leg: &Leg,
    options: &Options,
    (number, of): (usize, usize),
    screen: &mut Screen<'_>,
) -> io::Result<Outcome> {
    let mut stream = connect(plan)?;
    let port = stream.local_addr()?.port();
    if let Some((link, _)) = &leg.link {
        let reply = ask(&options.socket, &Request::Pin { port, link: Some(link.clone()) })?;
        if reply["ok"] != true {
            return Err(io::Error::other(refusal(&reply)));
        }
    }
    let order = Order {
        direction: leg.direction,
        seconds: options.seconds,
        link: leg.link.as_ref().map(|(_, number)| *number),
    };
    stream.write_all(order.to_line().as_bytes())?;
    let mut samples = Samples::default();
    let end = Duration::from_secs(options.seconds);
    let mut progress = |samples: &Samples| {
        let done = samples.0.last().map_or(0.0, |(at, _)| at.as_secs_f64() / end.as_secs_f64());
        screen.progress(leg, samples.rate(), (number as f64 + done.min(1.0)) / of as f64)
    };
    match leg.direction {
        Direction::Download => download(stream, end, &mut samples, &mut progress)?,
        Direction::Upload => upload(stream, end, &mut samples, &mut progress)?,
    }
    if leg.link.is_some() {
        let _ = ask(&options.socket, &Request::Pin { port, link: None });
    }
    Ok(Outcome {
        link: leg.link.as_ref().map(|(name, _)| name.clone()),
        direction: leg.direction,
        bits_per_second: samples.rate(),
        bytes: samples.bytes(),
    })
}

fn connect(plan: &Value) -> io::Result<TcpStream> {
    let device = plan["ifname"].as_str().unwrap_or_default();
    let port = u16::try_from(plan["port"].as_u64().unwrap_or(0)).unwrap_or(0);
    let mut result = Err(io::Error::other("the server has no address inside the bond"));
    for server in texts(&plan["servers"]).into_iter().filter_map(|server| server.parse::<IpAddr>().ok()) {
        let address = SocketAddr::new(server, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Nothing of the test may take another way.
        let _ = socket.bind_device(Some(device.as_bytes()));
        result = match socket.connect_timeout(&address.into(), CONNECT) {
            Ok(()) => {
                let _ = socket.set_tcp_notsent_lowat(UNSENT);
                let stream = TcpStream::from(socket);
                stream.set_read_timeout(Some(SILENCE))?;
                stream.set_write_timeout(Some(SILENCE))?;
                return Ok(stream);
            }
            Err(error) => Err(io::Error::new(error.kind(), format!("{address}: {error}"))),
        };
    }
    result
}

/// The time that a connection takes to be made: one round trip.
fn round_trip(plan: &Value) -> io::Result<Duration> {
    let start = Instant::now();
    connect(plan).map(|_| start.elapsed())
}

/// Round trips.
struct Delays {
    idle: Vec<Duration>,
    loaded: Vec<Duration>,
}

/// The one in the middle, in milliseconds.
fn median(durations: &mut [Duration]) -> Option<f64> {
    durations.sort_unstable();
    durations.get(durations.len() / 2).map(|middle| middle.as_secs_f64() * 1_000.0)
}

/// Measures round trips while something else goes on.
struct Pinging {
    over: Arc<AtomicBool>,
    delays: Arc<Mutex<Vec<Duration>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Pinging {
    fn start(plan: &Value) -> Pinging {
        let (over, delays) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Duration>>>::default());
        let (plan, is_over, measured) = (plan.clone(), over.clone(), delays.clone());
        let thread = spawn_blocking(move || {
            // Not before there is a load.
            std::thread::sleep(PAUSE * 2);
            while !is_over.load(Ordering::Relaxed) {
                let delay = round_trip(&plan);
                lock(&measured).extend(delay);
                std::thread::sleep(PAUSE);
            }
        });
        Pinging { over, delays, thread }
    }

    fn stop(self) -> Vec<Duration> {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        std::mem::take(&mut *lock(&self.delays))
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn download(
    mut stream: TcpStream,
    end: Duration,
    samples: &mut Samples,
    progress: &mut dyn FnMut(&Samples) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let (mut bytes, mut first, mut told) = (0_u64, None, Instant::now());
    loop {
        let read = stream.read(&mut buffer)?;
        let now = Instant::now();
        let since = now - *first.get_or_insert(now);
        // What comes late was sent in time, and waited: the rate counts until then.
        if read == 0 || since > end + SILENCE {
            return Ok(());
        }
        bytes += read as u64;
        samples.0.push((since, bytes));
        if now - told >= UPDATE {
            told = now;
            progress(samples)?;
        }
    }
}

fn upload(
    stream: TcpStream,
    end: Duration,
    samples: &mut Samples,
    progress: &mut dyn FnMut(&Samples) -> io::Result<()>,
) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let failure = Arc::<Mutex<Option<io::Error>>>::default();
    let told = failure.clone();
    let sending = spawn_blocking(move || {
        let (buffer, started) = (vec![0; 64 * 1024], Instant::now());
        let mut sent = Ok(());
        while sent.is_ok() && started.elapsed() < end {
            sent = writer.write_all(&buffer);
        }
        *lock(&told) = sent.and_then(|()| writer.shutdown(std::net::Shutdown::Write)).err();
    });
    // The server counts: what has left here may still wait in a buffer.
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        let (Some(Ok(bytes)), Some(Ok(micros))) = (numbers.next(), numbers.next()) else {
            return Err(io::Error::other("the server's report makes no sense"));
        };
        let at = Duration::from_micros(micros);
        if samples.0.last().is_some_and(|(before, counted)| at < *before || bytes < *counted) {
            return Err(io::Error::other("the server's reports contradict each other"));
        }
        samples.0.push((at, bytes));
        progress(samples)?;
    }
    let _ = sending.join();
    lock(&failure).take().map_or(Ok(()), Err)
}

/// Where the results go.
struct Screen<'o> {
    out: &'o mut dyn Write,
    json: bool,
    /// There is a terminal on which a bar can grow.
    bar: bool,
}

impl Screen<'_> {
    fn start(&mut self, legs: &[Leg], seconds: u64) -> io::Result<()> {
        let total = legs.len() as u64 * seconds;
        if self.json {
            let (measurements, progress) = (legs.len(), 0.0);
            return self.line(&json!({
                "phase": "latency", "progress": progress, "measurements": measurements, "seconds": total,
            }));
        }
        writeln!(self.out, "one TCP connection with the server, {seconds} s each, {total} s in all")?;
        self.out.flush()
    }

    fn progress(&mut self, leg: &Leg, bits_per_second: u64, done: f64) -> io::Result<()> {
        let percent = (done * 100.0) as u64;
        if self.json {
            return self.line(&json!({
                "phase": leg.direction,
                "progress": (done * 1_000.0).round() / 1_000.0,
                "link": leg.link.as_ref().map(|(name, _)| name),
                "rate": bits_per_second,
            }));
        }
        if self.bar {
            let bar = bar(percent, Some(100), CELLS);
            let label = format!("{} {}", name(leg), word(leg.direction));
            write!(self.out, "\r\x1b[K{bar} {percent:>3} %  {label}: {}", rate(bits_per_second))?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        if self.bar {
            write!(self.out, "\r\x1b[K")?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn result(&mut self, leg: &Leg, outcome: &Outcome) -> io::Result<()> {
        if self.json {
            let mut line = json!(outcome);
            line["phase"] = json!(outcome.direction);
            if outcome.link.is_none() {
                line[word(outcome.direction)] = outcome.bits_per_second.into();
            }
            return self.line(&line);
        }
        self.clear()?;
        let direction = word(leg.direction);
        writeln!(self.out, "  {:<16} {direction:<9} {:>12}", name(leg), rate(outcome.bits_per_second))?;
        self.out.flush()
    }

    fn end(&mut self, outcomes: &[Outcome], delays: &mut Delays) -> io::Result<()> {
        let (idle, loaded) = (median(&mut delays.idle), median(&mut delays.loaded));
        if self.json {
            let of_bond = |direction: Direction| {
                let mut bonded = outcomes.iter().filter(|outcome| outcome.link.is_none());
                bonded.find(|outcome| outcome.direction == direction).map(|outcome| outcome.bits_per_second)
            };
            return self.line(&json!({
                "phase": "done",
                "progress": 1.0,
                "download": of_bond(Direction::Download),
                "upload": of_bond(Direction::Upload),
                "idle_ms": idle,
                "loaded_ms": loaded,
                "results": outcomes,
            }));
        }
        let loaded = loaded.map(|ms| format!(", {} under load", milliseconds(ms))).unwrap_or_default();
        writeln!(self.out, "round trip: {} idle{loaded}", milliseconds(idle.unwrap_or_default()))?;
        for direction in [Direction::Download, Direction::Upload] {
            if let Some(share) = share(outcomes, direction) {
                writeln!(
                    self.out,
                    "{}: the bond carries {share} % of what its links carry",
                    word(direction)
                )?;
            }
        }
        Ok(())
    }

    fn line(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")?;
        self.out.flush()
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Download => "download",
        Direction::Upload => "upload",
    }
}

/// What the bond carries, in per cent of the sum of its links; `None` when not both were measured.
fn share(outcomes: &[Outcome], direction: Direction) -> Option<u64> {
    let of = |bonded: bool| -> u64 {
        let those = outcomes.iter().filter(|o| o.direction == direction && o.link.is_none() == bonded);
        those.map(|outcome| outcome.bits_per_second).sum()
    };
    (of(false) > 0 && of(true) > 0).then(|| of(true) * 100 / of(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Value {
        json!({ "links": [
            { "id": 0, "name": "adsl1", "state": "up" },
            { "id": 1, "name": "adsl2", "state": "down" },
            { "id": 5, "name": "lte", "state": "up" },
        ] })
    }

    fn names(options: &Options) -> Result<Vec<String>, String> {
        let legs = legs(&plan(), options)?;
        Ok(legs.iter().map(|leg| format!("{} {}", name(leg), word(leg.direction))).collect())
    }

    #[test]
    fn the_bond_and_each_link_that_is_up() {
        let all = names(&Options::default()).unwrap();
        let expected =
            ["bond download", "bond upload", "adsl1 download", "adsl1 upload", "lte download", "lte upload"];
        assert_eq!(all, expected);
        let bond = names(&Options { bond_only: true, ..Options::default() }).unwrap();
        assert_eq!(bond, expected[..2]);
        let one = names(&Options { links: vec!["lte".into()], ..Options::default() }).unwrap();
        assert_eq!(one, expected[4..]);
        let down = Options { links: vec!["adsl2".into()], ..Options::default() };
        assert!(names(&down).unwrap_err().contains("'adsl2'"));
    }

    #[test]
    fn the_first_second_does_not_count() {
        let at = |tenths: u64, bytes| (Duration::from_millis(tenths * 100), bytes);
        let samples = Samples(vec![at(0, 1_000), at(10, 10_000), at(30, 260_000)]);
        assert_eq!((samples.rate(), samples.bytes()), (1_000_000, 260_000));
        assert_eq!(Samples(vec![at(0, 0), at(10, 125_000)]).rate(), 1_000_000, "unless there is no other");
        assert_eq!(Samples::default().rate(), 0);
    }

    #[test]
    fn shares() {
        let outcome = |link: Option<&str>, bits_per_second| Outcome {
            link: link.map(str::to_owned),
            direction: Direction::Download,
            bits_per_second,
            bytes: 0,
        };
        let outcomes = [outcome(None, 18), outcome(Some("a"), 10), outcome(Some("b"), 10)];
        assert_eq!(share(&outcomes, Direction::Download), Some(90));
        assert_eq!(share(&outcomes[..1], Direction::Download), None);
        assert_eq!(share(&outcomes, Direction::Upload), None);
    }
}
