//! Passing queries on, with as few messages as can be.
//!
//! Over a link whose two ends both got a query from elsewhere, both would send it, and one of the two messages is for
//! nothing. So the two ends take turns: the one with the smaller id sends at once, the other one waits for some
//! round trips, and sends only what has not come over the link meanwhile. A list of those already asked, put into the
//! query, would save more: but it could not be signed, and whoever passes a query on could keep it from anybody by
//! naming them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::peers::Peer;
use super::state::{State, Timer};
use crate::identity::NodeId;
use crate::limits::{MAX_WAITING_QUERIES, MAX_WAITING_QUERY};
use crate::wire::{Object, Query};

/// The least wait: of two nodes in one building neither knows the time to the microsecond.
const WAIT_MIN: Duration = Duration::from_millis(2);

/// The longest wait. Over five links that are all as slow it is a second; an asking node waits for two.
const WAIT_MAX: Duration = Duration::from_millis(200);

/// What a round trip is taken for when it was not measured yet.
const RTT_UNKNOWN: Duration = Duration::from_millis(20);

/// A query that waits.
#[derive(Debug)]
struct Waiting {
    query: Object,
    ttl: u8,
    /// Whom it waits for, and until when.
    to: Vec<(Duration, ConnId)>,
}

/// Queries that wait before they are passed on to some of the peers.
#[derive(Debug, Default)]
pub struct Forwards {
    waiting: BTreeMap<(NodeId, String), Waiting>,
}

impl Forwards {
    /// How many there are.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// What they hold, in bytes.
    #[cfg(test)]
    pub fn weight(&self) -> usize {
        let one = |((_, id), w): (&(NodeId, String), &Waiting)| {
            id.capacity() + w.query.weight() + w.to.capacity() * size_of::<(Duration, ConnId)>()
        };
        super::weight::btree(self.waiting.len(), size_of::<((NodeId, String), Waiting)>())
            + self.waiting.iter().map(one).sum::<usize>()
    }
}

/// How long a peer is waited for: one to four round trips, as `chance` (0 to 1) says. Were they all the same, the neighbours
/// of a node that nobody has told yet would all tell it at once.
fn wait(peer: &Peer, chance: f64) -> Duration {
    peer.rtt.unwrap_or(RTT_UNKNOWN).mul_f64(1.0 + 3.0 * chance).clamp(WAIT_MIN, WAIT_MAX)
}

impl State {
    /// Passes a query on to every peer but its origin and those who have it.
    pub(super) fn forward(&mut self, query: &Query, origin: NodeId, not: &[NodeId], now: Now, out: &mut Vec<Action>) {
        let ttl = query.ttl - 1;
        let key = (origin, query.id.clone());
        let has_room =
            self.forwards.waiting.len() < MAX_WAITING_QUERIES && query.object.raw().len() <= MAX_WAITING_QUERY;
        let mut at_once = Vec::new();
        let mut later = Vec::new();
        for (conn, peer) in self.peers.all_proven() {
            let node = peer.arrival.node;
            if node == origin || not.contains(&node) {
                continue;
            }
            if self.me < node || !has_room {
                at_once.push(conn);
            } else {
                later.push((now.mono + wait(peer, self.rng.random_range(0.0..1.0)), conn));
            }
        }
        self.pass(&query.object, ttl, at_once, out);
        if let Some(first) = later.iter().map(|(at, _)| *at).min() {
            self.timers.set(Timer::Forward(key.0, key.1.clone()), first);
            // Kept by itself, or the message it came in is kept with it.
            let query = query.object.detached();
            self.forwards.waiting.insert(key, Waiting { query, ttl, to: later });
        }
    }

    /// A query came once more: who brought it needs it no longer, and it may travel as far as the copy that may go farthest.
    pub(super) fn forward_not_to(&mut self, key: &(NodeId, String), conn: ConnId, ttl: u8) {
        if let Some(waiting) = self.forwards.waiting.get_mut(key) {
            waiting.to.retain(|(_, c)| *c != conn);
            waiting.ttl = waiting.ttl.max(ttl.saturating_sub(1));
            if waiting.to.is_empty() {
                self.forwards.waiting.remove(key);
                self.timers.cancel(&Timer::Forward(key.0, key.1.clone()));
            }
        }
    }

    /// Some have been waited for.
    pub(super) fn forward_due(&mut self, key: (NodeId, String), now: Now, out: &mut Vec<Action>) {
        let Some(mut waiting) = self.forwards.waiting.remove(&key) else { return };
        if !self.is_wanted(&key) {
            return;
        }
        let due: Vec<ConnId> = waiting.to.extract_if(.., |(at, _)| *at <= now.mono).map(|(_, conn)| conn).collect();
        self.pass(&waiting.query, waiting.ttl, due, out);
        if let Some(next) = waiting.to.iter().map(|(at, _)| *at).min() {
            self.timers.set(Timer::Forward(key.0, key.1.clone()), next);
            self.forwards.waiting.insert(key, waiting);
        }
    }

    fn pass(&mut self, query: &Object, ttl: u8, to: Vec<ConnId>, out: &mut Vec<Action>) {
        if to.is_empty() {
            return;
        }
        let on = query.with_member("ttl", ttl.to_string().as_bytes());
        self.counters.flooded += to.len() as u64;
        for conn in to {
            out.push(Action::Send { to: conn, what: What::Ready(on.clone()), on_full: OnFull::Drop });
        }
    }
}
