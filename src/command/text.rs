//! Text for a terminal: numbers with units, lines of 80 columns, colours, and nothing that steers the terminal.

use serde_json::Value;

/// Columns of the narrowest terminal that everything fits.
pub const COLUMNS: usize = 80;

/// Bits a second, for people; at most 9 characters below 1000 Gbit.
pub fn rate(bits: u64) -> String {
    match bits {
        0 => "0".to_owned(),
        1..999_500 => rounded(bits, 1_000, 0) + " kbit",
        999_500..99_950_000 => rounded(bits, 1_000_000, 1) + " Mbit",
        99_950_000..999_500_000 => rounded(bits, 1_000_000, 0) + " Mbit",
        999_500_000..9_995_000_000 => rounded(bits, 1_000_000_000, 2) + " Gbit",
        9_995_000_000..99_950_000_000 => rounded(bits, 1_000_000_000, 1) + " Gbit",
        _ => rounded(bits, 1_000_000_000, 0) + " Gbit",
    }
}

/// `count` in units of `unit`, with `digits` behind the point, 2 at most. In integers: the standard library's code for the
/// digits of a float is 11 KB.
fn rounded(count: u64, unit: u64, digits: usize) -> String {
    let parts = [1, 10, 100][digits];
    let (mut whole, rest) = (count / unit, count % unit);
    let mut part = (rest * parts + unit / 2) / unit;
    if part == parts {
        (whole, part) = (whole + 1, 0);
    }
    if digits == 0 { whole.to_string() } else { format!("{whole}.{part:0digits$}") }
}

/// Bytes, in the units of `wg show`.
pub fn bytes(count: u64) -> String {
    match count {
        0..0x400 => format!("{count} B"),
        0x400..0x10_0000 => rounded(count, 1 << 10, 2) + " KiB",
        0x10_0000..0x4000_0000 => rounded(count, 1 << 20, 2) + " MiB",
        0x4000_0000..0x100_0000_0000 => rounded(count, 1 << 30, 2) + " GiB",
        _ => rounded(count, 1 << 40, 2) + " TiB",
    }
}

/// Milliseconds, as the two largest units that count.
pub fn duration(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// A delay in milliseconds; at most 6 characters below 100 s.
pub fn milliseconds(ms: f64) -> String {
    rounded((1_000.0 * ms).round() as u64, 1_000, usize::from(ms < 999.95))
}

/// A share (0 to 1) in percent; at most 5 characters.
pub fn percent(share: f64) -> String {
    let percent = 100.0 * share.clamp(0.0, 1.0);
    if percent < 99.95 {
        rounded((1_000.0 * percent).round() as u64, 1_000, 1) + "%"
    } else {
        "100%".to_owned()
    }
}

/// How much of `most` is used, as a bar of `cells` characters; empty if `most` is not known.
pub fn bar(now: u64, most: Option<u64>, cells: usize) -> String {
    let Some(most) = most.filter(|most| *most > 0) else { return String::new() };
    let share = match now.checked_mul(cells as u64) {
        Some(parts) => parts / most,
        None => now / most.div_ceil(cells as u64),
    };
    let filled = usize::try_from(share).unwrap_or(cells).min(cells);
    format!("{}{}", "#".repeat(filled), ".".repeat(cells - filled))
}

/// `text` in lines of at most [`COLUMNS`], each `indent` deep. A word that is too long keeps its line to itself.
pub fn wrap(text: &str, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length <= COLUMNS {
            wrapped.push(' ');
            column += 1 + length;
        } else {
            if column > 0 {
                wrapped.push('\n');
            }
            wrapped.push_str(&" ".repeat(indent));
            column = indent + length;
        }
        wrapped.push_str(word);
    }
    if column > 0 {
        wrapped.push('\n');
    }
    wrapped
}

/// The first `most` characters.
pub fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// `text` without characters that steer a terminal or turn the direction of writing: names and reasons can come from
/// the other end.
pub fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// [`clean`] for all texts of a reply. Field names come from us or, as links, from the configuration: they are only
/// looked up.
pub fn clean_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text),
        Value::Array(items) => items.iter_mut().for_each(clean_value),
        Value::Object(fields) => fields.values_mut().for_each(clean_value),
        _ => {}
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint(pub bool);

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// For what a paragraph is about.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// For what is as it should be.
    pub fn green(self, text: &str) -> String {
        self.with("32", text)
    }

    /// For what may get better alone.
    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    /// For what somebody should look at.
    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fit_their_column() {
        for (bits, text) in [
            (0, "0"),
            (1, "0 kbit"),
            (500_000, "500 kbit"),
            (999_499, "999 kbit"),
            (999_500, "1.0 Mbit"),
            (11_800_000, "11.8 Mbit"),
            (99_949_999, "99.9 Mbit"),
            (99_950_000, "100 Mbit"),
            (999_500_000, "1.00 Gbit"),
            (9_995_000_000, "10.0 Gbit"),
            (100_000_000_000, "100 Gbit"),
        ] {
            assert_eq!(rate(bits), text);
            assert!(text.len() <= 9);
        }
    }

    #[test]
    fn bytes_have_the_unit_of_which_there_are_less_than_1024() {
        for (count, text) in [
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1_048_575, "1024.00 KiB"),
            (1_610_612_736, "1.50 GiB"),
            (u64::MAX, "16777216.00 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn shares_and_delays_fit_their_column() {
        assert_eq!(
            [percent(-1.0), percent(0.004), percent(0.9994), percent(0.9996)].join(" "),
            "0.0% 0.4% 99.9% 100%"
        );
        assert_eq!(
            [milliseconds(0.04), milliseconds(999.94), milliseconds(99_999.0)].join(" "),
            "0.0 999.9 99999"
        );
    }

    #[test]
    fn a_bar_never_leaves_its_cells() {
        assert_eq!(bar(5, Some(10), 4), "##..");
        assert_eq!(bar(u64::MAX, Some(1), 4), "####");
        assert_eq!(bar(u64::MAX - 1, Some(u64::MAX), 4), "###.");
        assert_eq!((bar(5, None, 4), bar(5, Some(0), 4)), (String::new(), String::new()));
    }

    #[test]
    fn long_texts_go_on_in_the_next_line() {
        let text = "word ".repeat(30);
        let wrapped = wrap(&text, 4);
        assert_eq!(wrapped.lines().count(), 2);
        assert!(wrapped.lines().all(|line| line.len() <= COLUMNS && line.starts_with("    word")));
        assert_eq!(wrapped.split_whitespace().count(), 30);
        let word = "x".repeat(100);
        assert_eq!(wrap(&format!("a {word} b"), 1), format!(" a\n {word}\n b\n"));
        assert_eq!(wrap("", 2), "");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("lte\x1b[2J\u{9b}1m\u{202e}\n"), "lte\u{fffd}[2J\u{fffd}1m\u{fffd}\u{fffd}");
        let mut value = serde_json::json!({ "a": ["\x07", 1, null], "b": { "c": "ü" } });
        clean_value(&mut value);
        assert_eq!(value, serde_json::json!({ "a": ["\u{fffd}", 1, null], "b": { "c": "ü" } }));
    }
}
