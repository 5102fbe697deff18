//! Figures in a document.

use std::fs;
use std::io;
use std::path::Path;

/// Writes `report` between the marks `<!-- PART begins -->` and `<!-- PART ends -->` of a document.
///
/// # Errors
///
/// When it cannot be read or written, or has no such marks.
pub fn renew(document: &Path, part: &str, report: &str) -> io::Result<()> {
    let text = fs::read_to_string(document)?;
    let renewed = replaced(&text, part, report);
    let missing = || io::Error::other(format!("{} has no marks of '{part}'", document.display()));
    fs::write(document, renewed.ok_or_else(missing)?)
}

fn replaced(text: &str, part: &str, report: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {part} begins -->\n"), format!("<!-- {part} ends -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", report.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_is_replaced() {
        let text = "a\n<!-- x begins -->\nold\n<!-- x ends -->\nb\n";
        let renewed = replaced(text, "x", "new\n").unwrap();
        assert_eq!(renewed, "a\n<!-- x begins -->\n\nnew\n\n<!-- x ends -->\nb\n");
        assert_eq!(replaced(&renewed, "x", "new\n").as_ref(), Some(&renewed));
        assert!(replaced(text, "y", "new").is_none());
    }
}
