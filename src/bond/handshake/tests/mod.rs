//! Handshakes between a router and a server, without a wire.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::message::{InitiationPayload, PayloadError, ResponsePayload, Status, psk_proof};
use super::*;
use crate::Time;
use crate::cipher::{CipherList, CipherOffer};
use crate::cookie::{COOKIE_LIFETIME, COOKIE_SECRET_LIFETIME, Mac, mac1_key};
use crate::hash::mac128;
use crate::header::{HEADER_LEN, LinkId, Seal, TAG_LEN};
use crate::keys::{PresharedKey, PrivateKey, PublicKey, Random};
use crate::load::HandshakeLoad;
use crate::noise::{KeyPair, MESSAGE_1_OVERHEAD, MESSAGE_2_OVERHEAD, Noise};
use crate::session::{Lifetimes, Opener, Sealer};

mod cookies;
mod negotiation;
mod random;
mod refusals;
mod sessions;
mod settings;
mod vectors;

const NOW: Time = Time::from_millis(1_000);
const ALL_WELL: u32 = 1_000_000;
const AUTO: CipherPolicy = CipherPolicy::Auto;

/// A generator that a test can repeat.
fn seeded(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |out: &mut [u8]| {
        for byte in out {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
    }
}

fn link(number: u8) -> LinkId {
    LinkId::new(number).unwrap()
}

fn source(port: u16) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 7), port).into()
}

fn only(ciphers: &[Cipher]) -> CipherPolicy {
    CipherPolicy::Only(CipherList::new(ciphers.iter().copied()))
}

fn server_key() -> PrivateKey {
    PrivateKey::from_bytes([0x11; 32])
}

fn router_key() -> PrivateKey {
    PrivateKey::from_bytes([0x22; 32])
}

fn initiator(psk: PresharedKey, policy: CipherPolicy) -> Initiator {
    let offer = CipherOffer { policy, aes_instructions: true };
    Initiator::new(router_key(), server_key().public(), psk, offer)
}

fn responder(threshold: u32) -> Responder {
    Responder::new(server_key(), true, HandshakeLoad::new(threshold))
}

fn record(psk: PresharedKey, policy: CipherPolicy) -> PeerRecord {
    PeerRecord::new(psk, policy)
}

/// A router and a server with their sessions.
struct Ends {
    initiator: Initiator,
    responder: Responder,
    record: PeerRecord,
    router: (Sealer, Opener),
    server: (Sealer, Opener),
    random: Box<Random<'static>>,
    next_index: u32,
    timestamp: u64,
}

impl Ends {
    fn new(psk: PresharedKey, router: CipherPolicy, server: CipherPolicy) -> Self {
        let half = || (Sealer::new(Lifetimes::default()), Opener::new(Lifetimes::default()));
        Ends {
            initiator: initiator(psk.clone(), router),
            responder: responder(ALL_WELL),
            record: record(psk, server),
            router: half(),
            server: half(),
            random: Box::new(seeded(1)),
            next_index: 0x100,
            timestamp: 1_000,
        }
    }

    fn auto() -> Self {
        Self::new(PresharedKey::NONE, AUTO, AUTO)
    }

    fn index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }

    /// Begins an attempt and returns its initiation.
    fn initiate(&mut self) -> Vec<u8> {
        let index = self.index();
        self.timestamp += 1;
        let lineage = self.router.0.lineage();
        self.initiator.initiate(index, self.timestamp, lineage, b"router says", &mut *self.random).unwrap();
        self.initiator.datagram(link(0), NOW).unwrap()
    }

    fn receive(&mut self, datagram: &[u8]) -> Result<Received, HandshakeError> {
        self.responder.receive(datagram, source(1), NOW, &mut *self.random)
    }

    fn accept(&mut self, datagram: &[u8]) -> Result<Answer, HandshakeError> {
        let Received::Initiation(initiation) = self.receive(datagram)? else { panic!("a cookie") };
        assert_eq!(initiation.peer(), &router_key().public());
        let index = self.index();
        initiation.accept(&mut self.record, index, self.server.0.lineage(), b"server says")
    }

    /// Accepts and stages; returns the response.
    fn answer(&mut self, datagram: &[u8]) -> Vec<u8> {
        let answer = self.accept(datagram).unwrap();
        let established = answer.result.unwrap();
        assert_eq!(established.settings, b"router says");
        self.server.0.stage(established.sealing, NOW);
        self.server.1.stage(established.opening, NOW);
        answer.response
    }

    fn finish(&mut self, response: &[u8]) -> Result<(Lineage, Cipher), HandshakeError> {
        let established = self.initiator.handle_response(response)?;
        assert_eq!(established.settings, b"server says");
        self.router.0.install(established.sealing, NOW);
        self.router.1.install(established.opening, NOW);
        Ok((established.lineage, established.cipher))
    }

    /// Sends a packet from the router to the server; returns what it confirmed.
    fn confirm(&mut self) -> Option<Lineage> {
        let mut packet = [&[0; HEADER_LEN][..], b"ping", &[0; TAG_LEN]].concat();
        self.router.0.seal(Seal::Sealed, link(0), &mut packet, NOW).unwrap();
        let opened = self.server.1.open(&mut packet, NOW).unwrap();
        assert_eq!(opened.text, b"ping");
        if opened.confirmed.is_some() {
            assert!(self.server.0.confirm(opened.epoch));
        }
        opened.confirmed
    }

    fn reply(&mut self) {
        let mut packet = [&[0; HEADER_LEN][..], b"pong", &[0; TAG_LEN]].concat();
        self.server.0.seal(Seal::Sealed, link(0), &mut packet, NOW).unwrap();
        assert_eq!(self.router.1.open(&mut packet, NOW).unwrap().text, b"pong");
    }

    fn handshake(&mut self) -> (Lineage, Cipher) {
        let initiation = self.initiate();
        let response = self.answer(&initiation);
        let result = self.finish(&response).unwrap();
        assert_eq!(self.confirm(), Some(result.0), "both ends agree on the lineage");
        self.reply();
        result
    }

    fn restart_router(&mut self) {
        self.initiator = initiator(PresharedKey::NONE, AUTO);
        self.router = (Sealer::new(Lifetimes::default()), Opener::new(Lifetimes::default()));
    }

    fn restart_server(&mut self) {
        self.record = record(PresharedKey::NONE, AUTO);
        self.server = (Sealer::new(Lifetimes::default()), Opener::new(Lifetimes::default()));
    }
}

/// Makes `mac1` right again after a change, as somebody could who knows the receiver's public key.
fn with_right_mac1(mut message: Vec<u8>, receiver: &PublicKey, mac2: bool) -> Vec<u8> {
    let tail = if mac2 { 32 } else { 16 };
    if let Some(at) = message.len().checked_sub(tail) {
        let mac = mac128(&mac1_key(receiver), &[&message[..at]]);
        message[at..at + 16].copy_from_slice(&mac);
    }
    message
}
