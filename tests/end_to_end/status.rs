//! `bonding status --json` and its description, `docs/status.md`; exit codes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::bond::{Bond, End};
use lab::directory::Directory;
use lab::scenario::Scenario;
use lab::topology::Plan;
use serde_json::Value;

use crate::{network, setup};

const LIMIT: Duration = Duration::from_secs(30);

/// Objects whose fields have names of their own: how the manual writes these.
const NAMED: [(&str, &str); 5] = [
    ("endpoint.drops", "REASON"),
    ("interfaces", "LINK"),
    ("io.send_errors", "REASON"),
    ("links", "LINK"),
    ("peers", "NUMBER"),
];

/// The paths of all values, as `endpoint.peers[].links[].rtt_ms`.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let named = NAMED.iter().find(|(parent, _)| *parent == path).map(|(_, name)| *name);
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = named.unwrap_or(name);
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                paths(field, &path, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().for_each(|item| paths(item, &format!("{path}[]"), found));
        }
        // Without anything inside it says nothing of what could be there.
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// The first column of the manual's tables of fields.
fn documented() -> BTreeSet<String> {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/status.md");
    let text = fs::read_to_string(manual).expect("the manual");
    let (text, _) = text.split_once("\n## Exit codes").expect("the part about the status");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    rows.map(|(path, _)| path.to_owned()).collect()
}

#[test]
fn the_manual_describes_every_field() {
    let Some(network) = network("status", Plan::new(Scenario::sym2())) else { return };
    let mut setup = setup();
    setup.bond.push(("watchdog".into(), "1".into()));
    setup.bond.push(("watchdog_period".into(), "1".into()));
    let mut bond = Bond::prepare(&network, &setup).expect("files");
    let file = bond.config(End::Client).to_owned();
    let text = fs::read_to_string(&file).expect("the file");
    fs::write(
        &file,
        format!("{text}\nconfig rule 'calls'\n\toption dscp 'ef'\n\toption policy 'redundant'\n"),
    )
    .expect("the file");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up");
    bond.command(End::Client, &["reload"]).expect("a reload");
    let client = bond
        .wait_for(End::Client, LIMIT, |status| {
            let links = status["endpoint"]["peers"][0]["links"].as_array().cloned().unwrap_or_default();
            status["watchdog"]["state"] == "ok" && links.iter().all(|link| link["rtt_ms"].is_f64())
        })
        .expect("an answer");
    let server = bond.status(End::Server).expect("a status");

    let mut found = BTreeSet::new();
    for status in [&client, &server] {
        assert_eq!(status["version"], 1);
        paths(status, "", &mut found);
    }
    let documented = documented();
    let is_parent = |path: &&String| {
        documented
            .iter()
            .any(|known| known.starts_with(&format!("{path}.")) || known.starts_with(&format!("{path}[]")))
    };
    let unknown: Vec<_> =
        found.iter().filter(|path| !documented.contains(*path) && !is_parent(path)).collect();
    assert!(unknown.is_empty(), "not in docs/status.md: {unknown:#?}");
    // What is only there in another mode or after a mishap: below a value that was null or empty here.
    let is_below = |path: &str| {
        let inside = |parent: &String| {
            path.starts_with(&format!("{parent}.")) || path.starts_with(&format!("{parent}[]"))
        };
        found.iter().any(inside)
            || NAMED.iter().any(|(parent, name)| path.starts_with(&format!("{parent}.{name}")))
    };
    let gone: Vec<_> = documented.iter().filter(|path| !found.contains(*path) && !is_below(path)).collect();
    assert!(gone.is_empty(), "docs/status.md describes what is not there: {gone:#?}");
    bond.stop().expect("both daemons stop");
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    let program = env!("CARGO_BIN_EXE_bonding");
    let directory = Directory::new("bonding-exit").expect("a directory");
    let wrong = directory.write("wrong", "config interface 'bond'\n\toption mtu 'many'\n").expect("a file");
    let (wrong, absent) = (wrong.display().to_string(), directory.path("absent").display().to_string());
    for (arguments, code) in [
        (vec!["genkey"], 0),
        (vec!["check", &wrong], 1),
        (vec!["run", "--config", &wrong], 1),
        (vec!["dance"], 2),
        (vec!["status", "--loud"], 2),
        (vec!["check", &absent], 2),
        (vec!["status", "--socket", &absent], 3),
        (vec!["reload", "--socket", &absent], 3),
        (vec!["completion", "links", "--socket", &absent], 3),
    ] {
        let output = Command::new(program).args(&arguments).output().expect("it runs");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
}
