//! `bonding options`: every option of the configuration, for people (Markdown) or programs (JSON).

use std::io::{self, Write};

use crate::config::schema;

/// Prints the schema. Exit code: always 0.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn run(json: bool, out: &mut dyn Write) -> io::Result<u8> {
    if json {
        writeln!(out, "{:#}", schema::options_json())?;
    } else {
        out.write_all(schema::options_markdown().as_bytes())?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_both_forms() {
        let mut out = Vec::new();
        assert_eq!(run(true, &mut out).expect("memory"), 0);
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert!(json["sections"].is_array());
        out.clear();
        assert_eq!(run(false, &mut out).expect("memory"), 0);
        assert!(out.starts_with(b"# Options"));
    }
}
