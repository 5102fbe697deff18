//! Reads one section by the schema: each value is checked against its option's type, each problem is noted.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::key::Secret;
use super::log::{At, Log};
use super::schema::{Kind, OptionSpec, SECTIONS, SectionSpec};
use super::spelling::nearest;
use super::types::{Policy, Script};
use super::uci::Section;
use super::value::{self, IpNet, Rate};
use crate::bond::sorted::SortedMap;

/// The largest number of values of one list.
const MAX_VALUES: usize = 1024;

/// The values of one section, checked against the schema.
pub(super) struct Reader<'a, 'b> {
    log: &'a mut Log<'b>,
    spec: Option<&'static SectionSpec>,
    values: SortedMap<&'static str, Vec<Zeroizing<String>>>,
}

impl<'a, 'b> Reader<'a, 'b> {
    /// Checks every option of the section at `index`; `complete` if required ones must be there.
    pub(super) fn new(log: &'a mut Log<'b>, index: Option<usize>, kind: &str, complete: bool) -> Self {
        let mut reader = Reader { log, spec: SectionSpec::find(kind), values: SortedMap::new() };
        let document = reader.log.document;
        if let Some((index, section)) = index.and_then(|index| Some((index, document.sections.get(index)?))) {
            reader.check(index, section, complete);
        }
        reader
    }

    fn check(&mut self, index: usize, section: &Section, complete: bool) {
        let Some(spec) = self.spec else { return };
        for entry in &section.entries {
            let at = At::option(index, &entry.name);
            let Some(option) = spec.option(&entry.name) else {
                if !self.log.is_full() {
                    self.log.warning(at, unknown_option(spec, &entry.name));
                }
                continue;
            };
            if !option.list && entry.values.len() > 1 {
                self.log.error(at, format_args!("has {} values, but can have only one", entry.values.len()));
                continue;
            }
            let mut accepted = Vec::new();
            for value in &entry.values {
                let at = At { line: Some(value.line), ..at };
                let words: Vec<&str> = match option.list && !is_placeholder(&value.text) {
                    true => value.text.split_whitespace().collect(),
                    false => vec![value.text.trim()],
                };
                for word in words {
                    match complaint(option, word) {
                        Some(message) => self.log.error(at, message),
                        None => accepted.push(Zeroizing::new(word.to_owned())),
                    }
                }
            }
            if accepted.len() > MAX_VALUES {
                self.log.error(at, format_args!("has {} values; the limit is {MAX_VALUES}", accepted.len()));
                accepted.clear();
            }
            self.values.insert(option.name, accepted);
        }
        for option in spec.options.iter().filter(|option| option.required && complete) {
            if section.entry(option.name).is_none() {
                self.log.error(
                    At { line: Some(section.line), ..At::option(index, option.name) },
                    format_args!("is missing; it must be {}", option.kind.expected()),
                );
            }
        }
    }

    fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        let option = self.spec.and_then(|spec| spec.option(name));
        debug_assert!(option.is_some(), "option '{name}' is not in the schema");
        option
    }

    /// Whether the file gives the option.
    pub(super) fn given(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|values| !values.is_empty())
    }

    /// The texts of an option, else its default.
    fn texts(&self, name: &str) -> Vec<&str> {
        let Some(option) = self.option(name) else { return Vec::new() };
        match self.values.get(name).filter(|values| !values.is_empty()) {
            Some(values) => values.iter().map(|value| value.as_str()).collect(),
            None if option.default.is_empty() => Vec::new(),
            None => vec![option.default],
        }
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.texts(name).pop()
    }

    /// The values of an option, else its default.
    pub(super) fn all<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut all = Vec::new();
        for text in self.texts(name) {
            all.extend(parse(text));
        }
        all
    }

    /// The value of an option, else its default.
    pub(super) fn one<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        parse(self.last(name)?)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.one(name, value::boolean).unwrap_or(false)
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.one(name, |text| u32::try_from(value::integer(text)?).ok())
    }

    pub(super) fn duration(&self, name: &str) -> Duration {
        self.one(name, value::duration).unwrap_or_default()
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.one(name, |text| Some(text.to_owned()))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.text(name).unwrap_or_default().into()
    }

    pub(super) fn address(&self, name: &str) -> Option<IpAddr> {
        self.one(name, |text| text.parse().ok())
    }

    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.all(name, |text| text.parse().ok())
    }

    pub(super) fn networks(&self, name: &str) -> Vec<IpNet> {
        self.all(name, ip_net)
    }

    /// A rate limit: 0 is none.
    pub(super) fn rate(&self, name: &str) -> Option<Rate> {
        self.one(name, value::rate).filter(|rate| rate.0 > 0)
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        self.number("mtu").and_then(|mtu| u16::try_from(mtu).ok()).filter(|mtu| *mtu > 0)
    }

    pub(super) fn secret(&self, name: &str) -> Option<Secret> {
        self.one(name, Secret::from_base64)
    }

    pub(super) fn script(&self, name: &str) -> Script {
        Script { path: self.path(name), configured: self.given(name) }
    }

    pub(super) fn policy(&self) -> Option<Policy> {
        self.one("policy", |text| match text {
            "adaptive" => Some(Policy::Adaptive),
            "weighted" => Some(Policy::Weighted),
            "round-robin" => Some(Policy::RoundRobin),
            "flow" => Some(Policy::Flow),
            "active-backup" => Some(Policy::ActiveBackup),
            "redundant" => Some(Policy::Redundant),
            _ => None,
        })
    }
}

fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    text.len() > 2 && text.starts_with('<') && text.ends_with('>')
}

/// What is wrong with one value, if anything.
fn complaint(option: &OptionSpec, word: &str) -> Option<String> {
    let expected = option.kind.expected();
    if is_placeholder(word) && !option.kind.is_secret() {
        return Some(format!("'{word}' is a placeholder; put {expected} in its place"));
    }
    if !option.kind.accepts(word) {
        if option.kind.is_secret() {
            return Some(format!("the value is not {expected}"));
        }
        let shown: String = word.chars().take(60).collect();
        let dots = if shown.len() < word.len() { "…" } else { "" };
        let hint = match option.kind {
            Kind::Choice(choices) => nearest(word, choices.iter().map(|choice| choice.word))
                .map(|near| format!("; did you mean '{near}'?")),
            Kind::Host if word.rsplit_once(':').is_some_and(|(_, port)| value::port(port).is_some()) => {
                Some("; the port goes into 'remote_port'".into())
            }
            Kind::Rate if word.to_ascii_lowercase().ends_with("ps") => {
                Some("; write bits as 'kbit' or 'mbit', bytes times 8".into())
            }
            _ => None,
        };
        let hint = hint.unwrap_or_default();
        return Some(format!("'{}{dots}' is not {expected}{hint}", shown.escape_debug()));
    }
    let net = matches!(option.kind, Kind::Prefix).then(|| ip_net(word)).flatten()?;
    (net.trunc() != net)
        .then(|| format!("'{word}' is an address in a network; write the network, '{}'", net.trunc()))
}

fn unknown_option(spec: &SectionSpec, name: &str) -> String {
    if let Some(near) = nearest(name, spec.options.iter().map(|option| option.name)) {
        return format!("unknown option; did you mean '{near}'?");
    }
    let elsewhere = SECTIONS.iter().find(|section| section.option(name).is_some());
    match elsewhere {
        Some(section) => format!("unknown option here; it belongs in section '{}'", section.kind),
        None => "unknown option".into(),
    }
}

fn ip_net(text: &str) -> Option<IpNet> {
    let (address, prefix) = value::network(text)?;
    Some(prefix.map_or(IpNet::host(address), |prefix| IpNet { address, prefix }))
}
