//! Who carries what has no other route: the bond, or the best link while the bond is down.

use std::time::Duration;

use super::Client;
use super::link::Link;
use crate::config::Config;
use crate::daemon::desired::DefaultRoute;
use crate::net::Family;

/// Links that fall silent within this time did so for one reason, most likely the server's.
const TOGETHER: Duration = Duration::from_secs(15);

impl Client {
    /// Who is to carry what has no other route.
    pub(super) fn default_route(&self, config: &Config) -> DefaultRoute {
        if !config.bond.default_route {
            return DefaultRoute::Untouched;
        }
        // Without an address of the server its name is to be resolved, which a bond that is down does not help.
        let about_to_be_up =
            self.starting.is_some() && self.links.iter().any(|link| !self.candidates(link).is_empty());
        if self.up || about_to_be_up {
            return DefaultRoute::Bond;
        }
        let placed = self.links.iter().filter(|link| !link.taken_out);
        let placed = placed.filter_map(|link| Some((link, link.place.as_ref().ok()?)));
        let latest = self.links.iter().filter_map(|link| link.heard).max();
        // One that was silent long before the bond went down has troubles of its own.
        let stale = |link: &Link| match (link.heard, latest) {
            _ if link.is_alive() => false,
            (Some(heard), Some(latest)) => latest.since(heard) > TOGETHER,
            (heard, latest) => heard.is_none() && latest.is_some(),
        };
        let best = placed.min_by_key(|(link, place)| {
            (
                !place.resolved.up || place.resolved.paths.is_empty(),
                stale(link),
                !link.config.active,
                link.round_trip.unwrap_or(Duration::MAX),
                link.config.priority,
            )
        });
        let Some((_, place)) = best.filter(|(_, place)| place.resolved.up) else {
            return DefaultRoute::Untouched;
        };
        let gateway = |family| place.resolved.path(family).map(|path| path.gateway);
        DefaultRoute::Link { index: place.index, v4: gateway(Family::V4), v6: gateway(Family::V6) }
    }
}
