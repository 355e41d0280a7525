//! The tracker's relay: signed frames between nodes that can't reach each other.
//!
//! The tracker checks that a frame was signed by the source it names, and never changes it. A frame that can't be
//! passed on is answered with `relay_error`; a task that was passed on is remembered until its result comes back, so
//! that its caller is told when the target is lost.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, OnFull, Relayed, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::origin::Origin;
use super::relay_rate::RelayRate;
use super::sealing::Seal;
use super::seen::Seen;
use super::state::State;
use super::task_id::TaskId;
use super::trail::Trail;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::{Limits, MAX_RELAY_HOPS};
use crate::wire::{Message, NotOpened, Opening, Record, Relay, RelayError, SealedKind, TrackerRole, WireError, draft};

#[derive(Debug)]
struct Carried {
    target: NodeId,
    /// Who brought it: the way back to its source.
    from: NodeId,
    /// Where that one is.
    origin: Origin,
    /// Who got it: the target, or the next tracker.
    to: NodeId,
    until: Duration,
    /// How often it was passed on.
    copies: u32,
}

/// Of how many pairs of nodes it is remembered that the one was told where the other can be dialled, and for how long:
/// 100 bytes each. Whoever is forgotten is told once more.
const MAX_TOLD: usize = 4096;
const TOLD_FOR: Duration = Duration::from_secs(300);

/// Tasks passed on whose results have not come back.
#[derive(Debug)]
pub struct Relays {
    carried: BTreeMap<(NodeId, String), Carried>,
    /// How many of them each source has.
    by_source: HashMap<NodeId, usize>,
    /// How many of them came from each address.
    by_origin: HashMap<Origin, usize>,
    max_carried: usize,
    rate: RelayRate,
    /// Who was told of whose record, by the seq.
    told: Seen<(NodeId, NodeId), u64>,
}

impl Relays {
    /// Nothing was relayed yet. The secret keeps others from choosing whose bytes are counted with theirs.
    pub fn new(limits: &Limits, secret: u64) -> Self {
        Self {
            carried: BTreeMap::new(),
            by_source: HashMap::new(),
            by_origin: HashMap::new(),
            max_carried: limits.max_carried,
            rate: RelayRate::new(limits, secret),
            told: Seen::new(MAX_TOLD, TOLD_FOR),
        }
    }

    /// Forgets tasks past their deadlines.
    pub fn expire(&mut self, now: Now) {
        let (by_source, by_origin) = (&mut self.by_source, &mut self.by_origin);
        self.carried.retain(|(source, _), carried| {
            let stays = carried.until > now.mono;
            if !stays {
                forget(by_source, source);
                forget(by_origin, &carried.origin);
            }
            stays
        });
        self.told.expire(now.mono);
    }

    /// Whether another task of that source, from that address, can be waited for. A source has a sixteenth of all; and an
    /// address a third of what is free, whatever number of keys it has: see `no_room` in `tasks/memory.rs`.
    fn has_room(&self, source: &NodeId, origin: &Origin) -> bool {
        let of_source = self.by_source.get(source).copied().unwrap_or(0);
        let free = self.max_carried.saturating_sub(self.carried.len());
        let of_origin = self.by_origin.get(origin).copied().unwrap_or(0);
        of_origin < free.div_ceil(3) && of_source < (self.max_carried / 16).max(1)
    }

    fn insert(&mut self, key: (NodeId, String), carried: Carried) {
        let source = key.0;
        *self.by_source.entry(source).or_default() += 1;
        *self.by_origin.entry(carried.origin).or_default() += 1;
        if let Some(before) = self.carried.insert(key, carried) {
            forget(&mut self.by_source, &source);
            forget(&mut self.by_origin, &before.origin);
        }
    }

    fn remove(&mut self, key: &(NodeId, String)) {
        if let Some(carried) = self.carried.remove(key) {
            forget(&mut self.by_source, &key.0);
            forget(&mut self.by_origin, &carried.origin);
        }
    }

    /// How many there are.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.carried.len()
    }
}

fn forget<K: Eq + Hash>(counts: &mut HashMap<K, usize>, of: &K) {
    if let Some(n) = counts.get_mut(of) {
        *n -= 1;
        if *n == 0 {
            counts.remove(of);
        }
    }
}

/// For how long a frame's task lives, if it is a task; sealed or not.
fn task_ttl_s(frame: &Message) -> Option<u64> {
    match frame {
        Message::Task(task) => Some(task.ttl_s),
        Message::Sealed(sealed) if sealed.kind == SealedKind::Task => sealed.ttl_s,
        _ => None,
    }
}

fn is_result(frame: &Message) -> bool {
    match frame {
        Message::Result(_) => true,
        Message::Sealed(sealed) => sealed.kind == SealedKind::Result,
        _ => false,
    }
}

impl State {
    pub(super) fn on_relay(&mut self, relay: Relay, conn: ConnId, from: NodeId, now: Now, out: &mut Vec<Action>) {
        if relay.target == self.me {
            // For ourselves: as if it had come straight from its signer.
            let seal = match relay.opening {
                Opening::Opened(key) => Seal::To(key),
                Opening::None | Opening::Failed(_) => Seal::Plain,
            };
            if let Message::Sealed(sealed) = *relay.frame {
                let why = if let Opening::Failed(why) = relay.opening { why } else { NotOpened::Off };
                return self.on_unopened(sealed, why, from, out);
            }
            if let Message::Result(answer) = &*relay.frame {
                self.call_relayed_over(&TaskId::from(&answer.id), relay.source, relay.hops);
            }
            if let Message::Task(_) = &*relay.frame {
                self.note_contact(relay.source, from, now);
            }
            return self.on_signed(*relay.frame, relay.source, Trail { via: Some(from), seal }, conn, now, out);
        }
        let id = relay.frame.task_id().unwrap_or_default().to_owned();
        let refused = self.relay_refusal(&relay, from);
        if let Some((code, message)) = refused {
            self.refuse("relay_refused");
            return self.relay_failed(conn, &relay.target, &relay.source, &id, &WireError::new(code, message), out);
        }
        let Some((to, next)) = self.relay_way(&relay, &id, &from) else {
            let message =
                format!("{} is not connected to this tracker, nor to one it is connected to", relay.target.short());
            // Of a task that was passed on before, nobody may say that it was not.
            let carried =
                self.relays.carried.get(&(relay.source, id.clone())).is_some_and(|c| c.target == relay.target);
            let code = if carried { ErrorCode::PeerGone } else { ErrorCode::NoPeer };
            return self.relay_failed(conn, &relay.target, &relay.source, &id, &WireError::new(code, message), out);
        };
        if let Err(wait) = self.relays.rate.take(&relay.source, &relay.target, relay.frame_object.raw().len(), now.mono)
        {
            self.refuse("relay_rate");
            let error = WireError::new(
                ErrorCode::RateLimited,
                "too many bytes from this node to that one; send it again later",
            );
            let error = error.retry_after_s(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
            let error = draft::relay_error(&relay.target, &relay.source, if id.is_empty() { "-" } else { &id }, &error);
            return out.push(Action::Send { to: conn, what: What::Ready(error), on_full: OnFull::Drop });
        }
        let origin = self.peers.get(conn).map(|p| Origin::of(p.arrival.addr.ip()));
        let has_room = origin.is_some_and(|origin| self.relays.has_room(&relay.source, &origin));
        let task = task_ttl_s(&relay.frame);
        match task {
            Some(ttl_s) if has_room => {
                let until = now.mono + Duration::from_secs(ttl_s);
                let key = (relay.source, id.clone());
                let copies = match self.relays.carried.get(&key) {
                    Some(carried) if carried.target == relay.target => carried.copies.saturating_add(1),
                    _ => 1,
                };
                if let Some(origin) = origin {
                    self.relays.insert(key, Carried { target: relay.target, from, origin, to: next, until, copies });
                }
            }
            None if is_result(&relay.frame) => {
                let key = (relay.target, id.clone());
                if self.relays.carried.get(&key).is_some_and(|c| c.target == relay.source) {
                    self.relays.remove(&key);
                }
            }
            _ => {}
        }
        if relay.source == from && task.is_some() {
            self.tell_of_target(conn, from, &relay.target, now, out);
        }
        self.counters.relayed += 1;
        let what =
            What::Relay { target: relay.target, source: relay.source, hops: relay.hops + 1, frame: relay.frame_object };
        let on_full = OnFull::Relay(Box::new(Relayed { source: relay.source, target: relay.target, id }));
        out.push(Action::Send { to, what, on_full });
    }

    /// Who sends a task through us for a node that can be dialled may not know that yet: its record of the node is an
    /// older one.
    fn tell_of_target(&mut self, conn: ConnId, source: NodeId, target: &NodeId, now: Now, out: &mut Vec<Action>) {
        let may_know = |r: &&Arc<Record>| !r.addrs.is_empty() && self.may_tell(r, &source);
        let Some(record) = self.table.get(target).filter(may_know) else { return };
        let key = (source, *target);
        match self.relays.told.get_mut(&key) {
            Some(seq) if *seq >= record.seq => return,
            Some(seq) => *seq = record.seq,
            None => drop(self.relays.told.insert(key, record.seq, now.mono)),
        }
        let announce = draft::announce(&record.object, 1);
        out.push(Action::Send { to: conn, what: What::Ready(announce), on_full: OnFull::Drop });
    }

    fn relay_refusal(&self, relay: &Relay, from: NodeId) -> Option<(ErrorCode, String)> {
        if self.config.tracker == TrackerRole::None {
            return Some((ErrorCode::NoTracker, "this node is not a tracker: it relays for nobody".into()));
        }
        if let Some(why) = self.ended(&relay.source).or_else(|| self.ended(&relay.target)) {
            return Some((ErrorCode::NotAllowed, why));
        }
        if self.is_denied(&relay.source) {
            return Some((ErrorCode::NotAllowed, format!("this tracker's owner denied {}", relay.source)));
        }
        if relay.hops >= MAX_RELAY_HOPS {
            return Some((ErrorCode::BadRequest, format!("the frame has passed {MAX_RELAY_HOPS} trackers already")));
        }
        let from_tracker = self.peers.proven(&from).is_some_and(|p| p.arrival.tracker != TrackerRole::None);
        if relay.source != from && !(from_tracker && relay.hops > 0) {
            return Some((ErrorCode::NotAllowed, "a node may relay only what it signed itself".into()));
        }
        None
    }

    /// Whom a frame goes to next: its target, or a tracker nearer to it.
    fn relay_way(&self, relay: &Relay, id: &str, from: &NodeId) -> Option<(ConnId, NodeId)> {
        if let Some(conn) = self.peers.conn_of(&relay.target) {
            return Some((conn, relay.target));
        }
        // Through how many more trackers it may go when it has passed this one.
        let left = MAX_RELAY_HOPS.saturating_sub(relay.hops + 1);
        // What is said about a task goes where the task went, or back the way it came.
        let task = self.relays.carried.get(&(relay.source, id.to_owned())).filter(|c| c.target == relay.target);
        let answer = self.relays.carried.get(&(relay.target, id.to_owned())).filter(|c| c.target == relay.source);
        let known = task.map(|c| c.to).into_iter().chain(answer.map(|c| c.from));
        let known = known.filter(|n| left > 0 && n != from).find_map(|n| Some((self.peers.conn_of(&n)?, n)));
        known.or_else(|| self.way_over_trackers(&relay.target, from, left))
    }

    /// The way to a node that is not connected, over at most `left` other trackers: one that its record names, or one that is
    /// connected with such a one.
    fn way_over_trackers(&self, target: &NodeId, from: &NodeId, left: u8) -> Option<(ConnId, NodeId)> {
        let record = self.table.get(target).filter(|_| left > 0)?;
        let connected = |t: &NodeId| self.peers.conn_of(t).filter(|_| t != from).map(|conn| (conn, *t));
        if let Some(way) = record.trackers.iter().find_map(connected) {
            return Some(way);
        }
        if left < 2 {
            return None;
        }
        // Either of two trackers may name the other: a record has room for four of those it is connected with.
        let named = record.trackers.iter().filter_map(|t| self.table.get(t));
        let behind = named.flat_map(|t| &t.trackers).find_map(connected);
        behind.or_else(|| {
            let names =
                |t: &NodeId| self.table.get(t).is_some_and(|r| r.trackers.iter().any(|n| record.trackers.contains(n)));
            let trackers = self.peers.trackers().map(|(_, p)| p.arrival.node);
            trackers.filter(|t| names(t)).find_map(|t| connected(&t))
        })
    }

    /// The way back to a task's source, for word of what became of it.
    fn way_back(&self, source: &NodeId, came_from: Option<NodeId>, not: &NodeId) -> Option<ConnId> {
        let came_from = came_from.filter(|n| n != not).and_then(|n| self.peers.conn_of(&n));
        let direct = self.peers.conn_of(source).or(came_from);
        direct.or_else(|| self.way_over_trackers(source, not, MAX_RELAY_HOPS - 1).map(|(conn, _)| conn))
    }

    fn relay_failed(
        &mut self,
        conn: ConnId,
        target: &NodeId,
        source: &NodeId,
        id: &str,
        error: &WireError,
        out: &mut Vec<Action>,
    ) {
        let id = if id.is_empty() { "-" } else { id };
        let error = draft::relay_error(target, source, id, error);
        out.push(Action::Send { to: conn, what: What::Ready(error), on_full: OnFull::Drop });
    }

    /// A frame did not fit in the target's outbox.
    pub fn relay_full(&mut self, source: &NodeId, target: &NodeId, id: &str, out: &mut Vec<Action>) {
        self.refuse("relay_overflow");
        let key = (*source, id.to_owned());
        // An earlier copy was passed on: the caller must not think that nobody has the task.
        let only_copy = self.relays.carried.get(&key).is_none_or(|c| c.copies <= 1);
        let came_from = self.relays.carried.get(&key).map(|c| c.from);
        if only_copy {
            self.relays.remove(&key);
        }
        let code = if only_copy { ErrorCode::Overloaded } else { ErrorCode::PeerGone };
        if let Some(conn) = self.way_back(source, came_from, target) {
            let message = "the target does not read fast enough";
            self.relay_failed(conn, target, source, id, &WireError::new(code, message), out);
        }
    }

    /// A node was lost: whoever waits for results through us that came over it is told.
    pub(super) fn relays_on_lost(&mut self, node: &NodeId, _now: Now, out: &mut Vec<Action>) {
        let lost: Vec<_> = self
            .relays
            .carried
            .iter()
            .filter(|((source, _), c)| c.target == *node || c.to == *node || source == node)
            .map(|(key, c)| (key.clone(), c.target, c.from))
            .collect();
        for ((source, id), target, from) in lost {
            self.relays.remove(&(source, id.clone()));
            if source != *node
                && let Some(conn) = self.way_back(&source, Some(from), node)
            {
                let message = match target == *node {
                    true => "the target's connection to the tracker ended",
                    false => "the connection to the next tracker ended",
                };
                self.relay_failed(conn, &target, &source, &id, &WireError::new(ErrorCode::PeerGone, message), out);
            }
        }
    }

    pub(super) fn on_relay_error(&mut self, error: RelayError, from: NodeId, now: Now, out: &mut Vec<Action>) {
        match error.source {
            Some(source) if source != self.me => {
                // On its way back to the source, over the tracker that the frame came from.
                let from_tracker = self.peers.trackers().any(|(_, p)| p.arrival.node == from);
                if self.config.tracker == TrackerRole::None || !from_tracker {
                    return self.refuse("relay_refused");
                }
                let key = (source, error.id.clone());
                // Word of an older copy's way does not end the one that is known now.
                let carried = self.relays.carried.get(&key).filter(|c| c.target == error.target && c.to == from);
                let came_from = carried.map(|c| c.from);
                if carried.is_some() {
                    self.relays.remove(&key);
                }
                // It doesn't say how far it came. So it goes to its end, or one step back on a way that is forgotten with it: in
                // a ring of trackers it would go round for ever otherwise.
                let direct = self.peers.conn_of(&source);
                let back = came_from.filter(|n| *n != from).and_then(|n| self.peers.conn_of(&n));
                if let Some(conn) = direct.or(back) {
                    let on = draft::relay_error(&error.target, &source, &error.id, &error.error);
                    out.push(Action::Send { to: conn, what: What::Ready(on), on_full: OnFull::Drop });
                }
            }
            _ if ErrorCode::from_wire(&error.error.code) == Some(ErrorCode::RateLimited)
                && !self.is_calling(&TaskId::from(&error.id)) =>
            {
                let wait = error.error.retry_after().unwrap_or_default();
                self.answer_later((error.target, TaskId::from(&error.id)), from, wait, now);
            }
            _ => self.call_relay_failed(&error, from, now, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_keys_of_one_address_do_not_fill_the_table_of_carried_tasks() {
        let node = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            NodeId::from_bytes(bytes)
        };
        let at = |n: u8| Origin::of(std::net::Ipv4Addr::new(192, 0, 2, n).into());
        let mut relays = Relays::new(&Limits::default(), 1);
        let until = Duration::from_secs(10);
        let mut carry = |source: NodeId, origin: Origin, n: usize| {
            let has_room = relays.has_room(&source, &origin);
            if has_room {
                let carried = Carried { target: node(0), from: source, origin, to: node(0), until, copies: 1 };
                relays.insert((source, n.to_string()), carried);
            }
            (has_room, relays.len())
        };
        for key in 1..1000 {
            for task in 0..100 {
                carry(node(key), at(1), task);
            }
        }
        let (has_room, all) = carry(node(1), at(1), 1000);
        assert!(!has_room && (4000..4200).contains(&all), "{all}");
        // Another address has its share of what is left, and one source there no more than its own.
        assert!((0..1024).all(|task| carry(node(5000), at(2), task).0) && !carry(node(5000), at(2), 1024).0);
        assert!(carry(node(5001), at(2), 0).0);
        relays.expire(Now { mono: until, unix_ms: 0 });
        assert_eq!((relays.len(), relays.by_origin.len()), (0, 0));
    }
}
