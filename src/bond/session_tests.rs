use super::*;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const NOW: Time = Time::from_millis(1_000);

fn link(number: u8) -> LinkId {
    LinkId::new(number).unwrap()
}

fn lineage(number: u64) -> LineageId {
    LineageId::new(number).unwrap()
}

/// The two ends' keys of one direction: the sender calls the epoch `sender`, the receiver `receiver`.
fn keys(cipher: Cipher, secret: u8, sender: u32, receiver: u32, line: u64) -> (SealingKey, OpeningKey) {
    let id = |local_index, remote_index| EpochId { local_index, remote_index, lineage: lineage(line) };
    (
        SealingKey::new(cipher, &[secret; 32], id(sender, receiver)),
        OpeningKey::new(cipher, &[secret; 32], id(receiver, sender)),
    )
}

/// A client's sealer and a server's opener that have completed a handshake.
fn pair(cipher: Cipher) -> (Sealer, Opener) {
    let (sealing, opening) = keys(cipher, 7, 0x11, 0x22, 1);
    let (mut sealer, mut opener) = (Sealer::new(Lifetimes::default()), Opener::new(Lifetimes::default()));
    sealer.install(sealing, NOW);
    opener.install(opening, NOW);
    (sealer, opener)
}

fn packet(text: &[u8]) -> Vec<u8> {
    [&[0; HEADER_LEN], text, &[0; TAG_LEN]].concat()
}

fn sealed(sealer: &mut Sealer, seal: Seal, link: LinkId, text: &[u8]) -> Vec<u8> {
    let mut packet = packet(text);
    sealer.seal(seal, link, &mut packet, NOW).unwrap();
    packet
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn every_cipher_round_trips_in_place() {
    for cipher in Cipher::ALL {
        let (mut sealer, mut opener) = pair(cipher);
        for (number, len) in [0, 1, 8, 15, 16, 17, 1_400, 9_000, 65_000].into_iter().enumerate() {
            let text: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let mut packet = sealed(&mut sealer, Seal::Sealed, link(4), &text);
            assert_eq!(packet.len(), HEADER_LEN + len + TAG_LEN);
            if (15..=1_400).contains(&len) {
                assert!(!packet.windows(8).any(|w| text.windows(8).any(|t| t == w)), "plain text is visible");
            }
            let opened = opener.open(&mut packet, NOW).unwrap();
            assert_eq!(opened.text, text);
            assert_eq!((opened.link, opened.packet_number), (link(4), number as u64));
            assert_eq!((opened.seal, opened.epoch, opened.confirmed), (Seal::Sealed, 0x22, None));
        }
    }
}

#[test]
fn wire_bytes_stay_what_they_are() {
    // Computed by another implementation of docs/protocol.md. Whoever changes these changes the protocol.
    for (cipher, want) in [
        (Cipher::Aes256Gcm, "830000010000002231074aee6c25157f66348205eb85e3be89e97e40901979"),
        (Cipher::Aes128Gcm, "8300000100000022d075de533f5f01bad73add8479a835db2842c312e01fa7"),
        (Cipher::ChaCha20Poly1305, "8300000100000022e7e2c9a46d79812e2527c601708ac82e3d272fa62bb3ab"),
        (Cipher::None, "8300000100000022d47e05868658c59c393715cb6972471a8963acd5632143"),
    ] {
        let (mut sealer, _) = pair(cipher);
        let _first = sealed(&mut sealer, Seal::Sealed, link(3), b"");
        assert_eq!(hex(&sealed(&mut sealer, Seal::Sealed, link(3), b"bonding")), want, "{cipher}");
    }
    let (mut sealer, _) = pair(Cipher::None);
    assert_eq!(
        hex(&sealed(&mut sealer, Seal::Clear, link(3), b"shimshimpayload")),
        "a3000000000000227368696d7368696d7061796c6f6164be7587e080a6f859714525c5c62533b1"
    );
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    for cipher in Cipher::ALL {
        let (mut sealer, mut opener) = pair(cipher);
        let good = sealed(&mut sealer, Seal::Sealed, link(1), b"twelve bytes");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = opener.open(&mut bad, NOW).unwrap_err();
            assert!(
                matches!(
                    error,
                    OpenError::Forged
                        | OpenError::UnknownSession
                        | OpenError::Malformed
                        | OpenError::ClearRefused
                ),
                "bit {bit}: {error}"
            );
        }
        for len in 0..good.len() {
            assert!(opener.open(&mut good[..len].to_vec(), NOW).is_err(), "{len} bytes");
        }
        let longer = [&good[..], &[0]].concat();
        assert_eq!(opener.open(&mut longer.clone(), NOW), Err(OpenError::Forged));
        assert_eq!(opener.next_packet_number(link(1)), 0, "nothing of this moved the window");
        assert!(opener.open(&mut good.clone(), NOW).is_ok());
    }
}

#[test]
fn in_the_clear_header_and_shim_are_authenticated_and_the_payload_is_not() {
    let (mut sealer, mut opener) = pair(Cipher::None);
    let good = sealed(&mut sealer, Seal::Clear, link(9), b"shimshimpayload");
    assert_eq!(&good[HEADER_LEN..good.len() - TAG_LEN], b"shimshimpayload");
    for at in (0..HEADER_LEN + SHIM_LEN).chain(good.len() - TAG_LEN..good.len()) {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(opener.open(&mut bad, NOW).is_err(), "byte {at}, bit {bit}");
        }
    }
    for len in 0..HEADER_LEN + SHIM_LEN + TAG_LEN {
        assert_eq!(
            opener.open(&mut good[..len].to_vec(), NOW),
            Err(OpenError::Malformed),
            "{len} bytes have no room for header, shim and tag"
        );
    }
    let mut changed = good.clone();
    changed[HEADER_LEN + SHIM_LEN] ^= 1;
    let opened = opener.open(&mut changed, NOW).unwrap();
    assert_eq!((opened.seal, &*opened.text), (Seal::Clear, &b"shimshimqayload"[..]));
}

#[test]
fn packets_in_the_clear_need_cipher_none_at_both_ends() {
    let (mut clear_sealer, _) = pair(Cipher::None);
    let mut packet_in_the_clear = sealed(&mut clear_sealer, Seal::Clear, link(0), b"shimshim");
    for cipher in [Cipher::Aes256Gcm, Cipher::Aes128Gcm, Cipher::ChaCha20Poly1305] {
        let (mut sealer, mut opener) = pair(cipher);
        assert_eq!(
            sealer.seal(Seal::Clear, link(0), &mut packet(b"shimshim"), NOW),
            Err(SealError::ClearRefused)
        );
        assert_eq!(opener.open(&mut packet_in_the_clear, NOW), Err(OpenError::ClearRefused));
    }
}

#[test]
fn a_session_of_cipher_none_has_a_key_of_its_own() {
    let (mut sealer, _) = pair(Cipher::None);
    let (_, mut opener) = pair(Cipher::ChaCha20Poly1305);
    let mut packet = sealed(&mut sealer, Seal::Sealed, link(0), b"control");
    assert_eq!(opener.open(&mut packet, NOW), Err(OpenError::Forged));
}

#[test]
fn replays_are_refused_and_reordered_packets_are_not() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    let packets: Vec<_> = (0..5_000).map(|_| sealed(&mut sealer, Seal::Sealed, link(2), b"text")).collect();
    for packet in packets.iter().rev().take(4_096) {
        opener.open(&mut packet.clone(), NOW).unwrap();
    }
    for packet in packets.iter().skip(904) {
        let mut replay = packet.clone();
        assert_eq!(opener.open(&mut replay, NOW), Err(OpenError::Replay(ReplayError::Seen)));
        assert_eq!(&replay, packet, "a replay is not even decrypted");
    }
    let (mut other, _) = pair(Cipher::ChaCha20Poly1305);
    opener.open(&mut sealed(&mut other, Seal::Sealed, link(3), b""), NOW).unwrap();
}

#[test]
fn short_buffers_are_refused_and_use_up_no_number() {
    let (mut sealer, _) = pair(Cipher::None);
    for len in 0..HEADER_LEN + TAG_LEN {
        assert_eq!(
            sealer.seal(Seal::Sealed, link(0), &mut vec![0; len], NOW),
            Err(SealError::TooShort),
            "{len}"
        );
    }
    for len in 0..HEADER_LEN + SHIM_LEN + TAG_LEN {
        assert_eq!(
            sealer.seal(Seal::Clear, link(0), &mut vec![0; len], NOW),
            Err(SealError::TooShort),
            "{len}"
        );
    }
    assert_eq!(sealer.next_packet_number(link(0)), 0);
}

#[test]
fn a_rekey_loses_nothing_and_numbers_go_on() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    let mut old = sealed(&mut sealer, Seal::Sealed, link(0), b"a");
    let mut late = sealed(&mut sealer, Seal::Sealed, link(0), b"b");
    opener.open(&mut old, NOW).unwrap();

    let (sealing, opening) = keys(Cipher::ChaCha20Poly1305, 8, 0x33, 0x44, 1);
    opener.stage(opening, NOW);
    let mut before = sealed(&mut sealer, Seal::Sealed, link(0), b"c");
    assert_eq!(
        opener.open(&mut before, NOW).unwrap().epoch,
        0x22,
        "the old key works until the new one is used"
    );
    sealer.install(sealing, NOW);
    let mut first = sealed(&mut sealer, Seal::Sealed, link(0), b"d");
    let opened = opener.open(&mut first, NOW).unwrap();
    assert_eq!((opened.packet_number, opened.epoch), (3, 0x44));
    assert_eq!(opened.confirmed, Some(Lineage::Continued(lineage(1))));

    let mut again = late.clone();
    let opened = opener.open(&mut late, NOW).unwrap();
    assert_eq!((opened.packet_number, opened.confirmed), (1, None));
    assert_eq!(opener.open(&mut again, NOW), Err(OpenError::Replay(ReplayError::Seen)));
    let mut second = sealed(&mut sealer, Seal::Sealed, link(0), b"e");
    assert_eq!(opener.open(&mut second, NOW).unwrap().confirmed, None);
}

#[test]
fn a_packet_of_the_former_epoch_is_no_longer_accepted_after_a_while() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    let late: Vec<_> = (0..2).map(|_| sealed(&mut sealer, Seal::Sealed, link(0), b"")).collect();
    opener.install(keys(Cipher::ChaCha20Poly1305, 8, 0x33, 0x44, 1).1, NOW);
    let keep = Lifetimes::default().keep_previous;
    let just = NOW + keep - Duration::from_nanos(1);
    opener.open(&mut late[0].clone(), just).unwrap();
    assert_eq!(opener.next_expiry(), Some(NOW + keep));
    assert_eq!(opener.open(&mut late[1].clone(), NOW + keep), Err(OpenError::UnknownSession));
    opener.expire(NOW + keep);
    assert_eq!(opener.indexes().collect::<Vec<_>>(), [0x44]);
}

#[test]
fn a_new_lineage_begins_at_zero_and_forgets_the_old_one() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    let mut later = sealed(&mut sealer, Seal::Sealed, link(1), b"");
    let (sealing, opening) = keys(Cipher::ChaCha20Poly1305, 9, 0x55, 0x66, 1);
    sealer.install(sealing, NOW);
    opener.install(opening, NOW);
    for _ in 0..300 {
        opener.open(&mut sealed(&mut sealer, Seal::Sealed, link(0), b""), NOW).unwrap();
    }
    let mut late = sealed(&mut sealer, Seal::Sealed, link(0), b"");
    let (sealing, opening) = keys(Cipher::ChaCha20Poly1305, 8, 0x33, 0x44, 2);
    opener.stage(opening, NOW);
    let mut restarted = Sealer::new(Lifetimes::default());
    restarted.install(sealing, NOW);
    // Forged packets under the new epoch's index leave the running session alone.
    let mut forged = sealed(&mut restarted, Seal::Sealed, link(0), b"");
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(opener.open(&mut forged, NOW), Err(OpenError::Forged));
    assert_eq!(opener.next_packet_number(link(0)), 300);

    let opened_number = {
        let mut packet = sealed(&mut restarted, Seal::Sealed, link(0), b"");
        let opened = opener.open(&mut packet, NOW).unwrap();
        assert_eq!(opened.confirmed, Some(Lineage::New(lineage(2))));
        opened.packet_number
    };
    assert_eq!(opened_number, 1);
    assert_eq!(opener.open(&mut late, NOW), Err(OpenError::UnknownSession));
    assert_eq!(opener.open(&mut later, NOW), Err(OpenError::UnknownSession));
    assert_eq!(opener.indexes().collect::<Vec<_>>(), [0x44]);
    assert_eq!(opener.next_packet_number(link(0)), 2);
}

#[test]
fn the_server_sends_under_the_old_key_until_the_new_one_is_confirmed() {
    let (mut sealer, _) = pair(Cipher::ChaCha20Poly1305);
    sealed(&mut sealer, Seal::Sealed, link(0), b"");
    sealer.stage(keys(Cipher::ChaCha20Poly1305, 8, 0x33, 0x44, 1).0, NOW);
    let index = |packet: &[u8]| TransportHeader::read(packet).unwrap().index;
    assert_eq!(index(&sealed(&mut sealer, Seal::Sealed, link(0), b"")), 0x22);
    assert!(!sealer.confirm(0x99));
    assert!(sealer.confirm(0x33));
    assert!(!sealer.confirm(0x33));
    assert_eq!(index(&sealed(&mut sealer, Seal::Sealed, link(0), b"")), 0x44);
    assert_eq!(sealer.next_packet_number(link(0)), 3);
}

#[test]
fn staged_epochs_are_bounded_and_any_of_them_can_win() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    let mut clients = Vec::new();
    for i in 0..6 {
        let (sealing, opening) =
            keys(Cipher::ChaCha20Poly1305, 10 + i, u32::from(i), 0x100 + u32::from(i), 1);
        let evicted = opener.stage(opening, NOW);
        assert_eq!(evicted, (i >= 4).then(|| 0x100 + u32::from(i) - 4));
        let mut client = Sealer::new(Lifetimes::default());
        client.install(sealing, NOW);
        clients.push(client);
    }
    assert_eq!(opener.indexes().count(), 5);
    let mut evicted = sealed(&mut clients[1], Seal::Sealed, link(0), b"");
    assert_eq!(opener.open(&mut evicted, NOW), Err(OpenError::UnknownSession));
    opener.open(&mut sealed(&mut sealer, Seal::Sealed, link(1), b""), NOW).unwrap();
    let mut winner = sealed(&mut clients[2], Seal::Sealed, link(0), b"");
    assert!(opener.open(&mut winner, NOW).unwrap().confirmed.is_some());
    assert_eq!(opener.indexes().collect::<Vec<_>>(), [0x102, 0x22]);
    opener.open(&mut sealed(&mut sealer, Seal::Sealed, link(1), b""), NOW).unwrap();
}

#[test]
fn keys_grow_old() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    assert!(Sealer::new(Lifetimes::default()).wants_rekey(NOW), "without a key a handshake is due");
    assert!(!sealer.wants_rekey(NOW));
    assert_eq!(sealer.rekey_time(), Some(NOW + Duration::from_secs(120)));
    assert!(sealer.wants_rekey(NOW + Duration::from_secs(120)));
    let late = NOW + Duration::from_secs(180);
    let mut last = packet(b"");
    sealer.seal(Seal::Sealed, link(0), &mut last, late - Duration::from_nanos(1)).unwrap();
    assert!(!sealer.is_usable(late));
    assert_eq!(sealer.seal(Seal::Sealed, link(0), &mut packet(b""), late), Err(SealError::Expired));
    opener.open(&mut last, late + Duration::from_secs(14)).unwrap();
    assert_eq!(opener.next_expiry(), Some(late + Duration::from_secs(15)));
    sealer.expire(late);
    opener.expire(late + Duration::from_secs(15));
    assert_eq!(sealer.seal(Seal::Sealed, link(0), &mut packet(b""), late), Err(SealError::NoSession));
    assert_eq!(opener.indexes().count(), 0);
    assert_eq!(sealer.lineage(), Some(lineage(1)), "a late rekey can still continue");
    sealer.install(keys(Cipher::ChaCha20Poly1305, 9, 1, 2, 1).0, late);
    assert_eq!(sealer.seal(Seal::Sealed, link(0), &mut packet(b""), late), Ok(1));
}

#[test]
fn keys_wear_out() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    sealer.current.as_mut().unwrap().packets = REKEY_AFTER_PACKETS - 1;
    opener.current.as_mut().unwrap().packets = REKEY_AFTER_PACKETS - 1;
    assert!(!sealer.wants_rekey(NOW) && !opener.wants_rekey());
    opener.open(&mut sealed(&mut sealer, Seal::Sealed, link(0), b""), NOW).unwrap();
    assert!(sealer.wants_rekey(NOW) && opener.wants_rekey());
    sealer.current.as_mut().unwrap().packets = REJECT_AFTER_PACKETS;
    assert_eq!(sealer.seal(Seal::Sealed, link(0), &mut packet(b""), NOW), Err(SealError::Expired));
    sealer.install(keys(Cipher::ChaCha20Poly1305, 9, 1, 2, 1).0, NOW);
    sealer.next[5] = MAX_PACKET_NUMBER;
    assert_eq!(sealer.seal(Seal::Sealed, link(5), &mut packet(b""), NOW), Err(SealError::Expired));
    sealer.seal(Seal::Sealed, link(0), &mut packet(b""), NOW).unwrap();
}

#[test]
fn numbers_beyond_24_bits_survive_a_gap() {
    let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
    for start in [0, 0xff_fff0, 0x17f_0000, 0x1f0_0000, 0x26f_0000] {
        sealer.next[0] = start;
        let mut packet = sealed(&mut sealer, Seal::Sealed, link(0), b"");
        assert_eq!(opener.open(&mut packet, NOW).map(|o| o.packet_number), Ok(start), "{start:#x}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Send { link: u8, short: bool },
    Rekey { continues: bool },
    Stage { continues: bool },
    Confirm(usize),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0_u8..4, prop::bool::weighted(0.1)).prop_map(|(link, short)| Step::Send { link, short }),
        2 => any::<bool>().prop_map(|continues| Step::Rekey { continues }),
        2 => any::<bool>().prop_map(|continues| Step::Stage { continues }),
        2 => (0_usize..6).prop_map(Step::Confirm),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn no_nonce_is_used_twice_under_a_key(steps in prop::collection::vec(step(), 1..300)) {
        let mut sealer = Sealer::new(Lifetimes::default());
        let (mut secret, mut line, mut now) = (0_u8, 0_u64, NOW);
        let mut used = HashSet::new();
        let mut staged = Vec::new();
        let mut new_key = |sealer: &Sealer, continues: bool| {
            secret += 1;
            let line = match sealer.lineage() {
                Some(id) if continues => id.get(),
                _ => { line += 1; line }
            };
            // The receiver's index tells the keys apart on the wire.
            keys(Cipher::ChaCha20Poly1305, secret, u32::from(secret), u32::from(secret), line).0
        };
        for step in steps.into_iter().take(250) {
            match step {
                Step::Send { link: number, short } => {
                    let mut buffer = if short { vec![0; 10] } else { packet(b"x") };
                    if let Ok(number_sent) = sealer.seal(Seal::Sealed, link(number), &mut buffer, now) {
                        let header = TransportHeader::read(&buffer).unwrap();
                        prop_assert!(used.insert((header.index, number, number_sent)));
                    }
                }
                Step::Rekey { continues } => {
                    let key = new_key(&sealer, continues);
                    sealer.install(key, now);
                    staged.clear();
                }
                Step::Stage { continues } => {
                    let key = new_key(&sealer, continues);
                    staged.push(key.id.local_index);
                    sealer.stage(key, now);
                }
                Step::Confirm(at) => {
                    if let Some(&epoch) = staged.get(at) {
                        sealer.confirm(epoch);
                    }
                }
                Step::Expire => {
                    now += Duration::from_secs(40);
                    sealer.expire(now);
                }
            }
        }
    }

    #[test]
    fn reordering_across_rekeys_accepts_each_packet_once(
        order in prop::collection::vec((0_u8..3, 0_usize..40), 1..200),
        rekey_every in 5_usize..50,
    ) {
        let (mut sealer, mut opener) = pair(Cipher::ChaCha20Poly1305);
        let mut in_flight: Vec<(u64, LinkId, Vec<u8>)> = Vec::new();
        let mut delivered = HashMap::new();
        let mut secret = 100;
        for (i, (number, delay)) in order.iter().enumerate() {
            // Packets of up to three former epochs are under way.
            if i % rekey_every == 0 && opener.staged.is_empty() && opener.previous.len() < MAX_PREVIOUS {
                secret += 1;
                let (sealing, opening) =
                    keys(Cipher::ChaCha20Poly1305, secret, secret.into(), secret.into(), 1);
                opener.stage(opening, NOW);
                sealer.install(sealing, NOW);
            }
            let packet = sealed(&mut sealer, Seal::Sealed, link(*number), &[*number]);
            let at = in_flight.len().saturating_sub(*delay);
            let sent = sealer.next_packet_number(link(*number)) - 1;
            in_flight.insert(at, (sent, link(*number), packet));
            if in_flight.len() > 30 {
                let (sent, on, packet) = in_flight.remove(0);
                let mut once = packet.clone();
                let opened = opener.open(&mut once, NOW).unwrap();
                prop_assert_eq!((opened.packet_number, opened.link), (sent, on));
                prop_assert_eq!(delivered.insert((on, sent), ()), None);
                prop_assert!(opener.open(&mut packet.clone(), NOW).is_err());
            }
        }
    }

    #[test]
    fn random_bytes_are_never_accepted(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (_, mut opener) = pair(Cipher::None);
        prop_assert!(opener.open(&mut bytes, NOW).is_err());
        for first in [0x80, 0xa0, 0x9f, 0xbf] {
            if bytes.len() >= HEADER_LEN {
                bytes[0] = first;
                bytes[4..8].copy_from_slice(&0x22_u32.to_be_bytes());
                prop_assert!(opener.open(&mut bytes, NOW).is_err());
            }
        }
    }
}
