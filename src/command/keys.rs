//! `bonding genkey`, `pubkey` and `genpsk`: keys as `wg` makes them.

use std::io::{self, Read, Write};

use zeroize::Zeroizing;

use crate::bond::keys::{PresharedKey, PrivateKey};

fn random(bytes: &mut [u8]) {
    // Without randomness there is no key to make.
    getrandom::fill(bytes).expect("the kernel's random generator works");
}

/// Prints a new private key.
pub fn generate(out: &mut dyn Write) -> io::Result<u8> {
    writeln!(out, "{}", *PrivateKey::generate(&mut random).to_text())?;
    Ok(0)
}

/// Prints a new pre-shared key.
pub fn generate_preshared(out: &mut dyn Write) -> io::Result<u8> {
    writeln!(out, "{}", *PresharedKey::generate(&mut random).to_text())?;
    Ok(0)
}

/// Prints the public key of the private key that `input` gives.
pub fn public(input: &mut dyn Read, out: &mut dyn Write) -> io::Result<u8> {
    let mut text = Zeroizing::new(String::new());
    input.take(256).read_to_string(&mut text)?;
    match text.trim().parse::<PrivateKey>() {
        Ok(key) => {
            writeln!(out, "{}", key.public())?;
            Ok(0)
        }
        Err(error) => {
            eprintln!("bonding pubkey: standard input: {error}");
            Ok(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_a_public_key() {
        let (mut private, mut public_key) = (Vec::new(), Vec::new());
        assert_eq!(generate(&mut private).unwrap(), 0);
        assert_eq!(private.len(), 45);
        assert_eq!(public(&mut &private[..], &mut public_key).unwrap(), 0);
        assert_eq!(public_key.len(), 45);
        assert_ne!(private, public_key);
        assert_eq!(public(&mut &b"nonsense"[..], &mut Vec::new()).unwrap(), 1);
    }
}
