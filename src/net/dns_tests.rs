use proptest::prelude::*;

use super::*;

const ID: u16 = 0x1234;

fn question(name: &str, family: Family) -> Question {
    Question::new(name, family, ID).unwrap()
}

/// A response in the making.
struct Response(Vec<u8>);

impl Response {
    fn to(question: &Question) -> Response {
        let mut message = question.message();
        message[2] |= 0x80;
        Response(message)
    }

    fn flags(mut self, flags: u16) -> Response {
        let [high, low] = flags.to_be_bytes();
        self.0[2] |= high;
        self.0[3] |= low;
        self
    }

    /// Where the next record begins.
    fn end(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap()
    }

    fn record(mut self, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Response {
        self.0.extend(owner);
        self.0.extend(kind.to_be_bytes());
        self.0.extend(INTERNET.to_be_bytes());
        self.0.extend(ttl.to_be_bytes());
        self.0.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        self.0.extend(data);
        self.0[7] += 1;
        self
    }

    fn address(self, owner: &[u8], ttl: u32, last: u8) -> Response {
        self.record(owner, A, ttl, &[192, 0, 2, last])
    }
}

/// A pointer to the question's name.
const ASKED: [u8; 2] = [0xc0, 12];

fn pointer(to: u16) -> [u8; 2] {
    (0xc000 | to).to_be_bytes()
}

fn name(text: &str) -> Vec<u8> {
    Name::parse(text).unwrap().0
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

#[test]
fn a_question_is_as_the_standard_has_it() {
    let message = question("VPN.example.", Family::V6).message();
    let expected =
        [&[0x12, 0x34, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"\x03vpn\x07example\0", &[0, 28, 0, 1]];
    assert_eq!(message, expected.concat());
    assert_eq!(question("vpn.example", Family::V4).message()[25..], [0, 1, 0, 1]);
}

#[test]
fn names_that_cannot_be_asked_for() {
    let long = "a".repeat(64);
    let many = "a.".repeat(128);
    for bad in ["", ".", "a..b", ".a", "a..", "bücher.example", &long, &many] {
        assert_eq!(Question::new(bad, Family::V4, 0), None, "{bad}");
    }
    let longest = "a.".repeat(127);
    assert!(Question::new(&longest, Family::V4, 0).is_some());
}

#[test]
fn addresses_and_the_shortest_life_of_them() {
    let question = question("vpn.example", Family::V4);
    let response = Response::to(&question).address(&ASKED, 300, 1).address(&name("VPN.Example"), 60, 2);
    let expected = Answer { addresses: vec![ip(1), ip(2)], ttl: Duration::from_secs(60) };
    assert_eq!(question.answer(&response.0), Ok(expected));
}

#[test]
fn six() {
    let question = question("vpn.example", Family::V6);
    let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
    // Whoever is asked for one family may add the other.
    let response = Response::to(&question).address(&ASKED, 1, 1).record(&ASKED, AAAA, 30, &address.octets());
    let expected = Answer { addresses: vec![address.into()], ttl: Duration::from_secs(30) };
    assert_eq!(question.answer(&response.0), Ok(expected));
}

#[test]
fn aliases_are_followed_in_any_order() {
    let question = question("vpn.example", Family::V4);
    let (first, second) = (name("a.example"), name("b.example"));
    let response = Response::to(&question)
        .address(&second, 300, 9)
        .record(&first, CNAME, 20, &second)
        .record(&ASKED, CNAME, 100, &first)
        .address(&name("c.example"), 5, 66);
    let expected = Answer { addresses: vec![ip(9)], ttl: Duration::from_secs(20) };
    assert_eq!(question.answer(&response.0), Ok(expected));

    // "b" and then the question's "example".
    let response = Response::to(&question);
    let target = response.end() + 12;
    let compressed = [&b"\x01b"[..], &pointer(16)].concat();
    let response = response.record(&ASKED, CNAME, 50, &compressed).address(&pointer(target), 40, 3);
    let expected = Answer { addresses: vec![ip(3)], ttl: Duration::from_secs(40) };
    assert_eq!(question.answer(&response.0), Ok(expected));
}

#[test]
fn aliases_in_a_circle_lead_nowhere() {
    let question = question("vpn.example", Family::V4);
    let other = name("other.example");
    let response = Response::to(&question).record(&ASKED, CNAME, 1, &other).record(&other, CNAME, 1, &ASKED);
    assert_eq!(question.answer(&response.0), Ok(Answer::default()));
}

#[test]
fn what_is_not_an_answer_to_the_question() {
    let asked = question("vpn.example", Family::V4);
    let good = Response::to(&asked).address(&ASKED, 300, 1).0;
    let unrelated = |change: fn(&mut Vec<u8>)| {
        let mut message = good.clone();
        change(&mut message);
        assert_eq!(asked.answer(&message), Err(NoAnswer::Unrelated), "{message:x?}");
    };
    unrelated(|message| message[1] ^= 1);
    // A question, another kind of request, two questions, another name, another type, another class.
    unrelated(|message| message[2] &= 0x7f);
    unrelated(|message| message[2] |= 0x10);
    unrelated(|message| message[5] = 2);
    unrelated(|message| message[13] = b'w');
    unrelated(|message| message[26] = 28);
    unrelated(|message| message[28] = 3);
    unrelated(Vec::clear);
}

#[test]
fn errors_of_the_name_server() {
    let question = question("vpn.example", Family::V4);
    let answer = |flags| question.answer(&Response::to(&question).flags(flags).0);
    assert_eq!(answer(NO_SUCH_NAME), Err(NoAnswer::NoSuchName));
    assert_eq!(answer(2), Err(NoAnswer::Failed(2)));
    assert_eq!(answer(5), Err(NoAnswer::Failed(5)));
    assert_eq!(answer(TRUNCATED), Err(NoAnswer::Truncated));
    assert_eq!(answer(0), Ok(Answer::default()), "the name has no address of this family");
}

#[test]
fn a_truncated_answer_is_used_as_far_as_it_goes() {
    let question = question("vpn.example", Family::V4);
    let mut message = Response::to(&question).flags(TRUNCATED).address(&ASKED, 9, 1).address(&ASKED, 9, 2).0;
    message.truncate(message.len() - 1);
    assert_eq!(question.answer(&message).unwrap().addresses, [ip(1)]);
    message[2] &= 0xfd;
    assert_eq!(question.answer(&message), Err(NoAnswer::Malformed));
}

#[test]
fn records_that_are_not_well_formed() {
    let question = question("vpn.example", Family::V4);
    let response = || Response::to(&question);
    let own = response().end();
    let bad = [
        // Pointers to themselves, forwards, and beyond the message.
        response().address(&pointer(own), 1, 1),
        response().address(&pointer(own + 2), 1, 1),
        response().address(&pointer(0x3fff), 1, 1),
        // A kind of label that does not exist.
        response().address(&[0x41, b'a', 0], 1, 1),
        // An address of five bytes, an alias that ends before its data.
        response().record(&ASKED, A, 1, &[1, 2, 3, 4, 5]),
        response().record(&ASKED, CNAME, 1, b"\x01a\0x"),
    ];
    for response in bad {
        assert_eq!(question.answer(&response.0), Err(NoAnswer::Malformed), "{:x?}", response.0);
    }
    let response = response().address(&ASKED, u32::MAX, 1);
    assert_eq!(question.answer(&response.0).unwrap().ttl, Duration::ZERO);
}

#[test]
fn a_chain_of_pointers_ends() {
    // Each record's owner points to the one before: as long as a datagram can have it.
    let question = question("vpn.example", Family::V4);
    let mut response = Response::to(&question);
    let mut last = 12;
    for _ in 0..200 {
        let here = response.end();
        response = response.address(&pointer(last), 7, 1);
        last = here;
    }
    assert_eq!(question.answer(&response.0).unwrap().addresses.len(), 200);
}

proptest! {
    #[test]
    fn nothing_makes_it_fail(message in proptest::collection::vec(any::<u8>(), 0..600)) {
        let question = question("vpn.example", Family::V4);
        let _ = question.answer(&message);
        // With the right head, so that records are looked at.
        let mut response = Response::to(&question).0;
        response[6..8].copy_from_slice(&[2, 0]);
        response.extend(message);
        let _ = question.answer(&response);
    }

    #[test]
    fn damage_makes_it_fail_in_no_other_way(position in 0_usize..100, value: u8, cut in 0_usize..100) {
        let question = question("vpn.example", Family::V4);
        let alias = name("a.example");
        let mut message =
            Response::to(&question).record(&ASKED, CNAME, 1, &alias).address(&alias, 2, 1).address(&alias, 3, 2).0;
        if let Some(byte) = message.get_mut(position) {
            *byte = value;
        }
        message.truncate(message.len().saturating_sub(cut / 2));
        if let Ok(answer) = question.answer(&message) {
            prop_assert!(answer.addresses.len() <= 2);
        }
    }

    #[test]
    fn every_name_comes_back(labels in proptest::collection::vec("[a-zA-Z0-9-]{1,20}", 1..8)) {
        let text = labels.join(".");
        let question = question(&text, Family::V4);
        let response = Response::to(&question).address(&ASKED, 5, 4);
        prop_assert_eq!(question.answer(&response.0).unwrap().addresses, [ip(4)]);
    }
}
