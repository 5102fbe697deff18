//! Transactions of nf_tables: all of it, or nothing.

use std::io;
use std::time::Duration;

use nix::sys::socket::SockProtocol;

use super::Firewall;
use super::ruleset::{
    Message, NFT_MSG_DELTABLE, NFT_MSG_NEWTABLE, NFTA_TABLE_NAME, batch_mark, message_kind, question,
    removal, replacement,
};
use crate::net::Error;
use crate::net::message::{Message as Answer, NLM_F_ACK, NLM_F_REQUEST, text};
use crate::net::netlink::{NLMSG_ERROR, errno, refusal};
use crate::net::socket::{DATAGRAM, Socket};

/// How long the kernel may take. Loading a module is part of the first transaction.
const DEADLINE: Duration = Duration::from_secs(10);

// linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `struct nfgenmsg`.
const HEADER: usize = 4;

/// What a kernel must have; said when it refuses what it does not know.
const NEEDS: &str = "the kernel needs nf_tables with inet, nat, masq, fib and ct (Linux 5.2 or later; \
                     OpenWrt: opkg install kmod-nft-nat kmod-nft-fib)";

/// Puts the table in the place of the one of that name, if there is one.
///
/// # Errors
///
/// When the kernel refuses; then nothing has changed.
pub async fn set(firewall: &Firewall) -> Result<(), Error> {
    commit(replacement(firewall), &format!("set the nftables table '{}'", firewall.table)).await
}

/// Removes the table, if there is one.
///
/// # Errors
///
/// When the kernel refuses.
pub async fn remove(table: &str) -> Result<(), Error> {
    commit(removal(table), &format!("remove the nftables table '{table}'")).await
}

/// Whether there is a table of this name.
///
/// # Errors
///
/// When the kernel does not say.
pub async fn exists(table: &str) -> Result<bool, Error> {
    let action = format!("look for the nftables table '{table}'");
    let work = async {
        let socket = open(0)?;
        let mut request = question(table);
        let broken = |source| Error::Broken { action: action.clone(), source };
        socket.send(request.finish(NLM_F_REQUEST, 1)).map_err(broken)?;
        let mut buffer = Vec::with_capacity(DATAGRAM);
        socket.receive(&mut buffer).await.map_err(broken)?;
        let Some((answer, _)) = Answer::split(&buffer) else { return Ok(false) };
        match answer.kind {
            NLMSG_ERROR if matches!(errno(&answer), libc::ENOENT | libc::EOPNOTSUPP) => Ok(false),
            NLMSG_ERROR => Err(refusal(&answer, &action)),
            kind => Ok(kind == message_kind(NFT_MSG_NEWTABLE)),
        }
    };
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| Error::Timeout(action.clone()))?
}

fn open(groups: u32) -> Result<Socket, Error> {
    Socket::open(SockProtocol::NetlinkNetFilter, groups).map_err(Error::Open)
}

pub(super) async fn commit(messages: Vec<Message>, action: &str) -> Result<(), Error> {
    let broken = |source| Error::Broken { action: action.to_owned(), source };
    let work = async {
        let socket = open(0)?;
        let _ = socket.switch_on(libc::NETLINK_CAP_ACK);
        let _ = socket.switch_on(libc::NETLINK_EXT_ACK);
        let (batch, last) = batch(messages);
        socket.make_room(batch.len()).map_err(broken)?;
        socket.send(&batch).map_err(broken)?;
        let mut buffer = Vec::with_capacity(DATAGRAM);
        loop {
            socket.receive(&mut buffer).await.map_err(broken)?;
            let mut rest = buffer.as_slice();
            while let Some((answer, after)) = Answer::split(rest) {
                rest = after;
                if answer.kind != NLMSG_ERROR {
                    continue;
                }
                // A refusal of any message is one of all. The last one's acknowledgement comes after the commit.
                match errno(&answer) {
                    0 if answer.sequence == last => return Ok(()),
                    0 => {}
                    _ => return Err(explained(refusal(&answer, action))),
                }
            }
        }
    };
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| Error::Timeout(action.to_owned()))?
}

/// All messages in one, and the number of the last but the end mark.
fn batch(messages: Vec<Message>) -> (Vec<u8>, u32) {
    let mut bytes = batch_mark(NFNL_MSG_BATCH_BEGIN).finish(NLM_F_REQUEST, 0).to_vec();
    let last = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    for (number, mut message) in (1..).zip(messages) {
        let acknowledge = if number == last { NLM_F_ACK } else { 0 };
        bytes.extend_from_slice(message.request.finish(NLM_F_REQUEST | acknowledge | message.flags, number));
    }
    let end = last.saturating_add(1);
    bytes.extend_from_slice(batch_mark(NFNL_MSG_BATCH_END).finish(NLM_F_REQUEST, end));
    (bytes, last)
}

/// With what is missing where the kernel only says that it does not know something.
fn explained(error: Error) -> Error {
    let unknown = [libc::EOPNOTSUPP, libc::ENOENT, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
    match error {
        Error::Kernel { action, source, detail: None }
            if source.raw_os_error().is_some_and(|number| unknown.contains(&number)) =>
        {
            Error::Kernel { action, source, detail: Some(NEEDS.into()) }
        }
        other => other,
    }
}

/// What others do to a table.
pub struct Announcements {
    socket: Socket,
    table: String,
    buffer: Vec<u8>,
}

impl Announcements {
    /// Listens in the calling thread's network namespace. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel gives no such socket.
    pub fn open(table: &str) -> Result<Announcements, Error> {
        Ok(Announcements { socket: open(1 << (GROUP - 1))?, table: table.into(), buffer: Vec::new() })
    }

    /// Waits until the table may have been removed, by us or by somebody else (`nft flush ruleset` does). Can be
    /// cancelled.
    ///
    /// # Errors
    ///
    /// When the socket broke.
    pub async fn removed(&mut self) -> io::Result<()> {
        loop {
            match self.socket.receive(&mut self.buffer).await {
                Ok(()) => {}
                // Something was missed.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(()),
                Err(error) => return Err(error),
            }
            let mut rest = self.buffer.as_slice();
            while let Some((message, after)) = Answer::split(rest) {
                rest = after;
                let is_ours =
                    |(kind, value): (u16, &[u8])| kind == NFTA_TABLE_NAME && text(value) == self.table;
                if message.kind == message_kind(NFT_MSG_DELTABLE) && message.attributes(HEADER).any(is_ours) {
                    return Ok(());
                }
            }
        }
    }
}
