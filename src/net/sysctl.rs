//! Switches of an interface under `/proc/sys/net`, with their old values remembered.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::Family;
use crate::bond::sorted::SortedMap;
use crate::json::{self, FromJson};

/// Reverse path filter (`rp_filter`) that only asks whether the source can be reached at all (RFC 3704, section 2.4).
pub const RP_FILTER_LOOSE: &str = "2";

/// Why a switch could not be set.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// A name that would lead out of the directory.
    #[error("'{0}' is not the name of an interface or a switch")]
    Name(String),
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The switch.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file that remembers old values is damaged.
    #[error("{path}: {source}: remove the file, and set the switches by hand if they matter")]
    Saved {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: json::Error,
    },
}

/// A switch of an interface, and the value that it shall have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Switch {
    /// IP version.
    pub family: Family,
    /// The interface, or `all`.
    pub device: String,
    /// Its name.
    pub name: &'static str,
    /// The value.
    pub value: &'static str,
}

impl Switch {
    /// What keeps ICMP redirects from `device` and to it (RFC 1812, section 5.2.7.2): who follows one leaves the bond, or
    /// a link's own way. The kernel sends them where the device's switch or that for all is on.
    pub fn no_redirects(device: &str) -> Vec<Switch> {
        let switch = |family, device: &str, name| Switch { family, device: device.into(), name, value: "0" };
        vec![
            switch(Family::V4, "all", "send_redirects"),
            switch(Family::V4, device, "send_redirects"),
            switch(Family::V4, device, "accept_redirects"),
            switch(Family::V6, device, "accept_redirects"),
        ]
    }
}

/// Switches that were changed, with their values before.
///
/// The old values can be kept in a file, so that the next start after a crash knows what to restore.
#[derive(Debug, Default)]
pub struct Sysctls {
    file: Option<PathBuf>,
    /// By the path of each switch.
    changes: SortedMap<String, Change>,
}

/// A switch that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Value before.
    pub before: String,
    /// Value that we gave it.
    pub set: String,
}

impl FromJson for Change {
    fn from_json(value: &Value) -> Option<Self> {
        Some(Change { before: json::get(value, "before")?, set: json::get(value, "set")? })
    }
}

impl Sysctls {
    /// Remembers in memory only.
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers in `file` too, which should be on a file system that a reboot empties, as the switches are. Values that
    /// a crashed process left there are taken over.
    pub fn with_file(file: PathBuf) -> Result<Self, SysctlError> {
        let changes = match fs::read(&file) {
            Ok(text) => {
                json::read(&text).map_err(|source| SysctlError::Saved { path: file.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => SortedMap::new(),
            Err(source) => return Err(SysctlError::Io { path: file, source }),
        };
        Ok(Sysctls { file: Some(file), changes })
    }

    /// Sets a switch of an interface and remembers the value before the first change. Nothing is written where the value
    /// is right already.
    pub fn set(
        &mut self,
        family: Family,
        device: &str,
        switch: &str,
        value: &str,
    ) -> Result<(), SysctlError> {
        let path = interface_path(family, device, switch)?;
        let before = read(&path)?;
        if before == value {
            return Ok(());
        }
        let change = self.changes.get_or_insert_with(path.clone(), || Change { before, set: String::new() });
        value.clone_into(&mut change.set);
        self.save()?;
        write(&path, value)
    }

    /// Lets packets of other links' networks in by `device`: sets the reverse path filter to loose, if it is strict.
    ///
    /// The kernel takes the higher of the device's own value and that for `all`: strict (1) for all is answered by
    /// loose (2) for the device.
    pub fn relax_rp_filter(&mut self, device: &str) -> Result<(), SysctlError> {
        let strict =
            |device| Ok::<bool, SysctlError>(read(&interface_path(Family::V4, device, "rp_filter")?)? == "1");
        if strict(device)? || strict("all")? {
            self.set(Family::V4, device, "rp_filter", RP_FILTER_LOOSE)?;
        }
        Ok(())
    }

    /// Sets a switch as [`Sysctls::set`] does; one that is not there (the device is gone, the family is switched off) is
    /// left out.
    pub fn apply(&mut self, switch: &Switch) -> Result<(), SysctlError> {
        match self.set(switch.family, &switch.device, switch.name, switch.value) {
            Err(SysctlError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// What was changed.
    pub fn changes(&self) -> impl Iterator<Item = (&Path, &Change)> {
        self.changes.iter().map(|(path, change)| (Path::new(path), change))
    }

    /// Gives every switch its old value, except where somebody else has set another one since. Devices that are gone
    /// are forgotten. The first error is returned after all have been tried.
    pub fn restore(&mut self) -> Result<(), SysctlError> {
        let mut result = Ok(());
        for (path, change) in std::mem::take(&mut self.changes) {
            let restored = match read(&path) {
                Ok(now) if now == change.set => write(&path, &change.before),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match restored {
                Err(SysctlError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.changes.insert(path, change);
                    if result.is_ok() {
                        result = Err(error);
                    }
                }
                Ok(()) => {}
            }
        }
        self.save()?;
        result
    }

    fn save(&self) -> Result<(), SysctlError> {
        let Some(file) = &self.file else { return Ok(()) };
        let failed = |source| SysctlError::Io { path: file.clone(), source };
        if self.changes.is_empty() {
            return match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = json!(self.changes).to_string();
        // A crash between the two leaves the old file or the new one, never half of one.
        let new = file.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, file)).map_err(failed)
    }
}

/// Has the kernel forward packets; gives whether it did not before.
///
/// It stays so: others may count on it by the time we end. IPv6 interfaces that learn their routes from announcements
/// go on doing so, which the kernel ends otherwise when it begins to forward.
///
/// # Errors
///
/// When a switch cannot be read or written.
pub fn forward(family: Family) -> Result<bool, SysctlError> {
    let all = interface_path(family, "all", "forwarding")?;
    if read(&all)? != "0" {
        return Ok(false);
    }
    if family == Family::V6 {
        let interfaces = Path::new("/proc/sys/net/ipv6/conf");
        let failed = |source| SysctlError::Io { path: interfaces.to_owned(), source };
        for interface in fs::read_dir(interfaces).map_err(failed)?.flatten() {
            let path = interface_path(family, &interface.file_name().to_string_lossy(), "accept_ra")?;
            // "Also if forwarding" (Documentation/networking/ip-sysctl).
            if read(&path).is_ok_and(|value| value == "1") {
                write(&path, "2")?;
            }
        }
    }
    write(&all, "1")?;
    Ok(true)
}

/// Reads a switch of an interface, in the network namespace of the calling thread.
pub fn get(family: Family, device: &str, switch: &str) -> Result<String, SysctlError> {
    read(&interface_path(family, device, switch)?)
}

fn interface_path(family: Family, device: &str, switch: &str) -> Result<String, SysctlError> {
    for name in [device, switch] {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(SysctlError::Name(name.to_owned()));
        }
    }
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    Ok(format!("/proc/sys/net/{family}/conf/{device}/{switch}"))
}

fn read(path: &str) -> Result<String, SysctlError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(SysctlError::Io { path: path.into(), source }),
    }
}

fn write(path: &str, value: &str) -> Result<(), SysctlError> {
    fs::write(path, value).map_err(|source| SysctlError::Io { path: path.into(), source })
}

#[cfg(test)]
#[path = "sysctl_tests.rs"]
mod tests;
