//! Messages that are cut, changed, copied or made with another key.

use super::*;

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
