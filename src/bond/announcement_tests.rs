use proptest::prelude::*;

use super::*;

fn selectors() -> impl Strategy<Value = Selector> {
    use proptest::option::of;
    let range = || {
        let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(addr, len)| IpPrefix { addr: addr.into(), len });
        let v6 = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(addr, len)| IpPrefix { addr: addr.into(), len });
        of(prop_oneof![v4, v6])
    };
    let ports = || of((any::<u16>(), any::<u16>()).prop_map(|(a, b)| (a.min(b), a.max(b))));
    (of(any::<u8>()), range(), range(), ports(), ports(), any::<u64>()).prop_map(
        |(protocol, source, destination, source_ports, destination_ports, dscp)| Selector {
            protocol,
            source,
            destination,
            source_ports,
            destination_ports,
            dscp,
        },
    )
}

fn classes() -> impl Strategy<Value = Class> {
    let policy = proptest::option::of(proptest::sample::select(Policy::ALL.to_vec()));
    (any::<u8>(), selectors(), policy, any::<u32>(), any::<bool>()).prop_map(
        |(rule, selector, policy, links, forced)| Class {
            rule,
            selector,
            treatment: Treatment { policy, links, forced },
        },
    )
}

/// Carries parts and answers until the client is content. `lost` says whether the next one is lost.
fn exchange(
    client: &mut Announcer,
    server: &mut Listener,
    now: &mut Time,
    mut lost: impl FnMut() -> bool,
) -> Option<Vec<Class>> {
    let mut complete = None;
    let mut parts = 0;
    while let Some(due) = client.poll_timeout() {
        *now = due.max(*now);
        let Some(Frame::Classes { generation, total, first, classes }) = client.poll(*now) else {
            panic!("a part is due")
        };
        parts += 1;
        assert!(parts < 10_000, "it comes to an end");
        assert!(classes.len() <= PART);
        if lost() {
            continue;
        }
        let (held, list) = server.take(generation, total, first, classes).expect("it is well-formed");
        complete = list.or(complete);
        if !lost() {
            client.answered(generation, held, *now);
        }
    }
    complete
}

proptest! {
    #[test]
    fn the_server_gets_the_list_whatever_is_lost(
        list in proptest::collection::vec(classes(), 0..40),
        losses in proptest::collection::vec(any::<bool>(), 0..60),
    ) {
        let (mut client, mut server) = (Announcer::default(), Listener::default());
        let mut now = Time::ZERO;
        client.set(&list, now);
        let mut losses = losses.into_iter();
        let got = exchange(&mut client, &mut server, &mut now, || losses.next().unwrap_or(false));
        prop_assert_eq!(got, Some(list));
    }

    #[test]
    fn any_part_is_read_without_panic_and_bounded(
        parts in proptest::collection::vec(
            (0..3u8, 0..600u16, 0..4u16, proptest::collection::vec(any::<u8>(), 0..200)), 0..30),
    ) {
        let mut server = Listener::default();
        for (generation, total, first, part) in parts {
            if let Some((held, list)) = server.take(generation, total, first, &part) {
                prop_assert!(held <= total);
                prop_assert!(list.is_none_or(|list| list.len() == usize::from(total)));
            }
            prop_assert!(server.classes.len() <= MAX_CLASSES);
        }
    }
}

fn list(length: usize) -> Vec<Class> {
    let class = |rule: usize| Class {
        rule: rule as u8,
        selector: Selector { protocol: Some(rule as u8), ..Selector::default() },
        treatment: Treatment::default(),
    };
    (0..length).map(class).collect()
}

#[test]
fn another_list_takes_the_place_of_one_that_is_under_way() {
    let (mut client, mut server) = (Announcer::default(), Listener::default());
    let mut now = Time::ZERO;
    client.set(&list(100), now);
    let Some(Frame::Classes { generation, total, first, classes }) = client.poll(now) else { panic!() };
    let (held, complete) = server.take(generation, total, first, classes).unwrap();
    assert!(held > 0 && complete.is_none(), "it takes several parts");
    client.set(&list(3), now);
    client.answered(generation, held, now);
    assert_eq!(exchange(&mut client, &mut server, &mut now, || false), Some(list(3)));
    client.set(&[], now);
    assert_eq!(
        exchange(&mut client, &mut server, &mut now, || false),
        Some(Vec::new()),
        "a list can be taken back"
    );
}

#[test]
fn a_server_that_has_forgotten_is_told_again() {
    let (mut client, mut server) = (Announcer::default(), Listener::default());
    let mut now = Time::ZERO;
    client.set(&list(50), now);
    assert!(exchange(&mut client, &mut server, &mut now, || false).is_some());
    assert_eq!(client.poll_timeout(), None);
    client.restart(now);
    let mut server = Listener::default();
    assert_eq!(exchange(&mut client, &mut server, &mut now, || false), Some(list(50)));
    let mut nothing = Announcer::default();
    nothing.restart(now);
    assert_eq!(nothing.poll_timeout(), None, "who never had classes says nothing");
}

#[test]
fn without_an_answer_it_asks_less_and_less_often() {
    let mut client = Announcer::default();
    client.set(&list(1), Time::ZERO);
    let mut asked = Vec::new();
    while asked.len() < 8 {
        let now = client.poll_timeout().unwrap();
        assert!(client.poll(now).is_some());
        asked.push(now);
    }
    let pauses: Vec<_> = asked.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert_eq!(pauses.first(), Some(&FIRST_RETRY));
    assert_eq!(pauses.last(), Some(&LAST_RETRY));
}
