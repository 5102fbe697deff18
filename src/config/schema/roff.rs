//! The schema as a manual page: `docs/man/bonding.conf.5`.

use std::fmt::Write as _;

use super::{Kind, OptionSpec, SECTIONS, Side};

const HEAD: &str = r#".\" Made from the schema in the source.
.TH BONDING.CONF 5 "" "bonding" "File formats"
.SH NAME
bonding.conf \- configuration of bonding
.SH SYNOPSIS
.I /etc/config/bonding
(OpenWrt),
.IR /etc/bonding/server.conf ,
.I /etc/bonding/client.conf
.SH DESCRIPTION
The file has the syntax of UCI:
.PP
.nf
    config link 'adsl1'
            option interface 'wan'
            list server '203.0.113.10'
.fi
.PP
.B bonding check
.I file
names every mistake in it.
.PP
A rate is written as 10mbit, 1.5m or 800k; a plain number is in kbit/s, and 0 is no limit. A duration is written as 500ms,
5s, 1m or 2h; a plain number is in seconds. A size is written as 10G or 1.5GiB. A bool is 1, on, true, yes, enabled, or
the opposite of these. Keys are 32 bytes in base64.
"#;

const TAIL: &str = ".SH SEE ALSO\n.BR bonding (8)\n";

/// The page.
pub(super) fn options_page() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        let _ = write!(text, ".SH CONFIG {}\n{}", section.kind.to_uppercase(), escape(section.help));
        text.push_str(match section.side {
            Side::Both => " On both ends",
            Side::Client => " On the router",
            Side::Server => " On the server",
        });
        text.push_str(if section.single { ", once.\n" } else { ", as many as needed.\n" });
        let _ = writeln!(text, "Its name: {}.", escape(section.name));
        for option in section.options {
            describe(option, section.side, &mut text);
        }
    }
    text + TAIL
}

fn describe(option: &OptionSpec, side: Side, text: &mut String) {
    let list = if option.list { "list of " } else { "" };
    let _ = write!(text, ".TP\n\\fB{}\\fR ({list}", option.name);
    let _ = match option.kind {
        Kind::Integer { min, max, unit: "" } => write!(text, "{min}\\-{max}"),
        Kind::Integer { min, max, unit } => write!(text, "{min}\\-{max} {unit}"),
        kind => write!(text, "{}", kind.as_str()),
    };
    match option.default {
        "" if option.required => text.push_str(", required"),
        "" => {}
        default => {
            let _ = write!(text, ", default {}", escape(default));
        }
    }
    text.push_str(")\n");
    match option.side {
        own if own == side || own == Side::Both => {}
        Side::Client => text.push_str("Router: "),
        _ => text.push_str("Server: "),
    }
    let _ = writeln!(text, "{}", escape(option.help));
    if let Kind::Choice(choices) = option.kind {
        for choice in choices {
            let _ = writeln!(text, ".IP\n\\fB{}\\fR: {}.", escape(choice.word), escape(choice.help));
        }
    }
}

/// Text as roff takes it: a line must not begin with what would be a request.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
