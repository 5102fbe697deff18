//! The peers of an endpoint, and which of them has something to do now or later: a server looks at those few only, not
//! at the thousand that are idle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::handshakes::StagedSettings;
use crate::bond::peer::Peer;
use crate::bond::{PeerId, Time};

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
        self.peer.poll_timeout().into_iter().chain(self.peer.receiver.opener.next_expiry()).min()
    }
}

/// All peers. Whoever may have changed one has *touched* it, so that it is asked for what it wants to send.
#[derive(Default)]
pub(super) struct Agenda {
    entries: BTreeMap<PeerId, Entry>,
    /// In the order in which they are asked.
    touched: VecDeque<PeerId>,
    /// When the others want to be called.
    deadlines: BTreeSet<(Time, PeerId)>,
}

impl Agenda {
    pub(super) fn insert(&mut self, peer: Peer) {
        let id = peer.id;
        self.remove(id);
        let entry = Entry { peer, staged: StagedSettings::default(), touched: true, deadline: None };
        self.entries.insert(id, entry);
        self.touched.push_back(id);
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.touched.retain(|touched| *touched != id);
    }

    pub(super) fn contains(&self, id: PeerId) -> bool {
        self.entries.contains_key(&id)
    }

    pub(super) fn get(&self, id: PeerId) -> Option<&Entry> {
        self.entries.get(&id)
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
        self.entries.values()
    }

    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.entries.keys().copied().collect()
    }

    /// Puts the peers that have something to do now into `due`.
    pub(super) fn take_due(&mut self, now: Time, due: &mut Vec<PeerId>) {
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.deadline = None;
            }
            self.get_mut(id);
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
            if old == timeout {
                continue;
            }
            if let Some(old) = old {
                self.deadlines.remove(&(old, id));
            }
            if let Some(new) = timeout {
                self.deadlines.insert((new, id));
            }
        }
        None
    }

    /// When the next peer wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let touched = self.touched.iter().filter_map(|id| self.entries.get(id)?.timeout());
        touched.chain(self.deadlines.first().map(|(at, _)| *at)).min()
    }
}
