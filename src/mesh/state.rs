//! All that a node knows and decides. Inputs go in, actions come out; nothing waits and nothing is sent here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::action::{Action, OnFull, TaskKey, What};
use super::calls::Calls;
use super::clock::{Now, Timers};
use super::conn_id::ConnId;
use super::dialable::Near;
use super::dialback::DialBacks;
use super::federation::Shares;
use super::forward::Forwards;
use super::lookups::{LookupId, Lookups};
use super::peers::{Arrival, Peers};
use super::punch::Punches;
use super::queries::Queries;
use super::reachability::Reach;
use super::relay::Relays;
use super::seen::Seen;
use super::table::{Learned, Table};
use super::tasks::Tasks;
use super::throttle::Bucket;
use super::trackers::Trackers;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::{FLOOD_TTL, Limits, MAX_ADDRS, MAX_CAPS, MAX_RECORD, MAX_RECORDS_PER_MESSAGE, MAX_TRACKERS};
use crate::node::{Source, TrackerRole};
use crate::wire::{Capability, Caps, Checked, Draft, Message, Record, RecordDraft, WireError, draft};

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name.
    pub name: String,
    /// Its program version.
    pub version: String,
    /// Which run of the node this is.
    pub instance: String,
    /// What it can do beyond this version of the protocol.
    pub features: Vec<String>,
    /// Its tracker role.
    pub tracker: TrackerRole,
    /// Who may connect; `None`: everybody.
    pub allow: Option<HashSet<NodeId>>,
    /// The port it listens on, if it listens.
    pub port: Option<u16>,
    /// The address it listens on, when that is a certain one.
    pub bound: Option<IpAddr>,
    /// The addresses to publish instead of those found out.
    pub advertise: Vec<SocketAddr>,
    /// Whether there is a DHT to be asked.
    pub dht: bool,
    /// Its bounds.
    pub limits: Limits,
}

/// What an alarm is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// A call: its deadline, or its next step.
    Call(String),
    /// A task that has run for 100 ms: its caller is told that it was accepted.
    Accept(TaskKey),
    /// A task's deadline.
    Deadline(TaskKey),
    /// A query of ours has waited long enough.
    Query(String),
    /// The flood of a call has had its time alone: the DHT is asked as well.
    Dht(String),
    /// A lookup of the DHT has waited long enough.
    Lookup(LookupId),
    /// A connection that had to give a sign of life.
    Probe(ConnId),
    /// A Python node may be sent messages again.
    Legacy(ConnId),
    /// A tracker is asked whether it can dial this node, or has not answered.
    Reach,
    /// This node's record is half its age, or its trackers have changed.
    Record,
    /// Another tracker may be dialled.
    Register,
    /// A tracker may be sent more records.
    Share(ConnId),
    /// A query has waited for as long as it does before it is passed on.
    Forward(NodeId, String),
    /// Old things are forgotten.
    Sweep,
}

/// How often old things are forgotten.
const SWEEP: Duration = Duration::from_secs(5);

/// How long the ids of queries and events are remembered beyond the time for which their timestamps are accepted.
const SEEN_BEYOND: Duration = Duration::from_secs(60);

/// How often the record is written anew at most because of its trackers alone: they come several at a time.
const TRACKERS_SETTLE: Duration = Duration::from_secs(1);

/// How often for good: 8 times, and then once in 10 s. Anybody can connect, call itself a tracker, and leave.
const TRACKERS_BURST: u32 = 8;
const TRACKERS_EVERY: u32 = 10;

/// The protocol's state of one node.
#[derive(Debug)]
pub struct State {
    pub(super) me: NodeId,
    pub(super) config: Config,
    pub(super) caps: Caps,
    /// Capabilities with a handler of their own: answered whether they are announced or not.
    pub(super) handled: HashSet<String>,
    pub(super) interests: BTreeMap<String, usize>,
    pub(super) record: Option<Arc<Record>>,
    pub(super) trackers: Vec<NodeId>,
    pub(super) local_ips: BTreeSet<IpAddr>,
    pub(super) near: Near,
    pub(super) record_dirty: bool,
    /// The addresses of the record that was last given to be signed.
    drafted_addrs: Vec<SocketAddr>,
    trackers_dirty: bool,
    /// When the record may be written anew because of its trackers.
    trackers_told: Duration,
    trackers_news: Bucket,
    last_seq: u64,
    pub(super) peers: Peers,
    pub(super) table: Table,
    pub(super) queries: Queries,
    pub(super) lookups: Lookups,
    /// The UDP port of this node's DHT server, if it runs one.
    pub(super) dht_port: Option<u16>,
    pub(super) forwards: Forwards,
    pub(super) calls: Calls,
    pub(super) tasks: Tasks,
    pub(super) relays: Relays,
    pub(super) reach: Reach,
    pub(super) dial_backs: DialBacks,
    pub(super) punches: Punches,
    pub(super) known_trackers: Trackers,
    pub(super) shares: Shares,
    pub(super) seen_events: Seen<(NodeId, String), ()>,
    pub(super) in_flight: HashMap<NodeId, usize>,
    /// Who is being dialled for calls, and when the news of it is no longer waited for.
    pub(super) dialing: BTreeMap<NodeId, Duration>,
    pub(super) timers: Timers<Timer>,
    pub(super) rng: StdRng,
    pub(super) asks: u64,
    pub(super) draining: bool,
    pub(super) counters: Counters,
}

/// What is counted here.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Tasks answered with success.
    pub tasks_done: u64,
    /// Tasks answered with an error.
    pub tasks_failed: u64,
    /// Calls that ended with success.
    pub calls_done: u64,
    /// Calls that ended with an error.
    pub calls_failed: u64,
    /// Frames passed on by the tracker.
    pub relayed: u64,
    /// Queries, events and records passed on.
    pub flooded: u64,
    /// Dials made by the tracker for peers that asked whether they can be dialled.
    pub dial_backs: u64,
    /// What was refused or dropped, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl State {
    /// A node with no peers yet. `seed` feeds the random generator that makes ids.
    pub fn new(me: NodeId, config: Config, seed: [u8; 32], now: Now) -> Self {
        let limits = config.limits.clone();
        // From as far in the future as is accepted to as far in the past: for so long it could be sent again.
        let seen_for = limits.clock_skew.saturating_mul(2).saturating_add(SEEN_BEYOND);
        let mut state = Self {
            me,
            caps: Caps::default(),
            handled: HashSet::new(),
            interests: BTreeMap::new(),
            record: None,
            trackers: Vec::new(),
            local_ips: BTreeSet::new(),
            near: Near::default(),
            record_dirty: true,
            drafted_addrs: Vec::new(),
            trackers_dirty: false,
            trackers_told: Duration::ZERO,
            trackers_news: Bucket::new(1, TRACKERS_BURST),
            last_seq: 0,
            peers: Peers::default(),
            table: Table::new(&limits),
            queries: Queries::new(&limits, seen_for),
            lookups: Lookups::default(),
            dht_port: None,
            forwards: Forwards::default(),
            calls: Calls::default(),
            tasks: Tasks::default(),
            relays: Relays::default(),
            reach: Reach::default(),
            dial_backs: DialBacks::default(),
            punches: Punches::default(),
            known_trackers: Trackers::default(),
            shares: Shares::default(),
            seen_events: Seen::new(limits.max_seen, seen_for),
            in_flight: HashMap::new(),
            dialing: BTreeMap::new(),
            timers: Timers::default(),
            rng: StdRng::from_seed(seed),
            asks: 0,
            draining: false,
            counters: Counters::default(),
            config,
        };
        state.timers.set(Timer::Sweep, now.mono + SWEEP);
        state
    }

    // ---- inputs ----------------------------------------------------------------------------------------------

    /// A message came, and its signatures were checked.
    pub fn handle(&mut self, conn: ConnId, checked: Checked, now: Now, out: &mut Vec<Action>) {
        if self.peers.get(conn).is_none() && self.peers.proven_on(conn).is_none() {
            return;
        }
        self.timers.cancel(&Timer::Probe(conn));
        if let Some(peer) = self.peers.get_mut(conn) {
            (peer.heard, peer.silent) = (now.mono, false);
        }
        if checked.forged_records() > 0 {
            self.refuse_n("forged_record", checked.forged_records() as u64);
        }
        let signed = checked.is_signed();
        let Some(node) = self.peers.proven_on(conn) else {
            return self.handle_legacy(conn, checked.into_message(), signed, now, out);
        };
        match checked.into_message() {
            Message::Heartbeat(beat) => self.on_heartbeat(conn, &beat, now, out),
            Message::Announce(record, ttl) => self.on_record(record, ttl, conn, node, now, out),
            Message::Query(query) => self.on_query(query, conn, node, now, out),
            Message::QueryResp(resp) => self.on_query_resp(resp, conn, now, out),
            Message::Event(event) => self.on_event(event, conn, now, out),
            Message::Relay(relay) => {
                self.used(&node, now);
                self.on_relay(relay, conn, node, now, out);
            }
            Message::DialBack(ask) => self.on_dial_back(&ask, conn, now, out),
            Message::DialBackResult(answer) => self.on_dial_back_result(answer, conn, now, out),
            Message::RelayError(error) => self.on_relay_error(error, node, now, out),
            Message::Punch(punch) => self.on_punch(punch, conn, node, now, out),
            Message::PunchStart(start) => self.on_punch_start(start, node, now, out),
            Message::PunchError(error) => self.on_punch_error(error, node, now),
            Message::Bye(reason, message) => {
                if let Some(peer) = self.peers.get_mut(conn) {
                    peer.bye = Some((reason, message));
                }
            }
            Message::InterestUpdate(_) => self.refuse("legacy_message"),
            Message::Unknown(_) => self.refuse("unknown_type"),
            message => {
                self.used(&node, now);
                self.on_signed(message, node, None, conn, now, out);
            }
        }
    }

    /// A message about a task, straight from its signer or through a tracker (`via`).
    pub(super) fn on_signed(
        &mut self,
        message: Message,
        signer: NodeId,
        via: Option<NodeId>,
        conn: ConnId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        match message {
            Message::Task(task) => self.on_task(task, signer, via, conn, now, out),
            Message::Cancel(cancel) if cancel.caller == signer => self.on_cancel(&(signer, cancel.id), now, out),
            Message::ChunkAck(ack) if ack.caller == signer => {
                self.on_chunk_ack(&(signer, ack.id), ack.next, out);
            }
            Message::Accepted(m) if m.responder == signer => self.on_accepted(&m.id, signer, via, now, out),
            Message::Chunk(m) if m.responder == signer => self.on_chunk(m, signer, via, now, out),
            Message::Result(m) if m.responder == Some(signer) => self.on_result(m, signer, via, now, out),
            // Signed by another than who brought it: on a direct connection everybody speaks for itself.
            _ => self.refuse("not_the_signer"),
        }
    }

    /// An alarm may be due.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        while let Some(timer) = self.timers.pop(now.mono) {
            match timer {
                Timer::Call(id) => self.call_due(&id, now, out),
                Timer::Accept(key) => self.accept_due(&key, out),
                Timer::Deadline(key) => self.deadline_due(&key, now, out),
                Timer::Query(id) => self.query_due(&id, now, out),
                Timer::Dht(id) => self.call_dht_due(&id, now, out),
                Timer::Lookup(id) => self.lookup_due(id, now, out),
                Timer::Probe(conn) => {
                    let message = "no sign of life while another connection was offered";
                    self.drop_peer(conn, crate::error::CloseReason::Idle, message, now, out);
                }
                Timer::Legacy(conn) => self.legacy_due(conn, now, out),
                Timer::Reach => self.reach_due(now, out),
                Timer::Record => {
                    // Trackers that changed have their own pace; without them it is half its age.
                    self.record_dirty |= !self.trackers_dirty;
                    self.flush_record(now, out);
                }
                Timer::Register => self.register_due(now, out),
                Timer::Share(conn) => self.share_due(conn, now, out),
                Timer::Forward(origin, id) => self.forward_due((origin, id), now, out),
                Timer::Sweep => {
                    self.table.expire(now);
                    self.seen_events.expire(now.mono);
                    self.queries.expire(now);
                    self.tasks.expire(now);
                    self.relays.expire(now);
                    self.punches_expire(now);
                    self.close_unused(now, out);
                    self.close_wrong_candidates(now, out);
                    self.dialing.retain(|_, until| *until > now.mono);
                    self.sweep_trackers(now);
                    let slow: Vec<_> =
                        self.peers.all_proven().filter(|(_, p)| p.asked.is_none()).map(|(c, p)| (c, p.since)).collect();
                    for (conn, since) in slow {
                        // One measurement a minute keeps the round-trip times honest at the price of 2 messages.
                        if (now.mono.saturating_sub(since)).as_secs() / SWEEP.as_secs() % 12 == 11 {
                            self.ask(conn, now, out);
                        }
                    }
                    self.timers.set(Timer::Sweep, now.mono + SWEEP);
                }
            }
        }
    }

    /// When [`tick`](Self::tick) is wanted next.
    pub fn next_due(&self) -> Option<Duration> {
        self.timers.next()
    }

    // ---- what this node says of itself -----------------------------------------------------------------------

    /// Provides a capability from now on. `false`: no room, or the name is not valid.
    pub fn register(&mut self, cap: Capability, now: Now, out: &mut Vec<Action>) -> bool {
        let before = self.caps.clone();
        let done = self.caps.insert(cap);
        self.mark_changed(before != self.caps, now, out);
        done
    }

    /// Whether the record has room for a capability.
    pub fn fits(&self, cap: &Capability) -> bool {
        self.record_size_with(cap) <= MAX_RECORD
    }

    /// How large the record would be with a capability, in bytes: at most, whatever addresses and trackers come.
    pub fn record_size_with(&self, cap: &Capability) -> usize {
        /// The other members of a record, its signature, 8 addresses and 4 trackers.
        const AROUND: usize = 1024;
        let mut caps = self.caps.clone();
        caps.insert(cap.clone());
        let caps = crate::wire::canonicalize_value(&caps.to_value()).map_or(usize::MAX / 2, |c| c.len());
        let interests: usize = self.interests.keys().map(|i| i.len() * 6 + 3).sum();
        AROUND + self.config.name.len() * 6 + caps + interests
    }

    /// Its tracker role.
    pub fn tracker_role(&self) -> TrackerRole {
        self.config.tracker
    }

    /// Provides it no longer.
    pub fn unregister(&mut self, name: &str, now: Now, out: &mut Vec<Action>) -> bool {
        let done = self.caps.remove(name);
        self.mark_changed(done, now, out);
        done
    }

    /// Answers tasks for that capability, announced or not.
    pub fn handles(&mut self, capability: &str) {
        self.handled.insert(capability.to_owned());
    }

    /// Is interested once more. `false`: no room.
    pub fn add_interest(&mut self, pattern: &str, now: Now, out: &mut Vec<Action>) -> bool {
        if let Some(count) = self.interests.get_mut(pattern) {
            *count += 1;
            return true;
        }
        if self.interests.len() >= MAX_CAPS {
            return false;
        }
        self.interests.insert(pattern.to_owned(), 1);
        self.mark_changed(true, now, out);
        true
    }

    /// Is interested once less.
    pub fn remove_interest(&mut self, pattern: &str, now: Now, out: &mut Vec<Action>) -> bool {
        let Some(count) = self.interests.get_mut(pattern) else { return false };
        *count -= 1;
        if *count == 0 {
            self.interests.remove(pattern);
            self.mark_changed(true, now, out);
        }
        true
    }

    fn mark_changed(&mut self, changed: bool, now: Now, out: &mut Vec<Action>) {
        self.record_dirty |= changed;
        self.flush_record(now, out);
        if changed {
            self.tell_legacy_all(now, out);
        }
    }

    /// Asks for a signature now: the node starts.
    pub fn publish_record(&mut self, now: Now, out: &mut Vec<Action>) {
        self.record_dirty = true;
        self.flush_record(now, out);
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

    /// Asks for a new signature when the record is out of date.
    pub fn flush_record(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.record_dirty {
            if !self.trackers_dirty {
                return;
            }
            if now.mono >= self.trackers_told
                && let Err(wait) = self.trackers_news.take(now.mono / TRACKERS_EVERY)
            {
                self.trackers_told = now.mono + wait.saturating_mul(TRACKERS_EVERY);
            }
            if now.mono < self.trackers_told {
                return self.timers.set(Timer::Record, self.trackers_told);
            }
        }
        if self.trackers_dirty {
            self.trackers_told = now.mono + TRACKERS_SETTLE;
        }
        (self.record_dirty, self.trackers_dirty) = (false, false);
        // Never the same seq twice, also when the clock stands or goes back.
        self.last_seq = now.unix_ms.max(self.last_seq + 1);
        let draft = self.record_draft(self.last_seq);
        self.drafted_addrs.clone_from(&draft.addrs);
        out.push(Action::SignRecord(Box::new(draft)));
        self.timers.set(Timer::Record, now.mono + self.config.limits.record_ttl / 2);
    }

    /// The addresses may have changed: then the record has.
    pub(super) fn flush_addrs(&mut self, now: Now, out: &mut Vec<Action>) {
        self.record_dirty |= self.addrs() != self.drafted_addrs;
        self.flush_record(now, out);
    }

    fn record_draft(&self, seq: u64) -> RecordDraft {
        RecordDraft {
            name: self.config.name.clone(),
            caps: self.caps.clone(),
            interests: self.interests.keys().cloned().collect(),
            addrs: self.addrs(),
            trackers: self.trackers.clone(),
            tracker: self.config.tracker,
            features: self.config.features.clone(),
            version: self.config.version.clone(),
            instance: self.config.instance.clone(),
            dht: self.dht_port,
            seq,
            ttl_s: self.config.limits.record_ttl.as_secs().clamp(1, crate::wire::MAX_RECORD_TTL_S),
        }
    }

    /// The addresses to publish: those the owner named, else those that trackers verified where there are some to ask,
    /// else those found out.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        if !self.config.advertise.is_empty() {
            return self.config.advertise.iter().copied().take(MAX_ADDRS).collect();
        }
        let Some(port) = self.config.port else { return Vec::new() };
        // A tracker is found at its address or not at all: it stands by it.
        if self.config.tracker == TrackerRole::None
            && let Some(verified) = self.verified_addrs()
        {
            return verified;
        }
        let local = self.local_addrs(port);
        let mapped = self.mapped_addr().filter(|addr| !local.contains(addr));
        mapped.into_iter().chain(local).take(MAX_ADDRS).collect()
    }

    fn local_addrs(&self, port: u16) -> Vec<SocketAddr> {
        match self.config.bound {
            Some(ip) => vec![SocketAddr::new(ip, port)],
            None => {
                // Loopback says something only to this machine: it is named when there is nothing else.
                let beyond = self.local_ips.iter().any(|ip| !ip.is_loopback());
                let ips = self.local_ips.iter().filter(|ip| !(beyond && ip.is_loopback()));
                ips.take(MAX_ADDRS).map(|ip| SocketAddr::new(*ip, port)).collect()
            }
        }
    }

    /// A node that listens everywhere learns its addresses from its own connections.
    pub(super) fn learn_local_addr(&mut self, arrival: &Arrival) {
        self.near.note(arrival.addr.ip());
        self.note_local_ip(arrival.local.ip());
    }

    pub(super) fn note_local_ip(&mut self, ip: IpAddr) {
        if self.config.port.is_none() || self.config.bound.is_some() || !self.config.advertise.is_empty() {
            return;
        }
        let ip = ip.to_canonical();
        if !ip.is_unspecified() && self.local_ips.len() < MAX_ADDRS && self.local_ips.insert(ip) {
            self.record_dirty = true;
        }
    }

    /// Which trackers the record names: the configured ones, then those this node chose, those named before first, then
    /// those that came to it.
    pub(super) fn refresh_trackers(&mut self, now: Now) {
        let mut connected: Vec<(bool, bool, bool, NodeId)> = Vec::new();
        for (_, peer) in self.peers.trackers() {
            let node = peer.arrival.node;
            let (configured, own) = (peer.arrival.how.found == Source::Peer, self.is_own_tracker(peer));
            connected.push((!configured, !own, !self.trackers.contains(&node), node));
        }
        connected.sort();
        let mut named: Vec<NodeId> = connected.into_iter().take(MAX_TRACKERS).map(|(.., node)| node).collect();
        // Their order says nothing, so it is no news.
        let is_named = |t: &NodeId| self.trackers.contains(t);
        if named.len() == self.trackers.len() && named.iter().all(is_named) {
            named.clone_from(&self.trackers);
        }
        if named != self.trackers {
            self.trackers = named;
            self.trackers_dirty = true;
        }
        self.look_for_trackers(now);
    }

    /// The record was signed; peers are told.
    pub fn record_signed(&mut self, record: Record, out: &mut Vec<Action>) {
        // Two changes may be signed at once; the later one wins, whichever is ready first.
        if self.record.as_ref().is_some_and(|r| r.seq >= record.seq) {
            return;
        }
        let announce = draft::announce(&record.object, FLOOD_TTL);
        self.record = Some(Arc::new(record));
        for (conn, _) in self.peers.all_proven() {
            out.push(Action::Send { to: conn, what: What::Ready(announce.clone()), on_full: OnFull::Drop });
        }
    }

    // ---- the interest table ----------------------------------------------------------------------------------

    fn on_record(&mut self, record: Record, ttl: u8, conn: ConnId, from: NodeId, now: Now, out: &mut Vec<Action>) {
        let node = record.node_id;
        if node == self.me {
            return;
        }
        let own = node == from;
        if own {
            self.table.revive(&node);
        }
        let learned = self.learn(record, Some(from), now);
        if let Learned::Dead = learned {
            return self.refuse("dead_record");
        }
        let Some(record) = self.table.get(&node).cloned() else { return };
        if own {
            // Also when the record is known from before: the connection is a new one.
            self.on_own_record(conn, &record, now, out);
        }
        self.lookups_on_record(&record, from, now, out);
        let Learned::Newer(before) = learned else { return };
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
        let peers = &self.peers;
        let source = match from.and_then(|from| peers.proven(&from)) {
            Some(peer) if peer.arrival.node == record.node_id => peer.arrival.how.found,
            Some(peer) if peer.arrival.tracker != TrackerRole::None => Source::Tracker,
            _ => Source::Flood,
        };
        let node = record.node_id;
        let learned = self.table.learn(record, source, now, |n| peers.conn_of(n).is_some());
        if let (Learned::Newer(_), Some(record)) = (&learned, self.table.get(&node).cloned()) {
            self.tracker_learned(&record, from, now);
        }
        learned
    }

    /// The connections of those who want to hear of something: trackers, and those whose record says so.
    pub(super) fn interested(&self, wants: impl Fn(&Record) -> bool, not: &[NodeId]) -> Vec<ConnId> {
        let peers = self.peers.all_proven().filter(|(_, p)| !not.contains(&p.arrival.node));
        let wants = |p: &super::peers::Peer| {
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

    // ---- small things ----------------------------------------------------------------------------------------

    /// Counts something that was refused or dropped.
    pub fn refuse(&mut self, reason: &'static str) {
        self.refuse_n(reason, 1);
    }

    pub(super) fn refuse_n(&mut self, reason: &'static str, n: u64) {
        *self.counters.refused.entry(reason).or_default() += n;
    }

    /// Sends what is to be signed to a proven node: over its connection, else through that tracker.
    pub(super) fn send_to(
        &self,
        node: &NodeId,
        via: Option<&NodeId>,
        draft: Draft,
        on_full: OnFull,
        out: &mut Vec<Action>,
    ) -> bool {
        let direct = || self.peers.conn_of(node).map(|c| (c, false));
        let relayed = |t: &NodeId| self.peers.conn_of(t).map(|c| (c, true));
        // The way it came is the way back; when that is gone, any other.
        let way = match via {
            Some(tracker) => relayed(tracker).or_else(direct),
            None => direct(),
        };
        let other = || {
            let record = self.table.get(node)?;
            record.trackers.iter().find_map(relayed)
        };
        let Some((to, is_relay)) = way.or_else(other) else { return false };
        let what = if is_relay { What::SignRelay(draft, *node) } else { What::Sign(draft) };
        out.push(Action::Send { to, what, on_full });
        true
    }

    /// A fresh id: 122 random bits as a UUIDv4.
    pub fn new_id(&mut self) -> String {
        let mut b = [0u8; 16];
        self.rng.fill_bytes(&mut b);
        b[6] = (b[6] & 0x0f) | 0x40;
        b[8] = (b[8] & 0x3f) | 0x80;
        let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// No new tasks and calls from now on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether nothing is running any more.
    pub fn is_idle(&self) -> bool {
        self.tasks.running() == 0 && self.calls.is_empty()
    }

    /// Whether this node answers tasks for that capability by itself.
    pub(super) fn provides(&self, capability: &str) -> bool {
        matches!(capability, "ping" | "health") || self.caps.provides(capability) || self.handled.contains(capability)
    }

    /// What a peer's bad or unwanted message is answered with, when it was about a task.
    pub fn refuse_task(
        &mut self,
        conn: ConnId,
        id: &str,
        code: ErrorCode,
        message: String,
        retry_after_s: Option<u64>,
        out: &mut Vec<Action>,
    ) {
        let error = WireError::new(code, message).not_run();
        let error = retry_after_s.into_iter().fold(error, WireError::retry_after_s);
        let draft = Draft::Result(crate::wire::ResultDraft { id: id.to_owned(), body: Err(error), chunks: 0 });
        if self.peers.get(conn).is_some_and(|p| p.legacy.is_some()) {
            return out.push(Action::SignLegacy { conn, draft });
        }
        out.push(Action::Send { to: conn, what: What::Sign(draft), on_full: OnFull::Drop });
    }
}
