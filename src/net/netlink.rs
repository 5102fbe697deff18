//! The connection to the kernel's routing netlink.
//!
//! One request at a time. Every request has a deadline, the kernel's own words for a refusal (extended
//! acknowledgements) are kept, a dump that changed while it was read (`NLM_F_DUMP_INTR`) is read again, and a connection
//! that broke is made anew.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::SockProtocol;

use super::message::{
    Attributes, HEADER_LEN, Message, NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR,
    NLM_F_MULTI, NLM_F_REQUEST, Request, text, u32_at,
};
use super::socket::{DATAGRAM, Socket};

/// How long the kernel may take to answer. It answers within microseconds; minutes pass only when it never will.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often a dump is read again because something changed meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// `NLMSGERR_ATTR_MSG`: the kernel's explanation, a text.
const NLMSGERR_ATTR_MSG: u16 = 1;

// linux/netlink.h: kinds of message that every netlink family has.
const NLMSG_NOOP: u16 = 1;
pub(super) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

/// Why the kernel did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket could be opened.
    #[error("cannot talk to the kernel (netlink): {0}")]
    Open(#[source] io::Error),
    /// The connection broke.
    #[error("{action}: the connection to the kernel (netlink) broke: {source}")]
    Broken {
        /// What was to be done.
        action: String,
        /// What happened.
        source: io::Error,
    },
    /// No answer came.
    #[error("{0}: the kernel did not answer within 5 seconds")]
    Timeout(String),
    /// The process lacks CAP_NET_ADMIN.
    #[error("{0}: no permission: run as root or with CAP_NET_ADMIN")]
    Permission(String),
    /// The kernel refused.
    #[error("{action}: {source}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Kernel {
        /// What was to be done.
        action: String,
        /// The error number.
        source: io::Error,
        /// The kernel's own explanation, where it gave one.
        detail: Option<String>,
    },
    /// Somebody else has set the same route or rule.
    #[error("{0}: somebody else has set the same already; it is left alone")]
    Conflict(String),
    /// There is no such interface.
    #[error("there is no network interface '{0}'")]
    NoLink(String),
    /// Addresses of both families in one route, rule or address.
    #[error("{0}: IPv4 and IPv6 are mixed")]
    MixedFamilies(String),
}

impl Error {
    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Kernel { source, .. } => source.raw_os_error(),
            Error::Permission(_) => Some(libc::EPERM),
            _ => None,
        }
    }
}

/// A connection to the kernel. Clones share it. Opened in the network namespace of the calling thread.
#[derive(Clone, Debug)]
pub struct Netlink {
    // The kernel serves one dump a socket at a time and refuses a second one with EBUSY. While somebody waits for an
    // answer the connection is out of its place: if he is cancelled it goes, and with it the rest of the answer.
    connection: Arc<tokio::sync::Mutex<Option<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkRoute, 0)?;
        // Older kernels lack these (strict checking: Linux 4.20, which makes the kernel filter dumps; the other two:
        // 4.12). They cost time or words only: answers are checked here too.
        let _ = socket.switch_on(libc::NETLINK_GET_STRICT_CHK);
        let _ = socket.switch_on(libc::NETLINK_CAP_ACK);
        let _ = socket.switch_on(libc::NETLINK_EXT_ACK);
        Ok(Connection { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM) })
    }

    fn send(&mut self, request: &mut Request, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(request.finish(flags, self.sequence))
    }

    /// Hands over what is answered to the last request, until its end.
    async fn answers(&mut self, receive: &mut (dyn FnMut(Answer<'_>) + Send)) -> io::Result<()> {
        loop {
            match self.socket.receive(&mut self.buffer).await {
                Ok(()) => {}
                // The kernel had no room for a part of the answer.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    receive(Answer::Interrupted);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let mut rest = self.buffer.as_slice();
            while let Some((message, after)) = Message::split(rest) {
                rest = after;
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    receive(Answer::Interrupted);
                }
                match message.kind {
                    NLMSG_NOOP => continue,
                    NLMSG_OVERRUN => receive(Answer::Interrupted),
                    NLMSG_ERROR | NLMSG_DONE => {
                        // Zero is an acknowledgement, and what ends a list.
                        if errno(&message) != 0 {
                            receive(Answer::Refused(&message));
                        }
                        return Ok(());
                    }
                    _ => receive(Answer::Object(&message)),
                }
                if message.flags & NLM_F_MULTI == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// A part of an answer.
enum Answer<'a> {
    /// What was asked for.
    Object(&'a Message<'a>),
    /// The kernel's error.
    Refused(&'a Message<'a>),
    /// Something changed while it was read, or was lost.
    Interrupted,
}

impl Netlink {
    /// Opens a connection. Must be called within a tokio runtime.
    pub fn open() -> Result<Netlink, Error> {
        let connection = Connection::open().map_err(Error::Open)?;
        Ok(Netlink { connection: Arc::new(tokio::sync::Mutex::new(Some(connection))) })
    }

    /// Sends a request and waits for its acknowledgement. `action` says in words what is being done.
    pub(super) async fn acknowledged(&self, request: Request, flags: u16, action: &str) -> Result<(), Error> {
        let mut answer = Ok(());
        self.exchange(request, NLM_F_REQUEST | NLM_F_ACK | flags, action, &mut |part| {
            if let Answer::Refused(error) = part {
                answer = Err(refusal(error, action));
            }
        })
        .await?;
        answer
    }

    /// Reads a whole table. `pick` chooses what is wanted of it; the rest is not kept.
    ///
    /// A kernel without the family (IPv6 switched off) has an empty table.
    pub(super) async fn dump<T: Send>(
        &self,
        request: Request,
        action: &str,
        mut pick: impl FnMut(&Message<'_>) -> Option<T> + Send,
    ) -> Result<Vec<T>, Error> {
        let mut found = Vec::new();
        self.table(request, action, &mut |part| match part {
            Some(message) => found.extend(pick(message)),
            None => found.clear(),
        })
        .await?;
        Ok(found)
    }

    /// Hands a whole table over, object by object; `None` when all before it is to be forgotten.
    async fn table(
        &self,
        request: Request,
        action: &str,
        receive: &mut (dyn FnMut(Option<&Message<'_>>) + Send),
    ) -> Result<(), Error> {
        for _ in 0..DUMP_ATTEMPTS {
            receive(None);
            let mut interrupted = false;
            let mut failed = None;
            self.exchange(request.clone(), NLM_F_REQUEST | NLM_F_DUMP, action, &mut |part| match part {
                Answer::Object(message) => receive(Some(message)),
                Answer::Refused(error) => failed = Some(refusal(error, action)),
                Answer::Interrupted => interrupted = true,
            })
            .await?;
            match failed {
                Some(error)
                    if matches!(
                        error.errno(),
                        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT)
                    ) =>
                {
                    receive(None);
                    break;
                }
                Some(error) => return Err(error),
                None if !interrupted => break,
                None => {}
            }
        }
        Ok(())
    }

    /// Asks for one object and reads it by `pick`; `None` when the kernel says that there is none.
    pub(super) async fn get<T: Send>(
        &self,
        request: Request,
        action: &str,
        pick: impl Fn(&Message<'_>) -> Option<T> + Sync,
    ) -> Result<Option<T>, Error> {
        let mut found = None;
        self.object(request, action, &mut |message| found = pick(message)).await?;
        Ok(found)
    }

    async fn object(
        &self,
        request: Request,
        action: &str,
        receive: &mut (dyn FnMut(&Message<'_>) + Send),
    ) -> Result<(), Error> {
        let mut failed = Ok(());
        self.exchange(request, NLM_F_REQUEST, action, &mut |part| match part {
            Answer::Object(message) => receive(message),
            Answer::Refused(error) => {
                failed = match errno(error) {
                    libc::ENODEV | libc::ENOENT | libc::ESRCH => Ok(()),
                    _ => Err(refusal(error, action)),
                };
            }
            Answer::Interrupted => {}
        })
        .await?;
        failed
    }

    /// Not generic, because all of a connection's way is in here.
    async fn exchange(
        &self,
        mut request: Request,
        flags: u16,
        action: &str,
        receive: &mut (dyn FnMut(Answer<'_>) + Send),
    ) -> Result<(), Error> {
        let work = async {
            let mut place = self.connection.lock().await;
            let usable =
                place.take().and_then(|mut old| old.send(&mut request, flags).is_ok().then_some(old));
            let mut connection = match usable {
                Some(connection) => connection,
                None => {
                    let mut new = Connection::open().map_err(Error::Open)?;
                    new.send(&mut request, flags)
                        .map_err(|source| Error::Broken { action: action.to_owned(), source })?;
                    new
                }
            };
            let answered = connection.answers(receive).await;
            answered.map_err(|source| Error::Broken { action: action.to_owned(), source })?;
            *place = Some(connection);
            Ok(())
        };
        tokio::time::timeout(DEADLINE, work).await.map_err(|_| Error::Timeout(action.to_owned()))?
    }

    /// As if a request had been cancelled in the midst of its answer.
    #[cfg(test)]
    pub(super) async fn break_connection(&self) {
        let receive: &mut (dyn FnMut(Answer<'_>) + Send) = &mut |_| ();
        let work =
            self.exchange(Request::new(libc::RTM_GETLINK, &[0; 16]), NLM_F_REQUEST | NLM_F_DUMP, "", receive);
        let mut work = Box::pin(work);
        std::future::poll_fn(|context| {
            let _ = work.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
}

/// The error number in an acknowledgement, or 0.
pub(super) fn errno(message: &Message<'_>) -> i32 {
    u32_at(message.body, 0).map_or(0, |code| (code as i32).wrapping_neg())
}

pub(super) fn refusal(message: &Message<'_>, action: &str) -> Error {
    let source = io::Error::from_raw_os_error(errno(message));
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::Permission(action.to_owned()),
        _ => Error::Kernel { action: action.to_owned(), source, detail: explanation(message) },
    }
}

fn explanation(message: &Message<'_>) -> Option<String> {
    if message.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // struct nlmsgerr: the error number, the request's header, and, unless NETLINK_CAP_ACK is on, the request itself.
    const NUMBER: usize = 4;
    let request = match message.flags & NLM_F_CAPPED {
        0 => usize::try_from(u32_at(message.body, NUMBER)?)
            .ok()?
            .max(HEADER_LEN)
            .checked_next_multiple_of(4)?,
        _ => HEADER_LEN,
    };
    let attributes = message.body.get(NUMBER.checked_add(request)?..)?;
    let (_, words) = Attributes::nested(attributes).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    let words = text(words);
    let words = words.trim_end_matches('.');
    (!words.is_empty()).then(|| words.to_owned())
}
