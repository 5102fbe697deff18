//! When an endpoint asks for new keys.

use std::time::Duration;

use crate::pinned_tests::World;
use crate::{Payload, PeerConfig};

#[test]
fn keys_that_are_used_up_are_renewed_long_before_they_are_old() {
    for opened in [false, true] {
        let mut world = World::new(Payload::Bonded, Payload::Bonded);
        world.run(Duration::from_secs(1));
        assert_eq!(rekeys(&world), 0);
        let client = &mut world.ends[0];
        let peer = &mut client.endpoint.entries.get_mut(client.peer).expect("the peer").peer;
        match opened {
            false => peer.sender.sealer.wear_out(),
            true => peer.receiver.opener.wear_out(),
        }
        world.run(Duration::from_secs(60));
        assert_eq!(rekeys(&world), 1, "once, and before the 120 s are over");
    }
}

/// The server takes no more than this from now on.
fn limit(world: &mut World, download: Option<u64>) {
    let (peer, now) = (world.ends[1].peer, world.now);
    let endpoint = &mut world.ends[1].endpoint;
    let config = endpoint.entries.get(peer).expect("the peer").peer.config.clone();
    endpoint.update_peer(peer, PeerConfig { download, ..config }, now);
}

fn known(world: &World) -> Option<u64> {
    let client = &world.ends[0];
    client.endpoint.entries.get(client.peer).expect("the peer").peer.allowance()
}

fn rekeys(world: &World) -> u64 {
    world.ends[1].endpoint.status(world.now).peers[0].rekeys
}

#[test]
fn a_limit_that_the_server_changes_is_told_at_once() {
    let mut world = World::new(Payload::Bonded, Payload::Bonded);
    world.run(Duration::from_secs(5));
    for (times, download) in [(1, Some(5_000_000)), (2, Some(3_000_000)), (3, None)] {
        limit(&mut world, download);
        world.run(Duration::from_millis(200));
        assert_eq!((known(&world), rekeys(&world)), (download, times));
        world.run(Duration::from_secs(5));
        assert_eq!(rekeys(&world), times, "once is enough");
    }
}

#[test]
fn a_limit_is_told_although_packets_are_lost_and_not_more_often_than_once_a_second() {
    let mut world = World::new(Payload::Bonded, Payload::Bonded);
    limit(&mut world, Some(5_000_000));
    // All that the server sends for a second is lost.
    for _ in 0..1_000 {
        world.lose(0);
        world.run(Duration::from_millis(1));
    }
    assert_eq!(known(&world), None);
    world.run(Duration::from_secs(3));
    assert_eq!(known(&world), Some(5_000_000));
    let before = rekeys(&world);
    for times in 0..100 {
        limit(&mut world, Some(6_000_000 + times * 1_000));
        world.run(Duration::from_millis(100));
    }
    assert!((8..=12).contains(&(rekeys(&world) - before)), "{} in ten seconds", rekeys(&world) - before);
    world.run(Duration::from_secs(3));
    assert_eq!(known(&world), Some(6_099_000));
}
