//! A router with two servers.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::becomes;
use lab::bond::{End, links_in_state};
use lab::namespace::{Namespace, Process};
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::Echo;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::network;
use crate::server::Server;

const LIMIT: Duration = Duration::from_secs(30);
/// The options of the test, and what it grants on top for starting processes and noticing.
const TIMEOUT: Duration = Duration::from_secs(4);
const RETURN: Duration = Duration::from_secs(3);
const MARGIN: Duration = Duration::from_secs(20);

/// The second server: on the host that is otherwise the internet.
struct Second {
    host: Namespace,
    config: String,
}

impl Second {
    fn new(network: &Topology, first: &Server) -> Second {
        let directory = first.bond.config(End::Server).with_file_name("second");
        let socket = directory.join("second.sock");
        let config = directory.join("second.conf");
        let second = Second { host: network.inet.clone(), config: config.to_string_lossy().into_owned() };
        let address = Topology::INET_V4.to_string();
        second.run(&["server", "init", "--no-start", "--pool", "10.88.0.1/24", "--address", &address]);
        let text = fs::read_to_string(&config).expect("the file");
        let role = "option role 'server'\n";
        let own = format!("{role}\toption control_socket '{}'\n", socket.display());
        fs::write(&config, text.replacen(role, &own, 1)).expect("the file");
        second
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bonding"));
        // The firewall of the machine is none of our business.
        command.args(arguments).args(["--config", &self.config]).env("PATH", "/nonexistent");
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let finished = self.host.execute(self.command(arguments), LIMIT).expect("it runs");
        let output = finished.output.join("\n");
        assert!(finished.status.success(), "{output}");
        output
    }

    fn start(&self) -> Process {
        self.host.spawn(self.command(&["run"])).expect("the second server starts")
    }
}

fn in_use(status: &Value) -> Option<&str> {
    let servers = status["servers"].as_array()?;
    servers.iter().find(|server| server["in_use"] == true)?["name"].as_str()
}

fn is_at(status: &Value, name: &str) -> bool {
    in_use(status) == Some(name) && links_in_state(status, "up") == 2
}

#[test]
fn the_next_server_takes_over_and_gives_back() {
    let Some(network) = network("two servers", Plan::new(Scenario::sym2())) else { return };
    let mut first = Server::start(&network);
    let config = first.router_file("client");
    first.join(&first.add_peer(&["home", "--lan", "192.168.1.0/24"]), &config).expect("the router joins");
    let second = Second::new(&network, &first);
    let _running = second.start();
    let told = second.run(&["server", "add-peer", "home", "--lan", "192.168.1.0/24"]);
    let line = told.lines().find(|line| line.starts_with("bonding://")).expect("a line");
    let join = ["join", line, "--add", "second", "--config", &config];
    first.bond.execute(End::Client, &join).expect("the second server is added");
    let text = fs::read_to_string(&config).expect("the file");
    let bond = "config interface 'bond'\n";
    assert!(text.contains(bond), "{text}");
    let times = format!(
        "{bond}\toption server_timeout '{}'\n\toption server_return '{}'\n",
        TIMEOUT.as_secs(),
        RETURN.as_secs()
    );
    fs::write(&config, text.replacen(bond, &times, 1)).expect("the file");

    first.bond.launch(End::Client).expect("the router starts");
    let wait = |server: &Server, limit, condition: &dyn Fn(&Value) -> bool| {
        server.bond.wait_for(End::Client, limit, condition).expect("the router says so")
    };
    wait(&first, LIMIT, &|status| is_at(status, "bond"));
    // The second has let the router in although nobody needs it yet, and is left in peace then.
    let status = wait(&first, LIMIT, &|status| status["servers"][1]["heard_ms"].is_u64());
    assert_eq!(status["endpoint"]["peers"].as_array().map(Vec::len), Some(1), "one server is in use");
    let reaches = |to: &str| {
        let to: IpAddr = to.parse().expect("an address");
        becomes(|| {
            let report = Echo::new(&network.lan, to).count(10).interval(Duration::from_millis(30)).ping();
            report.is_ok_and(|report| report.lost() == 0)
        })
    };
    assert!(reaches("10.77.0.1"), "the LAN reaches the first server inside the bond");

    let begin = Instant::now();
    first.bond.process(End::Server).signal(Signal::SIGKILL).expect("it runs");
    wait(&first, TIMEOUT + MARGIN, &|status| is_at(status, "second"));
    println!("at the second server after {:?}", begin.elapsed());
    assert!(begin.elapsed() >= TIMEOUT, "not before its time");
    assert!(reaches("10.88.0.1"), "the LAN reaches the second server inside the bond");
    wait(&first, LIMIT, &|status| status["servers"][0]["answers"] == false);
    let text = first.bond.command(End::Client, &["status"]).expect("a status");
    assert!(text.contains("server second: in use for"), "{text}");
    assert!(text.contains("server bond: on standby, silent; it answered"), "{text}");

    first.bond.process(End::Server).wait(LIMIT).expect("our child").expect("it ends");
    let begin = Instant::now();
    first.bond.launch(End::Server).expect("the first server starts");
    let status = wait(&first, RETURN + MARGIN, &|status| is_at(status, "bond"));
    println!("back after {:?}", begin.elapsed());
    assert!(begin.elapsed() >= RETURN, "not before its time: {status}");
    assert!(reaches("10.77.0.1"));
    // It has said goodbye: nobody waits for it there.
    let listed = second.run(&["server", "list"]);
    assert!(listed.lines().any(|row| row.starts_with("home") && !row.contains("up for")), "{listed}");
    let events = first.bond.command(End::Client, &["events"]).expect("events");
    assert!(events.contains("left: for 'second': 'bond' has been silent"), "{events}");
    assert!(events.contains("left: for 'bond': it has answered"), "{events}");
}
