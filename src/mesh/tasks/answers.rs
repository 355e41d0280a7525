//! What a task's caller is told: that it was accepted, its answer, and both again.

use std::time::Duration;

use bytes::Bytes;

use super::{Answer, Entry};
use crate::identity::NodeId;
use crate::info::Activity;
use crate::mesh::action::{Action, OnFull, TaskKey};
use crate::mesh::clock::Now;
use crate::mesh::conn_id::ConnId;
use crate::mesh::state::{State, Timer};
use crate::mesh::trail::Trail;
use crate::wire::{Draft, ResultDraft, WireError};

/// The least wait before a part of an answer is sent again that a tracker had no room for.
const AGAIN_MIN: Duration = Duration::from_secs(1);

impl State {
    /// The answer to a task of which nothing is kept here.
    pub(in crate::mesh) fn answer_unheld(
        &self,
        id: String,
        body: Result<Bytes, WireError>,
        caller: NodeId,
        trail: Trail,
        legacy: Option<ConnId>,
        out: &mut Vec<Action>,
    ) {
        let draft = Draft::Result(ResultDraft { id, caller, body, chunks: 0 });
        match legacy {
            Some(conn) => self.sign_for_legacy(conn, draft, out),
            None => drop(self.send_to(&caller, trail, draft, OnFull::Drop, out)),
        }
    }

    /// The same task again: the caller lost sight of it. It hears how far it is.
    pub(super) fn answer_again(
        &mut self,
        key: &TaskKey,
        trail: Trail,
        legacy: Option<ConnId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        self.refuse("repeated_task");
        if let Some(entry) = self.tasks.entries.get_mut(key) {
            (entry.trail, entry.legacy, entry.repeated) = (trail, legacy, true);
            entry.accept_at = None;
        }
        self.heard_of_caller(key, now);
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        if entry.window.is_none() && std::mem::take(&mut entry.waiting) {
            // It waited for a way to its caller.
            out.push(Action::Credit { key: key.clone() });
        }
        let id = key.1.to_text();
        let mut drafts: Vec<Draft> = Vec::new();
        for (seq, data) in &entry.unacked {
            drafts.push(Draft::Chunk { id: id.clone(), caller: key.0, seq: *seq, data: data.clone() });
        }
        match &entry.answer {
            Some(answer) => drafts.push(answer.clone().draft(key)),
            None => {
                entry.accepted = true;
                drafts.insert(0, Draft::Accepted { id, caller: key.0 });
            }
        }
        for draft in drafts {
            match legacy {
                Some(conn) if matches!(draft, Draft::Result(_)) => self.sign_for_legacy(conn, draft, out),
                Some(_) => {}
                None => drop(self.send_to(&key.0, trail, draft, OnFull::Close, out)),
            }
        }
    }

    /// A tracker had no room for a part of an answer; there will be some.
    pub(in crate::mesh) fn answer_later(&mut self, key: TaskKey, tracker: NodeId, wait: Duration, now: Now) {
        let fits =
            |e: &Entry| e.trail.via.is_none_or(|via| via == tracker) && (e.answer.is_some() || !e.unacked.is_empty());
        if self.tasks.entries.get(&key).is_some_and(|entry| fits(entry)) {
            self.timers.set(Timer::Again(key), now.mono + wait.max(AGAIN_MIN));
        }
    }

    /// The chunks that are not acknowledged go again, and the answer if there is one.
    pub(in crate::mesh) fn again_due(&mut self, key: &TaskKey, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get(key) else { return };
        let chunk = |(seq, data): &(u64, Bytes)| Draft::Chunk {
            id: key.1.to_text(),
            caller: key.0,
            seq: *seq,
            data: data.clone(),
        };
        let chunks = entry.unacked.iter().map(chunk);
        let drafts: Vec<Draft> = chunks.chain(entry.answer.clone().map(|answer| answer.draft(key))).collect();
        let trail = entry.trail;
        for draft in drafts {
            self.send_to(&key.0, trail, draft, OnFull::Drop, out);
        }
    }

    pub(super) fn accept_due(&mut self, key: &TaskKey, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        if entry.answer.is_some() {
            return;
        }
        entry.accepted = true;
        let trail = entry.trail;
        self.send_to(&key.0, trail, Draft::Accepted { id: key.1.to_text(), caller: key.0 }, OnFull::Close, out);
    }

    /// The handler came back; a payload is canonical JSON.
    pub fn finish_task(&mut self, key: &TaskKey, body: Result<Bytes, WireError>, now: Now, out: &mut Vec<Action>) {
        self.answer(key, body, now, out);
        if let Some(rule) = self.tasks.done(key, &self.config.limits) {
            self.policies.end(rule);
        }
    }

    /// The answer is there: it goes to the caller and into the memory, unless there is one already.
    pub(super) fn answer(&mut self, key: &TaskKey, body: Result<Bytes, WireError>, now: Now, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get_mut(key).filter(|e| e.answer.is_none()) else { return };
        let answer = Answer { body, chunks: entry.next_seq };
        let (trail, legacy, local) = (entry.trail, entry.legacy, entry.local);
        if self.watched {
            out.push(Action::Activity(Activity::TaskFinished {
                id: key.1.to_text(),
                capability: entry.capability.clone(),
                caller: key.0,
                success: answer.body.is_ok(),
                error: answer.body.as_ref().err().map(|e| format!("{}: {}", e.code, e.message)),
                took_ms: now.mono.saturating_sub(entry.started).as_millis() as u64,
            }));
        }
        match &answer.body {
            Ok(_) => self.counters.tasks_done += 1,
            Err(_) => self.counters.tasks_failed += 1,
        }
        entry.answer = Some(answer.clone());
        if std::mem::take(&mut entry.waiting) {
            out.push(Action::Credit { key: key.clone() });
        }
        if let Some(alarm) = entry.alarm.take() {
            self.timers.take(alarm);
        }
        if std::mem::take(&mut entry.orphan) {
            self.timers.cancel(&Timer::Orphan(key.clone()));
        }
        self.used(&key.0, now);
        if local {
            self.call_local_answer(&key.1, answer.body, now, out);
        } else if let Some(conn) = legacy {
            self.sign_for_legacy(conn, answer.draft(key), out);
        } else {
            self.send_to(&key.0, trail, answer.draft(key), OnFull::Close, out);
        }
    }

    fn sign_for_legacy(&self, conn: ConnId, draft: Draft, out: &mut Vec<Action>) {
        out.push(Action::SignLegacy { conn, draft });
    }
}
