//! The watchdog's turn in the loop, and the clock's.

use std::time::Duration;

use super::{Daemon, Message, SERVER, Side};
use crate::bond::Time;
use crate::daemon::clock;
use crate::daemon::events::unix_ms;
use crate::daemon::runner::{Outcome, Task};
use crate::daemon::scripts::Report;
use crate::daemon::watchdog::{Watchdog, ping_any};
use crate::io::timer::now;

/// After the clock could not be stored.
const STORE_AGAIN: Duration = Duration::from_secs(3_600);

/// What a command's report is called in log and events.
const ACTION: &str = "watchdog_action";

impl Daemon {
    /// Once a second.
    pub(super) fn watch(&mut self, now: Time) {
        let Side::Client(client) = &self.side else { return };
        let link_up = client.is_up();
        let Some(watchdog) = &mut self.watchdog else { return };
        if let Some(addresses) = watchdog.due_ping(link_up, now) {
            let (device, limit, tell) = (self.device.clone(), watchdog.patience(), self.tell.clone());
            crate::daemon::spawn(async move {
                let answer = ping_any(device, addresses, limit).await;
                let _ = tell.send(Message::Pinged(answer)).await;
            });
        }
        if watchdog.due_action(link_up, now) {
            let silence = watchdog.silence(now).as_secs();
            let why = format!("nobody has answered for {silence} s: running '{}'", watchdog.action());
            let (runner, tell) = (self.runner.clone(), self.tell.clone());
            crate::daemon::spawn(async move {
                let outcome = runner.run(Task::Action).await;
                let _ = tell.send(Message::Acted(outcome)).await;
            });
            self.event(Some(SERVER), None, "watchdog", &why);
        }
    }

    pub(super) fn take_ping(&mut self, answer: std::io::Result<Duration>) {
        if let Some(watchdog) = &mut self.watchdog
            && watchdog.answer(answer, now())
        {
            self.event(Some(SERVER), None, "watchdog", "the bond works again");
        }
    }

    pub(super) fn take_action(&mut self, outcome: Outcome) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.acted(now());
        }
        self.take_report(&Report { label: ACTION.to_owned(), outcome });
    }

    /// After a reload.
    pub(super) fn configure_watchdog(&mut self) {
        match (&mut self.watchdog, self.config.bond.watchdog.clone()) {
            (Some(watchdog), Some(config)) => watchdog.configure(config),
            (None, Some(config)) => {
                let memory = self.config.globals.control_socket.with_extension("watchdog");
                self.watchdog = Some(Watchdog::new(config, memory, now()));
            }
            (_, None) => self.watchdog = None,
        }
    }

    /// Once a second: lets the clock of handshakes catch up with the date, and stores how far it may go.
    pub(super) fn keep_clock(&mut self, now: Time) {
        let Side::Client(client) = &self.side else { return };
        if clock::in_doubt(client.is_up(), self.last_up, now) {
            self.driver.endpoint_mut().advance_clock(unix_ms(), now);
        }
        if client.is_up() {
            self.last_up = now;
        }
        let Some(file) = self.clock.clone() else { return };
        if self.store_at.is_none_or(|at| now < at) {
            return;
        }
        let Some(reservation) = self.driver.endpoint().clock_reservation(now) else { return };
        self.store_at = None;
        let tell = self.tell.clone();
        crate::daemon::spawn_blocking(move || {
            let _ = tell.blocking_send(Message::Stored(reservation, file.write(reservation)));
        });
    }

    pub(super) fn take_stored(&mut self, reservation: u64, result: std::io::Result<()>) {
        self.store_at = Some(now());
        match (result, &self.clock) {
            (Ok(()), _) => self.driver.endpoint_mut().clock_stored(reservation),
            (Err(error), file) => {
                self.store_at = Some(now() + STORE_AGAIN);
                if let Some(file) = file {
                    file.complain(&error);
                }
            }
        }
    }
}
