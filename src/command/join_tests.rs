use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::*;
use crate::config::key::PublicKey;
use crate::config::value::IpNet;

const SHIPPED: &str = include_str!("../../files/etc/config/bonding");

fn invitation() -> Invitation {
    Invitation {
        name: "home".into(),
        server_key: PublicKey::new([7; 32]),
        secret: Some(Secret::new(Zeroizing::new([9; 32]))),
        expires: Some(1_900_000_000),
        servers: vec![Host::Address("192.0.2.1".parse().unwrap()), Host::Name("vpn.example.com".into())],
        ports: vec![1194, 443],
        addresses: vec![
            IpNet { address: "10.99.0.7".parse().unwrap(), prefix: 24 },
            IpNet { address: "fd99::7".parse().unwrap(), prefix: 64 },
        ],
        remote_addresses: vec!["10.99.0.1".parse().unwrap(), "fd99::1".parse().unwrap()],
        cipher: None,
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

struct Router {
    directory: PathBuf,
}

impl Router {
    /// A router whose file holds `text`, and whose key and socket are in a directory of their own.
    fn new(name: &str, text: &str) -> Router {
        let directory = std::env::temp_dir().join(format!("bonding-join-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let router = Router { directory };
        let paths = format!(
            "config globals 'globals'\n\toption private_key_file '{}'\n\toption control_socket '{}'\n",
            router.key().display(),
            router.directory.join("sock").display()
        );
        fs::write(router.config(), text.replacen("config globals 'globals'\n", &paths, 1)).unwrap();
        router
    }

    fn config(&self) -> PathBuf {
        self.directory.join("bonding")
    }

    fn key(&self) -> PathBuf {
        self.directory.join("keys/private.key")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn join(&self, line: &str, wans: &[&str], output: Output) -> Result<String, JoinError> {
        let wans = wans.iter().map(|name| Wan::Interface((*name).into())).collect();
        join(&Options { line: line.into(), wans, add: None, config: self.config(), output }, now())
    }

    fn add(&self, line: &str, name: &str) -> Result<String, JoinError> {
        let add = Some(name.to_owned());
        let output = Output::Write;
        join(&Options { line: line.into(), wans: Vec::new(), add, config: self.config(), output }, now())
    }

    fn loaded(&self) -> config::Config {
        let report = config::load_file(&self.config()).unwrap();
        report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn the_shipped_file_and_a_line_are_a_bond() {
    let router = Router::new("shipped", SHIPPED);
    let told = router.join(&invitation().to_line(), &["wan0", "wan"], Output::Write).unwrap();
    let config = router.loaded();
    assert!(config.globals.enabled && config.not_ready("file").is_empty());
    assert_eq!(config.bond.public_key, Some(PublicKey::new([7; 32])));
    assert_eq!(config.bond.preshared_key.as_ref().map(|key| *key.as_bytes()), Some([9; 32]));
    let addresses: Vec<String> = config.bond.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.99.0.7/24", "fd99::7/64"]);
    assert_eq!(config.bond.remote_addresses, invitation().remote_addresses);
    let links: Vec<_> =
        config.links.iter().map(|link| (link.name.as_str(), link.interface.as_deref())).collect();
    assert_eq!(links, [("link0", Some("wan")), ("wan0", Some("wan0"))], "the placeholder 'wanb' is off");
    for link in &config.links {
        assert_eq!(link.servers, invitation().servers);
        assert_eq!(link.remote_port, 1194);
    }
    // A person's remarks are still there, and the secret is for root alone.
    assert!(router.text().contains("# One section for each internet link"));
    for path in [router.config(), router.key()] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let key = read_private_key(&router.key()).unwrap();
    let public = PrivateKey::from_bytes(*key.as_bytes()).public().to_string();
    assert!(
        told.contains(&public) && told.contains("made: ") && told.contains("links: link0 wan0"),
        "{told}"
    );
}

#[test]
fn the_key_of_a_file_of_its_own_is_beside_it_and_the_hint_names_that_file() {
    let directory = std::env::temp_dir().join(format!("bonding-join-beside-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    let config = directory.join("office.conf");
    let socket = format!("config globals\n\toption control_socket '{}'\n", directory.join("sock").display());
    fs::create_dir_all(&directory).unwrap();
    fs::write(&config, socket).unwrap();
    let wans = vec![Wan::Device("eth0".into())];
    let line = invitation().to_line().as_str().to_owned();
    let options = Options { line, wans, add: None, config: config.clone(), output: Output::Write };
    let told = join(&options, now()).unwrap();
    let (key, file) = (directory.join("private.key"), config.display());
    assert!(told.contains(&format!("made: {}\n", key.display())), "{told}");
    assert!(told.contains(&format!("start it: bonding run --config {file}\n")), "{told}");
    assert_eq!(config::load_file(&config).unwrap().config.unwrap().globals.private_key_file, key);
    // Who has joined with the key at the option's default keeps that one: the server knows no other.
    let text = fs::read_to_string(&config).unwrap();
    let before: String =
        text.split_inclusive('\n').filter(|line| !line.contains("private_key_file")).collect();
    fs::write(&config, &before).unwrap();
    assert!(
        !join(&Options { output: Output::Batch, ..options }, now()).unwrap().contains("private_key_file")
    );
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn joining_again_keeps_the_key_and_what_the_line_does_not_say() {
    let router = Router::new("again", SHIPPED);
    router.join(&invitation().to_line(), &["wan"], Output::Write).unwrap();
    let (first, key) = (router.text(), fs::read_to_string(router.key()).unwrap());
    router.join(&invitation().to_line(), &[], Output::Write).unwrap();
    assert_eq!(router.text(), first, "the same line changes nothing");

    let edited = first
        .replace(
            "option interface 'wan'",
            "option interface 'wan'\n\toption upload '5mbit'\n\toption server '198.51.100.9'",
        )
        .replace("default_route '1'", "default_route '0'");
    fs::write(router.config(), edited).unwrap();
    let other = Invitation {
        secret: None,
        ports: vec![5510],
        addresses: invitation().addresses[1..].to_vec(),
        ..invitation()
    };
    let told = router.join(&other.to_line(), &["wan"], Output::Write).unwrap();
    let config = router.loaded();
    assert!(!config.bond.default_route && config.bond.preshared_key.is_none());
    assert_eq!(config.links.len(), 1);
    assert_eq!(config.links[0].upload, Some(config::value::Rate(5_000_000)));
    assert_eq!((config.links[0].servers.clone(), config.links[0].remote_port), (other.servers.clone(), 5510));
    assert_eq!(config.bond.addresses.len(), 1);
    assert_eq!(fs::read_to_string(router.key()).unwrap(), key);
    assert!(told.contains("--public-key") && !told.contains("made: "), "{told}");
}

#[test]
fn an_empty_file_needs_links() {
    let router = Router::new("empty", "config globals 'globals'\n");
    let before = router.text();
    let error = router.join(&invitation().to_line(), &[], Output::Write).unwrap_err();
    assert!(matches!(error, JoinError::NoLink(_)), "{error}");
    assert_eq!((router.text(), router.key().exists()), (before, false));
    router.join(&invitation().to_line(), &["wan.6", "wan-6", "lan"], Output::Write).unwrap();
    let names: Vec<String> = router.loaded().links.iter().map(|link| link.name.clone()).collect();
    assert_eq!(names, ["wan_6", "wan_6_2", "lan"]);
    assert!(router.loaded().bond.default_route);
}

#[test]
fn what_is_refused_changes_nothing() {
    let router = Router::new("refused", SHIPPED);
    let text = router.text();
    let refused = |line: &str| router.join(line, &["wan"], Output::Write).unwrap_err().to_string();
    assert!(refused("bonding://nonsense").contains("copy all of it"));
    let old = Invitation { expires: Some(1_799_999_999), ..invitation() };
    assert!(refused(&old.to_line()).contains("expired"));
    assert_eq!((router.text(), router.key().exists()), (text.clone(), false));

    fs::write(
        router.config(),
        format!("{text}\nconfig link 'odd'\n\toption interface 'wan'\n\toption priority '999'\n"),
    )
    .unwrap();
    assert!(refused(&invitation().to_line()).contains("'priority': '999'"));
    fs::write(router.config(), format!("{text}\nconfig peer 'x'\n")).unwrap();
    assert!(refused(&invitation().to_line()).contains("is the configuration of a server"));
    assert!(!router.key().exists());
}

#[test]
fn the_other_forms_write_nothing_and_say_the_same() {
    let router = Router::new("forms", SHIPPED);
    let text = router.text();
    let line = invitation().to_line();
    let batch = router.join(&line, &["wan0"], Output::Batch).unwrap();
    for command in [
        "set bonding.globals.enabled='1'\n",
        "set bonding.bond.ipaddr='10.99.0.7/24 fd99::7/64'\n",
        "set bonding.bond.netmask=''\n",
        "set bonding.bond.server='192.0.2.1 vpn.example.com'\n",
        "set bonding.wan0=link\nset bonding.wan0.interface='wan0'\n",
        "set bonding.link0.enabled='0'\n",
    ] {
        assert!(batch.contains(command), "{command}: {batch}");
    }
    assert!(batch.ends_with("commit bonding\n"));
    let printed: Json = serde_json::from_str(&router.join(&line, &["wan0"], Output::Json).unwrap()).unwrap();
    assert_eq!(printed["name"], "home");
    let changes = printed["changes"].as_array().unwrap();
    assert!(changes.contains(&json!({ "section": "wan0", "type": "link" })));
    assert!(changes.contains(&json!({ "section": "bond", "option": "remote_port", "values": ["1194"] })));
    assert_eq!((router.text(), router.key().exists()), (text, false));
}

#[test]
fn the_commands_for_a_router_that_nobody_knows() {
    let batch = batch_for(&invitation());
    assert!(batch.starts_with(
        "set bonding.globals=globals\nset bonding.bond=interface\nset bonding.globals.enabled='1'\n\
         set bonding.bond.ipaddr='10.99.0.7/24 fd99::7/64'\n"
    ));
    assert!(!batch.contains("=''") && !batch.contains('@'), "{batch}");
}

#[test]
fn another_server_is_a_section_and_changes_nothing_else() {
    let router = Router::new("another", SHIPPED);
    let second = Invitation {
        server_key: PublicKey::new([8; 32]),
        addresses: vec![IpNet { address: "10.88.0.3".parse().unwrap(), prefix: 24 }],
        remote_addresses: vec!["10.88.0.1".parse().unwrap()],
        ..invitation()
    };
    let refused = router.add(&second.to_line(), "paris").unwrap_err();
    assert!(matches!(refused, JoinError::NoFirst(_)), "{refused}");
    router.join(&invitation().to_line(), &["wan0"], Output::Write).unwrap();
    let before = router.loaded();

    router.add(&second.to_line(), "paris").unwrap();
    let config = router.loaded();
    assert_eq!((config.bond.clone(), config.links.clone()), (before.bond, before.links));
    let names: Vec<_> = config.servers.iter().map(|server| server.name.as_str()).collect();
    assert_eq!(names, ["bond", "paris"]);
    let there = config.at_server("paris").bond;
    assert_eq!(there.public_key, Some(PublicKey::new([8; 32])));
    assert_eq!(there.addresses, second.addresses);
    assert_eq!(there.remote_addresses, second.remote_addresses);
    assert!(there.preshared_key.is_some());

    // A new line of the same server takes the place of the old one.
    let renewed = Invitation { servers: vec![Host::Name("new.example.com".into())], ..second.clone() };
    router.add(&renewed.to_line(), "paris").unwrap();
    assert_eq!(router.loaded().servers.len(), 2);
    assert_eq!(router.loaded().at_server("paris").links[0].servers, renewed.servers);

    for (line, name) in [
        (&second, "rome"),
        (&invitation(), "rome"),
        (&second, "globals"),
        (&second, "a b"),
        (&second, ""),
        (&Invitation { cipher: Some("none".into()), ..second.clone() }, "paris"),
    ] {
        let before = router.text();
        assert!(router.add(&line.to_line(), name).is_err(), "{name}");
        assert_eq!(router.text(), before);
    }
}
