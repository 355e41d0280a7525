//! What is said over the control socket.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::identity::NodeId;
use crate::service::Offer;

/// The version of this conversation; both sides name theirs in every line.
pub(crate) const VERSION: u32 = 1;

/// The most bytes of a request: a payload of 1 MiB with its members around it, twice.
pub(super) const MAX_REQUEST: usize = 2 * 1024 * 1024;

/// The most bytes of one line of an answer: a result of 1 MiB with its payload written twice, and what was tried.
pub(super) const MAX_REPLY: usize = 8 * 1024 * 1024;

/// What can be asked.
pub(crate) mod op {
    /// The node's own state.
    pub(crate) const STATUS: &str = "status";
    /// The connected peers, one item each.
    pub(crate) const PEERS: &str = "peers";
    /// Who provides a capability, one item each.
    pub(crate) const FIND: &str = "find";
    /// A call: its chunks are items, its outcome ends it.
    pub(crate) const CALL: &str = "call";
    /// Calls made and measured: how far it is are items, what was measured ends it.
    pub(crate) const BENCH: &str = "bench";
    /// Published events, one item each, until the client hangs up.
    pub(crate) const EVENTS: &str = "events";
    /// What happens to the node, one item each, until the client hangs up.
    pub(crate) const ACTIVITY: &str = "activity";
    /// Publishes an event.
    pub(crate) const PUBLISH: &str = "publish";
    /// Gives the node a new key; done when it is back with it.
    pub(crate) const ROTATE: &str = "rotate";
    /// Publishes the statement that a key is void.
    pub(crate) const REVOKE: &str = "revoke";
    /// Who is let in: those that the program's settings name, one item each; the numbers end it. Reads the access file first when that
    /// is asked for.
    pub(crate) const ACCESS: &str = "access";
    /// Offers capabilities for agents that come for their tasks; ends with all that is offered.
    pub(crate) const OFFER: &str = "offer";
    /// Offers a capability no longer; ends with whether it was offered.
    pub(crate) const WITHDRAW: &str = "withdraw";
    /// What is offered, with the counts of tasks and of those who wait.
    pub(crate) const OFFERS: &str = "offers";
    /// Waits for a task. It is an item, and whoever asked says with another line that it has it: one that hangs up
    /// before that gives it back. Ends with whether there was one.
    pub(crate) const NEXT_TASK: &str = "next_task";
    /// Answers a task.
    pub(crate) const REPLY: &str = "reply";
    /// Says how far a task is, and has its lease begin anew.
    pub(crate) const TASK_PROGRESS: &str = "task_progress";
    /// Starts a call that outlives the client; ends with its id.
    pub(crate) const START_CALL: &str = "start_call";
    /// What is known of such a call.
    pub(crate) const CHECK_CALL: &str = "check_call";
    /// Takes such a call back.
    pub(crate) const CANCEL_CALL: &str = "cancel_call";
    /// Events after a place in the feed of a pattern.
    pub(crate) const NEXT_EVENTS: &str = "next_events";
    /// The latest events that are kept, one item each.
    pub(crate) const RECENT_EVENTS: &str = "recent_events";
    /// Asks the agent behind a capability of a node for a sign of life.
    pub(crate) const WAKE: &str = "wake";
    /// Stops the node; done when it has let go of its port and its home.
    pub(crate) const STOP: &str = "stop";
}

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) v: u32,
    pub(super) op: String,
    pub(super) args: Box<RawValue>,
}

/// A line of an answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) v: u32,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) data: Box<RawValue>,
}

/// What a line of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// One of several things; more follows.
    Item,
    /// How far a call is, when it was asked for; more follows.
    Progress,
    /// The end, with what was asked for.
    Done,
    /// The end, with `code` and `message`.
    Error,
}

/// For requests that need no more said.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct NoArgs {}

/// Who to look for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FindArgs {
    /// The capability; empty for everybody.
    pub(crate) capability: String,
    /// How long to ask the mesh, in milliseconds.
    pub(crate) wait_ms: u64,
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallArgs {
    /// What is asked for.
    pub(crate) capability: String,
    /// With what, digit for digit.
    pub(crate) payload: Box<RawValue>,
    /// Whom to ask.
    #[serde(default)]
    pub(crate) to: Option<String>,
    /// The tracker to go through.
    #[serde(default)]
    pub(crate) via: Option<String>,
    /// Whether it rather fails than goes elsewhere on a tracker's word.
    #[serde(default)]
    pub(crate) once: bool,
    /// How long the answer may take, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Whether chunks are wanted.
    #[serde(default)]
    pub(crate) stream: bool,
    /// Whether the node itself may answer.
    #[serde(default)]
    pub(crate) local: bool,
    /// Whether somebody wants to know how far it is.
    #[serde(default)]
    pub(crate) progress: bool,
    /// How much of the time an agent that is away may be waited for, in milliseconds.
    #[serde(default)]
    pub(crate) wait_ms: u64,
}

/// Calls to be made and measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BenchArgs {
    /// Whom to ask; `None`: the one peer that is connected.
    #[serde(default)]
    pub(crate) to: Option<String>,
    /// The tracker to go through.
    #[serde(default)]
    pub(crate) via: Option<String>,
    /// What is asked for.
    pub(crate) capability: String,
    /// With what.
    pub(crate) payload: Box<RawValue>,
    /// How many calls are under way at a time.
    pub(crate) in_flight: usize,
    /// How many calls are made; `None`: as many as there is time for.
    #[serde(default)]
    pub(crate) calls: Option<u64>,
    /// How long calls are made that count, at most, in milliseconds.
    pub(crate) duration_ms: u64,
    /// How long calls are made before that, in milliseconds.
    #[serde(default)]
    pub(crate) warm_up_ms: u64,
    /// How long each answer may take, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Whether somebody wants to know how far it is.
    #[serde(default)]
    pub(crate) progress: bool,
}

/// How far a call is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The stage.
    pub(crate) stage: Stage,
    /// The name or id of who has the task, if it is known.
    pub(crate) with: Option<String>,
}

/// The stages of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It is with nobody yet, as far as is known.
    Looking,
    /// It was sent.
    Sent,
    /// The responder said that it works on it.
    Accepted,
}

/// Who is let in.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct AccessArgs {
    /// Whether the access file is to be read now.
    #[serde(default)]
    pub(crate) reload: bool,
    /// Whether those named in the settings are to be listed.
    #[serde(default)]
    pub(crate) list: bool,
    /// Of whom it is asked what counts now.
    #[serde(default)]
    pub(crate) ids: Vec<NodeId>,
}

/// Which events.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EventsArgs {
    /// The types, `*` at the end covers every ending.
    pub(crate) pattern: String,
}

/// A new key.
#[derive(Serialize, Deserialize)]
pub(crate) struct RotateArgs {
    /// The passphrase that the key is under, if it is under one.
    #[serde(default)]
    pub(crate) passphrase: Option<String>,
}

/// A key that is void.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RevokeArgs {
    /// The statement, as JSON text.
    pub(crate) statement: String,
}

/// An event to publish.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PublishArgs {
    /// Its type.
    pub(crate) event_type: String,
    /// What it carries.
    pub(crate) data: Box<RawValue>,
    /// For whom alone; empty: for whoever is interested.
    #[serde(default)]
    pub(crate) to: Vec<NodeId>,
}

/// What is offered from now on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OfferArgs {
    /// The capabilities.
    pub(crate) offers: Vec<Offer>,
}

/// What is offered no longer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WithdrawArgs {
    /// The capability.
    pub(crate) name: String,
}

/// Which task is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NextTaskArgs {
    /// Of these capabilities; empty: of all that are offered.
    #[serde(default)]
    pub(crate) capabilities: Vec<String>,
    /// How long to wait for one, in milliseconds.
    pub(crate) wait_ms: u64,
    /// How long the agent has for it without a sign, in milliseconds.
    pub(crate) lease_ms: u64,
}

/// The answer to a task: `result` or `error`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReplyArgs {
    /// The task, by the id it was handed out with.
    pub(crate) task_id: String,
    /// The result, digit for digit.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) result: Option<Box<RawValue>>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<ReplyError>,
}

/// Why a task has no result.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReplyError {
    /// A code of the mesh. Default: `HANDLER_ERROR`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// What happened, for the caller to read.
    pub(crate) message: String,
}

/// How far a task is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TaskProgressArgs {
    /// The task, by the id it was handed out with.
    pub(crate) task_id: String,
    /// What its caller is told, digit for digit; without, its lease begins anew and nothing is told.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<Box<RawValue>>,
}

/// Which call, and what of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CheckCallArgs {
    /// The call.
    pub(crate) id: String,
    /// The number of the first part of its answer that is wanted.
    #[serde(default)]
    pub(crate) after: u64,
    /// How long to wait for news, in milliseconds.
    #[serde(default)]
    pub(crate) wait_ms: u64,
}

/// Which call is taken back.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CancelCallArgs {
    /// The call.
    pub(crate) id: String,
}

/// Which events, from where on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NextEventsArgs {
    /// The types, `*` at the end covers every ending.
    pub(crate) pattern: String,
    /// The place after which they are wanted; `None`: those from now on.
    #[serde(default)]
    pub(crate) after: Option<String>,
    /// How long to wait for the first one, in milliseconds.
    pub(crate) wait_ms: u64,
}

/// How many of the latest events.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecentEventsArgs {
    /// At most.
    pub(crate) most: usize,
}

/// Whose agent is asked for a sign of life.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WakeArgs {
    /// The node: its name, its id or the beginning of it.
    pub(crate) node: String,
    /// The capability.
    pub(crate) capability: String,
    /// How long that may take, in milliseconds.
    pub(crate) timeout_ms: u64,
}

/// That something stands there, `null` too.
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(d).map(Some)
}
