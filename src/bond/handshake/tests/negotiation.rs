//! Ciphers and versions.

use super::*;

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
