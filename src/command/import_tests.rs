//! The command around the import; the translation is tested in `config::mlvpn`.

use super::*;

fn import(path: &str) -> (String, String, u8) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let (mut out, mut advice) = (Vec::new(), Vec::new());
    let code = run(&path, &mut out, &mut advice).expect("writing to memory does not fail");
    (String::from_utf8(out).expect("text"), String::from_utf8(advice).expect("text"), code)
}

#[test]
fn the_result_goes_out_and_the_advice_beside_it() {
    let (out, advice, code) = import("tests/fixtures/mlvpn/client.conf");
    assert_eq!(code, 0, "{advice}");
    assert!(out.contains("config link 'adsl1'"), "{out}");
    assert!(advice.contains("bonding genkey"), "{advice}");
    assert!(!advice.contains("the result"), "{advice}");
}

#[test]
fn other_files_give_no_result() {
    let (out, advice, code) = import("tests/fixtures/uci/network");
    assert_eq!((out.as_str(), code), ("", 1));
    assert!(advice.contains("[general]"), "{advice}");
    let (out, _, code) = import("tests/fixtures/nothing");
    assert_eq!((out.as_str(), code), ("", 2));
}
