//! A link of the client: what is known of it, the socket that it sends from, and what the core was told.

use std::net::SocketAddr;
use std::time::Duration;

use crate::bond::{LinkConfig, LinkId, LinkState, Path, PeerId, SocketId, Time};
use crate::config;
use crate::config::value::Host;
use crate::daemon::mapping;
use crate::daemon::outside::Exit;
use crate::io::{Driver, Socket, SocketOptions};
use crate::net::Family;
use crate::net::netifd::Resolved;

/// The note of a link that is yet to be placed.
pub(super) const LOOKING: &str = "looking for its device and address";

/// Where a link is, with the index of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Device, addresses and gateways.
    pub resolved: Resolved,
    /// Index of the device.
    pub index: u32,
}

/// The answer to where a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placing {
    /// There.
    At(Place),
    /// Nowhere: why.
    Nowhere(String),
    /// Who was asked could not tell: why. What was known before is kept.
    NotAnswered(String),
}

/// Whether the answer to where a link is is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Asked {
    #[default]
    No,
    Once,
    /// Something has changed since.
    Again,
}

impl Asked {
    /// It is to be known anew. Returns whether it is asked now, and not when the answer that is on its way is there.
    pub(super) fn ask(&mut self) -> bool {
        let before = *self;
        *self = if before == Asked::No { Asked::Once } else { Asked::Again };
        before == Asked::No
    }

    /// The answer is there. Returns whether it is asked again.
    pub(super) fn answered(&mut self) -> bool {
        let again = *self == Asked::Again;
        *self = if again { Asked::Once } else { Asked::No };
        again
    }
}

/// What of a link's configuration says where it is.
pub(super) fn leads_to(link: &config::Link) -> impl PartialEq + '_ {
    (&link.interface, &link.device, link.ipaddr, link.gateway, link.ip6addr, link.ip6gateway)
}

/// A socket, and where it sends to.
pub(super) struct Connection {
    pub socket: SocketId,
    pub options: SocketOptions,
    pub remote: SocketAddr,
}

/// A link of the configuration.
pub(super) struct Link {
    pub id: LinkId,
    pub config: config::Link,
    pub table: u32,
    /// Taken out by hand.
    pub taken_out: bool,
    /// Its quota is used up.
    pub last_resort: bool,
    pub place: Result<Place, String>,
    pub placing: Asked,
    pub connection: Option<Connection>,
    /// Port of the last socket, kept so that a NAT on the way keeps its mapping.
    pub last_port: Option<u16>,
    /// Counts the server's addresses that were tried.
    pub turn: usize,
    pub turned: Time,
    /// What the core was told.
    pub told: Option<LinkConfig>,
    pub state: Option<LinkState>,
    /// When it last ceased to carry traffic.
    pub heard: Option<Time>,
    /// Its smallest round trip lately, when the server answered.
    pub round_trip: Option<Duration>,
    /// Why there is no path; empty when there is one.
    pub note: String,
}

impl Link {
    /// A link that is yet to be placed.
    pub(super) fn new(id: LinkId, config: config::Link, table: u32, now: Time) -> Self {
        Link {
            id,
            config,
            table,
            taken_out: false,
            last_resort: false,
            place: Err(LOOKING.into()),
            placing: Asked::default(),
            connection: None,
            last_port: None,
            turn: 0,
            turned: now,
            told: None,
            state: None,
            heard: None,
            round_trip: None,
            note: LOOKING.into(),
        }
    }

    /// Takes another configuration. One that leads elsewhere has to be placed again.
    pub(super) fn configure(&mut self, config: &config::Link, table: u32) {
        if leads_to(&self.config) != leads_to(config) {
            self.place = Err(LOOKING.into());
        }
        self.config = config.clone();
        self.table = table;
    }

    /// Opens or changes the socket, so that it fits what is wanted, or closes it, if that is why it cannot send.
    pub(super) fn connect(
        &mut self,
        wanted: Result<(SocketOptions, SocketAddr), String>,
        driver: &mut Driver,
    ) {
        let (options, remote) = match wanted {
            Ok(wanted) => wanted,
            Err(note) => {
                self.disconnect(driver);
                if self.note != note {
                    log::info!("link {}: {note}", self.config.name);
                }
                self.note = note;
                return;
            }
        };
        self.note.clear();
        if let Some(connection) = &mut self.connection {
            if connection.options == options {
                connection.remote = remote;
                return;
            }
            self.disconnect(driver);
        }
        if options.address.port() != 0 {
            // A link that was removed a moment ago may have had the same one.
            driver.close_retired();
        }
        let opening = SocketOptions { preferred_port: self.last_port, ..options.clone() };
        match Socket::open(opening) {
            Ok(socket) => {
                log::debug!("link {}: sending from {} to {remote}", self.config.name, socket.local_addr());
                self.last_port = Some(socket.local_addr().port());
                let socket = driver.add_socket(socket);
                self.connection = Some(Connection { socket, options, remote });
            }
            Err(error) => {
                self.note = error.to_string();
                log::warn!("link {}: {error}", self.config.name);
            }
        }
    }

    /// Closes the socket.
    pub(super) fn disconnect(&mut self, driver: &mut Driver) {
        if let Some(connection) = self.connection.take() {
            driver.remove_socket(connection.socket);
        }
    }

    /// Tells the core what has changed.
    pub(super) fn tell(&mut self, peer: PeerId, driver: &mut Driver, now: Time) {
        let path = self.connection.as_ref().map(|connection| Path {
            socket: connection.socket,
            local: Some(connection.options.address.ip()),
            remote: connection.remote,
        });
        let wanted = mapping::link(&self.config, self.id, path, !self.taken_out, self.last_resort);
        if self.told.as_ref() != Some(&wanted) {
            driver.endpoint_mut().set_link(peer, wanted.clone(), now);
            self.told = Some(wanted);
        }
    }

    /// How traffic outside the bond can use it; `None` while it has no place or is taken out.
    pub(super) fn exit(&self) -> Option<Exit> {
        let place = self.place.as_ref().ok().filter(|_| !self.taken_out)?;
        let families = Family::ALL.into_iter().filter(|family| place.resolved.path(*family).is_some());
        Some(Exit {
            link: self.config.name.clone(),
            table: self.table,
            families: families.collect(),
            // A suspicion may pass; connections that have changed the link meanwhile would be lost.
            up: self.is_alive(),
        })
    }

    /// It carries traffic, or did a moment ago.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, Some(LinkState::Up | LinkState::Suspect))
    }

    /// The server in use has this name on it.
    pub(super) fn calls(&self, name: &str) -> bool {
        self.config.servers.iter().any(|host| matches!(host, Host::Name(of) if of == name))
    }

    /// Its device, where it has a place.
    pub(super) fn device(&self) -> Option<&String> {
        self.place.as_ref().ok()?.resolved.device.as_ref()
    }
}
