//! What is remembered of tasks, and for whom: nobody's task is forgotten for want of room that another one took.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::Entry;
use crate::identity::NodeId;
use crate::limits::Limits;
use crate::mesh::action::TaskKey;
use crate::mesh::clock::Now;
use crate::mesh::seen::Seen;
use crate::wire::{Task, WireError};

/// What one caller takes up.
#[derive(Debug, Default)]
struct Caller {
    /// Its handlers at work.
    running: usize,
    /// Its tasks that are answered, and whose answers are kept.
    answered: usize,
    /// Its tasks whose answers are no longer kept: a hash of the id, and the second from which it may be forgotten.
    /// A few bytes each, since there may be many. Two ids of the same hash harm nobody but the caller who chose them.
    bare: HashMap<u64, u32>,
}

impl Caller {
    fn remembered(&self) -> usize {
        self.answered + self.bare.len()
    }
}

/// All tasks remembered.
#[derive(Debug, Default)]
pub struct Tasks {
    pub(super) entries: HashMap<TaskKey, Entry>,
    /// Those whose answers are kept and whose handlers came back, the oldest first.
    answered: VecDeque<TaskKey>,
    pub(super) answered_bytes: usize,
    callers: BTreeMap<NodeId, Caller>,
    running: usize,
    /// The payloads of those whose handlers are at work.
    payload_bytes: usize,
    /// Their chunks that are not acknowledged.
    pub(super) unacked_bytes: usize,
    /// How many tasks of all callers are remembered without their answers.
    bare: usize,
    /// Until when, by this node's clock, deadlines had passed when tasks were forgotten last.
    forgotten_s: i64,
    pub(super) cancelled_early: CancelledEarly,
}

/// Tasks that were taken back before they came.
#[derive(Debug)]
pub(super) struct CancelledEarly(pub(super) Seen<TaskKey, ()>);

impl Default for CancelledEarly {
    fn default() -> Self {
        // What overtakes does so by moments; a thousand of them at once is more than any honest callers have.
        Self(Seen::new(1024, Duration::from_secs(10)))
    }
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

impl Tasks {
    /// How many handlers are at work.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many handlers are at work for one caller.
    pub fn running_for(&self, caller: &NodeId) -> usize {
        self.callers.get(caller).map_or(0, |c| c.running)
    }

    /// Bytes of the payloads of tasks whose handlers are at work.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Bytes of answers and chunks kept for callers that ask again.
    pub fn kept_bytes(&self) -> usize {
        self.answered_bytes + self.unacked_bytes
    }

    /// Bytes of answers kept, and of their chunks: those that may be forgotten.
    pub fn answered_bytes(&self) -> usize {
        self.answered_bytes
    }

    /// How many answers are kept.
    pub fn answers(&self) -> usize {
        self.answered.len()
    }

    /// How many are running or remembered.
    pub fn len(&self) -> usize {
        self.entries.len() + self.bare
    }

    /// Whether a task ran, or runs.
    pub fn is_known(&self, key: &TaskKey) -> bool {
        self.entries.contains_key(key) || self.is_bare(key)
    }

    /// Whether a task ran, and its answer is no longer kept.
    pub(super) fn is_bare(&self, key: &TaskKey) -> bool {
        self.callers.get(&key.0).is_some_and(|c| c.bare.contains_key(&hash(&key.1)))
    }

    /// Why there is no room for another task of this caller; with the seconds after which to come back.
    pub(super) fn no_room(&self, caller: &NodeId, limits: &Limits) -> Option<(String, u64)> {
        let (running, remembered) = self.callers.get(caller).map_or((0, 0), |c| (c.running, c.remembered()));
        if self.running >= limits.max_tasks {
            return Some((format!("{} tasks are running", self.running), 1));
        }
        if running >= limits.max_tasks_per_caller {
            return Some((format!("{running} tasks of this caller are running"), 1));
        }
        // A share that shrinks as the memory fills: a third of what is free. So one caller alone gets a quarter of it
        // all, many greedy ones leave something free whatever they do, and who comes next gets its share of that. After
        // Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches" (1998).
        let free = limits.max_remembered_tasks.saturating_sub(self.len());
        if running + remembered >= free.div_ceil(3) {
            let message = format!("{remembered} tasks of this caller are remembered until their deadlines");
            return Some((message, 5));
        }
        None
    }

    /// A handler begins.
    pub(super) fn enter(&mut self, key: TaskKey, entry: Entry) {
        self.callers.entry(key.0).or_default().running += 1;
        self.running += 1;
        self.payload_bytes += entry.payload_bytes;
        self.entries.insert(key, entry);
    }

    /// The tasks that have no answer yet.
    pub fn unanswered(&self) -> impl Iterator<Item = &TaskKey> {
        self.entries.iter().filter(|(_, entry)| entry.answer.is_none()).map(|(key, _)| key)
    }

    /// A task's handler came back, and its answer is there: it is remembered until its deadline. Gives the rule that it
    /// counted for.
    pub(super) fn done(&mut self, key: &TaskKey, limits: &Limits) -> Option<usize> {
        let entry = self.entries.get_mut(key)?;
        if !std::mem::take(&mut entry.running) {
            return None;
        }
        let rule = entry.rule;
        self.running -= 1;
        self.payload_bytes -= entry.payload_bytes;
        self.unacked_bytes -= entry.unacked_bytes;
        self.answered_bytes += entry.kept_bytes();
        let local = entry.local;
        let caller = self.callers.entry(key.0).or_default();
        caller.running -= 1;
        caller.answered += 1;
        if local {
            // Nobody can send a task in this node's own name.
            self.forget(key);
            return rule;
        }
        self.answered.push_back(key.clone());
        self.keep_answers_within(limits.max_answers, limits.remembered_bytes);
        rule
    }

    /// Keeps the memory of answers within its bounds, the oldest go first. That the tasks ran is not forgotten.
    pub fn keep_answers_within(&mut self, most: usize, bytes: usize) {
        while self.answered.len() > most || self.answered_bytes > bytes {
            let Some(key) = self.answered.pop_front() else { break };
            let Some(until) = self.entries.get(&key).map(|e| e.until) else { continue };
            self.forget(&key);
            // Never before its time: up to the next whole second.
            let until = u32::try_from(until.as_secs() + 1).unwrap_or(u32::MAX);
            if self.callers.entry(key.0).or_default().bare.insert(hash(&key.1), until).is_none() {
                self.bare += 1;
            }
        }
    }

    /// Takes out a task whose handler came back.
    fn forget(&mut self, key: &TaskKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.answered_bytes -= entry.kept_bytes();
        if let Some(caller) = self.callers.get_mut(&key.0) {
            caller.answered -= 1;
            if caller.running == 0 && caller.remembered() == 0 {
                self.callers.remove(&key.0);
            }
        }
    }

    /// Whether a task may be one that ran and was forgotten at its deadline, before the clock was set back. Only as far as
    /// clocks may differ at all: tasks of a time further off are refused for that.
    pub(super) fn may_be_forgotten(&self, task: &Task, now: Now, limits: &Limits) -> bool {
        let skew = i64::try_from(limits.clock_skew.as_secs()).unwrap_or(i64::MAX);
        let ends = task.timestamp.saturating_add(task.ttl_s as i64);
        ends < self.forgotten_s && self.forgotten_s.saturating_sub(now.unix_s()) <= skew
    }

    /// Forgets answered tasks past their deadlines.
    pub fn expire(&mut self, now: Now) {
        let before = self.len();
        self.forget_expired(now);
        if self.len() < before {
            self.forgotten_s = now.unix_s();
        }
    }

    fn forget_expired(&mut self, now: Now) {
        let mut answered = std::mem::take(&mut self.answered);
        answered.retain(|key| {
            let over = self.entries.get(key).is_none_or(|e| e.until <= now.mono);
            if over {
                self.forget(key);
            }
            !over
        });
        self.answered = answered;
        let second = now.mono.as_secs();
        let mut bare = 0;
        self.callers.retain(|_, caller| {
            caller.bare.retain(|_, until| u64::from(*until) > second);
            if caller.bare.capacity() > 64 && caller.bare.len() < caller.bare.capacity() / 8 {
                caller.bare.shrink_to_fit();
            }
            bare += caller.bare.len();
            caller.running > 0 || caller.remembered() > 0
        });
        self.bare = bare;
    }
}

/// What is said of a task that ran and whose answer is gone.
pub(super) fn no_longer_kept() -> WireError {
    WireError::new(crate::error::ErrorCode::Duplicate, "the task ran, and its answer is no longer kept")
}
