//! Properties that hold for any bytes and any order of events.

use proptest::prelude::*;

use super::*;

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
