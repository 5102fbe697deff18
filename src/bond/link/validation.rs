//! Whether the other end is where its packets come from: an address is used once it has answered a challenge.

use super::{CHALLENGE_INTERVAL, Link, LinkState, Validation};
use crate::wire::Frame;
use crate::{Path, Time};

impl Link {
    /// An authenticated packet came over this link from `path`. `token` gives fresh randomness for a challenge.
    pub fn heard_from(&mut self, path: Path, token: &mut dyn FnMut() -> [u8; 8], now: Time) {
        self.heard = now;
        if self.hello.is_some() || self.path == Some(path) {
            return;
        }
        // Server: an address is believed when it has answered a challenge.
        let fresh = match &self.validation {
            Some(v) if v.path == path => now.since(v.sent) >= CHALLENGE_INTERVAL,
            Some(v) => now.since(v.sent) >= CHALLENGE_INTERVAL / 2,
            None => true,
        };
        if !fresh {
            return;
        }
        let token = match &self.validation {
            Some(v) if v.path == path => v.token,
            _ => token(),
        };
        self.validation = Some(Validation { path, token, sent: now });
        let mut frames = Vec::new();
        Frame::Challenge(token).write(&mut frames);
        self.send_direct(path, frames);
        if self.path.is_none() && self.state != LinkState::Joining {
            self.enter(LinkState::Joining, "checking the client's address", now);
        }
    }

    /// The other end challenged us from `path`.
    pub fn challenged(&mut self, path: Path, token: [u8; 8]) {
        let mut frames = Vec::new();
        Frame::Response(token).write(&mut frames);
        self.send_direct(path, frames);
    }

    /// The echo of a challenge came from `path`.
    pub fn response(&mut self, path: Path, token: [u8; 8], now: Time) {
        let Some(validation) = &self.validation else { return };
        if validation.token != token || (self.hello.is_none() && validation.path != path) {
            return;
        }
        let validated = validation.path;
        let moved = self.path.is_some_and(|old| old != validated);
        self.validation = None;
        self.path = Some(validated);
        if !self.settings.enabled {
            return;
        }
        if moved {
            self.capacity.path_changed(now);
            self.mtu.restart(now);
        }
        if self.state != LinkState::Up {
            self.come_up(now);
        }
    }
}
