use super::*;
use crate::config::load;

const KEYS: [&str; 3] = [
    "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=",
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
];

fn read(interface: &str) -> Config {
    let mut text = format!(
        "config interface 'bond'\n option ipaddr 10.0.0.2/24\n option public_key '{}'\n option server 203.0.113.1\n \
         {interface}\nconfig link a\n option interface wan\n",
        KEYS[0]
    );
    for (name, key) in ["second", "third"].iter().zip(&KEYS[1..]) {
        text += &format!("config server '{name}'\n option public_key '{key}'\n option server 203.0.113.2\n");
    }
    let report = load(&text, "test");
    report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
}

/// Servers of which the test says, second by second, which answer. Nobody is called.
struct World {
    config: Config,
    servers: Servers,
    second: u64,
}

impl World {
    fn new(interface: &str) -> World {
        let config = read(interface);
        World { servers: Servers::new(&config, Time::ZERO), config, second: 0 }
    }

    /// One second in which these answer. Returns where the bond goes.
    fn second(&mut self, answering: &[&str]) -> Option<String> {
        self.second += 1;
        let now = Time::from_millis(self.second * 1_000);
        self.servers.watch(answering.contains(&self.config.server.as_str()), true, now);
        for (position, standby) in self.servers.standbys.iter_mut().enumerate() {
            let better = position < self.servers.better;
            if standby.is_wanted(better, self.servers.silent, &self.config.bond, now) {
                standby.note(answering.contains(&standby.name.as_str()), now);
            } else {
                standby.steady = None;
            }
        }
        let to = self.servers.choose(&self.config.server, &self.config.bond, now)?.to;
        self.config = self.config.at_server(&to);
        self.servers.take(&self.config, now);
        self.servers.since = now;
        Some(to)
    }

    /// The second at which the bond goes elsewhere, of `limit`, and where to.
    fn until_it_moves(&mut self, answering: &[&str], limit: u64) -> Option<(u64, String)> {
        (1..=limit).find_map(|second| Some((second, self.second(answering)?)))
    }
}

fn at(second: u64, name: &str) -> Option<(u64, String)> {
    Some((second, name.to_owned()))
}

#[test]
fn the_next_one_that_answers_takes_the_place_of_a_silent_one_and_gives_it_back() {
    let mut world = World::new("");
    assert_eq!(world.until_it_moves(&["bond", "second", "third"], 10_000), None);
    assert_eq!(world.until_it_moves(&["third"], 100), at(21, "third"));
    assert_eq!(world.until_it_moves(&["third"], 10_000), None, "nothing better answers");
    // The second is better than the third, if not the best.
    assert_eq!(world.until_it_moves(&["second", "third"], 100), at(61, "second"));
    assert_eq!(world.until_it_moves(&["bond", "second", "third"], 100), at(61, "bond"));
    assert_eq!(world.until_it_moves(&["bond", "second", "third"], 10_000), None);
}

#[test]
fn one_that_comes_and_goes_is_not_gone_back_to() {
    let mut world = World::new("option server_return 30\n option server_timeout 5");
    assert_eq!(world.until_it_moves(&["second"], 100), at(5, "second"));
    for _ in 0..50 {
        assert_eq!(world.until_it_moves(&["bond", "second"], 25), None);
        assert_eq!(world.until_it_moves(&["second"], 5), None);
    }
    // A lapse of two seconds is none.
    assert_eq!(world.until_it_moves(&["bond", "second"], 15), None);
    assert_eq!(world.until_it_moves(&["second"], 2), None);
    assert_eq!(world.until_it_moves(&["bond", "second"], 30), at(14, "bond"));
}

#[test]
fn it_stays_where_it_is_if_so_asked_and_leaves_only_a_silent_one() {
    let mut world = World::new("option server_return 0");
    assert_eq!(world.until_it_moves(&["second"], 100), at(20, "second"));
    assert_eq!(world.until_it_moves(&["bond", "second"], 10_000), None);
    assert_eq!(world.until_it_moves(&["bond"], 100), at(21, "bond"));
}

#[test]
fn while_nobody_answers_it_stays() {
    let mut world = World::new("");
    assert_eq!(world.until_it_moves(&[], 10_000), None);
    // All come back at once: the one in use needs no move.
    assert_eq!(world.until_it_moves(&["bond", "second"], 1), None);
}

#[test]
fn a_link_that_cannot_send_says_nothing_of_the_server() {
    let mut servers = World::new("").servers;
    for second in 1..100 {
        servers.watch(false, false, Time::from_millis(second * 1_000));
    }
    servers.watch(false, true, Time::from_millis(100_000));
    assert_eq!(servers.silent, Some(Time::from_millis(99_000)));
}

#[test]
fn who_cannot_be_asked_from_here_gets_a_turn() {
    let mut world = World::new("");
    world.servers.standbys[1].apart = true;
    let after = |seconds: u64| Time::from_millis(seconds * 1_000);
    let to = |world: &World, at| world.servers.choose("bond", &world.config.bond, at).map(|to: Move| to.to);
    assert_eq!(to(&world, after(19)), None);
    assert_eq!(to(&world, after(20)).as_deref(), Some("third"));
    world.servers.standbys[0].steady = Some(after(18));
    assert_eq!(to(&world, after(20)).as_deref(), Some("second"), "who answers comes first");
}

#[test]
fn a_server_that_is_not_needed_is_asked_once_an_hour() {
    let config = read("");
    let mut standby = Standby::default();
    let wanted = |standby: &Standby, better, silent, second: u64| {
        standby.is_wanted(better, silent, &config.bond, Time::from_millis(second * 1_000))
    };
    assert!(wanted(&standby, false, None, 5), "it has never answered");
    standby.heard = Some(Time::from_millis(10_000));
    assert!(!wanted(&standby, false, None, 11));
    assert!(wanted(&standby, false, None, 3_610));
    assert!(wanted(&standby, true, None, 11), "the bond wants to go back to it");
    assert!(!wanted(&standby, false, Some(Time::from_millis(10_000)), 19));
    assert!(wanted(&standby, false, Some(Time::from_millis(10_000)), 20), "it may be needed soon");
}

#[test]
fn a_call_goes_over_the_next_path_when_nobody_answers() {
    let path = |socket| Path { socket, local: None, remote: "203.0.113.2:5510".parse().unwrap() };
    let (a, b) = (path(1), path(2));
    let after = |seconds: u64| Time::from_millis(seconds * 1_000);
    let mut call = Call { peer: PeerId(7), path: None, turn: 0, turned: Time::ZERO };
    assert_eq!(call.next_path(&[], false, after(0)), None);
    assert_eq!(call.next_path(&[a, b], false, after(1)), Some(Some(a)));
    assert_eq!(call.next_path(&[a, b], false, after(6)), None);
    assert_eq!(call.next_path(&[a, b], false, after(7)), Some(Some(b)));
    assert_eq!(call.next_path(&[a, b], true, after(60)), None, "it answers");
    assert_eq!(call.next_path(&[a], true, after(61)), Some(Some(a)), "its socket is gone");
    assert_eq!(call.next_path(&[], true, after(62)), Some(None));
}

#[test]
fn the_names_of_those_that_are_called_in_vain_are_sought() {
    let mut config = read("");
    for (server, host) in config.servers.iter_mut().zip(["first", "second", "third"]) {
        for (hosts, _) in server.links.values_mut() {
            *hosts = vec![Host::Name(format!("{host}.example")), Host::Address([203, 0, 113, 9].into())];
        }
    }
    let mut servers = Servers::new(&config, Time::ZERO);
    assert!(servers.sought(&config).is_empty(), "nobody is called");
    for (standby, peer) in servers.standbys.iter_mut().zip(7..) {
        standby.call = Some(Call { peer: PeerId(peer), path: None, turn: 0, turned: Time::ZERO });
    }
    servers.standbys[0].steady = Some(Time::ZERO);
    assert_eq!(servers.sought(&config).into_iter().collect::<Vec<_>>(), ["third.example"]);
}

#[test]
fn the_status_shows_them_all() {
    let mut world = World::new("");
    world.until_it_moves(&["second"], 30).expect("it moves");
    world.second(&["second"]);
    let now = Time::from_millis(world.second * 1_000 + 500);
    let shown = world.servers.status(&world.config, true, now);
    let names: Vec<_> = shown.iter().map(|server| (server.name.as_str(), server.in_use)).collect();
    assert_eq!(names, [("bond", false), ("second", true), ("third", false)]);
    assert_eq!((shown[1].since_ms, shown[1].answers, shown[1].heard_ms), (Some(1_500), Some(true), Some(0)));
    assert_eq!((shown[0].since_ms, shown[0].heard_ms), (None, None));
}
