//! A responder under load.

use super::*;

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
