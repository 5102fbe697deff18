//! Lines that share a card, and what is left when the daemon ends.

use std::time::{Duration, Instant};

use lab::bond::{Bond, End};
use lab::emulator::Direction;
use lab::namespace::Namespace;
use lab::scenario::Scenario;
use lab::topology::{Cards, Plan, Topology};
use lab::traffic::Tcp;
use nix::sys::signal::Signal;

use crate::{demand, network, reached, setup};

fn both_lines_carry(test: &str, cards: Cards) {
    reached(|| transfers(test, cards));
}

fn transfers(test: &str, cards: Cards) -> Result<(), String> {
    let Some(network) = network(test, Plan::new(Scenario::sym2()).cards(cards)) else { return Ok(()) };
    let _bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(5);
    for (direction, report) in [
        (Direction::Down, transfer.clone().run().expect("a download")),
        (Direction::Up, transfer.clone().upload().run().expect("an upload")),
    ] {
        for line in 0..2 {
            let carried = network.line(line).counters(direction).bytes;
            println!("{test}: {direction:?} line {line} has carried {carried} of {} bytes", report.bytes);
            let enough = carried > report.bytes * 35 / 100;
            demand(enough, || format!("{direction:?}: line {line} has carried {carried}"))?;
        }
    }
    Ok(())
}

#[test]
fn one_card_one_subnet_one_address_and_two_gateways() {
    both_lines_carry("one subnet", Cards::OneSubnet);
}

#[test]
fn one_card_with_two_subnets() {
    both_lines_carry("two subnets", Cards::TwoSubnets);
}

/// Devices, addresses, routes of all tables and rules of a namespace; without what the kernel itself derives from the
/// addresses, which it does when it finds time.
pub fn state(namespace: &Namespace) -> Vec<String> {
    let mut state = namespace.snapshot().expect("a snapshot");
    state.retain(|line| {
        let derived = line.starts_with("route Inet6") && line.contains("table 255");
        // A new device has another one each time.
        let link_local = line.starts_with("address fe80::") && line.ends_with("device bond0");
        !derived && !link_local
    });
    state
}

/// The same, once the kernel has finished with the addresses that were just set: duplicates of IPv6 are looked for.
pub fn settled(namespace: &Namespace) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let (mut last, mut since) = (state(namespace), Instant::now());
    while since.elapsed() < Duration::from_millis(1_200) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        let now = state(namespace);
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn a_stopped_daemon_leaves_nothing_behind() {
    let Some(network) = network("clean end", Plan::new(Scenario::sym2())) else { return };
    let before = [settled(&network.router), settled(&network.server)];
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let running = state(&network.router);
    assert!(running.iter().any(|line| line.contains("bond0")), "{running:#?}");
    assert!(running.len() > before[0].len() + 8, "routes, rules and addresses were set");

    let file = bond.config(End::Client).display().to_string();
    let plan = |bond: &Bond, arguments: &[&str]| {
        let arguments = [&["plan", file.as_str()], arguments].concat();
        bond.execute(End::Client, &arguments).expect("a plan")
    };
    let begin = |text: &str, word: &str| text.lines().filter(|line| line.trim().starts_with(word)).count();
    let again = plan(&bond, &[]);
    assert_eq!(begin(&again, "add") + begin(&again, "remove") + begin(&again, "create"), 0, "{again}");
    let removed = plan(&bond, &["--stop"]);
    assert!(begin(&removed, "remove") > 8 && removed.contains("remove TUN device bond0"), "{removed}");
    assert_eq!(state(&network.router), running, "a plan does nothing");

    bond.stop().expect("both daemons stop");
    assert_eq!([state(&network.router), state(&network.server)], before);
    let anew = plan(&bond, &[]);
    // The device itself and its MTU are no steps of their own.
    assert!(
        begin(&anew, "add") + 2 >= begin(&removed, "remove") && anew.contains("create TUN device bond0"),
        "{anew}"
    );
    assert!(plan(&bond, &["--stop"]).contains("nothing"));

    // Kernel mode, which no start could have here: the driver may be missing.
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let kernel_file = format!("{file}.kernel");
    let option = "config globals 'globals'\n\toption mode 'kernel'\n";
    std::fs::write(&kernel_file, text.replacen("config globals 'globals'\n", option, 1)).expect("written");
    let kernel = bond.execute(End::Client, &["plan", &kernel_file]).expect("a plan");
    assert!(kernel.contains("create bonding device bond0: balance-rr, miimon 100"), "{kernel}");
    assert_eq!(kernel.matches(", a slave of bond0").count(), 2, "{kernel}");
    assert_eq!([state(&network.router), state(&network.server)], before);
}

#[test]
fn a_killed_daemon_is_tidied_up_after_by_the_next() {
    let Some(network) = network("after kill -9", Plan::new(Scenario::sym2())) else { return };
    let before = [settled(&network.router), settled(&network.server)];
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    for end in [lab::bond::End::Client, lab::bond::End::Server] {
        bond.process(end).signal(Signal::SIGKILL).expect("the daemon runs");
        bond.process(end).wait(Duration::from_secs(30)).expect("it is our child").expect("the daemon ends");
        bond.launch(end).expect("the daemon starts again");
    }
    bond.wait_until_up(2, Duration::from_secs(30)).expect("the bond comes up again");
    bond.stop().expect("both daemons stop");
    assert_eq!([state(&network.router), state(&network.server)], before);
}
