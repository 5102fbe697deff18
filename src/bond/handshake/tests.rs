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
use proptest::prelude::*;

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

#[test]
fn handshake_with_every_cipher_with_and_without_psk() {
    for psk in [PresharedKey::NONE, PresharedKey::from_bytes([9; 32])] {
        for cipher in Cipher::ALL {
            let mut ends = Ends::new(psk.clone(), only(&[cipher]), only(&[cipher]));
            let (lineage, agreed) = ends.handshake();
            assert_eq!(agreed, cipher);
            assert!(lineage.is_new());
            assert_eq!(ends.server.0.cipher(), Some(cipher));
            assert!(!ends.initiator.is_pending());
            assert!(ends.initiator.datagram(link(0), NOW).is_none());
        }
    }
}

#[test]
fn the_initiation_hides_who_makes_it_and_what_it_says() {
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    let response = ends.answer(&initiation);
    let public = router_key().public();
    for message in [&initiation, &response] {
        assert!(!message.windows(32).any(|w| w == public.as_bytes()));
        assert!(!message.windows(4).any(|w| w == b"says"));
        assert!(message.len() <= 256, "fits every link");
    }
}

#[test]
fn a_rekey_continues_the_lineage() {
    let mut ends = Ends::auto();
    let (first, _) = ends.handshake();
    for _ in 0..5 {
        assert_eq!(ends.handshake(), (Lineage::Continued(first.id()), Cipher::Aes256Gcm));
    }
    assert_eq!(ends.router.0.next_packet_number(link(0)), 6);
}

#[test]
fn a_restart_of_either_end_begins_a_new_lineage() {
    let mut ends = Ends::auto();
    let (first, _) = ends.handshake();
    ends.restart_router();
    let (second, _) = ends.handshake();
    assert!(second.is_new() && second.id() != first.id());
    ends.restart_server();
    let (third, _) = ends.handshake();
    assert!(third.is_new() && third.id() != second.id());
    assert_eq!(ends.router.0.next_packet_number(link(0)), 1);
    assert!(!ends.handshake().0.is_new());
}

#[test]
fn a_lineage_that_only_one_end_has_is_not_continued() {
    let mut ends = Ends::auto();
    let (first, _) = ends.handshake();
    // A new lineage of which the server hears nothing but the initiation.
    ends.restart_router();
    let initiation = ends.initiate();
    let response = ends.answer(&initiation);
    let (lost, _) = ends.finish(&response).unwrap();
    assert_ne!(lost.id(), first.id());
    // The router continues what it has, the server holds the first one still.
    assert_eq!(ends.server.0.lineage(), Some(first.id()));
    let (third, _) = ends.handshake();
    assert!(third.is_new());
    assert!(third.id() != first.id() && third.id() != lost.id());
}

#[test]
fn an_unconfirmed_handshake_disturbs_nothing() {
    let mut ends = Ends::auto();
    ends.handshake();
    for _ in 0..10 {
        let initiation = ends.initiate();
        ends.answer(&initiation);
        assert_eq!(ends.confirm(), None);
        ends.reply();
    }
    assert!(ends.server.1.indexes().count() <= 5);
}

#[test]
fn the_wrong_server_key_does_not_decrypt() {
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    let other = PrivateKey::from_bytes([0x33; 32]);
    let mut responder = Responder::new(other.clone(), true, HandshakeLoad::new(ALL_WELL));
    let mut random = seeded(5);
    assert_eq!(
        responder.receive(&initiation, source(1), NOW, &mut random).unwrap_err(),
        HandshakeError::WrongMac1
    );
    let forged = with_right_mac1(initiation, &other.public(), true);
    assert_eq!(
        responder.receive(&forged, source(1), NOW, &mut random).unwrap_err(),
        HandshakeError::Undecryptable
    );
}

#[test]
fn a_stranger_is_seen_as_a_stranger() {
    let mut ends = Ends::auto();
    let stranger = PrivateKey::from_bytes([0x44; 32]);
    let offer = CipherOffer { policy: AUTO, aes_instructions: false };
    let mut initiator = Initiator::new(stranger.clone(), server_key().public(), PresharedKey::NONE, offer);
    initiator.initiate(1, 1, None, b"", &mut seeded(3)).unwrap();
    match ends.receive(&initiator.datagram(link(0), NOW).unwrap()) {
        Ok(Received::Initiation(initiation)) => assert_eq!(initiation.peer(), &stranger.public()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_wrong_psk_is_not_answered_and_changes_nothing() {
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    ends.record = record(PresharedKey::from_bytes([1; 32]), AUTO);
    assert_eq!(ends.accept(&initiation).unwrap_err(), HandshakeError::WrongPresharedKey);
    assert_eq!(ends.record.last_timestamp, None);
    ends.record = record(PresharedKey::NONE, AUTO);
    let response = ends.answer(&initiation);
    ends.finish(&response).unwrap();
}

#[test]
fn a_response_made_with_another_psk_does_not_decrypt() {
    let mut ends = Ends::auto();
    let other = PresharedKey::from_bytes([1; 32]);
    let mut mixed = Ends::new(other.clone(), AUTO, AUTO);
    let initiation = ends.initiate();
    // A responder that does not insist on the proof.
    let Ok(Received::Initiation(mut received)) = mixed.receive(&initiation) else { panic!("not received") };
    received.psk_proof = psk_proof(&other, received.timestamp, received.peer());
    let response = received.accept(&mut mixed.record, 77, None, b"").unwrap().response;
    assert_eq!(ends.finish(&response), Err(HandshakeError::Undecryptable));
    assert!(ends.initiator.is_pending());
}

#[test]
fn every_cut_of_an_initiation_is_refused() {
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    for len in 0..initiation.len() {
        for fixed in [false, true] {
            let mut cut = initiation[..len].to_vec();
            if fixed {
                cut = with_right_mac1(cut, &server_key().public(), true);
            }
            let error = ends.receive(&cut).unwrap_err();
            let expected = if fixed { HandshakeError::Undecryptable } else { HandshakeError::WrongMac1 };
            assert!(error == expected || error == HandshakeError::Malformed, "{len} bytes: {error}");
        }
    }
    let longer = [&initiation[..], &[0]].concat();
    assert_eq!(ends.receive(&longer).unwrap_err(), HandshakeError::WrongMac1);
    let longer = with_right_mac1(longer, &server_key().public(), true);
    assert_eq!(ends.receive(&longer).unwrap_err(), HandshakeError::Undecryptable);
}

#[test]
fn every_flipped_bit_of_an_initiation_is_refused() {
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    // The last 16 bytes are mac2, which counts only under load.
    for bit in 0..(initiation.len() - 16) * 8 {
        let mut bad = initiation.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = ends.receive(&bad).unwrap_err();
        assert!(matches!(error, HandshakeError::WrongMac1 | HandshakeError::Malformed), "bit {bit}: {error}");
        if bit % 8 == 3 {
            let bad = with_right_mac1(bad, &server_key().public(), true);
            if bad == initiation {
                continue;
            }
            let error = ends.receive(&bad).unwrap_err();
            assert!(
                matches!(error, HandshakeError::Undecryptable | HandshakeError::Malformed),
                "bit {bit}, right mac1: {error}"
            );
        }
    }
    assert!(ends.accept(&initiation).is_ok());
}

#[test]
fn every_cut_and_flipped_bit_of_a_response_is_refused() {
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    let response = ends.answer(&initiation);
    let router = router_key().public();
    for len in 0..response.len() {
        assert!(ends.finish(&response[..len]).is_err(), "{len} bytes");
        let cut = with_right_mac1(response[..len].to_vec(), &router, false);
        assert!(ends.finish(&cut).is_err(), "{len} bytes, right mac1");
    }
    for bit in 0..response.len() * 8 {
        let mut bad = response.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let error = ends.finish(&bad).unwrap_err();
        assert!(matches!(error, HandshakeError::WrongMac1 | HandshakeError::Malformed), "bit {bit}: {error}");
        if bit % 8 == 5 {
            let bad = with_right_mac1(bad, &router, false);
            if bad == response {
                continue;
            }
            let error = ends.finish(&bad).unwrap_err();
            assert!(
                matches!(
                    error,
                    HandshakeError::Undecryptable | HandshakeError::Malformed | HandshakeError::NotAwaited
                ),
                "bit {bit}, right mac1: {error}"
            );
        }
    }
    ends.finish(&response).unwrap();
    assert_eq!(ends.finish(&response), Err(HandshakeError::NotAwaited), "a response counts once");
}

#[test]
fn an_ephemeral_key_of_small_order_is_refused() {
    let mut ends = Ends::auto();
    let mut initiation = ends.initiate();
    initiation[8..40].fill(0);
    let initiation = with_right_mac1(initiation, &server_key().public(), true);
    assert_eq!(ends.receive(&initiation).unwrap_err(), HandshakeError::Undecryptable);

    let offer = CipherOffer { policy: AUTO, aes_instructions: false };
    let weak = PublicKey::from_bytes([0; 32]);
    let mut initiator = Initiator::new(router_key(), weak, PresharedKey::NONE, offer);
    assert_eq!(initiator.initiate(1, 1, None, b"", &mut seeded(3)), Err(HandshakeError::WeakKey));
    assert!(!initiator.is_pending());
}

#[test]
fn copies_and_replays_are_told_apart_and_not_answered() {
    let mut ends = Ends::auto();
    let first = ends.initiate();
    let second = ends.initiate();
    ends.answer(&first);
    assert_eq!(ends.accept(&first).unwrap_err(), HandshakeError::Duplicate);
    ends.answer(&second);
    assert_eq!(ends.accept(&first).unwrap_err(), HandshakeError::Duplicate);
    assert_eq!(ends.accept(&second).unwrap_err(), HandshakeError::Duplicate);

    let skipped = ends.initiate();
    let third = ends.initiate();
    ends.answer(&third);
    assert_eq!(ends.accept(&skipped).unwrap_err(), HandshakeError::Replayed);
    // The same timestamp in another message.
    ends.timestamp -= 1;
    let same = ends.initiate();
    assert_eq!(ends.accept(&same).unwrap_err(), HandshakeError::Replayed);
    assert_eq!(ends.record.last_timestamp, Some(ends.timestamp));
    for _ in 0..4 {
        let next = ends.initiate();
        ends.answer(&next);
    }
    assert_eq!(ends.accept(&first).unwrap_err(), HandshakeError::Replayed, "forgotten, and refused as well");
}

#[test]
fn a_replay_after_a_restart_of_the_server_disturbs_nobody() {
    let mut ends = Ends::auto();
    let old = ends.initiate();
    ends.restart_server();
    ends.handshake();
    ends.record = record(PresharedKey::NONE, AUTO);
    ends.answer(&old);
    assert_eq!(ends.confirm(), None);
    ends.reply();
    ends.handshake();
}

#[test]
fn a_copy_with_another_mac2_is_a_copy() {
    let mut ends = Ends::auto();
    let mut initiation = ends.initiate();
    ends.answer(&initiation);
    initiation.last_mut().unwrap().clone_from(&7);
    assert_eq!(ends.accept(&initiation).unwrap_err(), HandshakeError::Duplicate);
}

#[test]
fn messages_do_not_pass_for_each_other() {
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    let response = ends.answer(&initiation);
    assert_eq!(ends.receive(&response).unwrap_err(), HandshakeError::Malformed);
    assert_eq!(ends.finish(&initiation), Err(HandshakeError::Malformed));
    assert_eq!(ends.initiator.handle_cookie(link(0), &response, NOW), Err(HandshakeError::Malformed));
    // A responder that is sent its own kind of message back, and an initiator likewise.
    let mut both = Responder::new(router_key(), true, HandshakeLoad::new(ALL_WELL));
    let mut random = seeded(3);
    assert_eq!(
        both.receive(&initiation, source(1), NOW, &mut random).unwrap_err(),
        HandshakeError::WrongMac1
    );
}

#[test]
fn answers_to_earlier_attempts_are_welcome() {
    let mut ends = Ends::auto();
    let initiations: Vec<_> = (0..3).map(|_| ends.initiate()).collect();
    let responses: Vec<_> = initiations.iter().map(|initiation| ends.answer(initiation)).collect();
    ends.finish(&responses[1]).unwrap();
    assert_eq!(ends.finish(&responses[0]), Err(HandshakeError::NotAwaited));
    assert_eq!(ends.finish(&responses[2]), Err(HandshakeError::NotAwaited));
    assert!(ends.confirm().is_some());
    ends.reply();
}

#[test]
fn attempts_are_bounded() {
    let mut ends = Ends::auto();
    let first = ends.initiate();
    let response = ends.answer(&first);
    for _ in 0..3 {
        ends.initiate();
    }
    assert_eq!(ends.initiator.pending_indexes().count(), 4);
    let oldest = ends.initiator.pending_indexes().next();
    let given_up = ends.initiator.initiate(0x9999, 5_000, None, b"", &mut *ends.random).unwrap();
    assert_eq!(given_up, oldest);
    assert_eq!(ends.finish(&response), Err(HandshakeError::NotAwaited));
    ends.initiator.cancel();
    assert!(!ends.initiator.is_pending());
}

#[test]
fn settings_are_bounded() {
    let mut ends = Ends::auto();
    let mut random = seeded(3);
    assert_eq!(
        ends.initiator.initiate(1, 1, None, &[0; 65], &mut random),
        Err(HandshakeError::SettingsTooLong)
    );
    ends.initiator.initiate(1, 1, None, &[5; 64], &mut random).unwrap();
    let initiation = ends.initiator.datagram(link(0), NOW).unwrap();
    let Ok(Received::Initiation(initiation)) = ends.receive(&initiation) else { panic!() };
    assert_eq!(initiation.settings(), [5; 64]);
    assert_eq!(
        initiation.accept(&mut ends.record, 1, None, &[0; 65]).unwrap_err(),
        HandshakeError::SettingsTooLong
    );
    assert_eq!(ends.record.last_timestamp, None);
}

#[test]
fn settings_that_a_peer_makes_too_long_are_refused() {
    let payload = |settings| InitiationPayload {
        timestamp: 7,
        psk_proof: [9; 16],
        aes_instructions: false,
        lineage: None,
        policy: AUTO,
        settings,
    };
    assert!(InitiationPayload::parse(&payload(vec![1; 64]).to_bytes()).is_ok());
    assert_eq!(InitiationPayload::parse(&payload(vec![1; 65]).to_bytes()), Err(PayloadError::Malformed));
    let mut flags = payload(Vec::new()).to_bytes();
    flags[25] = 2;
    assert_eq!(InitiationPayload::parse(&flags), Err(PayloadError::Malformed), "a reserved bit");
    let mut longer = payload(Vec::new()).to_bytes();
    longer.push(0);
    assert_eq!(InitiationPayload::parse(&longer), Err(PayloadError::Malformed));
    let mut future = payload(Vec::new()).to_bytes();
    future.splice(34..35, [3, 77, 2, 99]);
    assert_eq!(InitiationPayload::parse(&future).unwrap().policy, only(&[Cipher::Aes128Gcm]));
}

#[test]
fn under_load_a_cookie_is_asked_for_and_taken() {
    let mut ends = Ends::auto();
    ends.responder = responder(0);
    let initiation = ends.initiate();
    let Ok(Received::Cookie(reply)) = ends.receive(&initiation) else { panic!("no cookie") };
    assert!(ends.responder.is_under_load(NOW));
    assert!(reply.len() < initiation.len(), "nothing to amplify with");
    ends.initiator.handle_cookie(link(3), &reply, NOW).unwrap();

    let with_cookie = ends.initiator.datagram(link(3), NOW).unwrap();
    assert_eq!(with_cookie[..with_cookie.len() - 16], initiation[..initiation.len() - 16]);
    let other_link = ends.initiator.datagram(link(1), NOW).unwrap();
    assert_eq!(other_link, initiation, "the cookie holds for the link that it came over");
    assert!(matches!(ends.receive(&other_link), Ok(Received::Cookie(_))));

    for wrong in [source(2), (Ipv4Addr::new(192, 0, 2, 8), 1).into()] {
        let received = ends.responder.receive(&with_cookie, wrong, NOW, &mut *ends.random);
        assert!(matches!(received, Ok(Received::Cookie(_))), "the cookie belongs to another address");
    }
    for bit in 0..128 {
        let mut bad = with_cookie.clone();
        let at = bad.len() - 16 + bit / 8;
        bad[at] ^= 1 << (bit % 8);
        assert!(matches!(ends.receive(&bad), Ok(Received::Cookie(_))), "bit {bit} of mac2");
    }
    let response = ends.answer(&with_cookie);
    ends.finish(&response).unwrap();
}

#[test]
fn under_load_mac1_still_comes_first() {
    let mut ends = Ends::auto();
    ends.responder = responder(0);
    let mut initiation = ends.initiate();
    initiation[20] ^= 1;
    assert_eq!(ends.receive(&initiation).unwrap_err(), HandshakeError::WrongMac1);
    assert!(!ends.responder.is_under_load(NOW), "strangers do not make load");
}

#[test]
fn cookies_grow_old() {
    let mut ends = Ends::auto();
    ends.responder = responder(0);
    let initiation = ends.initiate();
    let Ok(Received::Cookie(reply)) = ends.receive(&initiation) else { panic!("no cookie") };
    ends.initiator.handle_cookie(link(0), &reply, NOW).unwrap();
    let last = NOW + COOKIE_LIFETIME - Duration::from_nanos(1);
    let with_cookie = ends.initiator.datagram(link(0), last).unwrap();
    assert_ne!(with_cookie, initiation);
    assert_eq!(ends.initiator.datagram(link(0), NOW + COOKIE_LIFETIME).unwrap(), initiation);

    let mut receive = |now| ends.responder.receive(&with_cookie, source(1), now, &mut *ends.random);
    let still = NOW + COOKIE_SECRET_LIFETIME - Duration::from_nanos(1);
    assert!(matches!(receive(still), Ok(Received::Initiation(_))));
    let Ok(Received::Cookie(next)) = receive(NOW + COOKIE_SECRET_LIFETIME) else { panic!("an old cookie") };
    ends.initiator.handle_cookie(link(0), &next, NOW + COOKIE_SECRET_LIFETIME).unwrap();
    let renewed = ends.initiator.datagram(link(0), NOW + COOKIE_SECRET_LIFETIME).unwrap();
    let later = NOW + COOKIE_SECRET_LIFETIME + COOKIE_LIFETIME;
    let received = ends.responder.receive(&renewed, source(1), later, &mut *ends.random);
    assert!(matches!(received, Ok(Received::Initiation(_))));
}

#[test]
fn a_repeated_cookie_reply_makes_no_initiations() {
    let mut ends = Ends::auto();
    ends.responder = responder(0);
    let initiation = ends.initiate();
    let Ok(Received::Cookie(reply)) = ends.receive(&initiation) else { panic!("no cookie") };
    ends.initiator.handle_cookie(link(0), &reply, NOW).unwrap();
    for ms in 0..400 {
        let again = ends.initiator.handle_cookie(link(0), &reply, NOW + Duration::from_millis(ms));
        assert_eq!(again, Err(HandshakeError::NotAwaited), "after {ms} ms");
    }
    ends.initiator.handle_cookie(link(1), &reply, NOW).expect("another link has a cookie of its own");
    ends.initiator.handle_cookie(link(0), &reply, NOW + Duration::from_millis(600)).unwrap();
}

#[test]
fn cookie_replies_that_nobody_waits_for_are_refused() {
    let mut ends = Ends::auto();
    ends.responder = responder(0);
    let initiation = ends.initiate();
    let Ok(Received::Cookie(reply)) = ends.receive(&initiation) else { panic!("no cookie") };
    for bit in 0..reply.len() * 8 {
        let mut bad = reply;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(ends.initiator.handle_cookie(link(0), &bad, NOW).is_err(), "bit {bit}");
    }
    for len in 0..reply.len() {
        let cut = ends.initiator.handle_cookie(link(0), &reply[..len], NOW);
        assert_eq!(cut, Err(HandshakeError::Malformed));
    }
    // A reply to another attempt's mac1 under this attempt's index.
    let mut other = Ends::auto();
    other.random = Box::new(seeded(77));
    other.responder = responder(0);
    let initiation = other.initiate();
    let Ok(Received::Cookie(foreign)) = other.receive(&initiation) else { panic!("no cookie") };
    assert_eq!(ends.initiator.handle_cookie(link(0), &foreign, NOW), Err(HandshakeError::Undecryptable));
    assert_eq!(ends.initiator.datagram(link(0), NOW).unwrap()[..16], initiation_head(&ends)[..16]);
    ends.initiator.cancel();
    assert_eq!(ends.initiator.handle_cookie(link(0), &reply, NOW), Err(HandshakeError::NotAwaited));
}

fn initiation_head(ends: &Ends) -> Vec<u8> {
    ends.initiator.datagram(link(1), NOW).unwrap()
}

#[test]
fn under_load_each_source_has_its_rate() {
    let mut ends = Ends::auto();
    ends.responder = responder(0);
    let initiation = ends.initiate();
    let Ok(Received::Cookie(reply)) = ends.receive(&initiation) else { panic!("no cookie") };
    ends.initiator.handle_cookie(link(0), &reply, NOW).unwrap();
    let with_cookie = ends.initiator.datagram(link(0), NOW).unwrap();
    let results: Vec<_> = (0..20).map(|_| ends.receive(&with_cookie)).collect();
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 5);
    assert_eq!(results[19].as_ref().unwrap_err(), &HandshakeError::RateLimited);
}

#[test]
fn ciphers_are_negotiated() {
    use Cipher::{Aes128Gcm, Aes256Gcm, ChaCha20Poly1305, None as Clear};
    let cases: [(CipherPolicy, bool, CipherPolicy, bool, Option<Cipher>); 14] = [
        (AUTO, true, AUTO, true, Some(Aes256Gcm)),
        (AUTO, false, AUTO, true, Some(ChaCha20Poly1305)),
        (AUTO, true, AUTO, false, Some(ChaCha20Poly1305)),
        (AUTO, false, AUTO, false, Some(ChaCha20Poly1305)),
        (only(&[Aes128Gcm]), false, AUTO, false, Some(Aes128Gcm)),
        (AUTO, true, only(&[ChaCha20Poly1305, Aes256Gcm]), true, Some(ChaCha20Poly1305)),
        (only(&[Aes256Gcm, Aes128Gcm]), true, only(&[Aes128Gcm, Aes256Gcm]), true, Some(Aes256Gcm)),
        (only(&[Aes256Gcm]), true, only(&[ChaCha20Poly1305]), true, None),
        (only(&[Clear]), true, AUTO, true, None),
        (AUTO, true, only(&[Clear]), true, None),
        (AUTO, true, only(&[Clear, Aes128Gcm]), true, Some(Aes128Gcm)),
        (only(&[Clear]), true, only(&[Clear]), true, Some(Clear)),
        (only(&[Clear, Aes256Gcm]), true, only(&[Aes256Gcm]), true, Some(Aes256Gcm)),
        (only(&[]), true, AUTO, true, None),
    ];
    for (router, router_aes, server, server_aes, want) in cases {
        let mut ends = Ends::new(PresharedKey::NONE, router, server);
        let offer = CipherOffer { policy: router, aes_instructions: router_aes };
        ends.initiator = Initiator::new(router_key(), server_key().public(), PresharedKey::NONE, offer);
        ends.responder = Responder::new(server_key(), server_aes, HandshakeLoad::new(ALL_WELL));
        let initiation = ends.initiate();
        let answer = ends.accept(&initiation).unwrap();
        let local = ends.initiator.handle_response(&answer.response);
        match want {
            Some(cipher) => {
                assert_eq!(answer.result.unwrap().cipher, cipher, "{router} {server}");
                assert_eq!(local.unwrap().cipher, cipher);
            }
            None => {
                let refusal = Refusal::NoCommonCipher { local: server, remote: router };
                assert_eq!(answer.result.unwrap_err(), refusal);
                let refusal = Refusal::NoCommonCipher { local: router, remote: server };
                assert_eq!(local.unwrap_err(), HandshakeError::Refused(refusal));
                assert!(!ends.initiator.is_pending());
            }
        }
    }
}

/// A response to `initiation` with this content, from a server that does not keep to the rules.
fn response_with(initiation: &[u8], payload: &ResponsePayload) -> Vec<u8> {
    let keys = KeyPair::from(server_key());
    let mut noise = Noise::responder(&keys, &initiation[..8], &mut seeded(9));
    noise.read(&initiation[8..initiation.len() - 32]).unwrap();
    noise.set_psk(&PresharedKey::NONE);
    let mut response = vec![0x40, 0, 0, 0];
    response.extend_from_slice(&initiation[4..8]);
    noise.write(&payload.to_bytes(), MESSAGE_2_OVERHEAD, &mut response).unwrap();
    response.extend_from_slice(&[0; 16]);
    with_right_mac1(response, &router_key().public(), false)
}

#[test]
fn a_server_cannot_choose_what_the_router_does_not_allow() {
    let accepted = |cipher, resumed| ResponsePayload {
        sender: 5,
        status: Status::Accepted { cipher, resumed },
        policy: only(&[cipher]),
        settings: b"server says".to_vec(),
    };
    let mut ends = Ends::auto();
    let initiation = ends.initiate();
    let refusal = Refusal::NoCommonCipher { local: AUTO, remote: only(&[Cipher::None]) };
    let response = response_with(&initiation, &accepted(Cipher::None, false));
    assert_eq!(ends.finish(&response), Err(HandshakeError::Refused(refusal)));

    let initiation = ends.initiate();
    let response = response_with(&initiation, &accepted(Cipher::Aes128Gcm, true));
    assert_eq!(ends.finish(&response), Err(HandshakeError::Malformed), "there is nothing to continue");

    let initiation = ends.initiate();
    let response = response_with(&initiation, &accepted(Cipher::Aes128Gcm, false));
    assert_eq!(ends.finish(&response).unwrap().1, Cipher::Aes128Gcm);
}

#[test]
fn a_refusal_says_what_to_do() {
    let refusal = Refusal::NoCommonCipher { local: AUTO, remote: only(&[Cipher::None, Cipher::Aes128Gcm]) };
    assert_eq!(
        HandshakeError::from(refusal).to_string(),
        "no common cipher: this end allows auto, the peer allows only none aes-128-gcm; \
         set the same 'cipher' at both ends"
    );
}

#[test]
fn another_version_is_told_so() {
    let payload = InitiationPayload {
        timestamp: 7,
        psk_proof: [9; 16],
        aes_instructions: true,
        lineage: None,
        policy: AUTO,
        settings: Vec::new(),
    };
    let mut bytes = payload.to_bytes();
    bytes[0] = 2;
    bytes.truncate(28);
    let version = PayloadError::Version { version: 2, timestamp: 7, psk_proof: [9; 16] };
    assert_eq!(InitiationPayload::parse(&bytes), Err(version));
    let response =
        ResponsePayload { sender: 5, status: Status::UnsupportedVersion, policy: AUTO, settings: Vec::new() };
    assert_eq!(ResponsePayload::parse(&response.to_bytes()), Ok(response));
}

#[test]
fn an_initiation_of_another_version_is_answered_once() {
    let mut ends = Ends::auto();
    let keys = KeyPair::from(router_key());
    let mut initiation = vec![0x20, 0, 0, 0, 0, 0, 0, 9];
    let head = initiation.clone();
    let mut noise =
        Noise::initiator(&keys, &server_key().public(), &PresharedKey::NONE, &head, &mut *ends.random);
    let proof = psk_proof(&PresharedKey::NONE, 7, &keys.public);
    let payload = [&[2][..], &7_u64.to_be_bytes(), &proof, b"whatever comes then"].concat();
    noise.write(&payload, MESSAGE_1_OVERHEAD, &mut initiation).unwrap();
    initiation.extend_from_slice(&[0; 32]);
    let initiation = with_right_mac1(initiation, &server_key().public(), true);

    let answer = ends.accept(&initiation).unwrap();
    assert_eq!(answer.result.unwrap_err(), Refusal::UnsupportedVersion);
    let response = noise.read(&answer.response[8..answer.response.len() - 16]).unwrap();
    assert_eq!(ResponsePayload::parse(&response).unwrap().status, Status::UnsupportedVersion);
    assert_eq!(ends.accept(&initiation).unwrap_err(), HandshakeError::Duplicate);
}

#[test]
fn a_reload_changes_what_the_next_handshake_needs() {
    let mut ends = Ends::auto();
    ends.handshake();
    ends.record.configure(PresharedKey::from_bytes([8; 32]), AUTO);
    assert_eq!(ends.confirm(), None, "the running session goes on");
    let initiation = ends.initiate();
    assert_eq!(ends.accept(&initiation).unwrap_err(), HandshakeError::WrongPresharedKey);
}

#[test]
fn messages_stay_what_they_are() {
    // Computed by another implementation of docs/protocol.md. Whoever changes these changes the protocol.
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let psk = PresharedKey::from_bytes([0x55; 32]);
    let policy = only(&[Cipher::ChaCha20Poly1305, Cipher::Aes128Gcm]);
    let mut ends = Ends::new(psk, policy, AUTO);
    let lineage = LineageId::new(0x0102_0304_0506_0708);
    ends.initiator
        .initiate(0xa1a2_a3a4, 0x1112_1314_1516_1718, lineage, b"router", &mut |b| b.fill(0x66))
        .unwrap();
    let initiation = ends.initiator.datagram(link(0), NOW).unwrap();
    assert_eq!(hex(&initiation), include_str!("testdata/initiation.hex").trim());

    let mut loaded = responder(0);
    let Ok(Received::Cookie(reply)) = loaded.receive(&initiation, source(0x1234), NOW, &mut |b| b.fill(0x88))
    else {
        panic!("no cookie")
    };
    assert_eq!(hex(&reply), include_str!("testdata/cookie-reply.hex").trim());
    ends.initiator.handle_cookie(link(0), &reply, NOW).unwrap();
    let with_cookie = ends.initiator.datagram(link(0), NOW).unwrap();
    assert_eq!(hex(&with_cookie[with_cookie.len() - 16..]), include_str!("testdata/mac2.hex").trim());

    let received = ends.responder.receive(&initiation, source(1), NOW, &mut |b| b.fill(0x77));
    let Ok(Received::Initiation(received)) = received else { panic!("not accepted") };
    let answer = received.accept(&mut ends.record, 0xb1b2_b3b4, lineage, b"server").unwrap();
    assert_eq!(hex(&answer.response), include_str!("testdata/response.hex").trim());

    let established = ends.initiator.handle_response(&answer.response).unwrap();
    assert_eq!(established.lineage.id(), lineage.unwrap());
    let mut sealer = Sealer::new(Lifetimes::default());
    sealer.install(established.sealing, NOW);
    let mut packet = [&[0; HEADER_LEN][..], b"bonding", &[0; TAG_LEN]].concat();
    sealer.seal(Seal::Sealed, link(5), &mut packet, NOW).unwrap();
    assert_eq!(hex(&packet), include_str!("testdata/transport.hex").trim());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 1_u8..4) {
        let mut ends = Ends::auto();
        ends.initiate();
        let index = ends.initiator.pending_indexes().next().unwrap();
        let mut bytes = bytes;
        for round in 0..3 {
            if round > 0 && bytes.len() >= 40 {
                bytes[..4].copy_from_slice(&[kind << 5, 0, 0, 0]);
                bytes[8..12].copy_from_slice(&index.to_be_bytes());
                let (receiver, mac2) = match kind {
                    1 => (server_key().public(), true),
                    _ => (router_key().public(), false),
                };
                bytes = with_right_mac1(bytes, &receiver, mac2);
            }
            prop_assert!(ends.receive(&bytes).is_err());
            prop_assert!(ends.finish(&bytes).is_err());
            prop_assert!(ends.initiator.handle_cookie(link(0), &bytes, NOW).is_err());
        }
    }

    #[test]
    fn random_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), first in 0_u8..3) {
        let mut bytes = bytes;
        for _ in 0..2 {
            if let Ok(payload) = InitiationPayload::parse(&bytes) {
                prop_assert!(payload.settings.len() <= MAX_SETTINGS);
            }
            if let Ok(payload) = ResponsePayload::parse(&bytes) {
                prop_assert!(payload.settings.len() <= MAX_SETTINGS);
            }
            if let Some(byte) = bytes.first_mut() {
                *byte = first;
            }
        }
    }

    #[test]
    fn payloads_round_trip(
        timestamp in any::<u64>(),
        psk_proof in any::<Mac>(),
        aes_instructions in any::<bool>(),
        lineage in any::<u64>(),
        ids in prop::option::of(prop::collection::vec(1_u8..5, 0..5)),
        settings in prop::collection::vec(any::<u8>(), 0..=MAX_SETTINGS),
        resumed in any::<bool>(),
    ) {
        let policy = match ids {
            None => AUTO,
            Some(ids) => CipherPolicy::Only(CipherList::new(ids.into_iter().filter_map(Cipher::from_id))),
        };
        let payload = InitiationPayload {
            timestamp,
            psk_proof,
            aes_instructions,
            lineage: LineageId::new(lineage),
            policy,
            settings: settings.clone(),
        };
        let bytes = payload.to_bytes();
        for len in 0..bytes.len() {
            prop_assert!(InitiationPayload::parse(&bytes[..len]).is_err());
        }
        prop_assert_eq!(InitiationPayload::parse(&bytes), Ok(payload));
        for status in [
            Status::Accepted { cipher: Cipher::Aes128Gcm, resumed },
            Status::NoCommonCipher,
            Status::UnsupportedVersion,
        ] {
            let payload = ResponsePayload { sender: 5, status, policy, settings: settings.clone() };
            let bytes = payload.to_bytes();
            for len in 0..bytes.len() {
                prop_assert!(ResponsePayload::parse(&bytes[..len]).is_err());
            }
            prop_assert_eq!(ResponsePayload::parse(&bytes), Ok(payload));
        }
    }

    /// Whatever is lost, doubled and reordered between the ends, a completed handshake agrees on everything.
    #[test]
    fn lossy_handshakes_agree(events in prop::collection::vec(0_u8..8, 1..60)) {
        let mut ends = Ends::auto();
        let (mut initiations, mut responses) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                0 => initiations.push(ends.initiate()),
                1 | 2 => {
                    if let Some(initiation) = initiations.last().cloned()
                        && let Ok(answer) = ends.accept(&initiation)
                    {
                        let established = answer.result.unwrap();
                        ends.server.0.stage(established.sealing, NOW);
                        ends.server.1.stage(established.opening, NOW);
                        responses.push(answer.response);
                    }
                }
                3 | 4 => {
                    if let Some(response) = responses.last().cloned() {
                        let _ = ends.finish(&response);
                    }
                }
                5 => {
                    initiations.pop();
                    responses.pop();
                }
                6 if ends.router.0.is_usable(NOW) => {
                    // The server may have given up an epoch that five later ones have pushed out.
                    let mut packet = [&[0; HEADER_LEN][..], b"ping", &[0; TAG_LEN]].concat();
                    ends.router.0.seal(Seal::Sealed, link(0), &mut packet, NOW).unwrap();
                    if let Ok(opened) = ends.server.1.open(&mut packet, NOW) {
                        prop_assert_eq!(opened.text, b"ping");
                        if opened.confirmed.is_some() {
                            prop_assert!(ends.server.0.confirm(opened.epoch));
                        }
                    }
                }
                7 => match initiations.len() % 5 {
                    0 => ends.restart_router(),
                    _ => initiations.reverse(),
                },
                _ => {}
            }
        }
        ends.handshake();
    }
}
