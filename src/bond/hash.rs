//! BLAKE2s (RFC 7693) in the three forms that the secure channel needs: plain, keyed with a 32-byte result, and
//! keyed with a 16-byte result (the size of `mac1`, `mac2` and cookies).

use blake2::digest::consts::U16;
use blake2::digest::{Digest, FixedOutput, KeyInit, Output, Update};
use blake2::{Blake2s256, Blake2sMac, Blake2sMac256};
use subtle::ConstantTimeEq;

/// The length of `mac1`, `mac2` and cookies, in bytes.
pub(crate) const MAC_LEN: usize = 16;

/// BLAKE2s-256 over the concatenation of `parts`.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Digest::update(&mut state, part);
    }
    Digest::finalize(state).into()
}

/// BLAKE2s keyed with `key`, 32-byte result, over the concatenation of `parts`.
pub(crate) fn mac256(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    keyed::<Blake2sMac256>(key, parts).into()
}

/// BLAKE2s keyed with `key` (16 or 32 bytes), 16-byte result, over the concatenation of `parts`.
pub(crate) fn mac128<const KEY: usize>(key: &[u8; KEY], parts: &[&[u8]]) -> [u8; MAC_LEN] {
    const { assert!(KEY == 16 || KEY == 32) }
    keyed::<Blake2sMac<U16>>(key, parts).into()
}

fn keyed<Mac: KeyInit + Update + FixedOutput>(key: &[u8], parts: &[&[u8]]) -> Output<Mac> {
    let mut state = Mac::new_from_slice(key).expect("BLAKE2s takes keys of up to 32 bytes");
    for part in parts {
        state.update(part);
    }
    state.finalize_fixed()
}

/// Whether two byte strings are equal, in a time that depends on their lengths only.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn hash_is_blake2s_of_rfc_7693() {
        // RFC 7693, appendix B.
        let want = "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982";
        assert_eq!(hex(&hash(&[b"abc"])), want);
        assert_eq!(hex(&hash(&[b"a", b"", b"bc"])), want);
    }

    #[test]
    fn keyed_blake2s_matches_the_reference_vectors() {
        // blake2-kat.json of the BLAKE2 reference code: key 00..1f, input empty and 00.
        let key: [u8; 32] = std::array::from_fn(|i| i as u8);
        assert_eq!(
            hex(&mac256(&key, &[])),
            "48a8997da407876b3d79c0d92325ad3b89cbb754d86ab71aee047ad345fd2c49"
        );
        assert_eq!(
            hex(&mac256(&key, &[&[0]])),
            "40d15fee7c328830166ac3f918650f807e7e01e177258cdc0a39b11f598066f1"
        );
        assert_ne!(mac128(&key, &[]), mac256(&key, &[])[..16], "the length is a parameter of the hash");
    }
}
