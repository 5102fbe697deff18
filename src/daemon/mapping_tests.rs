use super::*;
use crate::config::load;

const KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
const SECRET: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";

fn read(text: &str) -> Config {
    let report = load(text, "test");
    report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
}

fn client(interface: &str, links: &str) -> Config {
    read(&format!(
        "config interface 'bond'\n option ipaddr '10.0.0.2/24'\n option public_key '{KEY}'\n option server 192.0.2.1\n \
         {interface}\n{links}"
    ))
}

#[test]
fn a_client_has_one_peer_that_it_calls() {
    let config = client(
        &format!("option policy flow\n option preshared_key '{SECRET}'"),
        "config link 'a'\n option device eth0\n",
    );
    let server = server(&config).unwrap();
    assert_eq!(server.public_key.to_string(), KEY);
    assert_eq!(server.preshared_key.unwrap().to_text().as_str(), SECRET);
    assert!(server.initiator);
    assert_eq!(server.policy, Some(Policy::Flow));
    assert_eq!(server.allowed, [IpPrefix::ALL_V4, IpPrefix::ALL_V6]);
}

#[test]
fn a_router_may_use_its_addresses_and_lans_and_chooses_the_policy_unless_the_server_does() {
    let config = read(&format!(
        "config globals\n option role server\nconfig interface 'bond'\n option ipaddr '10.0.0.1/24'\n\
         config peer 'home'\n option public_key '{KEY}'\n list ipaddr 10.0.0.2\n list ipaddr fd00::2\n \
         list lan 192.168.1.0/24\n option download 10mbit\n option upload 2mbit\n"
    ));
    let peer = config.peers.first().unwrap();
    let home = router(peer, &config).unwrap();
    let ranges: Vec<_> = home.allowed.iter().map(|range| format!("{}/{}", range.addr, range.len)).collect();
    assert_eq!(ranges, ["10.0.0.2/32", "fd00::2/128", "192.168.1.0/24"]);
    assert_eq!((home.initiator, home.policy), (false, None));
    assert_eq!(home.upload, Some(10_000_000), "what the peer downloads is what we send");
    let strict = config::Peer { policy: config::Policy::Redundant, ..peer.clone() };
    assert_eq!(router(&strict, &config).and_then(|strict| strict.policy), Some(Policy::Redundant));
}

#[test]
fn links() {
    let config = client(
        "",
        "config link 'adsl'\n option device eth0\n option upload 1500\n option download 12mbit\n option priority 2\n \
         option mtu 1492\nconfig link 'lte'\n option device wwan0\n option weight 7\n option keepalive 300ms\n",
    );
    let [adsl, lte] = config.links.as_slice() else { panic!("{:?}", config.links) };
    let mapped = link(adsl, 3, None, true, false);
    assert_eq!((mapped.id, mapped.name.as_str(), mapped.path, mapped.enabled), (3, "adsl", None, true));
    assert_eq!((mapped.upload, mapped.download), (Some(1_500_000), Some(12_000_000)));
    assert_eq!((mapped.priority, mapped.mtu), (2, Some(1_492)));
    assert_eq!(mapped.weight, 15, "without a weight the rate counts");
    assert_eq!(link(lte, 0, None, false, false).weight, 7);
    assert_eq!(link(lte, 0, None, true, false).keepalive, Some(Duration::from_millis(300)));
    assert!(link(lte, 0, None, true, true).last_resort);
}

#[test]
fn ciphers() {
    assert_eq!(cipher(config::Cipher::Auto), CipherPolicy::Auto);
    for (configured, wanted) in [
        (config::Cipher::Aes128Gcm, Cipher::Aes128Gcm),
        (config::Cipher::Aes256Gcm, Cipher::Aes256Gcm),
        (config::Cipher::ChaCha20Poly1305, Cipher::ChaCha20Poly1305),
        (config::Cipher::None, Cipher::None),
    ] {
        for other in Cipher::ALL {
            assert_eq!(cipher(configured).allows(other), other == wanted, "{configured:?} {other}");
        }
    }
    assert!(!cipher(config::Cipher::Auto).allows(Cipher::None));
}
