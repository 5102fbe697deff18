//! The package for Debian: what is in it, and that it is the same each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::directory::Directory;

/// Packs `program` into a folder of its own, as a person with other habits would.
fn pack(folder: &Path, umask: &str, zone: &str) -> PathBuf {
    fs::create_dir_all(folder).expect("a folder");
    let output = Command::new("sh")
        .args(["-c", "umask \"$1\"; exec scripts/deb amd64", "sh", umask])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PROGRAM", "/bin/true")
        .env("DIST", folder)
        .env("TZ", zone)
        .env("SOURCE_DATE_EPOCH", "1767225600")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_package_is_the_same_each_time_and_whole() {
    if !has("dpkg-deb") {
        println!("skipped: there is no dpkg-deb");
        return;
    }
    let folder = Directory::new("bonding-deb").expect("a folder");
    let [one, other] =
        [("022", "UTC"), ("077", "Asia/Kolkata")].map(|(umask, zone)| pack(&folder.path(umask), umask, zone));
    assert!(fs::read(&one).expect("a package") == fs::read(&other).expect("a package"), "the bytes differ");
    let listed = Command::new("dpkg-deb").arg("-c").arg(&one).output().expect("it runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for (mode, file) in [
        ("-rwxr-xr-x root/root", "./usr/sbin/bonding"),
        ("-rw-r--r-- root/root", "./usr/lib/systemd/system/bonding@.service"),
        ("-rw-r--r-- root/root", "./usr/share/man/man8/bonding.8.gz"),
        ("-rw-r--r-- root/root", "./usr/share/man/man5/bonding.conf.5.gz"),
        ("-rw-r--r-- root/root", "./usr/share/doc/bonding/docs/recipes/1-mlvpn.md"),
        ("drwx------ root/root", "./etc/bonding/"),
    ] {
        let is_it = |line: &str| line.starts_with(mode) && line.ends_with(file);
        assert!(listed.lines().any(is_it), "{mode} {file} is not in\n{listed}");
    }
}

#[test]
fn the_manual_pages_are_right() {
    if !has("groff") {
        println!("skipped: there is no groff");
        return;
    }
    for page in ["bonding.8", "bonding.conf.5"] {
        let path = format!("{}/docs/man/{page}", env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("groff").args(["-man", "-Tutf8", "-Kutf8", "-ww", "-z", &path]).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{page}: {said}");
    }
}
