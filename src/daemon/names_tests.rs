use super::*;

const NAME: &str = "a.example";

fn known(links: &[&str]) -> Names {
    let mut known = Names::default();
    known.retain(links.iter().map(|link| ((*link).to_owned(), NAME.to_owned())));
    known
}

fn seconds(seconds: u64) -> Time {
    Time::from_millis(seconds * 1_000)
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn found(list: &[&str], ttl: u64) -> Result<Answer, String> {
    Ok(Answer { addresses: addresses(list), ttl: Duration::from_secs(ttl) })
}

fn silent(_: &str, _: &str) -> Option<bool> {
    Some(false)
}

#[test]
fn asks_at_once_and_again_when_the_server_is_silent() {
    let mut names = known(&["adsl"]);
    assert!(names.due(|_, _| None, seconds(1)).is_empty(), "a link without a device asks nobody");
    assert_eq!(names.due(silent, seconds(1)), [("adsl".to_owned(), NAME.to_owned())]);
    assert!(names.due(silent, seconds(2)).is_empty(), "the answer is on its way");
    assert!(names.answer("adsl", NAME, found(&["192.0.2.1"], 60), seconds(3)));
    assert!(names.due(|_, _| Some(true), seconds(1_000)).is_empty(), "what works is not asked for again");
    assert!(names.due(silent, seconds(62)).is_empty());
    assert_eq!(names.due(silent, seconds(63)).len(), 1);
}

#[test]
fn lives_have_limits() {
    for (ttl, pause) in [(0, 30), (30, 30), (100, 100), (86_400, 300)] {
        let mut names = known(&["adsl"]);
        names.due(silent, seconds(0));
        names.answer("adsl", NAME, found(&["192.0.2.1"], ttl), seconds(0));
        assert!(names.due(silent, seconds(pause - 1)).is_empty(), "{ttl}");
        assert_eq!(names.due(silent, seconds(pause)).len(), 1, "{ttl}");
    }
}

#[test]
fn failures_wait_longer_and_longer_and_forget_nothing() {
    let mut names = known(&["adsl"]);
    names.due(silent, seconds(0));
    names.answer("adsl", NAME, found(&["192.0.2.1"], 0), seconds(0));
    let mut now = 30;
    for pause in [1, 2, 4, 8, 16, 32, 32] {
        assert_eq!(names.due(silent, seconds(now)).len(), 1);
        names.answer("adsl", NAME, Err("no such host".into()), seconds(now));
        assert!(names.due(silent, seconds(now + pause - 1)).is_empty(), "{pause}");
        now += pause;
    }
    assert_eq!(names.addresses("adsl", NAME), addresses(&["192.0.2.1"]));
    assert_eq!(names.error("adsl", NAME), Some("no such host"));
    names.renew("adsl");
    assert_eq!(names.due(silent, seconds(now - 31)).len(), 1, "it has come up somewhere else");
}

#[test]
fn each_link_asks_and_uses_what_others_know_until_then() {
    let mut names = known(&["adsl", "lte"]);
    assert_eq!(names.due(silent, seconds(0)).len(), 2);
    names.answer("adsl", NAME, found(&["192.0.2.1"], 60), seconds(1));
    assert_eq!(names.addresses("lte", NAME), addresses(&["192.0.2.1"]));
    assert!(names.addresses("lte", "b.example").is_empty());
    names.answer("lte", NAME, found(&["2001:db8::1"], 60), seconds(1));
    assert_eq!(names.addresses("lte", NAME), addresses(&["2001:db8::1"]));
    assert_eq!(names.addresses("adsl", NAME), addresses(&["192.0.2.1"]));
    names.retain([("lte".to_owned(), NAME.to_owned())].into_iter());
    assert_eq!(names.addresses("adsl", NAME), addresses(&["2001:db8::1"]), "the other link is gone");
}

#[test]
fn a_link_that_is_answered_asks_for_what_nobody_knows() {
    let mut names = known(&["adsl", "lte"]);
    names.retain(["adsl", "lte"].map(|link| (link.to_owned(), "second.example".to_owned())).into_iter());
    let answered = |link: &str, _: &str| (link == "adsl").then_some(true);
    assert_eq!(names.due(answered, seconds(0)).len(), 1, "the address of another server");
    names.answer("adsl", "second.example", Err("no such host".into()), seconds(0));
    assert_eq!(names.due(answered, seconds(1)).len(), 1);
    names.answer("lte", "second.example", found(&["192.0.2.1"], 60), seconds(2));
    names.answer("adsl", "second.example", Err("no such host".into()), seconds(2));
    assert!(names.due(answered, seconds(1_000)).is_empty(), "the other link has found it");
}

#[test]
fn another_order_is_no_change_and_there_is_an_end_of_addresses() {
    let mut names = known(&["adsl"]);
    assert!(names.answer("adsl", NAME, found(&["192.0.2.1", "192.0.2.2"], 1), seconds(1)));
    assert!(!names.answer("adsl", NAME, found(&["192.0.2.2", "192.0.2.1", "192.0.2.1"], 1), seconds(2)));
    assert!(
        !names.answer("adsl", "b.example", found(&["192.0.2.1"], 1), seconds(2)),
        "nobody asked for that"
    );
    let many: Vec<String> = (0..99).map(|n| format!("192.0.2.{n}")).collect();
    names.answer("adsl", NAME, found(&many.iter().map(String::as_str).collect::<Vec<_>>(), 1), seconds(3));
    assert_eq!(names.addresses("adsl", NAME).len(), MAX_ADDRESSES);
}

#[test]
fn name_servers_of_other_networks_are_left_out() {
    let networks = ["192.168.1.0/24", "fe80::/64"].map(|text| text.parse().unwrap());
    for (server, reachable) in [
        ("192.168.1.1", true),
        ("192.168.2.1", false),
        ("10.0.0.1", false),
        ("192.0.2.53", true),
        ("fd00::1", false),
        ("fe80::1", true),
        ("2001:db8::53", true),
    ] {
        assert_eq!(is_reachable(server.parse().unwrap(), &networks), reachable, "{server}");
    }
}
