//! One simulated router of the crowd, and all of them on one thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bonding::bond::cipher::{CipherPolicy, has_aes_instructions};
use bonding::bond::keys::PublicKey;
use bonding::bond::{
    Endpoint, EndpointConfig, Event, IpPrefix, LinkConfig, LinkState, Path, PeerConfig, Policy,
};
use bonding::io::timer::{Timer, now};
use bonding::io::{Driver, Socket, SocketOptions};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval};

use super::{INSIDE, LINKS, Load, PAYLOAD, PORT, Progress, SERVER, inside, outside, router_key};

/// As a router is set up by default.
const KEEPALIVE: Duration = Duration::from_millis(1_200);
const REKEY_INTERVAL: Duration = Duration::from_secs(120);
/// Between two bursts of a router that sends.
const BURST_INTERVAL: Duration = Duration::from_millis(1);
/// What could not be sent for so long is not made up for.
const BEHIND: u64 = 20;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;

/// Serves all routers until they are told to end. To be called in the namespace of the routers.
pub fn serve_all(
    routers: usize,
    server: PublicKey,
    progress: &Arc<Progress>,
    load: &watch::Receiver<Load>,
) -> io::Result<()> {
    lab::prefer_this_thread();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, async {
        let started: Vec<_> = (0..routers)
            .map(|number| {
                let router = Router::start(number, server, progress.clone())?;
                Ok(tokio::task::spawn_local(router.serve(load.clone())))
            })
            .collect::<io::Result<_>>()?;
        for router in started {
            router.await.map_err(io::Error::other)?;
        }
        Ok(())
    })
}

struct Router {
    driver: Driver,
    progress: Arc<Progress>,
    /// What it sends.
    packet: Rc<[u8]>,
    /// Links that carry traffic.
    up: Vec<u8>,
}

impl Router {
    fn start(number: usize, server: PublicKey, progress: Arc<Progress>) -> io::Result<Router> {
        let started = now();
        let config = EndpointConfig {
            private_key: router_key(number),
            cipher: CipherPolicy::Auto,
            aes_hardware: has_aes_instructions(),
            rekey_interval: REKEY_INTERVAL,
            keepalive: KEEPALIVE,
        };
        let random =
            Box::new(|bytes: &mut [u8]| getrandom::fill(bytes).expect("the kernel gives random numbers"));
        let mut endpoint = Endpoint::new(config, random, 1, started);
        let peer = PeerConfig {
            allowed: vec![IpPrefix::ALL_V4],
            policy: Some(Policy::Adaptive),
            ..PeerConfig::new(server, true)
        };
        let peer = endpoint.add_peer(peer, started);
        let mut driver = Driver::new(endpoint, Timer::new()?);
        for link in 0..LINKS {
            let (local, remote) = (outside(number), SocketAddr::from((SERVER, PORT)));
            let options = SocketOptions::new(SocketAddr::from((local, 0)));
            let socket = Socket::open(options).map_err(io::Error::other)?;
            let path = Path { socket: driver.add_socket(socket), local: Some(local.into()), remote };
            let config = LinkConfig { path: Some(path), ..LinkConfig::new(link, format!("wan{link}")) };
            driver.endpoint_mut().set_link(peer, config, started);
        }
        Ok(Router { driver, progress, packet: packet(inside(number)).into(), up: Vec::new() })
    }

    async fn serve(mut self, mut told: watch::Receiver<Load>) {
        let mut clock = interval(BURST_INTERVAL);
        clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut load = *told.borrow_and_update();
        let (mut since, mut sent) = (Instant::now(), 0);
        while !load.over {
            tokio::select! {
                // It has no device that could be gone.
                _ = self.driver.turn() => self.take_events(),
                _ = clock.tick(), if load.rate > 0 => {
                    let due = since.elapsed().as_micros() as u64 * u64::from(load.rate) / 1_000_000;
                    sent = sent.max(due.saturating_sub(BEHIND * u64::from(load.rate) / 1_000));
                    self.send(due - sent);
                    sent = due;
                }
                _ = told.changed() => {
                    load = *told.borrow_and_update();
                    (since, sent) = (Instant::now(), 0);
                }
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.driver.poll_event() {
            let Event::LinkState { link, state, .. } = event else { continue };
            let was = self.up.len();
            self.up.retain(|up| *up != link);
            if state == LinkState::Up {
                self.up.push(link);
            }
            self.progress.links_up.fetch_add(self.up.len(), Ordering::Relaxed);
            self.progress.links_up.fetch_sub(was, Ordering::Relaxed);
        }
    }

    fn send(&mut self, packets: u64) {
        let now = now();
        for _ in 0..packets {
            let endpoint = self.driver.endpoint_mut();
            let mut packet = endpoint.buffer();
            packet.copy_from(&self.packet);
            endpoint.enqueue(packet, now);
        }
        self.progress.sent.fetch_add(packets as usize, Ordering::Relaxed);
    }
}

/// A datagram to the sink, with right checksums.
fn packet(from: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; HEADERS + PAYLOAD];
    let length = packet.len() as u16;
    packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&INSIDE.0.octets());
    packet[20..22].copy_from_slice(&INSIDE.1.to_be_bytes());
    packet[22..24].copy_from_slice(&INSIDE.1.to_be_bytes());
    packet[24..26].copy_from_slice(&(length - 20).to_be_bytes());
    let network = checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&network.to_be_bytes());
    // The pseudo-header: addresses, protocol and length (RFC 768).
    let transport = checksum(&packet[12..], 17 + u32::from(length - 20));
    packet[26..28].copy_from_slice(&transport.to_be_bytes());
    packet
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8], initial: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = initial + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
