//! The screens of `bonding status` and `bonding events`, letter for letter.

use serde_json::json;

use super::*;
use crate::command::text::COLUMNS;

fn client() -> Value {
    let tun = json!({ "checksum": true, "tcp": true, "udp": false });
    let mut status = json!({
        "version": 1, "role": "client", "ifname": "bond0", "uptime_ms": 3_723_000,
        "reload": {
            "ok": false,
            "message": "the configuration was refused, the old one stays: …",
            "details": [
                "/etc/config/bonding:3: section 'adsl1', option 'upload': 'fast' is not a rate",
                "/etc/config/bonding:9: no"
            ]
        },
        "interfaces": { "adsl1": "wan0", "lte": "wwan", "sat": "wan9" },
        "links": { "adsl1": { "note": "" }, "sat": { "note": "netifd has no interface 'wan9'" } }, "peers": { "0": "server" },
        "endpoint": {
            "public_key": "K=", "drops": { "replayed": 3 },
            "peers": [{
                "peer": 0, "public_key": "S=", "up": true, "since_ms": 65_000, "cipher": "aes-256-gcm",
                "policy": "adaptive", "last_handshake_ms": 900, "tunnel_mtu": 1432, "tx_bytes": 1_048_576,
                "rx_bytes": 12, "resent": 4, "queue_drops": 5, "gaps_given_up": 0, "duplicates": 2,
                "links": [
                    { "name": "adsl1", "state": "up", "reason": "", "since_ms": 65_000, "rtt_ms": 25.04,
                      "tx_loss": 0.004, "rx_rate": 11_800_000, "tx_rate": 500_000, "tx_capacity": 1_000_000 },
                    { "name": "lte", "state": "down", "reason": "the other end does not answer",
                      "since_ms": 5_000, "rtt_ms": null, "tx_loss": 0.0, "rx_rate": 0, "tx_rate": 0,
                      "tx_capacity": null },
                    { "name": "sat", "state": "down", "reason": "no address or route", "since_ms": 9_000,
                      "rtt_ms": null, "tx_loss": 0.0, "rx_rate": 0, "tx_rate": 0, "tx_capacity": null }
                ]
            }]
        }
    });
    status["offloads"] = json!({ "tun": tun, "udp_send": true, "udp_receive": true });
    status
}

#[test]
fn a_client() {
    let expected = "\
bond: bond0 (client), running for 1 h 2 min
  public key: K=
  offloads: checksums, TCP segmentation, batched sending, batched receiving (not
  here: UDP segmentation)
  last reload refused:
    /etc/config/bonding:3: section 'adsl1', option 'upload': 'fast' is not a
    rate
    /etc/config/bonding:9: no

server: up for 1 min 5 s
  public key: S=
  latest handshake: 900 ms ago
  cipher: aes-256-gcm; policy: adaptive; MTU: 1432
  transfer: 12 B received, 1.00 MiB sent
  sent again: 4; dropped by the queue: 5; gaps given up: 0; duplicates: 2

  link            state    rtt ms  loss      down        up    up max up load
  adsl1           up         25.0  0.4% 11.8 Mbit  500 kbit  1.0 Mbit ####.....
  lte             down          -  0.0%         0         0         -
    wwan: the other end does not answer, for 5 s
  sat             down          -  0.0%         0         0         -
    wan9: netifd has no interface 'wan9', for 9 s

dropped: 3 replayed
";
    assert_eq!(render(client(), false), expected);
}

#[test]
fn privileges_and_watchdog() {
    let screen = |more: Value| {
        let mut status = client();
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let screen = render(status.clone(), false);
        assert!(screen.lines().all(|line| line.chars().count() <= COLUMNS), "{screen}");
        screen
    };
    let kept = json!(["CAP_NET_BIND_SERVICE", "CAP_NET_ADMIN", "CAP_NET_RAW"]);
    let wide = screen(json!({ "privileges": { "capabilities": kept, "seccomp": true } }));
    assert!(wide.contains("system calls are"), "{wide}");
    assert!(
        screen(json!({ "privileges": null })).contains("  privileges: all, they could not be given up\n")
    );
    let watchdog = |state: &str, answer: Value, error: &str, actions: u64| {
        screen(json!({ "watchdog": {
            "addresses": ["192.0.2.1", "2001:db8::1"], "state": state, "last_answer_ms": answer,
            "rtt_ms": 25.04, "error": error, "actions": actions, "next_action_ms": 61_000
        } }))
    };
    let ok = watchdog("ok", json!(900), "", 0);
    assert!(ok.contains("\n  watchdog: 192.0.2.1, 2001:db8::1: answers in 25.0 ms\n"), "{ok}");
    let silent = watchdog("silent", json!(75_000), "no answer", 2);
    let silent = silent.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "no answer for 1 min 15 s, action in 1 min 1 s; 2 actions since it worked";
    assert!(silent.contains(expected), "{silent}");
    assert!(watchdog("waiting", Value::Null, "", 0).contains("waits for a link to come up"));
    assert!(
        watchdog("silent", Value::Null, "Network is unreachable", 0).contains("(Network is unreachable)")
    );
}

#[test]
fn a_server_that_nobody_called() {
    let status = json!({
        "role": "server", "ifname": "bond0", "uptime_ms": 900, "reload": null, "listen": ["[::]:5511", "0.0.0.0:5512"], "interfaces": {},
        "peers": { "4": "home" },
        "endpoint": { "public_key": "S=", "drops": {}, "peers": [{
            "peer": 4, "public_key": "K=", "up": false, "since_ms": 900, "cipher": "", "policy": "adaptive",
            "last_handshake_ms": null, "tunnel_mtu": 1280, "links": []
        }] }
    });
    let expected = "\
bond: bond0 (server), running for 900 ms
  public key: S=
  listening on: [::]:5511, 0.0.0.0:5512

home: down for 900 ms: it has not called yet
  public key: K=
  latest handshake: never
  cipher: -; policy: adaptive; MTU: 1280
  transfer: 0 B received, 0 B sent
  sent again: 0; dropped by the queue: 0; gaps given up: 0; duplicates: 0
";
    assert_eq!(render(status.clone(), false), expected);
}

#[test]
fn whatever_is_not_up_says_why() {
    for state in ["disabled", "down", "joining", "suspect"] {
        let screen = links_table(&[json!({ "name": "a", "state": state })], &Value::Null, Paint(false));
        let reason = screen.lines().nth(2).unwrap_or_default();
        assert!(reason.starts_with("    ") && reason.ends_with(", for 0 ms"), "{state}: {screen}");
    }
    let up = links_table(&[json!({ "name": "a", "state": "up", "reason": "" })], &Value::Null, Paint(false));
    assert_eq!(up.lines().count(), 2);
}

#[test]
fn the_longest_lines_fit() {
    let mut status = client();
    let peer = &mut status["endpoint"]["peers"][0];
    peer["policy"] = json!("active-backup");
    peer["cipher"] = json!("chacha20-poly1305");
    for counter in ["rx_bytes", "tx_bytes", "resent", "queue_drops", "gaps_given_up", "duplicates"] {
        peer[counter] = json!(u64::MAX);
    }
    peer["links"][0] = json!({
        "name": "fifteen-letters", "state": "disabled", "reason": "because ".repeat(40), "since_ms": u64::MAX,
        "rtt_ms": 99_999.9, "tx_loss": 1.0, "rx_rate": 99_949_999, "tx_rate": 99_949_999,
        "tx_capacity": 99_949_999
    });
    for n in 0..20 {
        status["endpoint"]["drops"][format!("a reason with the number {n}")] = json!(u64::MAX);
    }
    let screen = render(status.clone(), false);
    for line in screen.lines() {
        assert!(line.chars().count() <= COLUMNS, "{line}");
    }
    assert!(screen.contains("fifteen-letters disabled 100000  100% 99.9 Mbit"), "{screen}");
}

#[test]
fn colours_change_no_letter() {
    let painted = render(client(), true);
    assert!(painted.contains("\x1b[32mup"));
    let mut plain = painted;
    for code in ["0", "1", "31", "32", "33"] {
        plain = plain.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(plain, render(client(), false));
}

#[test]
fn the_other_end_cannot_write_to_the_terminal() {
    let mut status = client();
    status["endpoint"]["peers"][0]["links"][1]["reason"] = json!("\x1b]0;owned\x07");
    status["endpoint"]["peers"][0]["links"][1]["name"] = json!("\x1b[2J");
    status["reload"]["details"][0] = json!("\x1b[2J");
    status["links"]["sat"]["note"] = json!("\x1b[2J");
    let screen = render(status.clone(), false);
    assert!(screen.chars().all(|c| c == '\n' || !c.is_control()), "{screen:?}");
}

#[test]
fn another_version_makes_no_panic() {
    for status in [json!(null), json!([]), json!({ "endpoint": { "peers": [null, 3] } }), json!("x")] {
        assert!(render(status.clone(), false).starts_with("bond: "));
    }
}

#[test]
fn kernel_mode_shows_the_drivers_mode_and_its_slaves() {
    let mut status = client();
    status["kernel"] = json!({
        "bond_mode": "balance-rr", "tunnel_type": "tap",
        "slaves": [
            { "link": 0, "device": "bond0-adsl1", "carrier": true },
            { "link": 1, "device": "bond0-lte", "carrier": false }
        ],
        "problems": ["there is no room for a device"]
    });
    let shown = render(status.clone(), false);
    let expected = "
  kernel mode: balance-rr over TAP devices
    bond0-adsl1: carrier
    bond0-lte: no carrier
    there is no room for a device
";
    assert!(shown.contains(expected), "{shown}");
}
