//! When an endpoint asks for new keys.

use std::time::Duration;

use crate::Payload;
use crate::pinned_tests::World;

#[test]
fn keys_that_are_used_up_are_renewed_long_before_they_are_old() {
    for opened in [false, true] {
        let mut world = World::new(Payload::Bonded, Payload::Bonded);
        world.run(Duration::from_secs(1));
        let rekeys = |world: &World| world.ends[1].endpoint.status(world.now).peers[0].rekeys;
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
