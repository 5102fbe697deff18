//! From typed configuration to what the core and the kernel are told.

use std::time::{Duration, SystemTime};

use crate::bond::cipher::{Cipher, CipherList, CipherPolicy, has_aes_instructions};
use crate::bond::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::bond::{Endpoint, EndpointConfig, IpPrefix, LinkState, Policy};
use crate::config::key::{self, Secret};
use crate::config::value::IpNet;
use crate::config::{self, Config, Globals};
use crate::io::timer::now;
use crate::net::routes::{MAIN, Route, Target};
use crate::net::state::LinkSettings;
use crate::net::{Address, Desired, Ownership, Prefix};

/// Idle links are probed this often where no link says otherwise.
const KEEPALIVE: Duration = Duration::from_millis(1_500);
/// Routing tables that may be ours, from the configured base.
const TABLES: u32 = 256;
/// Rule priorities that may be ours, from the configured base.
const PRIORITIES: u32 = 300;

/// The core without peers.
pub fn endpoint(config: &Config, key: &Secret) -> Endpoint {
    let globals = &config.globals;
    let keepalive = config.links.iter().map(|link| link.keepalive).min().unwrap_or(KEEPALIVE);
    let settings = EndpointConfig {
        private_key: PrivateKey::from_bytes(*key.as_bytes()),
        cipher: cipher(globals.cipher),
        aes_hardware: has_aes_instructions(),
        rekey_interval: globals.rekey_interval,
        keepalive,
    };
    let random = Box::new(|bytes: &mut [u8]| {
        // The kernel's generator does not fail once it is seeded; without randomness there is no security to keep.
        getrandom::fill(bytes).expect("the kernel's random generator works");
    });
    Endpoint::new(settings, random, unix_ms(), now())
}

/// Milliseconds since 1970, by the wall clock.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How what is ours is told from the rest.
pub fn ownership(globals: &Globals) -> Ownership {
    let (table, priority) = (globals.table_base, globals.rule_priority);
    Ownership {
        protocol: globals.route_protocol,
        tables: table..=table.saturating_add(TABLES - 1),
        priorities: priority..=priority.saturating_add(PRIORITIES - 1),
    }
}

/// The bonded device: up, with its addresses and the configured routes.
pub fn bond_network(config: &Config, index: u32, mtu: u16) -> Desired {
    let settings = LinkSettings { index, up: Some(true), mtu: Some(u32::from(mtu)) };
    let address = |net: &IpNet| Address { index, address: net.address, prefix_len: net.prefix, peer: None };
    Desired {
        links: vec![settings],
        addresses: config.bond.addresses.iter().map(address).collect(),
        routes: Vec::new(),
        rules: Vec::new(),
    }
}

/// A route into the bond.
pub fn route(destination: Prefix, index: u32, metric: Option<u32>) -> Route {
    let default = if destination.address().is_ipv6() { net_default_metric() } else { 0 };
    Route {
        destination,
        table: MAIN,
        metric: metric.unwrap_or(default),
        target: Target::Device { index, gateway: None, source: None },
    }
}

fn net_default_metric() -> u32 {
    crate::net::routes::IPV6_DEFAULT_METRIC
}

/// The core's form of a network.
pub fn prefix(net: &IpNet) -> IpPrefix {
    IpPrefix { addr: net.network(), len: net.prefix }
}

/// The kernel's form of a network.
pub fn destination(net: &IpNet) -> Prefix {
    Prefix::new(net.network(), net.prefix)
}

/// The core's form of a policy.
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

/// The core's form of a public key.
pub fn public_key(key: &key::PublicKey) -> PublicKey {
    PublicKey::from_bytes(*key.as_bytes())
}

/// The core's form of a pre-shared key.
pub fn preshared_key(key: &Option<Secret>) -> Option<PresharedKey> {
    key.as_ref().map(|key| PresharedKey::from_bytes(*key.as_bytes()))
}

/// The word for a state.
pub fn state_name(state: LinkState) -> &'static str {
    match state {
        LinkState::Disabled => "disabled",
        LinkState::Down => "down",
        LinkState::Joining => "joining",
        LinkState::Up => "up",
        LinkState::Suspect => "suspect",
    }
}

fn cipher(cipher: config::Cipher) -> CipherPolicy {
    let only = |cipher| CipherPolicy::Only(CipherList::new([cipher]));
    match cipher {
        config::Cipher::Auto => CipherPolicy::Auto,
        config::Cipher::Aes256Gcm => only(Cipher::Aes256Gcm),
        config::Cipher::Aes128Gcm => only(Cipher::Aes128Gcm),
        config::Cipher::ChaCha20Poly1305 => only(Cipher::ChaCha20Poly1305),
        config::Cipher::None => only(Cipher::None),
    }
}
