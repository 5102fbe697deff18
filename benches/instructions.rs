//! `make bench-core`: instructions that the core spends on an inner packet of 1400 bytes, in each direction.
//!
//! Callgrind counts them, so that the figures are the same in each run on whatever machine, and a change for the worse
//! is seen. No system call is among them. Callgrind's processor has AES instructions but no AVX-512; encryption alone is
//! counted as well, so that what is left is the same for all processors.
//!
//! ```text
//! cargo bench --bench instructions [-- --document docs/performance.md]
//! ```

mod pair;

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use bonding::bond::aead::AeadKey;
use bonding::bond::cipher::Cipher;
use lab::document::renew;
use pair::{BURST, PACKET, Pair};

/// Bursts that are counted.
const BURSTS: usize = 200;

/// What is counted: what it is called, and the function in which callgrind counts.
const COUNTED: [(&str, &str, u8); 6] = [
    ("sending, one link", "*Pair*send*", 1),
    ("receiving, one link", "*Pair*receive*", 1),
    ("sending, two links", "*Pair*send*", 2),
    ("receiving, two links", "*Pair*receive*", 2),
    ("of which sealing", "*seal_all*", 0),
    ("of which opening", "*open_all*", 0),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let document = match arguments.as_slice() {
        ["--run", links] => {
            run(links.parse().unwrap_or(1));
            return ExitCode::SUCCESS;
        }
        [] => None,
        ["--document", document] => Some(*document),
        _ => {
            eprintln!("usage: instructions [--document FILE]");
            return ExitCode::from(2);
        }
    };
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("valgrind is not installed: install it with 'apt-get install valgrind', then try again");
        return ExitCode::FAILURE;
    }
    match measure() {
        Ok(table) => {
            print!("{table}");
            match document.map_or(Ok(()), |document| renew(Path::new(document), "bench-core", &table)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("instructions: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(why) => {
            eprintln!("instructions: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What runs under callgrind.
fn run(links: u8) {
    if links == 0 {
        let key = AeadKey::derive(Cipher::Aes256Gcm, &[7; 32]);
        // The shim is sealed with the packet.
        let mut texts = vec![vec![1u8; PACKET + 8]; BURSTS * BURST];
        let tags = seal_all(&key, &mut texts);
        open_all(&key, &mut texts, &tags);
        return;
    }
    let mut pair = Pair::new(links);
    // Callgrind counts within these functions from the start, so the warm-up must be known to be left out: it is the
    // same in a run of no bursts.
    let bursts = std::env::var("BURSTS").ok().and_then(|text| text.parse().ok()).unwrap_or(BURSTS);
    let before = pair.delivered;
    for _ in 0..bursts {
        pair.send(BURST);
        pair.receive();
        pair.step();
    }
    assert_eq!(pair.delivered - before, (bursts * BURST) as u64, "packets were lost");
}

#[inline(never)]
fn seal_all(key: &AeadKey, texts: &mut [Vec<u8>]) -> Vec<[u8; 16]> {
    texts.iter_mut().map(|text| black_box(key.seal(&[0; 12], &[0; 8], text))).collect()
}

#[inline(never)]
fn open_all(key: &AeadKey, texts: &mut [Vec<u8>], tags: &[[u8; 16]]) {
    for (text, tag) in texts.iter_mut().zip(tags) {
        black_box(key.open(&[0; 12], &[0; 8], text, tag)).expect("sealed above");
    }
}

fn measure() -> Result<String, String> {
    let mut table = String::from("| | instructions a packet |\n| --- | ---: |\n");
    for (name, function, links) in COUNTED {
        let warm_up = if links > 0 { count(function, links, 0)? } else { 0 };
        let all = count(function, links, BURSTS)?;
        let each = all.saturating_sub(warm_up) / (BURSTS * BURST) as u64;
        table += &format!("| {name} | {each} |\n");
    }
    Ok(table)
}

/// Instructions within `function`.
fn count(function: &str, links: u8, bursts: usize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={function}"))
        .arg(program)
        .args(["--run", &links.to_string()])
        .env("BURSTS", bursts.to_string())
        .output()
        .map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(said.into_owned());
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, number)| number.trim().parse().ok());
    count.filter(|count| *count > 0).ok_or_else(|| format!("callgrind found no function {function}"))
}
