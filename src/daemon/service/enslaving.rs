//! Kernel mode: the links' devices and their carriers follow the links.

use super::{Daemon, Side};
use crate::bond::keys::PrivateKey;
use crate::bond::sorted::SortedMap;
use crate::bond::{LinkId, PeerId};
use crate::config::Config;
use crate::config::key::Secret;
use crate::daemon::client::Client;
use crate::daemon::kernel::{KernelBond, KernelError, Wanted, device_name};
use crate::io::Driver;

/// The number that a client gives to its first link.
pub(super) const FIRST_LINK: LinkId = 0;

impl Daemon {
    /// Gives new links their devices, takes away those of old ones, and sets the carriers.
    pub(super) async fn follow_links(&mut self) {
        let peer = only_peer(&self.side);
        let Some(kernel) = &mut self.kernel else { return };
        if !kernel.is_whole(peer) {
            self.device_lost = true;
            return;
        }
        if let Err(error) = enslave(kernel, &self.config, &self.side, &mut self.driver).await {
            log::warn!("{error}");
        }
        set_carriers(kernel, peer, &self.driver);
    }

    /// Whether no link's device has disappeared.
    pub(super) fn has_link_devices(&self) -> bool {
        self.kernel.as_ref().is_none_or(|kernel| kernel.is_whole(only_peer(&self.side)))
    }

    /// Makes the bonding device and all its slaves anew.
    pub(super) async fn remake_bond(&mut self) -> Result<(), KernelError> {
        let peer = only_peer(&self.side);
        let Some(kernel) = &mut self.kernel else { return Ok(()) };
        let wanted = wanted(kernel, &self.config, &self.side, &self.driver);
        kernel.remake(self.tunnel.mtu, peer, &wanted, &mut self.driver).await?;
        set_carriers(kernel, peer, &self.driver);
        self.tunnel.index = kernel.index();
        Ok(())
    }
}

/// Gives every link its device.
pub(super) async fn enslave(
    kernel: &mut KernelBond,
    config: &Config,
    side: &Side,
    driver: &mut Driver,
) -> Result<(), KernelError> {
    let wanted = wanted(kernel, config, side, driver);
    kernel.follow(only_peer(side), &wanted, driver).await
}

fn set_carriers(kernel: &mut KernelBond, peer: Option<PeerId>, driver: &Driver) {
    let links = || peer.into_iter().flat_map(|peer| driver.endpoint().links(peer));
    let up = |link| links().any(|known| known.id == link && known.carries);
    kernel.set_carriers(driver, up);
}

/// A hardware address of our own: locally administered (IEEE 802), the rest from the public key.
pub(super) fn hardware_address(key: &Secret) -> [u8; 6] {
    let public = PrivateKey::from_bytes(*key.as_bytes()).public();
    let [a, b, c, d, e, ..] = *public.as_bytes();
    [0x02, a, b, c, d, e]
}

fn only_peer(side: &Side) -> Option<PeerId> {
    match side {
        Side::Client(client) => Some(client.peer()),
        Side::Server(server) => server.first(),
    }
}

/// A client's links are in its configuration. A server learns of them one by one, and keeps their devices: a client that
/// starts again has the same links in a moment. The first one has its device from the start, so that a driver that
/// refuses it is known then.
fn wanted(kernel: &KernelBond, config: &Config, side: &Side, driver: &Driver) -> Vec<Wanted> {
    let ifname = &config.bond.ifname;
    match side {
        Side::Client(client) => clients_devices(client, ifname).collect(),
        Side::Server(server) => {
            let known = server.first().into_iter().flat_map(|peer| driver.endpoint().links(peer));
            let known = known.map(|link| (link.id, link.priority));
            let kept = kernel.links().chain([FIRST_LINK]).map(|link| (link, u8::MAX));
            // What is known counts more than what is kept.
            let links: SortedMap<LinkId, u8> = kept.chain(known).collect();
            let wanted = |(link, priority)| Wanted { link, device: servers_device(ifname, link), priority };
            links.into_iter().map(wanted).collect()
        }
    }
}

/// What a client's links shall have, in their order.
pub(super) fn clients_devices(client: &Client, ifname: &str) -> impl Iterator<Item = Wanted> {
    client.numbered_links().map(move |(link, config)| {
        let given = config.tunnel.clone();
        let device = given.unwrap_or_else(|| device_name(ifname, &config.name, link));
        Wanted { link, device, priority: config.priority }
    })
}

/// What a link has on a server, which does not know its name.
pub(super) fn servers_device(ifname: &str, link: LinkId) -> String {
    device_name(ifname, &link.to_string(), link)
}
