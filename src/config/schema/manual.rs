//! The schema for people: `docs/options.md`.

use std::fmt::Write as _;

use super::{Kind, OptionSpec, SECTIONS, SectionSpec, Side};

/// What stands above the tables.
const HEAD: &str = "\
# Options of `/etc/config/bonding`

This page is made from the schema in the source; `bonding options` prints it.

A value is written as everywhere in UCI. Besides:

* **bool**: `1`, `on`, `true`, `yes`, `enabled`, or `0`, `off`, `false`, `no`, `disabled`.
* **rate**: `10mbit`, `1.5m`, `800k`, `64000bit`. A plain number is in kbit/s, as in OpenWrt's SQM. Decimal multiples; 0 is no limit.
* **duration**: `500ms`, `5` or `5s`, `1m`, `2h`. A plain number is in seconds.
* **size**: `10G`, `500M`, `1.5GiB`. A plain number is in bytes; K, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024.
* **list**: `list NAME 'VALUE'` once for each value, or `option NAME 'VALUE VALUE …'`.
* **key**, **secret**: 32 bytes in base64, as `bonding genkey`, `bonding pubkey` and `bonding genpsk` print them.

Options marked ◦ are for special cases: most people never need them.
";

/// The manual of all options, in Markdown.
pub fn options_markdown() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        section_markdown(&mut text, section);
    }
    text
}

fn section_markdown(text: &mut String, section: &SectionSpec) {
    let _ = write!(text, "\n## `config {}`\n\n{}", section.kind, section.help);
    let _ = match section.side {
        Side::Both => write!(text, " On both ends"),
        Side::Client => write!(text, " On the router"),
        Side::Server => write!(text, " On the server"),
    };
    let _ = write!(text, "{}", if section.single { ", once." } else { ", as many as needed." });
    let _ = write!(text, " Its name: {}.\n\n", section.name);
    text.push_str("| option | type | default | meaning |\n| --- | --- | --- | --- |\n");
    for option in section.options {
        let mark = if option.advanced { " ◦" } else { "" };
        let _ = writeln!(
            text,
            "| `{}`{mark} | {} | {} | {} |",
            option.name,
            kind_markdown(option),
            default_markdown(option),
            meaning(section, option)
        );
    }
    for option in section.options {
        if let Kind::Choice(choices) = option.kind {
            let _ = write!(text, "\n`{}` is one of\n\n", option.name);
            for choice in choices {
                let _ = writeln!(text, "* `{}`: {}", choice.word, choice.help);
            }
        }
    }
}

fn kind_markdown(option: &OptionSpec) -> String {
    let name = match option.kind {
        Kind::Integer { min, max, unit: "" } => format!("{min}-{max}"),
        Kind::Integer { min, max, unit } => format!("{min}-{max} {unit}"),
        kind => kind.as_str().into(),
    };
    if option.list { format!("list of {name}") } else { name }
}

fn default_markdown(option: &OptionSpec) -> String {
    match option.default {
        "" if option.required => "required".into(),
        "" => String::new(),
        default => format!("`{default}`"),
    }
}

fn meaning(section: &SectionSpec, option: &OptionSpec) -> String {
    match option.side {
        side if side == section.side || side == Side::Both => option.help.into(),
        Side::Client => format!("Router: {}", option.help),
        _ => format!("Server: {}", option.help),
    }
}
