//! Where links are: a question that takes time, asked in the background.

use super::runner::{Outcome, Runner, Task};
use crate::config::Link;
use crate::net::netifd::{InterfaceResolver, ResolveError, Resolved, Static, Ubus};
use crate::net::{Family, Netlink};

/// Asks where a link is: netifd, by way of `runner` if there is one, or the kernel.
///
/// # Errors
///
/// Why it is not known.
pub async fn resolve_link(
    link: &Link,
    netlink: Netlink,
    runner: Option<&Runner>,
    protocol: u8,
) -> Result<Resolved, ResolveError> {
    if let Some(interface) = &link.interface {
        let Some(runner) = runner else { return Ubus::default().resolve(interface).await };
        return match runner.run(Task::Interface { name: interface.clone() }).await {
            Outcome::Found(answer) => Resolved::from_answer(interface, answer.as_bytes()),
            Outcome::NotFound { nowhere, reason } => Err(ResolveError::Told { nowhere, reason }),
            _ => {
                let reason = "the process that asks netifd is gone: restart the daemon".to_owned();
                Err(ResolveError::Told { nowhere: false, reason })
            }
        };
    }
    // One question a family, because each can have an address and a gateway by hand. Who gives an address of one family
    // wants no other.
    let given = |family| match family {
        Family::V4 => (link.ipaddr, link.gateway),
        Family::V6 => (link.ip6addr, link.ip6gateway),
    };
    let by_hand = link.ipaddr.is_some() || link.ip6addr.is_some();
    let mut found: Option<Resolved> = None;
    for family in Family::ALL {
        let (address, gateway) = given(family);
        if by_hand && address.is_none() {
            continue;
        }
        let mut resolver = Static::new(netlink.clone(), protocol, link.device.clone());
        resolver.address = address.map(|net| net.address);
        resolver.gateway = gateway;
        let mut resolved = resolver.resolve(&link.name).await?;
        resolved.paths.retain(|path| Family::of(path.address) == family);
        match &mut found {
            Some(first) => {
                // Two addresses on two devices are two links; the first one counts.
                if first.device == resolved.device {
                    first.paths.extend(resolved.paths);
                }
            }
            None => found = Some(resolved),
        }
    }
    Ok(found.unwrap_or_default())
}
