//! Which link takes the next packet.

use std::time::Duration;

use super::{LinkId, Time};

/// How packets are spread over the links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Single packets take the link on which they arrive first, a backlog takes every link that is free.
    #[default]
    Adaptive,
    /// By the links' weights.
    Weighted,
    /// One after the other (balance-rr).
    RoundRobin,
    /// A flow stays on its link (balance-xor).
    Flow,
    /// The first link that is up.
    ActiveBackup,
    /// Copies on several links; the first one counts.
    Redundant,
}

impl Policy {
    /// All of them.
    pub const ALL: [Policy; 6] = [
        Policy::Adaptive,
        Policy::Weighted,
        Policy::RoundRobin,
        Policy::Flow,
        Policy::ActiveBackup,
        Policy::Redundant,
    ];

    /// The name in configuration and status.
    pub fn name(self) -> &'static str {
        match self {
            Policy::Adaptive => "adaptive",
            Policy::Weighted => "weighted",
            Policy::RoundRobin => "round-robin",
            Policy::Flow => "flow",
            Policy::ActiveBackup => "active-backup",
            Policy::Redundant => "redundant",
        }
    }

    /// The policy's number on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The policy of a number on the wire.
    pub fn from_code(code: u8) -> Option<Policy> {
        Policy::ALL.get(usize::from(code)).copied()
    }
}

/// A link that could take a packet.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// The link.
    pub link: LinkId,
    /// When its pacer lets the next packet go.
    pub free: Time,
    /// How long what is staged for it takes to send.
    pub staged: Duration,
    /// Bytes a second that it adds to others.
    pub worth: u64,
    /// One-way delay for this packet once it goes, in nanoseconds of an offset that is the same for all links.
    pub delay: i64,
    /// Links with the lowest number are used first.
    pub priority: u8,
    /// Share under [`Policy::Weighted`].
    pub weight: u32,
}

impl Candidate {
    /// When a packet arrives that goes ahead of what is staged.
    fn arrival(&self, now: Time) -> i64 {
        self.delay.saturating_add(self.free.max(now).as_nanos() as i64)
    }

    /// When a packet arrives that goes behind what is staged.
    fn arrival_in_turn(&self, now: Time) -> i64 {
        self.arrival(now).saturating_add(self.staged.as_nanos() as i64)
    }
}

/// The packet at the head of the queue.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Hash of its flow.
    pub hash: u32,
    /// How long it has waited.
    pub waited: Duration,
    /// Its flow sends little.
    pub sparse: bool,
}

/// The decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Send it on this link now.
    Send(LinkId),
    /// It is the next on this link behind what is staged there.
    Stage(LinkId),
    /// Its link is busy until then.
    Wait(Time),
}

/// A quick link's packets wait for those of slower links for at most so long.
const MAX_STAGE: Duration = Duration::from_millis(300);
/// A link that is slower by no more than this is always waited for,
const CHEAP_DELAY: i64 = 20_000_000;
/// one that is slower by more only when it has this part of the rate of the quicker ones.
const WORTH: u64 = 12;
/// A single packet goes ahead of the pacer by at most this.
const AHEAD: Duration = Duration::from_millis(6);
/// Links of the next priority help when a packet has waited for so long.
const SPILL: Duration = Duration::from_millis(20);

/// The scheduler's memory.
#[derive(Debug, Default)]
pub struct Scheduler {
    policy: Policy,
    last: LinkId,
    credit: [i64; super::MAX_LINKS],
}

impl Scheduler {
    /// A scheduler of this policy.
    pub fn new(policy: Policy) -> Self {
        Scheduler { policy, ..Scheduler::default() }
    }

    /// The policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Changes the policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Chooses among `candidates`, which are in the order of their ids; `None` when there are none.
    pub fn choose(&mut self, candidates: &[Candidate], head: &Head, now: Time) -> Option<Choice> {
        let first = candidates.iter().map(|c| c.priority).min()?;
        let choice = self.choose_in_tier(candidates, first, head, now)?;
        if !matches!(choice, Choice::Wait(_)) || head.waited < SPILL {
            return Some(choice);
        }
        let next = candidates.iter().map(|c| c.priority).filter(|p| *p > first).min();
        match next.and_then(|tier| self.choose_in_tier(candidates, tier, head, now)) {
            None | Some(Choice::Wait(_)) => Some(choice),
            next => next,
        }
    }

    /// The link on which a packet that is sent at once arrives first; for resends and single packets.
    pub fn earliest(candidates: &[Candidate], now: Time) -> Option<&Candidate> {
        candidates.iter().min_by_key(|c| (c.priority, c.arrival(now)))
    }

    /// Whether `candidate` gets nothing of a backlog because it would add too little to the others of its priority.
    pub fn leaves_out(candidates: &[Candidate], candidate: &Candidate) -> bool {
        let tier = || candidates.iter().filter(|c| c.priority == candidate.priority);
        let quickest = tier().map(|c| c.delay).min().unwrap_or(candidate.delay);
        !is_worth(candidate, quickest, tier())
    }

    /// How much longer the slowest link that is worth waiting for takes than the quickest.
    pub fn spread(candidates: &[Candidate]) -> Duration {
        let Some(quickest) = candidates.iter().map(|c| c.delay).min() else { return Duration::ZERO };
        let slowest =
            candidates.iter().filter(|c| is_worth(c, quickest, candidates.iter())).map(|c| c.delay).max();
        Duration::from_nanos(u64::try_from(slowest.unwrap_or(quickest) - quickest).unwrap_or(0))
    }

    fn choose_in_tier(
        &mut self,
        candidates: &[Candidate],
        tier: u8,
        head: &Head,
        now: Time,
    ) -> Option<Choice> {
        let links = || candidates.iter().filter(|c| c.priority == tier);
        let link = match self.policy {
            Policy::Adaptive | Policy::Redundant => return adaptive(links(), head, now),
            Policy::ActiveBackup => links().next()?,
            Policy::Flow => links().max_by_key(|c| rendezvous(head.hash, c.link))?,
            Policy::RoundRobin => links().find(|c| c.link > self.last).or_else(|| links().next())?,
            Policy::Weighted => {
                links().max_by_key(|c| self.credit[usize::from(c.link)] + i64::from(c.weight))?
            }
        };
        if link.free > now {
            return Some(Choice::Wait(link.free));
        }
        self.last = link.link;
        if self.policy == Policy::Weighted {
            let mut total = 0;
            for c in links() {
                self.credit[usize::from(c.link)] += i64::from(c.weight);
                total += i64::from(c.weight);
            }
            self.credit[usize::from(link.link)] -= total;
        }
        Some(Choice::Send(link.link))
    }
}

/// A single packet takes the link on which it arrives first. So does each packet of a backlog, counting what is staged
/// already; a quick link accepts so much ahead of its pacer that its packets arrive no later than those that the
/// slowest link gets now. So every link is busy, and packets arrive nearly in the order in which they leave the queue. A
/// quarter of that time is left to the other end's resequencer: a sender whose window is short (BBR's) would otherwise
/// leave the slow link without data.
fn adaptive<'a>(
    links: impl Iterator<Item = &'a Candidate> + Clone,
    head: &Head,
    now: Time,
) -> Option<Choice> {
    if head.sparse {
        let best = links.min_by_key(|c| c.arrival(now))?;
        return Some(if best.free <= now + AHEAD {
            Choice::Send(best.link)
        } else {
            Choice::Wait(best.free - AHEAD)
        });
    }
    let quickest = links.clone().map(|c| c.delay).min()?;
    let worthy = links.clone().filter(|c| is_worth(c, quickest, links.clone()));
    let slowest = worthy.clone().map(|c| c.delay).max()?;
    let (mut best, mut wait) = (None, None);
    for c in worthy {
        let lead = Duration::from_nanos(u64::try_from(slowest - c.delay).unwrap_or(0) / 4 * 3).min(MAX_STAGE);
        // When the link accepts the next packet.
        let opens = c.free + c.staged - lead;
        let arrival = c.arrival_in_turn(now);
        if opens > now {
            wait = Some(wait.map_or(opens, |wait: Time| wait.min(opens)));
        } else if best.is_none_or(|(earliest, _)| arrival < earliest) {
            best = Some((arrival, c));
        }
    }
    match best {
        Some((_, best)) if best.free <= now && best.staged.is_zero() => Some(Choice::Send(best.link)),
        Some((_, best)) => Some(Choice::Stage(best.link)),
        None => wait.map(Choice::Wait),
    }
}

/// Whether a link adds enough for the others to wait for it.
fn is_worth<'a>(c: &Candidate, quickest: i64, links: impl Iterator<Item = &'a Candidate>) -> bool {
    let quicker = links.filter(|other| other.delay < c.delay).map(|other| other.worth);
    c.delay - quickest <= CHEAP_DELAY || c.worth.saturating_mul(WORTH) >= quicker.sum()
}

/// Highest random weight hashing: when a link goes, only its own flows move.
fn rendezvous(hash: u32, link: LinkId) -> u32 {
    let mut x = hash ^ (u32::from(link) + 1).wrapping_mul(0x9e37_79b9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
    x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: LinkId, free_ms: u64, delay_ms: i64) -> Candidate {
        Candidate {
            link: id,
            free: Time::from_millis(free_ms),
            staged: Duration::ZERO,
            worth: 1_000_000,
            delay: delay_ms * 1_000_000,
            priority: 0,
            weight: 1,
        }
    }

    fn head(sparse: bool) -> Head {
        Head { hash: 7, waited: Duration::ZERO, sparse }
    }

    fn staged(link: Candidate, ms: u64) -> Candidate {
        Candidate { staged: Duration::from_millis(ms), ..link }
    }

    const NOW: Time = Time::from_millis(100);

    #[test]
    fn a_single_packet_takes_the_link_on_which_it_arrives_first() {
        let mut scheduler = Scheduler::default();
        let links = [link(0, 0, 50), staged(link(1, 0, 15), 30)];
        assert_eq!(scheduler.choose(&links, &head(true), NOW), Some(Choice::Send(1)));
        let links = [link(0, 0, 20), link(1, 110, 15)];
        assert_eq!(scheduler.choose(&links, &head(true), NOW), Some(Choice::Send(0)));
        let links = [link(0, 0, 90), link(1, 110, 15)];
        let wait = Some(Choice::Wait(Time::from_millis(104)));
        assert_eq!(scheduler.choose(&links, &head(true), NOW), wait, "the slow link would be later still");
    }

    #[test]
    fn a_backlog_is_staged_until_the_slow_link_is_as_quick() {
        let mut scheduler = Scheduler::default();
        let mut choose = |links: [Candidate; 2]| scheduler.choose(&links, &head(false), NOW);
        assert_eq!(choose([link(0, 0, 95), link(1, 0, 15)]), Some(Choice::Send(1)));
        assert_eq!(choose([link(0, 0, 95), link(1, 101, 15)]), Some(Choice::Stage(1)));
        assert_eq!(choose([link(0, 0, 95), staged(link(1, 101, 15), 59)]), Some(Choice::Stage(1)));
        assert_eq!(choose([link(0, 0, 95), staged(link(1, 101, 15), 60)]), Some(Choice::Send(0)));
        let full = [link(0, 103, 95), staged(link(1, 101, 15), 60)];
        assert_eq!(choose(full), Some(Choice::Wait(Time::from_millis(101))));
    }

    #[test]
    fn a_slow_link_that_adds_little_is_not_waited_for() {
        let mut scheduler = Scheduler::default();
        let links = [Candidate { worth: 50_000, ..link(0, 0, 90) }, link(1, 101, 15)];
        let wait = Some(Choice::Wait(Time::from_millis(101)));
        assert_eq!(scheduler.choose(&links, &head(false), NOW), wait);
        let links = [Candidate { worth: 50_000, ..link(0, 0, 30) }, link(1, 101, 15)];
        assert_eq!(scheduler.choose(&links, &head(false), NOW), Some(Choice::Stage(1)));
    }

    #[test]
    fn round_robin_and_weights_hold_their_shares() {
        for (policy, weights, expected) in
            [(Policy::RoundRobin, [1, 1, 1], [200, 200, 200]), (Policy::Weighted, [3, 2, 1], [300, 200, 100])]
        {
            let mut scheduler = Scheduler::new(policy);
            let links: Vec<_> =
                (0..3).map(|i| Candidate { weight: weights[i], ..link(i as u8, 0, 10) }).collect();
            let mut counts = [0; 3];
            for _ in 0..600 {
                match scheduler.choose(&links, &head(false), NOW) {
                    Some(Choice::Send(id)) => counts[usize::from(id)] += 1,
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(counts, expected, "{policy:?}");
        }
    }

    #[test]
    fn a_flow_stays_on_its_link_when_another_goes() {
        let mut scheduler = Scheduler::new(Policy::Flow);
        let three = [link(0, 0, 1), link(1, 0, 1), link(2, 0, 1)];
        for hash in 0..200u32 {
            let head = Head { hash: hash.wrapping_mul(0x9e37_79b9), ..head(false) };
            let Some(Choice::Send(id)) = scheduler.choose(&three, &head, NOW) else { panic!() };
            let rest: Vec<_> = three.iter().filter(|c| c.link != (id + 1) % 3).copied().collect();
            assert_eq!(scheduler.choose(&rest, &head, NOW), Some(Choice::Send(id)));
        }
    }

    #[test]
    fn a_link_of_low_priority_helps_only_when_packets_wait() {
        let mut scheduler = Scheduler::default();
        let links = [link(0, 130, 15), Candidate { priority: 1, ..link(1, 0, 5) }];
        let mut head = head(false);
        assert!(matches!(scheduler.choose(&links, &head, NOW), Some(Choice::Wait(_))));
        head.waited = SPILL;
        assert_eq!(scheduler.choose(&links, &head, NOW), Some(Choice::Send(1)));
        assert_eq!(scheduler.choose(&links[1..], &head, NOW), Some(Choice::Send(1)));
        assert_eq!(scheduler.choose(&[], &head, NOW), None);
    }
}
