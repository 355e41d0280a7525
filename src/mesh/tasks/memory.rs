//! What is remembered of tasks, and for whom: nobody's task is forgotten for want of room that another one took.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::Entry;
use super::ran::Ran;
use crate::identity::NodeId;
use crate::limits::Limits;
use crate::mesh::action::TaskKey;
use crate::mesh::clock::Now;
use crate::mesh::keyed::Keyed;
use crate::mesh::seen::Seen;
use crate::mesh::task_id::TaskId;
use crate::wire::{Task, WireError};

/// What one caller takes up.
#[derive(Debug, Default)]
pub(super) struct Caller {
    /// Its handlers at work.
    running: usize,
    /// Its tasks whose answers are kept and whose handlers came back, the oldest first.
    answered: VecDeque<TaskId>,
    /// What these answers take: their bytes, and [`Tasks::each`] for every one.
    kept: usize,
    /// As what it stands in [`Tasks::keep`].
    listed: Option<usize>,
    /// Its tasks that began.
    ran: Ran,
}

impl Caller {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.answered.is_empty() && self.ran.len() == 0
    }

    /// A task is known by its id until its time. Gives how much more its ids weigh.
    fn begins(&mut self, id: &TaskId, until: Duration) -> usize {
        let before = self.ran.weight();
        // Never forgotten before its time: up to the next whole second.
        self.ran.insert(id, u32::try_from(until.as_secs() + 1).unwrap_or(u32::MAX));
        self.ran.weight() - before
    }

    /// See [`Tasks::keep`].
    #[cfg(test)]
    pub(super) fn holds(&self) -> usize {
        self.kept
    }
}

/// All tasks remembered.
#[derive(Debug, Default)]
pub struct Tasks {
    pub(super) entries: HashMap<TaskKey, Box<Entry>, Keyed>,
    pub(super) callers: BTreeMap<NodeId, Caller>,
    /// The callers whose answers are kept, by what these take, or by more: see [`Tasks::holds_most`].
    pub(super) keep: BTreeSet<(usize, NodeId)>,
    /// What an answer counts for beside its bytes when it is decided whose goes: as many bytes as there are for each
    /// when both bounds are reached at once.
    each: usize,
    /// How many answers are kept.
    answers: usize,
    answered_bytes: usize,
    running: usize,
    /// The payloads of those whose handlers are at work.
    payload_bytes: usize,
    /// Their chunks that are not acknowledged.
    pub(super) unacked_bytes: usize,
    /// What the ids of all callers' tasks weigh that began: see [`Ran::weight`].
    weight: usize,
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
        self.answers
    }

    /// How many entries there are: of tasks that are running, and of those whose answers are kept.
    #[cfg(any(test, fuzzing))]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// What the ids of all tasks that began weigh: what `max_remembered_tasks` bounds.
    #[cfg(any(test, fuzzing))]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Whether a task ran, or runs.
    pub fn is_known(&self, key: &TaskKey) -> bool {
        self.entries.contains_key(key) || self.began(key)
    }

    /// Whether a task began that is remembered; one of another node.
    pub(super) fn began(&self, key: &TaskKey) -> bool {
        self.callers.get(&key.0).is_some_and(|c| c.ran.contains(&key.1))
    }

    /// Why there is no room for another task of this caller; with the seconds after which to come back.
    pub(super) fn no_room(&self, caller: &NodeId, id: &TaskId, limits: &Limits) -> Option<(String, u64)> {
        let caller = self.callers.get(caller);
        if self.running >= limits.max_tasks {
            return Some((format!("{} tasks are running", self.running), 1));
        }
        let running = caller.map_or(0, |c| c.running);
        if running >= limits.max_tasks_per_caller {
            return Some((format!("{running} tasks of this caller are running"), 1));
        }
        // A share that shrinks as the memory fills: a third of what is free. So one caller alone gets a quarter of it
        // all, many greedy ones leave something free whatever they do, and who comes next gets its share of that. After
        // Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches" (1998).
        let free = limits.max_remembered_tasks.saturating_sub(self.weight);
        let costs = caller.map_or_else(|| Ran::default().costs(id), |c| c.ran.costs(id));
        let weight = caller.map_or(0, |c| c.ran.weight());
        if costs > 0 && weight + costs > free.div_ceil(3) {
            let ran = caller.map_or(0, |c| c.ran.len());
            let message = format!("{ran} tasks of this caller are remembered until their deadlines");
            return Some((message, 5));
        }
        None
    }

    /// A handler begins. From here on the task is known by its id until its deadline, whatever becomes of its entry.
    pub(super) fn enter(&mut self, key: TaskKey, entry: Box<Entry>) {
        let caller = self.callers.entry(key.0).or_default();
        caller.running += 1;
        self.running += 1;
        self.payload_bytes += entry.payload_bytes;
        // Nobody can send a task in this node's own name.
        if !entry.local {
            self.weight += caller.begins(&key.1, entry.until);
        }
        self.entries.insert(key, entry);
    }

    /// A task is known by its id from here on.
    pub fn began_now(&mut self, key: &TaskKey, until: Duration) {
        self.weight += self.callers.entry(key.0).or_default().begins(&key.1, until);
    }

    /// The tasks that have no answer yet.
    pub fn unanswered(&self) -> impl Iterator<Item = &TaskKey> {
        self.entries.iter().filter(|(_, entry)| entry.answer.is_none()).map(|(key, _)| key)
    }

    /// A task's handler came back, and its answer is there: it is kept for whoever asks again. Gives the rule that it
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
        let (local, bytes) = (entry.local, entry.kept_bytes());
        let Some(caller) = self.callers.get_mut(&key.0) else { return rule };
        caller.running -= 1;
        if local {
            self.entries.remove(key);
            if caller.is_idle() {
                self.callers.remove(&key.0);
            }
            return rule;
        }
        caller.answered.push_back(key.1.clone());
        self.answers += 1;
        self.answered_bytes += bytes;
        self.each = limits.remembered_bytes / limits.max_answers.max(1);
        let more = bytes.saturating_add(self.each);
        reckon(&mut self.keep, &key.0, caller, |kept| kept.saturating_add(more));
        self.keep_answers_within(limits.max_answers, limits.remembered_bytes);
        rule
    }

    /// Keeps the memory of answers within its bounds: the oldest goes of the caller for whom the most is kept. So a
    /// caller may ask again for what it was just answered, however many tasks others have done meanwhile. That the
    /// tasks ran is not forgotten.
    pub fn keep_answers_within(&mut self, most: usize, bytes: usize) {
        while self.answers > most || self.answered_bytes > bytes {
            let Some(caller) = self.holds_most() else { break };
            self.forget_oldest(&caller);
        }
    }

    /// The caller for whom the most is kept. In the list callers stand with at least what is kept for them, so that it need not
    /// be changed for every answer: whoever stands last with just that has the most.
    pub(super) fn holds_most(&mut self) -> Option<NodeId> {
        loop {
            let (listed, node) = self.keep.last().copied()?;
            let caller = self.callers.get_mut(&node)?;
            if caller.kept == listed {
                return Some(node);
            }
            self.keep.pop_last();
            self.keep.insert((caller.kept, node));
            caller.listed = Some(caller.kept);
        }
    }

    /// Forgets the oldest answer kept for a caller.
    fn forget_oldest(&mut self, node: &NodeId) {
        let Some(caller) = self.callers.get_mut(node) else { return };
        let Some(id) = caller.answered.pop_front() else { return };
        let Some(entry) = self.entries.remove(&(*node, id)) else { return };
        let bytes = entry.kept_bytes();
        self.answers -= 1;
        self.answered_bytes -= bytes;
        let less = bytes.saturating_add(self.each);
        reckon(&mut self.keep, node, caller, |kept| kept.saturating_sub(less));
        if caller.is_idle() {
            self.callers.remove(node);
        }
    }

    /// A caller has chunks of a task's answer, which are kept no longer.
    pub(super) fn acknowledged(&mut self, key: &TaskKey, running: bool, bytes: usize) {
        if running {
            self.unacked_bytes -= bytes;
            return;
        }
        self.answered_bytes -= bytes;
        if let Some(caller) = self.callers.get_mut(&key.0).filter(|_| bytes > 0) {
            reckon(&mut self.keep, &key.0, caller, |kept| kept.saturating_sub(bytes));
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
        let before = self.weight;
        self.forget_expired(now);
        if self.weight < before {
            self.forgotten_s = now.unix_s();
        }
    }

    fn forget_expired(&mut self, now: Now) {
        let second = now.mono.as_secs();
        self.weight = 0;
        let (entries, keep) = (&mut self.entries, &mut self.keep);
        let (answers, answered_bytes) = (&mut self.answers, &mut self.answered_bytes);
        self.callers.retain(|node, caller| {
            let mut freed = 0;
            caller.answered.retain(|id| {
                let key = (*node, id.clone());
                let over = entries.get(&key).is_none_or(|e| e.until <= now.mono);
                if over {
                    let bytes = entries.remove(&key).map_or(0, |e| e.kept_bytes());
                    *answers -= 1;
                    *answered_bytes -= bytes;
                    freed = usize::saturating_add(freed, bytes.saturating_add(self.each));
                }
                !over
            });
            reckon(keep, node, caller, |kept| kept.saturating_sub(freed));
            caller.ran.expire(second);
            self.weight += caller.ran.weight();
            !caller.is_idle()
        });
    }
}

/// What is kept for a caller changes.
fn reckon(
    keep: &mut BTreeSet<(usize, NodeId)>,
    node: &NodeId,
    caller: &mut Caller,
    change: impl FnOnce(usize) -> usize,
) {
    caller.kept = change(caller.kept);
    let over = caller.answered.is_empty();
    if !over && caller.listed.is_some_and(|listed| caller.kept <= listed) {
        return;
    }
    if let Some(listed) = caller.listed.take() {
        keep.remove(&(listed, *node));
    }
    if !over {
        // With room for what comes next.
        let most = caller.kept.saturating_add(caller.kept / 4);
        keep.insert((most, *node));
        caller.listed = Some(most);
    }
}

/// What is said of a task that ran and whose answer is gone.
pub(super) fn no_longer_kept() -> WireError {
    WireError::new(crate::error::ErrorCode::Duplicate, "the task ran, and its answer is no longer kept")
}
