use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::Duration;

use lab::directory::{Directory, write_program};

use super::*;

/// A directory with scripts and a configuration that names them.
struct Place {
    directory: Directory,
    _descriptors: MutexGuard<'static, ()>,
}

impl Place {
    fn new(options: &str) -> Place {
        let directory = Directory::new("bonding-runner").unwrap();
        let place = Place { directory, _descriptors: lab::descriptors() };
        place.configure(options);
        place
    }

    fn configure(&self, options: &str) {
        let text = format!(
            "config globals\n option role server\nconfig interface 'bond'\n option ipaddr '10.0.0.1/24'\n\
             option preup '/nonexistent'\n{}",
            options.replace("DIR", &self.directory.as_path().display().to_string())
        );
        self.directory.write("bonding", &text).unwrap();
    }

    fn script(&self, name: &str, mode: u32, text: &str) {
        write_program(&self.path(name), mode, &format!("#!/bin/sh\n{text}\n")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path(name)
    }
}

/// The other end on a thread instead of in a process.
fn attach(place: &Place) -> Runner {
    let (stream, theirs) = BlockingStream::pair().unwrap();
    let config = place.path("bonding");
    std::thread::spawn(move || process::serve_on(theirs, &config));
    Started { stream }.attach().unwrap()
}

fn within<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await.expect("in time") })
}

fn script(hook: Hook, arguments: &[&str], environment: &[(&str, &str)]) -> Task {
    Task::Script {
        hook,
        arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        environment: environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

fn ran(outcome: Outcome) -> job::Finished {
    match outcome {
        Outcome::Ran(finished) => finished,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_said_is_understood() {
    for task in [
        script(Hook::PreUp, &["a\n\"b\"", ""], &[("MTU", "1400"), ("IP4", "")]),
        Task::Action,
        Task::Interface { name: "wan".into() },
        Task::Configure,
    ] {
        let line = Order { id: u32::MAX, task: task.clone() }.line();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
        let order = json::read::<Order>(line.as_bytes()).unwrap();
        assert_eq!((order.id, order.task), (u32::MAX, task));
    }
    let finished =
        |failure| job::Finished { failure, output: "\u{fffd}\t".into(), omitted: u64::MAX, took_ms: 7 };
    for outcome in [
        Outcome::Absent,
        Outcome::Refused { reason: "why".into() },
        Outcome::Ran(finished(None)),
        Outcome::Ran(finished(Some("exit".into()))),
        Outcome::Found("{\n}\n".into()),
        Outcome::NotFound { nowhere: true, reason: "gone".into() },
        Outcome::Configured,
        Outcome::NoRunner,
    ] {
        let line = Answer { id: 0, outcome: outcome.clone() }.line();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
        let answer = json::read::<Answer>(line.as_bytes()).unwrap();
        assert_eq!((answer.id, answer.outcome), (0, outcome));
    }
    assert!(
        Hook::ALL
            .iter()
            .all(|hook| json::read::<Hook>(json!(hook.option()).to_string().as_bytes()).unwrap() == *hook)
    );
    for nonsense in ["[1,\"action\",2]", "[1]", "[-1,\"action\"]", "[1,\"script\",\"sideways\",[],{}]", "7"] {
        assert!(json::read::<Order>(nonsense.as_bytes()).is_err(), "{nonsense}");
    }
}

#[test]
fn a_script_gets_arguments_and_a_clean_environment() {
    let place = Place::new(" option up 'DIR/up.sh'\n");
    place.script("up.sh", 0o755, "echo \"$# $1 $2\"; env | sort | grep -v '^_=\\|^PWD=\\|^SHLVL='");
    let output = within(async {
        ran(attach(&place).run(script(Hook::Up, &["a b", "c"], &[("MTU", "1400")])).await).output
    });
    assert_eq!(output, "2 a b c\nMTU=1400\nPATH=/usr/sbin:/usr/bin:/sbin:/bin\n");
}

#[test]
fn what_the_configuration_does_not_name_is_not_run() {
    let place = Place::new("");
    within(async {
        let runner = attach(&place);
        assert_eq!(runner.run(script(Hook::Link, &[], &[])).await, Outcome::Absent);
        assert_eq!(runner.run(Task::Action).await, Outcome::Absent);
        // A script that the file names must be there, one at the customary place need not.
        let Outcome::Refused { reason } = runner.run(script(Hook::PreUp, &[], &[])).await else { panic!() };
        assert_eq!(reason, "'/nonexistent' does not exist");
        place.script("link.sh", 0o755, "echo $2");
        place.configure(" option link_script 'DIR/link.sh'\n");
        assert_eq!(runner.run(script(Hook::Link, &[], &[])).await, Outcome::Absent, "not yet");
        assert_eq!(runner.run(Task::Configure).await, Outcome::Configured);
        assert_eq!(ran(runner.run(script(Hook::Link, &["bond0", "rtun_up"], &[])).await).output, "rtun_up\n");
        // A file with errors changes nothing.
        place.configure(" option link_script 'not absolute'\n");
        assert_eq!(runner.run(Task::Configure).await, Outcome::Configured);
        assert_eq!(ran(runner.run(script(Hook::Link, &["bond0", "rtun_up"], &[])).await).output, "rtun_up\n");
        for task in [
            script(Hook::Link, &[], &[("LD_PRELOAD", "/tmp/x.so")]),
            script(Hook::Link, &["a\0b"], &[]),
            script(Hook::Link, &["x"; 9], &[]),
        ] {
            assert!(matches!(runner.run(task).await, Outcome::Refused { .. }));
        }
    });
}

#[test]
fn others_scripts_are_refused() {
    let place = Place::new(" option up 'DIR/up.sh'\n");
    place.script("up.sh", 0o757, "echo never");
    let outcome = within(async { attach(&place).run(script(Hook::Up, &[], &[])).await });
    let Outcome::Refused { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("can be changed by others (mode 0757): run `chmod go-w"), "{reason}");
}

#[test]
fn scripts_run_in_order_and_nothing_else_waits_for_them() {
    let place = Place::new(" option up 'DIR/slow.sh'\n option down 'DIR/quick.sh'\n");
    let (log, go_on) = (place.path("log"), place.path("go-on"));
    let slow =
        format!("until [ -e {} ]; do sleep 0.02; done; echo slow >> {}", go_on.display(), log.display());
    place.script("slow.sh", 0o755, &slow);
    place.script("quick.sh", 0o755, &format!("echo quick >> {}", log.display()));
    within(async {
        let runner = attach(&place);
        let (up, down) = (script(Hook::Up, &[], &[]), script(Hook::Down, &[], &[]));
        let slow = tokio::spawn({
            let runner = runner.clone();
            async move { runner.run(up).await }
        });
        // The order of the tasks is that in which they are spawned.
        tokio::task::yield_now().await;
        let quick = tokio::spawn({
            let runner = runner.clone();
            async move { runner.run(down).await }
        });
        assert_eq!(runner.run(Task::Configure).await, Outcome::Configured);
        assert!(!slow.is_finished() && !quick.is_finished());
        std::fs::write(&go_on, "").unwrap();
        assert_eq!(ran(slow.await.unwrap()).failure, None);
        assert_eq!(ran(quick.await.unwrap()).failure, None);
    });
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "slow\nquick\n");
}

#[test]
fn every_link_of_a_client_can_be_asked_for_at_once() {
    let place = Place::new("");
    within(async {
        let runner = attach(&place);
        // netifd cannot have such an interface: the answer is always the same, with ubus and without.
        let ask = |_| {
            tokio::spawn({
                let runner = runner.clone();
                async move { runner.run(Task::Interface { name: "no interface".into() }).await }
            })
        };
        let asked: Vec<_> = (0..crate::config::MAX_LINKS).map(ask).collect();
        for answer in asked {
            let Outcome::NotFound { reason, .. } = answer.await.unwrap() else { panic!() };
            assert!(reason.contains("cannot name an interface"), "{reason}");
        }
    });
}

#[test]
fn the_end_of_the_process_is_told() {
    let (stream, theirs) = BlockingStream::pair().unwrap();
    within(async {
        let runner = Started { stream }.attach().unwrap();
        drop(theirs);
        assert_eq!(runner.run(Task::Action).await, Outcome::NoRunner);
    });
}
