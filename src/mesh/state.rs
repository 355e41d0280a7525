//! All that a node knows and decides. Inputs go in, actions come out; nothing waits and nothing is sent here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::access::Access;
use super::action::{Action, OnFull, TaskKey, What};
use super::calls::Calls;
use super::clock::{Now, Timers};
use super::conn_id::ConnId;
use super::dialable::Near;
use super::dialback::DialBacks;
use super::federation::Shares;
use super::forward::Forwards;
use super::ids::{self, TaskIds};
use super::keyed::Keyed;
use super::keylife::KeyLife;
use super::lookups::{LookupId, Lookups};
use super::own_record::Drafts;
use super::peers::Peers;
use super::policy::{Policies, Policy};
use super::pressure::Held;
use super::punch::Punches;
use super::queries::Queries;
use super::reachability::Reach;
use super::relay::Relays;
use super::seen::Seen;
use super::table::Table;
use super::task_id::TaskId;
use super::tasks::Tasks;
use super::trackers::Trackers;
use super::trail::Trail;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::info::Sealing;
use crate::limits::Limits;
use crate::wire::{Caps, Checked, Draft, Message, Record, SealKey, TrackerRole, WireError};

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
    /// Who is let in.
    pub access: Access,
    /// Whom it serves; `None`: everybody it lets in.
    pub serve_only: Option<BTreeSet<NodeId>>,
    /// Who may ask for what.
    pub policies: Vec<Policy>,
    /// The port it listens on, if it listens.
    pub port: Option<u16>,
    /// The address it listens on, when that is a certain one.
    pub bound: Option<IpAddr>,
    /// The addresses to publish instead of those found out.
    pub advertise: Vec<SocketAddr>,
    /// Whether there is a DHT to be asked.
    pub dht: bool,
    /// Whether what trackers pass on is sealed.
    pub sealing: Sealing,
    /// Its bounds.
    pub limits: Limits,
}

/// What an alarm is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Timer {
    /// A call: its deadline, or its next step.
    Call(TaskId),
    /// A running task: it has run for 100 ms, and its caller is told that it was accepted; or its deadline.
    Task(TaskKey),
    /// What a tracker did not relay of an answer may be sent again.
    Again(TaskKey),
    /// The caller of a running task was lost, and has had a while to come back.
    Orphan(TaskKey),
    /// A query of ours has waited long enough.
    Query(String),
    /// The flood of a call has had its time alone: the DHT is asked as well.
    Dht(TaskId),
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
    /// This node's seal key has had its time.
    SealKey,
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
    /// What is relayed to this node is sealed to it.
    pub(super) seal_key: Option<SealKey>,
    pub(super) trackers: Vec<NodeId>,
    pub(super) local_ips: BTreeSet<IpAddr>,
    pub(super) near: Near,
    pub(super) record_dirty: bool,
    pub(super) drafts: Drafts,
    pub(super) peers: Peers,
    pub(super) table: Table,
    pub(super) queries: Queries,
    pub(super) lookups: Lookups,
    /// The UDP port of this node's DHT server, if it runs one.
    pub(super) dht_port: Option<u16>,
    pub(super) forwards: Forwards,
    pub(super) calls: Calls,
    pub(super) tasks: Tasks,
    pub(super) policies: Policies,
    pub(super) relays: Relays,
    pub(super) reach: Reach,
    pub(super) dial_backs: DialBacks,
    pub(super) punches: Punches,
    pub(super) known_trackers: Trackers,
    pub(super) shares: Shares,
    pub(super) keys: KeyLife,
    pub(super) seen_events: Seen<(NodeId, String), ()>,
    pub(super) in_flight: HashMap<NodeId, usize, Keyed>,
    /// Who is being dialled for calls, and when the news of it is no longer waited for.
    pub(super) dialing: BTreeMap<NodeId, Duration>,
    pub(super) timers: Timers<Timer>,
    pub(super) held: Held,
    pub(super) rng: StdRng,
    pub(super) task_ids: TaskIds,
    pub(super) asks: u64,
    pub(super) draining: bool,
    /// Whether somebody hears of tasks.
    pub(super) watched: bool,
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
        let mut rng = StdRng::from_seed(seed);
        let mut secret = [0; 8];
        rng.fill_bytes(&mut secret);
        let mut state = Self {
            me,
            caps: Caps::default(),
            handled: HashSet::new(),
            interests: BTreeMap::new(),
            record: None,
            seal_key: None,
            trackers: Vec::new(),
            local_ips: BTreeSet::new(),
            near: Near::default(),
            record_dirty: true,
            drafts: Drafts::default(),
            peers: Peers::default(),
            table: Table::new(&limits),
            queries: Queries::new(&limits, seen_for),
            lookups: Lookups::default(),
            dht_port: None,
            forwards: Forwards::default(),
            calls: Calls::default(),
            tasks: Tasks::default(),
            policies: Policies::new(config.serve_only.clone(), config.policies.clone()),
            relays: Relays::new(&limits, u64::from_le_bytes(secret)),
            reach: Reach::default(),
            dial_backs: DialBacks::default(),
            punches: Punches::default(),
            known_trackers: Trackers::default(),
            shares: Shares::default(),
            keys: KeyLife::default(),
            seen_events: Seen::new(limits.max_seen, seen_for),
            in_flight: HashMap::default(),
            dialing: BTreeMap::new(),
            timers: Timers::default(),
            held: Held::new(limits.memory_budget),
            rng,
            task_ids: TaskIds::default(),
            asks: 0,
            draining: false,
            watched: false,
            counters: Counters::default(),
            config,
        };
        let access = &state.config.access;
        let named: Vec<NodeId> =
            access.allowed().chain(access.denied()).copied().chain(state.policies.named()).collect();
        state.name_ids(named);
        state.timers.set(Timer::Sweep, now.mono + SWEEP);
        state
    }

    // ---- inputs ----------------------------------------------------------------------------------------------

    /// A message came, and its signatures were checked.
    pub fn handle(&mut self, conn: ConnId, checked: Checked, now: Now, out: &mut Vec<Action>) {
        let node = match self.peers.get_mut(conn) {
            Some(peer) => {
                (peer.heard, peer.silent) = (now.mono, false);
                if std::mem::take(&mut peer.probed) {
                    self.timers.cancel(&Timer::Probe(conn));
                }
                peer.legacy.is_none().then_some(peer.arrival.node)
            }
            None => match self.peers.proven_on(conn) {
                Some(node) => Some(node),
                None => return,
            },
        };
        if checked.forged_records() > 0 {
            self.refuse_n("forged_record", checked.forged_records() as u64);
        }
        let signed = checked.is_signed();
        let Some(node) = node else {
            return self.handle_legacy(conn, checked.into_message(), signed, now, out);
        };
        let message = checked.into_message();
        if self.is_too_much(&message, &node) {
            return;
        }
        match message {
            Message::Heartbeat(beat) => self.on_heartbeat(conn, &beat, now, out),
            Message::Revoked(revoked) => self.on_revoked(revoked, conn, node, now, out),
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
                self.used_over(conn, &node, now);
                self.on_signed(message, node, Trail::DIRECT, conn, now, out);
            }
        }
    }

    /// A message about a task, straight from its signer or through a tracker.
    pub(super) fn on_signed(
        &mut self,
        message: Message,
        signer: NodeId,
        trail: Trail,
        conn: ConnId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if !self.is_answer_to_me(&message, trail.via.is_some() && trail.seal == super::sealing::Seal::Plain) {
            return self.refuse("anothers_answer");
        }
        match message {
            Message::Task(task) => self.on_task(task, signer, trail, conn, now, out),
            Message::Cancel(cancel) if cancel.caller == signer => {
                self.on_cancel(&(signer, TaskId::from(&cancel.id)), now, out);
            }
            Message::ChunkAck(ack) if ack.caller == signer => {
                self.on_chunk_ack(&(signer, TaskId::from(&ack.id)), ack.next, out);
            }
            Message::Accepted(m) if m.responder == signer => {
                self.on_accepted(&TaskId::from(&m.id), signer, trail, now, out);
            }
            Message::Chunk(m) if m.responder == signer => self.on_chunk(m, signer, trail, now, out),
            Message::Result(m) if m.responder == Some(signer) => self.on_result(m, signer, trail, now, out),
            Message::Event(m) if m.origin == Some(signer) => self.on_sealed_event(m, conn, now, out),
            // Signed by another than who brought it: on a direct connection everybody speaks for itself.
            _ => self.refuse("not_the_signer"),
        }
    }

    /// Whether what is said about a task is said to this node. An id alone is no proof of that: who passes a task on knows it,
    /// and can ask the responder something else under the same id. Where it isn't said, the connection or the envelope must
    /// tell; `overheard`: neither does.
    fn is_answer_to_me(&self, message: &Message, overheard: bool) -> bool {
        let caller = match message {
            Message::Accepted(m) => m.caller,
            Message::Chunk(m) => m.caller,
            Message::Result(m) => m.caller,
            _ => return true,
        };
        caller.map_or(!overheard, |caller| caller == self.me)
    }

    /// An alarm may be due.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        while let Some(timer) = self.timers.pop(now.mono) {
            match timer {
                Timer::Call(id) => self.call_due(&id, now, out),
                Timer::Task(key) => self.task_due(&key, now, out),
                Timer::Again(key) => self.again_due(&key, out),
                Timer::Orphan(key) => self.orphan_due(&key, now, out),
                Timer::Query(id) => self.query_due(&id, now, out),
                Timer::Dht(id) => self.call_dht_due(&id, now, out),
                Timer::Lookup(id) => self.lookup_due(id, now, out),
                Timer::Probe(conn) => {
                    let message = "no sign of life while another connection was offered";
                    self.drop_peer(conn, crate::error::CloseReason::Idle, message, now, out);
                }
                Timer::Legacy(conn) => self.legacy_due(conn, now, out),
                Timer::Reach => self.reach_due(now, out),
                Timer::Record => self.record_due(now, out),
                Timer::SealKey => self.seal_key_due(out),
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
                    self.look_at_clock(now, out);
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

    // ---- small things ----------------------------------------------------------------------------------------

    /// Counts something that was refused or dropped.
    pub fn refuse(&mut self, reason: &'static str) {
        self.refuse_n(reason, 1);
    }

    pub(super) fn refuse_n(&mut self, reason: &'static str, n: u64) {
        *self.counters.refused.entry(reason).or_default() += n;
    }

    /// Sends what is to be signed to a proven node: over its connection, else through the tracker that `way` names, sealed as that says.
    pub(super) fn send_to(
        &self,
        node: &NodeId,
        way: Trail,
        draft: Draft,
        on_full: OnFull,
        out: &mut Vec<Action>,
    ) -> bool {
        let direct = || self.peers.conn_of(node).map(|c| (c, false));
        let relayed = |t: &NodeId| self.peers.conn_of(t).map(|c| (c, true));
        // The way it came is the way back; when that is gone, any other.
        let back = match way.via {
            Some(tracker) => relayed(&tracker).or_else(direct),
            None => direct(),
        };
        let other = || {
            let record = self.table.get(node)?;
            record.trackers.iter().find_map(relayed)
        };
        let Some((to, is_relay)) = back.or_else(other) else { return false };
        let what = match is_relay {
            false => What::Sign(draft),
            true => match self.seal_for(node, way.seal) {
                Ok(key) => What::SignRelay(draft, Box::new((*node, key))),
                Err(_) => return false,
            },
        };
        out.push(Action::Send { to, what, on_full });
        true
    }

    /// A fresh id that says nothing, for all but tasks.
    pub fn new_id(&mut self) -> String {
        ids::random(&mut self.rng)
    }

    /// A fresh id for a task of this node.
    pub fn new_task_id(&mut self, now: Now) -> TaskId {
        self.task_ids.next(&mut self.rng, now.mono)
    }

    /// Whether anybody hears what becomes of tasks; while nobody does, no [`Action::Activity`] tells of them.
    pub fn watch(&mut self, watched: bool) {
        self.watched = watched;
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
        crate::limits::BUILT_IN.contains(&capability)
            || self.caps.provides(capability)
            || self.handled.contains(capability)
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
        // For who brought it and nobody else: whose task it would be is not proven.
        let Some(caller) = self.peers.get(conn).map(|p| p.arrival.node) else { return };
        let draft = Draft::Result(crate::wire::ResultDraft { id: id.to_owned(), caller, body: Err(error), chunks: 0 });
        if self.is_legacy(conn) {
            return out.push(Action::SignLegacy { conn, draft });
        }
        out.push(Action::Send { to: conn, what: What::Sign(draft), on_full: OnFull::Drop });
    }
}
