use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A folder with a configuration of its own, gone at the end of the test.
struct Router(Places);

impl Router {
    fn new(config: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("bonding-rpcd-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let text = config.replace("DIR", folder.to_str().unwrap());
        fs::write(folder.join("config"), text).unwrap();
        Router(Places { config: folder.join("config"), state: folder.join("state") })
    }

    fn call(&self, method: &str, arguments: Value) -> Value {
        let mut out = Vec::new();
        assert_eq!(call(method, &self.0, &mut arguments.to_string().as_bytes(), &mut out).unwrap(), 0);
        serde_json::from_slice(&out).unwrap()
    }

    fn error(&self, method: &str, arguments: Value) -> String {
        let answer = self.call(method, arguments);
        assert_eq!(answer["ok"], false, "{answer}");
        answer["error"].as_str().unwrap().to_owned()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.config.parent().unwrap());
    }
}

const ROUTER: &str = "\
config globals 'globals'
	option private_key_file 'DIR/keys/private.key'
	option control_socket 'DIR/no-daemon.sock'
config interface 'bond'
	option ipaddr '10.77.0.2/24'
	option server 'vpn.example.com'
	option public_key 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8='
config link 'adsl1'
	option interface 'wan'
";

#[test]
fn rpcd_learns_every_method_and_the_types_of_its_arguments() {
    let mut out = Vec::new();
    assert_eq!(list(&mut out).unwrap(), 0);
    let methods: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(methods["join"], json!({ "line": "", "wan": [""], "add": "" }));
    let router = Router::new(ROUTER);
    for method in methods.as_object().unwrap().keys() {
        // None may start a program here, and none may panic: each is given an argument of no use.
        let answer = match method.as_str() {
            "restart" | "speedtest_start" | "genkey" => continue,
            "options" | "pubkey" | "speedtest_status" => router.call(method, json!({})),
            _ => router.call(method, json!({ "after": -1, "config": 1, "name": 1, "line": 1 })),
        };
        assert!(answer.is_object(), "{method}: {answer}");
    }
    let mut out = Vec::new();
    assert_eq!(call("dance", &router.0, &mut io::empty(), &mut out).unwrap(), 2);
    assert!(out.is_empty());
}

#[test]
fn arguments_are_checked_before_anything_is_done() {
    let router = Router::new(ROUTER);
    let line = "bonding://v1/abc";
    for (method, arguments, part) in [
        ("link", json!({}), "'name' is missing"),
        ("link", json!({ "name": 7, "action": "up" }), "must be a string"),
        ("link", json!({ "name": "a;reboot", "action": "up" }), "is not a name"),
        ("link", json!({ "name": "$(reboot)", "action": "up" }), "is not a name"),
        ("link", json!({ "name": "adsl1", "action": "sideways" }), "up, down or reconnect"),
        ("join", json!({ "wan": ["wan"] }), "'line' is missing"),
        ("join", json!({ "line": "--help", "wan": ["wan"] }), "bonding://"),
        ("join", json!({ "line": "bonding://a b", "wan": ["wan"] }), "in one piece"),
        (
            "join",
            json!({ "line": format!("bonding://{}", "a".repeat(5_000)), "wan": ["wan"] }),
            "in one piece",
        ),
        ("join", json!({ "line": line }), "a list of names"),
        ("join", json!({ "line": line, "wan": [] }), "1 to 32"),
        ("join", json!({ "line": line, "wan": ["wan", "`reboot`"] }), "names of interfaces"),
        ("join", json!({ "line": line, "wan": "wan" }), "a list of names"),
        ("join", json!({ "line": line, "add": "--help" }), "letters, digits and _"),
        ("join", json!({ "line": line, "add": ["second"] }), "must be a string"),
        ("genkey", json!({ "replace": "yes" }), "true or false"),
        ("check", json!({ "config": [] }), "must be a string"),
    ] {
        let error = router.error(method, arguments.clone());
        assert!(error.contains(part), "{method} {arguments}: {error}");
    }
    let mut out = Vec::new();
    call("link", &router.0, &mut "[1]".as_bytes(), &mut out).unwrap();
    assert!(String::from_utf8(out).unwrap().contains("not a JSON object"));
}

#[test]
fn no_argument_of_any_kind_or_length_does_harm() {
    let router = Router::new(ROUTER);
    let before = fs::read(&router.0.config).unwrap();
    let long = "x".repeat(1 << 20);
    let odd = [
        json!("; reboot"),
        json!("$(reboot)"),
        json!("`reboot`"),
        json!("--help"),
        json!("../../etc/passwd"),
        json!("\u{0}\u{1b}[2J\u{202e}"),
        json!(long),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(true),
        json!(null),
        json!([]),
        json!([[["wan"]]]),
        json!({ "wan": "wan" }),
        json!(["wan", long]),
    ];
    for value in &odd {
        router.error("link", json!({ "name": value, "action": "down" }));
        router.error("link", json!({ "name": "adsl1", "action": value }));
        router.error("join", json!({ "line": value, "wan": ["wan"] }));
        router.error("join", json!({ "line": "bonding://x", "wan": value }));
        if !value.is_null() && !value.is_boolean() {
            router.error("genkey", json!({ "replace": value }));
        }
        for method in ["status", "events", "check", "options", "pubkey", "speedtest_status"] {
            assert!(router.call(method, json!({ "after": value, "config": value, "x": value })).is_object());
        }
    }
    assert_eq!(fs::read(&router.0.config).unwrap(), before);
    assert!(!before.is_empty() && !router.0.config.with_file_name("keys").exists());

    let mut out = Vec::new();
    let endless = io::repeat(b' ').take(1 << 30);
    assert_eq!(call("link", &router.0, &mut { endless }, &mut out).unwrap(), 0);
    assert!(String::from_utf8(out).unwrap().contains("too long"));
    let deep = "[".repeat(200_000);
    let mut out = Vec::new();
    assert_eq!(call("check", &router.0, &mut deep.as_bytes(), &mut out).unwrap(), 0);
    assert!(String::from_utf8(out).unwrap().contains("not a JSON object"));
}

/// Not even where they are wrong: what an account may read of a mistake is that there is one.
#[test]
fn no_secret_of_the_configuration_is_in_an_answer() {
    let secrets =
        ["c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I=", "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3"];
    for secret in secrets {
        for option in ["preshared_key", "private_key"] {
            let (globals, bond) = ("config globals 'globals'\n", "config interface 'bond'\n");
            let section = if option == "private_key" { globals } else { bond };
            let with = format!("{section}\toption {option} '{secret}'\n");
            let router = Router::new(&ROUTER.replace(section, &with));
            for method in ["status", "events", "check", "options", "pubkey", "genkey", "speedtest_status"] {
                let answer = router.call(method, json!({})).to_string();
                assert!(!answer.contains(&secret[..20]), "{method}: {answer}");
            }
        }
    }
}

#[test]
fn without_a_daemon_the_status_says_why() {
    let router = Router::new(ROUTER);
    let answer = router.call("status", json!({}));
    assert_eq!(answer["running"], false);
    assert_eq!(
        (&answer["valid"], &answer["enabled"], &answer["configured"]),
        (&json!(true), &json!(true), &json!(true))
    );
    let problems = answer["problems"].to_string();
    assert!(problems.contains("no private key"), "{problems}");
    assert!(answer["error"].as_str().unwrap().contains("no daemon answers"));
    assert!(answer["time_ms"].as_u64().unwrap() > 1_700_000_000_000);

    let fresh = Router::new("config globals 'globals'\n\toption enabled '0'\nconfig interface 'bond'\n");
    let answer = fresh.call("status", json!({}));
    assert_eq!(
        (&answer["valid"], &answer["enabled"], &answer["configured"]),
        (&json!(true), &json!(false), &json!(false))
    );

    let wrong =
        Router::new("config interface 'bond'\n\toption ipaddr '10.0.0.2/24'\n\toption policy 'fast'\n");
    let answer = wrong.call("status", json!({}));
    assert_eq!(answer["valid"], false);
    let problems = answer["problems"].as_array().unwrap();
    assert!(problems.iter().any(|one| one["option"] == "policy" && one["severity"] == "error"), "{answer}");
}

#[test]
fn a_configuration_is_checked_as_the_daemon_would() {
    let router = Router::new(ROUTER);
    assert_eq!(router.call("check", json!({}))["ok"], true);
    let text = "config link 'a'\n\toption interface 'wan'\n\toption remote_port '70000'\n";
    let answer = router.call("check", json!({ "config": text }));
    assert_eq!(answer["ok"], false);
    let found =
        answer["problems"].as_array().unwrap().iter().find(|one| one["option"] == "remote_port").unwrap();
    assert_eq!(
        (&found["section"], &found["severity"], &found["line"]),
        (&json!("a"), &json!("error"), &json!(3))
    );
}

#[test]
fn a_key_is_made_in_its_file_and_does_not_leave_it() {
    let router = Router::new(ROUTER);
    assert!(router.error("pubkey", json!({})).contains("no private key"));
    let made = router.call("genkey", json!({}));
    assert_eq!(made["ok"], true, "{made}");
    let path = router.0.config.parent().unwrap().join("keys/private.key");
    let private = fs::read_to_string(&path).unwrap();
    assert!(!made.to_string().contains(private.trim()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(router.call("pubkey", json!({}))["public_key"], made["public_key"]);

    assert!(router.error("genkey", json!({})).contains("already"));
    assert_eq!(fs::read_to_string(&path).unwrap(), private);
    let other = router.call("genkey", json!({ "replace": true }));
    assert_ne!(other["public_key"], made["public_key"]);
}

#[test]
fn a_speed_test_that_was_never_started_is_not_running() {
    let router = Router::new(ROUTER);
    assert_eq!(
        router.call("speedtest_status", json!({})),
        json!({ "ok": true, "running": false, "reports": [], "error": "" })
    );
    fs::create_dir_all(&router.0.state).unwrap();
    // The number of a process that is none of ours.
    fs::write(router.0.state.join("pid"), std::process::id().to_string()).unwrap();
    fs::write(router.0.state.join("output"), "{\"phase\":\"download\"}\n{\"phase\":\"done\"}\n{\"ph")
        .unwrap();
    let answer = router.call("speedtest_status", json!({}));
    assert_eq!((&answer["running"], answer["reports"].as_array().unwrap().len()), (&json!(false), 2));
}
