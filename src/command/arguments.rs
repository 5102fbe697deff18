//! What a person may type, and its help.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::prelude::*;

use super::given::{Given, Takes};
use super::{completion, installed, join, rpcd, server, speedtest};
use crate::config::spelling::nearest;
use crate::daemon::control::{Command as Request, LinkAction};
use crate::daemon::runner;
use crate::daemon::speedtest::MAX_SECONDS;

/// The control socket where nothing else is said.
pub(super) const SOCKET: &str = "/var/run/bonding.sock";

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

/// A command: what stands behind it, and what it becomes.
struct Command {
    name: &'static str,
    takes: Takes,
    help: &'static str,
    make: fn(&Given) -> Result<Invocation, lexopt::Error>,
}

const NOTHING: Takes = Takes { flags: &[], values: &[], words: 0 };
const SOCKET_ONLY: Takes = Takes { values: &["socket"], ..NOTHING };
const FILE: Takes = Takes { values: &["config"], words: 1, ..NOTHING };

const COMMANDS: [Command; 17] = [
    Command {
        name: "run",
        takes: Takes { flags: &["syslog"], values: &["config", "log-level"], words: 0 },
        help: "\
bonding run --config FILE [--syslog] [--log-level error|warn|info|debug|trace]

Runs in the foreground until SIGTERM or Ctrl-C, and removes then whatever it has set up. SIGHUP reloads the file.
Needs root, or CAP_NET_ADMIN and CAP_NET_RAW.
",
        make: |given| {
            Ok(Invocation::Run {
                config: given.path("config").ok_or("run: which configuration? Give --config FILE")?,
                syslog: given.has("syslog"),
                log_level: given.value("log-level").map(|level| level.parse()).transpose()?,
            })
        },
    },
    Command {
        name: "status",
        takes: Takes { flags: &["json", "watch", "routes", "prometheus"], ..SOCKET_ONLY },
        help: "\
bonding status [--json] [--watch | --routes | --prometheus] [--socket PATH]

Shows the bond and each of its links. --watch shows it again every second, --routes shows the addresses, routes and
rules that the daemon has set, --json prints everything for programs, --prometheus the figures in the text format of
Prometheus.
",
        make: status,
    },
    Command {
        name: "events",
        takes: SOCKET_ONLY,
        help: "bonding events [--socket PATH]: the last 200 state changes\n",
        make: |given| Ok(Invocation::Ask { socket: socket(given), request: Request::Events }),
    },
    Command {
        name: "reload",
        takes: SOCKET_ONLY,
        help: "\
bonding reload [--socket PATH]: take over what changed in the configuration; no connection is lost.
A file with errors is refused whole.
",
        make: |given| Ok(Invocation::Ask { socket: socket(given), request: Request::Reload }),
    },
    Command {
        name: "link",
        takes: Takes { words: 2, ..SOCKET_ONLY },
        help: "\
bonding link NAME up|down|reconnect [--socket PATH]

down takes a link out of the bond until `up` or the next restart; reconnect opens its socket anew.
",
        make: link,
    },
    Command {
        name: "check",
        takes: FILE,
        help: "bonding check FILE: name every mistake in a configuration\n",
        make: |given| given.file().map(Invocation::Check),
    },
    Command {
        name: "plan",
        takes: Takes { flags: &["stop"], ..FILE },
        help: "\
bonding plan FILE [--stop]

Prints what a start with this configuration would set up now, as far as it is not set up yet; with --stop, what a stop
would remove. Does nothing.
",
        make: |given| Ok(Invocation::Plan { file: given.file()?, stop: given.has("stop") }),
    },
    Command {
        name: "options",
        takes: Takes { flags: &["json"], ..NOTHING },
        help: "bonding options [--json]: all options of the configuration\n",
        make: |given| Ok(Invocation::Options { json: given.has("json") }),
    },
    Command {
        name: "import",
        takes: FILE,
        help: "bonding import FILE: print the configuration that does what this mlvpn.conf does\n",
        make: |given| given.file().map(Invocation::Import),
    },
    Command {
        name: "join",
        takes: Takes { flags: &["batch", "json"], values: &["wan", "device", "add", "config"], words: 1 },
        help: "\
bonding join 'bonding://…' [--wan NAME]… [--device DEV]… [--add NAME] [--config FILE] [--batch | --json]

Sets up this router with the line that `bonding server add-peer` has printed: writes the configuration, and makes the
router's private key where there is none. What the line does not say stays in the file as it is. With --wan the links
are these interfaces (on OpenWrt; elsewhere these devices) and no others. `-` reads the line from standard input, where
other users of this machine do not see it. --add NAME is for the line of another server, which is used when the first
one does not answer. --batch prints the same for `uci batch` and --json for programs; they write nothing.
",
        make: join,
    },
    Command {
        name: "speedtest",
        takes: Takes { flags: &["json", "bond-only"], values: &["socket", "link", "seconds"], words: 0 },
        help: "\
bonding speedtest [--seconds N] [--bond-only | --link NAME…] [--json] [--socket PATH]

How much one TCP connection carries between this router and its server: down and up, over the bond and over each link
alone. It takes 5 s (--seconds, 30 at most) for each, and fills the lines meanwhile. --json prints a JSON object a line.
",
        make: speedtest,
    },
    Command {
        name: "genkey",
        takes: NOTHING,
        help: "bonding genkey > FILE: make a private key\n",
        make: |_| Ok(Invocation::GenKey),
    },
    Command {
        name: "pubkey",
        takes: NOTHING,
        help: "bonding pubkey < FILE: the public key of a private key\n",
        make: |_| Ok(Invocation::PubKey),
    },
    Command {
        name: "genpsk",
        takes: NOTHING,
        help: "bonding genpsk: make a pre-shared key\n",
        make: |_| Ok(Invocation::GenPsk),
    },
    Command {
        name: "rpcd",
        takes: Takes { values: &["config", "state"], words: 2, ..NOTHING },
        help: "\
bonding rpcd [--config FILE] [--state FOLDER] list|call METHOD

What OpenWrt's rpcd runs for the ubus object `bonding`: `ubus -v list bonding` names its methods. Arguments are JSON on
standard input, the answer is JSON on standard output.
",
        make: rpcd,
    },
    Command {
        name: "completion",
        takes: Takes { words: 1, ..SOCKET_ONLY },
        help: "\
bonding completion bash|links|peers [--socket PATH]

bash: prints the script that completes command lines, for /etc/bash_completion.d/bonding.
links, peers: prints the names that the daemon has now.
",
        make: completion,
    },
    Command {
        name: "version",
        takes: NOTHING,
        help: "bonding version: print the version\n",
        make: |_| Ok(Invocation::Version),
    },
];

/// The names of all commands.
pub(super) fn names() -> Vec<&'static str> {
    let mut names = vec!["server", "help"];
    names.extend(COMMANDS.iter().map(|command| command.name));
    names
}

/// Understands the arguments behind the program's name.
pub(super) fn parse(arguments: Vec<OsString>) -> Result<Invocation, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let name = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Invocation::Help(HELP)),
        Some(Short('V') | Long("version")) => return Ok(Invocation::Version),
        Some(Value(command)) => command.string()?,
        Some(other) => return Err(other.unexpected()),
    };
    match name.as_str() {
        "help" => match parser.next()? {
            Some(Value(topic)) if topic != "help" => parse(vec![topic, "--help".into()]),
            _ => Ok(Invocation::Help(HELP)),
        },
        "server" => Ok(match server::parse(&mut parser)? {
            Ok(invocation) => Invocation::Server(invocation),
            Err(text) => Invocation::Help(text),
        }),
        runner::SUBCOMMAND => match FILE.read(&mut parser)? {
            Some(given) => given.file().map(Invocation::RunScripts),
            None => Ok(Invocation::Help("for the daemon's own use\n")),
        },
        _ => {
            let command = COMMANDS.iter().find(|command| command.name == name);
            let command = command.ok_or_else(|| no_command(&name))?;
            match command.takes.read(&mut parser)? {
                Some(given) => (command.make)(&given),
                None => Ok(Invocation::Help(command.help)),
            }
        }
    }
}

/// What to type for help with a command line that is wrong.
pub(super) fn help_with(first: Option<&OsStr>) -> String {
    match first.and_then(OsStr::to_str).filter(|word| names().contains(word)) {
        Some(command) => format!("bonding {command} --help"),
        None => "bonding --help".to_owned(),
    }
}

fn no_command(word: &str) -> lexopt::Error {
    match nearest(word, names()) {
        Some(near) => format!("there is no command '{word}'; did you mean '{near}'?").into(),
        None => format!("there is no command '{word}'").into(),
    }
}

fn socket(given: &Given) -> PathBuf {
    given.path("socket").unwrap_or_else(|| PathBuf::from(SOCKET))
}

fn status(given: &Given) -> Result<Invocation, lexopt::Error> {
    let (socket, json, watch) = (socket(given), given.has("json"), given.has("watch"));
    match (given.has("prometheus"), given.has("routes"), watch) {
        (true, false, false) if !json => Ok(Invocation::Metrics { socket }),
        (true, ..) => Err("status: --prometheus stands alone".into()),
        (_, true, true) => Err("status: --routes and --watch do not go together".into()),
        (_, true, false) => Ok(Invocation::Routes { socket, json }),
        (_, false, _) => Ok(Invocation::Status { socket, json, watch }),
    }
}

fn link(given: &Given) -> Result<Invocation, lexopt::Error> {
    let words = given.words()?;
    let [name, action] = words.as_slice() else {
        return Err("link: give its name and up, down or reconnect".into());
    };
    let Some(action) = LinkAction::named(action) else {
        return Err(format!("link: '{action}' is not up, down or reconnect").into());
    };
    Ok(Invocation::Ask { socket: socket(given), request: Request::Link { name: name.clone(), action } })
}

fn join(given: &Given) -> Result<Invocation, lexopt::Error> {
    let Some(line) = given.words()?.pop() else {
        return Err("join: give the line that `bonding server add-peer` has printed, in quotes".into());
    };
    let mut wans = Vec::new();
    for (option, value) in &given.values {
        match *option {
            "wan" => wans.push(join::Wan::named(value.clone().string()?)),
            "device" => wans.push(join::Wan::Device(value.clone().string()?)),
            _ => {}
        }
    }
    let add = given.value("add").map(ValueExt::string).transpose()?;
    if add.is_some() && !wans.is_empty() {
        return Err("join: --add changes no links: leave out --wan and --device".into());
    }
    let output = match (given.has("batch"), given.has("json")) {
        (_, true) => join::Output::Json,
        (true, false) => join::Output::Batch,
        (false, false) => join::Output::Write,
    };
    let config = given.path("config").unwrap_or_else(installed::default_config);
    Ok(Invocation::Join(join::Options { line, wans, add, config, output }))
}

fn speedtest(given: &Given) -> Result<Invocation, lexopt::Error> {
    let mut options = speedtest::Options {
        socket: socket(given),
        json: given.has("json"),
        bond_only: given.has("bond-only"),
        links: given.texts("link")?,
        ..speedtest::Options::default()
    };
    if let Some(seconds) = given.value("seconds") {
        options.seconds = seconds.parse()?;
        if !(1..=MAX_SECONDS).contains(&options.seconds) {
            return Err(format!("speedtest: --seconds is 1 to {MAX_SECONDS}").into());
        }
    }
    Ok(Invocation::SpeedTest(options))
}

fn rpcd(given: &Given) -> Result<Invocation, lexopt::Error> {
    let default = rpcd::Places::default();
    let places = rpcd::Places {
        config: given.path("config").unwrap_or(default.config),
        state: given.path("state").unwrap_or(default.state),
    };
    let words = given.words()?;
    match words.as_slice() {
        [list] if list == "list" => Ok(Invocation::Rpcd { places, method: None }),
        [call, method] if call == "call" => Ok(Invocation::Rpcd { places, method: Some(method.clone()) }),
        _ => Err("rpcd: say list, or call and a method".into()),
    }
}

fn completion(given: &Given) -> Result<Invocation, lexopt::Error> {
    let Some(word) = given.words()?.pop() else {
        return Err("completion: for which shell? There is bash".into());
    };
    match completion::Topic::named(&word) {
        Some(topic) => Ok(Invocation::Completion { socket: socket(given), topic }),
        None => Err(format!("completion: '{word}' is not bash, links or peers").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_manual_page_has_every_command() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/man/bonding.8");
        let page = std::fs::read_to_string(path).unwrap();
        for command in names() {
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
        for command in names().into_iter().filter(|command| *command != "help") {
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
