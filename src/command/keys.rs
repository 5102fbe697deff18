//! `bonding genkey`, `pubkey` and `genpsk`: keys as `wg` makes them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use crate::bond::keys::{KEY_LEN, PresharedKey, PrivateKey};
use crate::config::key::Secret;
use crate::config::store;

/// Bytes of standard input that may hold a key and white space.
const MAX_INPUT: usize = 256;

/// Prints a new private key.
///
/// # Errors
///
/// When the kernel gives no random bytes, or `out` cannot be written.
pub fn generate(out: &mut dyn Write) -> io::Result<u8> {
    print(&PrivateKey::from_bytes(*random()?).to_text(), out)
}

/// Prints a new pre-shared key.
///
/// # Errors
///
/// As [`generate`].
pub fn generate_preshared(out: &mut dyn Write) -> io::Result<u8> {
    print(&PresharedKey::from_bytes(*random()?).to_text(), out)
}

/// Makes a private key in a file of its own, mode 0600, where there is none yet; gives whether it did.
///
/// # Errors
///
/// When the kernel gives no random bytes, or the file cannot be written.
pub fn create_private(path: &Path) -> io::Result<bool> {
    let mut text = PrivateKey::from_bytes(*random()?).to_text();
    text.reserve_exact(1);
    text.push('\n');
    store::create(path, &text)
}

/// A new pre-shared key.
///
/// # Errors
///
/// When the kernel gives no random bytes.
pub fn new_secret() -> io::Result<Secret> {
    random().map(Secret::new)
}

/// Prints the public key of the private key that `input` gives. Exit code: 1 if that is no key.
///
/// # Errors
///
/// When `input` cannot be read or `out` cannot be written.
pub fn public(input: &mut dyn Read, out: &mut dyn Write) -> io::Result<u8> {
    // One more than allowed tells a long input from a full one. A buffer that grew would leave copies behind.
    let mut bytes = Zeroizing::new([0; MAX_INPUT + 1]);
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let text = bytes.get(..length.min(MAX_INPUT + 1)).unwrap_or_default();
    if text.len() > MAX_INPUT {
        return Ok(super::failure("pubkey: standard input is not a key: it is too long"));
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Ok(super::failure("pubkey: standard input is not a key: it is not text"));
    };
    match text.trim().parse::<PrivateKey>() {
        Ok(key) => print(&key.public().to_string(), out),
        Err(error) => Ok(super::failure(&format!("pubkey: standard input: {error}"))),
    }
}

/// Warns, as `wg` does, before a secret goes to a file that others can read.
pub fn warn_if_readable(output: impl AsFd) {
    if is_readable(output).unwrap_or(false) {
        super::complain("warning: others can read this file: next time say `umask 077` first");
    }
}

fn is_readable(output: impl AsFd) -> io::Result<bool> {
    let metadata = File::from(output.as_fd().try_clone_to_owned()?).metadata()?;
    Ok(metadata.is_file() && metadata.mode() & 0o007 != 0)
}

fn random() -> io::Result<Zeroizing<[u8; KEY_LEN]>> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    let failed = |error| io::Error::other(format!("the kernel gives no random bytes: {error}"));
    getrandom::fill(&mut *bytes).map_err(failed)?;
    Ok(bytes)
}

fn print(key: &str, out: &mut dyn Write) -> io::Result<u8> {
    writeln!(out, "{key}")?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn public_of(text: &[u8]) -> (u8, String) {
        let mut out = Vec::new();
        (public(&mut &*text, &mut out).unwrap(), String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_generated_key_has_a_public_key() {
        let (mut private, mut other) = (Vec::new(), Vec::new());
        assert_eq!((generate(&mut private).unwrap(), generate(&mut other).unwrap()), (0, 0));
        assert_eq!((private.len(), private.last()), (45, Some(&b'\n')));
        assert_ne!(private, other);
        let (code, key) = public_of(&private);
        assert_eq!((code, key.len()), (0, 45));
        assert_ne!(key.as_bytes(), private);
    }

    #[test]
    fn pre_shared_keys_differ() {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        generate_preshared(&mut one).unwrap();
        generate_preshared(&mut other).unwrap();
        assert_eq!(one.len(), 45);
        assert_ne!(one, other);
    }

    #[test]
    fn the_public_key_is_the_one_of_rfc_7748() {
        let alice = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
        let expected = (0, "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n".to_owned());
        assert_eq!(public_of(alice.as_bytes()), expected);
        assert_eq!(public_of(format!("\n{alice}\r\n").as_bytes()), expected);
        let junk = format!("{alice}{}junk", " ".repeat(MAX_INPUT));
        for text in
            [b"nonsense".as_slice(), b"", b"\xff", junk.as_bytes(), format!("{alice} junk").as_bytes()]
        {
            assert_eq!(public_of(text), (1, String::new()));
        }
    }

    #[test]
    fn only_files_that_others_can_use_are_warned_of() {
        let path = std::env::temp_dir().join(format!("bonding-key-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        for (mode, readable) in [(0o600, false), (0o640, false), (0o644, true)] {
            file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_readable(&file).unwrap(), readable, "{mode:o}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(!is_readable(File::open("/dev/null").unwrap()).unwrap(), "a device is no file");
    }
}
