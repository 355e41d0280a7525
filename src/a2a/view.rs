//! A call of the mesh as a task of A2A. Nothing is invented: every state and every word is what is known of the call.

use std::collections::HashMap;
use std::time::SystemTime;

use ::a2a::{
    Artifact, Message, Role, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus,
    TaskStatusUpdateEvent,
};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::parts;
use super::{CAPABILITY, CHUNKS};
use crate::service::{CallHead, CallProgress, CallState, Fault};

/// The artifact that has the result.
const RESULT: &str = "result";

/// The artifact that has what came before it.
const PARTS: &str = "chunks";

/// What the gateway itself knows of a task.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) context_id: String,
    /// What was sent, unless it is too long to be kept.
    pub(super) message: Option<Message>,
}

/// The state of a call. Rejected is one of which nothing ran, as far as its error tells.
pub(super) fn state_of(state: CallState, error: Option<&Fault>) -> TaskState {
    match (state, error) {
        (CallState::Sent, _) => TaskState::Submitted,
        (CallState::Accepted, _) => TaskState::Working,
        (CallState::Done, _) => TaskState::Completed,
        (CallState::Failed, Some(fault)) if fault.code == "CANCELLED" => TaskState::Canceled,
        (CallState::Failed, Some(fault)) if did_not_run(fault) => TaskState::Rejected,
        (CallState::Failed, _) => TaskState::Failed,
    }
}

fn did_not_run(fault: &Fault) -> bool {
    let refused = [
        "NOT_ALLOWED",
        "UNKNOWN_CAPABILITY",
        "RATE_LIMITED",
        "OVERLOADED",
        "AGENT_AWAY",
        "BAD_REQUEST",
        "BAD_SIGNATURE",
        "EXPIRED",
        "NO_PEER",
        "NO_TRACKER",
    ];
    let not_sent = fault.call.as_ref().is_some_and(|call| call["delivery"] == "not_sent");
    not_sent || refused.contains(&fault.code.as_str())
}

impl About {
    fn status(&self, state: CallState, since: SystemTime, error: Option<&Fault>) -> TaskStatus {
        let message = error.map(|fault| {
            let mut metadata = HashMap::from([("elo.code".to_owned(), Value::from(fault.code.as_str()))]);
            metadata.extend(fault.retry_after_s.map(|wait| ("elo.retry_after_s".to_owned(), wait.into())));
            let call = fault.call.as_ref();
            metadata.extend(call.and_then(|call| call.get("delivery")).map(|d| ("elo.delivery".to_owned(), d.clone())));
            Message {
                // The same whenever it is asked for.
                message_id: format!("{}-end", self.id),
                context_id: Some(self.context_id.clone()),
                task_id: Some(self.id.clone()),
                metadata: Some(metadata),
                ..Message::new(Role::Agent, vec![::a2a::Part::text(fault.to_string())])
            }
        });
        TaskStatus { state: state_of(state, error), message, timestamp: Some(since.into()) }
    }

    /// All of it; `artifacts`: with what was answered.
    pub(super) fn task(&self, progress: &CallProgress, history: Option<i32>, artifacts: bool) -> Task {
        let mut shown = Vec::new();
        if artifacts {
            let chunks: Vec<_> = progress.chunks.iter().flat_map(|chunk| parts_of(chunk)).collect();
            if !chunks.is_empty() {
                shown.push(chunks_artifact(chunks, progress.lost));
            }
            shown.extend(progress.outcome.as_deref().map(result_artifact));
        }
        let message = self.message.clone().filter(|_| history != Some(0));
        let mut metadata = HashMap::from([(CAPABILITY.to_owned(), Value::from(progress.capability.as_str()))]);
        metadata.extend(progress.outcome.as_deref().and_then(responder).map(|id| ("elo.responder".to_owned(), id)));
        Task {
            id: self.id.clone(),
            context_id: self.context_id.clone(),
            status: self.status(progress.state, progress.since, progress.error.as_ref()),
            artifacts: (!shown.is_empty()).then_some(shown),
            history: message.map(|message| vec![message]),
            metadata: Some(metadata),
        }
    }

    /// That its state has changed.
    pub(super) fn status_event(&self, head: &CallHead) -> StreamResponse {
        StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: self.id.clone(),
            context_id: self.context_id.clone(),
            status: self.status(head.state, head.since, head.error.as_ref()),
            metadata: None,
        })
    }

    /// A part of the answer.
    pub(super) fn chunk_event(&self, chunk: &RawValue, append: bool, lost: u64) -> StreamResponse {
        self.artifact_event(chunks_artifact(parts_of(chunk), lost), append, false)
    }

    /// The answer.
    pub(super) fn result_event(&self, outcome: &RawValue) -> StreamResponse {
        self.artifact_event(result_artifact(outcome), false, true)
    }

    fn artifact_event(&self, artifact: Artifact, append: bool, last: bool) -> StreamResponse {
        StreamResponse::ArtifactUpdate(TaskArtifactUpdateEvent {
            task_id: self.id.clone(),
            context_id: self.context_id.clone(),
            artifact,
            append: Some(append),
            last_chunk: Some(last),
            metadata: None,
        })
    }
}

fn parts_of(json: &RawValue) -> Vec<::a2a::Part> {
    parts::from_payload(serde_json::from_str(json.get()).unwrap_or_default())
}

fn chunks_artifact(parts: Vec<::a2a::Part>, lost: u64) -> Artifact {
    let mut metadata = HashMap::from([(CHUNKS.to_owned(), json!(true))]);
    if lost > 0 {
        metadata.insert("elo.lost".to_owned(), lost.into());
    }
    Artifact {
        artifact_id: PARTS.to_owned(),
        name: Some(PARTS.to_owned()),
        description: Some("what came before the result, in order".to_owned()),
        parts,
        metadata: Some(metadata),
        extensions: None,
    }
}

fn result_artifact(outcome: &RawValue) -> Artifact {
    let payload = match serde_json::from_str(outcome.get()) {
        Ok(Value::Object(mut members)) => members.remove("payload").unwrap_or_default(),
        _ => Value::Null,
    };
    Artifact {
        artifact_id: RESULT.to_owned(),
        name: Some(RESULT.to_owned()),
        description: None,
        parts: parts::from_payload(payload),
        metadata: None,
        extensions: None,
    }
}

fn responder(outcome: &RawValue) -> Option<Value> {
    let outcome: Value = serde_json::from_str(outcome.get()).ok()?;
    outcome.get("responder").cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{CallError, Delivery, ErrorCode};

    #[test]
    fn every_way_a_call_ends_has_its_state() {
        let ended = |code: ErrorCode, delivery: Delivery| {
            let error = CallError {
                code,
                message: String::new(),
                retry_after: None,
                delivery,
                responder: None,
                tried: Vec::new(),
            };
            state_of(CallState::Failed, Some(&Fault::from(error)))
        };
        for (code, delivery, state) in [
            (ErrorCode::NoPeer, Delivery::NotSent, TaskState::Rejected),
            (ErrorCode::Timeout, Delivery::NotSent, TaskState::Rejected),
            (ErrorCode::Timeout, Delivery::Unconfirmed, TaskState::Failed),
            (ErrorCode::Timeout, Delivery::Accepted, TaskState::Failed),
            (ErrorCode::NotAllowed, Delivery::Answered, TaskState::Rejected),
            (ErrorCode::AgentAway, Delivery::Answered, TaskState::Rejected),
            (ErrorCode::HandlerError, Delivery::Answered, TaskState::Failed),
            (ErrorCode::PeerGone, Delivery::Accepted, TaskState::Failed),
            (ErrorCode::TooLarge, Delivery::Answered, TaskState::Failed),
            (ErrorCode::TooLarge, Delivery::NotSent, TaskState::Rejected),
            (ErrorCode::Cancelled, Delivery::Accepted, TaskState::Canceled),
            (ErrorCode::Cancelled, Delivery::NotSent, TaskState::Canceled),
        ] {
            assert_eq!(ended(code, delivery), state, "{code} {delivery:?}");
        }
        assert_eq!(state_of(CallState::Sent, None), TaskState::Submitted);
        assert_eq!(state_of(CallState::Accepted, None), TaskState::Working);
        assert_eq!(state_of(CallState::Done, None), TaskState::Completed);
    }
}
