//! How a server asks for a handshake: only the client can make one, and only in handshakes the ends tell each other what
//! they take.

use std::time::Duration;

use super::Time;

/// It is asked for again after this, at first and at the most.
const FIRST_RETRY: Duration = Duration::from_millis(300);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The server's side.
#[derive(Debug, Default)]
pub struct Renewal {
    /// When the client is to be asked next; `None` when it has been told all.
    due: Option<Time>,
    retry: Duration,
    /// It was told in a handshake that it has yet to confirm.
    answered: bool,
}

impl Renewal {
    /// There is something to be told.
    pub fn ask(&mut self, now: Time) {
        *self = Renewal { due: Some(now), retry: FIRST_RETRY, answered: false };
    }

    /// The client's handshake was answered.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// The client has confirmed a handshake.
    pub fn confirmed(&mut self) {
        if self.answered {
            self.due = None;
        }
    }

    /// When [`Renewal::poll`] has something.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.due
    }

    /// Whether the client is to be asked now.
    pub fn poll(&mut self, now: Time) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = Some(now + self.retry);
        self.retry = (self.retry * 2).min(LAST_RETRY);
        true
    }
}
