//! A router that introduces itself becomes a peer: its public key goes into the server's configuration.

use std::path::Path;

use crate::config::edit::Editor;
use crate::config::key::{PublicKey, Secret};
use crate::config::{self, store};

/// An invitation that waits for its router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invited {
    /// The peer's section.
    pub name: String,
    /// What the router proves.
    pub secret: Secret,
    /// Seconds since 1970 after which it is too late.
    pub expires: u32,
}

impl Invited {
    /// The invitation of a peer that has no key yet.
    pub fn of(peer: &config::Peer) -> Option<Invited> {
        let (None, Some(secret), Some(expires)) =
            (peer.public_key, &peer.preshared_key, peer.invitation_expires)
        else {
            return None;
        };
        Some(Invited { name: peer.name.clone(), secret: secret.clone(), expires })
    }

    /// Whether it is too late at `unix_seconds`.
    pub fn is_over(&self, unix_seconds: u64) -> bool {
        unix_seconds > u64::from(self.expires)
    }
}

/// Writes the key of the router that has introduced itself into the file, for good: the invitation is used up.
///
/// # Errors
///
/// In words for the log: the peer was removed or invited anew since, or the file cannot be written.
pub fn pin(path: &Path, invited: &Invited, key: PublicKey) -> Result<(), String> {
    let file = path.display();
    let _lock = store::lock(path).map_err(|error| format!("{file}: {error}"))?;
    let text = store::read(path).map_err(|error| format!("{file}: {error}"))?;
    let failed = |error| format!("{file}: {error}");
    let mut editor = Editor::new(&text).map_err(failed)?;
    let is_it = |section: &config::uci::Section| {
        let secret = section.entry("preshared_key").and_then(|entry| entry.values.last());
        section.name.as_deref() == Some(&invited.name)
            && section.entry("public_key").is_none()
            && secret.and_then(|value| Secret::from_base64(&value.text)).as_ref() == Some(&invited.secret)
    };
    let section = editor
        .find("peer", is_it)
        .ok_or_else(|| format!("{file}: peer '{}' was changed since it was invited", invited.name))?;
    editor.set(section, "public_key", &key.to_string()).map_err(failed)?;
    editor.remove(section, "invitation_expires").map_err(failed)?;
    if let Some(mistake) = config::load(editor.text(), &file.to_string()).errors().next() {
        return Err(mistake.to_string());
    }
    store::replace(path, editor.text()).map_err(|error| format!("{file}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const SECRET: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    fn file(name: &str, peers: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("bonding-pin-{name}-{}", std::process::id()));
        let text = format!(
            "# mine\nconfig globals\n\toption role 'server'\n\nconfig interface 'bond'\n\toption ipaddr '10.0.0.1/24'\n\n{peers}"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn invited(path: &Path) -> Vec<Invited> {
        let report = config::load_file(path).unwrap();
        let config = report.config.unwrap_or_else(|| panic!("{:?}", report.problems));
        config.peers.iter().filter_map(Invited::of).collect()
    }

    #[test]
    fn the_key_is_written_once() {
        let peers = format!(
            "config peer 'home' # ours\n\toption ipaddr '10.0.0.2'\n\toption preshared_key '{SECRET}'\n\toption invitation_expires '2000000000'\n"
        );
        let path = file("once", &peers);
        let waiting = invited(&path);
        assert_eq!(waiting.len(), 1);
        assert!(!waiting[0].is_over(2_000_000_000) && waiting[0].is_over(2_000_000_001));
        let key = PublicKey::from_base64(KEY).unwrap();
        pin(&path, &waiting[0], key).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("# mine\n") && text.contains(&format!("\toption public_key '{KEY}'\n")),
            "{text}"
        );
        assert!(!text.contains("invitation_expires") && text.contains(SECRET), "{text}");
        assert_eq!(invited(&path), []);
        let again = pin(&path, &waiting[0], PublicKey::new([8; 32])).unwrap_err();
        assert!(again.contains("was changed"), "{again}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn neither_another_invitation_nor_another_peers_key_is_taken() {
        let peers = format!(
            "config peer 'a'\n\toption ipaddr '10.0.0.2'\n\toption public_key '{KEY}'\n\nconfig peer 'b'\n\toption ipaddr '10.0.0.3'\n\
             \toption preshared_key '{SECRET}'\n\toption invitation_expires '2000000000'\n"
        );
        let path = file("other", &peers);
        let waiting = invited(&path);
        let taken = pin(&path, &waiting[0], PublicKey::from_base64(KEY).unwrap()).unwrap_err();
        assert!(taken.contains("is the key of peer 'a' too"), "{taken}");
        let renewed = fs::read_to_string(&path).unwrap().replace(SECRET, &KEY.replace('B', "C"));
        fs::write(&path, &renewed).unwrap();
        assert!(pin(&path, &waiting[0], PublicKey::new([8; 32])).unwrap_err().contains("was changed"));
        assert_eq!(fs::read_to_string(&path).unwrap(), renewed);
        fs::remove_file(&path).unwrap();
    }
}
