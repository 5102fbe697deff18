//! Finding out where the links are, at the start and whenever the network has changed.

use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Daemon, Message, Side};
use crate::config;
use crate::daemon::client::{Client, Place, Placing};
use crate::daemon::places;
use crate::daemon::runner::Runner;
use crate::io::timer::now;
use crate::net::Netlink;
use crate::net::netifd::Resolved;

/// The start waits so long for netifd and the kernel to tell where the links are.
const PLACE_DEADLINE: Duration = Duration::from_secs(2);

impl Daemon {
    /// Asks anew where everything is.
    pub(super) fn look(&mut self) {
        self.looked = now();
        match &mut self.side {
            Side::Client(client) => {
                let links = client.questions();
                self.ask_for(links);
            }
            Side::Server(server) => {
                for error in server.listen(&self.config, &mut self.driver) {
                    log::debug!("{error}");
                }
            }
        }
    }

    fn ask_for(&self, links: Vec<config::Link>) {
        ask(links, &self.netlink, Some(&self.runner), self.config.globals.route_protocol, &self.tell);
    }

    /// Takes the answer of where a link is.
    pub(super) fn take_place(&mut self, asked: &config::Link, placing: Placing) {
        let Side::Client(client) = &mut self.side else { return };
        let (moved, again) = client.take_place(asked, placing);
        self.ask_for(again.into_iter().collect());
        if moved {
            self.follow();
        }
    }
}

/// Waits for the places of all links, for a limited time; who is late comes later.
pub(super) async fn place_now(client: &mut Client, netlink: &Netlink, runner: Option<&Runner>, protocol: u8) {
    let (tell, mut answers) = mpsc::channel(config::MAX_LINKS);
    ask(client.links().cloned().collect(), netlink, runner, protocol, &tell);
    // Once the last task has told, nobody else holds this end.
    drop(tell);
    let gather = async {
        while let Some(message) = answers.recv().await {
            if let Message::Placed(asked, placing) = message {
                client.set_place(&asked.name, placing);
            }
        }
    };
    let _ = timeout(PLACE_DEADLINE, gather).await;
}

/// Finds out where the links are, each in a task, and tells what was found.
fn ask(
    links: Vec<config::Link>,
    netlink: &Netlink,
    runner: Option<&Runner>,
    protocol: u8,
    tell: &mpsc::Sender<Message>,
) {
    for link in links {
        let (netlink, runner, tell) = (netlink.clone(), runner.cloned(), tell.clone());
        crate::daemon::spawn(async move {
            let place = place(&link, netlink, runner.as_ref(), protocol).await;
            let _ = tell.send(Message::Placed(Box::new(link), place)).await;
        });
    }
}

async fn place(link: &config::Link, netlink: Netlink, runner: Option<&Runner>, protocol: u8) -> Placing {
    let resolved: Resolved = match places::resolve_link(link, netlink, runner, protocol).await {
        Ok(resolved) => resolved,
        Err(error) if error.is_final() => {
            return Placing::Nowhere(error.to_string());
        }
        Err(error) => return Placing::NotAnswered(error.to_string()),
    };
    let Some(device) = &resolved.device else {
        return Placing::Nowhere(match (&link.interface, &link.ipaddr, &link.ip6addr) {
            (Some(interface), ..) => format!("interface '{interface}' has no device"),
            (None, Some(net), _) | (None, None, Some(net)) => {
                format!("no device has the address {}", net.address)
            }
            (None, None, None) => "it has neither 'interface' nor 'device' nor 'ipaddr'".into(),
        });
    };
    match if_nametoindex(device.as_str()) {
        Ok(index) => Placing::At(Place { resolved, index }),
        Err(_) => Placing::Nowhere(format!("there is no device '{device}'")),
    }
}
