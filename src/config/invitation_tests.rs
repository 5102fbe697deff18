use proptest::prelude::*;

use super::*;

fn example() -> Invitation {
    Invitation {
        name: "home".into(),
        server_key: PublicKey::new([7; 32]),
        secret: Some(Secret::new(Zeroizing::new([9; 32]))),
        expires: Some(1_900_000_000),
        servers: vec![
            Host::Address("192.0.2.1".parse().unwrap()),
            Host::Address("2001:db8::1".parse().unwrap()),
            Host::Name("vpn.example.com".into()),
        ],
        ports: vec![5510, 443],
        addresses: vec![
            IpNet { address: "10.77.0.2".parse().unwrap(), prefix: 24 },
            IpNet { address: "fd77::2".parse().unwrap(), prefix: 64 },
        ],
        remote_addresses: vec!["10.77.0.1".parse().unwrap(), "fd77::1".parse().unwrap()],
        cipher: None,
    }
}

/// The line with these bytes before its check sum.
fn line_of(content: &[u8]) -> String {
    let bytes = [content, &check_sum(content)].concat();
    format!("{SCHEME}{}", Base64UrlUnpadded::encode_string(&bytes))
}

fn content_of(line: &str) -> Vec<u8> {
    let mut bytes = Base64UrlUnpadded::decode_vec(line.strip_prefix(SCHEME).unwrap()).unwrap();
    bytes.truncate(bytes.len() - CHECK_BYTES);
    bytes
}

#[test]
fn a_line_says_what_was_put_in() {
    let line = example().to_line();
    assert_eq!(line.parse(), Ok(example()));
    assert!(line.len() < 300, "{} characters make a large picture", line.len());
    let other = Invitation { secret: None, expires: None, cipher: Some("aes-128-gcm".into()), ..example() };
    assert_eq!(other.to_line().parse(), Ok(other));
}

#[test]
fn the_format_is_the_one_of_the_manual() {
    // docs/protocol.md, "The line of an invitation".
    let small = Invitation {
        servers: vec![Host::Address("192.0.2.1".parse().unwrap())],
        ports: vec![5510],
        addresses: vec![IpNet { address: "10.77.0.2".parse().unwrap(), prefix: 24 }],
        remote_addresses: vec!["10.77.0.1".parse().unwrap()],
        ..example()
    };
    let expected = [
        &[1, 1, 32][..],
        &[7; 32],
        &[2, 32],
        &[9; 32],
        &[3, 8, 0, 0, 0, 0, 0x71, 0x3f, 0xb3, 0],
        &[4, 2, 0x15, 0x86],
        &[5, 4, 192, 0, 2, 1],
        &[7, 5, 10, 77, 0, 2, 24],
        &[8, 4, 10, 77, 0, 1],
        &[128, 4, b'h', b'o', b'm', b'e'],
    ]
    .concat();
    assert_eq!(content_of(&small.to_line()), expected);
}

#[test]
fn what_happens_to_a_line_on_its_way() {
    let line = example().to_line();
    let (first, second) = line.split_at(70);
    assert_eq!(format!("  {first}\r\n  {second}\n").parse(), Ok(example()));
    assert_eq!(line.replace("bonding://", "BONDING://").parse(), Ok(example()));
    let error = |text: &str| text.parse::<Invitation>().unwrap_err();
    assert_eq!(error(""), InvitationError::NotALine);
    assert_eq!(error("https://example.com"), InvitationError::NotALine);
    assert_eq!(error("bonding://"), InvitationError::Damaged);
    assert_eq!(error("bonding://ü"), InvitationError::Damaged);
    for missing in 1..line.len() - SCHEME.len() {
        assert_eq!(error(&line[..line.len() - missing]), InvitationError::Damaged, "{missing}");
    }
    let mistyped = line.replacen('A', "B", 1);
    assert_eq!(error(&mistyped), InvitationError::Damaged);
}

#[test]
fn newer_lines_are_told_from_wrong_ones() {
    let content = content_of(&example().to_line());
    let with = |more: &[u8]| line_of(&[&content, more].concat()).parse::<Invitation>();
    assert_eq!(with(&[200, 3, 1, 2, 3]), Ok(example()), "optional fields are passed over");
    assert_eq!(with(&[100, 0]), Err(InvitationError::Newer));
    assert_eq!(with(&[4, 2, 0, 0]), Err(InvitationError::Malformed), "port 0");
    assert_eq!(with(&[1, 32]), Err(InvitationError::Malformed));
    assert_eq!(with(&[9]), Err(InvitationError::Malformed));
    assert_eq!(with(&[9, 3, b'a', b' ', b'b']), Err(InvitationError::Malformed));
    assert_eq!(with(&[3, 8, 0, 0, 0, 0, 0, 0, 0, 1]), Err(InvitationError::Malformed), "twice");
    let mut other = content.clone();
    other[0] = 2;
    assert_eq!(line_of(&other).parse::<Invitation>(), Err(InvitationError::Newer));
    assert_eq!(line_of(&[1]).parse::<Invitation>(), Err(InvitationError::Malformed), "nothing in it");
}

#[test]
fn lines_expire() {
    let at = |seconds| example().check_expiry(UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!((at(1_900_000_000), at(1_900_000_001)), (Ok(()), Err(InvitationError::Expired)));
    assert_eq!(Invitation { expires: None, ..example() }.check_expiry(SystemTime::now()), Ok(()));
}

#[test]
fn the_secret_is_not_shown() {
    let secret = Base64UrlUnpadded::encode_string(&[9; 32]);
    let shown = format!("{} {:?}", example(), example());
    assert!(!shown.contains(&secret[..8]) && !shown.contains("9, 9"), "{shown}");
}

proptest! {
    #[test]
    fn no_content_is_too_strange(content in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(invitation) = line_of(&content).parse::<Invitation>() {
            prop_assert_eq!(invitation.to_line().parse(), Ok(invitation));
        }
        let versioned = [&[VERSION][..], &content].concat();
        let _ = line_of(&versioned).parse::<Invitation>();
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,80}") {
        prop_assert!(text.parse::<Invitation>().is_err());
        let line = [SCHEME, &text].concat();
        prop_assert!(line.parse::<Invitation>().is_err());
    }
}
