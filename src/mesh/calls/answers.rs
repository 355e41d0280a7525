//! What comes back for a call: signs of life, chunks in their order, and the result.

use bytes::Bytes;

use super::{Call, Path, Phase, WINDOW};
use crate::error::{Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::mesh::action::{Action, CallEvent, OnFull};
use crate::mesh::clock::Now;
use crate::mesh::sealing::Seal;
use crate::mesh::state::State;
use crate::mesh::task_id::TaskId;
use crate::mesh::trail::Trail;
use crate::wire::{Chunk, Draft, TaskAnswer, WireError};

/// Reasons not to run a task that another node may not have.
const NOT_RUN: &[ErrorCode] = &[
    ErrorCode::UnknownCapability,
    ErrorCode::Overloaded,
    ErrorCode::AgentAway,
    ErrorCode::RateLimited,
    ErrorCode::NotAllowed,
    ErrorCode::PeerGone,
];

impl Call {
    /// Whether the task may have been brought to its responder more often than it was sent, and that matters.
    fn doubts_the_way(&self) -> bool {
        self.spec.once && matches!(self.phase, Phase::Sent { path: Path::Relay(_), .. } | Phase::Lost { .. })
    }
}

impl State {
    /// The call that a responder's message is about; counted when there is none, or when a tracker brings open what was asked
    /// for sealed.
    fn call_of(&mut self, id: &TaskId, responder: NodeId, trail: Trail, now: Now) -> Option<&mut Call> {
        let Some(call) = self.calls.entries.get_mut(id).filter(|c| c.responder() == Some(responder)) else {
            self.refuse("unasked_result");
            return None;
        };
        match trail.seal {
            // The key it has now: what follows is sealed to it.
            Seal::To(key) if call.seal.is_some() => call.seal = Some(key),
            Seal::Plain if trail.via.is_some() && call.seal.is_some() => {
                self.refuse("unsealed_answer");
                return None;
            }
            _ => {}
        }
        call.first_sign.get_or_insert(now.mono);
        call.lost_until = None;
        if matches!(call.phase, Phase::Lost { .. }) {
            self.found_again(id, trail, now);
        }
        self.calls.entries.get_mut(id).map(|call| &mut **call)
    }

    /// A responder was heard whose way was lost.
    fn found_again(&mut self, id: &TaskId, trail: Trail, now: Now) {
        let may_go_there = self.may_go_through(id, trail.via.as_ref());
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let Phase::Lost { node, until } = &mut call.phase else { return };
        if may_go_there {
            // The answer found its way although we had lost sight of the responder.
            let path = trail.via.map_or(Path::Direct, Path::Relay);
            call.phase = Phase::Sent { node: *node, path };
            // What else was lost is asked for.
            call.resend_at = Some(now.mono + super::RESEND);
        } else {
            // It lives; what is said to it waits for the way that was named.
            *until = now.mono + super::RECOVER;
        }
    }

    pub(in crate::mesh) fn on_accepted(
        &mut self,
        id: &TaskId,
        responder: NodeId,
        trail: Trail,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(call) = self.call_of(id, responder, trail, now) else { return };
        call.working = true;
        if call.delivery != Delivery::Accepted {
            call.delivery = Delivery::Accepted;
            out.push(Action::Call { id: id.clone(), event: CallEvent::Accepted });
        }
        self.set_call_timer(id);
    }

    pub(in crate::mesh) fn on_chunk(
        &mut self,
        chunk: Chunk,
        responder: NodeId,
        trail: Trail,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let id = TaskId::from(&chunk.id);
        let Some(call) = self.call_of(&id, responder, trail, now) else { return };
        call.working = true;
        call.delivery = Delivery::Accepted;
        if chunk.seq < call.next_chunk {
            // The responder did not hear that we have it.
            let next = call.taken;
            self.ack_chunks(&id, next, out);
        } else if chunk.seq < call.taken + WINDOW {
            let added = chunk.data.len();
            let mut released = call.early.insert(chunk.seq, chunk.data).map_or(0, |data| data.len());
            while let Some(data) = call.early.remove(&call.next_chunk) {
                released += data.len();
                call.next_chunk += 1;
                out.push(Action::Call { id: id.clone(), event: CallEvent::Chunk(data) });
            }
            let complete = call.answer.as_ref().is_some_and(|a| a.chunks.unwrap_or(0) <= call.next_chunk);
            if complete && let Some(answer) = call.answer.take() {
                self.calls.early_bytes = self.calls.early_bytes + added - released;
                self.settle(&id, *answer, responder, now, out);
            } else {
                self.calls.early_bytes = self.calls.early_bytes + added - released;
            }
        } else {
            // Beyond what we said we take.
            let message = "the responder sent more chunks than it may have on the way".to_owned();
            self.stop_call(&id, ErrorCode::Internal, message, now, out);
        }
    }

    /// The caller took chunks; the responder may send as many more.
    pub fn chunks_taken(&mut self, id: &TaskId, n: u64, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.taken += n;
        if matches!(call.phase, Phase::Sent { path: Path::Local, .. }) {
            return self.local_credit(id, out);
        }
        // In batches while it keeps coming, at once when the caller has caught up.
        if call.taken - call.acked >= WINDOW / 4 || call.taken == call.next_chunk {
            let next = call.taken;
            self.ack_chunks(id, next, out);
        }
    }

    fn ack_chunks(&mut self, id: &TaskId, next: u64, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.acked = next;
        if let Phase::Sent { node, path } = call.phase {
            // Over a relay what is lost is asked for again; directly, the responder would wait for this for ever.
            let (via, on_full) = match path {
                Path::Relay(tracker) => (Some(tracker), OnFull::Drop),
                _ => (None, OnFull::Close),
            };
            let seal = call.seal.map_or(Seal::ByRecord, Seal::To);
            self.send_to(&node, Trail { via, seal }, Draft::ChunkAck { id: id.to_text(), next }, on_full, out);
        }
    }

    pub(in crate::mesh) fn on_result(
        &mut self,
        answer: TaskAnswer,
        responder: NodeId,
        trail: Trail,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let id = TaskId::from(&answer.id);
        // Who could not open a task says so in the open, and its signature proves that it did.
        let unsealed = answer.body.is_err() && trail.seal == Seal::Plain;
        let trail = if unsealed { Trail { seal: Seal::ByRecord, ..trail } } else { trail };
        let Some(call) = self.call_of(&id, responder, trail, now) else { return };
        if answer.body.is_ok() && answer.chunks.unwrap_or(0) > call.next_chunk {
            // Chunks are missing: over a relay they may have been lost. Asked again, the responder sends them again.
            call.working = true;
            call.delivery = Delivery::Accepted;
            if call.answer.replace(Box::new(answer)).is_none() {
                call.resend_at = Some(now.mono + super::RESEND / 4);
                self.set_call_timer(&id);
            }
            return;
        }
        self.settle(&id, answer, responder, now, out);
    }

    pub(in crate::mesh) fn on_legacy_result(
        &mut self,
        answer: TaskAnswer,
        claimed: NodeId,
        signed: bool,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if answer.responder.is_some_and(|r| r != claimed) {
            return self.refuse("not_the_signer");
        }
        // The package doesn't sign its errors. An unsigned one may end a call, it can't make it succeed.
        if !signed && answer.body.is_ok() {
            return self.refuse("bad_signature");
        }
        let id = TaskId::from(&answer.id);
        if self.call_of(&id, claimed, Trail::DIRECT, now).is_some() {
            self.settle(&id, answer, claimed, now, out);
        }
    }

    fn settle(&mut self, id: &TaskId, answer: TaskAnswer, responder: NodeId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let error = match answer.body {
            Ok(payload) => {
                call.delivery = Delivery::Answered;
                return self.end(id, Ok((payload, Some(answer.object))), now, out);
            }
            Err(error) => error,
        };
        let code = ErrorCode::from_wire(&error.code);
        if code == Some(ErrorCode::PeerGone) && self.seal_anew(id, responder, &error, now, out) {
            return;
        }
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        if error.not_run && call.sends > 1 && code == Some(ErrorCode::RateLimited) {
            // A copy was turned away at the door, before anybody looked whether the task is known: the first one may be
            // at work. It is asked for again when there is room.
            let wait = error.retry_after().unwrap_or_default().max(super::RESEND);
            call.resend_at = Some(now.mono + wait);
            return self.set_call_timer(id);
        }
        // "Too late", said of a copy, tells nothing of the first one: that may have run. And one that was refused is not
        // remembered: a copy that is kept back may be run as soon as there is room for it.
        let late =
            (error.not_run || matches!(code, Some(ErrorCode::Expired | ErrorCode::PeerGone))) && call.doubts_the_way();
        if (code != Some(ErrorCode::Expired) || call.sends == 1) && !late {
            call.delivery = Delivery::Answered;
        }
        if code == Some(ErrorCode::PeerGone) && !late && call.sends == 1 && !call.working && error.instance.is_some() {
            // The only copy was for an earlier run, and this run refused it: nobody has run it. It goes out once more
            // for the run there is now.
            if call.instance.is_some() && call.instance != error.instance {
                call.instance = error.instance;
                call.seal = call.seal.and(error.seal.as_deref().copied().or(call.seal));
                call.delivery = Delivery::NotSent;
                let Phase::Sent { path, .. } = call.phase else { return };
                call.tried("answer", Some(responder), "it restarted since it was known here; asking its new run", now);
                return self.dispatch(id, responder, path, now, out);
            }
        }
        // The responder says so itself, of the only copy there is. A code alone proves nothing: a handler may have had it
        // from a call of its own, after half the work.
        let not_run = error.not_run && call.sends == 1 && !late && code.is_some_and(|c| NOT_RUN.contains(&c));
        let untouched = call.next_chunk == 0 && call.early.is_empty();
        if not_run && untouched && call.spec.target.is_none() {
            return self.not_run(id, responder, error, Delivery::Answered, now, out);
        }
        let retry = error.retry_after();
        let message = match code {
            Some(_) => error.message,
            // Another program's own code is kept in the words.
            None => format!("{}: {}", error.code, error.message),
        };
        self.end(id, Err((code.unwrap_or(ErrorCode::HandlerError), message, retry)), now, out);
    }

    /// The responder's run that the task is signed for could not open it, and names its key: it is sealed to that, and sent
    /// again. That is safe however many copies there are, since that run knows the task by its id.
    fn seal_anew(
        &mut self,
        id: &TaskId,
        responder: NodeId,
        error: &WireError,
        now: Now,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(call) = self.calls.entries.get_mut(id) else { return false };
        let (Phase::Sent { path: path @ Path::Relay(_), .. }, Some(used), Some(named)) =
            (&call.phase, call.seal, error.seal.as_deref().copied())
        else {
            return false;
        };
        if call.instance.is_none() || call.instance != error.instance {
            return false;
        }
        if used == named {
            // Said of a copy from before, or brought again by a tracker: what was sealed since has its own answer.
            return true;
        }
        if call.reseals >= super::MAX_RESEALS {
            return false;
        }
        let path = *path;
        call.reseals += 1;
        call.seal = Some(named);
        call.tried("answer", Some(responder), "its key was replaced since; sealed anew", now);
        self.dispatch(id, responder, path, now, out);
        true
    }

    // ---- calls of a node to itself ---------------------------------------------------------------------------

    pub(in crate::mesh) fn call_local_chunk(
        &mut self,
        id: &TaskId,
        data: Bytes,
        now: Now,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(call) = self.calls.entries.get_mut(id) else { return true };
        if call.next_chunk - call.taken >= WINDOW {
            return false;
        }
        call.first_sign.get_or_insert(now.mono);
        call.next_chunk += 1;
        out.push(Action::Call { id: id.clone(), event: CallEvent::Chunk(data) });
        true
    }

    pub(in crate::mesh) fn call_local_answer(
        &mut self,
        id: &TaskId,
        body: Result<Bytes, WireError>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.first_sign.get_or_insert(now.mono);
        call.delivery = Delivery::Answered;
        let result = body.map(|payload| (payload, None)).map_err(|error| {
            let (code, retry) =
                (ErrorCode::from_wire(&error.code).unwrap_or(ErrorCode::HandlerError), error.retry_after());
            (code, error.message, retry)
        });
        self.end(id, result, now, out);
    }
}
