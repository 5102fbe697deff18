use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::bond::cipher::CipherPolicy;
use crate::bond::keys::PrivateKey;
use crate::bond::packet::BUFFER_SIZE;
use crate::bond::{Endpoint, EndpointConfig};
use crate::io::Driver;
use crate::io::timer::{Timer, now};
use crate::io::tun::*;
use crate::net::Address;
use crate::net::namespace::{Bench, run};

/// The first packet for which `wanted` holds.
async fn read(tun: &Tun, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut packet = vec![0; 2048];
    let look = async {
        loop {
            tun.readable().await.unwrap();
            match tun.try_read(&mut packet) {
                Ok(len) if wanted(&packet[..len]) => return packet[..len].to_vec(),
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("no such packet came")
}

/// The checksum of RFC 1071 over `bytes`.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn echo_request_v4(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1, b'b', b'o', b'n', b'd'];
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x45, 0, 0, 20 + icmp.len() as u8, 0, 0, 0, 0, 64, 1, 0, 0];
    packet.extend(from);
    packet.extend(to);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend(icmp);
    packet
}

fn echo_request_v6(from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    let mut icmp = vec![128, 0, 0, 0, 0x12, 0x34, 0, 1, b'b', b'o', b'n', b'd'];
    let mut pseudo = Vec::new();
    pseudo.extend(from);
    pseudo.extend(to);
    pseudo.extend([0, 0, 0, icmp.len() as u8, 0, 0, 0, 58]);
    pseudo.extend(&icmp);
    let sum = checksum(&pseudo);
    icmp[2..4].copy_from_slice(&sum);
    let mut packet = vec![0x60, 0, 0, 0, 0, icmp.len() as u8, 58, 64];
    packet.extend(from);
    packet.extend(to);
    packet.extend(icmp);
    packet
}

async fn open_up(bench: &Bench, options: &TunOptions) -> Tun {
    let tun = Tun::open(options).unwrap();
    bench.up(tun.name()).await;
    tun
}

#[test]
fn the_kernel_answers_an_echo() {
    run(|bench| async move {
        let tun = open_up(&bench, &TunOptions::new("bond0", 1400)).await;
        let index = bench.link("bond0").await.index;
        let address = |text: &str, prefix_len| Address {
            index,
            address: text.parse::<IpAddr>().unwrap(),
            prefix_len,
            peer: None,
        };
        bench.netlink.add_address(&address("10.9.0.1", 24), 176).await.unwrap();
        bench.netlink.add_address(&address("fd09::1", 64), 176).await.unwrap();

        tun.try_write(&echo_request_v4([10, 9, 0, 2], [10, 9, 0, 1])).unwrap();
        let reply = read(&tun, |packet| packet[0] == 0x45 && packet[9] == 1).await;
        assert_eq!(reply[12..20], [10, 9, 0, 1, 10, 9, 0, 2]);
        assert_eq!(reply[20], 0, "an echo reply");
        assert_eq!(reply[24..], [0x12, 0x34, 0, 1, b'b', b'o', b'n', b'd']);

        let ours: std::net::Ipv6Addr = "fd09::1".parse().unwrap();
        let theirs: std::net::Ipv6Addr = "fd09::2".parse().unwrap();
        let request = echo_request_v6(theirs.octets(), ours.octets());
        let is_reply = |packet: &[u8]| packet[0] >> 4 == 6 && packet[6] == 58 && packet[40] == 129;
        // The kernel makes the address known to its own receiving side a moment after it has confirmed it.
        let ask = async {
            loop {
                tun.try_write(&request).unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reply = tokio::select! {
            reply = read(&tun, is_reply) => reply,
            never = ask => never,
        };
        assert_eq!(reply[8..24], ours.octets());
        assert_eq!(reply[24..40], theirs.octets());
        assert_eq!(reply[44..], [0x12, 0x34, 0, 1, b'b', b'o', b'n', b'd']);
    });
}

#[test]
fn it_is_there_while_it_is_open() {
    let _descriptors = lab::descriptors();
    run(|bench| async move {
        let tun = Tun::open(&TunOptions::new("bond%d", 1337)).unwrap();
        assert_eq!(tun.name(), "bond0");
        assert_eq!(tun.kind(), TunKind::Tun);
        let link = bench.link("bond0").await;
        assert_eq!((link.mtu, link.up, link.point_to_point), (1337, false, true));
        match Tun::open(&TunOptions::new("bond0", 1400)) {
            Err(TunError::Busy(name)) => assert_eq!(name, "bond0"),
            other => panic!("{other:?}"),
        }
        match Tun::open(&TunOptions { kind: TunKind::Tap, ..TunOptions::new("bond0", 1400) }) {
            Err(TunError::OtherKind(_)) => {}
            other => panic!("{other:?}"),
        }
        match Tun::open(&TunOptions::new("lo", 1400)) {
            Err(TunError::OtherKind(_)) => {}
            other => panic!("{other:?}"),
        }
        drop(tun);
        assert!(bench.netlink.link_by_name("bond0").await.is_err());
    });
}

#[test]
fn a_kept_device_outlives_its_process_until_it_is_taken_over_or_removed() {
    let _descriptors = lab::descriptors();
    run(|bench| async move {
        let options = TunOptions::new("bond0", 1337);
        // What a killed process does: the descriptor is closed and nothing else happens.
        let die = |mut tun: Tun| {
            tun.keep().unwrap();
            assert!(tun.is_persistent());
            let descriptor = tun.as_fd().as_raw_fd();
            std::mem::forget(tun);
            // SAFETY: what owned it is forgotten.
            assert_eq!(unsafe { libc::close(descriptor) }, 0);
        };
        die(Tun::open(&options).unwrap());
        let index = bench.link("bond0").await.index;
        bench.netlink.set_link_alias(index, "a name").await.unwrap();
        assert_eq!(bench.netlink.link_alias(index).await.unwrap(), "a name");

        let mut next = Tun::open(&options).unwrap();
        assert_eq!(bench.link("bond0").await.index, index, "the same device");
        assert!(next.is_persistent());
        remove_kept("bond0");
        assert_eq!(bench.link("bond0").await.index, index, "it is in use");
        next.keep().unwrap();
        drop(next);
        assert!(bench.netlink.link_by_name("bond0").await.is_err(), "an end in order removes it");

        die(Tun::open(&options).unwrap());
        remove_kept("bond0");
        assert!(bench.netlink.link_by_name("bond0").await.is_err());
        remove_kept("bond0");
        assert!(bench.netlink.link_by_name("bond0").await.is_err());
        assert!(!Tun::open(&options).unwrap().is_persistent());
    });
}

#[test]
fn carrier_and_state() {
    run(|bench| async move {
        let tun = open_up(&bench, &TunOptions::new("bond0", 1400)).await;
        assert!(bench.link("bond0").await.carrier);
        tun.set_carrier(false).unwrap();
        assert!(!bench.link("bond0").await.carrier);
        tun.set_carrier(true).unwrap();
        assert!(bench.link("bond0").await.carrier);

        let packet = echo_request_v4([10, 9, 0, 2], [10, 9, 0, 1]);
        tun.try_write(&packet).unwrap();
        let error = tun.try_write(&[0xff; 40]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "neither IPv4 nor IPv6");
        let index = bench.link("bond0").await.index;
        bench.netlink.set_link_up(index, false).await.unwrap();
        assert_eq!(tun.try_write(&packet).unwrap_err().raw_os_error(), Some(libc::EIO));
        bench.netlink.set_link_up(index, true).await.unwrap();
        tun.try_write(&packet).unwrap();
    });
}

#[test]
fn deleted_by_somebody_else() {
    let _descriptors = lab::descriptors();
    run(|bench| async move {
        // Without IPv6 the kernel sends nothing of its own, so that nothing but the deletion wakes the reader.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let tun = open_up(&bench, &TunOptions::new("bond0", 1400)).await;
        bench.delete("bond0").await;
        let mut packet = [0; 2048];
        let look = async {
            loop {
                tun.readable().await.unwrap();
                match tun.try_read(&mut packet) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return error,
                }
            }
        };
        let error = tokio::time::timeout(Duration::from_secs(20), look).await.expect("nobody noticed");
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
        let error = tun.try_write(&echo_request_v4([10, 9, 0, 2], [10, 9, 0, 1])).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
        drop(tun);
        Tun::open(&TunOptions::new("bond0", 1400)).unwrap();
    });
}

#[test]
fn packets_with_an_offload_header() {
    run(|bench| async move {
        let options = TunOptions { vnet_hdr: true, ..TunOptions::new("bond0", 1400) };
        let tun = open_up(&bench, &options).await;
        assert!(tun.vnet_hdr());
        let index = bench.link("bond0").await.index;
        let address = Address { index, address: [10, 9, 0, 1].into(), prefix_len: 24, peer: None };
        bench.netlink.add_address(&address, 176).await.unwrap();
        let request = echo_request_v4([10, 9, 0, 2], [10, 9, 0, 1]);
        tun.try_write(&[&[0; VNET_HDR_LEN], &request[..]].concat()).unwrap();
        let is_reply = |packet: &[u8]| packet[VNET_HDR_LEN] == 0x45 && packet[VNET_HDR_LEN + 9] == 1;
        let reply = read(&tun, is_reply).await;
        assert_eq!(reply[VNET_HDR_LEN + 20], 0, "an echo reply");
    });
}

/// A driver whose endpoint knows nobody: it counts every inner packet as one for nobody.
fn driver() -> Driver {
    let config = EndpointConfig {
        private_key: PrivateKey::from_bytes([1; 32]),
        cipher: CipherPolicy::Auto,
        aes_hardware: false,
        rekey_interval: Duration::from_secs(120),
        keepalive: Duration::from_secs(1),
    };
    let endpoint = Endpoint::new(config, Box::new(|bytes: &mut [u8]| bytes.fill(7)), 1, now());
    Driver::new(endpoint, Timer::new().unwrap())
}

#[test]
fn a_packet_that_no_buffer_holds_is_dropped_and_counted() {
    for vnet_hdr in [false, true] {
        run(move |bench| async move {
            std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
            // Somebody has set another MTU than the configuration allows.
            let tun = open_up(&bench, &TunOptions { vnet_hdr, ..TunOptions::new("bond0", 9000) }).await;
            let index = bench.link("bond0").await.index;
            let address = Address { index, address: [10, 9, 0, 1].into(), prefix_len: 24, peer: None };
            bench.netlink.add_address(&address, 176).await.unwrap();
            let mut driver = driver();
            driver.set_tun(tun);
            let socket = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
            for length in [2_000, BUFFER_SIZE + 1 - 28, 8_000] {
                socket.send_to(&vec![0; length], "10.9.0.2:9").unwrap();
            }
            let taken = |driver: &Driver| {
                driver.endpoint().status(now()).drops.get("inner packet for nobody").copied()
            };
            let all = async {
                while (taken(&driver), driver.counters().tun_malformed) != (Some(1), 2) {
                    driver.turn().await.unwrap();
                }
            };
            if tokio::time::timeout(Duration::from_secs(20), all).await.is_err() {
                panic!("{vnet_hdr}: {:?}, {:?}", taken(&driver), driver.counters());
            }
        });
    }
}
