//! The caller's side: a call looks for somebody, sends the task, and ends exactly once.
//!
//! A task is never sent to a second node unless the first one said that it did not run it. It may be sent to the same
//! node again, over whatever way there is: the node knows it by its id. It is signed for one run of that node, so a
//! restarted node, which remembers nothing, refuses it instead of running it again.

mod answers;
mod dht;
mod dispatch;
mod end;
mod lost;
mod news;
mod route;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use self::dht::Dht;
use super::action::{Action, Tried};
use super::clock::{Now, Place};
use super::keyed::Keyed;
use super::state::{State, Timer};
use super::task_id::TaskId;
use crate::error::{Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::wire::{SealKey, TaskAnswer, WireError};

/// How many chunks may be on the way to us.
pub const WINDOW: u64 = 32;

/// How long a relayed task may go without a sign before it is sent again; doubled each time, up to [`RESEND_MAX`].
const RESEND: Duration = Duration::from_secs(2);

/// The longest wait before an unanswered relayed task is sent again, to learn whether its responder still lives.
const RESEND_MAX: Duration = Duration::from_secs(30);

/// How often a task is sealed to another key that its responder names: one that restarted, or whose key was replaced, names
/// its new one once.
const MAX_RESEALS: u32 = 3;

/// How long a caller looks for a responder it lost, before it gives the call up.
const RECOVER: Duration = Duration::from_secs(10);

/// How long it waits between looking.
const RETRY: Duration = Duration::from_secs(1);

/// What a caller is told whose responder did not come back.
const LOST: &str = "the responder was lost and did not come back; whether the task ran is not known";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct CallSpec {
    /// The task's id.
    pub id: TaskId,
    /// The capability.
    pub capability: String,
    /// Canonical JSON.
    pub payload: Bytes,
    /// The node it must be, as a person writes it.
    pub target: Option<String>,
    /// The tracker it must go through, as a person writes it.
    pub via: Option<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// How long it may wait for an agent that is away; part of `timeout`.
    pub wait: Duration,
    /// Whether this node itself may answer.
    pub local: bool,
    /// Whether it rather fails than go elsewhere on a tracker's word that nobody has it.
    pub once: bool,
    /// A node it is not for, whatever that provides: the one in whose name we ask.
    pub except: Option<NodeId>,
}

/// The way a task went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Local,
    Direct,
    Relay(NodeId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody to send it to yet; a flood may be on its way.
    Searching,
    /// A connection to this node (the provider, or a tracker in front of it) is being made.
    Dialing(NodeId),
    /// It was sent.
    Sent { node: NodeId, path: Path },
    /// The way to the responder is gone; until when it is looked for.
    Lost { node: NodeId, until: Duration },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flood {
    NotYet,
    Asking,
    Over,
}

#[derive(Debug)]
struct Call {
    spec: CallSpec,
    timestamp: i64,
    started: Duration,
    deadline: Duration,
    phase: Phase,
    flood: Flood,
    query: Option<String>,
    dht: Dht,
    /// When the DHT is asked, the flood still being under way.
    dht_at: Option<Duration>,
    /// Who the DHT says relays to the node that is called.
    dht_tracker: Option<NodeId>,
    /// Nodes that did not run it, and won't be asked again.
    failed: BTreeSet<NodeId>,
    /// Nodes that could not be dialled, and where: at another address they may be.
    undialable: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Who is being dialled for it, and where.
    dialing: Option<(NodeId, Vec<SocketAddr>)>,
    /// Nodes there was no way to when they were last looked at.
    unreachable: BTreeSet<NodeId>,
    /// Trackers that could not reach a node.
    unrelayable: BTreeSet<(NodeId, NodeId)>,
    /// Who was found by the flood, how many links away, and who told us.
    found: BTreeMap<NodeId, (u32, Option<NodeId>)>,
    tried: Vec<Tried>,
    /// The last answer that named a reason not to run it.
    refusal: Option<Box<(NodeId, WireError, Delivery)>>,
    /// Whether the responder said that it works on it.
    working: bool,
    /// Until when the responder is looked for, since it was last heard.
    lost_until: Option<Duration>,
    /// The run of the responder that the task was signed for.
    instance: Option<String>,
    /// The responder's key, if what goes to it through trackers is sealed.
    seal: Option<SealKey>,
    /// How often the task was sealed anew because the responder could not open it.
    reseals: u32,
    sends: u32,
    /// When it was last sent.
    last_sent: Duration,
    resend_at: Option<Duration>,
    resend_wait: Duration,
    /// The alarm for all of that.
    alarm: Option<Place>,
    delivery: Delivery,
    sent_at: Option<Duration>,
    first_sign: Option<Duration>,
    /// How many trackers the result passed.
    relay_hops: u8,
    next_chunk: u64,
    taken: u64,
    acked: u64,
    /// Chunks that came before their turn.
    early: BTreeMap<u64, Bytes>,
    /// The result, while chunks are still missing.
    answer: Option<Box<TaskAnswer>>,
}

/// Calls in flight.
#[derive(Debug, Default)]
pub struct Calls {
    /// Whoever goes through them does so by their ids: see [`State::calls_where`].
    entries: HashMap<TaskId, Box<Call>, Keyed>,
    /// Bytes of chunks that came before their turn.
    early_bytes: usize,
}

impl Calls {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of chunks that came before their turn.
    pub fn early_bytes(&self) -> usize {
        self.early_bytes
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A timeout as it travels with the task: whole seconds, rounded up.
fn ttl_s(timeout: Duration) -> u64 {
    (timeout.as_millis().div_ceil(1000) as u64).clamp(1, crate::limits::MAX_TTL_S)
}

/// On the wire: whole seconds, rounded up.
fn wait_s(wait: Duration) -> u64 {
    (wait.as_millis().div_ceil(1000) as u64).min(crate::limits::MAX_TTL_S)
}

impl Call {
    fn tried(&mut self, step: &'static str, node: Option<NodeId>, result: impl Into<Cow<'static, str>>, now: Now) {
        /// A call that keeps failing doesn't keep its whole history.
        const MAX_TRIED: usize = 32;
        if self.tried.len() < MAX_TRIED {
            let at = now.mono.saturating_sub(self.started);
            if self.tried.is_empty() {
                // Most calls have one.
                self.tried.reserve_exact(1);
            }
            self.tried.push(Tried { step, node, result: result.into(), at });
        }
    }

    /// When it is looked at again.
    fn due(&self) -> Duration {
        let next = match self.phase {
            Phase::Lost { until, .. } => self.resend_at.map_or(until, |at| at.min(until)),
            Phase::Sent { .. } => self.resend_at.unwrap_or(self.deadline),
            _ => self.deadline,
        };
        next.min(self.deadline)
    }

    /// The node that has the task, or may have it.
    fn responder(&self) -> Option<NodeId> {
        match self.phase {
            Phase::Sent { node, .. } | Phase::Lost { node, .. } => Some(node),
            _ => None,
        }
    }
}

impl State {
    /// Begins a call. Whatever becomes of it, [`CallEvent::Done`](super::CallEvent::Done) comes exactly once.
    pub fn start_call(&mut self, spec: CallSpec, now: Now, out: &mut Vec<Action>) {
        let failed = spec.except.into_iter().collect();
        let full = self.calls.entries.len() >= self.config.limits.max_calls;
        let call = Box::new(Call {
            timestamp: now.unix_s(),
            started: now.mono,
            deadline: now.mono.saturating_add(spec.timeout),
            spec,
            phase: Phase::Searching,
            flood: Flood::NotYet,
            query: None,
            dht: if self.config.dht { Dht::NotYet } else { Dht::Over },
            dht_at: None,
            dht_tracker: None,
            failed,
            undialable: BTreeMap::new(),
            dialing: None,
            unreachable: BTreeSet::new(),
            unrelayable: BTreeSet::new(),
            found: BTreeMap::new(),
            tried: Vec::new(),
            refusal: None,
            working: false,
            lost_until: None,
            instance: None,
            seal: None,
            reseals: 0,
            sends: 0,
            last_sent: Duration::ZERO,
            resend_at: None,
            resend_wait: RESEND,
            alarm: None,
            delivery: Delivery::NotSent,
            sent_at: None,
            first_sign: None,
            relay_hops: 0,
            next_chunk: 0,
            taken: 0,
            acked: 0,
            early: BTreeMap::new(),
            answer: None,
        });
        if full || self.draining {
            let (code, message) = if self.draining {
                (ErrorCode::Cancelled, "this node is going down".to_owned())
            } else {
                (ErrorCode::Overloaded, format!("{} calls are in flight already", self.config.limits.max_calls))
            };
            let id = call.spec.id.clone();
            self.calls.entries.insert(id.clone(), call);
            return self.fail(&id, code, message, now, out);
        }
        self.advance_call(call, now, out);
    }

    /// Whether a call of that id is in flight.
    pub(super) fn is_calling(&self, id: &TaskId) -> bool {
        self.calls.entries.contains_key(id)
    }

    fn calls_where(&self, wanted: impl Fn(&Call) -> bool) -> Vec<TaskId> {
        let wanted = self.calls.entries.iter().filter(|(_, c)| wanted(c));
        let mut ids: Vec<TaskId> = wanted.map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn call_due(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get(id) else { return };
        if call.deadline <= now.mono {
            return self.time_out(id, now, out);
        }
        match call.phase.clone() {
            Phase::Lost { until, .. } if until <= now.mono => {
                self.fail(id, ErrorCode::PeerGone, LOST.to_owned(), now, out);
            }
            Phase::Lost { node, .. } => {
                // What did not work a moment ago may work now.
                if let Some(call) = self.calls.entries.get_mut(id) {
                    call.undialable.clear();
                    call.unrelayable.retain(|(n, _)| *n != node);
                    call.resend_at = Some(now.mono + RETRY);
                }
                self.recover(id, now, out);
            }
            Phase::Sent { node, path } if call.resend_at.is_some_and(|at| at <= now.mono) => {
                let path = self.way_without_signs(id, node, path, now, out);
                self.dispatch(id, node, path, now, out);
            }
            _ => self.set_call_timer(id),
        }
    }

    fn set_call_timer(&mut self, id: &TaskId) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let alarm = self.timers.put(Timer::Call(id.clone()), call.due());
        if let Some(before) = call.alarm.replace(alarm) {
            self.timers.take(before);
        }
    }

    /// A result came through so many trackers.
    pub(super) fn call_relayed_over(&mut self, id: &TaskId, responder: NodeId, hops: u8) {
        if let Some(call) = self.calls.entries.get_mut(id).filter(|c| c.responder() == Some(responder)) {
            call.relay_hops = hops;
        }
    }
}
