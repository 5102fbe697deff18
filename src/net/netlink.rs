//! The connection to the kernel's routing netlink.
//!
//! `rtnetlink` carries the messages. What it lacks for a daemon is here: every request has a deadline, the kernel's own
//! words for a refusal (extended acknowledgements) are kept, a dump that changed while it was read
//! (`NLM_F_DUMP_INTR`) is read again, and a connection that broke is made anew.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::sys::AsyncSocket;

use super::Family;

/// How long the kernel may take to answer. It answers within microseconds; minutes pass only when it never will.
const DEADLINE: Duration = Duration::from_secs(5);

/// How often a dump is read again because something changed meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// Length of `struct nlmsghdr`, in bytes.
const HEADER_LEN: usize = 16;

/// `NLM_F_ACK_TLVS`: attributes follow an acknowledgement's header.
const NLM_F_ACK_TLVS: u16 = 0x200;

/// `NLMSGERR_ATTR_MSG`: the kernel's explanation, a text.
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Why the kernel did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket could be opened.
    #[error("cannot talk to the kernel (netlink): {0}")]
    Open(#[source] io::Error),
    /// The connection broke.
    #[error("{0}: the connection to the kernel (netlink) broke")]
    Closed(String),
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
    connection: Arc<Mutex<Connection>>,
    // The kernel serves one dump a socket at a time and refuses a second one with EBUSY.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Connection {
    handle: rtnetlink::Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    fn open() -> Result<Self, Error> {
        let (mut connection, handle, _unsolicited) = rtnetlink::new_connection().map_err(Error::Open)?;
        let socket = connection.socket_mut().socket_mut();
        // Older kernels lack these (strict checking: Linux 4.20, which makes the kernel filter dumps; the other two:
        // 4.12). They cost time or words only: answers are checked here too.
        let _ = socket.set_netlink_get_strict_chk(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        let task = tokio::spawn(connection);
        Ok(Connection { handle, task })
    }
}

impl Netlink {
    /// Opens a connection. Must be called within a tokio runtime.
    pub fn open() -> Result<Netlink, Error> {
        Ok(Netlink { connection: Arc::new(Mutex::new(Connection::open()?)), turn: Arc::default() })
    }

    /// Sends a request and waits for its acknowledgement. `action` says in words what is being done.
    pub(super) async fn acknowledged(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: impl Fn() -> String,
    ) -> Result<(), Error> {
        let mut answer = Ok(());
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, &action, |header, payload| {
            if let NetlinkPayload::Error(error) = payload {
                answer = Err(refusal(&header, &error, &action));
            }
        })
        .await?;
        answer
    }

    /// Reads a whole table. `pick` chooses what is wanted of it; the rest is not kept.
    ///
    /// A kernel without the family (IPv6 switched off) has an empty table.
    pub(super) async fn dump<T>(
        &self,
        request: RouteNetlinkMessage,
        action: &str,
        mut pick: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let action = || action.to_owned();
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let mut interrupted = false;
            let mut failed = None;
            self.exchange(request.clone(), NLM_F_REQUEST | NLM_F_DUMP, &action, |header, payload| {
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match payload {
                    NetlinkPayload::InnerMessage(message) => found.extend(pick(message)),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        failed = Some(refusal(&header, &error, &action));
                    }
                    NetlinkPayload::Overrun(_) => interrupted = true,
                    _ => {}
                }
            })
            .await?;
            match failed {
                Some(error)
                    if matches!(
                        error.errno(),
                        Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP | libc::ENOENT)
                    ) =>
                {
                    return Ok(Vec::new());
                }
                Some(error) => return Err(error),
                None if !interrupted => break,
                None => {}
            }
        }
        Ok(found)
    }

    /// Asks for one object; `None` when the kernel says that there is none.
    pub(super) async fn get(
        &self,
        request: RouteNetlinkMessage,
        action: impl Fn() -> String,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let mut found = Ok(None);
        self.exchange(request, NLM_F_REQUEST, &action, |header, payload| match payload {
            NetlinkPayload::InnerMessage(message) => found = Ok(Some(message)),
            NetlinkPayload::Error(error) if error.code.is_some() => {
                found = match -error.raw_code() {
                    libc::ENODEV | libc::ENOENT | libc::ESRCH => Ok(None),
                    _ => Err(refusal(&header, &error, &action)),
                };
            }
            _ => {}
        })
        .await?;
        found
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        action: &impl Fn() -> String,
        mut receive: impl FnMut(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>),
    ) -> Result<(), Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let work = async {
            let _turn = self.turn.lock().await;
            let mut handle = self.handle()?;
            let mut answers = handle.request(request).map_err(|_| Error::Closed(action()))?;
            while let Some(answer) = answers.next().await {
                let (header, payload) = answer.into_parts();
                receive(header, payload);
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, work).await.map_err(|_| Error::Timeout(action()))?
    }

    #[cfg(test)]
    pub(super) async fn break_connection(&self) {
        let task = {
            let connection = self.connection.lock().unwrap();
            connection.task.abort_handle()
        };
        task.abort();
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    fn handle(&self) -> Result<rtnetlink::Handle, Error> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.task.is_finished() {
            *connection = Connection::open()?;
        }
        Ok(connection.handle.clone())
    }
}

fn refusal(header: &NetlinkHeader, error: &ErrorMessage, action: &impl Fn() -> String) -> Error {
    let source = error.to_io();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => Error::Permission(action()),
        _ => Error::Kernel { action: action(), source, detail: explanation(header, error) },
    }
}

fn explanation(header: &NetlinkHeader, error: &ErrorMessage) -> Option<String> {
    if header.flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    // NETLINK_CAP_ACK is on, so nothing but the request's header stands before the attributes.
    let attributes = error.header.get(HEADER_LEN..)?;
    NlasIterator::new(attributes).flatten().find(|nla| nla.kind() == NLMSGERR_ATTR_MSG).and_then(|nla| {
        let text = String::from_utf8_lossy(nla.value());
        let text = text.trim_end_matches('\0').trim_end_matches('.');
        (!text.is_empty()).then(|| text.to_owned())
    })
}

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        }
    }
}

/// The family of a message from the kernel; `None` for those that do not concern us (MPLS, bridges, multicast).
pub(super) fn family_of(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}
