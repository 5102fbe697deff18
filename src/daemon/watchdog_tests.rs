use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> config::Watchdog {
    config::Watchdog {
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        period: SECOND * 5,
        timeout: SECOND * 30,
        action: vec!["/etc/init.d/bonding".into(), "restart".into()],
    }
}

fn memory(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("bonding-watchdog-{test}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

fn silent() -> io::Result<Duration> {
    Err(io::ErrorKind::TimedOut.into())
}

/// Lets every second pass as the daemon does; gives the seconds at which the action was run.
fn actions(
    watchdog: &mut Watchdog,
    seconds: std::ops::Range<u64>,
    answered: impl Fn(u64) -> bool,
) -> Vec<u64> {
    let mut acted = Vec::new();
    for second in seconds {
        let now = Time::from_millis(second * 1_000);
        if watchdog.due_ping(true, now).is_some() {
            let answer = if answered(second) { Ok(SECOND / 50) } else { silent() };
            watchdog.answer(answer, now);
        }
        if watchdog.due_action(true, now) {
            acted.push(second);
            watchdog.acted(now);
        }
    }
    acted
}

#[test]
fn the_pauses_grow_until_there_is_an_answer() {
    let mut watchdog = Watchdog::new(config(), memory("grow"), Time::ZERO);
    assert_eq!(actions(&mut watchdog, 0..1_000, |_| false), [30, 90, 210, 450, 930]);
    let status = watchdog.status(Time::from_millis(999_000));
    assert_eq!((status.state, status.error.as_str(), status.actions), ("silent", "no answer", 5));
    assert_eq!(status.last_answer_ms, None);
    // It works again for long enough, and fails again.
    assert_eq!(actions(&mut watchdog, 1_000..2_000, |second| second < 1_100), [1_125, 1_185, 1_305, 1_545]);
    let _ = std::fs::remove_file(&watchdog.memory);
}

#[test]
fn the_longest_pause_is_an_hour() {
    let mut watchdog = Watchdog::new(config(), memory("hour"), Time::ZERO);
    let acted = actions(&mut watchdog, 0..40_000, |_| false);
    let pauses: Vec<u64> = acted.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses.last(), Some(&3_600), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 3_600));
    let _ = std::fs::remove_file(&watchdog.memory);
}

#[test]
fn an_answer_right_after_an_action_does_not_shorten_the_pauses() {
    let mut watchdog = Watchdog::new(config(), memory("brief"), Time::ZERO);
    // Every restart brings the bond up for ten seconds.
    let brief = |second: u64| second == 35 || second == 40;
    assert_eq!(actions(&mut watchdog, 0..101, brief), [30, 100]);
    let _ = std::fs::remove_file(&watchdog.memory);
}

#[test]
fn answers_keep_it_quiet() {
    let mut watchdog = Watchdog::new(config(), memory("quiet"), Time::ZERO);
    assert_eq!(actions(&mut watchdog, 0..10_000, |second| second % 25 == 0), [0; 0]);
    let status = watchdog.status(Time::from_millis(9_976_000));
    assert_eq!((status.rtt_ms, status.actions), (Some(20.0), 0));
}

#[test]
fn nothing_is_done_while_no_link_is_up() {
    let mut watchdog = Watchdog::new(config(), memory("down"), Time::ZERO);
    for second in 0..1_000 {
        let now = Time::from_millis(second * 1_000);
        assert_eq!(watchdog.due_ping(false, now), None);
        assert!(!watchdog.due_action(false, now));
    }
    let status = watchdog.status(Time::from_millis(999_000));
    assert_eq!((status.state, status.next_action_ms), ("waiting", None));
    // A link that comes up has the whole time.
    assert_eq!(actions(&mut watchdog, 1_000..1_032, |_| false), [1_029]);
    let _ = std::fs::remove_file(&watchdog.memory);
}

#[test]
fn the_number_of_actions_survives_the_restart_that_is_the_action() {
    let file = memory("restart");
    let mut watchdog = Watchdog::new(config(), file.clone(), Time::ZERO);
    assert_eq!(actions(&mut watchdog, 0..31, |_| false), [30]);
    let mut restarted = Watchdog::new(config(), file.clone(), Time::from_millis(31_000));
    assert_eq!(actions(&mut restarted, 31..200, |_| false), [91]);
    // Hours later that is forgotten.
    let day = 86_400;
    let mut later = Watchdog::new(config(), file.clone(), Time::from_millis(day * 1_000));
    assert_eq!(actions(&mut later, day..day + 40, |_| false), [day + 30]);
    assert!(file.exists());
    actions(&mut later, day + 40..day + 100, |_| true);
    assert!(!file.exists(), "it works again");
}

#[test]
fn a_ping_every_period() {
    let mut watchdog = Watchdog::new(config(), memory("period"), Time::ZERO);
    let mut pings = 0;
    for tick in 0..100u64 {
        // Ticks are a few milliseconds late now and then.
        let now = Time::from_millis(tick * 1_000 + tick * 7 % 13);
        if let Some(addresses) = watchdog.due_ping(true, now) {
            assert_eq!(addresses.len(), 2);
            assert_eq!(watchdog.due_ping(true, now), None, "one at a time");
            watchdog.answer(Ok(SECOND), now);
            pings += 1;
        }
    }
    assert_eq!(pings, 20);
}

#[test]
fn other_options_are_taken_over() {
    let mut watchdog = Watchdog::new(config(), memory("options"), Time::ZERO);
    watchdog.configure(config::Watchdog { timeout: SECOND * 10, ..config() });
    assert_eq!(actions(&mut watchdog, 0..12, |_| false), [10]);
    let _ = std::fs::remove_file(&watchdog.memory);
}
