//! The caller's side: a call looks for somebody, sends the task, and ends exactly once.
//!
//! A task is never sent to a second node unless the first one said that it did not run it. It may be sent to the same
//! node again, over whatever way there is: the node knows it by its id. It is signed for one run of that node, so a
//! restarted node, which remembers nothing, refuses it instead of running it again.

mod answers;
mod dht;
mod lost;
mod news;
mod route;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use self::dht::Dht;
use super::action::{Action, CallDone, CallEvent, OnFull, TaskToRun};
use super::clock::Now;
use super::state::{State, Timer};
use crate::error::{Attempt, CallError, Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::node::Route;
use crate::wire::{Draft, TaskAnswer, TaskDraft, WireError};

/// How many chunks may be on the way to us.
pub const WINDOW: u64 = 32;

/// How long a relayed task may go without a sign before it is sent again; doubled each time, up to [`RESEND_MAX`].
const RESEND: Duration = Duration::from_secs(2);

/// The longest wait before an unanswered relayed task is sent again, to learn whether its responder still lives.
const RESEND_MAX: Duration = Duration::from_secs(30);

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
    pub id: String,
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
    /// Whether this node itself may answer.
    pub local: bool,
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
    failed: HashSet<NodeId>,
    /// Nodes that could not be dialled, and where: at another address they may be.
    undialable: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Who is being dialled for it, and where.
    dialing: Option<(NodeId, Vec<SocketAddr>)>,
    /// Nodes there was no way to when they were last looked at.
    unreachable: HashSet<NodeId>,
    /// Trackers that could not reach a node.
    unrelayable: HashSet<(NodeId, NodeId)>,
    /// Who was found by the flood, how many links away, and who told us.
    found: HashMap<NodeId, (u32, Option<NodeId>)>,
    tried: Vec<Attempt>,
    /// The last answer that named a reason not to run it.
    refusal: Option<(NodeId, WireError, Delivery)>,
    /// Whether the responder said that it works on it.
    working: bool,
    /// Until when the responder is looked for, since it was last heard.
    lost_until: Option<Duration>,
    /// The run of the responder that the task was signed for.
    instance: Option<String>,
    sends: u32,
    /// When it was last sent.
    last_sent: Duration,
    resend_at: Option<Duration>,
    resend_wait: Duration,
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
    answer: Option<TaskAnswer>,
}

/// Calls in flight.
#[derive(Debug, Default)]
pub struct Calls {
    entries: BTreeMap<String, Call>,
}

impl Calls {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
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

impl Call {
    fn tried(&mut self, step: &'static str, node: Option<NodeId>, result: impl Into<String>, now: Now) {
        /// A call that keeps failing doesn't keep its whole history.
        const MAX_TRIED: usize = 32;
        if self.tried.len() < MAX_TRIED {
            let at = now.mono.saturating_sub(self.started);
            self.tried.push(Attempt { step, node, result: result.into(), at });
        }
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
    /// Begins a call. Whatever becomes of it, [`CallEvent::Done`] comes exactly once.
    pub fn start_call(&mut self, spec: CallSpec, now: Now, out: &mut Vec<Action>) {
        let id = spec.id.clone();
        let failed = spec.except.into_iter().collect();
        let full = self.calls.entries.len() >= self.config.limits.max_calls;
        let call = Call {
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
            unreachable: HashSet::new(),
            unrelayable: HashSet::new(),
            found: HashMap::new(),
            tried: Vec::new(),
            refusal: None,
            working: false,
            lost_until: None,
            instance: None,
            sends: 0,
            last_sent: Duration::ZERO,
            resend_at: None,
            resend_wait: RESEND,
            delivery: Delivery::NotSent,
            sent_at: None,
            first_sign: None,
            relay_hops: 0,
            next_chunk: 0,
            taken: 0,
            acked: 0,
            early: BTreeMap::new(),
            answer: None,
        };
        self.calls.entries.insert(id.clone(), call);
        if full || self.draining {
            let (code, message) = if self.draining {
                (ErrorCode::Cancelled, "this node is going down".to_owned())
            } else {
                (ErrorCode::Overloaded, format!("{} calls are in flight already", self.config.limits.max_calls))
            };
            return self.fail(&id, code, message, now, out);
        }
        self.advance(&id, now, out);
    }

    /// The caller doesn't want it any more.
    pub fn cancel_call(&mut self, id: &str, now: Now, out: &mut Vec<Action>) {
        self.stop_call(id, ErrorCode::Cancelled, "the call was taken back".to_owned(), now, out);
    }

    /// Gives every call up: the node is going down.
    pub fn abandon_calls(&mut self, now: Now, out: &mut Vec<Action>) {
        let ids: Vec<_> = self.calls.entries.keys().cloned().collect();
        for id in ids {
            self.cancel_call(&id, now, out);
        }
    }

    /// Ends a call, and tells whoever works on it to stop.
    fn stop_call(&mut self, id: &str, code: ErrorCode, message: String, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get(id) else { return };
        let Phase::Sent { node, path } = call.phase else { return self.fail(id, code, message, now, out) };
        match path {
            Path::Local => {
                // The call ends first: the task's own end would give it another reason.
                self.fail(id, code, message, now, out);
                return self.on_cancel(&(self.me, id.to_owned()), now, out);
            }
            // The package knows no cancel; it would only use up its hundred messages.
            Path::Direct if self.peers.legacy_conn_of(&node).is_some() => {}
            Path::Direct | Path::Relay(_) => {
                let via = if let Path::Relay(tracker) = path { Some(tracker) } else { None };
                self.send_to(&node, via.as_ref(), Draft::Cancel { id: id.to_owned() }, OnFull::Drop, out);
            }
        }
        self.fail(id, code, message, now, out);
    }

    fn calls_where(&self, wanted: impl Fn(&Call) -> bool) -> Vec<String> {
        self.calls.entries.iter().filter(|(_, c)| wanted(c)).map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn call_due(&mut self, id: &str, now: Now, out: &mut Vec<Action>) {
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

    fn time_out(&mut self, id: &str, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get(id) else { return };
        let seconds = call.spec.timeout.as_secs_f64();
        let message = match call.delivery {
            Delivery::NotSent => format!("nobody was found within {seconds} s; the task was not sent"),
            Delivery::Unconfirmed => {
                format!("no sign of arrival within {seconds} s; whether the task ran is not known")
            }
            _ => format!("the responder has the task but did not answer within {seconds} s; it was told to stop"),
        };
        self.stop_call(id, ErrorCode::Timeout, message, now, out);
    }

    fn set_call_timer(&mut self, id: &str) {
        let Some(call) = self.calls.entries.get(id) else { return };
        let next = match call.phase {
            Phase::Lost { until, .. } => call.resend_at.map_or(until, |at| at.min(until)),
            Phase::Sent { .. } => call.resend_at.unwrap_or(call.deadline),
            _ => call.deadline,
        };
        self.timers.set(Timer::Call(id.to_owned()), next.min(call.deadline));
    }

    /// Sends the task, or sends it again.
    fn dispatch(&mut self, id: &str, node: NodeId, path: Path, now: Now, out: &mut Vec<Action>) {
        let legacy = self.peers.conn_of(&node).is_none().then(|| self.peers.legacy_conn_of(&node)).flatten();
        let known = match (self.peers.proven(&node), self.table.get(&node)) {
            (Some(peer), _) => peer.arrival.instance.clone(),
            (None, Some(record)) => record.instance.clone(),
            _ => None,
        };
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        if call.sends == 0 {
            call.instance = if legacy.is_some() { None } else { known };
        }
        if path == Path::Local {
            return self.dispatch_local(id, node, now, out);
        }
        let draft = Draft::Task(TaskDraft {
            id: id.to_owned(),
            target: node,
            capability: call.spec.capability.clone(),
            payload: call.spec.payload.clone(),
            timestamp: call.timestamp,
            ttl_s: ttl_s(call.spec.timeout),
            window: legacy.is_none().then_some(WINDOW),
            instance: call.instance.clone(),
        });
        // Nobody has it: should there be no room for it, nobody will.
        let first = call.delivery == Delivery::NotSent;
        call.sends += 1;
        call.last_sent = now.mono;
        let was_sent = matches!(call.phase, Phase::Sent { .. } | Phase::Lost { .. });
        call.phase = Phase::Sent { node, path };
        call.sent_at.get_or_insert(now.mono);
        if call.delivery == Delivery::NotSent {
            call.delivery = Delivery::Unconfirmed;
        }
        call.resend_at = None;
        if let Path::Relay(_) = path {
            // A relay may lose what it can't pass on in time; over TCP alone nothing is lost but the connection.
            if call.instance.is_some() {
                call.resend_at = Some(now.mono + call.resend_wait);
                call.resend_wait = (call.resend_wait * 2).min(RESEND_MAX);
            }
        }
        if !was_sent {
            *self.in_flight.entry(node).or_default() += 1;
        }
        if let Some(query) = call.query.take() {
            // Should this node refuse, the question is put once more: others may not have answered yet.
            call.flood = Flood::NotYet;
            self.stop_query(&query);
        }
        let dht = self.calls.entries.get_mut(id).map_or(Dht::Over, |call| match call.dht {
            Dht::Asking(_) => std::mem::replace(&mut call.dht, Dht::NotYet),
            other => other,
        });
        self.leave_dht(dht, out);
        self.set_call_timer(id);
        self.used(&node, now);
        if let Path::Relay(tracker) = path {
            self.used(&tracker, now);
        }
        let on_full = if first { OnFull::FailCall(id.to_owned()) } else { OnFull::Drop };
        match legacy {
            Some(conn) => out.push(Action::Send { to: conn, what: super::action::What::Sign(draft), on_full }),
            None => {
                let via = if let Path::Relay(tracker) = path { Some(tracker) } else { None };
                if !self.send_to(&node, via.as_ref(), draft, on_full, out) {
                    return self.lose_way(id, now, out);
                }
                let Some(tracker) = via else { return };
                self.note_contact(node, tracker, now);
                // Who names the tracker wants it to go there. The task goes first: the other end then knows who asks.
                if self.calls.entries.get(id).is_some_and(|c| c.spec.via.is_none()) {
                    self.want_direct(node, tracker, now, out);
                }
            }
        }
    }

    fn dispatch_local(&mut self, id: &str, node: NodeId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.phase = Phase::Sent { node, path: Path::Local };
        call.sends = 1;
        call.sent_at = Some(now.mono);
        call.delivery = Delivery::Accepted;
        let task = TaskToRun {
            id: id.to_owned(),
            caller: node,
            capability: call.spec.capability.clone(),
            payload: call.spec.payload.clone(),
            timestamp: call.timestamp,
            ttl_s: ttl_s(call.spec.timeout),
            deadline: call.deadline,
            via: None,
            conn: None,
            proven: true,
            gateway: false,
        };
        self.set_call_timer(id);
        self.run_local(task, now, out);
    }

    /// The first copy of a task did not fit in the peer's outbox: it never left.
    pub fn call_send_failed(&mut self, id: &str, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let Some(node) = call.responder() else { return };
        let error = WireError::new(ErrorCode::Overloaded, "the peer does not read fast enough: its outbox is full");
        self.not_run(id, node, error.retry_after_s(1), Delivery::NotSent, now, out);
    }

    /// That node did not run the task: somebody else may be asked. `delivery`: whether it said so itself.
    fn not_run(
        &mut self,
        id: &str,
        node: NodeId,
        error: WireError,
        delivery: Delivery,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.tried("answer", Some(node), format!("{}: {}", error.code, error.message), now);
        call.failed.insert(node);
        call.refusal = Some((node, error, delivery));
        self.unsend(id);
        self.advance(id, now, out);
    }

    /// The task is with nobody any more: the call is where it was before it was sent.
    fn unsend(&mut self, id: &str) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let responder = call.responder();
        call.phase = Phase::Searching;
        call.delivery = Delivery::NotSent;
        call.sends = 0;
        call.resend_at = None;
        call.resend_wait = RESEND;
        call.working = false;
        call.lost_until = None;
        call.early.clear();
        call.answer = None;
        if let Some(node) = responder {
            self.release(&node);
        }
    }

    fn release(&mut self, node: &NodeId) {
        if let Some(n) = self.in_flight.get_mut(node) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.in_flight.remove(node);
            }
        }
    }

    /// Ends a call with an error.
    fn fail(&mut self, id: &str, code: ErrorCode, message: String, now: Now, out: &mut Vec<Action>) {
        self.end(id, Err((code, message, None)), now, out);
    }

    fn end(
        &mut self,
        id: &str,
        result: Result<Bytes, (ErrorCode, String, Option<Duration>)>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.entries.remove(id) else { return };
        self.timers.cancel(&Timer::Call(id.to_owned()));
        if let Some(query) = &call.query {
            self.stop_query(query);
        }
        self.timers.cancel(&Timer::Dht(id.to_owned()));
        self.leave_dht(call.dht, out);
        let responder = call.responder();
        if let Some(node) = &responder {
            self.release(node);
        }
        let since = |at: Option<Duration>| at.unwrap_or(now.mono).saturating_sub(call.started);
        let done = match (result, responder) {
            (Ok(payload), Some(responder)) => {
                self.counters.calls_done += 1;
                let path = if let Phase::Sent { path, .. } = call.phase { path } else { Path::Direct };
                let (route, hops, via) = match path {
                    Path::Local => (Route::Local, 0, None),
                    Path::Relay(tracker) => (Route::Relay, 1 + u32::from(call.relay_hops.max(1)), Some(tracker)),
                    Path::Direct => match call.found.get(&responder) {
                        Some((hops, _)) => (Route::Flood, *hops, None),
                        None => (Route::Direct, 1, None),
                    },
                };
                let known = self.table.get(&responder).map(|r| r.name.clone());
                let own = (responder == self.me).then(|| self.config.name.clone());
                Ok(CallDone {
                    payload,
                    responder,
                    responder_name: own.or(known).unwrap_or_default(),
                    route,
                    hops,
                    via,
                    chunks: call.next_chunk,
                    timings: [since(call.sent_at), since(call.first_sign), now.mono.saturating_sub(call.started)],
                    tried: call.tried,
                })
            }
            (Ok(_), None) => return,
            (Err((code, message, retry_after)), responder) => {
                self.counters.calls_failed += 1;
                let responder = responder.or(call.refusal.as_ref().map(|(n, ..)| *n));
                Err(CallError { code, message, retry_after, delivery: call.delivery, responder, tried: call.tried })
            }
        };
        out.push(Action::Call { id: id.to_owned(), event: CallEvent::Done(Box::new(done)) });
    }

    /// A result came through so many trackers.
    pub(super) fn call_relayed_over(&mut self, id: &str, responder: NodeId, hops: u8) {
        if let Some(call) = self.calls.entries.get_mut(id).filter(|c| c.responder() == Some(responder)) {
            call.relay_hops = hops;
        }
    }
}
