//! What a person may type, and its help.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::prelude::*;

use super::{completion, join, rpcd, server, speedtest};
use crate::config::spelling::nearest;
use crate::daemon::control::{Command as Request, LinkAction};
use crate::daemon::runner;
use crate::daemon::speedtest::MAX_SECONDS;

/// The control socket where nothing else is said.
pub(super) const SOCKET: &str = "/var/run/bonding.sock";

pub(super) const COMMANDS: [&str; 19] = [
    "run",
    "status",
    "events",
    "reload",
    "link",
    "check",
    "plan",
    "options",
    "import",
    "join",
    "server",
    "speedtest",
    "genkey",
    "pubkey",
    "genpsk",
    "rpcd",
    "completion",
    "version",
    "help",
];

const HELP: &str = "\
bonding joins several internet links into one fast, safe pipe to a server.

  bonding run --config FILE      run the daemon in the foreground
  bonding status                 the bond and its links (--json, --watch, --routes, --prometheus)
  bonding events                 the last state changes
  bonding reload                 take over what changed in the configuration
  bonding link NAME up|down|reconnect
                                 put a link back, take it out, or open it anew
  bonding speedtest              what the bond and each link carry, down and up
  bonding join LINE --wan NAME … set up this router with a line that the server has printed
  bonding server init | add-peer | list | show | remove
                                 be a server, and let routers in
  bonding check FILE             find the mistakes in a configuration
  bonding plan FILE [--stop]     what a start would set up, or a stop remove; does nothing
  bonding options                all options of the configuration (--json)
  bonding import FILE            turn an mlvpn.conf into our configuration
  bonding genkey                 make a private key
  bonding pubkey                 turn a private key (standard input) into its public key
  bonding genpsk                 make a pre-shared key
  bonding rpcd list|call METHOD  OpenWrt: the ubus object `bonding`
  bonding completion bash        print what bash needs to complete all of this
  bonding version

`bonding COMMAND --help` says more. Exit codes: 0 done; 1 failed, or the file has errors;
2 wrong usage, or a file that cannot be read; 3 no daemon answers.
";

/// What a person typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Print this text.
    Help(&'static str),
    /// Print the version.
    Version,
    /// Run the daemon.
    Run {
        /// The configuration.
        config: PathBuf,
        /// Log to the system's log.
        syslog: bool,
        /// How much to log.
        log_level: Option<log::LevelFilter>,
    },
    /// Show the state.
    Status {
        /// The control socket.
        socket: PathBuf,
        /// As the daemon gave it.
        json: bool,
        /// Again every second.
        watch: bool,
    },
    /// Show the addresses, routes and rules that the daemon has set.
    Routes {
        /// The control socket.
        socket: PathBuf,
        /// As the daemon gave it.
        json: bool,
    },
    /// Ask the daemon for something and print its answer.
    Ask {
        /// The control socket.
        socket: PathBuf,
        /// What.
        request: Request,
    },
    /// Check a file.
    Check(PathBuf),
    /// Print what a start would set up.
    Plan {
        /// The configuration.
        file: PathBuf,
        /// What a stop would remove instead.
        stop: bool,
    },
    /// Print the schema.
    Options {
        /// As JSON.
        json: bool,
    },
    /// Import an `mlvpn.conf`.
    Import(PathBuf),
    /// Print the state as figures for Prometheus.
    Metrics {
        /// The control socket.
        socket: PathBuf,
    },
    /// Measure what the bond and its links carry.
    SpeedTest(speedtest::Options),
    /// Set up a router.
    Join(join::Options),
    /// Set up a server, or change who may connect to it.
    Server(server::Invocation),
    /// Help a shell to complete a command line.
    Completion {
        /// The control socket.
        socket: PathBuf,
        /// What is asked for.
        topic: completion::Topic,
    },
    /// Be the process that runs scripts for a daemon.
    RunScripts(PathBuf),
    /// Make a private key.
    GenKey,
    /// Public key of a private key.
    PubKey,
    /// Make a pre-shared key.
    GenPsk,
    /// Tell rpcd the methods (no method), or carry one out.
    Rpcd {
        /// Where things are.
        places: rpcd::Places,
        /// What to carry out.
        method: Option<String>,
    },
}

/// Understands the arguments behind the program's name.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let command = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Invocation::Help(HELP)),
        Some(Short('V') | Long("version")) => return Ok(Invocation::Version),
        Some(Value(command)) => command.string()?,
        Some(other) => return Err(other.unexpected()),
    };
    match command.as_str() {
        "help" => match parser.next()? {
            Some(Value(topic)) => {
                let topic = topic.string()?;
                parse(match topic.as_str() {
                    "help" => vec!["--help".into()],
                    _ => vec![topic.into(), OsString::from("--help")],
                })
            }
            _ => Ok(Invocation::Help(HELP)),
        },
        "version" => no_more(parser, Invocation::Version, "bonding version: print the version\n"),
        "run" => parse_run(parser),
        "status" => parse_status(parser),
        "events" => {
            parse_ask(parser, Request::Events, "bonding events [--socket PATH]: the last 200 state changes\n")
        }
        "reload" => parse_ask(
            parser,
            Request::Reload,
            "bonding reload [--socket PATH]: take over what changed in the configuration; no connection is lost.\nA file with errors is refused whole.\n",
        ),
        "link" => parse_link(parser),
        "check" => parse_file(
            parser,
            Invocation::Check,
            "bonding check FILE: name every mistake in a configuration\n",
        ),
        "plan" => parse_plan(parser),
        "import" => parse_file(
            parser,
            Invocation::Import,
            "bonding import FILE: print the configuration that does what this mlvpn.conf does\n",
        ),
        "options" => parse_options(parser),
        "speedtest" => parse_speedtest(parser),
        "join" => parse_join(parser),
        "server" => Ok(match server::parse(parser)? {
            Ok(invocation) => Invocation::Server(invocation),
            Err(text) => Invocation::Help(text),
        }),
        "genkey" => no_more(parser, Invocation::GenKey, "bonding genkey > FILE: make a private key\n"),
        "pubkey" => {
            no_more(parser, Invocation::PubKey, "bonding pubkey < FILE: the public key of a private key\n")
        }
        "genpsk" => no_more(parser, Invocation::GenPsk, "bonding genpsk: make a pre-shared key\n"),
        "rpcd" => parse_rpcd(parser),
        "completion" => parse_completion(parser),
        runner::SUBCOMMAND => parse_file(parser, Invocation::RunScripts, "for the daemon's own use\n"),
        other => Err(no_command(other)),
    }
}

/// What to type for help with a command line that is wrong.
pub(super) fn help_with(first: Option<&OsStr>) -> String {
    match first.and_then(OsStr::to_str).filter(|word| COMMANDS.contains(word)) {
        Some(command) => format!("bonding {command} --help"),
        None => "bonding --help".to_owned(),
    }
}

fn no_command(word: &str) -> lexopt::Error {
    match nearest(word, COMMANDS) {
        Some(near) => format!("there is no command '{word}'; did you mean '{near}'?").into(),
        None => format!("there is no command '{word}'").into(),
    }
}

fn parse_run(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding run --config FILE [--syslog] [--log-level error|warn|info|debug|trace]

Runs in the foreground until SIGTERM or Ctrl-C, and removes then whatever it has set up. SIGHUP reloads the file.
Needs root, or CAP_NET_ADMIN and CAP_NET_RAW.
";
    let (mut config, mut syslog, mut log_level) = (None, false, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Short('c') | Long("config") => config = Some(PathBuf::from(parser.value()?)),
            Long("syslog") => syslog = true,
            Long("log-level") => log_level = Some(parser.value()?.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    let config = config.ok_or("run: which configuration? Give --config FILE")?;
    Ok(Invocation::Run { config, syslog, log_level })
}

fn parse_status(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding status [--json] [--watch | --routes | --prometheus] [--socket PATH]

Shows the bond and each of its links. --watch shows it again every second, --routes shows the addresses, routes and
rules that the daemon has set, --json prints everything for programs, --prometheus the figures in the text format of
Prometheus.
";
    let (mut socket, mut json, mut watch) = (PathBuf::from(SOCKET), false, false);
    let (mut routes, mut prometheus) = (false, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Long("json") => json = true,
            Short('w') | Long("watch") => watch = true,
            Long("routes") => routes = true,
            Long("prometheus") => prometheus = true,
            Long("socket") => socket = parser.value()?.into(),
            other => return Err(other.unexpected()),
        }
    }
    if prometheus {
        return match json || watch || routes {
            true => Err("status: --prometheus stands alone".into()),
            false => Ok(Invocation::Metrics { socket }),
        };
    }
    match (routes, watch) {
        (true, true) => Err("status: --routes and --watch do not go together".into()),
        (true, false) => Ok(Invocation::Routes { socket, json }),
        (false, _) => Ok(Invocation::Status { socket, json, watch }),
    }
}

fn parse_ask(
    mut parser: lexopt::Parser,
    request: Request,
    help: &'static str,
) -> Result<Invocation, lexopt::Error> {
    let mut socket = PathBuf::from(SOCKET);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(help)),
            Long("socket") => socket = parser.value()?.into(),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Invocation::Ask { socket, request })
}

fn parse_speedtest(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding speedtest [--seconds N] [--bond-only | --link NAME…] [--json] [--socket PATH]

How much one TCP connection carries between this router and its server: down and up, over the bond and over each link
alone. It takes 5 s (--seconds, 30 at most) for each, and fills the lines meanwhile. --json prints a JSON object a line.
";
    let mut options = speedtest::Options { socket: PathBuf::from(SOCKET), ..speedtest::Options::default() };
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Long("socket") => options.socket = parser.value()?.into(),
            Long("json") => options.json = true,
            Long("bond-only") => options.bond_only = true,
            Long("link") => options.links.push(parser.value()?.string()?),
            Long("seconds") => {
                let seconds: u64 = parser.value()?.parse()?;
                if !(1..=MAX_SECONDS).contains(&seconds) {
                    return Err(format!("speedtest: --seconds is 1 to {MAX_SECONDS}").into());
                }
                options.seconds = seconds;
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Invocation::SpeedTest(options))
}

fn parse_link(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding link NAME up|down|reconnect [--socket PATH]

down takes a link out of the bond until `up` or the next restart; reconnect opens its socket anew.
";
    let (mut socket, mut words) = (PathBuf::from(SOCKET), Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Long("socket") => socket = parser.value()?.into(),
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let [name, action] = words.as_slice() else {
        return Err("link: give its name and up, down or reconnect".into());
    };
    let Some(action) = LinkAction::named(action) else {
        return Err(format!("link: '{action}' is not up, down or reconnect").into());
    };
    Ok(Invocation::Ask { socket, request: Request::Link { name: name.clone(), action } })
}

fn parse_join(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding join 'bonding://…' [--wan NAME]… [--device DEV]… [--add NAME] [--config FILE] [--batch | --json]

Sets up this router with the line that `bonding server add-peer` has printed: writes the configuration, and makes the
router's private key where there is none. What the line does not say stays in the file as it is. With --wan the links
are these interfaces (on OpenWrt; elsewhere these devices) and no others. `-` reads the line from standard input, where
other users of this machine do not see it. --add NAME is for the line of another server, which is used when the first
one does not answer. --batch prints the same for `uci batch` and --json for programs; they write nothing.
";
    let (mut line, mut wans) = (None, Vec::new());
    let (mut config, mut output, mut add) = (None, join::Output::Write, None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Long("wan") => wans.push(join::Wan::named(parser.value()?.string()?)),
            Long("device") => wans.push(join::Wan::Device(parser.value()?.string()?)),
            Long("add") => add = Some(parser.value()?.string()?),
            Short('c') | Long("config") => config = Some(PathBuf::from(parser.value()?)),
            Long("batch") => output = join::Output::Batch,
            Long("json") => output = join::Output::Json,
            Value(text) if line.is_none() => line = Some(text.string()?),
            other => return Err(other.unexpected()),
        }
    }
    let line = line.ok_or("join: give the line that `bonding server add-peer` has printed, in quotes")?;
    if add.is_some() && !wans.is_empty() {
        return Err("join: --add changes no links: leave out --wan and --device".into());
    }
    let config = config.unwrap_or_else(join::default_config);
    Ok(Invocation::Join(join::Options { line, wans, add, config, output }))
}

fn parse_rpcd(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding rpcd [--config FILE] [--state FOLDER] list|call METHOD

What OpenWrt's rpcd runs for the ubus object `bonding`: `ubus -v list bonding` names its methods. Arguments are JSON on
standard input, the answer is JSON on standard output.
";
    let (mut places, mut words) = (rpcd::Places::default(), Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Long("config") => places.config = parser.value()?.into(),
            Long("state") => places.state = parser.value()?.into(),
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected()),
        }
    }
    match words.as_slice() {
        [list] if list == "list" => Ok(Invocation::Rpcd { places, method: None }),
        [call, method] if call == "call" => Ok(Invocation::Rpcd { places, method: Some(method.clone()) }),
        _ => Err("rpcd: say list, or call and a method".into()),
    }
}

fn parse_options(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    let mut json = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => {
                return Ok(Invocation::Help("bonding options [--json]: all options of the configuration\n"));
            }
            Long("json") => json = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Invocation::Options { json })
}

fn parse_file(
    mut parser: lexopt::Parser,
    make: fn(PathBuf) -> Invocation,
    help: &'static str,
) -> Result<Invocation, lexopt::Error> {
    let mut file = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(help)),
            // As `run` has it.
            Short('c') | Long("config") if file.is_none() => file = Some(parser.value()?.into()),
            Value(path) if file.is_none() => file = Some(PathBuf::from(path)),
            other => return Err(other.unexpected()),
        }
    }
    file.map(make).ok_or_else(|| "which file?".into())
}

fn parse_plan(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding plan FILE [--stop]

Prints what a start with this configuration would set up now, as far as it is not set up yet; with --stop, what a stop
would remove. Does nothing.
";
    let (mut file, mut stop) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Long("stop") => stop = true,
            Short('c') | Long("config") if file.is_none() => file = Some(parser.value()?.into()),
            Value(path) if file.is_none() => file = Some(PathBuf::from(path)),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Invocation::Plan { file: file.ok_or("plan: which file?")?, stop })
}

fn parse_completion(mut parser: lexopt::Parser) -> Result<Invocation, lexopt::Error> {
    const HELP: &str = "\
bonding completion bash|links|peers [--socket PATH]

bash: prints the script that completes command lines, for /etc/bash_completion.d/bonding.
links, peers: prints the names that the daemon has now.
";
    let (mut socket, mut topic) = (PathBuf::from(SOCKET), None);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(Invocation::Help(HELP)),
            Long("socket") => socket = parser.value()?.into(),
            Value(word) if topic.is_none() => {
                let word = word.string()?;
                let named = completion::Topic::named(&word);
                topic =
                    Some(named.ok_or_else(|| format!("completion: '{word}' is not bash, links or peers"))?);
            }
            other => return Err(other.unexpected()),
        }
    }
    let topic = topic.ok_or("completion: for which shell? There is bash")?;
    Ok(Invocation::Completion { socket, topic })
}

fn no_more(
    mut parser: lexopt::Parser,
    invocation: Invocation,
    help: &'static str,
) -> Result<Invocation, lexopt::Error> {
    match parser.next()? {
        None => Ok(invocation),
        Some(Short('h') | Long("help")) => Ok(Invocation::Help(help)),
        Some(other) => Err(other.unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manual_page_has_every_command() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/bonding.8");
        let page = std::fs::read_to_string(path).unwrap();
        for command in COMMANDS {
            let is_there = page.lines().any(|line| {
                let mut words = line.split([' ', '"', '|', ',']).filter(|word| !word.is_empty());
                line.starts_with(".B") && words.any(|word| word == command)
            });
            assert!(is_there, "docs/man/bonding.8 does not have `{command}`");
        }
    }

    #[test]
    fn commands_are_understood() {
        let socket = || PathBuf::from(SOCKET);
        assert_eq!(typed(""), Ok(Invocation::Help(HELP)));
        assert_eq!(
            typed("run --config=/etc/x --log-level debug"),
            Ok(Invocation::Run {
                config: "/etc/x".into(),
                syslog: false,
                log_level: Some(log::LevelFilter::Debug)
            })
        );
        assert_eq!(
            typed("status -w --socket s"),
            Ok(Invocation::Status { socket: "s".into(), json: false, watch: true })
        );
        let request = Request::Link { name: "adsl1".into(), action: LinkAction::Reconnect };
        assert_eq!(typed("link adsl1 reconnect"), Ok(Invocation::Ask { socket: socket(), request }));
        assert_eq!(typed("status --routes --json"), Ok(Invocation::Routes { socket: socket(), json: true }));
        for line in ["check f", "check --config f", "check -c f"] {
            assert_eq!(typed(line), Ok(Invocation::Check("f".into())), "{line}");
        }
        let plan = Invocation::Plan { file: "f".into(), stop: true };
        assert_eq!(typed("plan --config f --stop"), Ok(plan));
    }

    #[test]
    fn every_command_has_its_own_help() {
        for command in COMMANDS.into_iter().filter(|command| *command != "help") {
            let Ok(Invocation::Help(text)) = typed(&format!("{command} --help")) else { panic!("{command}") };
            assert!(text.starts_with(&format!("bonding {command}")), "{command}: {text}");
            assert_eq!(typed(&format!("help {command}")), Ok(Invocation::Help(text)));
            assert!(HELP.contains(&format!("\n  bonding {command}")), "{command} is not in the list");
        }
        assert_eq!(typed("help"), Ok(Invocation::Help(HELP)));
        assert_eq!(typed("help help"), Ok(Invocation::Help(HELP)));
    }

    #[test]
    fn a_mistake_leads_to_the_help_of_its_command() {
        assert_eq!(help_with(Some(OsStr::new("check"))), "bonding check --help");
        for first in [None, Some(OsStr::new("dance")), Some(OsStr::new("--verbose"))] {
            assert_eq!(help_with(first), "bonding --help");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("dance", "there is no command 'dance'"),
            ("stauts", "did you mean 'status'?"),
            ("help dance", "there is no command 'dance'"),
            ("genkey x", "x"),
            ("run", "--config"),
            ("run --config", "missing argument"),
            ("run -c f --log-level loud", "loud"),
            ("status --jsn", "--jsn"),
            ("status --watch --routes", "do not go together"),
            ("status --watch --prometheus", "stands alone"),
            ("link adsl1", "give its name"),
            ("link adsl1 sideways", "'sideways'"),
            ("check", "which file"),
            ("check a b", "b"),
            ("check a --config b", "--config"),
        ] {
            let error = typed(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
