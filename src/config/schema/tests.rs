//! The table is whole: defaults are values, names are unique, the manual and the JSON follow it.

use std::collections::HashSet;
use std::{env, fs};

use super::*;

fn all() -> impl Iterator<Item = (&'static SectionSpec, &'static OptionSpec)> {
    SECTIONS.iter().flat_map(|section| section.options.iter().map(move |option| (section, option)))
}

#[test]
fn every_default_is_a_value_of_its_type() {
    for (section, option) in all().filter(|(_, option)| !option.default.is_empty()) {
        assert!(option.kind.accepts(option.default), "{}.{}: {}", section.kind, option.name, option.default);
        assert!(!option.required, "{}.{} is required and has a default", section.kind, option.name);
    }
}

#[test]
fn names_are_unique_and_uci() {
    let mut seen = HashSet::new();
    for (section, option) in all() {
        assert!(seen.insert((section.kind, option.name)), "{}.{}", section.kind, option.name);
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(option.name.chars().all(plain), "{}", option.name);
    }
}

#[test]
fn help_is_one_sentence() {
    let choices = all().filter_map(|(_, option)| match option.kind {
        Kind::Choice(choices) => Some(choices),
        _ => None,
    });
    for choice in choices.flatten() {
        assert!(!choice.help.is_empty() && !choice.help.ends_with('.'), "{}", choice.word);
    }
    for (section, option) in all() {
        let help = option.help;
        assert!(
            help.ends_with('.') && help.len() < 140 && !help.contains(['|', '\n']),
            "{}.{}",
            section.kind,
            option.name
        );
    }
}

#[test]
fn a_kind_accepts_its_own_examples() {
    for (section, option) in all() {
        let expected = option.kind.expected();
        let Some(examples) = expected.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')) else {
            continue;
        };
        if !matches!(
            option.kind,
            Kind::Rate
                | Kind::Size
                | Kind::Cidr
                | Kind::Prefix
                | Kind::Netmask
                | Kind::PortRange
                | Kind::Bool
        ) {
            continue;
        }
        for example in examples.split(';').next().unwrap_or_default().split(", ") {
            assert!(option.kind.accepts(example), "{}.{}: {example}", section.kind, option.name);
        }
    }
}

#[test]
fn the_manual_is_up_to_date() {
    for (file, made) in
        [("docs/options.md", options_markdown()), ("docs/man/bonding.conf.5", roff::options_page())]
    {
        let path = format!("{}/../{file}", env!("CARGO_MANIFEST_DIR"));
        if env::var_os("BLESS").is_some() {
            fs::write(&path, &made).expect("docs/ can be written");
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == made,
            "{file} differs from the schema: run `BLESS=1 cargo test manual_is_up_to_date`"
        );
    }
}

#[test]
fn json_has_every_option() {
    let json = options_json();
    assert_eq!(json["version"], 1);
    for (section, option) in all() {
        let sections = json["sections"].as_array().expect("a list");
        let found = sections.iter().find(|entry| entry["type"] == section.kind).expect("the section");
        let options = found["options"].as_array().expect("a list");
        let entry = options.iter().find(|entry| entry["name"] == option.name).expect("the option");
        assert_eq!(entry["type"], option.kind.as_str());
        assert_eq!(entry["help"], option.help);
        assert_eq!(entry["list"], option.list);
        assert_eq!(entry["default"].as_str().unwrap_or_default(), option.default);
    }
    let port = &json["sections"][1]["options"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|o| o["name"] == "remote_port");
    assert_eq!(port.expect("there")["max"], 65_535);
}
