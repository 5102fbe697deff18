//! What has changed lately: the last changes of state, kept in memory for `bonding events` and the status.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::bond::Time;

/// Changes that are kept.
pub const CAPACITY: usize = 200;

/// Longest text of one field, in bytes; names come from the configuration or from an authenticated peer.
const MAX_TEXT: usize = 300;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Counts all changes since the start, from 1: a gap means that older ones were forgotten.
    pub number: u64,
    /// When, in milliseconds since 1970 by the clock of that moment, which may have been wrong.
    pub unix_ms: u64,
    /// When, by the monotonic clock. Not part of the JSON, which gives `age_ms` instead.
    #[serde(skip)]
    pub at: Time,
    /// The peer that it happened to: its section's name.
    pub peer: Option<String>,
    /// The link that it happened to.
    pub link: Option<String>,
    /// What happened, in a word or two: `up`, `down`, `reload`, …
    pub what: String,
    /// Why, or more of it; may be empty.
    pub why: String,
}

/// A [`Record`] and how long ago it was.
#[derive(Clone, Debug, Serialize)]
pub struct Aged {
    /// The record.
    #[serde(flatten)]
    pub record: Record,
    /// Milliseconds since then.
    pub age_ms: u64,
}

/// The last [`CAPACITY`] changes.
#[derive(Debug, Default)]
pub struct Events {
    records: VecDeque<Record>,
    count: u64,
}

impl Events {
    /// Keeps a change, and forgets the oldest one where there are too many.
    pub fn push(&mut self, at: Time, peer: Option<&str>, link: Option<&str>, what: &str, why: &str) {
        if self.records.len() >= CAPACITY {
            self.records.pop_front();
        }
        self.count += 1;
        self.records.push_back(Record {
            number: self.count,
            unix_ms: unix_ms(),
            at,
            peer: peer.map(bounded),
            link: link.map(bounded),
            what: bounded(what),
            why: bounded(why),
        });
    }

    /// All that are kept, the oldest first.
    pub fn aged(&self, now: Time) -> Vec<Aged> {
        self.records
            .iter()
            .map(|record| Aged {
                record: record.clone(),
                age_ms: u64::try_from(now.since(record.at).as_millis()).unwrap_or(u64::MAX),
            })
            .collect()
    }
}

/// Milliseconds since 1970, as the system's clock has it; 0 before.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut events = Events::default();
        let start = Time::from_millis(5);
        for _ in 0..CAPACITY + 3 {
            events.push(start, None, Some("wan0"), "up", "");
        }
        let aged = events.aged(start + Duration::from_millis(7));
        assert_eq!(aged.len(), CAPACITY);
        assert_eq!((aged[0].record.number, aged[0].age_ms), (4, 7));
        assert_eq!(aged.last().unwrap().record.number, CAPACITY as u64 + 3);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut events = Events::default();
        events.push(Time::ZERO, None, None, "down", &"é".repeat(MAX_TEXT));
        let why = &events.aged(Time::ZERO)[0].record.why;
        assert!(why.len() <= MAX_TEXT && why.chars().all(|c| c == 'é'));
    }

    #[test]
    fn json() {
        let mut events = Events::default();
        events.push(Time::from_millis(1), Some("bond"), None, "down", "no link answers");
        let value = serde_json::to_value(events.aged(Time::from_millis(3))).unwrap();
        assert_eq!(value[0]["age_ms"], 2);
        assert_eq!(value[0]["peer"], "bond");
        assert_eq!(value[0]["link"], serde_json::Value::Null);
        assert!(value[0].get("at").is_none());
    }
}
