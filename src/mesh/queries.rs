//! The query flood: a question signed by its origin goes out over every link, answers return the way it came.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::lookups::LookupId;
use super::seen::Seen;
use super::state::{State, Timer};
use super::table::{Learned, names};
use super::task_id::TaskId;
use crate::identity::NodeId;
use crate::limits::{FLOOD_TTL, Limits, MAX_RECORD_BYTES_PER_MESSAGE, MAX_RECORDS_PER_MESSAGE};
use crate::wire::{Draft, Object, Query, QueryResp, Record, draft};

/// The most searches under way at once, those of calls not counted. Each waits for 2 s and holds what it found.
const MAX_FINDS: usize = 1024;

/// How many of those who brought a query again are remembered until it is passed on.
const MAX_HEARD: usize = 64;

/// What a query of ours is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody wants to see who there is.
    Find,
    /// A call looks for somebody.
    Call(TaskId),
    /// A tracker that the DHT named for a lookup is asked whom it was named for.
    Lookup(LookupId),
    /// A Python node asked us; its connection and its query's id.
    Legacy(ConnId, String),
}

/// A query of ours.
#[derive(Debug)]
struct Own {
    purpose: Purpose,
    draft: Draft,
    capability: String,
    node: String,
    asked: HashSet<ConnId>,
    found: HashSet<NodeId>,
}

/// A query of somebody else's that went through here.
#[derive(Debug)]
struct Passing {
    /// Who brought it; over which connection, shows when an answer goes back.
    from: NodeId,
    /// How many more answers may go back.
    left: u64,
    /// Whether it was passed on. One that came with its last step may come again over a shorter way.
    passed: bool,
    /// Who else brought it before it was passed on: they need it no more.
    heard: Vec<NodeId>,
    /// Who was named already; no more than were asked for.
    named: Vec<NodeId>,
    capability: String,
    node: String,
}

/// Queries under way.
#[derive(Debug)]
pub struct Queries {
    own: BTreeMap<String, Own>,
    passing: Seen<(NodeId, String), Passing>,
}

impl Queries {
    /// None yet.
    pub fn new(limits: &Limits, keep: Duration) -> Self {
        Self { own: BTreeMap::new(), passing: Seen::new(limits.max_seen, keep) }
    }

    /// Forgets what is old.
    pub fn expire(&mut self, now: Now) {
        self.passing.expire(now.mono);
    }

    /// What they hold, in bytes.
    #[cfg(test)]
    pub fn weight(&self) -> usize {
        let own = |(id, own): (&String, &Own)| {
            let sets = super::weight::hash(own.asked.capacity(), size_of::<ConnId>())
                + super::weight::hash(own.found.capacity(), size_of::<NodeId>());
            id.capacity() + own.capability.capacity() + own.node.capacity() + sets + size_of::<Own>()
        };
        let passing = |(_, id): &(NodeId, String), p: &Passing| {
            let texts = p.capability.capacity() + p.node.capacity();
            id.capacity() + texts + (p.named.capacity() + p.heard.capacity()) * size_of::<NodeId>()
        };
        self.own.iter().map(own).sum::<usize>() + self.passing.weight(passing)
    }

    /// How many are remembered.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.own.len() + self.passing.len()
    }

    /// How many are remembered, each with the most that may be: those of others, and by purpose those of this node.
    #[cfg(any(test, fuzzing))]
    pub fn bounds(&self, limits: &Limits) -> [(&'static str, usize, usize); 4] {
        let own = |purpose: fn(&Purpose) -> bool| self.own.values().filter(|own| purpose(&own.purpose)).count();
        let lookups = crate::limits::MAX_LOOKUPS * crate::limits::MAX_LOOKUP_DIALS;
        [
            ("queries of others", self.passing.len(), limits.max_seen),
            ("queries of calls", own(|p| matches!(p, Purpose::Call(_))), limits.max_calls),
            ("queries of lookups", own(|p| matches!(p, Purpose::Lookup(_))), lookups),
            // The calls' places don't count, so that they leave theirs to searches.
            ("searches", own(|p| matches!(p, Purpose::Find | Purpose::Legacy(..))), MAX_FINDS + limits.max_calls),
        ]
    }
}

/// Whether a record answers a question.
fn answers(record: &Record, capability: &str, node: &str) -> bool {
    (capability.is_empty() || record.caps.provides(capability))
        && (node.is_empty() || names(node, &record.node_id, &record.name) || record.was(node))
}

impl State {
    /// Asks the mesh. The answers come as actions until `until`.
    #[allow(clippy::too_many_arguments)] // One question's parts; a struct would be named once and taken apart once.
    pub fn ask_mesh(
        &mut self,
        id: String,
        purpose: Purpose,
        capability: &str,
        node: &str,
        limit: u64,
        until: Duration,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        // A call asks one question at a time; searches of other kinds are bounded here.
        if !matches!(purpose, Purpose::Call(_)) && self.queries.own.len() >= MAX_FINDS + self.calls.len() {
            self.refuse("too_many_queries");
            if purpose == Purpose::Find {
                out.push(Action::FindOver { id });
            }
            return;
        }
        let draft = Draft::Query {
            id: id.clone(),
            capability: capability.to_owned(),
            node: node.to_owned(),
            ttl: FLOOD_TTL,
            timestamp: now.unix_s(),
            limit,
        };
        let conns: Vec<ConnId> = self.peers.all_proven().map(|(c, _)| c).collect();
        for conn in &conns {
            out.push(Action::Send { to: *conn, what: What::Sign(draft.clone()), on_full: OnFull::Drop });
        }
        self.timers.set(Timer::Query(id.clone()), until);
        let own = Own {
            purpose,
            draft,
            capability: capability.to_owned(),
            node: node.to_owned(),
            asked: conns.into_iter().collect(),
            found: HashSet::new(),
        };
        self.queries.own.insert(id, own);
    }

    /// Asks one peer what it knows itself.
    #[allow(clippy::too_many_arguments)] // As above.
    pub(super) fn ask_one(
        &mut self,
        conn: ConnId,
        id: String,
        purpose: Purpose,
        capability: &str,
        until: Duration,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let draft = Draft::Query {
            id: id.clone(),
            capability: capability.to_owned(),
            node: String::new(),
            ttl: 1,
            timestamp: now.unix_s(),
            limit: 8,
        };
        out.push(Action::Send { to: conn, what: What::Sign(draft.clone()), on_full: OnFull::Drop });
        self.timers.set(Timer::Query(id.clone()), until);
        let (capability, node) = (capability.to_owned(), String::new());
        let own = Own { purpose, draft, capability, node, asked: HashSet::from([conn]), found: HashSet::new() };
        self.queries.own.insert(id, own);
    }

    /// A query of ours is no longer wanted.
    pub fn stop_query(&mut self, id: &str) {
        self.queries.own.remove(id);
        self.timers.cancel(&Timer::Query(id.to_owned()));
    }

    pub(super) fn query_due(&mut self, id: &str, now: Now, out: &mut Vec<Action>) {
        let Some(own) = self.queries.own.remove(id) else { return };
        match own.purpose {
            Purpose::Find => out.push(Action::FindOver { id: id.to_owned() }),
            Purpose::Call(call) => self.call_flood_over(&call, now, out),
            Purpose::Lookup(_) | Purpose::Legacy(..) => {}
        }
    }

    /// A new peer is asked what is still being asked.
    pub(super) fn queries_on_connected(&mut self, conn: ConnId, _now: Now, out: &mut Vec<Action>) {
        let all = |own: &&mut Own| !matches!(own.purpose, Purpose::Lookup(_));
        for own in self.queries.own.values_mut().filter(all) {
            if own.asked.insert(conn) {
                out.push(Action::Send { to: conn, what: What::Sign(own.draft.clone()), on_full: OnFull::Drop });
            }
        }
    }

    pub(super) fn queries_on_disconnected(&mut self, conn: ConnId) {
        for own in self.queries.own.values_mut() {
            own.asked.remove(&conn);
        }
    }

    pub(super) fn on_query(&mut self, query: Query, conn: ConnId, from: NodeId, now: Now, out: &mut Vec<Action>) {
        let Some(origin) = query.origin else { return };
        if origin == self.me {
            return;
        }
        if self.is_denied(&origin) {
            return self.refuse("denied_origin");
        }
        let skew = self.config.limits.clock_skew.as_secs() as i64;
        if query.timestamp.abs_diff(now.unix_s()) > skew as u64 {
            return self.refuse("query_clock");
        }
        let (capability, node) = (query.capability.clone(), query.node.clone());
        let passing = Passing {
            from,
            left: query.limit,
            passed: query.ttl > 1,
            heard: Vec::new(),
            named: Vec::new(),
            capability,
            node,
        };
        let key = (origin, query.id.clone());
        if !self.queries.passing.insert_from(from, key.clone(), passing, now.mono) {
            return self.on_query_again(&query, &key, conn, from, now, out);
        }
        let found = self.answers_here(&query, &origin, &from);
        let mut left = query.limit;
        left = left.saturating_sub(found.len() as u64);
        // We are one link from whoever asked us; those we know are at least one more.
        let (own, others): (Vec<_>, Vec<_>) = found.iter().partition(|r| r.node_id == self.me);
        for (hops, records) in [(1, own), (2, others)] {
            if !records.is_empty() {
                let resp = draft::query_resp(&query.id, &origin, hops, records.iter().map(|r| &r.object), None);
                out.push(Action::Send { to: conn, what: What::Ready(resp), on_full: OnFull::Drop });
            }
        }
        if let Some(passing) = self.queries.passing.get_mut(&key) {
            passing.left = left;
            passing.named = found.iter().map(|r| r.node_id).collect();
        }
        if query.ttl > 1 && left > 0 {
            self.forward(&query, origin, &[from], now, out);
        }
    }

    /// A query came that was seen before.
    fn on_query_again(
        &mut self,
        query: &Query,
        key: &(NodeId, String),
        conn: ConnId,
        from: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.refuse("duplicate_query");
        self.forward_not_to(key, conn, query.ttl);
        let Some(passing) = self.queries.passing.get_mut(key) else { return };
        if passing.passed {
            return;
        }
        if query.ttl <= 1 || passing.left == 0 {
            if passing.heard.len() < MAX_HEARD {
                passing.heard.push(from);
            }
            return;
        }
        passing.passed = true;
        let mut not = std::mem::take(&mut passing.heard);
        not.extend([passing.from, from]);
        self.forward(query, key.0, &not, now, out);
    }

    /// Whether a query that went through here may still be answered.
    pub(super) fn is_wanted(&mut self, key: &(NodeId, String)) -> bool {
        self.queries.passing.get_mut(key).is_some_and(|p| p.left > 0)
    }

    /// The records that answer a query, ours first.
    fn answers_here(&self, query: &Query, origin: &NodeId, asker: &NodeId) -> Vec<Arc<Record>> {
        let own = self.record.iter().filter(|r| answers(r, &query.capability, &query.node));
        let fits = |r: &&Arc<Record>| {
            r.node_id != *origin && answers(r, &query.capability, &query.node) && self.may_tell(r, asker)
        };
        let most = (query.limit as usize).min(MAX_RECORDS_PER_MESSAGE);
        let known: Vec<&Arc<Record>> = if let Ok(node) = query.node.parse() {
            // Whoever asks for an id that was replaced is told of the one that took its place.
            self.table.get(&self.keys.current(&node)).into_iter().filter(fits).collect()
        } else if query.capability.is_empty() {
            self.table.iter().filter(fits).take(most).collect()
        } else {
            self.table.providers(&query.capability).filter(fits).take(most).collect()
        };
        let mut bytes = 0;
        let fitting = own.chain(known).take(most).take_while(|r| {
            bytes += r.object.raw().len();
            bytes <= MAX_RECORD_BYTES_PER_MESSAGE
        });
        fitting.cloned().collect()
    }

    pub(super) fn on_query_resp(&mut self, resp: QueryResp, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        if resp.origin.is_none_or(|o| o == self.me) {
            return self.on_own_answer(resp, conn, now, out);
        }
        let Some(origin) = resp.origin else { return };
        let key = (origin, resp.id.clone());
        let Some(to) = self.queries.passing.get_mut(&key).map(|p| p.from) else {
            return self.refuse("unasked_answer");
        };
        let mut resp = resp;
        resp.nodes.retain(|r| self.may_tell(r, &to) && !self.is_denied(&r.node_id));
        let Some(passing) = self.queries.passing.get_mut(&key) else { return };
        // Only what was asked for goes back, no more than was asked for, and nobody twice: the same node is known in
        // many places, and would take the room of the others.
        let fits = |r: &&Record| {
            answers(r, &passing.capability, &passing.node) && r.node_id != origin && !passing.named.contains(&r.node_id)
        };
        let fitting: Vec<&Record> = resp.nodes.iter().filter(fits).take(passing.left as usize).collect();
        passing.named.extend(fitting.iter().map(|r| r.node_id));
        let nodes: Vec<Object> = fitting.iter().map(|r| r.object.clone()).collect();
        if nodes.is_empty() {
            return;
        }
        passing.left -= nodes.len() as u64;
        let Some(to) = self.peers.conn_of(&to) else { return };
        let on = draft::query_resp(&resp.id, &origin, resp.hops.saturating_add(1), nodes.iter(), None);
        self.counters.flooded += 1;
        out.push(Action::Send { to, what: What::Ready(on), on_full: OnFull::Drop });
    }

    fn on_own_answer(&mut self, resp: QueryResp, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        let Some(mut own) = self.queries.own.remove(&resp.id) else { return self.refuse("late_answer") };
        if !own.asked.contains(&conn) {
            self.queries.own.insert(resp.id, own);
            return self.refuse("unasked_answer");
        }
        if let Some(error) = &resp.error {
            tracing::debug!(code = %error.code, message = %error.message, "a peer did not pass our query on");
        }
        let via = self.peers.get(conn).map(|p| p.arrival.node);
        let mut found = Vec::new();
        for record in resp.nodes {
            let node = record.node_id;
            if node == self.me || !answers(&record, &own.capability, &own.node) {
                continue;
            }
            // A neighbour that speaks for itself is one link away, whatever it counts.
            let hops = if via == Some(node) { 1 } else { resp.hops };
            let learned = self.learn(record, via, now);
            match learned {
                Learned::Dead => self.refuse("dead_record"),
                Learned::Denied => self.refuse("denied_origin"),
                Learned::Newer(_) | Learned::Known => {
                    // No more than are kept in all: whoever is asked can make up as many nodes as it likes.
                    if let Learned::Newer(_) = learned
                        && let Some(record) = self.table.get(&node).cloned()
                    {
                        self.keys_on_record(&record, Some(conn), now, out);
                    }
                    if own.found.len() < self.config.limits.max_records
                        && own.found.insert(node)
                        && let Some(record) = self.table.get(&node)
                    {
                        found.push((Arc::clone(record), hops));
                    }
                }
            }
        }
        let (purpose, capability) = (own.purpose.clone(), own.capability.clone());
        self.queries.own.insert(resp.id.clone(), own);
        if found.is_empty() {
            return;
        }
        match purpose {
            Purpose::Find => {
                for (record, hops) in found {
                    out.push(Action::Found { id: resp.id.clone(), record, how: "flood", hops });
                }
            }
            Purpose::Call(call) => {
                let found: Vec<_> = found.iter().map(|(r, hops)| (r.node_id, *hops)).collect();
                self.call_found(&call, &found, via, now, out);
            }
            Purpose::Lookup(_) => {
                for (record, _) in found {
                    if let Some(via) = via {
                        self.lookups_on_record(&record, via, now, out);
                    }
                    self.calls_nudge_for(&record, now, out);
                }
            }
            Purpose::Legacy(conn, id) => {
                self.stop_query(&resp.id);
                self.answer_legacy_query(conn, &id, &capability, now, out);
            }
        }
    }
}
