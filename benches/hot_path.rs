//! The pieces of a packet's way one by one: `cargo bench --bench hot_path [-- NAME]`.

mod pair;

use std::time::Duration;

use bonding::bond::Time;
use bonding::bond::aead::{AeadKey, portable};
use bonding::bond::cipher::Cipher;
use bonding::bond::resequencer::{Arrival, Order, Resequencer};
use bonding::bond::scheduler::{Candidate, Head, Policy, Scheduler};
use bonding::io::offload::{Coalescer, HEADER_LEN, Header, Segmentation, Segments};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use pair::{BURST, PACKET, Pair};

fn main() {
    divan::main();
}

const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
const NOW: Time = Time::from_millis(100);

/// What this target uses.
#[divan::bench(args = CIPHERS)]
fn seal(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let key = AeadKey::derive(cipher, &[7; 32]);
    let mut text = vec![1; PACKET];
    bencher.counter(BytesCount::new(PACKET)).bench_local(|| key.seal(&[0; 12], &[0; 8], &mut text));
}

/// RustCrypto, for every target.
#[divan::bench(args = CIPHERS)]
fn seal_portable(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let key = portable::key(cipher, &[7; 32]);
    let mut text = vec![1; PACKET];
    bencher.counter(BytesCount::new(PACKET)).bench_local(|| key.seal(&[0; 12], &[0; 8], &mut text));
}

/// With the copy of the packet that opening in place needs here.
#[divan::bench(args = CIPHERS)]
fn open(bencher: Bencher<'_, '_>, cipher: Cipher) {
    let key = AeadKey::derive(cipher, &[7; 32]);
    let mut sealed = vec![1; PACKET];
    let tag = key.seal(&[0; 12], &[0; 8], &mut sealed);
    let mut text = sealed.clone();
    bencher.counter(BytesCount::new(PACKET)).bench_local(|| {
        text.copy_from_slice(&sealed);
        key.open(&[0; 12], &[0; 8], &mut text, &tag).expect("sealed above");
    });
}

/// One flow; every `stride`-th packet comes that many places late.
#[divan::bench(args = [1, 2, 16])]
fn resequencer(bencher: Bencher<'_, '_>, stride: u32) {
    let mut resequencer = Resequencer::new(4_096);
    let (packet, mut first) = (vec![0; PACKET], 0u32);
    let order: Vec<u32> = (0..64).map(|n| n / stride * stride + (n + 1) % stride).collect();
    bencher.counter(ItemsCount::new(64u32)).bench_local(|| {
        let mut delivered = 0;
        for n in &order {
            let seq = (first + n) & 0xf_ffff;
            let arrival = Arrival { bucket: 5, seq, order: Order::Stream, link: 0, sent: 0 };
            resequencer.receive(arrival, &packet, NOW, &mut |_| delivered += 1);
        }
        assert_eq!(delivered, 64);
        first += 64;
    });
}

/// A backlog over so many links.
#[divan::bench(args = [1, 2, 8])]
fn scheduler(bencher: Bencher<'_, '_>, links: u8) {
    let candidate = |link| Candidate {
        link,
        free: NOW + Duration::from_millis(u64::from(link % 3)),
        staged: Duration::ZERO,
        worth: 1_250_000,
        delay: 10_000_000 + i64::from(link) * 3_000_000,
        priority: 1,
        weight: 1,
    };
    let candidates: Vec<_> = (0..links).map(candidate).collect();
    let mut scheduler = Scheduler::new(Policy::Adaptive);
    let head = Head { hash: 7, waited: Duration::from_millis(1), sparse: false };
    bencher.counter(ItemsCount::new(1u32)).bench_local(|| scheduler.choose(&candidates, &head, NOW));
}

/// A super-packet of [`BURST`] segments.
fn super_packet() -> (Header, Vec<u8>) {
    let mut packet = pair::inner_packet();
    packet.resize(40 + BURST * (PACKET - 40), 3);
    let header = Header {
        checksum: Some((20, 16)),
        segmentation: Some(Segmentation::TcpV4),
        segment_size: PACKET as u16 - 40,
        header_len: 40,
    };
    (header, packet)
}

fn segments() -> Vec<Vec<u8>> {
    let (header, mut packet) = super_packet();
    // The sum of the pseudo-header, from which each segment's checksum is completed.
    let transport = (packet.len() - 20) as u16;
    let sum = [0x0a00u32, 1, 0x0a00, 2, 6, u32::from(transport)].iter().sum::<u32>();
    packet[36..38].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
    let mut parts = Segments::new(header, &packet, 2048).expect("a super-packet");
    let mut out = [0; 2048];
    std::iter::from_fn(|| parts.next_into(&mut out).map(|len| out[..len].to_vec())).collect()
}

/// A super-packet is cut up.
#[divan::bench]
fn segmentation(bencher: Bencher<'_, '_>) {
    let (header, packet) = super_packet();
    let mut out = [0; 2048];
    bencher.counter(BytesCount::new(packet.len())).bench_local(|| {
        let mut parts = Segments::new(header, &packet, 2048).expect("a super-packet");
        let mut count = 0;
        while parts.next_into(&mut out).is_some() {
            count += 1;
        }
        assert_eq!(count, BURST);
    });
}

/// [`BURST`] segments that follow each other.
#[divan::bench]
fn coalescing(bencher: Bencher<'_, '_>) {
    let parts = segments();
    let mut coalescer = Coalescer::new(true, true);
    bencher.counter(BytesCount::new(BURST * PACKET)).bench_local(|| {
        let mut written = 0;
        let mut sink = |bytes: &[u8]| written += bytes.len() - HEADER_LEN;
        for part in &parts {
            coalescer.push(part, &mut sink);
        }
        coalescer.flush(&mut sink);
        assert_eq!(written, 40 + BURST * (PACKET - 40), "one super-packet");
    });
}

/// The whole core, from one end's inner packets to the other's, over so many links.
#[divan::bench(args = [1, 2])]
fn core(bencher: Bencher<'_, '_>, links: u8) {
    let mut pair = Pair::new(links);
    bencher.counter(BytesCount::new(BURST * PACKET)).bench_local(|| {
        pair.send(BURST);
        pair.receive();
        pair.step();
    });
}
