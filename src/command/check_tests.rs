//! What `bonding check` prints and returns. The messages themselves are in `tests/config_errors`.

use std::fs;

use super::*;

fn check(name: &str, text: &str) -> (String, u8) {
    let path = std::env::temp_dir().join(format!("bonding-check-{}-{name}", std::process::id()));
    fs::write(&path, text).expect("the temporary directory can be written");
    let mut out = Vec::new();
    let code = run(&path, &mut out).expect("writing to memory does not fail");
    fs::remove_file(&path).expect("own file");
    let text = String::from_utf8(out).expect("text");
    (text.replace(&path.display().to_string(), "FILE"), code)
}

const CLIENT: &str = "config interface bond\n option ipaddr 10.0.0.2/24\n option server vpn.example.com\n\
                      config link a\n option interface wan\n";

#[test]
fn a_right_file() {
    let key = "option public_key uKz0vFm3rO5nX0hKq3l8n2d4w6y8A0C2E4G6I8K0M2c=";
    let text = CLIENT.replace("option server", &format!("{key}\n option server"));
    assert_eq!(check("right", &text), ("FILE: right\n".into(), 0));
}

#[test]
fn a_missing_key_is_no_error_but_said() {
    let (text, code) = check("key", CLIENT);
    assert_eq!(code, 0);
    assert!(text.starts_with("FILE: not ready: section 'bond', option 'public_key': "), "{text}");
    assert!(text.ends_with("\nFILE: right, but not ready to run\n"), "{text}");
}

#[test]
fn an_error_and_a_warning() {
    let (text, code) = check("error", &format!("{CLIENT} option remote_port 99999\n option colour red\n"));
    assert_eq!(code, 1);
    assert_eq!(
        text,
        "FILE:6: section 'a', option 'remote_port': '99999' is not a port (1-65535)\n\
         FILE:7: warning: section 'a', option 'colour': unknown option\nFILE: 1 error, 1 warning\n"
    );
}

#[test]
fn a_file_that_cannot_be_read() {
    let mut out = Vec::new();
    assert_eq!(run(Path::new("/nonexistent/bonding"), &mut out).expect("memory"), 2);
    assert!(String::from_utf8(out).expect("text").starts_with("/nonexistent/bonding: cannot be read: "));
}
