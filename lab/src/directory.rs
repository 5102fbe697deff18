//! A directory for the files of a run.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A temporary directory that nobody else reads, as keys need it; removed with this value.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// One that begins with `name`.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn new(name: &str) -> io::Result<Directory> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("{name}-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                // A process of the same number was killed, and has left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Directory(path)),
            }
        }
    }

    /// Itself.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Where a file of it lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that only its owner may read.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }
}

/// Writes a program, by another process: were it this one, a child that it starts meanwhile would hold the file open for
/// writing until it becomes its own program, and the kernel runs no file that is written to.
///
/// # Errors
///
/// When it cannot be written.
pub fn write_program(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "cat > \"$0\" && chmod \"$1\" \"$0\""]).arg(path).arg(format!("{mode:o}"));
    let mut writer = command.stdin(Stdio::piped()).spawn()?;
    if let Some(mut input) = writer.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    match writer.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{} cannot be written", path.display()))),
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
