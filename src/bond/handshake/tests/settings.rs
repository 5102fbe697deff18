//! What the ends tell each other besides keys.

use super::*;

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
