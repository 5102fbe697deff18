//! The keys of a configuration: 32 bytes, written in base64 as WireGuard writes them.

use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::store;

/// The bytes of a key.
pub const KEY_BYTES: usize = 32;

/// A secret of 32 bytes (private or pre-shared key): wiped from memory when dropped, never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; KEY_BYTES]>);

impl Secret {
    /// Takes over the bytes.
    pub fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        Secret(bytes)
    }

    /// Reads base64 text; `None` when it is not 32 bytes of it.
    pub fn from_base64(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        decode(text, &mut bytes)?;
        Some(Secret(bytes))
    }

    /// The secret bytes.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A public key (X25519).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// A key of these bytes.
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        PublicKey(bytes)
    }

    /// Reads base64 text; `None` when it is not 32 bytes of it.
    pub fn from_base64(text: &str) -> Option<Self> {
        let mut bytes = [0; KEY_BYTES];
        decode(text, &mut bytes)?;
        Some(PublicKey(bytes))
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; KEY_BYTES.div_ceil(3) * 4];
        f.write_str(Base64::encode(&self.0, &mut text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

fn decode(text: &str, bytes: &mut [u8; KEY_BYTES]) -> Option<()> {
    (text.len() == KEY_BYTES.div_ceil(3) * 4).then_some(())?;
    let decoded = Base64::decode(text, bytes).map(<[u8]>::len);
    if decoded != Ok(KEY_BYTES) {
        bytes.zeroize();
        return None;
    }
    Some(())
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("no private key: make one with `(umask 077; bonding genkey > {})`", .0.display())]
    Missing(PathBuf),
    /// It could not be read.
    #[error("cannot read the private key {}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// Others than its owner may read or write it.
    #[error("the private key {path} has mode {mode:04o}, others can use it: run `chmod 600 {path}`", path = .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a key.
    #[error("{} does not hold a private key (32 bytes in base64, as `bonding genkey` prints)", .0.display())]
    NotAKey(PathBuf),
}

/// Reads a private key from a file that only its owner may read.
///
/// # Errors
///
/// When the file is missing, readable by others, or holds something else. The message says what to do.
pub fn read_private_key(path: &Path) -> Result<Secret, KeyFileError> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.into()),
        _ => KeyFileError::Unreadable(path.into(), error),
    };
    let mut file = store::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.into(), mode: metadata.mode() & 0o7777 });
    }
    // The capacity covers every byte that is read, so the text is never left behind by a reallocation.
    let mut text = Zeroizing::new(String::with_capacity(256));
    store::at_most(&mut file, 128).read_to_string(&mut text).map_err(unreadable)?;
    Secret::from_base64(text.trim()).ok_or_else(|| KeyFileError::NotAKey(path.into()))
}
