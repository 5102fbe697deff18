use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use super::*;
use crate::config::invitation::Invitation;
use crate::config::value::Host;

struct Server {
    directory: PathBuf,
}

impl Server {
    fn new(name: &str) -> Server {
        let directory = std::env::temp_dir().join(format!("bonding-server-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        Server { directory }
    }

    /// As [`Server::new`], and set up.
    fn ready(name: &str) -> Server {
        let server = Server::new(name);
        server
            .run("init --address 198.51.100.7 --address vpn.example.com --pool 10.9.0.1/24 --pool fd09::1/64")
            .unwrap();
        // No daemon of the machine that runs the tests is told of anything.
        let socket =
            format!("role 'server'\n\toption control_socket '{}'", server.directory.join("sock").display());
        fs::write(server.config(), server.text().replacen("role 'server'", &socket, 1)).unwrap();
        server
    }

    fn config(&self) -> PathBuf {
        self.directory.join("server.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn run(&self, arguments: &str) -> Result<String, String> {
        let words = arguments.split_whitespace().map(OsString::from);
        let words = words.chain(["--config".into(), self.config().into()]);
        let invocation =
            parse(&mut lexopt::Parser::from_args(words)).map_err(|error| error.to_string())?.unwrap();
        match &invocation.action {
            Action::Init(options) => init::set_up(&self.config(), options, |_, _| ()),
            Action::AddPeer(peer) => peers::add(&self.config(), peer),
            Action::List { json } => peers::list(&self.config(), *json),
            Action::Show { name, json } => peers::show(&self.config(), name, *json),
            Action::Remove { name } => peers::remove(&self.config(), name),
        }
        .map_err(|error| error.to_string())
    }

    fn loaded(&self) -> Config {
        checked(&self.text(), "test").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn line_in(text: &str) -> Invitation {
    let line = text.lines().find(|line| line.starts_with("bonding://")).unwrap();
    line.parse().unwrap()
}

#[test]
fn init_makes_what_is_missing_and_leaves_what_is_there() {
    let server = Server::new("init");
    let told = server.run("init --address 198.51.100.7 --port 443 --port 5510 --pool 10.9.0.1/24").unwrap();
    assert!(told.contains("(made)") && told.contains("bonding run --config"), "{told}");
    let config = server.loaded();
    assert_eq!(config.globals.listen_ports, [443, 5510]);
    assert_eq!(config.globals.public_addresses, [Host::Address("198.51.100.7".parse().unwrap())]);
    assert_eq!(config.bond.addresses.len(), 1);
    let key = server.directory.join("private.key");
    for path in [&key, &server.config()] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (text, key_text) = (server.text(), fs::read_to_string(&key).unwrap());
    let told = server.run("init --port 7").unwrap();
    assert!(told.contains("left as it is") && told.contains("(was there)"), "{told}");
    assert_eq!((server.text(), fs::read_to_string(&key).unwrap()), (text, key_text.clone()));
    server.run("init --force --port 7").unwrap();
    assert_eq!(server.loaded().globals.listen_ports, [7]);
    assert_eq!(fs::read_to_string(&key).unwrap(), key_text, "routers know this server by it");
}

#[test]
fn a_peer_gets_a_line_and_a_place() {
    let server = Server::ready("add");
    let told = server.run("add-peer home --lan 192.168.1.0/24 --lan 192.168.2.7/24").unwrap();
    let invitation = line_in(&told);
    assert!(told.contains("set bonding.bond.ipaddr='10.9.0.2/24 fd09::2/64'\n"), "{told}");
    assert!(told.contains("No server runs now"), "{told}");
    let config = server.loaded();
    let peer = &config.peers[0];
    assert_eq!(
        (peer.name.as_str(), peer.public_key, &peer.preshared_key),
        ("home", None, &invitation.secret)
    );
    let lans: Vec<String> = peer.lans.iter().map(ToString::to_string).collect();
    assert_eq!(lans, ["192.168.1.0/24", "192.168.2.0/24"]);
    assert_eq!(peer.invitation_expires.map(u64::from), invitation.expires);
    let day = Duration::from_secs(86_400);
    assert_eq!(invitation.check_expiry(SystemTime::now() + 6 * day), Ok(()));
    assert!(invitation.check_expiry(SystemTime::now() + 8 * day).is_err());
    assert_eq!(invitation.servers, config.globals.public_addresses);
    assert_eq!(
        invitation.remote_addresses,
        ["10.9.0.1".parse::<std::net::IpAddr>().unwrap(), "fd09::1".parse().unwrap()]
    );

    let second =
        line_in(&server.run("add-peer office --expires 1h --address 192.0.2.9 --ip 10.9.0.77").unwrap());
    assert_eq!(second.addresses, [IpNet { address: "10.9.0.77".parse().unwrap(), prefix: 24 }]);
    assert_eq!(second.servers, [Host::Address("192.0.2.9".parse().unwrap())]);
    assert_ne!(second.secret, invitation.secret);
    let third = server.run("add-peer third --line").unwrap();
    assert_eq!(third.lines().count(), 1);
    assert_eq!(line_in(&third).addresses[0].to_string(), "10.9.0.3/24");
}

#[test]
fn peers_are_renewed_listed_shown_and_removed() {
    let server = Server::ready("list");
    assert!(server.run("list").unwrap().contains("no peer yet"));
    let before = server.text();
    let first = line_in(&server.run("add-peer home --lan 192.168.1.0/24").unwrap());
    assert!(server.run("add-peer home").unwrap_err().contains("--renew"));
    assert!(server.run("add-peer other --renew").unwrap_err().contains("no peer 'other'"));
    let second = line_in(&server.run("add-peer home --renew").unwrap());
    assert!(first.addresses == second.addresses && first.secret != second.secret);
    assert_eq!(server.loaded().peers[0].lans.len(), 1, "they were not said anew");

    let key = PublicKey::new([7; 32]);
    let known = line_in(&server.run(&format!("add-peer home --renew --public-key {key}")).unwrap());
    assert_eq!(known.expires, None);
    assert_eq!(server.loaded().peers[0].public_key, Some(key));
    server.run("add-peer zoe").unwrap();

    let list = server.run("list").unwrap();
    assert!(list.contains("home  no server runs"), "{list}");
    assert!(
        list.contains("10.9.0.2 fd09::2 192.168.1.0/24") && list.contains("zoe   invited until 2"),
        "{list}"
    );
    let list: serde_json::Value = serde_json::from_str(&server.run("list --json").unwrap()).unwrap();
    assert_eq!(
        (list[0]["public_key"].as_str(), list[1]["public_key"].as_str()),
        (Some(&*key.to_string()), None)
    );
    assert!(server.run("show home").unwrap().contains("networks: 192.168.1.0/24"));
    assert!(server.run("show hom").unwrap_err().contains("did you mean 'home'?"));

    server.run("remove home").unwrap();
    server.run("remove zoe").unwrap();
    assert_eq!(server.text().trim(), before.trim());
    assert!(server.run("remove zoe").is_err());
}

#[test]
fn what_would_be_wrong_is_refused_whole() {
    let server = Server::ready("refused");
    server.run("add-peer home --lan 192.168.1.0/24").unwrap();
    let before = server.text();
    let overlap = server.run("add-peer office --lan 192.168.0.0/16").unwrap_err();
    assert!(overlap.contains("overlaps") && overlap.contains("nothing was changed"), "{overlap}");
    assert!(server.run("add-peer bond").unwrap_err().contains("another section"));
    assert!(server.run("add-peer office --ip 10.9.0.2").unwrap_err().contains("overlaps"));
    assert_eq!(server.text(), before);
    assert!(Server::new("none").run("add-peer home").unwrap_err().contains("bonding server init"));
}

#[test]
fn mistakes_on_the_command_line() {
    let server = Server::new("typed");
    for (line, part) in [
        ("dance", "'dance' is not init"),
        ("add-peer", "which peer"),
        ("add-peer a-b", "letters, digits"),
        ("add-peer a --lan 1.2.3.4", "is not a network"),
        ("add-peer a --expires 400d", "a year at most"),
        ("add-peer a --public-key x", "is not a public key"),
        ("init --port 0", "is not a port"),
        ("init --lan 10.0.0.0/8", "--lan"),
        ("list a", "a"),
        ("remove --json a", "--json"),
    ] {
        let error = server.run(line).unwrap_err();
        assert!(error.contains(part), "{line}: {error}");
    }
}

#[test]
fn who_only_looks_writes_nothing_and_waits_for_nobody() {
    let server = Server::ready("look");
    server.run("add-peer home").unwrap();
    let lock = server.directory.join(".server.conf.lock");
    fs::remove_file(&lock).unwrap();
    for look in ["list", "show home"] {
        assert!(server.run(look).unwrap().contains("home"));
        assert!(!lock.exists(), "{look}");
    }
}
