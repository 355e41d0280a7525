//! The responder's side: a task runs at most once, and its answer is kept for whoever asks again.

mod answers;
mod chunks;
mod memory;
mod orphans;
mod ran;
mod refusal;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::info::Activity;
use crate::mesh::action::{Action, TaskKey, TaskToRun};
use crate::mesh::clock::{Now, Place};
use crate::mesh::conn_id::ConnId;
use crate::mesh::sealing::Seal;
use crate::mesh::state::{State, Timer};
use crate::mesh::task_id::TaskId;
use crate::mesh::trail::Trail;
use crate::wire::{Draft, ResultDraft, Task, WireError};

pub use chunks::ChunkRefused;
pub use memory::Tasks;

/// After this time without a result the caller is told that its task was accepted.
const ACCEPT_AFTER: Duration = Duration::from_millis(100);

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
    /// How it came last, and is answered.
    trail: Trail,
    /// The Python node's connection, if it came from one.
    legacy: Option<ConnId>,
    local: bool,
    /// When its caller is to be told that it was accepted, unless that knows already.
    accept_at: Option<Duration>,
    /// When it must be done.
    deadline: Duration,
    /// The alarm for these.
    alarm: Option<Place>,
    /// Whether its caller was lost, and there is an alarm for that.
    orphan: bool,
    accepted: bool,
    window: Option<u64>,
    next_seq: u64,
    unacked: VecDeque<(u64, Bytes)>,
    unacked_bytes: usize,
    /// Whether the handler waits for room.
    waiting: bool,
    answer: Option<Answer>,
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

/// What a task's caller is answered.
#[derive(Clone, Debug)]
struct Answer {
    body: Result<Bytes, WireError>,
    /// How many chunks belong to it.
    chunks: u64,
}

impl Answer {
    fn bytes(&self) -> usize {
        match &self.body {
            Ok(payload) => payload.len(),
            Err(error) => error.message.len(),
        }
    }

    /// As it is sent.
    fn draft(self, key: &TaskKey) -> Draft {
        Draft::Result(ResultDraft { id: key.1.to_text(), caller: key.0, body: self.body, chunks: self.chunks })
    }
}

impl Entry {
    fn new(capability: &str, started: Duration, until: Duration) -> Self {
        Self {
            capability: capability.to_owned(),
            started,
            payload_bytes: 0,
            until,
            trail: Trail::DIRECT,
            legacy: None,
            local: false,
            accept_at: None,
            deadline: until,
            alarm: None,
            orphan: false,
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
        if self.running { 0 } else { self.answer.as_ref().map_or(0, Answer::bytes) + self.unacked_bytes }
    }
}

impl State {
    /// A task that its caller signed.
    pub(super) fn on_task(
        &mut self,
        task: Task,
        caller: NodeId,
        trail: Trail,
        conn: ConnId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let legacy = self.is_legacy(conn);
        let from = legacy.then_some(conn);
        let key = (caller, TaskId::from(&task.id));
        if let Some(why) = self.barred(&caller) {
            // Also when it came before, and is at work or was answered: who is not let in hears nothing of it.
            let known = self.tasks.is_known(&key);
            let error = WireError::new(ErrorCode::NotAllowed, why);
            self.count_refused(&task.capability, ErrorCode::NotAllowed);
            let error = if known { error } else { error.not_run() };
            return self.answer_unheld(task.id, Err(error), caller, trail, from, out);
        }
        if self.tasks.entries.contains_key(&key) {
            return self.answer_again(&key, trail, from, now, out);
        }
        if self.tasks.began(&key) {
            self.refuse("repeated_task");
            return self.answer_unheld(task.id, Err(memory::no_longer_kept()), caller, trail, from, out);
        }
        match self.task_refusal(&task, &key, legacy, trail, now) {
            Some(error) => {
                match ErrorCode::from_wire(&error.code) {
                    Some(code @ (ErrorCode::NotAllowed | ErrorCode::RateLimited)) if task.caller == caller => {
                        self.count_refused(&task.capability, code);
                    }
                    _ => {
                        self.refuse(refusal::reason_of(&error.code));
                        self.counters.tasks_failed += 1;
                    }
                }
                self.answer_unheld(task.id, Err(error), caller, trail, from, out);
            }
            None => self.run(task, key, trail, conn, now, out),
        }
    }

    fn run(&mut self, task: Task, key: TaskKey, trail: Trail, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        let legacy = self.is_legacy(conn);
        let until = task.timestamp.saturating_add(task.ttl_s as i64 + 1).saturating_mul(1000);
        let left = until.saturating_sub(now.unix_ms as i64);
        let until = now.mono + Duration::from_millis(left.max(1) as u64);
        let deadline = until.min(now.mono + Duration::from_secs(task.ttl_s));
        let late_s = Some(now.unix_s().saturating_sub(task.timestamp)).filter(|late| *late >= LATE_S);
        let gateway = legacy && !self.provides(&task.capability) && task.capability != "relay";
        let payload_bytes = task.payload.len();
        let sealed = matches!(trail.seal, Seal::To(_));
        let rule = self.policies.begin(&task.capability);
        let accept_at = (!legacy).then_some(now.mono + ACCEPT_AFTER);
        let alarm = self.timers.put(Timer::Task(key.clone()), accept_at.map_or(deadline, |at| at.min(deadline)));
        let mut entry = Box::new(Entry::new(&task.capability, now.mono, until));
        (entry.accept_at, entry.deadline, entry.alarm) = (accept_at, deadline, Some(alarm));
        entry.payload_bytes = payload_bytes;
        entry.rule = rule;
        entry.trail = trail;
        entry.legacy = legacy.then_some(conn);
        entry.late_s = late_s;
        entry.window = if legacy { None } else { task.window.map(|w| w.clamp(1, MAX_WINDOW)) };
        self.tasks.enter(key.clone(), entry);
        if self.watched {
            out.push(Action::Activity(Activity::TaskReceived {
                id: task.id.clone(),
                capability: task.capability.clone(),
                caller: key.0,
                via: trail.via,
                sealed,
            }));
        }
        let mut task = TaskToRun::of(task, deadline, trail.via, conn);
        task.proven = !legacy;
        task.sealed = sealed;
        task.gateway = gateway;
        out.push(Action::RunTask { key, task: Box::new(task) });
    }

    /// A call of this node to itself.
    pub(super) fn run_local(&mut self, task: TaskToRun, now: Now, out: &mut Vec<Action>) {
        let key = (self.me, TaskId::from(&task.id));
        let mut entry = Box::new(Entry::new(&task.capability, now.mono, task.deadline));
        (entry.local, entry.payload_bytes) = (true, task.payload.len());
        self.tasks.enter(key.clone(), entry);
        // The call has the deadline, and takes the task back then.
        out.push(Action::RunTask { key, task: Box::new(task) });
    }

    /// A task is known from now on as one that ran, and of which nothing else is kept: for benches.
    pub fn has_run(&mut self, key: &TaskKey, until: Duration) {
        self.tasks.began_now(key, until);
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

    /// The alarm of a running task.
    pub(super) fn task_due(&mut self, key: &TaskKey, now: Now, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get_mut(key).filter(|e| e.answer.is_none()) else { return };
        let accept = entry.accept_at.take_if(|at| *at <= now.mono).is_some();
        let over = entry.deadline <= now.mono;
        if !over {
            let next = entry.accept_at.map_or(entry.deadline, |at| at.min(entry.deadline));
            entry.alarm = Some(self.timers.put(Timer::Task(key.clone()), next));
        }
        if accept {
            self.accept_due(key, out);
        }
        if over {
            self.deadline_due(key, now, out);
        }
    }

    fn deadline_due(&mut self, key: &TaskKey, now: Now, out: &mut Vec<Action>) {
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
}
