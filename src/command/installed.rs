//! Where the files of a bond are by convention, and what starts it: by OpenWrt's init script, by the systemd unit of
//! the Debian package, or by hand.

use std::path::{Path, PathBuf, absolute};

/// The only configuration that OpenWrt's init script starts.
const OPENWRT_CONFIG: &str = "/etc/config/bonding";

/// What `bonding@NAME.service` reads `NAME.conf` from, and the directory of the option's default for the private key.
const DIRECTORY: &str = "/etc/bonding";

/// Whether this is OpenWrt.
pub fn is_openwrt() -> bool {
    Path::new("/etc/openwrt_release").exists()
}

/// Where the router's configuration is when nothing else is said.
pub fn default_config() -> PathBuf {
    PathBuf::from(if is_openwrt() { OPENWRT_CONFIG } else { "/etc/bonding/client.conf" })
}

/// Where the private key of a new configuration is kept: beside it, so that a bond is moved by moving its directory, and
/// two bonds of one machine have a key each. `None` where the option's default is right: for `/etc/bonding`, and for
/// the files of UCI, among which nothing else may be.
pub(super) fn private_key_of(config: &Path) -> Option<PathBuf> {
    let key = absolute(config).ok()?.with_file_name("private.key");
    let default = key
        .parent()
        .is_none_or(|directory| [Path::new(DIRECTORY), Path::new("/etc/config")].contains(&directory));
    (!default).then_some(key)
}

/// The systemd unit that reads `config`, if systemd runs this system and there is one.
pub(super) fn systemd_unit(config: &Path) -> Option<String> {
    unit_of(config).filter(|_| Path::new("/run/systemd/system").exists())
}

fn unit_of(config: &Path) -> Option<String> {
    let config = absolute(config).ok()?;
    let ours = config.parent()? == Path::new(DIRECTORY) && config.extension()? == "conf";
    ours.then(|| Some(format!("bonding@{}.service", config.file_stem()?.to_str()?)))?
}

/// The command that starts a daemon with `config`, now and, where a service can, with the system.
pub(super) fn start_command(config: &Path) -> String {
    match systemd_unit(config) {
        _ if is_openwrt() && config == Path::new(OPENWRT_CONFIG) => {
            "/etc/init.d/bonding enable; /etc/init.d/bonding restart".into()
        }
        Some(unit) => format!("systemctl enable --now {unit}"),
        None => format!("bonding run --config {}", config.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_beside_its_configuration() {
        let key = |config: &str| private_key_of(Path::new(config));
        assert_eq!(key("/srv/bond/client.conf"), Some("/srv/bond/private.key".into()));
        assert_eq!(key("client.conf"), Some(absolute("private.key").unwrap()));
        for config in ["/etc/bonding/client.conf", "/etc/bonding/other.conf", "/etc/config/bonding"] {
            assert_eq!(key(config), None, "{config}");
        }
    }

    #[test]
    fn a_unit_reads_one_configuration_only() {
        let unit = |config: &str| unit_of(Path::new(config));
        assert_eq!(unit("/etc/bonding/office.conf").as_deref(), Some("bonding@office.service"));
        for config in
            ["/etc/bonding/office", "/etc/bonding/deep/office.conf", "/srv/client.conf", "client.conf"]
        {
            assert_eq!(unit(config), None, "{config}");
        }
        assert_eq!(start_command(Path::new("/srv/client.conf")), "bonding run --config /srv/client.conf");
    }
}
