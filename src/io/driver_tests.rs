use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bonding_core::EndpointConfig;
use bonding_core::cipher::CipherPolicy;
use bonding_core::keys::PrivateKey;

use super::*;
use crate::SocketOptions;

const LIMIT: Duration = Duration::from_secs(20);
/// Datagrams of this length that are all zeroes are of no type that the core knows, and counted.
const LENGTH: usize = 32;
const SEGMENTS: usize = 50;

fn driver() -> Driver {
    let config = EndpointConfig {
        private_key: PrivateKey::from_bytes([1; 32]),
        cipher: CipherPolicy::Auto,
        aes_hardware: false,
        rekey_interval: Duration::from_secs(120),
        keepalive: Duration::from_secs(1),
    };
    let endpoint = Endpoint::new(config, Box::new(|bytes: &mut [u8]| bytes.fill(7)), 1, timer::now());
    Driver::new(endpoint, Timer::new().unwrap())
}

fn open() -> Socket {
    Socket::open(SocketOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).unwrap()
}

/// Datagrams that the core has been given.
fn taken(driver: &Driver) -> u64 {
    driver.endpoint().status(timer::now()).drops.values().sum()
}

async fn turn(driver: &mut Driver) {
    tokio::time::timeout(LIMIT, driver.turn()).await.expect("there is something to do").unwrap();
}

#[test]
fn a_turn_takes_a_limited_number_of_packets_and_some_of_each_socket() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut driver = driver();
        let (busy, quiet, sender) = (open(), open(), open());
        let addresses = [busy.local_addr(), quiet.local_addr()];
        let quiet = {
            driver.add_socket(busy);
            driver.add_socket(quiet)
        };
        // Served once, so that the runtime knows the descriptors.
        turn(&mut driver).await;

        let train = [0; SEGMENTS * LENGTH];
        let trains = 4 * TURN_PACKETS / SEGMENTS;
        for _ in 0..trains {
            let datagrams = Transmit { segment_size: Some(LENGTH), ..Transmit::new(addresses[0], &train) };
            assert_eq!(sender.try_send(&datagrams).unwrap(), SEGMENTS);
        }
        sender.try_send(&Transmit::new(addresses[1], &[0; LENGTH])).unwrap();

        let arrived = driver.socket(quiet).unwrap().readable();
        tokio::time::timeout(LIMIT, arrived).await.expect("the last one has come").unwrap();
        while taken(&driver) == 0 {
            turn(&mut driver).await;
        }
        let first = taken(&driver) as usize;
        let call = RECV_BUFFERS * SEGMENTS;
        assert!(first <= TURN_PACKETS + call + 1, "{first} in a turn");
        let left = driver.socket(quiet).unwrap().try_recv(&mut RecvBatch::new(1));
        assert_eq!(left.unwrap_err().kind(), io::ErrorKind::WouldBlock, "the quiet socket had its turn");

        let all = trains * SEGMENTS + 1;
        while (taken(&driver) as usize) < all {
            turn(&mut driver).await;
        }
        assert_eq!(taken(&driver) as usize, all, "nothing is lost");
    });
}
