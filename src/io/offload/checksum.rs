//! The Internet checksum (RFC 1071), and its incremental form (RFC 1624).

/// Bytes of a machine word.
const WORD: usize = size_of::<usize>();

/// The sum of `bytes` as big-endian 16-bit words, added to `initial`; not folded, not inverted. An odd last byte counts
/// as the high half of a word.
///
/// The sum does not depend on the order of a word's bytes but for a swap at the end (RFC 1071, 2 B), so whole machine
/// words are added, with the carry brought round, in four chains that a processor can follow at the same time.
pub fn sum(bytes: &[u8], initial: u32) -> u32 {
    let mut chains = [0usize; 4];
    let (blocks, rest) = bytes.as_chunks::<{ 4 * WORD }>();
    for block in blocks {
        let (words, _) = block.as_chunks::<WORD>();
        for (chain, word) in chains.iter_mut().zip(words) {
            *chain = add(*chain, usize::from_ne_bytes(*word));
        }
    }
    let mut total = chains.into_iter().fold(0, add);
    let (words, rest) = rest.as_chunks::<WORD>();
    for word in words {
        total = add(total, usize::from_ne_bytes(*word));
    }
    let mut last = [0; WORD];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total = add(total, usize::from_ne_bytes(last));
    let mut folded = total as u64;
    folded = (folded & 0xffff_ffff) + (folded >> 32);
    folded = (folded & 0xffff) + (folded >> 16);
    initial + u32::from(u16::from_be(fold(folded as u32)))
}

/// Addition in ones' complement.
fn add(a: usize, b: usize) -> usize {
    let (sum, carry) = a.overflowing_add(b);
    sum + usize::from(carry)
}

/// Folds a sum to 16 bits.
pub fn fold(mut sum: u32) -> u16 {
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of the pseudo-header of TCP and UDP (RFC 9293, 3.1; RFC 8200, 8.1): `addresses` are the source's and the
/// destination's, `length` counts header and payload.
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: usize) -> u32 {
    sum(addresses, u32::from(protocol) + (length as u32 & 0xffff) + (length as u32 >> 16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn word_by_word(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// In ones' complement zero has two forms.
    fn canonical(sum: u16) -> u16 {
        if sum == 0xffff { 0 } else { sum }
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 0)), 0xddf2);
        assert_eq!(fold(sum(&[0xff; 1500], 0)), 0xffff);
    }

    proptest! {
        #[test]
        fn it_is_the_sum_of_words(bytes in proptest::collection::vec(any::<u8>(), 0..1600), initial in 0u32..0x20000) {
            let expected = fold(u32::from(word_by_word(&bytes)) + initial);
            prop_assert_eq!(canonical(fold(sum(&bytes, initial))), canonical(expected));
        }
    }
}
