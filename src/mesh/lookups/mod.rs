//! Asking the Kademlia DHT: who is asked for, whom it names, and which of them are dialled.
//!
//! The DHT is anybody's: what it names is a candidate. A few are dialled at a time, few in all, and a node counts only
//! when its handshake has proven it and a signed record says what it provides. The calls that wait hear of both as of
//! any other connection and record; nothing here hands them anybody by itself.

mod scope;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::info::Source;
use crate::limits::{
    DHT_DEAD_ADDR, DHT_DIAL_BURST, DHT_DIALS_PER_SECOND, DHT_UNUSED, LOOKUP_DIALS_AT_ONCE, MAX_LOOKUP_DIALS,
    MAX_LOOKUPS,
};
use crate::mesh::action::Action;
use crate::mesh::clock::Now;
use crate::mesh::conn_id::ConnId;
use crate::mesh::peers::Arrival;
use crate::mesh::queries::Purpose;
use crate::mesh::seen::Seen;
use crate::mesh::state::{State, Timer};
use crate::mesh::throttle::Bucket;
use crate::wire::{Compact, Record, TrackerRole};

pub use scope::Scope;

/// A lookup's number.
pub type LookupId = u64;

/// The most answers of the DHT kept for one lookup, and the most addresses of each: beyond the dials, but an answer that
/// names many must not displace the next one's.
const BATCHES: usize = 32;
const BATCH: usize = 32;

/// How many addresses are remembered as leading nowhere.
const DEAD: usize = 1024;

/// What the DHT is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// Who provides this.
    Capability(String),
    /// Where this node is.
    Node(NodeId),
}

/// An address, and who must be there if that is known.
type Candidate = (SocketAddr, Option<NodeId>);

#[derive(Debug)]
struct Lookup {
    what: Wanted,
    /// What the DHT is being asked for it.
    asking: BTreeSet<Wanted>,
    /// How many calls wait for it.
    calls: usize,
    /// Searches that want to hear of whom it finds.
    finds: BTreeSet<String>,
    /// Answer by answer, so that none can put itself in front of the others by its length.
    batches: VecDeque<VecDeque<Candidate>>,
    /// Every address that was named.
    named: HashSet<SocketAddr>,
    dialing: BTreeMap<SocketAddr, Option<NodeId>>,
    dials: usize,
    /// Those who came through the handshake.
    arrived: BTreeSet<NodeId>,
    /// The newest short record of each node asked for.
    seqs: BTreeMap<NodeId, u64>,
    /// The trackers of the node that is looked for, until they are turned to.
    trackers: Vec<(NodeId, Option<SocketAddr>)>,
    scope: Scope,
    /// What the DHT said when it had no answer.
    note: Option<String>,
}

impl Lookup {
    fn push(&mut self, batch: VecDeque<Candidate>) {
        if !batch.is_empty() && self.batches.len() < BATCHES {
            self.batches.push_back(batch);
        }
    }

    /// One of each answer in turn.
    fn next(&mut self) -> Option<Candidate> {
        let mut batch = self.batches.pop_front()?;
        let next = batch.pop_front();
        if !batch.is_empty() {
            self.batches.push_back(batch);
        }
        next
    }

    /// Why nobody came of it.
    fn outcome(&self) -> String {
        match (&self.note, self.named.len(), self.dials) {
            (Some(note), 0, _) => note.clone(),
            (None, 0, _) => "it names nobody".to_owned(),
            (_, named, dials) => {
                let arrived = self.arrived.len();
                format!("{named} addresses named, {dials} dialled, {arrived} connected, and none of them is it")
            }
        }
    }
}

/// Lookups under way.
#[derive(Debug)]
pub struct Lookups {
    entries: BTreeMap<LookupId, Lookup>,
    by_what: BTreeMap<Wanted, LookupId>,
    last: LookupId,
    dead: Seen<SocketAddr, ()>,
    bucket: Bucket,
    /// Lookups that found somebody, and those that did not.
    pub found: u64,
    pub failed: u64,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            by_what: BTreeMap::new(),
            last: 0,
            dead: Seen::new(DEAD, DHT_DEAD_ADDR),
            bucket: Bucket::new(DHT_DIALS_PER_SECOND, DHT_DIAL_BURST),
            found: 0,
            failed: 0,
        }
    }
}

impl State {
    /// Asks the DHT, or joins whoever asks the same. `None`: too many are asking.
    pub(super) fn look_up(&mut self, what: Wanted, now: Now, out: &mut Vec<Action>) -> Option<LookupId> {
        if let Some(id) = self.lookups.by_what.get(&what) {
            return Some(*id);
        }
        if self.lookups.entries.len() >= MAX_LOOKUPS {
            self.refuse("too_many_lookups");
            return None;
        }
        self.lookups.last += 1;
        let id = self.lookups.last;
        self.lookups.by_what.insert(what.clone(), id);
        let lookup = Lookup {
            what: what.clone(),
            asking: BTreeSet::from([what.clone()]),
            calls: 0,
            finds: BTreeSet::new(),
            batches: VecDeque::new(),
            named: HashSet::new(),
            dialing: BTreeMap::new(),
            dials: 0,
            arrived: BTreeSet::new(),
            seqs: BTreeMap::new(),
            trackers: Vec::new(),
            scope: Scope::Public,
            note: None,
        };
        self.lookups.entries.insert(id, lookup);
        self.timers.set(Timer::Lookup(id), now.mono + self.config.limits.dht_wait);
        out.push(Action::Dht { lookup: id, what });
        Some(id)
    }

    /// A search wants to hear whom the DHT names as well. `false`: it is not asked.
    pub fn find_in_dht(&mut self, find: &str, capability: &str, now: Now, out: &mut Vec<Action>) -> bool {
        if !self.config.dht || capability.is_empty() {
            return false;
        }
        let Some(id) = self.look_up(Wanted::Capability(capability.to_owned()), now, out) else { return false };
        if let Some(lookup) = self.lookups.entries.get_mut(&id) {
            lookup.finds.insert(find.to_owned());
        }
        true
    }

    /// A search is over.
    pub fn stop_find(&mut self, find: &str, out: &mut Vec<Action>) {
        let mut ids = Vec::new();
        for (id, lookup) in &mut self.lookups.entries {
            if lookup.finds.remove(find) {
                ids.push(*id);
            }
        }
        for id in ids {
            self.unwanted(id, out);
        }
    }

    /// A call waits for a lookup.
    pub(super) fn wait_for_lookup(&mut self, id: LookupId) {
        if let Some(lookup) = self.lookups.entries.get_mut(&id) {
            lookup.calls += 1;
        }
    }

    /// It waits no longer.
    pub(super) fn leave_lookup(&mut self, id: LookupId, out: &mut Vec<Action>) {
        if let Some(lookup) = self.lookups.entries.get_mut(&id) {
            lookup.calls = lookup.calls.saturating_sub(1);
            self.unwanted(id, out);
        }
    }

    /// Nobody may be waiting for a lookup any more: then it stops.
    fn unwanted(&mut self, id: LookupId, out: &mut Vec<Action>) {
        let Some(lookup) = self.lookups.entries.get(&id) else { return };
        if !lookup.finds.is_empty() || lookup.calls > 0 {
            return;
        }
        // Else somebody else was faster.
        if !lookup.arrived.is_empty() {
            self.lookups.found += 1;
        }
        self.forget_lookup(id, out);
    }

    fn forget_lookup(&mut self, id: LookupId, out: &mut Vec<Action>) -> Option<Lookup> {
        let lookup = self.lookups.entries.remove(&id)?;
        self.lookups.by_what.remove(&lookup.what);
        self.timers.cancel(&Timer::Lookup(id));
        out.push(Action::DhtStop { lookup: id });
        Some(lookup)
    }

    /// Its time is up, or there is nothing left to try.
    pub(super) fn end_lookup(&mut self, id: LookupId, now: Now, out: &mut Vec<Action>) {
        let Some(lookup) = self.forget_lookup(id, out) else { return };
        self.lookups.failed += 1;
        for find in &lookup.finds {
            out.push(Action::FindNote { id: find.clone(), result: lookup.outcome() });
        }
        self.calls_lookup_over(id, &lookup.outcome(), now, out);
    }

    // ---- what the DHT says -----------------------------------------------------------------------------------

    /// The DHT names addresses for a capability.
    pub fn dht_addrs(&mut self, id: LookupId, addrs: &[SocketAddr], scope: Scope, now: Now, out: &mut Vec<Action>) {
        let batch = addrs.iter().map(|a| (*a, None));
        self.take_batch(id, batch, scope);
        self.dial_candidates(id, now, out);
    }

    /// The DHT has what a node says of itself; the item's signature was checked.
    pub fn dht_record(
        &mut self,
        id: LookupId,
        node: NodeId,
        record: Compact,
        scope: Scope,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let skew_ms = self.config.limits.clock_skew.as_millis() as u64;
        if !record.is_current(now.unix_ms, skew_ms) {
            return self.refuse("stale_dht_item");
        }
        let Some(lookup) = self.lookups.entries.get_mut(&id) else { return };
        // Several servers answer, some with what they were given before.
        if lookup.seqs.get(&node).is_some_and(|seq| *seq >= record.seq) {
            return;
        }
        lookup.seqs.insert(node, record.seq);
        if lookup.what == Wanted::Node(node) {
            lookup.trackers = record.trackers;
        }
        self.take_batch(id, record.addrs.iter().map(|a| (*a, Some(node))), scope);
        self.dial_candidates(id, now, out);
        self.look_further(id, now, out);
    }

    /// The DHT has nothing more to say about one question of a lookup.
    pub fn dht_over(&mut self, id: LookupId, what: &Wanted, note: Option<String>, now: Now, out: &mut Vec<Action>) {
        let Some(lookup) = self.lookups.entries.get_mut(&id) else { return };
        lookup.asking.remove(what);
        lookup.note = note.or(lookup.note.take());
        self.look_further(id, now, out);
    }

    fn take_batch(&mut self, id: LookupId, batch: impl Iterator<Item = Candidate>, scope: Scope) {
        let connected = self.connected_addrs();
        let own = self.addrs();
        let Some(lookup) = self.lookups.entries.get_mut(&id) else { return };
        lookup.scope = scope;
        let fits = |(addr, _): &Candidate| scope.admits(*addr) && !own.contains(addr) && !connected.contains(addr);
        let most = BATCH * BATCHES;
        let mut fresh: VecDeque<Candidate> = VecDeque::new();
        let mut odd = 0;
        for candidate in batch {
            if !fits(&candidate) {
                odd += 1;
            } else if fresh.len() < BATCH && lookup.named.len() < most && lookup.named.insert(candidate.0) {
                fresh.push_back(candidate);
            }
        }
        lookup.push(fresh);
        if odd > 0 {
            self.refuse_n("dht_addr", odd);
        }
    }

    /// Where peers are connected, and where they say they can be dialled: they are known already.
    fn connected_addrs(&self) -> HashSet<SocketAddr> {
        let mut addrs = HashSet::new();
        for (_, peer) in self.peers.all_proven() {
            if !peer.arrival.inbound {
                addrs.insert(peer.arrival.addr);
            }
            addrs.extend(self.table.get(&peer.arrival.node).into_iter().flat_map(|r| r.addrs.iter().copied()));
        }
        addrs
    }

    // ---- dialling --------------------------------------------------------------------------------------------

    fn dial_candidates(&mut self, id: LookupId, now: Now, out: &mut Vec<Action>) {
        self.lookups.dead.expire(now.mono);
        let lookups = &mut self.lookups;
        let Some(lookup) = lookups.entries.get_mut(&id) else { return };
        while lookup.dialing.len() < LOOKUP_DIALS_AT_ONCE && lookup.dials < MAX_LOOKUP_DIALS {
            let Some((addr, node)) = lookup.next() else { return };
            if lookups.dead.contains(&addr) {
                continue;
            }
            if lookups.bucket.take(now.mono).is_err() {
                lookup.batches.push_front(VecDeque::from([(addr, node)]));
                return self.refuse("dht_dials");
            }
            lookup.dials += 1;
            lookup.dialing.insert(addr, node);
            out.push(Action::DialUnknown { lookup: id, addr, node });
        }
    }

    /// A dial of a candidate is over: it entered the mesh, or not.
    pub fn candidate_over(&mut self, id: LookupId, addr: SocketAddr, worked: bool, now: Now, out: &mut Vec<Action>) {
        if !worked {
            self.lookups.dead.insert(addr, (), now.mono);
        }
        let Some(lookup) = self.lookups.entries.get_mut(&id) else { return };
        lookup.dialing.remove(&addr);
        self.dial_candidates(id, now, out);
        self.look_further(id, now, out);
    }

    /// A connection came: it may be to a candidate. Before the calls hear of it, so that their lists are in order.
    pub(super) fn lookups_on_connected(&mut self, conn: ConnId, arrival: &Arrival, now: Now, out: &mut Vec<Action>) {
        if arrival.inbound {
            return;
        }
        let node = arrival.node;
        let here = |l: &&mut Lookup| l.dialing.contains_key(&arrival.addr);
        let mut wanted: Vec<(LookupId, Wanted)> = Vec::new();
        for (id, lookup) in &mut self.lookups.entries {
            if here(&lookup) {
                lookup.arrived.insert(node);
                wanted.push((*id, lookup.what.clone()));
            }
        }
        for (id, what) in wanted {
            self.calls_candidate_arrived(id, node, arrival.addr, &what, now);
            if let Wanted::Capability(capability) = what
                && arrival.tracker != TrackerRole::None
            {
                // It was named for somebody registered with it; its welcome may not have had room for them.
                let query = self.new_id();
                let until = now.mono + self.config.limits.dht_wait;
                self.ask_one(conn, query, Purpose::Lookup(id), &capability, until, now, out);
            }
        }
    }

    /// A record came over a connection: searches hear of it, and a lookup may be at its end.
    pub(super) fn lookups_on_record(&mut self, record: &Record, from: NodeId, now: Now, out: &mut Vec<Action>) {
        let through = |l: &Lookup| l.arrived.contains(&from);
        let ids: Vec<_> = self.lookups.entries.iter().filter(|(_, l)| through(l)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(lookup) = self.lookups.entries.get(&id) else { continue };
            if let Wanted::Capability(capability) = &lookup.what
                && record.caps.provides(capability)
                && let Some(record) = self.table.get(&record.node_id)
            {
                for find in &lookup.finds {
                    let hops = if record.node_id == from { 1 } else { 2 };
                    let record = std::sync::Arc::clone(record);
                    out.push(Action::Found { id: find.clone(), record, how: "dht", hops });
                }
            }
            self.look_further(id, now, out);
        }
    }

    /// Turns to a node's trackers when its own addresses lead nowhere, and ends what can't come to anything any more.
    fn look_further(&mut self, id: LookupId, now: Now, out: &mut Vec<Action>) {
        let Some(lookup) = self.lookups.entries.get_mut(&id) else { return };
        let dials_left = lookup.dials < MAX_LOOKUP_DIALS;
        if !lookup.dialing.is_empty() || (!lookup.batches.is_empty() && dials_left) {
            return;
        }
        let trackers = std::mem::take(&mut lookup.trackers);
        if !trackers.is_empty() && !lookup.arrived.iter().any(|n| lookup.what == Wanted::Node(*n)) {
            return self.turn_to_trackers(id, trackers, now, out);
        }
        if !lookup.asking.is_empty() {
            return;
        }
        let is_heard = |node: &NodeId| match self.peers.proven(node) {
            // A tracker may still name somebody.
            Some(peer) => peer.told.is_some() && peer.arrival.tracker == TrackerRole::None,
            None => true,
        };
        if lookup.arrived.iter().all(is_heard) {
            self.end_lookup(id, now, out);
        }
    }

    fn turn_to_trackers(
        &mut self,
        id: LookupId,
        trackers: Vec<(NodeId, Option<SocketAddr>)>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let me = self.me;
        for (tracker, at) in trackers.into_iter().filter(|(t, _)| *t != me) {
            if self.peers.conn_of(&tracker).is_some() {
                self.calls_tracker_named(id, tracker, now, out);
                continue;
            }
            let known = self.table.get(&tracker).map(|r| r.addrs.clone()).unwrap_or_default();
            let Some(lookup) = self.lookups.entries.get_mut(&id) else { return };
            let (scope, what) = (lookup.scope, Wanted::Node(tracker));
            if at.is_none() && known.is_empty() && lookup.asking.insert(what.clone()) {
                out.push(Action::Dht { lookup: id, what });
            }
            self.take_batch(id, at.into_iter().chain(known).map(|a| (a, Some(tracker))), scope);
        }
        self.dial_candidates(id, now, out);
        self.look_further(id, now, out);
    }

    /// Closes connections to those whom the DHT named and nothing came of. Not the last one: it is a way into the mesh.
    pub(super) fn close_wrong_candidates(&mut self, now: Now, out: &mut Vec<Action>) {
        let is_wrong = |p: &crate::mesh::peers::Peer| {
            p.arrival.how.found == Source::Dht
                && p.arrival.how.on_demand
                && p.used == p.since
                && now.mono.saturating_sub(p.since) >= DHT_UNUSED
                && !self.in_flight.contains_key(&p.arrival.node)
                && self.tasks.running_for(&p.arrival.node) == 0
        };
        let wrong: Vec<ConnId> = self.peers.all_proven().filter(|(_, p)| is_wrong(p)).map(|(c, _)| c).collect();
        let most = self.peers.all_proven().count().saturating_sub(1);
        for conn in wrong.into_iter().take(most) {
            self.drop_peer(conn, CloseReason::Unused, "the DHT named it, and nothing came of it", now, out);
        }
    }

    /// Whether a lookup is under way.
    pub fn looks_up(&self, id: LookupId) -> bool {
        self.lookups.entries.contains_key(&id)
    }

    /// How many lookups are under way, found somebody, and did not.
    pub fn lookup_counts(&self) -> (usize, u64, u64) {
        (self.lookups.entries.len(), self.lookups.found, self.lookups.failed)
    }

    /// A node's alarm for [`Timer::Lookup`].
    pub(super) fn lookup_due(&mut self, id: LookupId, now: Now, out: &mut Vec<Action>) {
        self.end_lookup(id, now, out);
    }
}

/// How long a flood goes on alone before the DHT is asked as well.
///
/// A flood that reaches a provider answers within a few round trips of neighbours: tens of milliseconds on one network,
/// at most about 300 ms around the world over 2 links. Later answers are rare, and waiting the whole 2 s for silence
/// before asking elsewhere would triple the time of every call that the mesh can't serve.
pub(super) const DHT_AFTER: Duration = Duration::from_millis(300);
