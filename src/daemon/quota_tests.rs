use super::*;
use crate::config::load;

/// Days since 1970 of 2026-11-21.
const TODAY: i64 = 20_778;

fn link(options: &str) -> Link {
    let text = format!(
        "config interface 'bond'\n list ipaddr 10.0.0.2/24\n option server 192.0.2.1\nconfig link 'lte'\n option device wwan0\n{options}"
    );
    let report = load(&text, "test");
    report.config.unwrap_or_else(|| panic!("{:?}", report.problems)).links.remove(0)
}

fn quotas() -> Quotas {
    Quotas { volatile: "v".into(), lasting: "l".into(), ..Quotas::default() }
}

fn used(quotas: &Quotas) -> u64 {
    quotas.links["lte"].bytes
}

#[test]
fn days_are_those_of_the_calendar() {
    assert_eq!(days(1970, 1, 1), 0);
    assert_eq!(days(2000, 3, 1), 11_017);
    assert_eq!(days(2026, 11, 21), TODAY);
    assert_eq!(days(2025, 1, 1), PLAUSIBLE);
    let mut expected = (1899, 12, 31);
    for day in days(1900, 1, 1)..days(2200, 1, 1) {
        let (year, month, of_month) = date(day);
        assert_eq!(days(year, month, of_month), day);
        let follows = if of_month > 1 { (expected.0, expected.1, expected.2 + 1) } else { (year, month, 1) };
        assert_eq!((year, month, of_month), follows, "no day is left out");
        assert!(of_month > 1 || expected.2 >= 28);
        expected = (year, month, of_month);
    }
    for extreme in [i64::MIN, i64::MAX] {
        assert!((1..=12).contains(&date(extreme).1));
        period_begin(extreme, 31);
    }
}

#[test]
fn a_period_begins_on_its_day_or_the_last_of_a_shorter_month() {
    for (today, reset_day, begin) in [
        ((2026, 11, 21), 1, (2026, 11, 1)),
        ((2026, 11, 21), 21, (2026, 11, 21)),
        ((2026, 11, 21), 22, (2026, 10, 22)),
        ((2026, 1, 5), 6, (2025, 12, 6)),
        ((2026, 3, 1), 31, (2026, 2, 28)),
        ((2028, 2, 29), 31, (2028, 2, 29)),
        ((2028, 2, 28), 31, (2028, 1, 31)),
        ((2026, 4, 30), 31, (2026, 4, 30)),
        ((2026, 5, 30), 31, (2026, 4, 30)),
    ] {
        let day = |(year, month, day)| days(year, month, day);
        assert_eq!(period_begin(day(today), reset_day), day(begin), "{today:?} {reset_day}");
    }
}

#[test]
fn both_directions_count_until_the_quota_is_used_up() {
    let (lte, mut quotas) = (link(" option quota 1000\n"), quotas());
    assert!(!quotas.count(&lte, 300, 200, TODAY));
    assert!(!quotas.count(&lte, 300, 699, TODAY));
    assert!(!quotas.is_used_up(&lte));
    assert!(quotas.count(&lte, 301, 699, TODAY), "it is told once");
    assert!(!quotas.count(&lte, 400, 800, TODAY));
    assert!(quotas.is_used_up(&lte));
    let expected = QuotaStatus { quota: 1000, used: 1200, since: "2026-11-01".into(), used_up: true };
    assert_eq!(quotas.status(&lte), Some(expected));
    // Of a link that came anew the counters begin again.
    quotas.count(&lte, 50, 900, TODAY);
    assert_eq!(used(&quotas), 1350);
}

#[test]
fn a_new_period_begins_with_nothing_used() {
    let (lte, mut quotas) = (link(" option quota 1000\n option quota_reset_day 25\n"), quotas());
    quotas.count(&lte, 2000, 0, days(2026, 11, 24));
    assert!(quotas.is_used_up(&lte));
    quotas.count(&lte, 2010, 0, days(2026, 11, 25));
    assert_eq!((used(&quotas), quotas.is_used_up(&lte)), (10, false));
}

#[test]
fn a_clock_that_is_not_set_begins_no_period() {
    let (lte, mut quotas) = (link(" option quota 1000\n"), quotas());
    quotas.count(&lte, 10, 0, TODAY);
    for wrong in [0, 1, days(2026, 10, 3)] {
        quotas.count(&lte, 10, 0, wrong);
        assert_eq!((quotas.links["lte"].since, used(&quotas)), (days(2026, 11, 1), 10));
    }
    // A clock from the future does, but does not stop the count for ever.
    quotas.count(&lte, 20, 0, days(2090, 1, 1));
    quotas.count(&lte, 30, 0, TODAY);
    assert_eq!((quotas.links["lte"].since, used(&quotas)), (days(2026, 11, 1), 20));
}

#[test]
fn a_link_without_quota_is_not_kept() {
    let mut quotas = quotas();
    quotas.count(&link(" option quota 1000\n"), 10, 0, TODAY);
    quotas.count(&link(""), 20, 0, TODAY);
    assert!(quotas.links.is_empty());
    assert_eq!(quotas.status(&link("")), None);
    quotas.count(&link(" option quota 1000\n"), 25, 0, TODAY);
    assert_eq!(used(&quotas), 5, "what it has carried without a quota does not count");
}

#[test]
fn files_are_written_when_something_changed_and_seldom() {
    let (lte, mut quotas) = (link(" option quota 1000\n"), quotas());
    let at = Time::from_millis;
    let paths =
        |saves: Vec<Save>| saves.into_iter().map(|save| save.path.display().to_string()).collect::<Vec<_>>();
    assert!(quotas.due(at(20_000)).is_empty());
    quotas.count(&lte, 10, 0, TODAY);
    assert_eq!(paths(quotas.due(at(25_000))), [""; 0]);
    assert_eq!(paths(quotas.due(at(30_000))), ["v"]);
    quotas.count(&lte, 2000, 0, TODAY);
    assert_eq!(paths(quotas.due(at(31_000))), ["l"], "a used up quota is worth a write");
    assert_eq!(paths(quotas.due(at(40_000))), ["v"]);
    let mut written = 0;
    for second in 0..7_200 {
        quotas.count(&lte, 3000 + second, 0, TODAY);
        written += paths(quotas.due(at(41_000 + second * 1_000))).iter().filter(|path| *path == "l").count();
    }
    assert_eq!(written, 2);
    quotas.count(&lte, 100_000, 0, TODAY);
    assert_eq!(paths(quotas.last(at(9_000_000))), ["v", "l"]);
    assert_eq!(paths(quotas.last(at(9_000_000))), [""; 0]);
}

#[test]
fn a_restart_goes_on_with_the_larger_count() {
    let directory = lab::directory::Directory::new("bonding-quota").unwrap();
    let (volatile, lasting) = (directory.path("volatile"), directory.path("lasting"));
    let load = || Quotas::load(volatile.clone(), lasting.clone(), Time::ZERO);
    let lte = link(" option quota 1000\n");
    let mut quotas = load();
    assert!(quotas.links.is_empty(), "no file is no complaint");
    quotas.count(&lte, 400, 0, TODAY);
    for save in quotas.last(Time::from_millis(1)) {
        save.write().unwrap();
    }
    quotas.count(&lte, 500, 0, TODAY);
    save(&volatile, &quotas.links, &mut quotas.saved_often, Time::from_millis(2)).unwrap().write().unwrap();
    assert_eq!(used(&load()), 500, "the daemon was killed");
    std::fs::remove_file(&volatile).unwrap();
    let mut quotas = load();
    assert_eq!(used(&quotas), 400, "the power failed");
    quotas.count(&lte, 50, 0, TODAY);
    assert_eq!(used(&quotas), 450);
    for garbage in ["", "{", "[]", "{\"lte\":{\"since\":1e99,\"bytes\":-1}}"] {
        std::fs::write(&lasting, garbage).unwrap();
        assert!(load().links.is_empty());
    }
}
