//! Files that hold keys, or what is to outlast a run: written whole or not at all, for their owner's eyes only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use zeroize::Zeroizing;

use super::uci::MAX_BYTES;

/// Attempts to find a name for a temporary file that nobody has taken.
const MAX_NAMES: u32 = 100;

/// Opens a file that somebody has named, to read it. Whoever reads what is not a regular file may wait for ever, or set
/// off what a device does.
///
/// # Errors
///
/// When it cannot be opened, or is a directory, a named pipe, a socket or a device.
pub fn open(path: &Path) -> io::Result<File> {
    regular(&fs::metadata(path)?)?;
    // Another may have taken its place meanwhile.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

fn regular(metadata: &fs::Metadata) -> io::Result<()> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("it is {what}; name a regular file")))
}

/// The text of a file; empty where there is none.
///
/// # Errors
///
/// As [`open`], and when it is larger than a configuration may be, or is not UTF-8.
pub fn read(path: &Path) -> io::Result<Zeroizing<String>> {
    use io::Read as _;
    let mut file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Zeroizing::default()),
        Err(error) => return Err(error),
    };
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::Error::other(format!("it is larger than {MAX_BYTES} bytes")));
    }
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(length).unwrap_or(0) + 64));
    at_most(&mut file, limit).read_to_string(&mut text)?;
    Ok(text)
}

/// What `input` has, `limit` bytes of it at the most; the same code for files and pipes of every kind.
pub fn at_most(input: &mut dyn io::Read, limit: u64) -> io::Take<&mut dyn io::Read> {
    io::Read::take(input, limit)
}

/// Waits for its turn to change a file: the daemon and the command line both do. Over when the result is dropped. What
/// an earlier one has left that was killed in the middle of [`replace`] is removed.
///
/// # Errors
///
/// When no file can be opened beside it, or locked.
pub fn lock(path: &Path) -> io::Result<Flock<File>> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    make_directory(&path)?;
    // Not the file itself: the next one to take its place would be another. Nor its directory, which others may open,
    // and then hold the lock for ever.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.lock"));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(beside)?;
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| io::Error::from(errno))?;
    remove_leftovers(&path);
    Ok(lock)
}

/// Puts `text` in the place of a file with mode 0600. A reader, and a power cut, find the old file or the new one. The
/// directory is made (mode 0700) where it is missing; a symbolic link is followed.
///
/// # Errors
///
/// When the file system refuses; the old file is then untouched.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    make_directory(&path)?;
    let (temporary, mut file) = create_beside(&path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(&path)
}

/// Writes `text` to a new file with mode 0600, whole; gives whether it did: a file that is there is left alone.
///
/// # Errors
///
/// When the file system refuses.
pub fn create(path: &Path, text: &str) -> io::Result<bool> {
    make_directory(path)?;
    let (temporary, mut file) = create_beside(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    // Unlike a renamed file, a linked one replaces nothing.
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => sync_directory(path).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // vfat and some overlays know no links.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EOPNOTSUPP | libc::EXDEV)) => {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Ok(mut file) => {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()?;
                    sync_directory(path).map(|()| true)
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 0..MAX_NAMES {
        let temporary = path.with_file_name(format!(".{name}.{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary) {
            Ok(file) => {
                // Whatever the umask has taken away.
                file.set_permissions(fs::Permissions::from_mode(0o600))?;
                return Ok((temporary, file));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no name is free for a temporary file beside it"))
}

fn remove_leftovers(path: &Path) {
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let is_leftover = |name: &str| {
        let numbers = name.strip_prefix(&prefix).and_then(|rest| rest.split_once('-'));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        numbers.is_some_and(|(process, number)| digits(process) && digits(number))
    };
    for entry in fs::read_dir(directory_of(path)).into_iter().flatten().flatten() {
        if is_leftover(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
        }
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    // Some file systems cannot sync a directory; the data is safe all the same.
    let _ = File::open(directory_of(path)).and_then(|directory| directory.sync_all());
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("bonding-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn replaced_files_are_private_and_leave_nothing_behind() {
        let directory = directory("replace");
        let path = directory.join("deep/bonding");
        assert_eq!(read(&path).unwrap().as_str(), "");
        replace(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, "two").unwrap();
        assert_eq!((read(&path).unwrap().as_str(), mode(&path)), ("two", 0o600));
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let link = directory.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "three").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let directory = directory("irregular");
        fs::create_dir_all(&directory).unwrap();
        let (pipe, socket) = (directory.join("pipe"), directory.join("socket"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let refusals = [
            (pipe, "it is a pipe; name a regular file"),
            (socket, "it is a socket; name a regular file"),
            ("/dev/zero".into(), "it is a device; name a regular file"),
            (directory.clone(), "it is a directory; name a regular file"),
        ];
        for (path, message) in refusals {
            let (done, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let one = |result: io::Result<()>| result.err().map(|error| error.to_string());
                let configuration = one(crate::config::load_file(&path).map(drop));
                let changed = one(read(&path).map(drop));
                let key = crate::config::key::read_private_key(&path).err().map(|error| error.to_string());
                done.send((configuration, changed, key))
            });
            let wait = std::time::Duration::from_secs(10);
            let (configuration, changed, key) = told.recv_timeout(wait).expect("an answer without a writer");
            assert_eq!(configuration.as_deref(), Some(message));
            assert_eq!(changed.as_deref(), Some(message));
            assert!(key.is_some_and(|key| key.ends_with(message)), "{message}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn one_at_a_time_changes_a_file_and_who_may_not_cannot_hold_the_lock() {
        let directory = directory("lock");
        let path = directory.join("server.conf");
        let held = lock(&path).unwrap();
        let beside = directory.join(".server.conf.lock");
        assert_eq!(mode(&beside), 0o600);
        let try_lock =
            |path: &Path| Flock::lock(File::open(path).unwrap(), FlockArg::LockExclusiveNonblock).is_ok();
        assert!(!try_lock(&beside));
        assert!(try_lock(&directory), "the directory, which others may open, is not what is locked");
        drop(held);
        assert!(try_lock(&beside));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let directory = directory("create");
        let path = directory.join("private.key");
        assert!(create(&path, "first").unwrap());
        assert!(!create(&path, "second").unwrap());
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("first", 0o600));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_a_killed_one_has_left_is_removed_and_nothing_else() {
        let directory = directory("leftovers");
        let path = directory.join("server.conf");
        replace(&path, "mine\n").unwrap();
        for name in [".server.conf.77-0", ".server.conf.swp", ".server.conf.77-", ".other.conf.77-0"] {
            fs::write(directory.join(name), "").unwrap();
        }
        drop(lock(&path).unwrap());
        let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        let kept =
            [".other.conf.77-0", ".server.conf.77-", ".server.conf.lock", ".server.conf.swp", "server.conf"];
        assert_eq!(names, kept);
        fs::remove_dir_all(&directory).unwrap();
    }
}
