//! How much of a month's quota the metered links have used, over restarts of the program and of the router.
//!
//! The count is kept in two files. One lies beside the control socket, in memory on a router, and is written often: a
//! daemon that starts again loses seconds. The other one (`usage` in
//! `state_dir`) outlives a power cut and is written seldom, to
//! spare the flash: once an hour, when a quota is used up, and at the end.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::bond::Time;
use crate::bond::sorted::SortedMap;
use crate::config::{Link, store};
use crate::json::{self, FromJson, get};

/// The lasting file's name in `state_dir`.
pub const NAME: &str = "usage";
/// How often the volatile file is written.
const OFTEN: Duration = Duration::from_secs(10);
/// How often the lasting file is written.
const SELDOM: Duration = Duration::from_secs(60 * 60);
/// A clock that shows an earlier day is not set yet: 2025-01-01, in days since 1970.
const PLAUSIBLE: i64 = 20_089;
/// Entries that are read from a file.
const MAX_ENTRIES: usize = 1_000;
/// A period that begins so many days ahead was begun by a wrong clock.
const WRONG: i64 = 370;

/// What a link has carried in its period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// First day of the period, in days since 1970.
    pub since: i64,
    /// Bytes on the line, both ways.
    pub bytes: u64,
}

impl FromJson for Usage {
    fn from_json(value: &Value) -> Option<Self> {
        Some(Usage { since: get(value, "since")?, bytes: get(value, "bytes")? })
    }
}

/// A link's quota, for the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaStatus {
    /// Bytes of a period.
    pub quota: u64,
    /// Bytes of them that are used.
    pub used: u64,
    /// First day of the period: `2026-11-01`.
    pub since: String,
    /// Whether all are used: the link carries data only while no other link does.
    pub used_up: bool,
}

/// The counts of all links.
#[derive(Debug, Default)]
pub struct Quotas {
    volatile: PathBuf,
    lasting: PathBuf,
    links: SortedMap<String, Usage>,
    /// The core's counters at the last look: sent and received.
    seen: SortedMap<String, (u64, u64)>,
    saved_often: (Time, SortedMap<String, Usage>),
    saved_seldom: (Time, SortedMap<String, Usage>),
    /// The lasting file is due whatever the time.
    urgent: bool,
}

/// A file to be written, off the thread that serves packets.
#[derive(Debug, PartialEq, Eq)]
pub struct Save {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub text: String,
}

impl Save {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// In words for the log.
    pub fn write(&self) -> Result<(), String> {
        store::replace(&self.path, &self.text).map_err(|error| {
            let path = self.path.display();
            format!("{path}: what links have used of their quotas cannot be kept: {error}")
        })
    }
}

impl Quotas {
    /// The counts that an earlier run has left.
    pub fn load(volatile: PathBuf, lasting: PathBuf, now: Time) -> Self {
        let mut links = read(&lasting);
        for (name, usage) in read(&volatile) {
            let known = links.get_or_insert_with(name, || usage);
            *known = if (usage.since, usage.bytes) > (known.since, known.bytes) { usage } else { *known };
        }
        let saved = (now, links.clone());
        Quotas {
            volatile,
            lasting,
            links,
            saved_often: saved.clone(),
            saved_seldom: saved,
            ..Quotas::default()
        }
    }

    /// Takes a link's counters of bytes sent and received, on a day in days since 1970. Returns whether the link has
    /// just used up its quota.
    pub fn count(&mut self, link: &Link, sent: u64, received: u64, today: i64) -> bool {
        // Counters begin again at zero with a new link or session.
        let grown = |now: u64, before: u64| if now >= before { now - before } else { now };
        let before = self.seen.insert(link.name.clone(), (sent, received)).unwrap_or((0, 0));
        let bytes = grown(sent, before.0).saturating_add(grown(received, before.1));
        let Some(quota) = link.quota else {
            self.links.remove(&link.name);
            return false;
        };
        let begin = period_begin(today, link.quota_reset_day);
        let usage = self.links.get_or_insert_with(link.name.clone(), || Usage { since: begin, bytes: 0 });
        if usage.since.saturating_sub(begin) > WRONG && today >= PLAUSIBLE {
            usage.since = begin;
        }
        if begin > usage.since {
            *usage = Usage { since: begin, bytes: 0 };
            self.urgent = true;
        }
        let was_used_up = usage.bytes >= quota;
        usage.bytes = usage.bytes.saturating_add(bytes);
        let is_used_up = usage.bytes >= quota && !was_used_up;
        self.urgent |= is_used_up;
        is_used_up
    }

    /// Whether a link has used its quota up.
    pub fn is_used_up(&self, link: &Link) -> bool {
        let used = self.links.get(&link.name).map_or(0, |usage| usage.bytes);
        link.quota.is_some_and(|quota| used >= quota)
    }

    /// A link's quota; `None` without one.
    pub fn status(&self, link: &Link) -> Option<QuotaStatus> {
        let usage = self.links.get(&link.name).copied().unwrap_or_default();
        let (year, month, day) = date(usage.since);
        Some(QuotaStatus {
            quota: link.quota?,
            used: usage.bytes,
            since: format!("{year:04}-{month:02}-{day:02}"),
            used_up: self.is_used_up(link),
        })
    }

    /// The files that are due.
    pub fn due(&mut self, now: Time) -> Vec<Save> {
        let mut due = Vec::new();
        if now.since(self.saved_often.0) >= OFTEN {
            due.extend(save(&self.volatile, &self.links, &mut self.saved_often, now));
        }
        if std::mem::take(&mut self.urgent) || now.since(self.saved_seldom.0) >= SELDOM {
            due.extend(save(&self.lasting, &self.links, &mut self.saved_seldom, now));
        }
        due
    }

    /// Both files, if they are not up to date: for the end.
    pub fn last(&mut self, now: Time) -> Vec<Save> {
        let often = save(&self.volatile, &self.links, &mut self.saved_often, now);
        often.into_iter().chain(save(&self.lasting, &self.links, &mut self.saved_seldom, now)).collect()
    }
}

/// The file, unless it holds just that.
fn save(
    path: &Path,
    links: &SortedMap<String, Usage>,
    saved: &mut (Time, SortedMap<String, Usage>),
    now: Time,
) -> Option<Save> {
    saved.0 = now;
    if saved.1 == *links {
        return None;
    }
    saved.1.clone_from(links);
    Some(Save { path: path.to_owned(), text: format!("{}\n", json!(links)) })
}

fn read(path: &Path) -> SortedMap<String, Usage> {
    let text = match store::read(path) {
        Ok(text) if text.is_empty() => return SortedMap::new(),
        Ok(text) => text,
        Err(error) => {
            log::warn!("{}: {error}: quotas are counted from zero", path.display());
            return SortedMap::new();
        }
    };
    match json::read::<SortedMap<String, Usage>>(text.as_bytes()) {
        Ok(links) => links.into_iter().take(MAX_ENTRIES).collect(),
        Err(error) => {
            log::warn!("{}: {error}: quotas are counted from zero", path.display());
            SortedMap::new()
        }
    }
}

/// The day of a time, in days since 1970 (UTC).
pub fn day(unix_ms: u64) -> i64 {
    i64::try_from(unix_ms / 86_400_000).unwrap_or(i64::MAX)
}

/// The first day of the period that `today` is in, when each begins on `reset_day` of a month or, in shorter months,
/// on the last one.
fn period_begin(today: i64, reset_day: u8) -> i64 {
    let (year, month, _) = date(today);
    let begin = |year: i64, month: u8| {
        let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
        let length = next - days(year, month, 1);
        days(year, month, 1) + i64::from(reset_day.max(1)).min(length) - 1
    };
    let this = begin(year, month);
    match month {
        _ if today >= this => this,
        1 => begin(year - 1, 12),
        _ => begin(year, month - 1),
    }
}

/// Days since 1970 of a date in the Gregorian calendar. March begins the year, so that the leap day ends it.
fn days(year: i64, month: u8, day: u8) -> i64 {
    let (year, month) =
        if month <= 2 { (year - 1, i64::from(month) + 9) } else { (year, i64::from(month) - 3) };
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

/// The date of a day since 1970: year, month, day.
pub(crate) fn date(since_1970: i64) -> (i64, u8, u8) {
    // Far more than any calendar needs.
    let since_1970 = since_1970.clamp(-100_000_000, 100_000_000);
    let since_0000 = since_1970 + 719_468;
    let mut year = since_0000 * 400 / 146_097 + 1;
    while days(year, 3, 1) > since_1970 {
        year -= 1;
    }
    let day_of_year = since_1970 - days(year, 3, 1);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month >= 10 { (year + 1, month - 9) } else { (year, month + 3) };
    (year, u8::try_from(month).unwrap_or(1), u8::try_from(day).unwrap_or(1))
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
