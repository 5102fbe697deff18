//! Does what the manual says: the code blocks of a page, one after the other, on the machines of a laboratory.
//!
//! What follows the three backquotes says what a block is:
//!
//! | block | what becomes of it |
//! | --- | --- |
//! | `sh server`, `sh router` | its commands are run on that machine |
//! | `file server PATH`, `file router PATH` | the file is written there, mode 0700 if it begins with `#!` |
//! | `text …` | a drawing, or what a command prints; nothing |
//! | `sh not-run: WHY`, `file not-run: WHY` | nothing; the reason is for people |
//!
//! Any other block is a mistake of the page. `'bonding://…'` in a command stands for the line that the server has
//! printed last; what starts a service (`systemctl enable --now bonding@NAME`, `/etc/init.d/bonding restart`) starts the
//! daemon with that service's configuration.
//!
//! Each machine has a network namespace, and an `/etc`, `/run` and `/var/log` of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::bond::links_in_state;
use lab::directory::{Directory, write_program};
use lab::namespace::{Namespace, Process};
use serde_json::Value;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Makes the machine's own folders what the command sees.
const ENTER: &str =
    "for folder in etc run var/log; do mount --bind \"$ROOT/$folder\" \"/$folder\"; done; exec \"$@\"";

/// A machine that the manual is about.
pub struct Machine {
    pub namespace: Namespace,
    root: PathBuf,
    daemon: Option<Process>,
}

impl Machine {
    fn new(namespace: &Namespace, root: PathBuf) -> io::Result<Machine> {
        for folder in ["run", "var/log", "bin"] {
            fs::create_dir_all(root.join(folder))?;
        }
        // As the package makes it.
        fs::create_dir_all(root.join("etc/bonding"))?;
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(&root).output()?;
        if !copied.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&copied.stderr).into_owned()));
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bonding"), root.join("bin/bonding"))?;
        Ok(Machine { namespace: namespace.clone(), root, daemon: None })
    }

    /// Where a file of the machine lies.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", ENTER, "sh"]).args(arguments);
        let path =
            format!("{}:{}", self.root.join("bin").display(), std::env::var("PATH").unwrap_or_default());
        command.env("ROOT", &self.root).env("PATH", path);
        command
    }

    /// Runs commands and gives what they print.
    pub fn shell(&self, commands: &str) -> io::Result<String> {
        let finished = self.namespace.execute(self.command(&["sh", "-ec", commands]), LIMIT)?;
        let output = finished.output.join("\n");
        if finished.status.success() { Ok(output) } else { Err(io::Error::other(output)) }
    }

    /// Starts the daemon, or starts it anew.
    fn start(&mut self, config: &str) -> io::Result<()> {
        self.stop()?;
        self.daemon = Some(self.namespace.spawn(self.command(&["bonding", "run", "--config", config]))?);
        self.wait_for(|_| true).map(drop)
    }

    /// Stops the daemon, if there is one.
    pub fn stop(&mut self) -> io::Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.terminate(LIMIT)?;
        }
        Ok(())
    }

    /// What `bonding status --json` says, as soon as `condition` holds for it.
    pub fn wait_for(&self, condition: impl Fn(&Value) -> bool) -> io::Result<Value> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let status =
                self.shell("bonding status --json").and_then(|text| Ok(serde_json::from_str(&text)?));
            match status {
                Ok(status) if condition(&status) => return Ok(status),
                status if Instant::now() >= deadline => {
                    let output = self.daemon.as_ref().map(Process::output).unwrap_or_default().join("\n");
                    return Err(io::Error::other(format!("last status: {status:?}\n{output}")));
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Waits until so many links are up.
    pub fn wait_until_up(&self, links: usize) -> Value {
        self.wait_for(|status| links_in_state(status, "up") == links).expect("all links come up")
    }
}

/// The two machines of a page.
pub struct Bench {
    pub server: Machine,
    pub router: Machine,
    _root: Directory,
    /// What the server has printed last for a router.
    line: String,
}

impl Bench {
    pub fn new(server: &Namespace, router: &Namespace) -> Bench {
        let root = Directory::new("bonding-manual").expect("a directory");
        let machine = |namespace, name| Machine::new(namespace, root.path(name)).expect("a machine");
        Bench {
            server: machine(server, "server"),
            router: machine(router, "router"),
            line: String::new(),
            _root: root,
        }
    }

    /// Does what the page says.
    pub fn follow(&mut self, page: &str) {
        for block in blocks(page) {
            let block = block.unwrap_or_else(|mistake| panic!("{page}: {mistake}"));
            println!("-- {page}:{}", block.line);
            if let Err(error) = self.carry_out(&block) {
                panic!("{page}:{}: {error}\n{}", block.line, block.text);
            }
        }
    }

    fn carry_out(&mut self, block: &Block) -> io::Result<()> {
        match &block.what {
            What::Nothing => Ok(()),
            What::Run(place) => {
                for script in scripts(&block.text) {
                    self.run(*place, &script)?;
                }
                Ok(())
            }
            What::Write(place, path) => {
                let file = self.machine(*place).path(path);
                fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
                write_program(&file, if block.text.starts_with("#!") { 0o700 } else { 0o600 }, &block.text)
            }
        }
    }

    fn run(&mut self, place: Place, command: &str) -> io::Result<()> {
        if let Some(config) = service(command) {
            self.machine(place).start(&config)?;
            return match place {
                Place::Server => Ok(()),
                Place::Router => self.router.wait_for(|status| links_in_state(status, "up") > 0).map(drop),
            };
        }
        let command = command.replace("bonding://…", &self.line);
        let output = self.machine(place).shell(&command)?;
        println!("{output}");
        if let Some(line) = output.lines().find(|line| line.starts_with("bonding://")) {
            line.clone_into(&mut self.line);
        }
        Ok(())
    }

    fn machine(&mut self, place: Place) -> &mut Machine {
        match place {
            Place::Server => &mut self.server,
            Place::Router => &mut self.router,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Server,
    Router,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Nothing,
    Run(Place),
    Write(Place, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    what: What,
    text: String,
    line: usize,
}

/// A block's commands as scripts; what starts a service is one by itself.
fn scripts(text: &str) -> Vec<String> {
    let mut scripts = vec![String::new()];
    for line in text.lines() {
        if service(line).is_some() {
            scripts.extend([line.to_owned(), String::new()]);
        } else if let Some(script) = scripts.last_mut() {
            script.push_str(line);
            script.push('\n');
        }
    }
    scripts.retain(|script| !script.trim().is_empty());
    scripts
}

/// The configuration of the service that a command starts.
fn service(command: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words.as_slice() {
        ["systemctl", "enable", "--now", unit] | ["systemctl", "restart", unit] => {
            Some(format!("/etc/bonding/{}.conf", unit.strip_prefix("bonding@")?))
        }
        ["/etc/init.d/bonding", "restart"] => Some("/etc/config/bonding".into()),
        _ => None,
    }
}

/// The code blocks of a page, by its path in the repository.
fn blocks(page: &str) -> Vec<Result<Block, String>> {
    let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
    parse(&fs::read_to_string(path).unwrap_or_else(|error| panic!("{page}: {error}")))
}

fn parse(text: &str) -> Vec<Result<Block, String>> {
    let mut blocks = Vec::new();
    let mut open: Option<(Result<What, String>, String, usize)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        match (line.strip_prefix("```"), open.take()) {
            (Some(""), Some((what, text, line))) => {
                blocks.push(what.map(|what| Block { what, text, line }));
            }
            (Some(info), None) => {
                open = Some((
                    what(info).ok_or(format!("line {number}: '{info}' says not what is to be done")),
                    String::new(),
                    number,
                ));
            }
            (_, Some((what, mut text, at))) => {
                text.push_str(line);
                text.push('\n');
                open = Some((what, text, at));
            }
            (None, None) => {}
        }
    }
    if let Some((_, _, line)) = open {
        blocks.push(Err(format!("line {line}: the block has no end")));
    }
    blocks
}

fn what(info: &str) -> Option<What> {
    let place = |word: &str| match word {
        "server" => Some(Place::Server),
        "router" => Some(Place::Router),
        _ => None,
    };
    let words: Vec<&str> = info.split_whitespace().collect();
    match words.as_slice() {
        ["text", ..] => Some(What::Nothing),
        ["sh" | "file", "not-run:", _, ..] => Some(What::Nothing),
        ["sh", at] => place(at).map(What::Run),
        ["file", at, path] if path.starts_with('/') => Some(What::Write(place(at)?, (*path).to_owned())),
        _ => None,
    }
}

/// Pages whose blocks say what becomes of them; those that are followed have a test of their own.
const PAGES: [&str; 12] = [
    "docs/README.md",
    "docs/kernel-mode.md",
    "docs/troubleshooting.md",
    "docs/how-it-works.md",
    "docs/security.md",
    "docs/comparison.md",
    "docs/recipes/README.md",
    "docs/recipes/1-mlvpn.md",
    "docs/recipes/2-openvpn-tap.md",
    "docs/recipes/3-edgerouter.md",
    "docs/recipes/4-openbsd.md",
    "docs/recipes/5-bondlink.md",
];

#[test]
fn every_block_of_the_manual_is_followed_or_says_why_not() {
    for page in PAGES {
        for block in blocks(page) {
            if let Err(mistake) = block {
                panic!("{page}: {mistake}");
            }
        }
    }
}

#[test]
fn pages_lead_to_pages_that_are_there() {
    for page in PAGES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let text = fs::read_to_string(&path).expect("the page");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                let target = path.parent().expect("a folder").join(target);
                assert!(target.exists(), "{page} leads to {link}, which is not there");
            }
        }
    }
}

#[test]
fn blocks_are_told_apart() {
    let text = "a\n```sh server\necho a \\\n  b\n# no\n```\n```text\nx\n```\n```file router /etc/x\n#!/bin/sh\n```\n```sh\n```\n```sh not-run: why\n```\n```";
    let found = parse(text);
    let what = |index: usize| found[index].as_ref().map(|block| block.what.clone());
    assert_eq!(what(0), Ok(What::Run(Place::Server)));
    assert_eq!(
        scripts("a\nsystemctl restart bonding@x\nb\nc\n"),
        ["a\n", "systemctl restart bonding@x", "b\nc\n"]
    );
    assert_eq!(what(1), Ok(What::Nothing));
    assert_eq!(what(2), Ok(What::Write(Place::Router, "/etc/x".into())));
    assert!(what(3).is_err() && what(5).is_err());
    assert_eq!(what(4), Ok(What::Nothing));
}
