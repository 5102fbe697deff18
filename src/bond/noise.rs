//! `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s` through `snow`, with our own primitives under it.
//!
//! `snow` brings the state machine. The primitives come from here so that private keys and cipher keys are erased on
//! drop, a point of small order is refused (WireGuard does so too), randomness is passed in, and no second copy of
//! each algorithm is linked.

use blake2::Blake2s256;
use blake2::digest::{Digest, FixedOutputReset};
use bonding_ciphers::Key;
use snow::params::{
    BaseChoice, CipherChoice, DHChoice, HandshakeChoice, HandshakeModifier, HandshakeModifierList,
    HandshakePattern, HashChoice, NoiseParams,
};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random as SnowRandom};
use snow::{Builder, Error, HandshakeState};
use zeroize::Zeroizing;

use super::header::TAG_LEN;
use super::keys::{KEY_LEN, PresharedKey, PrivateKey, PublicKey, Random};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

/// Begins the prologue, which is mixed into every handshake: another version of the protocol fails to decrypt ours.
const PROTOCOL: &[u8] = b"bonding 1";

/// The position of the pre-shared key in the pattern.
const PSK_POSITION: u8 = 2;

/// What [`PATTERN`] says, as `snow` would read it.
fn params() -> NoiseParams {
    let modifiers = HandshakeModifierList { list: vec![HandshakeModifier::Psk(PSK_POSITION)] };
    let handshake = HandshakeChoice { pattern: HandshakePattern::IK, modifiers };
    let (dh, cipher, hash) = (DHChoice::Curve25519, CipherChoice::ChaChaPoly, HashChoice::Blake2s);
    NoiseParams::new(PATTERN.to_owned(), BaseChoice::Noise, handshake, dh, cipher, hash)
}

/// What the first message adds to its payload: ephemeral key, static key with tag, tag.
pub(crate) const MESSAGE_1_OVERHEAD: usize = KEY_LEN + KEY_LEN + TAG_LEN + TAG_LEN;

/// What the second message adds to its payload: ephemeral key, tag.
pub(crate) const MESSAGE_2_OVERHEAD: usize = KEY_LEN + TAG_LEN;

/// This end's static key.
pub(crate) struct KeyPair {
    pub private: PrivateKey,
    pub public: PublicKey,
}

impl From<PrivateKey> for KeyPair {
    fn from(private: PrivateKey) -> Self {
        KeyPair { public: private.public(), private }
    }
}

/// A handshake under way.
///
/// `snow` does not erase its chaining key when dropped; what derives from it here is erased.
pub(crate) struct Noise(Box<HandshakeState>);

/// The two secrets that a completed handshake yields.
pub(crate) struct Secrets {
    pub initiator_to_responder: Zeroizing<[u8; KEY_LEN]>,
    pub responder_to_initiator: Zeroizing<[u8; KEY_LEN]>,
}

/// A message that does not decrypt: made with other keys, changed under way, or cut.
#[derive(Debug)]
pub(crate) struct Undecryptable;

impl Noise {
    /// `head`: what stands in the clear before the first message, authenticated with it.
    pub fn initiator(
        local: &KeyPair,
        remote: &PublicKey,
        psk: &PresharedKey,
        head: &[u8],
        random: &mut Random<'_>,
    ) -> Self {
        Self::build(local, Some((remote, psk)), head, random)
    }

    /// `head`: what stood in the clear before the first message.
    pub fn responder(local: &KeyPair, head: &[u8], random: &mut Random<'_>) -> Self {
        Self::build(local, None, head, random)
    }

    /// `remote`: whom an initiator calls, and with which secret.
    fn build(
        local: &KeyPair,
        remote: Option<(&PublicKey, &PresharedKey)>,
        head: &[u8],
        random: &mut Random<'_>,
    ) -> Self {
        let mut ephemeral = Zeroizing::new([0; KEY_LEN]);
        random(&mut *ephemeral);
        let prologue = [PROTOCOL, head].concat();
        let state = Builder::with_resolver(params(), Box::new(Suite { ephemeral, public: local.public }))
            .prologue(&prologue)
            .and_then(|builder| builder.local_private_key(local.private.as_bytes()))
            .and_then(|builder| match remote {
                None => builder.build_responder(),
                Some((key, psk)) => builder
                    .remote_public_key(key.as_bytes())?
                    .psk(PSK_POSITION, psk.as_bytes())?
                    .build_initiator(),
            })
            .expect("the suite has everything that the pattern asks for");
        Noise(Box::new(state))
    }

    /// Sets the pre-shared key of the responder, who learns from the first message whose it is.
    pub fn set_psk(&mut self, psk: &PresharedKey) {
        self.0
            .set_psk(usize::from(PSK_POSITION), psk.as_bytes())
            .expect("a key of 32 bytes at a valid position");
    }

    /// Appends the next message with `payload` to `out`.
    pub fn write(&mut self, payload: &[u8], overhead: usize, out: &mut Vec<u8>) -> Result<(), Undecryptable> {
        let start = out.len();
        out.resize(start + payload.len() + overhead, 0);
        let written = self.0.write_message(payload, &mut out[start..]).map_err(|_| Undecryptable)?;
        out.truncate(start + written);
        Ok(())
    }

    /// Reads the next message and returns its payload. After an error the state is as before.
    pub fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Undecryptable> {
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload).map_err(|_| Undecryptable)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// The other end's static key, once known.
    pub fn remote_static(&self) -> Option<PublicKey> {
        self.0.get_remote_static()?.try_into().ok().map(PublicKey::from_bytes)
    }

    /// The secrets of a handshake of which both messages have been written or read.
    pub fn into_secrets(mut self) -> Option<Secrets> {
        if !self.0.is_handshake_finished() {
            return None;
        }
        let (first, second) = self.0.dangerously_get_raw_split();
        Some(Secrets {
            initiator_to_responder: Zeroizing::new(first),
            responder_to_initiator: Zeroizing::new(second),
        })
    }
}

/// Our primitives, and the randomness of one handshake: its ephemeral key.
struct Suite {
    ephemeral: Zeroizing<[u8; KEY_LEN]>,
    /// The static public key, so that it is not computed again for each handshake.
    public: PublicKey,
}

impl CryptoResolver for Suite {
    fn resolve_rng(&self) -> Option<Box<dyn SnowRandom>> {
        Some(Box::new(OneKey(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| {
            let private = PrivateKey::from_bytes([0; KEY_LEN]);
            Box::new(X25519 { private, public: self.public }) as Box<dyn Dh>
        })
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::new(Blake2s(Blake2s256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly::default()) as Box<dyn Cipher>)
    }
}

/// Random bytes for one ephemeral key; a second request is an error.
struct OneKey(Option<Zeroizing<[u8; KEY_LEN]>>);

impl SnowRandom for OneKey {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let bytes = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != KEY_LEN {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(&*bytes);
        Ok(())
    }
}

struct X25519 {
    private: PrivateKey,
    public: PublicKey,
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_LEN
    }

    fn priv_len(&self) -> usize {
        KEY_LEN
    }

    fn set(&mut self, private: &[u8]) {
        // Called for the static key only, of which `public` is the other half.
        let private = private.try_into().expect("snow passes on the 32 bytes that we gave it");
        self.private = PrivateKey::from_bytes(private);
    }

    fn generate(&mut self, random: &mut dyn SnowRandom) -> Result<(), Error> {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        random.try_fill_bytes(&mut *bytes)?;
        self.private = PrivateKey::from_bytes(*bytes);
        self.public = self.private.public();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_bytes()
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let public = public.first_chunk::<KEY_LEN>().ok_or(Error::Dh)?;
        let shared = self.private.diffie_hellman(public).ok_or(Error::Dh)?;
        out.get_mut(..KEY_LEN).ok_or(Error::Dh)?.copy_from_slice(&*shared);
        Ok(())
    }
}

#[derive(Default)]
struct ChaChaPoly(Zeroizing<[u8; KEY_LEN]>);

/// The Noise specification, section 12.3: 32 zero bits, then the counter in little-endian order.
fn noise_nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_LEN]) {
        *self.0 = *key;
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (text, rest) = out.split_at_mut(plaintext.len());
        text.copy_from_slice(plaintext);
        let tag = Key::chacha20_poly1305(&self.0).seal(&noise_nonce(nonce), authtext, text);
        rest[..TAG_LEN].copy_from_slice(&tag);
        plaintext.len() + TAG_LEN
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let (text, tag) = ciphertext.split_last_chunk::<TAG_LEN>().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..text.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(text);
        let key = Key::chacha20_poly1305(&self.0);
        key.open(&noise_nonce(nonce), authtext, out, tag).map_err(|_| Error::Decrypt)?;
        Ok(text.len())
    }
}

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        Digest::reset(&mut self.0);
    }

    fn input(&mut self, data: &[u8]) {
        Digest::update(&mut self.0, data);
    }

    fn result(&mut self, out: &mut [u8]) {
        out[..32].copy_from_slice(&self.0.finalize_fixed_reset());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_those_of_the_pattern() {
        assert_eq!(params(), PATTERN.parse().unwrap());
    }
}
