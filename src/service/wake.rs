//! Asking an agent for a sign of life, and telling others how each is reached.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Current, Desk, Fault};
use crate::agent::reach::{By, DETAIL, Reach, Reaches};
use crate::error::ErrorCode;
use crate::limits::WAKE;
use crate::node::{Context, Node, Outcome, Payload, Task, TaskError};

/// How often it is looked who is there.
const LOOK: Duration = Duration::from_secs(2);

/// How old what was told may grow while it is seen anew again and again.
const REFRESH_S: u64 = 300;

/// How often it is looked whether a program can still be run.
const PROGRAMS_S: u64 = 60;

/// The least time between two changes that are told, for each capability: an agent may come and go.
const PACE: Duration = Duration::from_secs(10);

/// How long a probe may take; a task has its own bound.
const PROBE: Duration = Duration::from_secs(20);

/// How long the answer of a probe stands for the next one: whoever may ask could have an agent's door knocked at without end.
const STANDS: Duration = Duration::from_secs(1);

/// What a probe found: how the agent is reached, whether it is there, and how long it took to find out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The capability.
    pub(crate) capability: String,
    /// How its agent is reached, as seen just now.
    pub(crate) reach: Reach,
    /// How long the node took to find out, in milliseconds.
    pub(crate) agent_ms: f64,
}

/// What came of a wake: each step with its time.
#[derive(Debug)]
pub(crate) struct Woken {
    /// The way there and back.
    pub(crate) outcome: Outcome,
    /// What the node found.
    pub(crate) answer: Answer,
}

/// The node answers wakes from now on with what is known here.
pub(super) fn install(node: &Node, reaches: &Arc<Reaches>) {
    let reaches = Arc::clone(reaches);
    let latest: Arc<Mutex<HashMap<String, (Instant, Answer)>>> = Arc::default();
    let handler = move |task: Task, context: Context| {
        let (reaches, latest) = (Arc::clone(&reaches), Arc::clone(&latest));
        async move { answer(&task, &context, &reaches, &latest).await }
    };
    if let Err(error) = node.handle(WAKE, handler) {
        tracing::debug!(%error, "the node is stopped: nobody wakes its agents");
    }
}

async fn answer(
    task: &Task,
    context: &Context,
    reaches: &Reaches,
    latest: &Mutex<HashMap<String, (Instant, Answer)>>,
) -> Result<Payload, TaskError> {
    let capability = task.payload["capability"].as_str().unwrap_or_default().to_owned();
    let node = context.node()?;
    if !node.status().capabilities.iter().any(|cap| cap.name == capability) {
        let message = format!("{capability:?} is not provided here");
        return Err(TaskError::with_code(ErrorCode::UnknownCapability, message).not_run());
    }
    let known = latest.lock().unwrap_or_else(PoisonError::into_inner).get(&capability).cloned();
    if let Some((when, answer)) = known
        && when.elapsed() < STANDS
    {
        return Ok(serde_json::to_value(answer)?.into());
    }
    let began = Instant::now();
    if let Some(probe) = reaches.probe_of(&capability) {
        let by = reaches.of(&capability).map_or(By::Process, |reach| reach.by);
        let (ok, note) = match tokio::time::timeout(PROBE.min(context.remaining()), probe()).await {
            Ok(Ok(note)) => (true, note),
            Ok(Err(note)) => (false, note),
            Err(_) => (false, "no sign of life in time".to_owned()),
        };
        reaches.observed(&capability, by, Some(ok), &note);
    }
    let reach = reaches.of(&capability).unwrap_or_else(|| Reach::now(By::Process, Some(true), ""));
    let answer = Answer { capability: capability.clone(), reach, agent_ms: began.elapsed().as_secs_f64() * 1e3 };
    {
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|_, (when, _)| when.elapsed() < STANDS);
        latest.insert(capability, (Instant::now(), answer.clone()));
    }
    Ok(serde_json::to_value(answer)?.into())
}

/// Wakes the agent behind a capability of a node, and says how that went.
pub(super) async fn wake(node: &Node, to: &str, capability: &str, timeout: Duration) -> Result<Woken, Fault> {
    let call = node.call(WAKE, json!({ "capability": capability })).to(to).timeout(timeout).allow_local();
    let outcome = call.await?;
    // A node that embeds the library may answer with less.
    let answer: Answer = outcome
        .parse()
        .map_err(|e| Fault::new("INTERNAL", format!("what {} answered can't be read: {e}", outcome.responder)))?;
    Ok(Woken { outcome, answer })
}

/// Tells others how each agent is reached, with the node's record: when that changes, and now and then.
pub(super) async fn tell(current: Current, reaches: Arc<Reaches>, desk: Arc<Desk>) {
    let mut told: HashMap<String, (Reach, Instant)> = HashMap::new();
    let mut of = current.get().id();
    loop {
        let node = current.get();
        if node.id() != of {
            // Its successor has told nothing yet.
            of = node.id();
            told.clear();
        }
        desk.look_around();
        look_at_programs(&reaches).await;
        for (name, reach) in reaches.all() {
            let due = told.get(&name).is_none_or(|(before, when)| {
                let changed = !reach.says(before) && when.elapsed() >= PACE;
                changed || reach.at >= before.at + REFRESH_S
            });
            if due && tell_one(&node, &name, &reach) {
                told.insert(name, (reach, Instant::now()));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Programs are looked at now and then, since that costs next to nothing; web hooks and agents are not knocked at unasked.
async fn look_at_programs(reaches: &Reaches) {
    let now = Reach::now(By::Exec, None, "").at;
    for (name, reach) in reaches.all() {
        if reach.by == By::Exec
            && now >= reach.at + PROGRAMS_S
            && let Some(probe) = reaches.probe_of(&name)
        {
            let (ok, note) = match probe().await {
                Ok(_) => (true, String::new()),
                Err(note) => (false, note),
            };
            reaches.observed(&name, By::Exec, Some(ok), &note);
        }
    }
}

/// Whether it is told, or can't be.
fn tell_one(node: &Node, name: &str, reach: &Reach) -> bool {
    let Some(cap) = node.status().capabilities.into_iter().find(|cap| cap.name == name) else { return false };
    let mut cap = crate::wire::Capability { kind: cap.kind, name: cap.name, details: cap.details };
    cap.details.insert(DETAIL.to_owned(), reach.told());
    if let Err(error) = node.register(cap) {
        tracing::debug!(%error, capability = name, "how it is reached can't be told");
    }
    true
}
