//! `bonding completion bash`: what a shell needs to complete a command line.
//!
//! Commands and options are taken from the help texts, so that they cannot differ; names of links and peers are asked of
//! the daemon at the moment when they are wanted.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::arguments::{Invocation, names, parse};
use crate::bond::sorted::SortedSet;
use crate::daemon::control::{Command, ask};

/// What is to be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The script for bash.
    Bash,
    /// The names of the links.
    Links,
    /// The names of a server's peers.
    Peers,
}

impl Topic {
    /// By its name on the command line.
    pub fn named(name: &str) -> Option<Topic> {
        match name {
            "bash" => Some(Topic::Bash),
            "links" => Some(Topic::Links),
            "peers" => Some(Topic::Peers),
            _ => None,
        }
    }
}

/// Prints the script, or names; gives the exit code.
///
/// # Errors
///
/// When the output cannot be written.
pub fn run(topic: Topic, socket: &Path, out: &mut dyn io::Write) -> io::Result<u8> {
    if topic == Topic::Bash {
        out.write_all(script().as_bytes())?;
        return Ok(0);
    }
    // Without a daemon there is nothing to complete, which is no reason for a message in somebody's command line.
    let Ok(status) = ask(socket, &Command::Status) else { return Ok(super::NO_DAEMON) };
    let names: Vec<&str> = match topic {
        Topic::Links => {
            status["links"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
        }
        _ => {
            status["peers"].as_object().into_iter().flatten().filter_map(|(_, name)| name.as_str()).collect()
        }
    };
    let harmless =
        |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    for name in names.into_iter().filter(harmless) {
        writeln!(out, "{name}")?;
    }
    Ok(0)
}

/// The options of a command, as its help names them.
fn options(command: &str) -> SortedSet<String> {
    let arguments = vec![OsString::from(command), "--help".into()];
    let Ok(Invocation::Help(text)) = parse(arguments) else { return SortedSet::new() };
    let stops = |c: char| !(c.is_ascii_lowercase() || c == '-');
    let words = text.split(stops).filter(|word| word.starts_with("--") && word.len() > 2);
    words.map(str::to_owned).chain(["--help".to_owned()]).collect()
}

fn script() -> String {
    let mut script = BEGINNING.replace("COMMANDS", &names().join(" "));
    for command in names() {
        let options: Vec<String> = options(command).into_iter().collect();
        script += &format!("    {command}) options='{}' ;;\n", options.join(" "));
    }
    script + END
}

const BEGINNING: &str = r#"# bash completion for bonding: `bonding completion bash > /etc/bash_completion.d/bonding`

_bonding() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} options= words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W 'COMMANDS' -- "$current"))
        return
    fi
    case $previous in
    -c | --config | --socket)
        COMPREPLY=($(compgen -f -- "$current"))
        return
        ;;
    --log-level) words='error warn info debug trace' ;;
    --wan | --device) words=$(cd /sys/class/net 2>/dev/null && echo *) ;;
    esac
    case ${COMP_WORDS[1]}:$COMP_CWORD in
    link:2) words=$(bonding completion links 2>/dev/null) ;;
    link:3) words='up down reconnect' ;;
    server:2) words='init add-peer list show remove' ;;
    server:3) [[ ${COMP_WORDS[2]} == @(show|remove) ]] && words=$(bonding completion peers 2>/dev/null) ;;
    help:2) words='COMMANDS' ;;
    completion:2) words='bash' ;;
    check:* | import:* | plan:*) [[ $current != -* ]] && COMPREPLY=($(compgen -f -- "$current")) && return ;;
    esac
    if [[ -n $words ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        return
    fi
    case ${COMP_WORDS[1]} in
"#;

const END: &str = r#"    esac
    COMPREPLY=($(compgen -W "$options" -- "$current"))
}

complete -o filenames -F _bonding bonding
"#;

#[cfg(test)]
mod tests {
    use std::process::Command as Program;

    use super::*;

    /// What bash completes for these words; `None` where there is no bash.
    fn completed(words: &[&str]) -> Option<Vec<String>> {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        // The daemon is not asked: a function stands for the program.
        let text = format!(
            "bonding() {{ echo adsl1 adsl2; }}\n{}\nCOMP_WORDS=({})\nCOMP_CWORD={}\n_bonding\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script(),
            quoted.join(" "),
            words.len() - 1
        );
        let output = Program::new("bash").args(["--norc", "-c", &text]).output().ok()?;
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && complaint.is_empty(), "{complaint}");
        let text = String::from_utf8(output.stdout).unwrap();
        Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    #[test]
    fn bash_completes_commands_options_and_names() {
        for (words, expected) in [
            (vec!["bonding", "st"], vec!["status"]),
            (vec!["bonding", "status", "--w"], vec!["--watch"]),
            (vec!["bonding", "link", ""], vec!["adsl1", "adsl2"]),
            (vec!["bonding", "link", "adsl1", "r"], vec!["reconnect"]),
            (vec!["bonding", "run", "--log-level", "d"], vec!["debug"]),
            (vec!["bonding", "check", "/etc/host"], vec!["/etc/hostname", "/etc/hosts"]),
            (vec!["bonding", "server", "a"], vec!["add-peer"]),
        ] {
            let Some(completed) = completed(&words) else {
                println!("skipped: there is no bash");
                return;
            };
            let found = expected.iter().filter(|word| completed.contains(&(**word).to_owned())).count();
            assert!(
                found > 0 && (found == expected.len() || words[1] == "check"),
                "{words:?}: {completed:?}"
            );
        }
    }

    #[test]
    fn options_are_those_of_the_help() {
        let of = |command: &str| options(command).into_iter().collect::<Vec<_>>().join(" ");
        assert!(
            of("status").starts_with("--help --json ") && of("status").ends_with("--routes --socket --watch")
        );
        assert_eq!(of("run"), "--config --help --log-level --syslog");
        assert_eq!(of("genkey"), "--help");
        for command in names() {
            assert!(script().contains(&format!("    {command}) options='")), "{command}");
        }
    }
}
