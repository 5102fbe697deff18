//! Handshakes between two ends that keep to the rules.

use super::*;

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
fn a_reload_changes_what_the_next_handshake_needs() {
    let mut ends = Ends::auto();
    ends.handshake();
    ends.record.configure(PresharedKey::from_bytes([8; 32]), AUTO);
    assert_eq!(ends.confirm(), None, "the running session goes on");
    let initiation = ends.initiate();
    assert_eq!(ends.accept(&initiation).unwrap_err(), HandshakeError::WrongPresharedKey);
}
