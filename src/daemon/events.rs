//! What happened lately: the last state changes, kept in memory.

use std::collections::VecDeque;

use serde::Serialize;

/// State changes that are kept.
const KEPT: usize = 200;

/// One state change.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// When, by the wall clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whose.
    pub peer: String,
    /// The link, where it was one.
    pub link: Option<String>,
    /// The new state.
    pub what: String,
    /// The reason; empty where there is nothing to say.
    pub why: String,
}

/// The last state changes, oldest first.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Events(VecDeque<Entry>);

impl Events {
    /// Enters a change; the oldest one gives way.
    pub fn push(&mut self, peer: &str, link: Option<&str>, what: &str, why: &str) {
        if self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Entry {
            unix_ms: super::setup::unix_ms(),
            peer: peer.to_owned(),
            link: link.map(str::to_owned),
            what: what.to_owned(),
            why: why.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_ones_are_kept() {
        let mut events = Events::default();
        for n in 0..500 {
            events.push("server", Some("adsl1"), "up", &n.to_string());
        }
        assert_eq!(events.0.len(), KEPT);
        assert_eq!(events.0.back().map(|e| e.why.as_str()), Some("499"));
    }
}
