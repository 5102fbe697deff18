//! The peers of an endpoint, and which of them has something to do now or later: a server looks at those few only, not
//! at the thousand that are idle.

use std::collections::VecDeque;

use super::handshakes::StagedSettings;
use crate::deadlines::Deadlines;
use crate::peer::Peer;
use crate::sorted::SortedMap;
use crate::time::earliest;
use crate::{PeerId, Time};

/// A peer and what belongs to it.
pub(super) struct Entry {
    pub peer: Peer,
    pub staged: StagedSettings,
    /// It is in [`Agenda::touched`].
    touched: bool,
    /// It is in [`Agenda::deadlines`] with this time.
    deadline: Option<Time>,
}

impl Entry {
    fn timeout(&self) -> Option<Time> {
        earliest(&[self.peer.poll_timeout(), self.peer.receiver.opener.next_expiry()])
    }
}

/// All peers. Whoever may have changed one has *touched* it, so that it is asked for what it wants to send.
#[derive(Default)]
pub(super) struct Agenda {
    entries: SortedMap<PeerId, Box<Entry>>,
    /// In the order in which they are asked.
    touched: VecDeque<PeerId>,
    /// When the others want to be called.
    deadlines: Deadlines,
}

impl Agenda {
    pub(super) fn insert(&mut self, peer: Peer) {
        let id = peer.id;
        self.remove(id);
        let entry = Entry { peer, staged: StagedSettings::default(), touched: true, deadline: None };
        self.entries.insert(id, Box::new(entry));
        self.touched.push_back(id);
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.deadlines.change(id.0, entry.deadline, None);
        self.touched.retain(|touched| *touched != id);
    }

    pub(super) fn contains(&self, id: PeerId) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn get(&self, id: PeerId) -> Option<&Entry> {
        self.entries.get(&id).map(Box::as_ref)
    }

    /// The peer, to be changed.
    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(&id)?;
        if !entry.touched {
            entry.touched = true;
            self.touched.push_back(id);
        }
        Some(entry)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().map(Box::as_ref)
    }

    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.entries.keys().copied().collect()
    }

    /// Puts the peers that have something to do now into `due`.
    pub(super) fn take_due(&mut self, now: Time, due: &mut Vec<PeerId>) {
        while let Some((at, number)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.change(number, Some(at), None);
            if let Some(entry) = self.get_mut(PeerId(number)) {
                entry.deadline = None;
            }
        }
        due.clear();
        due.extend(&self.touched);
    }

    /// Asks the touched peers in turn, until one gives something. Those that have nothing are asked again when they have
    /// been touched or their time has come.
    pub(super) fn ask<T>(&mut self, mut ask: impl FnMut(&mut Peer) -> Option<T>) -> Option<T> {
        while let Some(id) = self.touched.pop_front() {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if let Some(answer) = ask(&mut entry.peer) {
                self.touched.push_back(id);
                return Some(answer);
            }
            entry.touched = false;
            let timeout = entry.timeout();
            let old = std::mem::replace(&mut entry.deadline, timeout);
            self.deadlines.change(id.0, old, timeout);
        }
        None
    }

    /// When the next peer wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let untouched = self.deadlines.first().map(|(at, _)| at);
        let touched = self.touched.iter().filter_map(|id| self.entries.get(id));
        touched.fold(untouched, |first, entry| earliest(&[first, entry.timeout()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;
    use crate::peer::{PeerConfig, Timing};
    use crate::session::Lifetimes;

    fn agenda(peers: u32) -> Agenda {
        let mut agenda = Agenda::default();
        for id in 0..peers {
            let config = PeerConfig::new(PrivateKey::from_bytes([7; 32]).public(), false);
            let timing =
                Timing { keepalive: std::time::Duration::from_secs(1), lifetimes: Lifetimes::default() };
            agenda.insert(Peer::new(PeerId(id), config, timing, 0, Time::ZERO));
        }
        agenda
    }

    /// Who is asked until nobody has an answer; each peer has so many.
    fn asked(agenda: &mut Agenda, mut answers: SortedMap<PeerId, u32>) -> Vec<u32> {
        let mut asked = Vec::new();
        let mut ask = |peer: &mut Peer| {
            asked.push(peer.id.0);
            let left = answers.get_mut(&peer.id)?;
            *left = left.checked_sub(1)?;
            Some(())
        };
        while agenda.ask(&mut ask).is_some() {}
        asked
    }

    #[test]
    fn only_who_was_touched_is_asked() {
        let mut agenda = agenda(1_000);
        assert_eq!(asked(&mut agenda, SortedMap::new()).len(), 1_000, "the new ones once");
        assert!(asked(&mut agenda, SortedMap::new()).is_empty());
        agenda.get_mut(PeerId(7));
        agenda.get_mut(PeerId(3));
        agenda.get_mut(PeerId(7));
        assert_eq!(asked(&mut agenda, SortedMap::new()), [7, 3]);
        assert_eq!(agenda.poll_timeout(), None, "peers without sessions wait for nothing");
    }

    #[test]
    fn busy_peers_are_asked_in_turn() {
        let mut agenda = agenda(2);
        let answers = SortedMap::from([(PeerId(0), 2), (PeerId(1), 3)]);
        assert_eq!(asked(&mut agenda, answers), [0, 1, 0, 1, 0, 1, 1]);
    }

    #[test]
    fn removed_peers_are_forgotten() {
        let mut agenda = agenda(3);
        agenda.remove(PeerId(1));
        assert!(!agenda.contains(PeerId(1)) && agenda.get(PeerId(1)).is_none());
        let mut due = Vec::new();
        agenda.take_due(Time::from_millis(1), &mut due);
        assert_eq!(due, [PeerId(0), PeerId(2)]);
        assert_eq!(asked(&mut agenda, SortedMap::new()), [0, 2]);
    }
}
