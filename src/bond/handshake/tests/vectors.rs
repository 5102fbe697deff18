//! Messages computed by another implementation.

use super::*;

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
    assert_eq!(hex(&initiation), include_str!("../testdata/initiation.hex").trim());

    let mut loaded = responder(0);
    let Ok(Received::Cookie(reply)) = loaded.receive(&initiation, source(0x1234), NOW, &mut |b| b.fill(0x88))
    else {
        panic!("no cookie")
    };
    assert_eq!(hex(&reply), include_str!("../testdata/cookie-reply.hex").trim());
    ends.initiator.handle_cookie(link(0), &reply, NOW).unwrap();
    let with_cookie = ends.initiator.datagram(link(0), NOW).unwrap();
    assert_eq!(hex(&with_cookie[with_cookie.len() - 16..]), include_str!("../testdata/mac2.hex").trim());

    let received = ends.responder.receive(&initiation, source(1), NOW, &mut |b| b.fill(0x77));
    let Ok(Received::Initiation(received)) = received else { panic!("not accepted") };
    let answer = received.accept(&mut ends.record, 0xb1b2_b3b4, lineage, b"server").unwrap();
    assert_eq!(hex(&answer.response), include_str!("../testdata/response.hex").trim());

    let established = ends.initiator.handle_response(&answer.response).unwrap();
    assert_eq!(established.lineage.id(), lineage.unwrap());
    let mut sealer = Sealer::new(Lifetimes::default());
    sealer.install(established.sealing, NOW);
    let mut packet = [&[0; HEADER_LEN][..], b"bonding", &[0; TAG_LEN]].concat();
    sealer.seal(Seal::Sealed, link(5), &mut packet, NOW).unwrap();
    assert_eq!(hex(&packet), include_str!("../testdata/transport.hex").trim());
}
