//! How a call ends: taken back, timed out, failed or answered; exactly once.

use std::time::Duration;

use bytes::Bytes;

use super::{Path, Phase};
use crate::error::{CallError, Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::info::Route;
use crate::mesh::action::{Action, CallDone, CallEvent, OnFull};
use crate::mesh::clock::Now;
use crate::mesh::sealing::Seal;
use crate::mesh::state::{State, Timer};
use crate::mesh::task_id::TaskId;
use crate::mesh::trail::Trail;
use crate::wire::{Draft, Object};

/// What ends a call: a payload with the message it came in, or an error with when to try again.
pub(super) type Ended = Result<(Bytes, Option<Object>), (ErrorCode, String, Option<Duration>)>;

impl State {
    /// The caller doesn't want it any more.
    pub fn cancel_call(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        self.stop_call(id, ErrorCode::Cancelled, "the call was taken back".to_owned(), now, out);
    }

    /// Ends the calls whose responders are denied now.
    pub(in crate::mesh) fn calls_on_denied(&mut self, now: Now, out: &mut Vec<Action>) {
        for id in self.calls_where(|c| c.responder().is_some_and(|node| self.is_denied(&node))) {
            let message = "this node's own owner denied the responder meanwhile; whether the task ran is not known";
            self.stop_call(&id, ErrorCode::NotAllowed, message.to_owned(), now, out);
        }
    }

    /// Ends the calls that a node was given whose id is nobody's any more: its answers are not to be believed.
    pub(in crate::mesh) fn calls_on_ended(&mut self, node: &NodeId, why: &str, now: Now, out: &mut Vec<Action>) {
        for id in self.calls_where(|c| c.responder() == Some(*node)) {
            let message = format!("{why}; whether the task ran is not known");
            self.stop_call(&id, ErrorCode::NotAllowed, message, now, out);
        }
    }

    /// Gives every call up: the node is going down.
    pub fn abandon_calls(&mut self, now: Now, out: &mut Vec<Action>) {
        for id in self.calls_where(|_| true) {
            self.cancel_call(&id, now, out);
        }
    }

    /// Ends a call, and tells whoever works on it to stop.
    pub(super) fn stop_call(&mut self, id: &TaskId, code: ErrorCode, message: String, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get(id) else { return };
        let Phase::Sent { node, path } = call.phase else { return self.fail(id, code, message, now, out) };
        match path {
            Path::Local => {
                // The call ends first: the task's own end would give it another reason.
                self.fail(id, code, message, now, out);
                return self.on_cancel(&(self.me, id.clone()), now, out);
            }
            // The package knows no cancel; it would only use up its hundred messages.
            Path::Direct if self.peers.legacy_conn_of(&node).is_some() => {}
            Path::Direct | Path::Relay(_) => {
                let via = if let Path::Relay(tracker) = path { Some(tracker) } else { None };
                let seal = call.seal.map_or(Seal::ByRecord, Seal::To);
                self.send_to(&node, Trail { via, seal }, Draft::Cancel { id: id.to_text() }, OnFull::Drop, out);
            }
        }
        self.fail(id, code, message, now, out);
    }

    pub(super) fn time_out(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
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

    /// Ends a call with an error.
    pub(super) fn fail(&mut self, id: &TaskId, code: ErrorCode, message: String, now: Now, out: &mut Vec<Action>) {
        self.end(id, Err((code, message, None)), now, out);
    }

    pub(super) fn end(&mut self, id: &TaskId, result: Ended, now: Now, out: &mut Vec<Action>) {
        let Some(mut call) = self.calls.entries.remove(id) else { return };
        self.calls.early_bytes -= call.early.values().map(Bytes::len).sum::<usize>();
        if let Some(alarm) = call.alarm {
            self.timers.take(alarm);
        }
        if let Some(query) = &call.query {
            self.stop_query(query);
        }
        if call.dht_at.is_some() {
            self.timers.cancel(&Timer::Dht(id.clone()));
        }
        self.leave_dht(call.dht, out);
        let responder = call.responder();
        if let Some(node) = &responder {
            self.release(node);
        }
        let since = |at: Option<Duration>| at.unwrap_or(now.mono).saturating_sub(call.started);
        let done = match (result, responder) {
            (Ok((payload, message)), Some(responder)) => {
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
                let sealed = via.is_some() && call.seal.is_some();
                let known = self.table.get(&responder).map(|r| r.name.clone());
                let own = (responder == self.me).then(|| self.config.name.clone());
                Ok(CallDone {
                    payload,
                    responder,
                    responder_name: own.or(known).unwrap_or_default(),
                    route,
                    hops,
                    via,
                    sealed,
                    chunks: call.next_chunk,
                    timings: [since(call.sent_at), since(call.first_sign), now.mono.saturating_sub(call.started)],
                    tried: std::mem::take(&mut call.tried),
                    message,
                })
            }
            (Ok(_), None) => return,
            (Err((code, message, retry_after)), responder) => {
                self.counters.calls_failed += 1;
                let responder = responder.or(call.refusal.as_ref().map(|refusal| refusal.0));
                let tried = std::mem::take(&mut call.tried).into_iter().map(Into::into).collect();
                Err(CallError { code, message, retry_after, delivery: call.delivery, responder, tried })
            }
        };
        out.push(Action::Call { id: id.clone(), event: CallEvent::Done(Box::new(done)) });
    }

    pub(super) fn release(&mut self, node: &NodeId) {
        if let Some(n) = self.in_flight.get_mut(node) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.in_flight.remove(node);
            }
        }
    }
}
