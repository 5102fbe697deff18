use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// Test case 16 of "The Galois/Counter Mode of Operation" (McGrew and Viega), and RFC 8439, section 2.8.2.
#[test]
fn published_vectors() {
    let gcm_key = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308");
    let gcm_text = hex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525\
         b16aedf5aa0de657ba637b39",
    );
    let chacha_text =
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                        sunscreen would be it.";
    for (cipher, key, nonce, aad, text, tag) in [
        (
            Cipher::Aes256Gcm,
            gcm_key,
            hex("cafebabefacedbaddecaf888"),
            hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"),
            gcm_text,
            hex("76fc6ece0f4e1768cddf8853bb2d551b"),
        ),
        (
            Cipher::ChaCha20Poly1305,
            (0x80..0xa0).collect(),
            hex("070000004041424344454647"),
            hex("50515253c0c1c2c3c4c5c6c7"),
            chacha_text.to_vec(),
            hex("1ae10b594f09e26a7e902ecbd0600691"),
        ),
    ] {
        let key = key.try_into().unwrap();
        let nonce = nonce.try_into().unwrap();
        let (mut one, mut other) = (text.clone(), text);
        assert_eq!(implementation::key(cipher, &key).seal(&nonce, &aad, &mut one).to_vec(), tag);
        assert_eq!(portable::key(cipher, &key).seal(&nonce, &aad, &mut other).to_vec(), tag);
    }
}

proptest! {
    /// Whoever seals, the other implementation opens it, and only unchanged.
    #[test]
    fn implementations_agree(
        key in any::<[u8; 32]>(),
        nonce in any::<[u8; NONCE_LEN]>(),
        aad in vec(any::<u8>(), 0..20),
        text in vec(any::<u8>(), 0..300),
        flip in any::<prop::sample::Index>(),
    ) {
        for cipher in Cipher::ALL {
            let (ours, theirs) = (implementation::key(cipher, &key), portable::key(cipher, &key));
            let (mut one, mut other) = (text.clone(), text.clone());
            let tag = ours.seal(&nonce, &aad, &mut one);
            prop_assert_eq!(tag, theirs.seal(&nonce, &aad, &mut other));
            prop_assert_eq!(&one, &other);
            ours.open(&nonce, &aad, &mut one, &tag).unwrap();
            theirs.open(&nonce, &aad, &mut other, &tag).unwrap();
            prop_assert_eq!(&one, &text);
            prop_assert_eq!(&other, &text);
            let mut sealed = text.clone();
            let mut bad = ours.seal(&nonce, &aad, &mut sealed);
            let at = flip.index(sealed.len() + TAG_LEN);
            match sealed.get_mut(at) {
                Some(byte) => *byte ^= 1,
                None => bad[at - text.len()] ^= 1,
            }
            prop_assert_eq!(ours.open(&nonce, &aad, &mut sealed, &bad), Err(TagMismatch));
        }
    }
}
