use std::net::IpAddr;
use std::time::Duration;

use crate::io::ping::{TOKEN_BYTES, echo};
use crate::net::namespace::run;

#[test]
fn echoes_are_answered_or_time_out() {
    run(|_| async {
        for to in ["127.0.0.1", "::1"] {
            let to: IpAddr = to.parse().unwrap();
            // IPv6 may be switched off.
            if to.is_ipv6() && std::net::UdpSocket::bind("[::1]:0").is_err() {
                continue;
            }
            echo("lo", to, [7; TOKEN_BYTES], Duration::from_secs(20)).await.unwrap();
        }
        assert!(
            echo("nothing0", "127.0.0.1".parse().unwrap(), [7; TOKEN_BYTES], Duration::from_secs(1))
                .await
                .is_err()
        );
    });
}
