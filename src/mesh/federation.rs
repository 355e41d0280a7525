//! What a node hands on to trackers, and what trackers tell each other and those who register.
//!
//! Records go from tracker to tracker through a queue for each connection, which lets through fewer than the other side
//! takes. It holds names, not records: a record that changes while it waits is sent once, as it is then.

use std::collections::BTreeMap;
use std::time::Duration;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::state::{State, Timer};
use super::throttle::Bucket;
use crate::identity::NodeId;
use crate::limits::{MAX_RECORD_BYTES_PER_MESSAGE, MAX_RECORDS_PER_MESSAGE, MAX_TRACKERS, MAX_WELCOME_SAMPLE};
use crate::limits::{MAX_WELCOME_TRACKERS, SHARE_BURST, SHARE_PER_SECOND};
use crate::wire::{Object, Record, TrackerRole, draft};

/// Records go out together: a queue that is over its rate is looked at again after this time.
const PAUSE: Duration = Duration::from_millis(200);

/// After so many records the other side is asked whether they have come.
const ASK_AFTER: u32 = 50;

/// The most records on the way to another tracker. What a cut network holds back comes all at once when it heals, and must
/// not be more than the other side takes at once.
const MAX_UNCONFIRMED: u32 = 200;

/// The first of all ids in their order.
const FIRST: NodeId = NodeId::from_bytes([0; 32]);

/// What waits for one tracker.
#[derive(Debug)]
struct Share {
    rate: Bucket,
    /// Whose records, and with which `ttl`.
    waiting: BTreeMap<NodeId, u8>,
    /// How many were sent since the last question that was answered, and since the one that waits for its answer.
    unconfirmed: u32,
    since_asked: u32,
    asked: Option<u64>,
    /// Whose was sent last: the next one comes after it, so that nobody waits for ever behind those who change often.
    last: NodeId,
}

/// What waits for other trackers.
#[derive(Debug)]
pub struct Shares {
    by_conn: BTreeMap<ConnId, Share>,
    /// How often those who are registered are told of another tracker: whoever connects as one makes a message to each of
    /// them.
    news: Bucket,
}

impl Default for Shares {
    fn default() -> Self {
        Self { by_conn: BTreeMap::new(), news: Bucket::new(1, 8) }
    }
}

impl Shares {
    /// A peer says that it is no tracker any more.
    pub fn stop(&mut self, conn: ConnId) {
        if let Some(share) = self.by_conn.get_mut(&conn) {
            share.waiting.clear();
        }
    }

    /// A connection ended.
    pub fn forget(&mut self, conn: ConnId) {
        self.by_conn.remove(&conn);
    }

    /// How many records wait.
    #[cfg(any(test, fuzzing))]
    pub fn waiting(&self) -> usize {
        self.by_conn.values().map(|s| s.waiting.len()).sum()
    }

    /// What they hold, in bytes.
    #[cfg(test)]
    pub fn weight(&self) -> usize {
        let queues = self.by_conn.values().map(|s| super::weight::btree(s.waiting.len(), size_of::<(NodeId, u8)>()));
        super::weight::btree(self.by_conn.len(), size_of::<(ConnId, Share)>()) + queues.sum::<usize>()
    }
}

impl State {
    /// Whether a node is known as a private tracker.
    fn is_private_tracker(&self, node: &NodeId) -> bool {
        if *node == self.me {
            return self.config.tracker == TrackerRole::Private;
        }
        let peer = self.peers.proven(node).map(|p| p.arrival.tracker);
        peer.or_else(|| self.table.get(node).map(|r| r.tracker)) == Some(TrackerRole::Private)
    }

    /// Whether a record may be handed to any tracker: not that of a private tracker, nor of a node whose trackers are
    /// all known to be private.
    fn is_public(&self, record: &Record) -> bool {
        match record.tracker {
            TrackerRole::Public => true,
            TrackerRole::Private => false,
            TrackerRole::None => {
                record.trackers.is_empty() || record.trackers.iter().any(|t| !self.is_private_tracker(t))
            }
        }
    }

    /// Whether a record may be handed to a tracker, or to somebody who may be one. A private tracker tells those it
    /// admits of those that are registered with it, and those don't tell others: so only as soon as the record names it.
    fn may_share(&self, record: &Record) -> bool {
        let is_peer = || self.peers.conn_of(&record.node_id).is_some();
        match self.config.tracker {
            TrackerRole::Private if is_peer() => record.trackers.contains(&self.me),
            _ => self.is_public(record),
        }
    }

    /// Whether a record may be handed to a peer.
    pub(super) fn may_tell(&self, record: &Record, to: &NodeId) -> bool {
        let to_tracker = self.peers.proven(to).is_some_and(|p| p.arrival.tracker != TrackerRole::None);
        !to_tracker || record.trackers.contains(to) || self.may_share(record)
    }

    /// Whether a tracker that is a peer is told of a record that was learned just now.
    fn tells_tracker(&self, record: &Record, tracker: &NodeId) -> bool {
        // It is connected with the node itself.
        if record.trackers.contains(tracker) || record.node_id == *tracker {
            return false;
        }
        // Trackers hear of each other when they connect, and when somebody connects who knows both.
        let is_tracker = self.config.tracker != TrackerRole::None;
        (is_tracker || record.tracker == TrackerRole::None) && self.may_share(record)
    }

    /// Passes a record that is news on to trackers.
    pub(super) fn tell_trackers(&mut self, record: &Record, ttl: u8, from: &NodeId, now: Now, out: &mut Vec<Action>) {
        let peers = self.peers.trackers().filter(|(_, p)| p.arrival.node != *from);
        let to: Vec<ConnId> =
            peers.filter(|(_, p)| self.tells_tracker(record, &p.arrival.node)).map(|(conn, _)| conn).collect();
        if to.is_empty() {
            return;
        }
        self.counters.flooded += to.len() as u64;
        let announce = draft::announce(&record.object, ttl);
        for conn in to {
            if let Some(share) = self.shares.by_conn.get_mut(&conn) {
                let waits = share.waiting.entry(record.node_id).or_insert(ttl);
                *waits = ttl.max(*waits);
                self.share_due(conn, now, out);
            } else {
                out.push(Action::Send { to: conn, what: What::Ready(announce.clone()), on_full: OnFull::Drop });
            }
        }
    }

    /// A peer is a tracker, and so is this node: they tell each other whom they know.
    pub(super) fn met_tracker(&mut self, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        let Some(node) = self.peers.get(conn).map(|p| p.arrival.node) else { return };
        if self.config.tracker == TrackerRole::None {
            return;
        }
        // Everything once; what is new is added as it comes.
        let known = self.table.iter().filter(|r| self.shares_at_first(r, &node));
        let waiting = known.map(|r| (r.node_id, 1)).collect();
        let rate = Bucket::new(SHARE_PER_SECOND, SHARE_BURST);
        let new = Share { rate, waiting: BTreeMap::new(), unconfirmed: 0, since_asked: 0, asked: None, last: FIRST };
        // Who was a tracker before on its connection has its rate from then.
        self.shares.by_conn.entry(conn).or_insert(new).waiting = waiting;
        self.share_due(conn, now, out);
    }

    fn shares_at_first(&self, record: &Record, tracker: &NodeId) -> bool {
        record.node_id != *tracker && !record.trackers.contains(tracker) && self.may_share(record)
    }

    /// A tracker has told of itself for the first time on its connection.
    pub(super) fn tell_of_tracker(&mut self, conn: ConnId, record: &Record, now: Now, out: &mut Vec<Action>) {
        if record.tracker != TrackerRole::Public || self.config.tracker == TrackerRole::Private {
            return;
        }
        if self.config.tracker == TrackerRole::None {
            // Two trackers that know nothing of each other may both know us.
            for (_, other) in self.peers.trackers().filter(|(c, _)| *c != conn).take(MAX_TRACKERS) {
                if let Some(other) = self.table.get(&other.arrival.node)
                    && other.tracker == TrackerRole::Public
                    && !other.trackers.contains(&record.node_id)
                {
                    let announce = draft::announce(&other.object, 1);
                    out.push(Action::Send { to: conn, what: What::Ready(announce), on_full: OnFull::Drop });
                }
            }
            return;
        }
        // Those who are registered here may want another one.
        if self.shares.news.take(now.mono).is_err() {
            return;
        }
        let announce = draft::announce(&record.object, 1);
        for (other, peer) in self.peers.all_proven() {
            if other != conn && peer.arrival.tracker == TrackerRole::None {
                out.push(Action::Send { to: other, what: What::Ready(announce.clone()), on_full: OnFull::Drop });
            }
        }
    }

    /// Sends a tracker what waits for it, as far as its rate allows.
    pub(super) fn share_due(&mut self, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        if self.timers.at(&Timer::Share(conn)).is_some_and(|at| at > now.mono) {
            return; // It was over its rate a moment ago.
        }
        let Some(to) = self.peers.get(conn).map(|p| p.arrival.node) else { return };
        let Some(mut share) = self.shares.by_conn.remove(&conn) else { return };
        while !share.waiting.is_empty() && share.unconfirmed < MAX_UNCONFIRMED {
            if share.rate.take(now.mono).is_err() {
                self.timers.set(Timer::Share(conn), now.mono + PAUSE);
                break;
            }
            let after = (std::ops::Bound::Excluded(share.last), std::ops::Bound::Unbounded);
            let next = share.waiting.range(after).next().or_else(|| share.waiting.first_key_value());
            let Some((node, ttl)) = next.map(|(node, ttl)| (*node, *ttl)) else { break };
            share.waiting.remove(&node);
            share.last = node;
            // It may have changed since it was put here, or be gone.
            if let Some(record) = self.table.get(&node)
                && self.shares_at_first(record, &to)
            {
                let announce = draft::announce(&record.object, ttl);
                out.push(Action::Send { to: conn, what: What::Ready(announce), on_full: OnFull::Drop });
                share.unconfirmed += 1;
                share.since_asked += 1;
            }
        }
        if share.asked.is_none() && share.unconfirmed >= ASK_AFTER {
            self.ask(conn, now, out);
            (share.asked, share.since_asked) = (Some(self.asks), 0);
        }
        self.shares.by_conn.insert(conn, share);
    }

    /// A tracker has answered a question, and so has what was sent before it.
    pub(super) fn share_confirmed(&mut self, conn: ConnId, answer: u64, now: Now, out: &mut Vec<Action>) {
        if let Some(share) = self.shares.by_conn.get_mut(&conn).filter(|s| s.asked == Some(answer)) {
            (share.asked, share.unconfirmed) = (None, share.since_asked);
            self.share_due(conn, now, out);
        }
    }

    /// The records for a `welcome`: of other trackers, of those who provide what the dialer is known to want, and a few
    /// more to begin with. Not more: whom a node needs it finds by asking.
    pub(super) fn records_for_welcome(&self, to: &NodeId) -> Vec<Object> {
        let wanted = self.table.get(to).map(|r| self.table.wanted(&r.interests, to, MAX_RECORDS_PER_MESSAGE));
        let mut chosen: Vec<_> = Vec::new();
        if self.config.tracker != TrackerRole::None {
            let others = self.peers.trackers().map(|(_, p)| p.arrival.node).filter(|n| n != to);
            let others = others.filter_map(|n| self.table.get(&n)).filter(|r| r.tracker == TrackerRole::Public);
            chosen.extend(others.take(MAX_WELCOME_TRACKERS));
            let room = MAX_WELCOME_TRACKERS - chosen.len();
            let more = self.table.trackers().filter(|r| r.node_id != *to && r.tracker == TrackerRole::Public);
            let more: Vec<_> = more.filter(|r| self.peers.conn_of(&r.node_id).is_none()).take(room).collect();
            chosen.extend(more);
            // Who is registered elsewhere has been told. From the dialer's own place on: each one is told of others.
            let most = if self.table.get(to).is_some_and(|r| !r.trackers.is_empty()) { 0 } else { MAX_WELCOME_SAMPLE };
            let sample = self.table.from(to).filter(|r| r.node_id != *to && r.tracker == TrackerRole::None);
            chosen.extend(sample.take(most));
        }
        chosen.extend(wanted.into_iter().flatten());
        let mut told = std::collections::BTreeSet::new();
        chosen.retain(|r| told.insert(r.node_id));
        let is_tracker = self.config.tracker != TrackerRole::None;
        let mut bytes = 0;
        let fitting = chosen.into_iter().filter(|r| !is_tracker || self.may_share(r)).take(MAX_RECORDS_PER_MESSAGE);
        let objects = fitting.map(|r| r.object.clone()).take_while(|o| {
            bytes += o.raw().len();
            bytes <= MAX_RECORD_BYTES_PER_MESSAGE
        });
        objects.collect()
    }
}
