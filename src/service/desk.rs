//! Agents that come for their tasks: whoever waits is handed one, and has a lease on it until it answers.
//!
//! A task is with one agent at a time. Who doesn't answer within the lease is taken to be gone: the task is offered
//! again, and if nobody answers at all it ends with an error at its deadline. The first answer counts, whoever's it is.
//! After the visibility timeout of Amazon's SQS and the leases of beanstalkd.

mod queue;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::{Current, Fault};
use crate::agent::reach::{By, Reaches};
use crate::error::{Error, ErrorCode};
use crate::identity::NodeId;
use crate::node::{Context, Node, Payload, Task, TaskError};
use crate::wire::{Capability, CapabilityKind};
use queue::{Inner, Look};

/// After this time without a sign an agent is away. A model takes its time between two tools it uses.
pub(crate) const AWAY_AFTER: Duration = Duration::from_secs(30);

/// The same of one that hung up while it waited. A program that only begins its wait anew is back sooner.
const LEFT_AFTER: Duration = Duration::from_secs(2);

/// How long an agent has for a task, unless it says otherwise.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// The longest lease: as long as the longest task.
pub(crate) const MAX_LEASE: Duration = Duration::from_secs(crate::limits::MAX_TTL_S);

/// The longest that somebody may wait for a task in one go.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(600);

/// The most tasks that wait for their agents, or are with them: what a node may run unless set otherwise, so that the node's
/// own bound counts first.
const MAX_TASKS: usize = 1024;

/// The most that wait for a task at once. Each is a small entry, and a connection or a command of whoever waits.
pub(crate) const MAX_WAITING: usize = 16 * 1024;

/// How long before its deadline a task is given up, so that its caller hears why.
const BEFORE_DEADLINE: Duration = Duration::from_millis(250);

/// Parts of an answer that may be on their way from an agent to its caller.
const CHUNKS: usize = 32;

/// A capability that an agent offers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "mcp", derive(schemars::JsonSchema))]
pub(crate) struct Offer {
    /// The name it is found and called by: 1 to 128 characters.
    pub(crate) name: String,
    /// What it is: `agent`, `model` or `tool`. Default: `agent`.
    #[serde(default = "agent")]
    #[cfg_attr(feature = "http", schema(value_type = String, example = "agent"))]
    #[cfg_attr(feature = "mcp", schemars(with = "String"))]
    pub(crate) kind: CapabilityKind,
    /// What it does, in a sentence for whoever looks for somebody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
}

fn agent() -> CapabilityKind {
    CapabilityKind::Agent
}

impl Offer {
    fn capability(&self) -> Capability {
        let cap = Capability::new(self.kind, self.name.as_str());
        match &self.description {
            Some(text) => cap.detail("description", text.as_str()),
            None => cap,
        }
    }
}

impl From<&Capability> for Offer {
    fn from(cap: &Capability) -> Self {
        let description = cap.details.get("description").and_then(|text| text.as_str()).map(str::to_owned);
        Self { name: cap.name.clone(), kind: cap.kind, description }
    }
}

/// Whom a task is wanted for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Of these capabilities; empty: of all that are offered.
    pub(crate) capabilities: Vec<String>,
    /// How long to wait for one; at most [`MAX_WAIT`].
    pub(crate) wait: Duration,
    /// How long the agent has for it; at most [`MAX_LEASE`].
    pub(crate) lease: Duration,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { capabilities: Vec::new(), wait: Duration::ZERO, lease: LEASE }
    }
}

/// A task that an agent has, for as long as its lease.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub(crate) struct Leased {
    /// What it is answered by.
    pub(crate) task_id: String,
    /// What is asked for.
    pub(crate) capability: String,
    /// With what, digit for digit.
    #[cfg_attr(feature = "http", schema(value_type = serde_json::Value))]
    pub(crate) payload: Box<RawValue>,
    /// The node that asks; its signature over the task was checked.
    #[cfg_attr(feature = "http", schema(value_type = String))]
    pub(crate) caller: NodeId,
    /// The id its caller gave it.
    pub(crate) id: String,
    /// The tracker it came through, if it came through one.
    #[cfg_attr(feature = "http", schema(value_type = Option<String>))]
    pub(crate) via: Option<NodeId>,
    /// When its caller issued it, in UNIX seconds by the caller's clock.
    pub(crate) timestamp: i64,
    /// How long its caller still waits, in milliseconds.
    pub(crate) remaining_ms: u64,
    /// How long the lease is, in milliseconds: answered, or heard of, within this time.
    pub(crate) lease_ms: u64,
    /// Which try this is: 1 for the first agent that has it, 2 for the one after an agent that did not answer.
    pub(crate) attempt: u32,
}

/// What an agent is told that reported how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub(crate) struct Told {
    /// How long the lease is from now on, in milliseconds.
    pub(crate) lease_ms: u64,
    /// How long the caller still waits, in milliseconds.
    pub(crate) remaining_ms: u64,
}

/// Where tasks wait for their agents.
pub(crate) struct Desk {
    current: Current,
    reaches: Arc<Reaches>,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    pub(crate) fn new(current: Current, reaches: Arc<Reaches>) -> Self {
        Self { current, reaches, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offers capabilities from now on, until they are withdrawn or the node stops. Whoever offers is there.
    pub(crate) fn offer(self: &Arc<Self>, offers: &[Offer]) -> Result<(), Fault> {
        let node = self.current.get();
        let provided = node.status().capabilities;
        for offer in offers {
            let own = self.inner().offers.contains_key(&offer.name);
            if !own && provided.iter().any(|cap| cap.name == offer.name) {
                let how = self.reaches.of(&offer.name).map_or("the node itself", |reach| reach.by.as_str());
                let message =
                    format!("{:?} is answered by {how} on this node: offer it under another name", offer.name);
                return Err(Fault::new("CONFLICT", message));
            }
        }
        for offer in offers {
            self.put(&node, offer)?;
            self.inner().offered(&offer.name, Instant::now());
            self.note(&offer.name);
        }
        Ok(())
    }

    /// What agents are expected to come for, though none has been here.
    pub(crate) fn expect(self: &Arc<Self>, offers: &[Offer]) -> Result<(), Fault> {
        let node = self.current.get();
        offers.iter().try_for_each(|offer| {
            self.put(&node, offer)?;
            self.note(&offer.name);
            Ok(())
        })
    }

    fn put(self: &Arc<Self>, node: &Node, offer: &Offer) -> Result<(), Fault> {
        // First who answers, then the name: nobody is to find one that nobody answers.
        self.handle(node, &offer.name)?;
        self.inner().offers.entry(offer.name.clone()).or_default().offer = Some(offer.clone());
        let announced = node.register(offer.capability());
        if announced.is_err() {
            self.inner().offers.remove(&offer.name);
        }
        Ok(announced?)
    }

    fn handle(self: &Arc<Self>, node: &Node, name: &str) -> Result<(), Error> {
        let desk = Arc::downgrade(self);
        node.handle(name, move |task: Task, context: Context| {
            let desk = desk.upgrade();
            async move {
                match desk {
                    Some(desk) => desk.run(task, context).await,
                    None => Err(TaskError::with_code(ErrorCode::AgentAway, "the node is going down").not_run()),
                }
            }
        })
    }

    /// Offers it no longer. Tasks that wait for it are answered `AGENT_AWAY`; those that agents have go on. `false`: it was not
    /// offered.
    pub(crate) fn withdraw(&self, name: &str) -> Result<bool, Fault> {
        let was = self.inner().withdraw(name);
        if was {
            self.reaches.forget(name);
            self.current.get().unregister(name)?;
        }
        Ok(was)
    }

    /// What is offered.
    pub(crate) fn offers(&self) -> Vec<Offer> {
        self.inner().offers.values().filter_map(|offered| offered.offer.clone()).collect()
    }

    /// How many tasks wait, and how many are with agents.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let inner = self.inner();
        let leased = inner.leased();
        (inner.tasks.len() - leased, leased, inner.waiters.len())
    }

    /// The node has a successor, which offers what it did.
    pub(super) fn reinstall(self: &Arc<Self>, node: &Node) {
        for offer in self.offers() {
            if let Err(error) = self.put(node, &offer) {
                tracing::warn!(%error, capability = offer.name, "can't be offered after the key was replaced");
            }
        }
    }

    /// The next task, if one comes in time. Dropping the future gives back what was on its way to it.
    pub(crate) async fn next(&self, wanted: Wanted) -> Result<Option<Leased>, Fault> {
        let lease = wanted.lease.clamp(Duration::from_secs(1), MAX_LEASE);
        let mut waiting = {
            let mut inner = self.inner();
            if inner.offers.is_empty() {
                return Err(Fault::not_found("nothing is offered: offer a capability first"));
            }
            if let Some(unknown) = wanted.capabilities.iter().find(|name| !inner.offers.contains_key(*name)) {
                return Err(Fault::not_found(format!("{unknown:?} is not offered: offer it first")));
            }
            let now = Instant::now();
            inner.seen(&wanted.capabilities, now);
            if let Some(leased) = inner.take(&wanted.capabilities, lease, now) {
                drop(inner);
                self.note_all(&wanted.capabilities);
                return Ok(Some(leased));
            }
            if wanted.wait.is_zero() {
                drop(inner);
                self.note_all(&wanted.capabilities);
                return Ok(None);
            }
            if inner.waiters.len() >= MAX_WAITING {
                return Err(Fault::overloaded(format!("{MAX_WAITING} wait for a task already")));
            }
            let (sender, receiver) = oneshot::channel();
            let key = inner.wait(wanted.capabilities.clone(), lease, sender);
            Waiting { desk: self, key, receiver, capabilities: wanted.capabilities.clone(), heard_out: false }
        };
        self.note_all(&wanted.capabilities);
        let next = tokio::select! {
            biased;
            leased = &mut waiting.receiver => match leased {
                Ok(leased) => Ok(Some(leased)),
                Err(_) => Err(Fault::gone("what was waited for is offered no longer")),
            },
            () = tokio::time::sleep(wanted.wait.min(MAX_WAIT)) => Ok(waiting.receiver.try_recv().ok()),
            () = self.stopped() => Err(Fault::new("STOPPED", "the node is stopped")),
        };
        waiting.heard_out = true;
        next
    }

    /// Completes when the node has stopped, and has no successor.
    async fn stopped(&self) {
        loop {
            let node = self.current.get();
            node.stopped().await;
            // One whose key is being replaced is back within a moment.
            match tokio::time::timeout(Duration::from_secs(10), self.current.successor(&node)).await {
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    /// It was handed out, and never reached whoever it was for: the next one gets it.
    pub(crate) fn give_back(&self, task_id: &str) {
        self.inner().give_back(task_id, Instant::now());
    }

    /// The answer to a task; the first one counts.
    pub(crate) fn reply(&self, task_id: &str, answer: Result<Payload, TaskError>) -> Result<(), Fault> {
        let capability = self.inner().answer(task_id, answer, Instant::now())?;
        self.note(&capability);
        Ok(())
    }

    /// A part of the answer, or a word on how far it is: sent to the caller, and the lease begins anew. Waits while the caller
    /// is behind.
    pub(crate) async fn progress(&self, task_id: &str, data: Option<Payload>) -> Result<Told, Fault> {
        let (chunks, told) = self.inner().prolong(task_id, Instant::now())?;
        if let Some(data) = data {
            let sent = async {
                let (done, outcome) = oneshot::channel();
                chunks.send((data, done)).await.ok()?;
                outcome.await.ok()
            };
            match tokio::time::timeout(Duration::from_millis(told.lease_ms), sent).await {
                Ok(Some(Ok(()))) => {}
                Ok(Some(Err(message))) => return Err(Fault::bad_request(message)),
                Ok(None) => return Err(over(task_id)),
                Err(_) => return Err(Fault::overloaded("the caller does not take what it is sent")),
            }
        }
        Ok(told)
    }

    /// What is seen of an agent now.
    fn note(&self, capability: &str) {
        let (offered, present) = {
            let inner = self.inner();
            (inner.offers.contains_key(capability), inner.is_there(capability, Instant::now()))
        };
        if offered {
            let by = if present { By::Poll } else { By::Nobody };
            self.reaches.observed(capability, by, Some(present), "");
        }
    }

    fn note_all(&self, capabilities: &[String]) {
        match capabilities.is_empty() {
            true => self.look_around(),
            false => capabilities.iter().for_each(|name| self.note(name)),
        }
    }

    /// Notes who is there: agents leave without a word.
    pub(super) fn look_around(&self) {
        let names: Vec<String> = self.inner().offers.keys().cloned().collect();
        for name in &names {
            let there = self.inner().is_there(name, Instant::now());
            // What was seen last stands until something else is seen.
            let known = self.reaches.of(name);
            if there || known.is_none_or(|reach| reach.by != By::Nobody) {
                self.note(name);
            }
        }
    }

    /// A task waits for its agent, and for its answer.
    async fn run(&self, task: Task, context: Context) -> Result<Payload, TaskError> {
        let deadline = context.deadline();
        let give_up = deadline.checked_sub(BEFORE_DEADLINE.min(context.remaining() / 4)).unwrap_or(deadline);
        let (chunks, parts) = mpsc::channel(CHUNKS);
        let (answer, answered) = oneshot::channel();
        let entry = self.inner().enter(&task, deadline, give_up, chunks, answer, Instant::now());
        let key = entry.map_err(|refusal| *refusal)?;
        self.see_to(&key, &context, parts, answered).await
    }

    /// A task that somebody has already, who was given it under this id by other means: its answer is waited for until
    /// shortly before its deadline. From when this is first polled on it can be answered.
    #[allow(dead_code, reason = "the features decide who asks")]
    pub(crate) async fn hold(&self, task: &Task, context: &Context, id: &str) -> Result<Payload, TaskError> {
        let deadline = context.deadline();
        // Later than whoever gave it to somebody, and knows more of that.
        let give_up = deadline.checked_sub(BEFORE_DEADLINE.min(context.remaining() / 4) / 2).unwrap_or(deadline);
        let (chunks, parts) = mpsc::channel(CHUNKS);
        let (answer, answered) = oneshot::channel();
        let held = self.inner().hold(task, id, deadline, give_up, chunks, answer, Instant::now());
        held.map_err(|refusal| *refusal)?;
        self.see_to(id, context, parts, answered).await
    }

    /// Sees to a task until it is answered, or over.
    async fn see_to(
        &self,
        key: &str,
        context: &Context,
        mut parts: mpsc::Receiver<Part>,
        mut answered: oneshot::Receiver<Result<Payload, TaskError>>,
    ) -> Result<Payload, TaskError> {
        let _leave = Leave { desk: self, key };
        loop {
            // Not in the match itself, whose arms look again: the books would be locked all the while.
            let look = self.inner().look(key, Instant::now());
            let (when, changed) = match look {
                Look::Later(when, changed) => (when, changed),
                Look::Over { capability, error } => {
                    self.note(&capability);
                    return Err(*error);
                }
            };
            tokio::select! {
                biased;
                answer = &mut answered => return answer.unwrap_or_else(|_| Err(away("it is offered no longer").not_run())),
                Some((data, done)) = parts.recv() => {
                    let sent: Result<(), String> = context.chunk(data).await.map_err(|e| e.to_string());
                    // Whoever sent it may have left.
                    drop(done.send(sent));
                }
                () = context.cancelled() => {
                    return Err(TaskError::with_code(ErrorCode::Cancelled, "nobody waits for it any more"));
                }
                () = tokio::time::sleep_until(when.into()) => {}
                () = changed.notified() => {}
            }
        }
    }
}

/// A part of an answer, and where it is told what became of it.
type Part = (Payload, oneshot::Sender<Result<(), String>>);

fn away(message: &str) -> TaskError {
    TaskError::with_code(ErrorCode::AgentAway, message)
}

fn over(task_id: &str) -> Fault {
    Fault::gone(format!(
        "{task_id:?} is no task that waits for an answer: it was answered, its caller took it back, or its time is over"
    ))
}

/// Somebody who waits; leaves when dropped.
struct Waiting<'a> {
    desk: &'a Desk,
    key: u64,
    receiver: oneshot::Receiver<Leased>,
    capabilities: Vec<String>,
    /// Whether it waited to the end. Who doesn't hung up: its program ended, most likely.
    heard_out: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut inner = self.desk.inner();
        inner.waiters.remove(&self.key);
        match self.heard_out {
            true => inner.seen(&self.capabilities, now),
            false => inner.left(&self.capabilities, now),
        }
        // Handed over, and not taken: it goes to the next one.
        if let Ok(leased) = self.receiver.try_recv() {
            inner.give_back(&leased.task_id, now);
        }
    }
}

/// A task leaves with its handler, however that ends.
struct Leave<'a> {
    desk: &'a Desk,
    key: &'a str,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.desk.inner().leave(self.key);
    }
}
