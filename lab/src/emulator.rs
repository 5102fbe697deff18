//! Emulated WAN lines in real time, in this process: no netem, no iproute2.
//!
//! ```text
//!  router ── card (TAP) ─┬─ box (gateway, NAT) ══ line ══╗
//!                        └─ box (gateway, NAT) ══ line ══╬══ provider ── (TAP) ── server
//!  router ── card (TAP) ─── box (gateway, NAT) ══ line ══╝
//! ```
//!
//! Each line is two [`Line`](crate::line::Line)s, up (from the router) and down. At its near end is a box, such
//! as an ADSL modem with a router in it: it has a hardware address and gateway addresses, answers ARP, IPv6 neighbour
//! discovery and ping, forwards with TTL and ICMP errors, fragments what may be fragmented, and translates addresses if
//! asked to. At the far end is the provider's router, which knows which address belongs to which line.
//!
//! One thread does it all, at real-time priority where allowed: a line is not slowed down by what it is there to test.
//! It sleeps when there is nothing to do.

mod capture;
mod core;
mod nat;
mod run;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::Serialize;

pub use self::capture::{Capture, Captured, write_pcap};
pub use self::nat::NatConfig;

use self::core::{Card, Core, LineState, Provider};
use crate::line::{Counters, InvalidLine, LineConfig, Verdict};
use crate::namespace::Namespace;
use crate::prefix::Prefix;
use crate::random::Random;
use crate::tap::{Mac, Tap};

/// A direction of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Direction {
    /// From the router to the server.
    Up,
    /// From the server to the router.
    Down,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];
}

/// A way to cut a line. All that is queued or under way is lost, and nothing passes until
/// [`LineHandle::restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Cut {
    /// The box is there and takes packets, but they disappear (a blackhole).
    Silent,
    /// The router's card loses its carrier. All lines on the card are dead then.
    Carrier,
    /// The box has no power, behind a switch that has: the card keeps its carrier, nobody answers ARP.
    PowerOff,
    /// The box knows that its line is down, and answers ICMP "network unreachable".
    Unreachable,
}

/// A line to be made.
#[derive(Clone, Debug)]
pub struct LineSetup {
    /// Its name in messages.
    pub name: String,
    /// The addresses of the box on the router's side.
    pub gateways: Vec<IpAddr>,
    /// Networks that the provider routes down this line, for what is not translated.
    pub inside: Vec<Prefix>,
    /// How the box translates addresses.
    pub nat: NatConfig,
    /// From the router.
    pub up: LineConfig,
    /// To the router.
    pub down: LineConfig,
}

/// A card of the router that was added to an [`EmulatorBuilder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardId(usize);

/// What an emulator is made of.
#[derive(Debug)]
pub struct EmulatorBuilder {
    provider: Provider,
    cards: Vec<Card>,
    lines: Vec<LineState>,
    seed: Random,
}

impl EmulatorBuilder {
    /// An emulator whose provider side is a new TAP device in the server's namespace, and whose provider has these
    /// gateway addresses. Everything random follows from `seed`.
    ///
    /// # Errors
    ///
    /// When the device cannot be made.
    pub fn new(server: &Namespace, device: &str, gateways: Vec<IpAddr>, seed: u64) -> io::Result<Self> {
        let tap = Tap::open(server, device, mac(0xfe, 2))?;
        let provider = Provider { tap: Arc::new(tap), alive: true, mac: mac(0xfe, 1), gateways };
        Ok(EmulatorBuilder { provider, cards: Vec::new(), lines: Vec::new(), seed: Random::new(seed) })
    }

    /// Adds a network card to the router: a new TAP device in its namespace.
    ///
    /// # Errors
    ///
    /// When the device cannot be made.
    pub fn card(&mut self, router: &Namespace, device: &str) -> io::Result<CardId> {
        let id = CardId(self.cards.len());
        let tap = Tap::open(router, device, mac(id.0 as u8, 2))?;
        self.cards.push(Card { tap: Arc::new(tap), alive: true });
        Ok(id)
    }

    /// Adds a box with its line on a card.
    ///
    /// # Errors
    ///
    /// When a figure of the line cannot be.
    pub fn line(&mut self, card: CardId, setup: LineSetup) -> Result<(), InvalidLine> {
        setup.up.check()?;
        setup.down.check()?;
        let mac = mac(self.lines.len() as u8, 1);
        self.lines.push(LineState::new(setup, card.0, mac, self.seed.next_u64()));
        Ok(())
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// When its thread cannot be started.
    pub fn start(self) -> io::Result<Emulator> {
        let core = Core {
            start: Instant::now(),
            cards: self.cards,
            provider: Some(self.provider),
            lines: self.lines,
            unroutable: 0,
            stop: false,
        };
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_value_and_flags(0, flags)?;
        let shared = Arc::new(SharedCore { core: Mutex::new(core), wake });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("emulator".into()).spawn(move || run::run(&own))?;
        Ok(Emulator { shared, thread: Some(thread) })
    }
}

/// Lines at work. They end, with their devices, when this is dropped.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<SharedCore>,
    thread: Option<JoinHandle<()>>,
}

impl Emulator {
    /// Handles of all lines, in the order in which they were added.
    pub fn lines(&self) -> Vec<LineHandle> {
        let count = self.shared.lock().lines.len();
        (0..count).map(|index| LineHandle { shared: Arc::clone(&self.shared), index }).collect()
    }

    /// Packets from the server that belonged to no line.
    pub fn unroutable(&self) -> u64 {
        self.shared.lock().unroutable
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; to panic in a drop would hide the test's own.
            let _ = thread.join();
        }
        // Handles may outlive this; the devices must not.
        let mut core = self.shared.lock();
        core.cards.clear();
        core.provider = None;
    }
}

/// A line at work: its commands and its figures. Clones are the same line.
#[derive(Clone, Debug)]
pub struct LineHandle {
    shared: Arc<SharedCore>,
    index: usize,
}

impl LineHandle {
    /// Its name in messages.
    pub fn name(&self) -> String {
        self.with(|line, _| line.name.clone())
    }

    /// The time on the emulator's clock, which rate traces and captures use.
    pub fn now(&self) -> Duration {
        self.shared.lock().now()
    }

    /// Cuts the line.
    pub fn cut(&self, cut: Cut) {
        self.shared.lock().set_cut(self.index, Some(cut));
        self.shared.wake();
    }

    /// Ends a cut, also one of a single direction (made by [`change`](Self::change)).
    pub fn restore(&self) {
        self.shared.lock().set_cut(self.index, None);
        self.shared.wake();
    }

    /// How the line is cut, if it is.
    pub fn is_cut(&self) -> Option<Cut> {
        self.with(|line, _| line.cut)
    }

    /// The figures of a direction.
    pub fn config(&self, direction: Direction) -> LineConfig {
        self.with(|line, _| line.direction(direction).config().clone())
    }

    /// Changes any figure of a direction, at once:
    /// `line.change(Direction::Down, |figures| figures.rate = Some(5_000_000))`.
    ///
    /// # Panics
    ///
    /// When [`LineConfig::check`] finds a figure that cannot be.
    pub fn change(&self, direction: Direction, change: impl FnOnce(&mut LineConfig)) {
        let mut config = self.config(direction);
        change(&mut config);
        // Not under the lock, where a panic would end the emulator too.
        if let Err(why) = config.check() {
            panic!("line {}: {why}", self.name());
        }
        self.with(|line, now| line.direction(direction).reconfigure(now, config));
        self.shared.wake();
    }

    /// Changes figures of both directions, as [`change`](Self::change).
    ///
    /// # Panics
    ///
    /// As [`change`](Self::change).
    pub fn change_both(&self, mut change: impl FnMut(&mut LineConfig)) {
        for direction in Direction::BOTH {
            self.change(direction, &mut change);
        }
    }

    /// What a direction has done so far.
    pub fn counters(&self, direction: Direction) -> Counters {
        self.with(|line, _| line.direction(direction).counters())
    }

    /// How long a packet would wait now before it is sent.
    pub fn queue_delay(&self, direction: Direction) -> Duration {
        self.with(|line, now| line.direction(direction).queue_delay(now))
    }

    /// The box's addresses on the router's side.
    pub fn gateways(&self) -> Vec<IpAddr> {
        self.with(|line, _| line.gateways.clone())
    }

    /// How the box translates.
    pub fn nat(&self) -> NatConfig {
        self.with(|line, _| line.nat.config().clone())
    }

    /// Makes the box translate otherwise, or not at all. All flows are forgotten.
    pub fn set_nat(&self, config: NatConfig) {
        self.with(|line, _| line.nat.reconfigure(config));
    }

    /// Rebinding: gives every flow a new outside port, and the box a new outside address if one is given (it takes the
    /// place of that of its family). What the server sends to the old ones is lost; what it sends to the new ones
    /// passes once the inside has sent something.
    pub fn rebind(&self, address: Option<IpAddr>) {
        self.with(|line, _| {
            line.nat.change_ports();
            if let Some(address) = address {
                line.nat.change_address(address);
            }
        });
    }

    /// Gives the box a new outside address (it takes the place of that of its family); the ports stay.
    pub fn set_outside(&self, address: IpAddr) {
        self.with(|line, _| line.nat.change_address(address));
    }

    /// Packets that the box's address translation has dropped: no mapping, a stranger's, or a protocol it cannot.
    pub fn nat_dropped(&self) -> u64 {
        self.with(|line, _| line.nat_dropped)
    }

    /// Captures up to `limit` packets that are offered to the line from now on, both ways, also those that it drops.
    pub fn capture(&self, limit: usize) -> Capture {
        let (capture, shared) = Capture::new(limit);
        self.with(|line, _| line.captures.push(shared));
        capture
    }

    /// Puts a packet on the line, subject to all its figures, as if it came from the other side of the box (up: after
    /// translation, as in a capture) or from the provider (down). It is not captured.
    pub fn inject(&self, direction: Direction, packet: Vec<u8>) -> Verdict {
        let length = packet.len();
        let verdict = self.with(|line, now| line.direction(direction).push(now, packet, length));
        self.shared.wake();
        verdict
    }

    fn with<R>(&self, work: impl FnOnce(&mut LineState, Duration) -> R) -> R {
        let mut core = self.shared.lock();
        let now = core.now();
        let line = core.lines.get_mut(self.index).expect("lines are never removed");
        work(line, now)
    }
}

/// The core, and the way to tell its thread that something has changed.
#[derive(Debug)]
struct SharedCore {
    core: Mutex<Core>,
    wake: EventFd,
}

impl SharedCore {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, i.e. when the thread is about to wake anyway.
        let _ = self.wake.write(1);
    }
}

/// A locally administered hardware address: "lab", a number, a role.
fn mac(number: u8, role: u8) -> Mac {
    [0x02, b'l', b'a', b'b', number, role]
}
