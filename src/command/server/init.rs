//! `bonding server init`: what a machine needs to be a server.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::{ServerError, checked};
use crate::bond::keys::PrivateKey;
use crate::bond::sorted::SortedSet;
use crate::command::{installed, keys};
use crate::config::edit::{EditError, Editor};
use crate::config::key::read_private_key;
use crate::config::value::{Host, IpNet};
use crate::config::{Config, store};

/// The port when nothing else is said: the schema's default.
const PORT: u16 = 5510;

/// What a person typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// How routers reach this server; found out if empty.
    pub(super) addresses: Vec<Host>,
    pub(super) ports: Vec<u16>,
    /// The server's addresses inside the bond, with their networks.
    pub(super) pools: Vec<IpNet>,
    /// Whether the service is started.
    pub(super) start: bool,
    /// Whether a configuration that is there is written anew.
    pub(super) force: bool,
}

pub(super) fn run(path: &Path, options: &Options) -> Result<String, ServerError> {
    set_up(path, options, open_firewall)
}

/// The same with what is to be done to the firewall of the machine: nothing, where tests run.
pub(super) fn set_up(
    path: &Path,
    options: &Options,
    open_firewall: impl FnOnce(&Config, &mut String),
) -> Result<String, ServerError> {
    let name = path.display().to_string();
    let failed = |error| ServerError::File(name.clone(), error);
    let _lock = store::lock(path).map_err(failed)?;
    let mut told = String::new();
    let there = path.exists() && !options.force;
    let text = if there { store::read(path).map_err(failed)? } else { new_file(path, options)?.into() };
    let config = checked(&text, &name)?;

    let key_file = &config.globals.private_key_file;
    if config.globals.private_key.is_none() {
        let file = key_file.display();
        let made =
            keys::create_private(key_file).map_err(|error| ServerError::File(file.to_string(), error))?;
        let _ = writeln!(told, "private key:   {file} ({})", if made { "made" } else { "was there" });
    }
    let private = match &config.globals.private_key {
        Some(key) => key.clone(),
        None => read_private_key(key_file)?,
    };
    let _ = writeln!(told, "public key:    {}", PrivateKey::from_bytes(*private.as_bytes()).public());
    if !there {
        store::replace(path, &text).map_err(failed)?;
    }
    let _ =
        writeln!(told, "configuration: {name} ({})", if there { "was there, left as it is" } else { "made" });
    describe(&config, &mut told);
    open_firewall(&config, &mut told);
    start_service(path, options.start, &mut told);
    told.push_str("\nNext: bonding server add-peer NAME --lan 192.168.1.0/24\n");
    Ok(told)
}

fn new_file(path: &Path, options: &Options) -> Result<String, ServerError> {
    let edited = |error| ServerError::Edit(path.display().to_string(), error);
    let pools = if options.pools.is_empty() { default_pools()? } else { options.pools.clone() };
    let addresses = match options.addresses.as_slice() {
        [] => public_addresses("bond0").into_iter().map(Host::Address).collect(),
        given => given.to_vec(),
    };
    let ports = if options.ports.is_empty() { vec![PORT] } else { options.ports.clone() };
    write_file(path, &pools, &addresses, &ports).map_err(edited)
}

fn write_file(path: &Path, pools: &[IpNet], addresses: &[Host], ports: &[u16]) -> Result<String, EditError> {
    let mut editor = Editor::new(
        "# The server's end of the bond. `bonding server add-peer NAME` adds routers, `bonding options` explains every\n\
         # option, `bonding check FILE` finds mistakes, `bonding reload` takes changes over.\n",
    )?;
    let texts = |values: &[String]| -> Vec<String> { values.to_vec() };
    let globals = editor.append("globals", "globals")?;
    editor.set(globals, "role", "server")?;
    editor.set(globals, "nat", "1")?;
    editor.set(globals, "forwarding", "1")?;
    if let Some(key) = installed::private_key_of(path) {
        editor.set(globals, "private_key_file", &key.display().to_string())?;
    }
    let ports = texts(&ports.iter().map(u16::to_string).collect::<Vec<_>>());
    editor.set_list(globals, "listen_port", &ports.iter().map(String::as_str).collect::<Vec<_>>())?;
    let addresses = texts(&addresses.iter().map(Host::to_string).collect::<Vec<_>>());
    editor.set_list(globals, "public_address", &addresses.iter().map(String::as_str).collect::<Vec<_>>())?;
    let bond = editor.append("interface", "bond")?;
    editor.set(bond, "ifname", "bond0")?;
    let pools = texts(&pools.iter().map(IpNet::to_string).collect::<Vec<_>>());
    editor.set_list(bond, "ipaddr", &pools.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(editor.text().to_owned())
}

fn describe(config: &Config, told: &mut String) {
    let ports: Vec<String> = config.globals.listen_ports.iter().map(u16::to_string).collect();
    let _ = writeln!(told, "UDP port:      {}", ports.join(" "));
    let pools: Vec<String> = config.bond.addresses.iter().map(IpNet::to_string).collect();
    let _ = writeln!(told, "inside:        {}", pools.join(" "));
    let found: Vec<String> = config.globals.public_addresses.iter().map(Host::to_string).collect();
    let is_private = |host: &Host| matches!(host, Host::Address(address) if !is_global(*address));
    match config.globals.public_addresses.as_slice() {
        [] => told.push_str(
            "outside:       no address found; say how routers reach this server with --address at add-peer\n",
        ),
        all if all.iter().all(is_private) => {
            let _ = writeln!(
                told,
                "outside:       {}, which is a private address: if routers reach this server by another one, set\n               `public_address` in the configuration, or give --address at add-peer",
                found.join(" ")
            );
        }
        _ => {
            let _ = writeln!(told, "outside:       {}", found.join(" "));
        }
    }
}

/// The addresses of this machine by which the world can reach it; where there is none, the private ones of a machine
/// behind NAT. `ifname` is our own device.
pub(super) fn public_addresses(ifname: &str) -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut addresses: SortedSet<IpAddr> = SortedSet::new();
    for interface in interfaces {
        if interface.interface_name == ifname || interface.flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            continue;
        }
        let Some(storage) = interface.address else { continue };
        let address = storage
            .as_sockaddr_in()
            .map(|v4| IpAddr::V4(v4.ip()))
            .or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
        addresses.extend(address.filter(|address| is_usable(*address)));
    }
    // IPv4 first.
    let addresses = addresses.iter().copied();
    let global: Vec<IpAddr> = addresses.clone().filter(|address| is_global(*address)).collect();
    if global.is_empty() { addresses.collect() } else { global }
}

fn is_usable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_loopback(),
    }
}

/// Whether the world can reach it (RFC 1918, RFC 4193, RFC 6598).
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            is_usable(address) && !v4.is_private() && !shared && !v4.is_unspecified()
        }
        IpAddr::V6(v6) => is_usable(address) && !v6.is_unique_local() && !v6.is_unspecified(),
    }
}

/// A network for the bond that this machine does not use otherwise, and a unique local one (RFC 4193, 3.2.2).
fn default_pools() -> Result<Vec<IpNet>, ServerError> {
    let used: Vec<IpAddr> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| interface.address?.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip())))
        .collect();
    let net = |third: u8| IpNet { address: Ipv4Addr::new(10, 77, third, 1).into(), prefix: 24 };
    let free = (0..=255).map(net).find(|net| !used.iter().any(|address| net.contains(*address)));
    let mut random = [0; 5];
    getrandom::fill(&mut random)
        .map_err(|error| ServerError::Other(format!("the kernel gives no random numbers: {error}")))?;
    let [a, b, c, d, e] = random;
    let v6 = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    Ok(free.into_iter().chain([IpNet { address: v6.into(), prefix: 64 }]).collect())
}

/// Lets our packets through the firewalls that people have on servers. Our own table lets them through too, but a packet
/// must pass all of them.
fn open_firewall(config: &Config, told: &mut String) {
    let device = &config.bond.ifname;
    let mut commands: Vec<Vec<String>> = Vec::new();
    let words = |text: String| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    if output("ufw", &["status"]).is_some_and(|text| text.contains("Status: active")) {
        for port in &config.globals.listen_ports {
            commands.push(words(format!("ufw allow {port}/udp")));
        }
        commands.push(words(format!("ufw allow in on {device}")));
        commands.push(words(format!("ufw route allow in on {device}")));
    }
    if output("firewall-cmd", &["--state"]).is_some_and(|text| text.contains("running")) {
        for port in &config.globals.listen_ports {
            commands.push(words(format!("firewall-cmd --quiet --permanent --add-port={port}/udp")));
        }
        commands
            .push(words(format!("firewall-cmd --quiet --permanent --zone=trusted --add-interface={device}")));
        commands.push(words("firewall-cmd --quiet --reload".into()));
    }
    for command in commands {
        let ran = command.split_first().is_some_and(|(program, arguments)| succeeds(program, arguments));
        let _ = writeln!(
            told,
            "firewall:      {} ({})",
            command.join(" "),
            if ran { "done" } else { "failed: do it by hand" }
        );
    }
}

/// Has the system start the server, now and always.
fn start_service(path: &Path, start: bool, told: &mut String) {
    let Some(unit) = installed::systemd_unit(path).filter(|_| start) else {
        let _ =
            writeln!(told, "service:       not started; start it with: {}", installed::start_command(path));
        return;
    };
    let arguments = ["enable".to_owned(), "--now".to_owned(), unit.clone()];
    match succeeds("systemctl", &arguments) {
        true => {
            let _ = writeln!(told, "service:       {unit} (enabled and started)");
        }
        false => {
            let _ = writeln!(told, "service:       {unit} did not start: journalctl -u {unit}");
        }
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeeds(program: &str, arguments: &[String]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_reaches_global_addresses_only() {
        for address in ["198.51.100.7", "2001:db8::1", "100.128.0.1"] {
            assert!(is_global(address.parse().unwrap()), "{address}");
        }
        for address in [
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "100.64.0.1",
            "169.254.0.1",
            "fd00::1",
            "fe80::1",
            "::1",
        ] {
            assert!(!is_global(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_pools_are_private_and_the_second_one_is_random() {
        let (one, other) = (default_pools().unwrap(), default_pools().unwrap());
        assert_eq!((one.len(), one[0].prefix, one[1].prefix), (2, 24, 64));
        assert!(one.iter().all(|net| !is_global(net.address)));
        assert_ne!(one[1], other[1]);
    }
}
