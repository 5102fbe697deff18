//! The control socket: one line of JSON asks, one line of JSON answers.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as BlockingListener, UnixStream as BlockingStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::stat::{Mode, fchmod};
use serde::Serialize;
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::json::{self, part};

/// Clients that are served at the same time. One more takes the place of the one that has been silent for longest.
const MAX_CLIENTS: usize = 64;
/// So long everybody keeps their place: a client that has just connected has yet to write.
const PATIENCE: Duration = Duration::from_millis(10);
/// Clients that wait for their turn.
const BACKLOG: libc::c_int = 128;
/// Bytes of a request.
const MAX_REQUEST: u64 = 4_096;
/// Bytes of an answer that a client takes.
const MAX_REPLY: u64 = 16 << 20;
/// How long a client may take to ask, and the daemon to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a socket that was inherited from a killed daemon is waited for, until whoever has it has closed it.
const INHERITED: Duration = Duration::from_secs(1);

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    /// The state of everything.
    Status,
    /// The last state changes.
    Events,
    /// Addresses, routes and rules that are ours.
    Routes,
    /// Read the configuration again.
    Reload,
    /// Do something with a link.
    Link {
        /// The link's name.
        name: String,
        /// What.
        action: LinkAction,
    },
    /// Where the other end waits for speed tests.
    SpeedTest,
    /// Keep a TCP connection of a speed test on one link.
    Pin {
        /// Its port at this end.
        port: u16,
        /// The link's name; none ends it.
        link: Option<String>,
    },
    /// End the daemon.
    Stop,
}

impl Command {
    /// Understands a request, which is how this is serialised.
    fn read(line: &[u8]) -> Result<Command, json::Error> {
        let request: Value = serde_json::from_slice(line)?;
        let action = || request["action"].as_str().and_then(LinkAction::named);
        Ok(match request["command"].as_str() {
            Some("status") => Command::Status,
            Some("events") => Command::Events,
            Some("routes") => Command::Routes,
            Some("reload") => Command::Reload,
            Some("link") => Command::Link {
                name: part(&request, "name")?,
                action: action().ok_or(json::Error::Part("action"))?,
            },
            Some("speed-test") => Command::SpeedTest,
            Some("pin") => Command::Pin { port: part(&request, "port")?, link: part(&request, "link")? },
            Some("stop") => Command::Stop,
            _ => return Err(json::Error::Part("command")),
        })
    }
}

/// What can be done with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkAction {
    /// Put it back to use.
    Up,
    /// Take it out.
    Down,
    /// Open its socket anew.
    Reconnect,
}

impl LinkAction {
    /// The action of that name.
    pub fn named(name: &str) -> Option<LinkAction> {
        match name {
            "up" => Some(LinkAction::Up),
            "down" => Some(LinkAction::Down),
            "reconnect" => Some(LinkAction::Reconnect),
            _ => None,
        }
    }
}

/// A request that waits for its answer.
pub struct Request {
    /// What is asked for.
    pub command: Command,
    answer: oneshot::Sender<Value>,
}

impl Request {
    /// Answers it.
    pub fn reply(self, value: Value) {
        // The client may be gone by now.
        let _ = self.answer.send(value);
    }
}

/// The socket, at work.
pub struct Control {
    requests: mpsc::Receiver<Request>,
    accepting: JoinHandle<()>,
    _file: SocketFile,
}

/// The socket, which nobody serves yet. Making it needs privileges, serving it does not.
pub struct Opened {
    listener: BlockingListener,
    file: SocketFile,
}

/// The file of the socket, removed when this is dropped.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Control {
    /// Opens the socket for root alone, or for the members of `group` (name or number) too. A file that was left
    /// behind is replaced; a running daemon's is not.
    ///
    /// # Errors
    ///
    /// When it cannot be made as it shall be; no file is left then.
    pub fn open(path: &Path, group: Option<&str>) -> io::Result<Opened> {
        let group = group.map(group_id).transpose()?;
        remove_stale(path)?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let listener = listen(path)?;
        let file = SocketFile(path.to_owned());
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group))?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        }
        listener.set_nonblocking(true)?;
        Ok(Opened { listener, file })
    }

    /// The next request.
    pub async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            // The accepting task lives as long as this.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Opened {
    /// Begins to serve. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the runtime does not take the socket.
    pub fn serve(self) -> io::Result<Control> {
        let listener = UnixListener::from_std(self.listener)?;
        let (sender, requests) = mpsc::channel(MAX_CLIENTS);
        let accepting = super::spawn(accept(listener, sender));
        Ok(Control { requests, accepting, _file: self.file })
    }
}

/// Asks a running daemon.
pub fn ask(socket: &Path, command: &Command) -> io::Result<Value> {
    let mut stream = BlockingStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT * 2))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(format!("{}\n", json!(command)).as_bytes())?;
    let mut reply = String::new();
    io::BufReader::new(stream.take(MAX_REPLY)).read_line(&mut reply)?;
    Ok(serde_json::from_slice(reply.as_bytes())?)
}

/// Removes what a daemon that was killed has left, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let message = "there is a file of another kind: remove it, or set another control_socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Ok(_) => {}
    }
    // Only a socket that nobody listens on refuses; a daemon that is busy has a queue.
    let mut found = BlockingStream::connect(path);
    if let Ok(stream) = &mut found {
        // What a daemon has forked when it was killed may have the socket for a moment. It accepts nobody.
        stream.set_read_timeout(Some(INHERITED))?;
        let _ = stream.read(&mut [0]);
        found = BlockingStream::connect(path);
    }
    match found {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => {
            let message = "another daemon answers there: stop it first, or set another control_socket";
            Err(io::Error::new(io::ErrorKind::AddrInUse, message))
        }
    }
}

/// Listens at a file that only its owner may use, from its first moment on: Linux gives it the mode of the socket.
fn listen(path: &Path) -> io::Result<BlockingListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

async fn accept(listener: UnixListener, sender: mpsc::Sender<Request>) {
    let mut clients = Clients { places: Arc::new(Semaphore::new(MAX_CLIENTS)), connected: Vec::new() };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others may close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = clients.make_room().await else { return };
        clients.serve(stream, sender.clone(), place);
    }
}

/// Who is connected, in the order of their coming.
struct Clients {
    places: Arc<Semaphore>,
    connected: Vec<Client>,
}

/// Whoever is dropped is turned out.
struct Client {
    task: JoinHandle<()>,
    since: Instant,
    stage: Arc<AtomicU8>,
}

impl Client {
    /// It has not asked yet.
    const ASKING: u8 = 0;
    /// The daemon has yet to answer it.
    const WAITING: u8 = 1;
    /// It is to take its answer.
    const TAKING: u8 = 2;

    fn is(&self, stage: u8) -> bool {
        self.stage.load(Ordering::Relaxed) == stage
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Clients {
    fn serve(&mut self, stream: UnixStream, sender: mpsc::Sender<Request>, place: OwnedSemaphorePermit) {
        let stage = Arc::new(AtomicU8::new(Client::ASKING));
        let told = stage.clone();
        let task = super::spawn(async move {
            let _ = tokio::time::timeout(LIMIT * 2, serve(stream, sender, &told)).await;
            drop(place);
        });
        self.connected.push(Client { task, since: Instant::now(), stage });
    }

    /// Waits for a place, and turns somebody out if all are taken. Who waits for the daemon stays.
    async fn make_room(&mut self) -> Result<OwnedSemaphorePermit, AcquireError> {
        loop {
            self.connected.retain(|client| !client.task.is_finished());
            let place = self.places.clone().acquire_owned();
            if self.places.available_permits() > 0 {
                return place.await;
            }
            let oldest = |stage| self.connected.iter().position(|client| client.is(stage));
            let oldest = oldest(Client::ASKING).or_else(|| oldest(Client::TAKING));
            let Some((position, client)) = oldest.and_then(|at| Some((at, self.connected.get(at)?))) else {
                return place.await;
            };
            let due = client.since + PATIENCE;
            if due <= Instant::now() {
                self.connected.remove(position);
                return place.await;
            }
            if let Ok(place) = tokio::time::timeout_at(due, place).await {
                return place;
            }
        }
    }
}

async fn serve(mut stream: UnixStream, sender: mpsc::Sender<Request>, stage: &AtomicU8) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::with_capacity(512, reader.take(MAX_REQUEST));
    tokio::time::timeout(LIMIT, reader.read_until(b'\n', &mut line)).await??;
    let reply = match Command::read(&line) {
        Ok(command) => {
            let (answer, answered) = oneshot::channel();
            stage.store(Client::WAITING, Ordering::Relaxed);
            let _ = sender.send(Request { command, answer }).await;
            answered.await.unwrap_or(Value::Null)
        }
        Err(error) => json!({ "ok": false, "error": format!("not a request: {error}") }),
    };
    stage.store(Client::TAKING, Ordering::Relaxed);
    writer.write_all(format!("{reply}\n").as_bytes()).await
}

fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no group '{group}'"));
    group_in(&std::fs::read_to_string("/etc/group")?, group).ok_or_else(missing)
}

/// The number of a group in the list of all, see group(5).
fn group_in(list: &str, group: &str) -> Option<u32> {
    list.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn bind(path: &Path) -> Control {
        Control::open(path, None).and_then(Opened::serve).unwrap()
    }

    #[test]
    fn requests_are_understood_as_they_are_written() {
        let link = |action| Command::Link { name: "adsl1".into(), action };
        for command in [
            Command::Status,
            Command::Events,
            Command::Routes,
            Command::Reload,
            link(LinkAction::Up),
            link(LinkAction::Down),
            link(LinkAction::Reconnect),
            Command::SpeedTest,
            Command::Pin { port: 65_535, link: Some("adsl1".into()) },
            Command::Pin { port: 1, link: None },
            Command::Stop,
        ] {
            assert_eq!(Command::read(&serde_json::to_vec(&command).unwrap()).unwrap(), command);
        }
        for (line, complaint) in [
            (r#"{"command":"dance"}"#, "'command' is missing or cannot be understood"),
            (
                r#"{"command":"link","name":"a","action":"jump"}"#,
                "'action' is missing or cannot be understood",
            ),
            (r#"{"command":"pin","port":65536}"#, "'port' is missing or cannot be understood"),
            ("[]", "'command' is missing or cannot be understood"),
            ("", "EOF while parsing a value at line 1 column 0"),
        ] {
            assert_eq!(Command::read(line.as_bytes()).unwrap_err().to_string(), complaint, "{line}");
        }
    }

    #[test]
    fn a_question_is_answered_and_nonsense_refused() {
        let path = std::env::temp_dir().join(format!("bonding-control-{}.sock", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut control = bind(&path);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(Control::open(&path, None).err().map(|e| e.kind()), Some(io::ErrorKind::AddrInUse));
            let question = Command::Link { name: "adsl1".into(), action: LinkAction::Down };
            let (asked, at) = (question.clone(), path.clone());
            let client = std::thread::spawn(move || {
                let answer = ask(&at, &asked).unwrap();
                let mut raw = BlockingStream::connect(&at).unwrap();
                raw.write_all(b"{\"command\":\"dance\"}\n").unwrap();
                let mut reply = String::new();
                io::BufReader::new(raw).read_line(&mut reply).unwrap();
                (answer, reply)
            });
            // The first connections were those of the second bind; they ask nothing.
            let request = control.next().await;
            assert_eq!(request.command, question);
            request.reply(serde_json::json!({ "ok": true }));
            while !client.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (answer, reply) = client.join().unwrap();
            assert_eq!(answer, serde_json::json!({ "ok": true }));
            assert!(reply.contains("not a request"), "{reply}");
        });
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_daemon_left_is_replaced_and_other_files_are_not() {
        let _descriptors = lab::descriptors();
        let directory = lab::directory::Directory::new("bonding-stale").unwrap();
        let path = directory.path("control.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            drop(bind(&path));
            // A listener that is closed leaves its file.
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(path.exists());
            drop(bind(&path));
            assert!(!path.exists());
            std::fs::write(&path, "precious").unwrap();
            let refused = Control::open(&path, None).err().map(|error| error.kind());
            assert_eq!(refused, Some(io::ErrorKind::AlreadyExists));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        });
    }

    /// Between its start as a copy of the daemon and the moment when it closes what it has of it.
    #[test]
    fn what_a_killed_daemon_has_forked_keeps_nobody_from_starting() {
        let _descriptors = lab::descriptors();
        let directory = lab::directory::Directory::new("bonding-forked").unwrap();
        let path = directory.path("control.sock");
        let inherited = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let child = std::thread::spawn(move || {
            let mut one = [nix::poll::PollFd::new(inherited.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut one, nix::poll::PollTimeout::NONE).unwrap();
        });
        Control::open(&path, None).unwrap();
        child.join().unwrap();
    }

    #[test]
    fn a_request_without_end_is_refused() {
        let path = std::env::temp_dir().join(format!("bonding-long-{}.sock", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _control = bind(&path);
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let request = vec![b'x'; usize::try_from(MAX_REQUEST).unwrap() + 1];
            stream.write_all(&request).await.unwrap();
            let mut reply = Vec::new();
            // Unread bytes make the kernel reset the connection, after the answer or instead of its end.
            let _ = stream.read_to_end(&mut reply).await;
            assert!(String::from_utf8_lossy(&reply).contains("not a request"));
        });
    }

    #[test]
    fn silent_clients_keep_nobody_from_being_answered() {
        let path = std::env::temp_dir().join(format!("bonding-silent-{}.sock", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut control = bind(&path);
            let at = path.clone();
            let client = std::thread::spawn(move || {
                let silent = || BlockingStream::connect(&at).unwrap();
                let silent: Vec<_> = (0..500).map(|_| silent()).collect();
                let asked = std::time::Instant::now();
                let answer = ask(&at, &Command::Status).unwrap();
                assert!(asked.elapsed() < LIMIT, "{:?}", asked.elapsed());
                drop(silent);
                answer
            });
            let request = control.next().await;
            assert_eq!(request.command, Command::Status);
            request.reply(serde_json::json!({ "ok": true }));
            while !client.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(client.join().unwrap(), serde_json::json!({ "ok": true }));
        });
    }

    #[test]
    fn groups_by_name() {
        let list = "root:x:0:\nadm:x:4:syslog,alice\nbroken\nstaff:x:fifty:\n";
        assert_eq!(group_in(list, "adm"), Some(4));
        for nobody in ["alice", "broken", "staff", "", "adm:x"] {
            assert_eq!(group_in(list, nobody), None, "{nobody}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_leaves_no_socket() {
        let path = std::env::temp_dir().join(format!("bonding-group-{}.sock", std::process::id()));
        let error = Control::open(&path, Some("no-such-group")).err().unwrap();
        assert_eq!(error.to_string(), "there is no group 'no-such-group'");
        assert!(!path.exists());
        // A group by number needs no name; who is not root may give the socket to their own groups only.
        let group = nix::unistd::getegid().to_string();
        let opened = Control::open(&path, Some(&group)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(opened);
        assert!(!path.exists());
    }
}
