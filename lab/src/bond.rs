//! The daemon under test at both ends of a network, started from UCI files as a user would.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::directory::Directory;
use crate::namespace::{Namespace, Process};
use crate::topology::{Family, Topology, WanLine};

/// How long a command of the program may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// How long the daemon may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long a bond may take to come up.
const UP_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a state that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Inside addresses of the two ends.
pub const CLIENT_V4: &str = "10.77.0.2";
/// The server's.
pub const SERVER_V4: &str = "10.77.0.1";

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The router.
    Client,
    /// The server.
    Server,
}

/// A bond over the lines of a network: files, keys, and the two daemons.
pub struct Bond {
    program: PathBuf,
    directory: Directory,
    ends: [EndState; 2],
}

struct EndState {
    namespace: Namespace,
    config: PathBuf,
    socket: PathBuf,
    process: Option<Process>,
}

/// What a bond is set to.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program under test.
    pub program: PathBuf,
    /// Policy of the client.
    pub policy: String,
    /// Further lines of the client's `globals` section, as `option 'value'` pairs.
    pub client_globals: Vec<(String, String)>,
    /// The same of the server's.
    pub server_globals: Vec<(String, String)>,
    /// Further lines of the client's `bond` section.
    pub bond: Vec<(String, String)>,
    /// The same of the server's.
    pub server_bond: Vec<(String, String)>,
    /// Further lines of every link.
    pub link: Vec<(String, String)>,
    /// Whether the ends share a pre-shared key.
    pub preshared: bool,
}

impl Setup {
    /// The defaults of a user who sets nothing but what must be set.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Setup {
            program: program.into(),
            policy: "adaptive".into(),
            client_globals: Vec::new(),
            server_globals: Vec::new(),
            bond: Vec::new(),
            server_bond: Vec::new(),
            link: Vec::new(),
            preshared: false,
        }
    }

    /// With another policy.
    pub fn policy(mut self, policy: &str) -> Self {
        self.policy = policy.into();
        self
    }

    /// With an option in the `globals` section of both ends.
    pub fn global(mut self, option: &str, value: &str) -> Self {
        self.client_globals.push((option.into(), value.into()));
        self.server_globals.push((option.into(), value.into()));
        self
    }

    /// With an option in the `bond` section of both ends.
    pub fn both_bonds(mut self, option: &str, value: &str) -> Self {
        self.bond.push((option.into(), value.into()));
        self.server_bond.push((option.into(), value.into()));
        self
    }
}

impl Bond {
    /// Writes keys and configurations for the lines of `network`; starts nothing yet.
    ///
    /// # Errors
    ///
    /// When a file cannot be written or the program fails to make keys.
    pub fn prepare(network: &Topology, setup: &Setup) -> io::Result<Bond> {
        let bond = Bond::bare(network, setup)?;
        let client_key = bond.make_key("client")?;
        let server_key = bond.make_key("server")?;
        let preshared =
            if setup.preshared { Some(bond.output(&["genpsk"])?.trim().to_owned()) } else { None };
        bond.write_client(network, setup, &server_key, preshared.as_deref())?;
        bond.write_server(setup, &client_key, preshared.as_deref())?;
        Ok(bond)
    }

    /// Two ends without keys and configurations: a test has them made.
    ///
    /// # Errors
    ///
    /// When the directory for their files cannot be made.
    pub fn bare(network: &Topology, setup: &Setup) -> io::Result<Bond> {
        let directory = Directory::new("bonding-lab")?;
        let end = |namespace: &Namespace, name: &str| EndState {
            namespace: namespace.clone(),
            config: directory.path(&format!("{name}.conf")),
            socket: directory.path(&format!("{name}.sock")),
            process: None,
        };
        let ends = [end(&network.router, "client"), end(&network.server, "server")];
        Ok(Bond { program: setup.program.clone(), directory, ends })
    }

    /// As [`Bond::prepare`], and both daemons run and every link is up.
    ///
    /// # Errors
    ///
    /// When the bond does not come up within half a minute; the message has the daemons' output.
    pub fn start(network: &Topology, setup: &Setup) -> io::Result<Bond> {
        let mut bond = Bond::prepare(network, setup)?;
        bond.launch(End::Server)?;
        bond.launch(End::Client)?;
        bond.wait_until_up(network.lines.len(), UP_LIMIT)?;
        Ok(bond)
    }

    /// Starts the daemon of one end.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn launch(&mut self, end: End) -> io::Result<()> {
        let program = self.program.clone();
        let state = &mut self.ends[end as usize];
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(&state.config).args(["--log-level", "debug"]);
        let process = state.namespace.spawn(command)?;
        process.prefer();
        state.process = Some(process);
        Ok(())
    }

    /// The daemon of one end.
    ///
    /// # Panics
    ///
    /// When it was not started.
    pub fn process(&mut self, end: End) -> &mut Process {
        self.ends[end as usize].process.as_mut().expect("the daemon was started")
    }

    /// Stops the daemon of one end, if it runs.
    ///
    /// # Errors
    ///
    /// When it does not stop in time.
    pub fn halt(&mut self, end: End) -> io::Result<()> {
        match self.ends[end as usize].process.take() {
            Some(process) => process.terminate(STOP_LIMIT).map(drop),
            None => Ok(()),
        }
    }

    /// The configuration file of one end, to be changed by a test.
    pub fn config(&self, end: End) -> &Path {
        &self.ends[end as usize].config
    }

    /// The control socket of one end.
    pub fn socket(&self, end: End) -> &Path {
        &self.ends[end as usize].socket
    }

    /// Runs a command of the program against one end's daemon and gives its output.
    ///
    /// # Errors
    ///
    /// When it fails; the message has the output.
    pub fn command(&self, end: End, arguments: &[&str]) -> io::Result<String> {
        let socket = self.socket(end).to_string_lossy().into_owned();
        self.execute(end, &[arguments, &["--socket", &socket]].concat())
    }

    /// Runs the program at one end and gives its output.
    ///
    /// # Errors
    ///
    /// When it fails; the message has the output.
    pub fn execute(&self, end: End, arguments: &[&str]) -> io::Result<String> {
        let state = &self.ends[end as usize];
        let mut command = Command::new(&self.program);
        // It finds no other program: `server init` would open the firewall of the machine that runs the test.
        command.args(arguments).env("PATH", "/nonexistent");
        let finished = state.namespace.execute(command, COMMAND_LIMIT)?;
        let output = finished.output.join("\n");
        if finished.status.success() { Ok(output) } else { Err(io::Error::other(output)) }
    }

    /// What `bonding status --json` says at one end.
    ///
    /// # Errors
    ///
    /// When no daemon answers.
    pub fn status(&self, end: End) -> io::Result<Value> {
        Ok(serde_json::from_str(&self.command(end, &["status", "--json"])?)?)
    }

    /// Waits until `condition` holds for the status of one end.
    ///
    /// # Errors
    ///
    /// `TimedOut`, with the last status and the daemon's output.
    pub fn wait_for(
        &self,
        end: End,
        limit: Duration,
        condition: impl Fn(&Value) -> bool,
    ) -> io::Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status(end);
            if let Ok(status) = &status
                && condition(status)
            {
                return Ok(status.clone());
            }
            if Instant::now() >= deadline {
                let mut message = format!("not within {limit:?}; last status: {status:?}\n");
                for state in &self.ends {
                    let output = state.process.as_ref().map(Process::output).unwrap_or_default();
                    let _ = writeln!(message, "-- {}:\n{}", state.config.display(), output.join("\n"));
                }
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until both ends see this many links up.
    ///
    /// # Errors
    ///
    /// As [`Bond::wait_for`].
    pub fn wait_until_up(&self, links: usize, limit: Duration) -> io::Result<()> {
        for end in [End::Client, End::Server] {
            self.wait_for(end, limit, |status| links_in_state(status, "up") == links)?;
        }
        Ok(())
    }

    /// Stops both daemons and gives their output, the client's first.
    ///
    /// # Errors
    ///
    /// When one does not stop in time.
    pub fn stop(&mut self) -> io::Result<Vec<Vec<String>>> {
        let mut outputs = Vec::new();
        for state in &mut self.ends {
            if let Some(process) = state.process.take() {
                outputs.push(process.terminate(STOP_LIMIT)?.output);
            }
        }
        Ok(outputs)
    }

    fn make_key(&self, name: &str) -> io::Result<String> {
        let private = self.output(&["genkey"])?;
        let path = self.directory.write(&format!("{name}.key"), &private)?;
        let public = Command::new(&self.program).arg("pubkey").stdin(fs::File::open(&path)?).output()?;
        String::from_utf8(public.stdout).map(|text| text.trim().to_owned()).map_err(io::Error::other)
    }

    fn output(&self, arguments: &[&str]) -> io::Result<String> {
        let output = Command::new(&self.program).args(arguments).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!(
                "{arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        String::from_utf8(output.stdout).map_err(io::Error::other)
    }

    fn globals(&self, end: End, name: &str, further: &[(String, String)]) -> String {
        let mut text = String::from("config globals 'globals'\n\toption enabled '1'\n");
        let _ = writeln!(
            text,
            "\toption private_key_file '{}'",
            self.directory.path(&format!("{name}.key")).display()
        );
        let _ = writeln!(text, "\toption control_socket '{}'", self.ends[end as usize].socket.display());
        if end == End::Client {
            let _ = writeln!(text, "\toption state_dir '{}'", self.directory.as_path().display());
        }
        options(&mut text, further);
        text
    }

    fn write_client(
        &self,
        network: &Topology,
        setup: &Setup,
        server_key: &str,
        preshared: Option<&str>,
    ) -> io::Result<()> {
        let mut text = self.globals(End::Client, "client", &setup.client_globals);
        let server = match network.plan.family {
            Family::V6 => Topology::SERVER_V6,
            _ => Topology::SERVER_V4,
        };
        let _ = writeln!(
            text,
            "\nconfig interface 'bond'\n\toption ifname 'bond0'\n\toption ipaddr '{CLIENT_V4}'\n\toption netmask '255.255.255.0'\n\tlist ip6addr 'fd77::2/64'\n\toption remote_ipaddr '{SERVER_V4}'\n\toption server '{server}'\n\toption public_key '{server_key}'\n\toption default_route '1'\n\toption policy '{}'",
            setup.policy
        );
        if let Some(key) = preshared {
            let _ = writeln!(text, "\toption preshared_key '{key}'");
        }
        options(&mut text, &setup.bond);
        for line in &network.lines {
            text.push_str(&link_section(line, network.plan.family));
            options(&mut text, &setup.link);
        }
        write_private(&self.ends[0].config, &text)
    }

    fn write_server(&self, setup: &Setup, client_key: &str, preshared: Option<&str>) -> io::Result<()> {
        let mut text = self.globals(End::Server, "server", &setup.server_globals);
        let _ = writeln!(
            text,
            "\nconfig interface 'bond'\n\toption ifname 'bond0'\n\toption ipaddr '{SERVER_V4}'\n\toption netmask '255.255.255.0'\n\tlist ip6addr 'fd77::1/64'"
        );
        options(&mut text, &setup.server_bond);
        let _ = writeln!(
            text,
            "\nconfig peer 'home'\n\toption public_key '{client_key}'\n\tlist ipaddr '{CLIENT_V4}/32'\n\tlist ipaddr 'fd77::2/128'\n\tlist lan '192.168.1.0/24'\n\tlist lan 'fd00:a::/64'"
        );
        if let Some(key) = preshared {
            let _ = writeln!(text, "\toption preshared_key '{key}'");
        }
        write_private(&self.ends[1].config, &text)
    }
}

impl Drop for Bond {
    fn drop(&mut self) {
        for state in &mut self.ends {
            state.process = None;
        }
    }
}

/// The `config link` section of a line.
pub fn link_section(line: &WanLine, family: Family) -> String {
    let mut text = format!("\nconfig link 'line{}'\n\toption device '{}'\n", line.number, line.device);
    let mut add = |option: &str, value: Option<IpAddr>, length: &str| {
        if let Some(value) = value {
            let _ = writeln!(text, "\toption {option} '{value}{length}'");
        }
    };
    if family != Family::V6 {
        add("ipaddr", line.address_v4(), "/24");
        add("gateway", line.gateway_v4(), "");
    }
    if family == Family::V6 {
        add("ip6addr", line.address_v6(), "/64");
        add("ip6gateway", line.gateway_v6(), "");
    }
    text
}

/// How many links of a status are in a state.
pub fn links_in_state(status: &Value, state: &str) -> usize {
    let peers = status["endpoint"]["peers"].as_array().into_iter().flatten();
    let links = peers.flat_map(|peer| peer["links"].as_array().into_iter().flatten());
    links.filter(|link| link["state"] == state).count()
}

fn options(text: &mut String, further: &[(String, String)]) {
    for (option, value) in further {
        let _ = writeln!(text, "\toption {option} '{value}'");
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes())
}
