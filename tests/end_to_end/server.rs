//! A server in one command, and a router let in with one line.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::bond::{Bond, End, links_in_state};
use lab::directory::Directory;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::{Echo, EchoReport};
use serde_json::Value;

use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);

/// A server as `bonding server` sets it up, whose control socket is the test's.
pub struct Server {
    pub bond: Bond,
    config: String,
}

impl Server {
    /// Sets up, and starts.
    pub fn start(network: &Topology) -> Server {
        let bond = Bond::bare(network, &setup()).expect("a directory");
        let config = bond.config(End::Server).to_string_lossy().into_owned();
        let mut server = Server { bond, config };
        let told = server.run(&["init", "--no-start", "--pool", "10.77.0.1/24", "--pool", "fd77::1/64"]);
        let told = told.expect("the server is set up");
        assert!(told.contains("203.0.113.1") && told.contains("(made)"), "{told}");
        let text = fs::read_to_string(&server.config).expect("the file");
        let socket = server.bond.socket(End::Server).display();
        let role = "option role 'server'\n";
        let text = text.replacen(role, &format!("{role}\toption control_socket '{socket}'\n"), 1);
        fs::write(&server.config, text).expect("the file");
        server.bond.launch(End::Server).expect("the server starts");
        server.bond.wait_for(End::Server, LIMIT, |_| true).expect("it answers");
        server
    }

    /// `bonding server …`.
    pub fn run(&self, arguments: &[&str]) -> std::io::Result<String> {
        self.bond.execute(End::Server, &[&["server"], arguments, &["--config", &self.config]].concat())
    }

    /// Lets a router in; its line.
    pub fn add_peer(&self, arguments: &[&str]) -> String {
        let told = self.run(&[&["add-peer"], arguments].concat()).expect("the peer is let in");
        assert!(told.contains("has taken it over"), "{told}");
        told.lines().find(|line| line.starts_with("bonding://")).expect("a line").to_owned()
    }

    /// The file of a router that has been told nothing but where its socket and its key are.
    pub fn router_file(&self, name: &str) -> String {
        let directory = Path::new(&self.config).parent().expect("a directory");
        let config = directory.join(format!("{name}.conf"));
        let text = format!(
            "config globals\n\toption control_socket '{0}/{name}.sock'\n\toption private_key_file '{0}/{name}.key'\n",
            directory.display()
        );
        fs::write(&config, text).expect("the file");
        config.to_string_lossy().into_owned()
    }

    /// `bonding join` at the router.
    pub fn join(&self, line: &str, config: &str) -> std::io::Result<String> {
        self.bond.execute(End::Client, &["join", line, "--wan", "wan1", "--wan", "wan2", "--config", config])
    }
}

pub fn drops(status: &Value, reason: &str) -> u64 {
    status["endpoint"]["drops"][reason].as_u64().unwrap_or(0)
}

#[test]
fn a_router_joins_with_one_line_and_others_come_and_go() {
    let Some(network) = network("join", Plan::new(Scenario::sym2())) else { return };
    let mut server = Server::start(&network);
    let line = server.add_peer(&["home", "--lan", "192.168.1.0/24", "--lan", "fd00:a::/64"]);
    let config = server.router_file("client");
    let told = server.join(&line, &config).expect("the router joins");
    assert!(told.contains("links: wan1 wan2"), "{told}");
    server.bond.launch(End::Client).expect("the router starts");
    server.bond.wait_until_up(2, LIMIT).expect("the router is let in by its line");
    let file = fs::read_to_string(&server.config).expect("the file");
    assert!(file.contains("option public_key") && !file.contains("invitation_expires"), "{file}");
    let list = server.run(&["list"]).expect("a list");
    assert!(list.lines().any(|row| row.starts_with("home") && row.contains("up for")), "{list}");

    // The LAN reaches the world, and nothing is lost while other peers come and go.
    reached(|| {
        let pinging = std::thread::scope(|scope| {
            let pings = [Topology::INET_V4, Topology::INET_V6].map(|to| {
                let echo = Echo::new(&network.lan, to).count(60).interval(Duration::from_millis(30));
                scope.spawn(move || echo.ping().expect("pings"))
            });
            let office = server.add_peer(&["office", "--lan", "192.168.2.0/24"]);
            assert_ne!(office, line);
            server.run(&["add-peer", "office", "--renew"]).expect("a new line");
            server.run(&["remove", "office"]).expect("the peer is removed");
            pings.map(|ping| ping.join().expect("no panic"))
        });
        let kept = |report: &EchoReport| (report.sent, report.lost()) == (60, 0);
        demand(pinging.iter().all(kept), || format!("{pinging:?}"))
    });

    // The line was for one router: another one is not let in by it.
    server.bond.process(End::Client).signal(nix::sys::signal::Signal::SIGTERM).expect("it runs");
    server.bond.process(End::Client).wait(LIMIT).expect("our child").expect("it ends");
    let directory = Path::new(&config).parent().expect("a directory");
    let [key, kept] = ["client.key", "kept.key"].map(|name| directory.join(name));
    fs::rename(&key, &kept).expect("the key");
    server.join(&line, &config).expect("another router pastes the line");
    let unknown = "handshake from an unknown key";
    let before = drops(&server.bond.status(End::Server).expect("a status"), unknown);
    server.bond.launch(End::Client).expect("the other router starts");
    server
        .bond
        .wait_for(End::Server, LIMIT, |status| drops(status, unknown) >= before + 2)
        .expect("it is refused");
    let status = server.bond.status(End::Client).expect("a status");
    assert_eq!(links_in_state(&status, "up"), 0);

    // The first one is, after both have started anew.
    server.bond.stop().expect("both stop");
    fs::rename(&kept, &key).expect("the key");
    server.bond.launch(End::Server).expect("the server starts");
    server.bond.launch(End::Client).expect("the router starts");
    server.bond.wait_until_up(2, LIMIT).expect("its key was kept");

    // Who is removed is out at once.
    server.run(&["remove", "home"]).expect("the peer is removed");
    let status = server.bond.status(End::Server).expect("a status");
    assert_eq!(status["endpoint"]["peers"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_server_that_does_not_answer_is_tried_at_its_next_address() {
    let Some(network) = network("next address", Plan::new(Scenario::sym2())) else { return };
    let mut bond = Bond::prepare(&network, &setup()).expect("the files");
    let config = bond.config(End::Client).to_owned();
    let text = fs::read_to_string(&config).expect("the file");
    let option = format!("option server '{}'", Topology::SERVER_V4);
    assert!(text.contains(&option), "{text}");
    // The first one is nobody's.
    let two = format!("list server '203.0.113.77'\n\tlist server '{}'", Topology::SERVER_V4);
    fs::write(&config, text.replace(&option, &two)).expect("the file");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_until_up(2, LIMIT).expect("the second address is tried");
}

/// Needs no privilege.
#[test]
fn killed_in_the_middle_the_configuration_is_whole_and_what_was_said_is_true() {
    let directory = Directory::new("bonding-interrupted").expect("a directory");
    let config = directory.path("server.conf");
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bonding"));
        command.args(arguments).arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::null());
        command.env("PATH", "/nonexistent");
        command
    };
    let init = program(&["server", "init", "--no-start", "--address", "203.0.113.1"]).output();
    assert!(init.expect("it runs").status.success());
    let add = |name: &str| program(&["server", "add-peer", name, "--line"]).spawn().expect("it runs");
    // How long one takes, so that the moments below are spread over it.
    let begin = Instant::now();
    assert!(add("first").wait().expect("it ends").success());
    let length = begin.elapsed();
    let mut said = vec!["first".to_owned()];
    for step in 0..40 {
        let names = [0, 1].map(|writer| format!("p{step}_{writer}"));
        let mut writers = names.each_ref().map(|name| add(name));
        std::thread::sleep(length * step / 30);
        writers[0].kill().expect("our child");
        for (name, writer) in names.into_iter().zip(&mut writers) {
            if writer.wait().expect("it ends").success() {
                said.push(name);
            }
        }
        let check = Command::new(env!("CARGO_BIN_EXE_bonding")).arg("check").arg(&config).output();
        let check = check.expect("it runs");
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }
    assert!(said.len() > 40, "nobody was killed but those who should be: {said:?}");
    let text = fs::read_to_string(&config).expect("the file");
    let missing: Vec<_> =
        said.iter().filter(|name| !text.contains(&format!("config peer '{name}'\n"))).collect();
    assert!(missing.is_empty(), "said to be let in and not there: {missing:?}");
    assert!(add("last").wait().expect("it ends").success());
    let names = fs::read_dir(directory.as_path())
        .expect("the directory")
        .map(|entry| entry.expect("a file").file_name());
    let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    assert_eq!(names, [".server.conf.lock", "private.key", "server.conf"], "nothing of those killed is left");
}
