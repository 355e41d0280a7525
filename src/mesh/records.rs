//! Records of others: how they come into the interest table, and who hears of them.

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::peers::Peer;
use super::state::State;
use super::table::Learned;
use crate::identity::NodeId;
use crate::info::Source;
use crate::limits::MAX_RECORDS_PER_MESSAGE;
use crate::memory::Level;
use crate::wire::{Record, TrackerRole, draft};

impl State {
    pub(super) fn on_record(
        &mut self,
        record: Record,
        ttl: u8,
        conn: ConnId,
        from: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let node = record.node_id;
        if node == self.me {
            return;
        }
        let own = node == from;
        if own {
            self.table.revive(&node);
        }
        let learned = self.learn(record, Some(from), now);
        match learned {
            Learned::Dead => return self.refuse("dead_record"),
            Learned::Denied => return self.refuse("denied_origin"),
            Learned::Newer(_) | Learned::Known => {}
        }
        let Some(record) = self.table.get(&node).cloned() else { return };
        if own {
            // Also when the record is known from before: the connection is a new one.
            self.on_own_record(conn, &record, now, out);
        }
        self.lookups_on_record(&record, from, now, out);
        let Learned::Newer(before) = learned else { return };
        self.keys_on_record(&record, Some(conn), now, out);
        if ttl > 1 {
            // Those who wanted what it provided before must hear that it does no longer.
            let announce = draft::announce(&record.object, ttl - 1);
            let before = before.as_ref().map(|r| &r.caps);
            let wants = |r: &Record| {
                let news = r.is_interested_in(&record.caps) || before.is_some_and(|b| r.is_interested_in(b));
                news && r.tracker == TrackerRole::None
            };
            let mut to = self.interested(wants, &[node, from]);
            to.retain(|c| self.peers.get(*c).is_some_and(|p| p.arrival.tracker == TrackerRole::None));
            self.counters.flooded += to.len() as u64;
            for conn in to {
                out.push(Action::Send { to: conn, what: What::Ready(announce.clone()), on_full: OnFull::Drop });
            }
            self.tell_trackers(&record, ttl - 1, &from, now, out);
        }
        self.calls_nudge_for(&record, now, out);
    }

    /// A peer speaks of itself.
    fn on_own_record(&mut self, conn: ConnId, record: &Record, now: Now, out: &mut Vec<Action>) {
        let news = self.peers.set_tracker(conn, record.tracker);
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let interesting = peer.told.as_ref() != Some(&record.interests);
        let is_first = peer.told.replace(record.interests.clone()).is_none();
        self.refresh_trackers(now);
        if news {
            self.reach_look(now, out);
        }
        self.flush_record(now, out);
        if news && record.tracker == TrackerRole::None {
            self.shares.stop(conn);
        } else if news {
            self.met_tracker(conn, now, out);
        }
        if is_first {
            self.tell_of_tracker(conn, record, now, out);
        }
        if interesting {
            self.send_interesting(conn, record, out);
        }
        if news {
            self.calls_nudge(now, out);
        }
    }

    /// Learns a record that `from` brought; those of connected peers are never the ones to go.
    pub(super) fn learn(&mut self, record: Record, from: Option<NodeId>, now: Now) -> Learned {
        if self.is_denied(&record.node_id) {
            return Learned::Denied;
        }
        let peers = &self.peers;
        let source = match from.and_then(|from| peers.proven(&from)) {
            Some(peer) if peer.arrival.node == record.node_id => peer.arrival.how.found,
            Some(peer) if peer.arrival.tracker != TrackerRole::None => Source::Tracker,
            _ => Source::Flood,
        };
        let node = record.node_id;
        if peers.conn_of(&node).is_none() && self.held.level() >= Level::Records {
            // It would be the next to go.
            self.held.count(Level::Records, 1);
            return Learned::Known;
        }
        let learned = self.table.learn(record, source, from.unwrap_or(node), now, |n| peers.conn_of(n).is_some());
        if let (Learned::Newer(_), Some(record)) = (&learned, self.table.get(&node).cloned()) {
            self.tracker_learned(&record, from, now);
        }
        learned
    }

    /// The connections of those who want to hear of something: trackers, and those whose record says so.
    pub(super) fn interested(&self, wants: impl Fn(&Record) -> bool, not: &[NodeId]) -> Vec<ConnId> {
        let peers = self.peers.all_proven().filter(|(_, p)| !not.contains(&p.arrival.node));
        let wants = |p: &Peer| {
            // Most have no interest at all, and that is known without looking for their records.
            let some = || p.told.as_ref().is_some_and(|interests| !interests.is_empty());
            p.arrival.tracker != TrackerRole::None
                || some() && self.table.get(&p.arrival.node).is_some_and(|r| wants(r))
        };
        peers.filter(|(_, p)| wants(p)).map(|(conn, _)| conn).collect()
    }

    /// Tells a peer what it has become interested in.
    fn send_interesting(&mut self, conn: ConnId, to: &Record, out: &mut Vec<Action>) {
        let wanted = self.table.wanted(&to.interests, &to.node_id, MAX_RECORDS_PER_MESSAGE);
        for record in wanted.into_iter().filter(|r| self.may_tell(r, &to.node_id)) {
            let announce = draft::announce(&record.object, 1);
            out.push(Action::Send { to: conn, what: What::Ready(announce), on_full: OnFull::Drop });
        }
    }

    /// A record that a peer's `welcome` listed.
    pub fn learned_from_welcome(
        &mut self,
        record: Record,
        conn: ConnId,
        from: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        // The few to begin with are for a beginning: with every tracker that comes and goes they would become many.
        let begins = self.config.tracker != TrackerRole::None || self.peers.trackers().nth(1).is_none();
        let wanted = || self.interests.keys().any(|pattern| record.caps.matches(pattern));
        if begins || record.tracker != TrackerRole::None || wanted() {
            self.on_record(record, 1, conn, from, now, out);
        }
    }
}
