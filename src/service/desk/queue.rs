//! The books of the desk: who waits, which tasks wait, and who has which.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{AWAY_AFTER, LEFT_AFTER, Leased, MAX_TASKS, Offer, Part, Told, away, over};
use crate::error::ErrorCode;
use crate::node::{Payload, Task, TaskError};
use crate::service::Fault;

/// What is offered, and who was seen of those who work on it.
#[derive(Debug, Default)]
pub(super) struct Offered {
    pub(super) offer: Option<Offer>,
    /// When an agent came last, or was heard of.
    seen: Option<Instant>,
    /// Tasks that wait, the first one first.
    queue: VecDeque<String>,
    leased: usize,
}

/// Somebody who waits for a task.
#[derive(Debug)]
pub(super) struct Waiter {
    capabilities: Vec<String>,
    lease: Duration,
    sender: oneshot::Sender<Leased>,
}

impl Waiter {
    fn takes(&self, capability: &str) -> bool {
        self.capabilities.is_empty() || self.capabilities.iter().any(|name| name == capability)
    }
}

#[derive(Debug)]
struct Lease {
    until: Instant,
    length: Duration,
}

/// A task that was not answered.
#[derive(Debug)]
pub(super) struct Entry {
    task: Task,
    entered: Instant,
    deadline: Instant,
    give_up: Instant,
    lease: Option<Lease>,
    attempts: u32,
    chunks: mpsc::Sender<Part>,
    answer: Option<oneshot::Sender<Result<Payload, TaskError>>>,
    changed: Arc<Notify>,
}

impl Entry {
    /// One that nobody has yet.
    fn new(
        task: &Task,
        deadline: Instant,
        give_up: Instant,
        chunks: mpsc::Sender<Part>,
        answer: oneshot::Sender<Result<Payload, TaskError>>,
        now: Instant,
    ) -> Self {
        Self {
            task: task.clone(),
            entered: now,
            deadline,
            give_up,
            lease: None,
            attempts: 0,
            chunks,
            answer: Some(answer),
            changed: Arc::default(),
        }
    }
}

/// When to look at a task again, or its end.
pub(super) enum Look {
    Later(Instant, Arc<Notify>),
    Over { capability: String, error: Box<TaskError> },
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) offers: BTreeMap<String, Offered>,
    pub(super) tasks: HashMap<String, Entry>,
    /// In the order they came.
    pub(super) waiters: BTreeMap<u64, Waiter>,
    next_waiter: u64,
}

impl Inner {
    /// Somebody offers it, and so is there.
    pub(super) fn offered(&mut self, name: &str, now: Instant) {
        self.offers.entry(name.to_owned()).or_default().seen = Some(now);
    }

    /// How many tasks agents have.
    pub(super) fn leased(&self) -> usize {
        self.tasks.values().filter(|entry| entry.lease.is_some()).count()
    }

    /// Somebody who works on these was heard of; empty: on all.
    pub(super) fn seen(&mut self, capabilities: &[String], now: Instant) {
        for (name, offered) in &mut self.offers {
            if capabilities.is_empty() || capabilities.contains(name) {
                offered.seen = Some(now);
            }
        }
    }

    /// Somebody who waited for tasks of these hung up; empty: of all. If it was the only one, nobody is there soon.
    pub(super) fn left(&mut self, capabilities: &[String], now: Instant) {
        let seen = now.checked_sub(AWAY_AFTER - LEFT_AFTER);
        for (name, offered) in &mut self.offers {
            let meant = capabilities.is_empty() || capabilities.contains(name);
            if !meant || offered.leased > 0 || self.waiters.values().any(|waiter| waiter.takes(name)) {
                continue;
            }
            offered.seen = seen.or(offered.seen);
            // Those that wait for it look again.
            for task in offered.queue.iter().filter_map(|id| self.tasks.get(id)) {
                task.changed.notify_one();
            }
        }
    }

    /// Whether somebody works on it: waits for a task, has one, or was here a moment ago.
    pub(super) fn is_there(&self, capability: &str, now: Instant) -> bool {
        self.there_until(capability, now).is_some()
    }

    /// Until when at least, unless somebody comes: `None` when nobody is there.
    fn there_until(&self, capability: &str, now: Instant) -> Option<Instant> {
        let offered = self.offers.get(capability)?;
        let lately = offered.seen.map(|seen| seen + AWAY_AFTER).filter(|until| *until > now);
        let here = offered.leased > 0 || self.waiters.values().any(|waiter| waiter.takes(capability));
        if here { Some(lately.unwrap_or(now).max(now + AWAY_AFTER)) } else { lately }
    }

    /// Somebody waits from now on.
    pub(super) fn wait(&mut self, capabilities: Vec<String>, lease: Duration, sender: oneshot::Sender<Leased>) -> u64 {
        self.next_waiter += 1;
        self.waiters.insert(self.next_waiter, Waiter { capabilities, lease, sender });
        self.next_waiter
    }

    /// The task that waits longest of those wanted.
    pub(super) fn take(&mut self, capabilities: &[String], lease: Duration, now: Instant) -> Option<Leased> {
        let wanted = |name: &String| capabilities.is_empty() || capabilities.contains(name);
        let heads = self.offers.iter().filter(|(name, _)| wanted(name));
        let heads = heads.filter_map(|(_, offered)| offered.queue.front());
        let first = heads.min_by_key(|id| self.tasks.get(*id).map(|entry| entry.entered)).cloned()?;
        self.lease(&first, lease, now)
    }

    /// Gives a task that waits to somebody.
    fn lease(&mut self, id: &str, length: Duration, now: Instant) -> Option<Leased> {
        let entry = self.tasks.get_mut(id)?;
        let offered = self.offers.get_mut(&entry.task.capability)?;
        offered.queue.retain(|waiting| waiting != id);
        offered.leased += 1;
        entry.lease = Some(Lease { until: now + length, length });
        entry.attempts += 1;
        entry.changed.notify_one();
        let payload = RawValue::from_string(entry.task.payload_json().to_owned()).ok()?;
        Some(Leased {
            task_id: id.to_owned(),
            capability: entry.task.capability.clone(),
            payload,
            caller: entry.task.caller,
            id: entry.task.id.clone(),
            via: entry.task.via,
            timestamp: entry.task.timestamp,
            remaining_ms: millis(entry.deadline.saturating_duration_since(now)),
            lease_ms: millis(length),
            attempt: entry.attempts,
        })
    }

    /// Hands a task that waits to whoever waits longest for such a one.
    fn hand_over(&mut self, id: &str, now: Instant) {
        let Some(capability) = self.tasks.get(id).map(|entry| entry.task.capability.clone()) else { return };
        loop {
            let first = self.waiters.iter().find(|(_, waiter)| waiter.takes(&capability)).map(|(key, _)| *key);
            let Some(waiter) = first.and_then(|key| self.waiters.remove(&key)) else { return };
            let Some(leased) = self.lease(id, waiter.lease, now) else { return };
            // Whoever stopped waiting in this moment gives it back.
            match waiter.sender.send(leased) {
                Ok(()) => return,
                Err(_) => self.back_in_line(id, true),
            }
        }
    }

    /// Its lease is over without an answer.
    fn back_in_line(&mut self, id: &str, never_had: bool) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        if entry.lease.take().is_none() {
            return;
        }
        if never_had {
            entry.attempts -= 1;
        }
        if let Some(offered) = self.offers.get_mut(&entry.task.capability) {
            offered.leased = offered.leased.saturating_sub(1);
            offered.queue.push_front(id.to_owned());
        }
    }

    /// It was handed to somebody who never took it.
    pub(super) fn give_back(&mut self, id: &str, now: Instant) {
        self.back_in_line(id, true);
        self.hand_over(id, now);
    }

    /// A task comes.
    pub(super) fn enter(
        &mut self,
        task: &Task,
        deadline: Instant,
        give_up: Instant,
        chunks: mpsc::Sender<Part>,
        answer: oneshot::Sender<Result<Payload, TaskError>>,
        now: Instant,
    ) -> Result<String, Box<TaskError>> {
        if !self.offers.contains_key(&task.capability) {
            let message = format!("{:?} is offered here no longer", task.capability);
            return Err(Box::new(TaskError::with_code(ErrorCode::UnknownCapability, message).not_run()));
        }
        if !self.is_there(&task.capability, now) && task.wait.is_zero() {
            return Err(Box::new(self.nobody(&task.capability, now)));
        }
        self.has_room()?;
        let id: [u8; 12] = rand::rng().random();
        let id = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, id);
        let id = format!("t_{id}");
        let Some(offered) = self.offers.get_mut(&task.capability) else {
            return Err(Box::new(away("it is offered no longer").not_run()));
        };
        offered.queue.push_back(id.clone());
        self.tasks.insert(id.clone(), Entry::new(task, deadline, give_up, chunks, answer, now));
        self.hand_over(&id, now);
        Ok(id)
    }

    fn has_room(&self) -> Result<(), Box<TaskError>> {
        if self.tasks.len() < MAX_TASKS {
            return Ok(());
        }
        let message = format!("{MAX_TASKS} tasks wait for agents here already");
        Err(Box::new(TaskError::overloaded(message, Duration::from_secs(1))))
    }

    /// A task comes that somebody has already: nobody else is offered it.
    #[allow(clippy::too_many_arguments, reason = "what makes an entry")]
    pub(super) fn hold(
        &mut self,
        task: &Task,
        id: &str,
        deadline: Instant,
        give_up: Instant,
        chunks: mpsc::Sender<Part>,
        answer: oneshot::Sender<Result<Payload, TaskError>>,
        now: Instant,
    ) -> Result<(), Box<TaskError>> {
        self.has_room()?;
        let lease = Some(Lease { until: deadline, length: deadline.saturating_duration_since(now) });
        let mut entry = Entry::new(task, deadline, give_up, chunks, answer, now);
        (entry.lease, entry.attempts) = (lease, 1);
        if let Some(offered) = self.offers.get_mut(&entry.task.capability) {
            offered.leased += 1;
        }
        self.tasks.insert(id.to_owned(), entry);
        Ok(())
    }

    fn nobody(&self, capability: &str, now: Instant) -> TaskError {
        let seen = self.offers.get(capability).and_then(|offered| offered.seen);
        let when = match seen {
            Some(seen) => format!("was last heard of {} s ago", now.saturating_duration_since(seen).as_secs()),
            None => "has not come yet".to_owned(),
        };
        let message =
            format!("the agent behind {capability:?} is away: it {when}. The caller may wait for it (--wait)");
        away(&message).not_run()
    }

    /// What is to be done about a task now.
    pub(super) fn look(&mut self, id: &str, now: Instant) -> Look {
        let Some(entry) = self.tasks.get(id) else {
            // Answered: the answer is on its way.
            return Look::Later(now + Duration::from_secs(1), Arc::default());
        };
        let (changed, give_up) = (Arc::clone(&entry.changed), entry.give_up);
        if entry.answer.is_none() {
            return Look::Later(give_up, changed);
        }
        if now >= give_up {
            let message = match (entry.attempts, &entry.lease) {
                (0, _) => "no agent came for it in its time".to_owned(),
                (n, lease) => {
                    let now_has = if lease.is_some() { "; the last one has it still" } else { "" };
                    match n {
                        1 => format!("an agent took it, and did not answer in its time{now_has}"),
                        n => format!("{n} agents took it, and none answered in its time{now_has}"),
                    }
                }
            };
            let error = TaskError::with_code(ErrorCode::Timeout, message);
            let error = Box::new(if entry.attempts == 0 { error.not_run() } else { error });
            return Look::Over { capability: entry.task.capability.clone(), error };
        }
        if let Some(lease) = &entry.lease {
            if lease.until > now {
                return Look::Later(lease.until.min(give_up), changed);
            }
            tracing::info!(task = id, "an agent did not answer within its lease; it is offered again");
            self.back_in_line(id, false);
            self.hand_over(id, now);
            return self.look(id, now);
        }
        // What an agent began is not given back to its caller as if nothing had happened: it waits for the next one.
        if entry.attempts > 0 {
            return Look::Later(give_up, changed);
        }
        let waits_until = entry.entered + entry.task.wait;
        let capability = entry.task.capability.clone();
        match self.there_until(&capability, now) {
            Some(until) => Look::Later(until.min(give_up), changed),
            None if waits_until > now => Look::Later(waits_until.min(give_up), changed),
            None => {
                let error = Box::new(self.nobody(&capability, now));
                Look::Over { capability, error }
            }
        }
    }

    /// A task is over, whatever came of it.
    pub(super) fn leave(&mut self, id: &str) {
        let Some(entry) = self.tasks.remove(id) else { return };
        if let Some(offered) = self.offers.get_mut(&entry.task.capability) {
            offered.queue.retain(|waiting| waiting != id);
            if entry.lease.is_some() {
                offered.leased = offered.leased.saturating_sub(1);
            }
        }
    }

    /// An agent answers. Gives the capability.
    pub(super) fn answer(
        &mut self,
        id: &str,
        answer: Result<Payload, TaskError>,
        now: Instant,
    ) -> Result<String, Fault> {
        let entry = self.tasks.get_mut(id).ok_or_else(|| over(id))?;
        let sender = entry.answer.take().ok_or_else(|| over(id))?;
        let capability = entry.task.capability.clone();
        let sent = sender.send(answer);
        self.leave(id);
        if let Some(offered) = self.offers.get_mut(&capability) {
            offered.seen = Some(now);
        }
        sent.map(|()| capability).map_err(|_| over(id))
    }

    /// An agent is at it: its lease begins anew.
    pub(super) fn prolong(&mut self, id: &str, now: Instant) -> Result<(mpsc::Sender<Part>, Told), Fault> {
        let entry = self.tasks.get_mut(id).ok_or_else(|| over(id))?;
        let Some(lease) = &mut entry.lease else {
            return Err(Fault::new(
                "CONFLICT",
                format!("the lease on {id:?} is over, and it is offered again: take it anew"),
            ));
        };
        lease.until = now + lease.length;
        let told = Told {
            lease_ms: millis(lease.length),
            remaining_ms: millis(entry.deadline.saturating_duration_since(now)),
        };
        let (chunks, capability) = (entry.chunks.clone(), entry.task.capability.clone());
        entry.changed.notify_one();
        if let Some(offered) = self.offers.get_mut(&capability) {
            offered.seen = Some(now);
        }
        Ok((chunks, told))
    }

    /// It is offered no longer.
    pub(super) fn withdraw(&mut self, name: &str) -> bool {
        let Some(offered) = self.offers.remove(name) else { return false };
        for id in offered.queue {
            // Dropping where its answer is expected answers it.
            self.tasks.remove(&id);
        }
        let only = |waiter: &Waiter| !waiter.capabilities.is_empty() && waiter.takes(name);
        self.waiters.retain(|_, waiter| !only(waiter));
        true
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
