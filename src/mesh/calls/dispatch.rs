//! Sending a call's task, sending it again, and taking back what was not run.

use bytes::Bytes;

use super::dht::Dht;
use super::{Call, Flood, Path, Phase, RESEND, RESEND_MAX, WINDOW, ttl_s, wait_s};
use crate::error::{Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::mesh::action::{Action, OnFull, TaskToRun, What};
use crate::mesh::clock::Now;
use crate::mesh::conn_id::ConnId;
use crate::mesh::sealing::Seal;
use crate::mesh::state::{State, Timer};
use crate::mesh::task_id::TaskId;
use crate::mesh::trail::Trail;
use crate::wire::{Draft, TaskDraft, WireError};

impl Call {
    /// Whether nobody is looked for any more who would have to be told that somebody was found.
    pub(super) fn is_quiet(&self) -> bool {
        self.query.is_none() && !matches!(self.dht, Dht::Asking(_))
    }

    /// It goes to that node. Gives the task, and what happens when there is no room for it.
    fn send_to(&mut self, node: NodeId, path: Path, window: Option<u64>, now: Now) -> (Draft, OnFull) {
        let draft = Draft::Task(TaskDraft {
            id: self.spec.id.to_text(),
            target: node,
            capability: self.spec.capability.clone(),
            payload: self.spec.payload.clone(),
            timestamp: self.timestamp,
            ttl_s: ttl_s(self.spec.timeout),
            wait_s: Some(wait_s(self.spec.wait)).filter(|wait_s| *wait_s > 0),
            window,
            instance: self.instance.clone(),
        });
        // Nobody has it: should there be no room for it, nobody will.
        let first = self.delivery == Delivery::NotSent;
        self.sends += 1;
        self.last_sent = now.mono;
        self.phase = Phase::Sent { node, path };
        self.sent_at.get_or_insert(now.mono);
        self.resend_at = None;
        if first {
            self.delivery = Delivery::Unconfirmed;
        }
        // A relay may lose what it can't pass on in time; over TCP alone nothing is lost but the connection.
        if matches!(path, Path::Relay(_)) && self.instance.is_some() {
            self.resend_at = Some(now.mono + self.resend_wait);
            self.resend_wait = (self.resend_wait * 2).min(RESEND_MAX);
        }
        let on_full = if first { OnFull::FailCall(self.spec.id.clone()) } else { OnFull::Drop };
        (draft, on_full)
    }
}

impl State {
    /// The usual case of [`dispatch`](Self::dispatch): over a connection that is there, of a call that is not among the
    /// others yet, and for which nobody else is looked for. Each of them is looked up once.
    pub(super) fn send_straight(
        &mut self,
        mut call: Box<Call>,
        node: NodeId,
        conn: ConnId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        call.tried("table", Some(node), "connected", now);
        if let Some(peer) = self.peers.get_mut(conn) {
            peer.used = now.mono;
            if call.sends == 0 {
                call.instance.clone_from(&peer.arrival.instance);
            }
        }
        if call.responder().is_none() {
            *self.in_flight.entry(node).or_default() += 1;
        }
        let (draft, on_full) = call.send_to(node, Path::Direct, Some(WINDOW), now);
        let id = call.spec.id.clone();
        let alarm = self.timers.put(Timer::Call(id.clone()), call.due());
        if let Some(before) = call.alarm.replace(alarm) {
            self.timers.take(before);
        }
        self.calls.entries.insert(id, call);
        out.push(Action::Send { to: conn, what: What::Sign(draft), on_full });
    }

    /// Sends the task, or sends it again.
    pub(super) fn dispatch(&mut self, id: &TaskId, node: NodeId, path: Path, now: Now, out: &mut Vec<Action>) {
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
        let seal = call.seal.map_or(Seal::ByRecord, Seal::To);
        if let Path::Relay(_) = path {
            match self.seal_for(&node, seal) {
                Ok(key) => {
                    if let Some(call) = self.calls.entries.get_mut(id) {
                        call.seal = key;
                    }
                }
                // Never open for want of a key. There may be another way, or its record may come.
                Err(why) => return self.cant_seal(id, node, why, now, out),
            }
        }
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let seal = call.seal.map_or(Seal::Plain, Seal::To);
        let was_sent = call.responder().is_some();
        let (draft, on_full) = call.send_to(node, path, legacy.is_none().then_some(WINDOW), now);
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
        match legacy {
            Some(conn) => out.push(Action::Send { to: conn, what: What::Sign(draft), on_full }),
            None => {
                let via = if let Path::Relay(tracker) = path { Some(tracker) } else { None };
                if !self.send_to(&node, Trail { via, seal }, draft, on_full, out) {
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

    fn dispatch_local(&mut self, id: &TaskId, node: NodeId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.phase = Phase::Sent { node, path: Path::Local };
        call.sends = 1;
        call.sent_at = Some(now.mono);
        call.delivery = Delivery::Accepted;
        let task = TaskToRun {
            id: id.to_text(),
            caller: node,
            capability: call.spec.capability.clone(),
            payload: call.spec.payload.clone(),
            timestamp: call.timestamp,
            ttl_s: ttl_s(call.spec.timeout),
            wait_s: wait_s(call.spec.wait),
            deadline: call.deadline,
            via: None,
            sealed: false,
            conn: None,
            proven: true,
            gateway: false,
            message: None,
        };
        self.set_call_timer(id);
        self.run_local(task, now, out);
    }

    /// A copy of a task can't be sealed. The first one was not sent; others may have arrived.
    fn cant_seal(&mut self, id: &TaskId, node: NodeId, why: &str, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.tried("relay", Some(node), format!("not sent: {why}"), now);
        match call.phase {
            Phase::Sent { .. } => self.lose_way(id, now, out),
            Phase::Lost { .. } => self.set_call_timer(id),
            Phase::Searching | Phase::Dialing(_) => {
                let error = WireError::new(ErrorCode::NoPeer, format!("nothing can be sealed for {node}: {why}"));
                self.not_run(id, node, error, Delivery::NotSent, now, out);
            }
        }
    }

    /// What was to be sealed could not be, though there was a key: it did not leave.
    pub fn call_not_sealed(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let Some(node) = self.calls.entries.get(id).and_then(|call| call.responder()) else { return };
        let error = WireError::new(ErrorCode::Internal, "the task could not be sealed to its target's key");
        self.not_run(id, node, error, Delivery::NotSent, now, out);
    }

    /// The first copy of a task did not fit in the peer's outbox: it never left.
    pub fn call_send_failed(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let Some(node) = call.responder() else { return };
        let error = WireError::new(ErrorCode::Overloaded, "the peer does not read fast enough: its outbox is full");
        self.not_run(id, node, error.retry_after_s(1), Delivery::NotSent, now, out);
    }

    /// That node did not run the task: somebody else may be asked. `delivery`: whether it said so itself.
    pub(super) fn not_run(
        &mut self,
        id: &TaskId,
        node: NodeId,
        error: WireError,
        delivery: Delivery,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.tried("answer", Some(node), format!("{}: {}", error.code, error.message), now);
        call.failed.insert(node);
        call.refusal = Some(Box::new((node, error, delivery)));
        self.unsend(id);
        self.advance(id, now, out);
    }

    /// The task is with nobody any more: the call is where it was before it was sent.
    pub(super) fn unsend(&mut self, id: &TaskId) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let responder = call.responder();
        call.phase = Phase::Searching;
        call.delivery = Delivery::NotSent;
        call.sends = 0;
        (call.seal, call.reseals) = (None, 0);
        call.resend_at = None;
        call.resend_wait = RESEND;
        call.working = false;
        call.lost_until = None;
        let early: usize = std::mem::take(&mut call.early).values().map(Bytes::len).sum();
        call.answer = None;
        self.calls.early_bytes -= early;
        if let Some(node) = responder {
            self.release(&node);
        }
    }
}
