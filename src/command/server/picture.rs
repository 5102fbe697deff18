//! A line as a picture for a camera (QR code, ISO/IEC 18004), drawn with half blocks: two rows of it in one of text.

use qrcodegen::{QrCode, QrCodeEcc};

/// Light modules around the picture, as the standard asks for.
const MARGIN: i32 = 4;

/// The picture of `text`, in black on white whatever the terminal's colours are if `colour`, else for a terminal with
/// light letters on dark ground. `None` when the text is too long for one.
pub(super) fn picture(text: &str, colour: bool) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let end = code.size() + MARGIN;
    // A light module is drawn, a dark one left out: what most terminals show as white and black.
    let light = |x: i32, y: i32| y < end && !code.get_module(x, y);
    let mut drawn = String::new();
    for y in (-MARGIN..end).step_by(2) {
        if colour {
            drawn.push_str("\x1b[97;40m");
        }
        for x in -MARGIN..end {
            drawn.push(match (light(x, y), light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        if colour {
            drawn.push_str("\x1b[0m");
        }
        drawn.push('\n');
    }
    Some(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_a_terminal() {
        let line = format!("bonding://{}", "A".repeat(230));
        let drawn = picture(&line, false).unwrap();
        let rows: Vec<&str> = drawn.lines().collect();
        let columns = rows[0].chars().count();
        assert!(columns <= super::super::super::text::COLUMNS, "{columns}");
        assert!(rows.iter().all(|row| row.chars().count() == columns));
        assert_eq!(rows.len(), columns.div_ceil(2));
        assert!(rows[0].chars().all(|c| c == '█') && rows[1].chars().all(|c| c == '█'), "the margin");
        // The finder pattern in the corner: seven dark modules, one dark row of them at the top.
        let corner: String = rows[2].chars().skip(4).take(8).collect();
        assert_eq!(corner, " ▄▄▄▄▄ █");
        assert!(picture(&"x".repeat(5_000), false).is_none());
    }

    #[test]
    fn colours_end_with_each_row() {
        let drawn = picture("bonding://", true).unwrap();
        assert!(drawn.lines().all(|row| row.starts_with("\x1b[97;40m") && row.ends_with("\x1b[0m")));
    }
}
