//! The tunnels that are compared, each between two namespaces of its own.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::directory::Directory;
use lab::namespace::{Namespace, Process};
use lab::prefix::Prefix;

/// Where the server is found, whatever the number of links.
const SERVER: &str = "203.0.113.1";
/// Inner addresses.
const INNER_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const INNER_SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// How long a tunnel may take to come up.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// No tunnel.
    Direct,
    /// Ours over so many links.
    Bonding(u8),
    /// OpenVPN of the distribution, AES-256-GCM, in user space.
    OpenVpn,
    /// wireguard-go of the distribution.
    WireGuardGo,
}

/// Whether a contender could be started.
pub enum Started {
    /// It runs, and packets pass.
    Running(Tunnel),
    /// It cannot be had here.
    Missing(String),
}

/// A tunnel at work.
pub struct Tunnel {
    /// One end.
    pub client: Namespace,
    /// The other.
    pub server: Namespace,
    /// The server's address in the tunnel.
    pub target: IpAddr,
    processes: Vec<Process>,
    // Removed when the tunnel is.
    _files: Option<Directory>,
}

impl Tunnel {
    /// The daemons of both ends.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().map(Process::id)
    }
}

impl Contender {
    /// All of them, in the order in which they are measured.
    pub const ALL: [Contender; 5] = [
        Contender::Direct,
        Contender::OpenVpn,
        Contender::WireGuardGo,
        Contender::Bonding(1),
        Contender::Bonding(2),
    ];

    /// As it is called in the table.
    pub fn title(self) -> &'static str {
        match self {
            Contender::Direct => "no tunnel",
            Contender::Bonding(1) => "bonding, one link",
            Contender::Bonding(_) => "bonding, two links",
            Contender::OpenVpn => "OpenVPN",
            Contender::WireGuardGo => "wireguard-go",
        }
    }

    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Direct => "direct",
            Contender::Bonding(1) => "bonding",
            Contender::Bonding(_) => "bonding-2",
            Contender::OpenVpn => "openvpn",
            Contender::WireGuardGo => "wireguard-go",
        }
    }

    /// It is another program.
    pub fn is_peer(self) -> bool {
        matches!(self, Contender::OpenVpn | Contender::WireGuardGo)
    }

    /// It is ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Contender::Bonding(_))
    }

    /// Builds the network, starts both ends and waits until packets pass.
    pub fn start(self, program: &Path) -> io::Result<Started> {
        let links = if let Contender::Bonding(links) = self { links } else { 1 };
        let (client, server) = network(links)?;
        let tunnel = match self {
            Contender::Direct => {
                Tunnel { client, server, target: outer(0, 1), processes: Vec::new(), _files: None }
            }
            Contender::Bonding(links) => bonding(client, server, links, program)?,
            Contender::OpenVpn => {
                if let Err(why) = provide("openvpn", "openvpn").and_then(|()| provide("openssl", "openssl")) {
                    return Ok(Started::Missing(why));
                }
                openvpn(client, server)?
            }
            Contender::WireGuardGo => {
                if let Err(why) =
                    provide("wireguard-go", "wireguard-go").and_then(|()| provide("wg", "wireguard-tools"))
                {
                    return Ok(Started::Missing(why));
                }
                wireguard_go(client, server)?
            }
        };
        wait_until_passing(tunnel).map(Started::Running)
    }
}

/// Two namespaces, joined by `links` plain cables.
fn network(links: u8) -> io::Result<(Namespace, Namespace)> {
    let (client, server) = (Namespace::new("client")?, Namespace::new("server")?);
    for n in 0..links {
        let (near, far) = (format!("wan{n}"), format!("far{n}"));
        client.add_veth(&near, &server, &far)?;
        client.add_address(&near, prefix(outer(n, 2), 24))?;
        server.add_address(&far, prefix(outer(n, 1), 24))?;
    }
    server.add_address("lo", prefix(SERVER.parse().map_err(io::Error::other)?, 32))?;
    let route = lab::namespace::Route::to(prefix(SERVER.parse().map_err(io::Error::other)?, 32));
    client.add_route(&route.via(outer(0, 1)))?;
    Ok((client, server))
}

fn outer(link: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 1, link, host))
}

fn prefix(address: IpAddr, length: u8) -> Prefix {
    Prefix { address, length }
}

fn bonding(client: Namespace, server: Namespace, links: u8, program: &Path) -> io::Result<Tunnel> {
    let files = Directory::new("bonding-raw")?;
    let key = |name: &str| -> io::Result<(PathBuf, String)> {
        let path = files.write(&format!("{name}.key"), &output(Command::new(program).arg("genkey"))?)?;
        let public = output(Command::new(program).arg("pubkey").stdin(fs::File::open(&path)?))?;
        Ok((path, public.trim().to_owned()))
    };
    let ((client_key, client_public), (server_key, server_public)) = (key("client")?, key("server")?);
    let globals = |name: &str, key: &Path| {
        format!(
            "config globals 'globals'\n\toption enabled '1'\n\toption private_key_file '{}'\n\toption control_socket \
             '{}'\n",
            key.display(),
            files.path(&format!("{name}.sock")).display()
        )
    };
    let mut near = globals("client", &client_key);
    let _ = writeln!(
        near,
        "config interface 'bond'\n\toption ifname 'bond0'\n\toption ipaddr '{INNER_CLIENT}'\n\toption netmask \
         '255.255.255.0'\n\toption server '{SERVER}'\n\toption public_key '{server_public}'\n\toption default_route '0'"
    );
    for n in 0..links {
        let _ = writeln!(
            near,
            "config link 'link{n}'\n\toption device 'wan{n}'\n\toption ipaddr '{}/24'\n\toption gateway '{}'",
            outer(n, 2),
            outer(n, 1)
        );
    }
    let far = globals("server", &server_key)
        + &format!(
            "config interface 'bond'\n\toption ifname 'bond0'\n\toption ipaddr '{INNER_SERVER}'\n\toption netmask \
             '255.255.255.0'\nconfig peer 'client'\n\toption public_key '{client_public}'\n\tlist ipaddr \
             '{INNER_CLIENT}/32'\n"
        );
    let mut processes = Vec::new();
    for (namespace, name, text) in [(&server, "server", far), (&client, "client", near)] {
        let config = files.write(&format!("{name}.conf"), &text)?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(config);
        processes.push(namespace.spawn(command)?);
    }
    Ok(Tunnel { client, server, target: INNER_SERVER.into(), processes, _files: Some(files) })
}

fn openvpn(client: Namespace, server: Namespace) -> io::Result<Tunnel> {
    let files = Directory::new("bonding-raw")?;
    let mut prints = Vec::new();
    for name in ["client", "server"] {
        let (key, certificate) = (files.path(&format!("{name}.key")), files.path(&format!("{name}.crt")));
        let mut make = Command::new("openssl");
        make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        make.args(["-days", "2", "-subj", &format!("/CN={name}"), "-keyout"]).arg(&key).arg("-out");
        output(make.arg(&certificate))?;
        let mut print = Command::new("openssl");
        print.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&certificate);
        let print = output(&mut print)?;
        prints.push(print.trim().split_once('=').map_or("", |(_, print)| print).to_owned());
    }
    let [client_print, server_print] = prints.as_slice() else { return Err(io::Error::other("no keys")) };
    let mut processes = Vec::new();
    for (namespace, name, print, own, other) in [
        (&server, "server", client_print, INNER_SERVER, INNER_CLIENT),
        (&client, "client", server_print, INNER_CLIENT, INNER_SERVER),
    ] {
        let mut command = Command::new(find("openvpn").unwrap_or_else(|| "openvpn".into()));
        command.args(["--dev", "tun0", "--dev-type", "tun", "--proto", "udp", "--port", "1194"]);
        command.args(["--ifconfig", &own.to_string(), &other.to_string(), "--disable-dco"]);
        command.args(["--data-ciphers", "AES-256-GCM", "--cipher", "AES-256-GCM", "--verb", "1"]);
        command.args(["--peer-fingerprint", print]);
        command.arg("--key").arg(files.path(&format!("{name}.key")));
        command.arg("--cert").arg(files.path(&format!("{name}.crt")));
        if name == "server" {
            command.args(["--tls-server", "--dh", "none"]);
        } else {
            command.args(["--tls-client", "--remote", &outer(0, 1).to_string()]);
        }
        processes.push(namespace.spawn(command)?);
    }
    Ok(Tunnel { client, server, target: INNER_SERVER.into(), processes, _files: Some(files) })
}

fn wireguard_go(client: Namespace, server: Namespace) -> io::Result<Tunnel> {
    let files = Directory::new("bonding-raw")?;
    let mut keys = Vec::new();
    for name in ["client", "server"] {
        let private = output(Command::new("wg").arg("genkey"))?;
        let path = files.write(&format!("{name}.key"), &private)?;
        let public = output(Command::new("wg").arg("pubkey").stdin(fs::File::open(&path)?))?;
        keys.push((private.trim().to_owned(), public.trim().to_owned()));
    }
    let [(client_private, client_public), (server_private, server_public)] = keys.as_slice() else {
        return Err(io::Error::other("no keys"));
    };
    // The control sockets of both lie in one directory, so the devices need different names.
    let unique = std::process::id();
    let ends = [
        (&server, format!("wgs{unique}"), server_private, client_public, INNER_SERVER, INNER_CLIENT, None),
        (
            &client,
            format!("wgc{unique}"),
            client_private,
            server_public,
            INNER_CLIENT,
            INNER_SERVER,
            Some(SERVER),
        ),
    ];
    let mut processes = Vec::new();
    for (namespace, device, private, public, own, other, endpoint) in ends {
        let mut command = Command::new("wireguard-go");
        command.args(["-f", &device]).env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        processes.push(namespace.spawn(command)?);
        let mut text = format!("[Interface]\nPrivateKey = {private}\n");
        if endpoint.is_none() {
            text += "ListenPort = 51820\n";
        }
        let _ = write!(text, "[Peer]\nPublicKey = {public}\nAllowedIPs = {other}/32\n");
        if let Some(endpoint) = endpoint {
            let _ = writeln!(text, "Endpoint = {endpoint}:51820");
        }
        let config = files.write(&format!("{device}.conf"), &text)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut set = Command::new("wg");
            set.arg("setconf").arg(&device).arg(&config);
            match output(&mut set) {
                Ok(_) => break,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        namespace.add_address(&device, prefix(own.into(), 24))?;
        namespace.set_mtu(&device, 1420)?;
        namespace.link_up(&device)?;
    }
    Ok(Tunnel { client, server, target: INNER_SERVER.into(), processes, _files: Some(files) })
}

/// Packets pass when a UDP echo does.
fn wait_until_passing(mut tunnel: Tunnel) -> io::Result<Tunnel> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let echo = lab::traffic::Tcp::new(&tunnel.client, &tunnel.server, tunnel.target)
            .bytes(100_000)
            .deadline(Duration::from_secs(2));
        match echo.run() {
            Ok(report) if report.completed => return Ok(tunnel),
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            Ok(_) => return Err(io::Error::other(failure(&mut tunnel, "the transfer does not end"))),
            Err(error) => return Err(io::Error::other(failure(&mut tunnel, &error.to_string()))),
        }
    }
}

fn failure(tunnel: &mut Tunnel, why: &str) -> String {
    let mut text = format!("nothing passes: {why}");
    for process in &tunnel.processes {
        text += &format!("\n-- process {}:\n{}", process.id(), process.output().join("\n"));
    }
    text
}

/// Makes sure that a program is there: as root on Debian by installing its package.
fn provide(program: &str, package: &str) -> Result<(), String> {
    if find(program).is_some() {
        return Ok(());
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !release.lines().any(|line| line == "ID=debian") || !nix::unistd::geteuid().is_root() {
        return Err(format!("{program} is not installed (package {package})"));
    }
    eprintln!("  installing {package}");
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--no-install-recommends", package]);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    output(&mut install).map_err(|error| format!("{package} cannot be installed: {error}"))?;
    find(program).map(|_| ()).ok_or_else(|| format!("{package} brings no {program}"))
}

fn find(program: &str) -> Option<PathBuf> {
    let mut places = vec![PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    places.into_iter().map(|place| place.join(program)).find(|path| path.is_file())
}

fn output(command: &mut Command) -> io::Result<String> {
    let output = command.stderr(Stdio::piped()).output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(io::Error::other(format!("{}: {words}", command.get_program().to_string_lossy())));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}
