//! `bonding join 'bonding://…' --wan wan0 --wan wan1`: the router's configuration from one line of the server.
//!
//! What the line says replaces what the file says of the server; everything else in the file stays: comments, order,
//! limits, rules, scripts. With `--wan`, the links are these and no others. With `--add NAME` the line is for another
//! server, which is used when the first does not answer: a `server` section and nothing else.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use super::{installed, keys};
use crate::bond::keys::{PresharedKey, PrivateKey};
use crate::config::edit::{EditError, Editor};
use crate::config::invitation::{Invitation, InvitationError};
use crate::config::key::{KeyFileError, Secret, read_private_key};
use crate::config::uci::{self, quote};
use crate::config::value::Host;
use crate::config::{self, store};
use crate::daemon::control::{Command as Request, ask};

/// Bytes of standard input that may hold the line.
const MAX_INPUT: usize = 8_192;

/// What a person typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The server's line.
    pub line: String,
    /// The lines to bond; those of the file if empty.
    pub wans: Vec<Wan>,
    /// The name of the `server` section to be made of the line; `None`: it is for the bond's first server.
    pub add: Option<String>,
    /// The file to write.
    pub config: PathBuf,
    /// What to do with the result.
    pub output: Output,
}

/// What is done with the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The file is written, the key made where there is none, a running daemon told.
    Write,
    /// Printed for `uci batch`; nothing is written.
    Batch,
    /// Printed as JSON; nothing is written.
    Json,
}

/// One internet line of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wan {
    /// An interface of `/etc/config/network`.
    Interface(String),
    /// A network device.
    Device(String),
}

impl Wan {
    /// The name as OpenWrt's interface where this is OpenWrt, else as a device.
    pub fn named(name: String) -> Wan {
        if installed::is_openwrt() { Wan::Interface(name) } else { Wan::Device(name) }
    }

    fn option(&self) -> (&'static str, &str) {
        match self {
            Wan::Interface(name) => ("interface", name),
            Wan::Device(name) => ("device", name),
        }
    }
}

/// Why a router cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The line.
    #[error(transparent)]
    Line(#[from] InvitationError),
    /// The file cannot be changed.
    #[error("{0}: {1}")]
    Edit(String, EditError),
    /// The file cannot be read or written.
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    /// The file is one of a server.
    #[error("{0} is the configuration of a server, and the line is for a router")]
    Server(String),
    /// There is no link.
    #[error("{0} has no link: name the internet lines, as in `--wan wan --wan wanb`")]
    NoLink(String),
    /// There is no first server yet.
    #[error("{0} has no server yet: the first one is joined without --add")]
    NoFirst(String),
    /// The line is for a server that is there already.
    #[error("that server is in the file already, as '{0}'")]
    Twice(String),
    /// The name cannot be a `server` section's.
    #[error("'{0}' cannot be the name of a server: letters, digits and '_', and no other section's name")]
    Name(String),
    /// All servers of a file have one cipher.
    #[error("that server wants `option cipher '{0}'`, and the file does not say so in section 'globals'")]
    Cipher(String),
    /// The result has mistakes, which the file had before.
    #[error("nothing was written, because of mistakes in the file:\n{0}")]
    Refused(String),
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
}

/// Joins; gives the exit code.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn run(options: &Options, out: &mut dyn Write) -> io::Result<u8> {
    let joined = match options.line.as_str() {
        "-" => match super::stdin().and_then(|mut input| line_from(&mut input)) {
            Ok(line) => join(&Options { line, ..options.clone() }, SystemTime::now()),
            Err(error) => Err(JoinError::File("standard input".into(), error)),
        },
        _ => join(options, SystemTime::now()),
    };
    match joined {
        Ok(text) => out.write_all(text.as_bytes()).map(|()| 0),
        Err(error) => Ok(super::failure(&format!("join: {error}"))),
    }
}

fn line_from(input: &mut dyn Read) -> io::Result<String> {
    let mut line = String::with_capacity(MAX_INPUT);
    store::at_most(input, MAX_INPUT as u64).read_to_string(&mut line)?;
    Ok(line)
}

fn join(options: &Options, now: SystemTime) -> Result<String, JoinError> {
    let invitation: Invitation = options.line.parse()?;
    invitation.check_expiry(now)?;
    let path = &options.config;
    let file = path.display().to_string();
    let failed = |error| JoinError::File(file.clone(), error);

    let text = store::read(path).map_err(failed)?;
    let mut editor = Editor::new(&text).map_err(|error| JoinError::Edit(file.clone(), error))?;
    let changes = match &options.add {
        Some(name) => addition(&invitation, name, editor.document(), &file)?,
        None => changes(&invitation, &options.wans, editor.document(), &file)?,
    };
    apply(&changes, &mut editor).map_err(|error| JoinError::Edit(file.clone(), error))?;
    let report = config::load(editor.text(), &file);
    let Some(config) = &report.config else {
        let mistakes: Vec<String> = report.errors().map(ToString::to_string).collect();
        return Err(JoinError::Refused(mistakes.join("\n")));
    };
    match options.output {
        Output::Batch => return Ok(batch(&changes)),
        Output::Json => return Ok(format!("{:#}\n", as_json(&invitation, &changes))),
        Output::Write => {}
    }

    let (public_key, made) = own_key(&config.globals.private_key, &config.globals.private_key_file)?;
    store::replace(path, editor.text()).map_err(failed)?;

    let mut told = format!("joined as {invitation}\nwritten: {file}\n");
    if made {
        told += &format!("made: {}\n", config.globals.private_key_file.display());
    }
    let links: Vec<&str> = config.links.iter().map(|link| link.name.as_str()).collect();
    told += &format!("links: {}\nthis router's public key: {public_key}\n", links.join(" "));
    if invitation.secret.is_none() {
        told += "the server must know this key: run `bonding server add-peer` there with --public-key\n";
    }
    told += &match ask(&config.globals.control_socket, &Request::Reload) {
        Ok(reply) if reply["ok"] == true => "the running daemon has taken it over\n".to_owned(),
        Ok(reply) => format!(
            "the running daemon refused it: {}\n",
            super::text::clean(reply["message"].as_str().unwrap_or(""))
        ),
        Err(_) => format!("start it: {}\n", installed::start_command(path)),
    };
    Ok(told)
}

/// The router's public key, and whether its private key had to be made.
fn own_key(inline: &Option<Secret>, path: &Path) -> Result<(String, bool), JoinError> {
    let public = |secret: &Secret| PrivateKey::from_bytes(*secret.as_bytes()).public().to_string();
    if let Some(secret) = inline {
        return Ok((public(secret), false));
    }
    let made =
        keys::create_private(path).map_err(|error| JoinError::File(path.display().to_string(), error))?;
    Ok((public(&read_private_key(path)?), made))
}

/// One change of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    /// There is a section of this type and name.
    Section(&'static str, String),
    /// An option of a section (by its name, or `@TYPE[N]`) has these values; none: it is absent.
    Set(String, &'static str, Vec<String>),
}

fn value(section: &uci::Section, option: &str) -> Option<String> {
    section.entry(option)?.values.last().map(|value| value.text.as_str().to_owned())
}

/// Whether the file is a server's.
fn is_server(document: &uci::Document) -> bool {
    document.sections.iter().any(|section| {
        section.kind == "peer"
            || section.kind == "globals" && value(section, "role").is_some_and(|role| role == "server")
    })
}

/// What the line says of the server, as options of `section`.
fn server_options(invitation: &Invitation, section: &str) -> Vec<Change> {
    let secret = invitation.secret.iter();
    let text = |secret: &Secret| PresharedKey::from_bytes(*secret.as_bytes()).to_text().as_str().to_owned();
    [
        ("ipaddr", invitation.addresses.iter().map(ToString::to_string).collect()),
        ("remote_ipaddr", invitation.remote_addresses.iter().map(ToString::to_string).collect()),
        ("public_key", vec![invitation.server_key.to_string()]),
        ("preshared_key", secret.map(text).collect()),
        ("server", invitation.servers.iter().map(Host::to_string).collect()),
        ("remote_port", invitation.ports.first().map(u16::to_string).into_iter().collect()),
    ]
    .map(|(option, values)| Change::Set(section.to_owned(), option, values))
    .into()
}

/// What makes the line's server one more of the file.
fn addition(
    invitation: &Invitation,
    name: &str,
    document: &uci::Document,
    file: &str,
) -> Result<Vec<Change>, JoinError> {
    if is_server(document) {
        return Err(JoinError::Server(file.to_owned()));
    }
    let of_kind = |kind: &'static str| document.sections.iter().filter(move |section| section.kind == kind);
    if !of_kind("interface").any(|section| value(section, "public_key").is_some()) {
        return Err(JoinError::NoFirst(file.to_owned()));
    }
    let is_it = |section: &uci::Section| section.kind == "server" && section.name.as_deref() == Some(name);
    let mut names = document.sections.iter().filter(|section| !is_it(section));
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !plain || names.any(|section| section.name.as_deref() == Some(name)) {
        return Err(JoinError::Name(name.to_owned()));
    }
    let key = invitation.server_key.to_string();
    let mut others = of_kind("interface").chain(of_kind("server").filter(|section| !is_it(section)));
    if let Some(other) = others.find(|section| value(section, "public_key").as_ref() == Some(&key)) {
        return Err(JoinError::Twice(other.name.clone().unwrap_or_default()));
    }
    if let Some(cipher) = &invitation.cipher
        && !of_kind("globals").any(|section| value(section, "cipher").as_ref() == Some(cipher))
    {
        return Err(JoinError::Cipher(cipher.clone()));
    }
    let mut changes = Vec::new();
    if !document.sections.iter().any(is_it) {
        changes.push(Change::Section("server", name.to_owned()));
    }
    changes.extend(server_options(invitation, name));
    Ok(changes)
}

/// What makes the line's server the bond's first one.
fn changes(
    invitation: &Invitation,
    wans: &[Wan],
    document: &uci::Document,
    file: &str,
) -> Result<Vec<Change>, JoinError> {
    if is_server(document) {
        return Err(JoinError::Server(file.to_owned()));
    }
    let mut changes = Vec::new();
    let mut only = |kind: &'static str, name: &str| -> String {
        match document.sections.iter().position(|section| section.kind == kind) {
            Some(index) => document.label(index),
            None => {
                changes.push(Change::Section(kind, name.to_owned()));
                name.to_owned()
            }
        }
    };
    let globals = only("globals", "globals");
    let bond = only("interface", "bond");
    let had_default_route = document
        .sections
        .iter()
        .any(|section| section.kind == "interface" && section.entry("default_route").is_some());

    let mut set = |section: &str, option: &'static str, values: Vec<String>| {
        changes.push(Change::Set(section.to_owned(), option, values));
    };
    set(&globals, "enabled", vec!["1".into()]);
    let is_given = |option| document.sections.iter().any(|section| section.entry(option).is_some());
    // Who has joined before keeps the key that the server knows.
    if let Some(key) = installed::private_key_of(Path::new(file))
        && !["private_key", "private_key_file", "public_key"].into_iter().any(is_given)
    {
        set(&globals, "private_key_file", vec![key.display().to_string()]);
    }
    if let Some(cipher) = &invitation.cipher {
        set(&globals, "cipher", vec![cipher.clone()]);
    }
    set(&bond, "netmask", vec![]);
    set(&bond, "ip6addr", vec![]);
    changes.extend(server_options(invitation, &bond));
    let mut set = |section: &str, option: &'static str, values: Vec<String>| {
        changes.push(Change::Set(section.to_owned(), option, values));
    };
    if !had_default_route {
        set(&bond, "default_route", vec!["1".into()]);
    }

    let links: Vec<(usize, &uci::Section)> =
        document.sections.iter().enumerate().filter(|(_, section)| section.kind == "link").collect();
    let is_of = |section: &uci::Section, wan: &Wan| {
        let (option, name) = wan.option();
        value(section, option).is_some_and(|given| given == name)
    };
    for (index, section) in &links {
        let label = document.label(*index);
        let wanted = wans.iter().any(|wan| is_of(section, wan));
        if wanted || wans.is_empty() {
            // The line names the server for all links.
            for option in ["server", "remote_port"] {
                if section.entry(option).is_some() {
                    changes.push(Change::Set(label.clone(), option, vec![]));
                }
            }
        }
        if wanted && section.entry("enabled").is_some() {
            changes.push(Change::Set(label, "enabled", vec!["1".into()]));
        } else if !wanted && !wans.is_empty() {
            changes.push(Change::Set(label, "enabled", vec!["0".into()]));
        }
    }
    if links.is_empty() && wans.is_empty() {
        return Err(JoinError::NoLink(file.to_owned()));
    }
    let mut taken: Vec<String> =
        document.sections.iter().filter_map(|section| section.name.clone()).collect();
    for wan in wans.iter().filter(|wan| !links.iter().any(|(_, section)| is_of(section, wan))) {
        let (option, name) = wan.option();
        let section = free_name(name, &taken);
        taken.push(section.clone());
        changes.push(Change::Section("link", section.clone()));
        changes.push(Change::Set(section, option, vec![name.to_owned()]));
    }
    Ok(changes)
}

/// A section's name that is like `name`.
fn free_name(name: &str, taken: &[String]) -> String {
    let plain: String = name
        .chars()
        .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
        .collect();
    let numbered = (2..).map(|number| format!("{plain}_{number}"));
    let mut names = std::iter::once(plain.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or(plain)
}

fn apply(changes: &[Change], editor: &mut Editor) -> Result<(), EditError> {
    for change in changes {
        match change {
            Change::Section(kind, name) => {
                editor.append(kind, name)?;
            }
            Change::Set(label, option, values) => {
                let sections = 0..editor.document().sections.len();
                let Some(section) =
                    sections.into_iter().find(|index| editor.document().label(*index) == *label)
                else {
                    continue;
                };
                let is_list = config::schema::SECTIONS
                    .iter()
                    .any(|spec| spec.option(option).is_some_and(|option| option.list));
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                match values.as_slice() {
                    [] => editor.remove(section, option)?,
                    [value] if !is_list => editor.set(section, option, value)?,
                    values => editor.set_list(section, option, values)?,
                }
            }
        }
    }
    Ok(())
}

/// For `uci batch`. Several values go into one option with spaces between: `add_list` would add to what is there.
fn batch(changes: &[Change]) -> String {
    let mut text = String::new();
    for change in changes {
        text += &match change {
            Change::Section(kind, name) => format!("set bonding.{name}={kind}\n"),
            Change::Set(section, option, values) => {
                format!("set bonding.{section}.{option}={}\n", quote(&values.join(" ")))
            }
        };
    }
    text + "commit bonding\n"
}

/// The router's configuration from `invitation` for `uci batch`, when nothing is known of the router: its links are
/// those of its file.
pub fn batch_for(invitation: &Invitation) -> String {
    let document = uci::Document {
        package: None,
        sections: ["globals", "interface", "link"]
            .map(|kind| uci::Section { kind: kind.into(), name: None, entries: Vec::new(), line: 0 })
            .into(),
    };
    let mut changes = changes(invitation, &[], &document, "").unwrap_or_default();
    for change in &mut changes {
        if let Change::Set(section, ..) = change {
            *section = match section.as_str() {
                "@globals[0]" => "globals".into(),
                "@interface[0]" => "bond".into(),
                other => other.into(),
            };
        }
    }
    changes.retain(|change| !matches!(change, Change::Set(_, _, values) if values.is_empty()));
    let sections = [("globals", "globals"), ("interface", "bond")];
    let sections = sections.map(|(kind, name)| Change::Section(kind, name.into()));
    batch(&[&sections[..], &changes].concat())
}

fn as_json(invitation: &Invitation, changes: &[Change]) -> Json {
    let changes: Vec<Json> = changes
        .iter()
        .map(|change| match change {
            Change::Section(kind, name) => json!({ "section": name, "type": kind }),
            Change::Set(section, option, values) => {
                json!({ "section": section, "option": option, "values": values })
            }
        })
        .collect();
    json!({
        "name": invitation.name,
        "public_key": invitation.server_key.to_string(),
        "servers": invitation.servers.iter().map(Host::to_string).collect::<Vec<_>>(),
        "ports": invitation.ports,
        "addresses": invitation.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "remote_addresses": invitation.remote_addresses,
        "expires": invitation.expires,
        "changes": changes,
    })
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
