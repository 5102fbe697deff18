//! A server, and a crowd of routers that are simulated in this process: each is a core with its own key, sockets and
//! session, and has no device. Two links each, over one plain cable between two namespaces.

mod router;

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bonding::bond::keys::PrivateKey;
use lab::directory::Directory;
use lab::namespace::{Namespace, Process, Route};
use lab::prefix::Prefix;
use lab::usage::Usage;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::watch;

/// Links of each router.
pub const LINKS: u8 = 2;
/// Payload of the packets that routers send, in bytes.
pub const PAYLOAD: usize = 1_200;
/// Where the server is found by all links, and its port.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const PORT: u16 = 5510;
/// The routers' end of the cable, and the server's.
const CABLE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 1, 0, 1)];
/// The server inside the bond, and the port there of the socket that packets go to.
const INSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 1), 4_000);
/// Files that the process needs beside those of the routers: two sockets, a timer, some for the runtime.
const FILES: u64 = 256;

/// What the routers are to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    /// Packets a second that each sends.
    rate: u32,
    /// They are to end.
    over: bool,
}

/// What the routers have come to.
#[derive(Debug, Default)]
struct Progress {
    links_up: AtomicUsize,
    sent: AtomicUsize,
}

/// The server and the routers.
pub struct Crowd {
    routers: usize,
    server: Namespace,
    process: Process,
    progress: Arc<Progress>,
    load: watch::Sender<Load>,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// Takes what routers send, and is never read: the kernel counts what does not fit into its buffer.
    _sink: UdpSocket,
    _files: Directory,
}

/// What was carried in some time.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Packets that the routers' cores were given.
    pub sent: usize,
    /// Packets that the server's kernel was given.
    pub received: usize,
    /// Processor time that the server spent on it.
    pub cpu: Duration,
}

impl Crowd {
    /// Starts the program as a server, and so many routers.
    ///
    /// # Errors
    ///
    /// When something of that fails.
    pub fn start(program: &Path, routers: usize) -> io::Result<Crowd> {
        allow_files(routers as u64 * (u64::from(LINKS) + 1) + FILES)?;
        let (server, outside) = network()?;
        let files = Directory::new("bonding-crowd")?;
        let config = write_config(&files, routers)?;
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(config);
        let process = server.spawn(command)?;
        process.prefer();
        process.wait_for_output("started", Duration::from_secs(10)).ok_or_else(|| {
            io::Error::other(format!("the server does not start:\n{}", process.output().join("\n")))
        })?;
        let sink = server.run(|| UdpSocket::bind(INSIDE))?;
        setsockopt(&sink, sockopt::RcvBuf, &0)?;

        let progress = Arc::new(Progress::default());
        let (load, told) = watch::channel(Load::default());
        let server_key = server_key().public();
        let shared = progress.clone();
        let serve = move || outside.run(|| router::serve_all(routers, server_key, &shared, &told));
        let thread = std::thread::Builder::new().name("routers".into()).spawn(serve)?;
        Ok(Crowd {
            routers,
            server,
            process,
            progress,
            load,
            thread: Some(thread),
            _sink: sink,
            _files: files,
        })
    }

    /// Waits until every link of every router carries traffic.
    ///
    /// # Errors
    ///
    /// When that takes too long.
    pub fn wait_until_up(&self, limit: Duration) -> io::Result<()> {
        let deadline = Instant::now() + limit;
        let wanted = self.routers * usize::from(LINKS);
        loop {
            let up = self.progress.links_up.load(Ordering::Relaxed);
            if up == wanted {
                return Ok(());
            }
            if Instant::now() >= deadline || self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(io::Error::other(format!("{up} of {wanted} links are up")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the server costs so far.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.process.id())
    }

    /// Has the routers send `rate` packets a second together, and counts for `time` after `warm_up`.
    ///
    /// # Errors
    ///
    /// When the server has ended.
    pub fn carry(&self, rate: usize, warm_up: Duration, time: Duration) -> io::Result<Carried> {
        let each = u32::try_from(rate / self.routers).map_err(io::Error::other)?;
        self.load.send_modify(|load| load.rate = each);
        std::thread::sleep(warm_up);
        let before = (self.progress.sent.load(Ordering::Relaxed), self.received()?, self.usage()?.cpu);
        std::thread::sleep(time);
        let after = (self.progress.sent.load(Ordering::Relaxed), self.received()?, self.usage()?.cpu);
        self.load.send_modify(|load| load.rate = 0);
        Ok(Carried { sent: after.0 - before.0, received: after.1 - before.1, cpu: after.2 - before.2 })
    }

    /// Packets for the sink since the start, but for the few that its buffer holds.
    fn received(&self) -> io::Result<usize> {
        let text = self.server.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let mut fields = names.split_whitespace().zip(values.split_whitespace());
        let refused =
            fields.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok());
        refused.ok_or_else(|| io::Error::other("the kernel does not count what a socket refuses"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.load.send_modify(|load| load.over = true);
        if let Some(thread) = self.thread.take()
            && let Ok(Err(error)) = thread.join()
        {
            eprintln!("crowd: {error}");
        }
    }
}

/// Raises the limit on open files, where that is necessary and allowed.
fn allow_files(count: u64) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count))?;
    }
    Ok(())
}

/// The namespaces of the server and of the routers, joined by a cable.
fn network() -> io::Result<(Namespace, Namespace)> {
    let prefix = |address: Ipv4Addr, length| Prefix { address: address.into(), length };
    let (server, routers) = (Namespace::new("server")?, Namespace::new("routers")?);
    routers.add_veth("wan", &server, "far")?;
    routers.add_address("wan", prefix(CABLE[0], 30))?;
    server.add_address("far", prefix(CABLE[1], 30))?;
    server.add_address("lo", prefix(SERVER, 32))?;
    routers.add_route(&Route::to(prefix(SERVER, 32)).via(CABLE[1].into()))?;
    // All addresses of a prefix on the loopback device are the machine's own.
    routers.add_address("lo", prefix(Ipv4Addr::new(10, 200, 0, 1), 16))?;
    server.add_route(&Route::to(prefix(Ipv4Addr::new(10, 200, 0, 0), 16)).via(CABLE[0].into()))?;
    Ok((server, routers))
}

/// A router's address outside: the server's patience with an address that it has not seen before is limited.
fn outside(router: usize) -> Ipv4Addr {
    numbered(200, router)
}

/// A router's address in the bond.
fn inside(router: usize) -> Ipv4Addr {
    numbered(78, router)
}

fn numbered(second: u8, router: usize) -> Ipv4Addr {
    let [.., high, low] = (router as u32 + 10).to_be_bytes();
    Ipv4Addr::new(10, second, high, low)
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([1; 32])
}

fn router_key(router: usize) -> PrivateKey {
    let mut bytes = [2; 32];
    bytes[..8].copy_from_slice(&(router as u64).to_be_bytes());
    PrivateKey::from_bytes(bytes)
}

fn write_config(files: &Directory, routers: usize) -> io::Result<std::path::PathBuf> {
    let key = files.write("server.key", &server_key().to_text())?;
    let mut text = format!(
        "config globals 'globals'\n\toption enabled '1'\n\toption private_key_file '{}'\n\toption control_socket '{}'\n\
         config interface 'bond'\n\toption ifname 'bond0'\n\toption ipaddr '{}'\n\toption netmask '255.255.0.0'\n",
        key.display(),
        files.path("server.sock").display(),
        INSIDE.0,
    );
    for router in 0..routers {
        let _ = write!(
            text,
            "config peer 'router{router}'\n\toption public_key '{}'\n\tlist ipaddr '{}/32'\n",
            router_key(router).public(),
            inside(router),
        );
    }
    files.write("server.conf", &text)
}
