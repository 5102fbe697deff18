//! `bonding server add-peer`, `list`, `show` and `remove`.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use super::picture::picture;
use super::pool::free_address;
use super::{ServerError, ServerFile, init};
use crate::bond::keys::{PresharedKey, PrivateKey};
use crate::command::text::{COLUMNS, clean_value, duration};
use crate::command::{join, keys, status};
use crate::config::invitation::Invitation;
use crate::config::key::{PublicKey, Secret};
use crate::config::value::{Host, IpNet};
use crate::config::{self, Config, Peer};
use crate::daemon::control::{Command as Request, ask};
use crate::daemon::quota;
use crate::json::{items, texts};

/// A router to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewPeer {
    pub(super) name: String,
    pub(super) lans: Vec<IpNet>,
    /// Where it reaches this server; as the configuration says if empty.
    pub(super) addresses: Vec<Host>,
    /// Its addresses inside the bond; free ones if empty.
    pub(super) inside: Vec<IpAddr>,
    /// How long its line can be used.
    pub(super) expires: Duration,
    /// Its key, if it is known.
    pub(super) public_key: Option<PublicKey>,
    /// It may be there already.
    pub(super) renew: bool,
    /// The line is all that is printed.
    pub(super) line_only: bool,
}

pub(super) fn add(path: &Path, peer: &NewPeer) -> Result<String, ServerError> {
    let mut file = ServerFile::lock(path)?;
    let other = |text: String| ServerError::Other(text);
    let existing = file.editor.document().sections.iter().find(|s| s.name.as_deref() == Some(&peer.name));
    match existing.map(|section| (section.kind == "peer", peer.renew)) {
        Some((false, _)) => return Err(other(format!("'{}' is the name of another section", peer.name))),
        Some((true, false)) => {
            return Err(other(format!(
                "there is a peer '{}': make a new line for it with --renew, or remove it first",
                peer.name
            )));
        }
        None if peer.renew => return Err(other(format!("there is no peer '{}' to renew", peer.name))),
        _ => {}
    }
    let known = file.config.peers.iter().find(|known| known.name == peer.name).cloned();
    if existing.is_some() && known.is_none() {
        return Err(other(format!("peer '{}' is switched off: set its 'enabled' to 1 first", peer.name)));
    }
    let inside = inside_addresses(&file.config, known.as_ref(), peer)?;
    let secret = keys::new_secret().map_err(|error| ServerError::File("random numbers".into(), error))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires = peer.public_key.is_none().then(|| (now + peer.expires).as_secs());
    let invitation = invitation(&file.config, peer, &inside, secret.clone(), expires)?;

    file.edit(|editor| {
        let section = match editor.find("peer", |section| section.name.as_deref() == Some(&peer.name)) {
            Some(section) => section,
            None => editor.append("peer", &peer.name)?,
        };
        match &peer.public_key {
            Some(key) => editor.set(section, "public_key", &key.to_string())?,
            None => editor.remove(section, "public_key")?,
        }
        let text = PresharedKey::from_bytes(*secret.as_bytes()).to_text();
        editor.set(section, "preshared_key", &text)?;
        match expires {
            Some(seconds) => editor.set(section, "invitation_expires", &seconds.to_string())?,
            None => editor.remove(section, "invitation_expires")?,
        }
        let hosts: Vec<String> = inside.iter().map(|net| net.address.to_string()).collect();
        editor.set_list(section, "ipaddr", &hosts.iter().map(String::as_str).collect::<Vec<_>>())?;
        if known.is_none() || !peer.lans.is_empty() {
            let lans: Vec<String> = peer.lans.iter().map(IpNet::to_string).collect();
            editor.set_list(section, "lan", &lans.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    })?;
    let told = file.save()?;
    let line = invitation.to_line();
    if peer.line_only {
        return Ok(format!("{}\n", &*line));
    }
    Ok(describe(&invitation, &line, &told))
}

fn describe(invitation: &Invitation, line: &str, told: &str) -> String {
    let mut text = format!("Peer {} is let in. {told}", invitation.name);
    match invitation.expires {
        Some(seconds) => {
            let _ = writeln!(
                text,
                "\nThe router introduces itself with this line, once, until {} UTC. Keep it secret until then:",
                utc(seconds)
            );
        }
        None => text.push_str("\nThe router's line; it holds the pre-shared key, keep it secret:\n"),
    }
    let _ = write!(text, "\n{line}\n\n");
    text.push_str("On the router: LuCI, Network, Bonding, Set-up; or with its internet lines' names\n");
    let _ = write!(text, "\nbonding join '{line}' --wan wan --wan wanb\n\n");
    let colour = io::stdout().is_terminal();
    if let Some(picture) = picture(line, colour).filter(|_| colour) {
        text.push_str(&picture);
    }
    text.push_str("The same for `uci batch` on OpenWrt; its links are those of /etc/config/bonding:\n\n");
    text.push_str(&join::batch_for(invitation));
    text
}

fn inside_addresses(
    config: &Config,
    known: Option<&Peer>,
    peer: &NewPeer,
) -> Result<Vec<IpNet>, ServerError> {
    let own = &config.bond.addresses;
    // With the length of the server's own network, so that the router reaches the whole of it.
    let in_pool = |address: IpAddr| {
        let pool = own.iter().find(|net| net.contains(address));
        pool.map_or(IpNet::host(address), |net| IpNet { address, prefix: net.prefix })
    };
    if !peer.inside.is_empty() {
        return Ok(peer.inside.iter().map(|address| in_pool(*address)).collect());
    }
    if let Some(known) = known {
        return Ok(known.addresses.iter().map(|net| in_pool(net.address)).collect());
    }
    let others = config.peers.iter().flat_map(|peer| peer.addresses.iter().chain(&peer.lans));
    let taken: Vec<IpNet> = others.chain(&peer.lans).copied().collect();
    let mut free = Vec::new();
    for pool in own {
        let full =
            || ServerError::Other(format!("every address of {} is taken; give one with --ip", pool.trunc()));
        free.push(free_address(*pool, &taken).ok_or_else(full)?);
    }
    Ok(free)
}

fn invitation(
    config: &Config,
    peer: &NewPeer,
    inside: &[IpNet],
    secret: Secret,
    expires: Option<u64>,
) -> Result<Invitation, ServerError> {
    let servers = match (peer.addresses.as_slice(), config.globals.public_addresses.as_slice()) {
        ([], []) => init::public_addresses(&config.bond.ifname).into_iter().map(Host::Address).collect(),
        ([], configured) => configured.to_vec(),
        (given, _) => given.to_vec(),
    };
    if servers.is_empty() {
        let message =
            "how do routers reach this server? Give --address, or set `public_address` in its configuration";
        return Err(ServerError::Other(message.into()));
    }
    let private = config.globals.read_private_key()?;
    let public = PrivateKey::from_bytes(*private.as_bytes()).public();
    Ok(Invitation {
        name: peer.name.clone(),
        server_key: PublicKey::new(*public.as_bytes()),
        secret: Some(secret),
        expires,
        servers,
        ports: config.globals.listen_ports.clone(),
        addresses: inside.to_vec(),
        remote_addresses: config.bond.addresses.iter().map(|net| net.address).collect(),
        cipher: cipher_word(config.globals.cipher),
    })
}

/// What the router must set too.
fn cipher_word(cipher: config::Cipher) -> Option<String> {
    let word = match cipher {
        config::Cipher::Auto => return None,
        config::Cipher::Aes256Gcm => "aes-256-gcm",
        config::Cipher::Aes128Gcm => "aes-128-gcm",
        config::Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        config::Cipher::None => "none",
    };
    Some(word.into())
}

pub(super) fn remove(path: &Path, name: &str) -> Result<String, ServerError> {
    let mut file = ServerFile::lock(path)?;
    let section = file
        .editor
        .find("peer", |section| section.name.as_deref() == Some(name))
        .ok_or_else(|| no_peer(&file.config, name))?;
    file.edit(|editor| editor.remove_section(section))?;
    let told = file.save()?;
    Ok(format!("Peer {name} is removed. {told}"))
}

pub(super) fn list(path: &Path, json: bool) -> Result<String, ServerError> {
    let file = ServerFile::read(path)?;
    let status = live_status(&file.config);
    let peers: Vec<Json> = file.config.peers.iter().map(|peer| summary(peer, status.as_ref())).collect();
    if json {
        return Ok(format!("{:#}\n", Json::from(peers)));
    }
    if peers.is_empty() {
        return Ok("no peer yet: bonding server add-peer NAME\n".into());
    }
    let width = file.config.peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0).clamp(4, 24);
    let mut text = format!("{:width$}  {:<26}  addresses, networks\n", "peer", "state");
    for peer in &peers {
        let nets = [texts(&peer["addresses"]), texts(&peer["lans"])].concat().join(" ");
        let row = format!(
            "{:width$}  {:<26}  {nets}",
            peer["name"].as_str().unwrap_or_default(),
            peer["state"].as_str().unwrap_or_default()
        );
        let _ = writeln!(text, "{}", row.trim_end());
    }
    debug_assert!(width + 30 < COLUMNS);
    Ok(text)
}

pub(super) fn show(path: &Path, name: &str, json: bool) -> Result<String, ServerError> {
    let file = ServerFile::read(path)?;
    let peer =
        file.config.peers.iter().find(|peer| peer.name == name).ok_or_else(|| no_peer(&file.config, name))?;
    let status = live_status(&file.config);
    let mut summary = summary(peer, status.as_ref());
    let live = status.as_ref().and_then(|status| live_peer(status, name));
    if json {
        summary["live"] = live.cloned().unwrap_or_default();
        return Ok(format!("{summary:#}\n"));
    }
    let mut text = format!("{name}: {}\n", summary["state"].as_str().unwrap_or_default());
    for (label, field) in [("addresses", "addresses"), ("networks", "lans")] {
        let words = texts(&summary[field]);
        if !words.is_empty() {
            let _ = writeln!(text, "  {label}: {}", words.join(" "));
        }
    }
    if let (Some(status), Some(live)) = (&status, live) {
        text.push_str(&status::render_one(live, status));
    }
    Ok(text)
}

/// One peer in a few words.
fn summary(peer: &Peer, status: Option<&Json>) -> Json {
    let live = status.and_then(|status| live_peer(status, &peer.name));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let state = match (peer.public_key, peer.invitation_expires, live) {
        (None, Some(expires), _) if u64::from(expires) < now => "invitation expired".to_owned(),
        (None, Some(expires), _) => format!("invited until {}", utc(expires.into())),
        (_, _, Some(live)) => {
            let word = if live["up"] == true { "up" } else { "down" };
            format!("{word} for {}", duration(live["since_ms"].as_u64().unwrap_or(0)))
        }
        (_, _, None) if status.is_none() => "no server runs".to_owned(),
        _ => "down".to_owned(),
    };
    let texts = |nets: &[IpNet]| -> Vec<String> {
        let host = |net: &IpNet| *net == IpNet::host(net.address);
        nets.iter().map(|net| if host(net) { net.address.to_string() } else { net.to_string() }).collect()
    };
    json!({
        "name": peer.name,
        "state": state,
        "public_key": peer.public_key.map(|key| key.to_string()),
        "invitation_expires": peer.invitation_expires,
        "up": live.map(|live| live["up"] == true),
        "addresses": texts(&peer.addresses),
        "lans": texts(&peer.lans),
    })
}

/// What the running server says of a peer.
fn live_peer<'s>(status: &'s Json, name: &str) -> Option<&'s Json> {
    items(&status["endpoint"]["peers"])
        .iter()
        .find(|peer| status["peers"][peer["peer"].as_u64().unwrap_or(0).to_string()] == name)
}

fn live_status(config: &Config) -> Option<Json> {
    let mut status = ask(&config.globals.control_socket, &Request::Status).ok()?;
    clean_value(&mut status);
    Some(status)
}

fn no_peer(config: &Config, name: &str) -> ServerError {
    let names = config.peers.iter().map(|peer| peer.name.as_str());
    let near = config::spelling::nearest(name, names).map(|near| format!("; did you mean '{near}'?"));
    ServerError::Other(format!("there is no peer '{name}'{}", near.unwrap_or_default()))
}

/// A time as `2026-11-21 07:30`.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = quota::date(i64::try_from(days).unwrap_or(i64::MAX));
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", rest / 3_600, rest % 3_600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(utc(0), "1970-01-01 00:00");
        assert_eq!(utc(951_782_399), "2000-02-28 23:59");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00");
        assert_eq!(utc(u64::from(u32::MAX)), "2106-02-07 06:28");
    }
}
