//! The responder's side: a task runs at most once, and its answer is kept for whoever asks again.

mod memory;
mod orphans;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::memory::Level;
use crate::mesh::action::{Action, OnFull, TaskKey, TaskToRun};
use crate::mesh::clock::Now;
use crate::mesh::conn_id::ConnId;
use crate::mesh::policy;
use crate::mesh::sealing::Seal;
use crate::mesh::state::{State, Timer};
use crate::node::{Activity, Sealing, TrackerRole};
use crate::wire::{Draft, ResultDraft, Task, WireError};

pub use memory::Tasks;

/// After this time without a result the caller is told that its task was accepted.
const ACCEPT_AFTER: Duration = Duration::from_millis(100);

/// The most bytes of chunks on the way unacknowledged, beyond the first chunk: two messages of the largest size.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// The least wait before a part of an answer is sent again that a tracker had no room for.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// A task that is this many seconds old when it comes was long on its way, or the two clocks differ: its caller is told,
/// should its time not be enough.
const LATE_S: i64 = 5;

/// The widest window a caller may ask for.
const MAX_WINDOW: u64 = 256;

/// A task that is running, or was answered and whose answer is kept.
#[derive(Debug)]
struct Entry {
    capability: String,
    started: Duration,
    /// Its payload, which its handler has.
    payload_bytes: usize,
    /// Until when it is remembered.
    until: Duration,
    /// Through which tracker it came last.
    via: Option<NodeId>,
    /// How it came last, and is answered.
    seal: Seal,
    /// The Python node's connection, if it came from one.
    legacy: Option<ConnId>,
    local: bool,
    accepted: bool,
    window: Option<u64>,
    next_seq: u64,
    unacked: VecDeque<(u64, Bytes)>,
    unacked_bytes: usize,
    /// Whether the handler waits for room.
    waiting: bool,
    answer: Option<ResultDraft>,
    /// Whether the handler has not come back yet.
    running: bool,
    /// Whether its caller sent it more than once.
    repeated: bool,
    /// The run of the caller whose connection was lost.
    caller_run: Option<String>,
    /// How long before it came it was issued, if that is long.
    late_s: Option<i64>,
    /// The owner's rule that it counts for.
    rule: Option<usize>,
}

impl Entry {
    fn new(capability: &str, started: Duration, until: Duration) -> Self {
        Self {
            capability: capability.to_owned(),
            started,
            payload_bytes: 0,
            until,
            via: None,
            seal: Seal::ByRecord,
            legacy: None,
            local: false,
            accepted: false,
            window: None,
            next_seq: 0,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            waiting: false,
            answer: None,
            running: true,
            repeated: false,
            caller_run: None,
            late_s: None,
            rule: None,
        }
    }

    /// The bytes kept for whoever asks again, once its handler came back.
    fn kept_bytes(&self) -> usize {
        if self.running { 0 } else { self.answer.as_ref().map_or(0, answer_size) + self.unacked_bytes }
    }
}

/// Why a chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkRefused {
    /// The caller is behind; [`Action::Credit`] tells when to try again.
    Full,
    /// The task is over.
    Over,
}

fn answer_size(answer: &ResultDraft) -> usize {
    match &answer.body {
        Ok(payload) => payload.len(),
        Err(error) => error.message.len(),
    }
}

impl State {
    /// A task that its caller signed.
    #[allow(clippy::too_many_arguments)] // Where a task came from has these many parts.
    pub(super) fn on_task(
        &mut self,
        task: Task,
        caller: NodeId,
        via: Option<NodeId>,
        seal: Seal,
        conn: ConnId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let legacy = self.peers.get(conn).is_some_and(|p| p.legacy.is_some());
        let key = (caller, task.id.clone());
        if let Some(why) = self.barred(&caller) {
            // Also when it came before, and is at work or was answered: who is not let in hears nothing of it.
            let known = self.tasks.entries.contains_key(&key) || self.tasks.is_bare(&key);
            let error = WireError::new(ErrorCode::NotAllowed, why);
            self.count_refused(&task.capability, ErrorCode::NotAllowed);
            let error = if known { error } else { error.not_run() };
            return self.answer_unheld(task.id, Err(error), caller, via, seal, legacy.then_some(conn), out);
        }
        if self.tasks.entries.contains_key(&key) {
            return self.answer_again(&key, via, seal, legacy.then_some(conn), now, out);
        }
        if self.tasks.is_bare(&key) {
            self.refuse("repeated_task");
            return self.answer_unheld(
                task.id,
                Err(memory::no_longer_kept()),
                caller,
                via,
                seal,
                legacy.then_some(conn),
                out,
            );
        }
        match self.task_refusal(&task, caller, legacy, via, seal, now) {
            Some(error) => {
                match ErrorCode::from_wire(&error.code) {
                    Some(code @ (ErrorCode::NotAllowed | ErrorCode::RateLimited)) if task.caller == caller => {
                        self.count_refused(&task.capability, code);
                    }
                    _ => {
                        self.refuse(reason_of(&error.code));
                        self.counters.tasks_failed += 1;
                    }
                }
                self.answer_unheld(task.id, Err(error), caller, via, seal, legacy.then_some(conn), out);
            }
            None => self.run(task, key, via, seal, conn, legacy, now, out),
        }
    }

    /// The answer to a task of which nothing is kept here.
    #[allow(clippy::too_many_arguments)] // Where a task came from has these many parts.
    pub(super) fn answer_unheld(
        &self,
        id: String,
        body: Result<Bytes, WireError>,
        caller: NodeId,
        via: Option<NodeId>,
        seal: Seal,
        legacy: Option<ConnId>,
        out: &mut Vec<Action>,
    ) {
        let draft = Draft::Result(ResultDraft { id, caller, body, chunks: 0 });
        match legacy {
            Some(conn) => self.sign_for_legacy(conn, draft, out),
            None => drop(self.send_to(&caller, via.as_ref(), seal, draft, OnFull::Drop, out)),
        }
    }

    /// Counts a task that the owner's lists or rules keep out.
    fn count_refused(&mut self, capability: &str, code: ErrorCode) {
        self.refuse(if code == ErrorCode::RateLimited { "task_rate" } else { "not_allowed" });
        self.counters.tasks_failed += 1;
        let name = if self.provides(capability) { capability } else { policy::OTHER };
        self.policies.count(name, code);
    }

    fn task_refusal(
        &mut self,
        task: &Task,
        caller: NodeId,
        legacy: bool,
        via: Option<NodeId>,
        seal: Seal,
        now: Now,
    ) -> Option<WireError> {
        let error = |code, message: String| Some(WireError::new(code, message).not_run());
        if task.caller != caller {
            return error(ErrorCode::NotAllowed, "the task is signed by another node than the one that sent it".into());
        }
        match (task.target, &task.target_name) {
            (Some(target), _) if target == self.me => {}
            (None, Some(name)) if legacy && self.is_legacy_name(name) => {}
            (None, Some(_)) => return error(ErrorCode::BadRequest, "target: not a node id".into()),
            // Left open: only from the caller's own mouth, or whoever overhears it could have it run elsewhere too.
            (None, None) if via.is_none() => {}
            _ => return error(ErrorCode::BadRequest, format!("the task is not for this node, {}", self.me)),
        }
        if via.is_some() && seal == Seal::Plain && self.config.sealing == Sealing::Required {
            let message = "this node takes tasks through trackers only when they are sealed: its record has the key";
            return error(ErrorCode::NotAllowed, message.into());
        }
        let skew = self.config.limits.clock_skew.as_secs();
        // The timestamp is any 64-bit number the caller chose.
        let age = now.unix_s().saturating_sub(task.timestamp);
        if age < -i64::try_from(skew).unwrap_or(i64::MAX) {
            let ahead = age.unsigned_abs();
            let message = format!("the task is dated {ahead} s in the future by this node's clock: check the clocks");
            return error(ErrorCode::Expired, message);
        }
        // The timestamp is a whole second: the task may have been issued at the end of it.
        if age > task.ttl_s as i64 {
            let message = format!(
                "the task was issued {age} s ago by this node's clock and lives for {} s: check the clocks, or send it anew",
                task.ttl_s
            );
            return error(ErrorCode::Expired, message);
        }
        if self.tasks.may_be_forgotten(task, now, &self.config.limits) {
            // Not "not run": that is what is not known.
            let message = "this node's clock was set back: by its earlier time the task is past its deadline, and whether it \
                           ran is no longer known; send it anew";
            return Some(WireError::new(ErrorCode::Expired, message));
        }
        if let Some(instance) = &task.instance
            && *instance != self.config.instance
        {
            let mut error = WireError::new(
                ErrorCode::PeerGone,
                "this node restarted since: what its earlier run did with the task is not known",
            );
            error.instance = Some(self.config.instance.clone());
            return Some(error.not_run());
        }
        if self.tasks.cancelled_early.0.contains(&(caller, task.id.clone())) {
            return error(ErrorCode::Cancelled, "the caller took the task back".into());
        }
        if self.draining {
            // With its run, which tells that the node itself refused it.
            let mut error = WireError::new(ErrorCode::PeerGone, "the node is going down");
            error.instance = Some(self.config.instance.clone());
            return Some(error.not_run());
        }
        let relays = task.capability == "relay" && (legacy || self.config.tracker != TrackerRole::None);
        if !self.provides(&task.capability) && !relays && !legacy {
            return error(ErrorCode::UnknownCapability, format!("{:?} is not provided here", task.capability));
        }
        if self.held.level() >= Level::Tasks {
            self.held.count(Level::Tasks, 1);
            let message = "this node is short of memory and takes no new tasks".to_owned();
            return Some(WireError::new(ErrorCode::Overloaded, message).retry_after_s(1).not_run());
        }
        if let Some(error) = self.policies.forbids(&self.ids_of(&caller), &task.capability) {
            return Some(error);
        }
        if let Some((message, seconds)) = self.tasks.no_room(&caller, &self.config.limits) {
            return Some(WireError::new(ErrorCode::Overloaded, message).retry_after_s(seconds).not_run());
        }
        self.policies.crowded(&caller, &task.capability, now.mono)
    }

    #[allow(clippy::too_many_arguments)] // Where a task came from has these many parts.
    fn run(
        &mut self,
        task: Task,
        key: TaskKey,
        via: Option<NodeId>,
        seal: Seal,
        conn: ConnId,
        legacy: bool,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let until = task.timestamp.saturating_add(task.ttl_s as i64 + 1).saturating_mul(1000);
        let left = until.saturating_sub(now.unix_ms as i64);
        let until = now.mono + Duration::from_millis(left.max(1) as u64);
        let deadline = until.min(now.mono + Duration::from_secs(task.ttl_s));
        let late_s = Some(now.unix_s().saturating_sub(task.timestamp)).filter(|late| *late >= LATE_S);
        let gateway = legacy && !self.provides(&task.capability) && task.capability != "relay";
        let payload_bytes = task.payload.len();
        let rule = self.policies.begin(&task.capability);
        self.enter(&key, &task.capability, until, now, |e| {
            e.payload_bytes = payload_bytes;
            e.rule = rule;
            (e.via, e.seal) = (via, seal);
            e.legacy = legacy.then_some(conn);
            e.late_s = late_s;
            e.window = if legacy { None } else { task.window.map(|w| w.clamp(1, MAX_WINDOW)) };
        });
        if !legacy {
            self.timers.set(Timer::Accept(key.clone()), now.mono + ACCEPT_AFTER);
        }
        self.timers.set(Timer::Deadline(key.clone()), deadline);
        out.push(Action::Activity(Activity::TaskReceived {
            id: task.id.clone(),
            capability: task.capability.clone(),
            caller: key.0,
            via,
            sealed: matches!(seal, Seal::To(_)),
        }));
        let mut task = TaskToRun::of(task, deadline, via, conn);
        task.proven = !legacy;
        task.sealed = matches!(seal, Seal::To(_));
        task.gateway = gateway;
        out.push(Action::RunTask { key, task: Box::new(task) });
    }

    /// A call of this node to itself.
    pub(super) fn run_local(&mut self, task: TaskToRun, now: Now, out: &mut Vec<Action>) {
        let key = (self.me, task.id.clone());
        self.enter(&key, &task.capability, task.deadline, now, |e| {
            (e.local, e.payload_bytes) = (true, task.payload.len());
        });
        // The call has the deadline, and takes the task back then.
        out.push(Action::RunTask { key, task: Box::new(task) });
    }

    fn enter(&mut self, key: &TaskKey, capability: &str, until: Duration, now: Now, set: impl FnOnce(&mut Entry)) {
        let mut entry = Entry::new(capability, now.mono, until);
        set(&mut entry);
        self.tasks.enter(key.clone(), entry);
    }

    /// The same task again: the caller lost sight of it. It hears how far it is.
    fn answer_again(
        &mut self,
        key: &TaskKey,
        via: Option<NodeId>,
        seal: Seal,
        legacy: Option<ConnId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.refuse("repeated_task");
        self.timers.cancel(&Timer::Accept(key.clone()));
        if let Some(entry) = self.tasks.entries.get_mut(key) {
            (entry.via, entry.legacy, entry.repeated) = (via, legacy, true);
            entry.seal = seal;
        }
        self.heard_of_caller(key, now);
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        if entry.window.is_none() && std::mem::take(&mut entry.waiting) {
            // It waited for a way to its caller.
            out.push(Action::Credit { key: key.clone() });
        }
        let id = key.1.clone();
        let mut drafts: Vec<Draft> = Vec::new();
        for (seq, data) in &entry.unacked {
            drafts.push(Draft::Chunk { id: id.clone(), caller: key.0, seq: *seq, data: data.clone() });
        }
        match &entry.answer {
            Some(answer) => drafts.push(Draft::Result(answer.clone())),
            None => {
                entry.accepted = true;
                drafts.insert(0, Draft::Accepted { id, caller: key.0 });
            }
        }
        for draft in drafts {
            match legacy {
                Some(conn) if matches!(draft, Draft::Result(_)) => self.sign_for_legacy(conn, draft, out),
                Some(_) => {}
                None => drop(self.send_to(&key.0, via.as_ref(), seal, draft, OnFull::Close, out)),
            }
        }
    }

    /// A tracker had no room for a part of an answer; there will be some.
    pub(super) fn answer_later(&mut self, key: TaskKey, tracker: NodeId, wait: Duration, now: Now) {
        let fits = |e: &Entry| e.via.is_none_or(|via| via == tracker) && (e.answer.is_some() || !e.unacked.is_empty());
        if self.tasks.entries.get(&key).is_some_and(fits) {
            self.timers.set(Timer::Again(key), now.mono + wait.max(AGAIN_MIN));
        }
    }

    /// The chunks that are not acknowledged go again, and the answer if there is one.
    pub(super) fn again_due(&mut self, key: &TaskKey, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get(key) else { return };
        let (caller, id) = key;
        let chunk = |(seq, data): &(u64, Bytes)| Draft::Chunk {
            id: id.clone(),
            caller: *caller,
            seq: *seq,
            data: data.clone(),
        };
        let chunks = entry.unacked.iter().map(chunk);
        let drafts: Vec<Draft> = chunks.chain(entry.answer.clone().map(Draft::Result)).collect();
        let (via, seal) = (entry.via, entry.seal);
        for draft in drafts {
            self.send_to(&key.0, via.as_ref(), seal, draft, OnFull::Drop, out);
        }
    }

    pub(super) fn accept_due(&mut self, key: &TaskKey, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        if entry.answer.is_some() {
            return;
        }
        entry.accepted = true;
        let (via, seal) = (entry.via, entry.seal);
        self.send_to(
            &key.0,
            via.as_ref(),
            seal,
            Draft::Accepted { id: key.1.clone(), caller: key.0 },
            OnFull::Close,
            out,
        );
    }

    pub(super) fn on_cancel(&mut self, key: &TaskKey, now: Now, out: &mut Vec<Action>) {
        if !self.tasks.entries.contains_key(key) {
            // It may have overtaken its task, which then must not begin.
            self.tasks.cancelled_early.0.insert(key.clone(), (), now.mono);
            return;
        }
        if self.tasks.entries.get(key).is_some_and(|e| e.answer.is_none()) {
            let error = WireError::new(ErrorCode::Cancelled, "the caller took the task back");
            self.answer(key, Err(error), now, out);
            out.push(Action::StopTask { key: key.clone() });
        }
    }

    pub(super) fn deadline_due(&mut self, key: &TaskKey, now: Now, out: &mut Vec<Action>) {
        if let Some(entry) = self.tasks.entries.get(key).filter(|e| e.answer.is_none()) {
            let message = match entry.late_s {
                Some(late) => format!(
                    "the task was still running at its deadline; by this node's clock it came {late} s after it was issued: \
                     check the clocks"
                ),
                None => "the task was still running at its deadline".to_owned(),
            };
            self.answer(key, Err(WireError::new(ErrorCode::Expired, message)), now, out);
            out.push(Action::StopTask { key: key.clone() });
        }
    }

    /// Ends a task before its handler comes back.
    pub(in crate::mesh) fn stop_task(&mut self, key: &TaskKey, error: WireError, now: Now, out: &mut Vec<Action>) {
        self.answer(key, Err(error), now, out);
        out.push(Action::StopTask { key: key.clone() });
    }

    /// Ends every task that is still running: the node is going down, and those who wait are told so.
    pub fn abandon_tasks(&mut self, now: Now, out: &mut Vec<Action>) {
        let running = self.tasks.entries.iter().filter(|(_, e)| e.answer.is_none());
        let mut keys: Vec<TaskKey> = running.map(|(key, _)| key.clone()).collect();
        keys.sort();
        for key in keys {
            let error = WireError::new(ErrorCode::PeerGone, "the node went down before the task was done");
            self.stop_task(&key, error, now, out);
        }
    }

    pub(super) fn on_chunk_ack(&mut self, key: &TaskKey, next: u64, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        let (kept, unacked) = (entry.kept_bytes(), entry.unacked_bytes);
        while entry.unacked.front().is_some_and(|(seq, _)| *seq < next) {
            if let Some((_, data)) = entry.unacked.pop_front() {
                entry.unacked_bytes -= data.len();
            }
        }
        self.tasks.answered_bytes -= kept - entry.kept_bytes();
        if entry.running {
            self.tasks.unacked_bytes -= unacked - entry.unacked_bytes;
        }
        if std::mem::take(&mut entry.waiting) {
            out.push(Action::Credit { key: key.clone() });
        }
    }

    /// The handler sends a chunk; `data` is canonical JSON.
    ///
    /// # Errors
    ///
    /// The caller is behind, or the task is over.
    pub fn chunk(&mut self, key: &TaskKey, data: Bytes, now: Now, out: &mut Vec<Action>) -> Result<(), ChunkRefused> {
        let entry = self.tasks.entries.get_mut(key).filter(|e| e.answer.is_none()).ok_or(ChunkRefused::Over)?;
        if entry.legacy.is_some() {
            // The package knows no chunks; its node gets the result alone.
            return Ok(());
        }
        if let Some(window) = entry.window {
            let full = entry.unacked.len() as u64 >= window
                || (!entry.unacked.is_empty() && entry.unacked_bytes + data.len() > WINDOW_BYTES);
            if full {
                entry.waiting = true;
                return Err(ChunkRefused::Full);
            }
            entry.unacked.push_back((entry.next_seq, data.clone()));
            entry.unacked_bytes += data.len();
            self.tasks.unacked_bytes += data.len();
        }
        let seq = entry.next_seq;
        entry.next_seq += 1;
        entry.accepted = true;
        let (via, seal, local, window) = (entry.via, entry.seal, entry.local, entry.window);
        self.timers.cancel(&Timer::Accept(key.clone()));
        if local {
            return if self.call_local_chunk(&key.1, data, now, out) {
                Ok(())
            } else {
                // The caller's own channel is full: this chunk comes again when there is room.
                if let Some(entry) = self.tasks.entries.get_mut(key) {
                    entry.next_seq = seq;
                    entry.waiting = true;
                }
                Err(ChunkRefused::Full)
            };
        }
        let unacknowledged = window.is_none();
        let draft = Draft::Chunk { id: key.1.clone(), caller: key.0, seq, data };
        let sent = self.send_to(&key.0, via.as_ref(), seal, draft, OnFull::Close, out);
        if !sent
            && unacknowledged
            && let Some(entry) = self.tasks.entries.get_mut(key)
        {
            // The caller is gone, and no window holds the handler up: it waits until the caller asks again.
            entry.next_seq = seq;
            entry.waiting = true;
            return Err(ChunkRefused::Full);
        }
        Ok(())
    }

    /// Room for a local call's chunks again.
    pub(super) fn local_credit(&mut self, id: &str, out: &mut Vec<Action>) {
        let key = (self.me, id.to_owned());
        if let Some(entry) = self.tasks.entries.get_mut(&key)
            && std::mem::take(&mut entry.waiting)
        {
            out.push(Action::Credit { key });
        }
    }

    /// The handler came back; a payload is canonical JSON.
    pub fn finish_task(&mut self, key: &TaskKey, body: Result<Bytes, WireError>, now: Now, out: &mut Vec<Action>) {
        if self.tasks.entries.get(key).is_some_and(|e| e.answer.is_none()) {
            self.answer(key, body, now, out);
        }
        if let Some(rule) = self.tasks.done(key, &self.config.limits) {
            self.policies.end(rule);
        }
    }

    /// The answer is there: it goes to the caller and into the memory.
    fn answer(&mut self, key: &TaskKey, body: Result<Bytes, WireError>, now: Now, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        let answer = ResultDraft { id: key.1.clone(), caller: key.0, body, chunks: entry.next_seq };
        let (via, seal, legacy, local) = (entry.via, entry.seal, entry.legacy, entry.local);
        out.push(Action::Activity(Activity::TaskFinished {
            id: key.1.clone(),
            capability: entry.capability.clone(),
            caller: key.0,
            success: answer.body.is_ok(),
            error: answer.body.as_ref().err().map(|e| format!("{}: {}", e.code, e.message)),
            took_ms: now.mono.saturating_sub(entry.started).as_millis() as u64,
        }));
        match &answer.body {
            Ok(_) => self.counters.tasks_done += 1,
            Err(_) => self.counters.tasks_failed += 1,
        }
        entry.answer = Some(answer.clone());
        if std::mem::take(&mut entry.waiting) {
            out.push(Action::Credit { key: key.clone() });
        }
        self.timers.cancel(&Timer::Accept(key.clone()));
        self.timers.cancel(&Timer::Deadline(key.clone()));
        self.timers.cancel(&Timer::Orphan(key.clone()));
        self.used(&key.0, now);
        if local {
            self.call_local_answer(&key.1, answer, now, out);
        } else if let Some(conn) = legacy {
            self.sign_for_legacy(conn, Draft::Result(answer), out);
        } else {
            self.send_to(&key.0, via.as_ref(), seal, Draft::Result(answer), OnFull::Close, out);
        }
    }

    fn sign_for_legacy(&self, conn: ConnId, draft: Draft, out: &mut Vec<Action>) {
        out.push(Action::SignLegacy { conn, draft });
    }
}

/// The counter that a refusal goes to.
fn reason_of(code: &str) -> &'static str {
    match ErrorCode::from_wire(code) {
        Some(ErrorCode::Expired) => "expired_task",
        Some(ErrorCode::UnknownCapability) => "unknown_capability",
        Some(ErrorCode::Overloaded) => "overloaded",
        Some(ErrorCode::PeerGone) => "other_run",
        _ => "bad_task",
    }
}
