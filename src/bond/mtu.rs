//! The path MTU of one link, found by padded probes (RFC 8899, DPLPMTUD).

use std::time::Duration;

use super::Time;

/// Every link carries IP packets of this size (the IPv6 minimum, RFC 8200).
pub const BASE_MTU: u16 = 1280;
/// The largest IP packet that is tried.
pub const MAX_MTU: u16 = 1500;
/// Sizes that lines often have are tried first: Ethernet, PPPoE, then tunnels.
const COMMON: [u16; 3] = [MAX_MTU, 1492, 1452];
const TRIES: u8 = 3;
/// The search ends when the limits are this close.
const PRECISION: u16 = 8;
/// A found MTU is confirmed, and a larger one tried, this often.
const CONFIRM: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(600);
/// A search that starts anew leaves so much time to the last probe: it is the other end that says so often the path is
/// another one.
const RESTART_PAUSE: Duration = Duration::from_millis(300);

/// The search on one link.
#[derive(Debug)]
pub struct MtuSearch {
    limit: u16,
    /// Came through.
    good: u16,
    /// Did not, or one more than the limit.
    bad: u16,
    probe: Option<Probe>,
    next: Time,
    /// When the last probe was sent.
    probed: Option<Time>,
    searched: Time,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    size: u16,
    tries: u8,
}

impl MtuSearch {
    /// A search below `limit`, the user's bound on the outer IP packet.
    pub fn new(limit: Option<u16>, now: Time) -> Self {
        let limit = limit.unwrap_or(MAX_MTU).clamp(576, MAX_MTU);
        let (good, bad) = (BASE_MTU.min(limit), limit + 1);
        MtuSearch { limit, good, bad, probe: None, next: now, probed: None, searched: now }
    }

    /// The longest IP packet known to come through.
    pub fn mtu(&self) -> u16 {
        self.good
    }

    /// Whether anything above [`BASE_MTU`] has come through, or has failed to.
    pub fn is_known(&self) -> bool {
        self.good > BASE_MTU || self.bad <= self.limit
    }

    /// When a probe is due.
    pub fn due(&self) -> Time {
        self.next
    }

    /// The size of the IP packet to probe with, when one is due. `timeout` is how long an answer may take.
    pub fn poll(&mut self, timeout: Duration, now: Time) -> Option<u16> {
        if now < self.next {
            return None;
        }
        self.probed = Some(now);
        if let Some(probe) = &mut self.probe {
            if probe.tries < TRIES {
                probe.tries += 1;
                self.next = now + timeout;
                return Some(probe.size);
            }
            let failed = probe.size;
            self.probe = None;
            self.fail(failed, now);
        }
        let size = self.candidate().unwrap_or_else(|| {
            if now.since(self.searched) >= RETRY {
                self.bad = self.limit + 1;
                self.searched = now;
            }
            self.candidate().unwrap_or(self.good)
        });
        self.probe = Some(Probe { size, tries: 1 });
        self.next = now + timeout;
        Some(size)
    }

    /// A probe of `size` came through. True when the MTU has changed.
    pub fn confirmed(&mut self, size: u16, now: Time) -> bool {
        if size > self.limit {
            return false;
        }
        let grown = size > self.good;
        self.good = self.good.max(size);
        self.bad = self.bad.max(self.good + 1);
        if self.probe.is_some_and(|p| p.size <= size) {
            self.probe = None;
            self.next = if self.candidate().is_some() { now } else { now + CONFIRM };
        }
        grown
    }

    /// The path is another one: starts anew.
    pub fn restart(&mut self, now: Time) {
        self.set_limit(Some(self.limit), now);
    }

    /// Starts anew below another bound of the user's.
    pub fn set_limit(&mut self, limit: Option<u16>, now: Time) {
        let probed = self.probed;
        let next = probed.map_or(now, |probed| now.max(probed + RESTART_PAUSE));
        *self = MtuSearch { next, probed, ..MtuSearch::new(limit, now) };
    }

    fn fail(&mut self, size: u16, now: Time) {
        if size <= self.good {
            // What came through before does so no more.
            self.good = BASE_MTU.min(self.limit);
            self.searched = now;
        }
        self.bad = self.bad.min(size.max(self.good + 1));
    }

    fn candidate(&self) -> Option<u16> {
        if self.bad - self.good <= 1 || (self.bad <= self.limit && self.bad - self.good <= PRECISION) {
            return None;
        }
        if self.bad > self.limit {
            return Some(self.limit);
        }
        let common = COMMON.into_iter().find(|size| *size > self.good && *size < self.bad);
        Some(common.unwrap_or(self.good + (self.bad - self.good) / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(line: u16, limit: Option<u16>) -> (u16, u32, u64) {
        let timeout = Duration::from_millis(300);
        let mut search = MtuSearch::new(limit, Time::ZERO);
        let (mut now, mut probes) = (Time::ZERO, 0);
        while now < Time::from_millis(30_000) {
            now = search.due();
            if let Some(size) = search.poll(timeout, now) {
                probes += 1;
                if size <= line {
                    search.confirmed(size, now);
                }
            }
            if search.due() > Time::from_millis(30_000) {
                break;
            }
        }
        (search.mtu(), probes, now.as_micros() / 1000)
    }

    #[test]
    fn usual_lines_are_found_with_few_probes() {
        assert_eq!(search(1500, None), (1500, 1, 0));
        assert_eq!(search(1492, None), (1492, 4, 900));
        assert_eq!(search(1500, Some(1400)), (1400, 1, 0));
        assert_eq!(search(1280, None).0, 1280);
        let (mtu, probes, _) = search(1433, None);
        assert!((1433 - PRECISION..=1433).contains(&mtu) && probes < 30, "{mtu} after {probes}");
    }

    #[test]
    fn a_line_that_shrinks_is_noticed() {
        let mut search = MtuSearch::new(None, Time::ZERO);
        let timeout = Duration::from_millis(300);
        let mut line = 1500;
        let mut now = Time::ZERO;
        while now < Time::from_millis(200_000) {
            if now > Time::from_millis(1_000) {
                line = 1400;
            }
            now = search.due().max(now);
            if let Some(size) = search.poll(timeout, now).filter(|size| *size <= line) {
                search.confirmed(size, now);
            }
        }
        assert!((1400 - PRECISION..=1400).contains(&search.mtu()), "{}", search.mtu());
    }
}
