//! `bonding rpcd`: the ubus object `bonding`, as an executable plug-in of OpenWrt's rpcd.
//!
//! rpcd runs it as `list`, to learn the methods and their arguments' types, and as `call METHOD`, with the arguments as
//! JSON on standard input and the answer as JSON on standard output. Arguments are checked here and handed on as values
//! or as single words of a program's argument list: no shell ever sees them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use serde_json::{Map, Value, json};

use super::keys;
use crate::bond::keys::PrivateKey;
use crate::config::schema::{self, Kind};
use crate::config::{self, Config, Problem, Report, Severity, store};
use crate::daemon::control::{Command as Request, LinkAction, ask};
use crate::daemon::events::unix_ms;

/// Bytes of arguments that are read: a whole configuration fits.
const MAX_ARGUMENTS: u64 = 2 << 20;
/// Bytes of an invitation, `bonding://…`.
const MAX_LINE: usize = 2_048;
/// Lines of the system's log that go with the status of a daemon that does not run.
const LOG_LINES: &str = "40";
/// Bytes of what another program prints that are handed on.
const MAX_OUTPUT: usize = 64 << 10;
/// The service's script.
const INIT: &str = "/etc/init.d/bonding";

/// Where things are; the tests put them elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The configuration.
    pub config: PathBuf,
    /// A folder for the state of a speed test.
    pub state: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Places { config: "/etc/config/bonding".into(), state: "/var/run/bonding-rpcd".into() }
    }
}

/// A method: its name, an example of its arguments, from which rpcd takes their types, and what carries it out.
type Method = (&'static str, &'static str, fn(&Places, &Arguments) -> Result<Value, String>);

const METHODS: [Method; 12] = [
    ("status", r#"{"after":0}"#, status),
    ("events", "{}", |places, _| Ok(json!({ "events": ask_daemon(places, &Request::Events)? }))),
    ("options", "{}", |_, _| Ok(schema::options_json())),
    ("link", r#"{"name":"","action":""}"#, link),
    ("reload", "{}", |places, _| ask_daemon(places, &Request::Reload)),
    ("restart", "{}", |_, _| run_program(Program::new(INIT).arg("restart"))),
    ("check", r#"{"config":""}"#, check),
    ("pubkey", "{}", |places, _| public_key(places)),
    ("genkey", r#"{"replace":false}"#, |places, arguments| generate_key(places, arguments.flag("replace")?)),
    ("join", r#"{"line":"","wan":[""],"add":""}"#, join),
    ("speedtest_start", "{}", |places, _| start_speed_test(places)),
    ("speedtest_status", "{}", |places, _| Ok(speed_test(places))),
];

/// Prints methods and types, for `list`.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn list(out: &mut dyn Write) -> io::Result<u8> {
    let methods = METHODS.iter().map(|(name, arguments, _)| format!("\"{name}\":{arguments}"));
    writeln!(out, "{{{}}}", methods.collect::<Vec<_>>().join(","))?;
    Ok(0)
}

/// Carries out one method and prints its answer. What goes wrong is part of the answer, `{"ok": false, "error": …}`;
/// exit code 2 is for a method that does not exist.
///
/// # Errors
///
/// When `input` cannot be read or `out` cannot be written.
pub fn call(method: &str, places: &Places, input: &mut dyn Read, out: &mut dyn Write) -> io::Result<u8> {
    let mut text = Vec::new();
    store::at_most(input, MAX_ARGUMENTS + 1).read_to_end(&mut text)?;
    let Some((_, _, carry_out)) = METHODS.iter().find(|(name, ..)| *name == method) else {
        super::complain(&format!("rpcd: there is no method '{method}'"));
        return Ok(super::USAGE);
    };
    let answer = Arguments::read(&text).and_then(|arguments| carry_out(places, &arguments));
    let answer = answer.unwrap_or_else(|error| json!({ "ok": false, "error": error }));
    writeln!(out, "{answer}")?;
    Ok(0)
}

/// The arguments of a call. rpcd adds the caller's session, which is of no interest here.
struct Arguments(Map<String, Value>);

impl Arguments {
    fn read(text: &[u8]) -> Result<Self, String> {
        if text.len() as u64 > MAX_ARGUMENTS {
            return Err("the arguments are too long".into());
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(Arguments(Map::new()));
        }
        match serde_json::from_slice(text) {
            Ok(Value::Object(object)) => Ok(Arguments(object)),
            _ => Err("the arguments are not a JSON object".into()),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("'{name}' must be a string")),
        }
    }

    fn needed(&self, name: &str) -> Result<&str, String> {
        self.text(name)?.filter(|text| !text.is_empty()).ok_or_else(|| format!("'{name}' is missing"))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                value.as_u64().map(Some).ok_or_else(|| format!("'{name}' must be a number, 0 or more"))
            }
        }
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| format!("'{name}' must be true or false")),
        }
    }

    fn names(&self, name: &str) -> Result<Vec<&str>, String> {
        let Some(Value::Array(values)) = self.0.get(name) else {
            return Err(format!("'{name}' must be a list of names"));
        };
        let named = |value: &Value| value.as_str().is_some_and(|text| Kind::Name.accepts(text));
        if values.is_empty() || values.len() > config::MAX_LINKS || !values.iter().all(named) {
            return Err(format!("'{name}' must be a list of 1 to {} names of interfaces", config::MAX_LINKS));
        }
        Ok(values.iter().filter_map(Value::as_str).collect())
    }
}

fn load(places: &Places) -> Result<Report, String> {
    config::load_file(&places.config)
        .map_err(|error| format!("{}: cannot be read: {error}", places.config.display()))
}

fn socket(places: &Places) -> PathBuf {
    let config = load(places).ok().and_then(|report| report.config);
    config.map_or_else(|| PathBuf::from(super::arguments::SOCKET), |config| config.globals.control_socket)
}

fn ask_daemon(places: &Places, request: &Request) -> Result<Value, String> {
    let socket = socket(places);
    match ask(&socket, request) {
        Ok(Value::Null) => Err("the daemon ended before it answered; look at its log".into()),
        Ok(answer) => Ok(answer),
        Err(error) => Err(super::why_no_daemon(&socket, &error)),
    }
}

/// What the daemon says, with those events only that are newer than number `after`; or why there is no daemon. Both
/// with this machine's clock, so that the reader can tell whether it is right.
fn status(places: &Places, arguments: &Arguments) -> Result<Value, String> {
    let after = arguments.number("after")?.unwrap_or(0);
    let socket = socket(places);
    let mut answer = match ask(&socket, &Request::Status) {
        Ok(Value::Object(mut status)) => {
            if let Some(Value::Array(events)) = status.get_mut("events") {
                events.retain(|event| event["number"].as_u64().unwrap_or(u64::MAX) > after);
            }
            status.insert("running".into(), json!(true));
            status
        }
        Ok(_) => not_running(places, "the daemon ended before it answered"),
        Err(error) => not_running(places, &super::why_no_daemon(&socket, &error)),
    };
    answer.insert("time_ms".into(), json!(unix_ms()));
    Ok(Value::Object(answer))
}

/// Why no daemon runs: a configuration that is missing, off, wrong or not complete; else what the log says.
fn not_running(places: &Places, why: &str) -> Map<String, Value> {
    let (report, unreadable) = match load(places) {
        Ok(report) => (Some(report), None),
        Err(error) => (None, Some(error)),
    };
    let file = places.config.display().to_string();
    let config = report.as_ref().and_then(|report| report.config.as_ref());
    let mut problems: Vec<Value> = report.iter().flat_map(|report| report.errors()).map(problem).collect();
    problems.extend(config.iter().flat_map(|config| config.not_ready(&file)).map(|found| problem(&found)));
    if let Some(config) = config.filter(|config| config.globals.enabled)
        && let Err(error) = config.globals.read_private_key()
    {
        problems.push(json!({ "severity": "not ready", "message": error.to_string() }));
    }
    let log = output_of(Program::new("logread").args(["-e", "bonding", "-l", LOG_LINES]));
    let answer = json!({
        "running": false,
        "program": env!("CARGO_PKG_VERSION"),
        "error": unreadable.unwrap_or_else(|| why.to_owned()),
        "config": file,
        "valid": config.is_some(),
        "enabled": config.is_some_and(|config| config.globals.enabled),
        "configured": config.is_some_and(is_configured),
        "problems": problems,
        "log": log.lines().map(super::text::clean).collect::<Vec<String>>(),
    });
    match answer {
        Value::Object(answer) => answer,
        _ => Map::new(),
    }
}

/// Whether somebody has set it up: the file that the package installs knows neither server nor peer.
fn is_configured(config: &Config) -> bool {
    config.bond.public_key.is_some() || !config.peers.is_empty()
}

fn problem(problem: &Problem) -> Value {
    json!({
        "severity": match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::NotReady => "not ready",
        },
        "line": problem.line,
        "section": problem.section,
        "option": problem.option,
        "message": problem.message,
    })
}

fn link(places: &Places, arguments: &Arguments) -> Result<Value, String> {
    let name = arguments.needed("name")?;
    if !Kind::Name.accepts(name) {
        return Err(format!("'name' is not {}", Kind::Name.expected()));
    }
    let action = LinkAction::named(arguments.needed("action")?);
    let action = action.ok_or("'action' must be up, down or reconnect")?;
    ask_daemon(places, &Request::Link { name: name.to_owned(), action })
}

/// Checks a configuration that is given as text, or the one that is installed.
fn check(places: &Places, arguments: &Arguments) -> Result<Value, String> {
    let file = places.config.display().to_string();
    let report = match arguments.text("config")? {
        Some(text) => config::load_bytes(text.as_bytes(), &file),
        None => load(places)?,
    };
    let missing = report.config.iter().flat_map(|config| config.not_ready(&file));
    let problems: Vec<Value> =
        report.problems.iter().map(problem).chain(missing.map(|found| problem(&found))).collect();
    Ok(json!({ "ok": report.config.is_some(), "problems": problems }))
}

/// The private key's file, or why the key is elsewhere.
fn key_file(places: &Places) -> Result<PathBuf, String> {
    let globals = match load(places)?.config {
        Some(config) => config.globals,
        None => return Err("the configuration has errors: correct it first".into()),
    };
    if globals.private_key.is_some() {
        return Err("the key is in the configuration, as 'private_key': remove it there first".into());
    }
    Ok(globals.private_key_file)
}

fn public_key(places: &Places) -> Result<Value, String> {
    let config = load(places)?.config.ok_or("the configuration has errors: correct it first")?;
    let secret = config.globals.read_private_key().map_err(|error| error.to_string())?;
    Ok(json!({ "ok": true, "public_key": PrivateKey::from_bytes(*secret.as_bytes()).public().to_string() }))
}

/// Makes a private key in its file; only its public key leaves this function.
fn generate_key(places: &Places, replace: bool) -> Result<Value, String> {
    let path = key_file(places)?;
    if !replace && path.symlink_metadata().is_ok() {
        return Err(format!("there is a key in {} already", path.display()));
    }
    let failed = |error: io::Error| format!("{}: cannot be written: {error}", path.display());
    let mut text = zeroize::Zeroizing::new(Vec::with_capacity(64));
    keys::generate(&mut *text).map_err(failed)?;
    let text = str::from_utf8(&text).map_err(|error| failed(io::Error::other(error.to_string())))?;
    store::replace(&path, text).map_err(failed)?;
    public_key(places)
}

fn join(places: &Places, arguments: &Arguments) -> Result<Value, String> {
    let line = arguments.needed("line")?.trim();
    if !line.starts_with("bonding://")
        || line.len() > MAX_LINE
        || !line.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err("'line' must be what the server printed: bonding://…, in one piece".into());
    }
    // By standard input: the line may hold a secret, and everybody can read a process's arguments.
    let mut program = ourselves()?;
    program.args(["join", "-"]).arg("--config").arg(&places.config);
    match arguments.text("add")?.filter(|name| !name.is_empty()) {
        // Another server beside the one that the bond has, over the same lines.
        Some(name) if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
            program.arg("--add").arg(name);
        }
        Some(_) => return Err("'add' must be a name for the server: letters, digits and _".into()),
        None => {
            for name in arguments.names("wan")? {
                program.arg("--wan").arg(name);
            }
        }
    }
    run_program_on(&mut program, line.as_bytes())
}

fn start_speed_test(places: &Places) -> Result<Value, String> {
    if is_testing(places) {
        return Err("a speed test is under way".into());
    }
    let failed = |error: io::Error| format!("the speed test cannot be started: {error}");
    DirBuilder::new().recursive(true).mode(0o700).create(&places.state).map_err(failed)?;
    let file = |name: &str| {
        let path = places.state.join(name);
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)
    };
    let mut program = ourselves()?;
    program.args(["speedtest", "--json"]).arg("--socket").arg(socket(places));
    // A group of its own, so that it outlives this call.
    program.stdin(Stdio::null()).stdout(file("output")?).stderr(file("errors")?).process_group(0);
    let child = program.spawn().map_err(failed)?;
    file("pid")?.write_all(child.id().to_string().as_bytes()).map_err(failed)?;
    Ok(json!({ "ok": true }))
}

fn is_testing(places: &Places) -> bool {
    let pid = fs::read_to_string(places.state.join("pid")).unwrap_or_default();
    let Ok(pid) = pid.trim().parse::<u32>() else { return false };
    // The number may be another process's by now. A command line that is empty is that of one that has ended.
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == b"speedtest")
}

/// How the last speed test goes or went: every JSON line that it has printed.
fn speed_test(places: &Places) -> Value {
    let running = is_testing(places);
    let read = |name: &str| read_bounded(&places.state.join(name));
    let output = read("output");
    let reports: Vec<Value> =
        output.lines().map_while(|line| serde_json::from_slice(line.as_bytes()).ok()).collect();
    let errors = read("errors");
    json!({ "ok": true, "running": running, "reports": reports, "error": errors.trim() })
}

fn read_bounded(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = fs::File::open(path) {
        let _ = store::at_most(&mut file, MAX_OUTPUT as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// This very program.
fn ourselves() -> Result<Program, String> {
    let path = std::env::current_exe().map_err(|error| format!("/proc/self/exe: {error}"))?;
    Ok(Program::new(path))
}

/// Runs a program to its end; what it says is the message or the error.
fn run_program(program: &mut Program) -> Result<Value, String> {
    run_program_on(program, &[])
}

/// Like [`run_program`], with `input`, which is shorter than a pipe's buffer, on its standard input.
fn run_program_on(program: &mut Program, input: &[u8]) -> Result<Value, String> {
    let name = program.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| format!("{name}: {error}");
    let pipes = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends without reading says itself why.
        let _ = pipe.write_all(input);
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(MAX_OUTPUT)).unwrap_or_default());
        text.lines().map(super::text::clean).collect::<Vec<String>>().join("\n").trim().to_owned()
    };
    if output.status.success() {
        return Ok(json!({ "ok": true, "message": said(&output.stdout) }));
    }
    let errors = said(&output.stderr);
    let errors = errors.strip_prefix("bonding: ").unwrap_or(&errors);
    Err(if errors.is_empty() { format!("{name}: {}", output.status) } else { errors.to_owned() })
}

/// What a program prints, or nothing where it cannot be run.
fn output_of(program: &mut Program) -> String {
    let output = program.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let bytes = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(bytes.get(..bytes.len().min(MAX_OUTPUT)).unwrap_or_default()).into_owned()
}

#[cfg(test)]
#[path = "rpcd_tests.rs"]
mod tests;
