//! What is posted.

use base64::Engine as _;
use rand::RngExt as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::time::{iso8601, now_ms};
use crate::identity::NodeId;
use crate::node::{Context, Task, TaskError};

/// The type of a task.
const TASK: &str = "elo.task";

/// The type of a question whether anybody is there.
const PROBE: &str = "elo.probe";

#[derive(Serialize)]
struct Body<'a, T> {
    r#type: &'a str,
    timestamp: String,
    data: T,
}

#[derive(Serialize)]
struct TaskData<'a> {
    id: &'a str,
    capability: &'a str,
    payload: &'a RawValue,
    caller: NodeId,
    via: Option<NodeId>,
    sealed: bool,
    issued: String,
    deadline: String,
    remaining_ms: u64,
    ttl_s: u64,
    delivery_id: &'a str,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_url: Option<&'a str>,
}

#[derive(Serialize)]
struct ProbeData<'a> {
    capability: &'a str,
}

/// A new id, for a delivery. It has the form of those of tasks on the desk, where it is answered by when the answer comes later.
pub(super) fn new_id() -> String {
    let id: [u8; 12] = rand::rng().random();
    format!("t_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(id))
}

/// A task; the payload digit for digit as its caller wrote it.
pub(super) fn task(
    task: &Task,
    context: &Context,
    delivery: &str,
    attempt: u32,
    reply_url: Option<&str>,
) -> Result<Vec<u8>, TaskError> {
    let remaining_ms = u64::try_from(context.remaining().as_millis()).unwrap_or(u64::MAX);
    let now = now_ms();
    let body = Body {
        r#type: TASK,
        timestamp: iso8601(now),
        data: TaskData {
            id: &task.id,
            capability: &task.capability,
            payload: serde_json::from_str(task.payload_json())?,
            caller: task.caller,
            via: task.via,
            sealed: task.sealed,
            issued: iso8601(task.timestamp.saturating_mul(1000)),
            deadline: iso8601(now.saturating_add_unsigned(remaining_ms)),
            remaining_ms,
            ttl_s: task.ttl.as_secs(),
            delivery_id: delivery,
            attempt,
            reply_url,
        },
    };
    Ok(serde_json::to_vec(&body)?)
}

/// A question whether anybody is there.
pub(super) fn probe(capability: &str) -> Vec<u8> {
    let body = Body { r#type: PROBE, timestamp: iso8601(now_ms()), data: ProbeData { capability } };
    serde_json::to_vec(&body).unwrap_or_default()
}
