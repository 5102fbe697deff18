//! From the configuration's terms to the core's.

use std::time::Duration;

use crate::bond::cipher::{Cipher, CipherList, CipherPolicy, has_aes_instructions};
use crate::bond::class::bit;
use crate::bond::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::bond::{
    Class, EndpointConfig, Handling, IpPrefix, LinkConfig, LinkId, Path, Payload, PeerConfig, Policy,
    Selector, Treatment,
};
use crate::config::key::Secret;
use crate::config::value::{IpNet, Rate};
use crate::config::{self, Action, Config, Mode, TunnelType};

/// How often a server probes idle links whose router does not say how often it does.
const KEEPALIVE: Duration = Duration::from_millis(1_500);

/// Settings of the endpoint.
pub fn endpoint(config: &Config, key: &Secret) -> EndpointConfig {
    EndpointConfig {
        private_key: PrivateKey::from_bytes(*key.as_bytes()),
        cipher: cipher(config.globals.cipher),
        aes_hardware: has_aes_instructions(),
        rekey_interval: config.globals.rekey_interval,
        keepalive: KEEPALIVE,
    }
}

/// Which ciphers are allowed.
pub fn cipher(cipher: config::Cipher) -> CipherPolicy {
    let only = |cipher| CipherPolicy::Only(CipherList::new([cipher]));
    match cipher {
        config::Cipher::Auto => CipherPolicy::Auto,
        config::Cipher::Aes256Gcm => only(Cipher::Aes256Gcm),
        config::Cipher::Aes128Gcm => only(Cipher::Aes128Gcm),
        config::Cipher::ChaCha20Poly1305 => only(Cipher::ChaCha20Poly1305),
        config::Cipher::None => only(Cipher::None),
    }
}

/// How packets are spread.
pub fn policy(policy: config::Policy) -> Policy {
    match policy {
        config::Policy::Adaptive => Policy::Adaptive,
        config::Policy::Weighted => Policy::Weighted,
        config::Policy::RoundRobin => Policy::RoundRobin,
        config::Policy::Flow => Policy::Flow,
        config::Policy::ActiveBackup => Policy::ActiveBackup,
        config::Policy::Redundant => Policy::Redundant,
    }
}

/// The client's view of the server; `None` while the configuration has no key of it.
pub fn server(config: &Config) -> Option<PeerConfig> {
    let public_key = PublicKey::from_bytes(*config.bond.public_key?.as_bytes());
    Some(PeerConfig {
        preshared_key: config.bond.preshared_key.as_ref().map(preshared_key),
        // The kernel's routes decide what enters the device, and its firewall what leaves it.
        allowed: vec![IpPrefix::ALL_V4, IpPrefix::ALL_V6],
        policy: Some(policy(config.bond.policy)),
        payload: payload(config),
        handling: Some(handling(config)),
        ..PeerConfig::new(public_key, true)
    })
}

/// The client's view of a server on standby: nothing but probes passes. `None` without a key of it.
pub fn standby(config: &Config) -> Option<PeerConfig> {
    Some(PeerConfig { allowed: Vec::new(), payload: Payload::Bonded, ..server(config)? })
}

/// The only link to a server on standby.
pub fn standby_link(id: LinkId, path: Option<Path>) -> LinkConfig {
    LinkConfig { path, keepalive: Some(KEEPALIVE), ..LinkConfig::new(id, "standby") }
}

/// The server's view of a router.
///
/// A policy other than the default is the server's own choice; with the default the router's choice counts for both
/// directions, so that it has to be made in one place only. So it is with how packets are treated.
///
/// `None` while its key is not known.
pub fn router(peer: &config::Peer, config: &Config) -> Option<PeerConfig> {
    Some(PeerConfig {
        public_key: PublicKey::from_bytes(*peer.public_key?.as_bytes()),
        preshared_key: peer.preshared_key.as_ref().map(preshared_key),
        initiator: false,
        allowed: peer.addresses.iter().chain(&peer.lans).map(prefix).collect(),
        policy: (peer.policy != config::Policy::Adaptive).then(|| policy(peer.policy)),
        upload: peer.download.map(bits),
        download: peer.upload.map(bits),
        payload: payload(config),
        handling: Some(handling(config)).filter(|handling| *handling != Handling::default()),
    })
}

/// How inner packets are treated.
pub fn handling(config: &Config) -> Handling {
    Handling {
        resequence_tcp: config.bond.resequence_tcp,
        resequence_udp: config.bond.resequence_udp,
        clamp_mss: config.bond.mss_clamp,
    }
}

/// What the links carry.
pub fn payload(config: &Config) -> Payload {
    match (config.globals.mode, config.bond.kernel.tunnel_type) {
        (Mode::User, _) => Payload::Bonded,
        (Mode::Kernel, TunnelType::Tun) => Payload::PinnedIp,
        (Mode::Kernel, TunnelType::Tap) => Payload::PinnedEthernet,
    }
}

/// A link of the client. `path` is `None` while it has no address or no server; `enabled` is what the user wants of it
/// now; `last_resort` when its quota is used up.
pub fn link(
    link: &config::Link,
    id: LinkId,
    path: Option<Path>,
    enabled: bool,
    last_resort: bool,
) -> LinkConfig {
    LinkConfig {
        id,
        name: link.name.clone(),
        path,
        enabled,
        upload: link.upload.map(bits),
        download: link.download.map(bits),
        priority: link.priority,
        weight: link.weight.unwrap_or_else(|| weight_of(link)),
        last_resort,
        keepalive: Some(link.keepalive),
        mtu: link.mtu,
    }
}

/// Without a weight, the configured rate counts, in units of 100 kbit/s.
fn weight_of(link: &config::Link) -> u32 {
    link.upload.map_or(1, |rate| u32::try_from(rate.0 / 100_000).unwrap_or(u32::MAX).clamp(1, 10_000))
}

/// The classes of traffic that are treated in their own way inside the bond, by the links' numbers.
pub fn classes(config: &Config, number: impl Fn(&str) -> Option<LinkId>) -> Vec<Class> {
    let mut classes = Vec::new();
    for (rule, at) in config.rules.iter().zip(0u8..) {
        let Action::Bond { policy: wanted, links, force } = &rule.action else { continue };
        let links = links.iter().filter_map(|name| number(name)).fold(0, |links, id| links | bit(id));
        let treatment = Treatment { policy: wanted.map(policy), links, forced: *force };
        classes.extend(selectors(rule).map(|selector| Class { rule: at, selector, treatment }));
    }
    classes
}

/// A selector has one value a condition; a rule may list several of each.
fn selectors(rule: &config::Rule) -> impl Iterator<Item = Selector> {
    let dscp = rule.dscp.iter().fold(0, |set: u64, codepoint| set | 1 << (codepoint & 63));
    let mut selectors = vec![Selector { dscp, ..Selector::default() }];
    let net = |net: &IpNet| Some(prefix(net));
    let ports = |range: &std::ops::RangeInclusive<u16>| Some((*range.start(), *range.end()));
    each(&mut selectors, &rule.protocols, |selector, protocol| selector.protocol = Some(*protocol));
    each(&mut selectors, &rule.sources, |selector, value| selector.source = net(value));
    each(&mut selectors, &rule.destinations, |selector, value| selector.destination = net(value));
    each(&mut selectors, &rule.source_ports, |selector, value| selector.source_ports = ports(value));
    each(&mut selectors, &rule.destination_ports, |selector, value| {
        selector.destination_ports = ports(value)
    });
    selectors.into_iter()
}

/// Every selector with every value; as it is where there are no values.
fn each<T>(selectors: &mut Vec<Selector>, values: &[T], set: impl Fn(&mut Selector, &T)) {
    if values.is_empty() {
        return;
    }
    let before = std::mem::take(selectors);
    for selector in before {
        selectors.extend(values.iter().map(|value| {
            let mut selector = selector.clone();
            set(&mut selector, value);
            selector
        }));
    }
}

/// A network.
pub fn prefix(net: &IpNet) -> IpPrefix {
    IpPrefix { addr: net.network(), len: net.prefix }
}

fn bits(rate: Rate) -> u64 {
    rate.0
}

fn preshared_key(secret: &Secret) -> PresharedKey {
    PresharedKey::from_bytes(*secret.as_bytes())
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
