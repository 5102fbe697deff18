//! Wrong files, each with its exact messages.
//!
//! `tests/config_errors/*.txt` hold the cases: a line `=== TITLE`, the file, a line `---`, what `bonding check` prints.
//! After a change that is meant, `BLESS=1 cargo test --test config_errors` writes the messages anew; read the difference.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use bonding::config;

struct Case<'a> {
    title: &'a str,
    file: &'a str,
    expected: &'a str,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    text.split("=== ")
        .skip(1)
        .map(|case| {
            let (title, rest) = case.split_once('\n').expect("a title ends with its line");
            let (file, expected) = rest.split_once("\n---\n").unwrap_or((rest, ""));
            Case { title, file: file.trim_end_matches('\n'), expected: expected.trim_end() }
        })
        .collect()
}

/// What the program's `check` prints about `file`, under the name `bonding`, and its exit code.
fn check(directory: &Path, title: &str, file: &str) -> (String, u8) {
    let name: String = title.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = directory.join(name);
    // What cannot be seen in a table is written ␍ (\r), ␀ (\0), ␄ (the file ends here, without a newline).
    let text = format!("{file}\n").replace('␍', "\r").replace('␀', "\0").replace("␄\n", "");
    fs::write(&path, text).expect("the test's own directory can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_bonding")).arg("check").arg(&path).output();
    let output = output.expect("the program runs");
    assert!(output.stderr.is_empty(), "{title}: {}", String::from_utf8_lossy(&output.stderr));
    let code = output.status.code().and_then(|code| u8::try_from(code).ok()).expect("it exits");
    let text = String::from_utf8(output.stdout).expect("messages are UTF-8");
    let text = text.replace(&path.display().to_string(), "bonding");
    (text.trim_end().to_owned(), code)
}

#[test]
fn every_mistake_is_named() {
    let tables = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_errors");
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("config_errors");
    fs::create_dir_all(&scratch).expect("cargo gives a directory for tests");
    let bless = env::var_os("BLESS").is_some();
    let (mut count, mut wrong) = (0, String::new());
    let mut paths: Vec<PathBuf> = fs::read_dir(&tables)
        .expect("the tables are there")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).expect("a table is text");
        let mut blessed = String::new();
        for case in cases(&text) {
            count += 1;
            let (printed, code) = check(&scratch, case.title, case.file);
            let _ = write!(blessed, "=== {}\n{}\n---\n{printed}\n\n", case.title, case.file);
            if printed != case.expected {
                let _ =
                    writeln!(wrong, "{}\nexpected:\n{}\nprinted:\n{printed}\n", case.title, case.expected);
            }
            assert!(printed.lines().count() > 1, "{}: nothing is said about it", case.title);
            let refused = printed.lines().any(|line| line.contains(" error"));
            assert_eq!(code, u8::from(refused), "{}: exit code", case.title);
        }
        if bless {
            fs::write(&path, blessed.trim_end().to_owned() + "\n").expect("tables can be written");
        }
    }
    assert!(bless || wrong.is_empty(), "{wrong}");
    assert!(count >= 60, "only {count} cases");
}

#[test]
fn no_secret_is_ever_printed() {
    let secret = "uKz0vFm3rO5nX0hKq3l8n2d4w6y8A0C2E4G6I8K0M2c=";
    for (option, section) in
        [("private_key", "globals"), ("preshared_key", "interface"), ("preshared_key", "peer 'a'")]
    {
        for text in
            [secret.to_owned(), format!("{secret}x"), format!("<{secret}>"), format!("{secret} {secret}")]
        {
            let file = format!("config {section}\n\toption {option} '{text}'\n\tlist {option} '{text}'\n");
            let report = config::load(&file, "bonding");
            let shown = format!("{report:?}");
            assert!(!shown.contains(&secret[..20]), "{shown}");
        }
    }
    let report = config::load(
        &format!(
            "config globals\n\toption private_key '{secret}'\nconfig interface\n\toption ipaddr '10.0.0.2/24'\n\
             \toption preshared_key '{secret}'\n\toption server '192.0.2.1'\nconfig link 'a'\n\toption device 'eth0'\n"
        ),
        "bonding",
    );
    let config = report.config.expect("the file is right");
    assert!(config.globals.private_key.is_some() && config.bond.preshared_key.is_some());
    assert!(!format!("{config:?}").contains(&secret[..20]));
}
