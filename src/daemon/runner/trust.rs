//! Who can change a script that is to be run as root: nobody but root, or it is not run.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Write permission for group or others.
const WRITABLE: u32 = 0o022;
/// Execute permission for anybody.
const EXECUTABLE: u32 = 0o111;
/// In such a directory nobody can rename or remove what belongs to somebody else.
const STICKY: u32 = 0o1000;

/// Why a script is not run.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// There is no such file.
    #[error("'{}' does not exist", .0.display())]
    Missing(PathBuf),
    /// It could not be looked at.
    #[error("'{}': {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] io::Error),
    /// It is a directory or a device.
    #[error("'{}' is not a file", .0.display())]
    NotAFile(PathBuf),
    /// Nobody may execute it.
    #[error("'{path}' is not executable: run `chmod 755 {path}`", path = .0.display())]
    NotExecutable(PathBuf),
    /// It belongs to somebody else.
    #[error("'{path}' belongs to user {owner}: run `chown root {path}`", path = .path.display())]
    Foreign {
        /// The file or directory.
        path: PathBuf,
        /// Number of its owner.
        owner: u32,
    },
    /// Others may write to it.
    #[error("'{path}' can be changed by others (mode {mode:04o}): run `chmod go-w {path}`", path = .path.display())]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Checks that only root, and the user who runs this program, can change what is executed by `path`: the file, its
/// directory, and everything above. Symbolic links are followed, and those who can change them are counted. Returns
/// the file.
///
/// # Errors
///
/// The first thing that is wrong, with what mends it.
pub fn check(path: &Path) -> Result<PathBuf, Distrust> {
    let unreadable = |path: &Path, error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Distrust::Missing(path.into()),
        _ => Distrust::Unreadable(path.into(), error),
    };
    let file = fs::canonicalize(path).map_err(|error| unreadable(path, error))?;
    let metadata = fs::metadata(&file).map_err(|error| unreadable(&file, error))?;
    if !metadata.is_file() {
        return Err(Distrust::NotAFile(file));
    }
    belongs_to_us(&file, &metadata)?;
    if metadata.mode() & WRITABLE != 0 {
        return Err(Distrust::Writable { path: file, mode: metadata.mode() & 0o7777 });
    }
    if metadata.mode() & EXECUTABLE == 0 {
        return Err(Distrust::NotExecutable(file));
    }
    // As written, and as it is without symbolic links.
    for path in [path, &file] {
        for (distance, directory) in path.ancestors().skip(1).enumerate() {
            if directory.as_os_str().is_empty() {
                continue;
            }
            let metadata = fs::metadata(directory).map_err(|error| unreadable(directory, error))?;
            belongs_to_us(directory, &metadata)?;
            // Above, as in /tmp, it is enough that others cannot replace what is ours.
            let excused = distance > 0 && metadata.mode() & STICKY != 0;
            if metadata.mode() & WRITABLE != 0 && !excused {
                return Err(Distrust::Writable { path: directory.into(), mode: metadata.mode() & 0o7777 });
            }
        }
    }
    Ok(file)
}

fn belongs_to_us(path: &Path, metadata: &fs::Metadata) -> Result<(), Distrust> {
    let owner = metadata.uid();
    if owner == 0 || owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(Distrust::Foreign { path: path.into(), owner })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_what_nobody_else_can_change_is_trusted() {
        let place = lab::directory::Directory::new("bonding-trust").unwrap();
        let root = place.path("root");
        let inner = root.join("scripts");
        fs::create_dir_all(&inner).unwrap();
        let script = inner.join("up.sh");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&root, 0o755);
        set(&inner, 0o755);
        set(&script, 0o755);
        let real = fs::canonicalize(&script).unwrap();
        assert_eq!(check(&script).unwrap(), real);
        let refused = |path: &Path| check(path).unwrap_err().to_string();

        set(&script, 0o775);
        assert!(refused(&script).ends_with(&format!("(mode 0775): run `chmod go-w {}`", real.display())));
        set(&script, 0o644);
        assert!(refused(&script).contains("is not executable: run `chmod 755"));
        set(&script, 0o700);
        set(&inner, 0o1777);
        assert!(refused(&script).contains("scripts' can be changed by others (mode 1777)"));
        set(&inner, 0o755);
        set(&root, 0o777);
        assert!(refused(&script).contains("can be changed by others (mode 0777)"));
        set(&root, 0o1777);
        assert!(check(&script).is_ok());
        set(&root, 0o755);

        assert!(refused(&inner).contains("is not a file"));
        assert!(refused(&root.join("nothing")).contains("does not exist"));

        // A link in a place that others can write to can be pointed elsewhere.
        let open = root.join("open");
        fs::create_dir(&open).unwrap();
        set(&open, 0o777);
        symlink(&script, open.join("link.sh")).unwrap();
        assert!(refused(&open.join("link.sh")).contains("open' can be changed by others"));
        symlink(&script, root.join("link.sh")).unwrap();
        assert_eq!(check(&root.join("link.sh")).unwrap(), real);

        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(&script, Some(12_345), None).unwrap();
            assert!(refused(&script).contains("belongs to user 12345: run `chown root"));
        }
    }
}
