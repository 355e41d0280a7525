//! Schemas of what a node tells of itself and others. The values themselves are made elsewhere, and say more as time goes on.
#![allow(dead_code, reason = "only their shape is used, in the description of the API")]

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use super::tasks::ReplyError;
use crate::error::ErrorCode;

/// A text of a form.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $pattern:literal;)+) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new().schema_type(Type::String).pattern(Some($pattern)).build().into()
            }
        }

        impl ToSchema for $name {}
    )+};
}

texts! {
    /// The name of a capability.
    Name = r"^[^\u0000-\u001f\u007f-\u009f]{1,128}$";
    /// The name of a capability, or nothing.
    MaybeName = r"^[^\u0000-\u001f\u007f-\u009f]{0,128}$";
    /// A node's id.
    NodeId = "^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$";
    /// The number of a part of an answer.
    PartNumber = "^[0-9]{1,18}$";
    /// A place in a feed of events.
    Place = "^[0-9a-f]{1,16}-[0-9]{1,18}$";
}

/// A code of the mesh.
pub(super) struct Code;

impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let codes = ErrorCode::ALL.iter().map(|code| code.as_str());
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(codes)).build().into()
    }
}

impl ToSchema for Code {}

/// What comes in a stream of server-sent events, each with its fields.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamEvent {
    /// What it is; without one it is an event of the mesh.
    event: Option<String>,
    /// Its place, to come back to with `Last-Event-ID`.
    id: Option<String>,
    /// JSON.
    data: String,
}

/// That it worked.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"result": {"summary": "Best and worst of times."}}))]
pub(super) struct ReplyResult {
    /// The result: any JSON, which keeps its digits.
    result: Value,
}

/// That it did not.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyFailure {
    /// Why there is no result.
    error: ReplyError,
}

/// The answer to a task.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Reply {
    /// That it worked.
    Result(ReplyResult),
    /// That it did not.
    Failure(ReplyFailure),
}

/// One step of finding somebody, and how it went.
#[derive(Serialize, ToSchema)]
pub(super) struct Attempt {
    /// `local`, `table`, `connect`, `flood`, `dht` or `relay`.
    #[schema(example = "table")]
    step: String,
    /// The node it concerned, if one.
    #[schema(required = true)]
    node: Option<String>,
    /// What came of it, in words.
    result: String,
    /// When it ended, in milliseconds from the beginning.
    at_ms: f64,
}

/// What a node can do.
#[derive(Serialize, ToSchema)]
pub(super) struct Capability {
    /// `agent`, `model` or `tool`.
    #[schema(example = "agent")]
    kind: String,
    /// The name it is found and called by.
    #[schema(example = "summarize")]
    name: String,
    /// More that its node says of it: `description`; `reach`, how its agent is reached, and when that was seen.
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
}

/// A node that was found.
#[derive(Serialize, ToSchema)]
pub(super) struct Agent {
    /// Its id.
    node_id: String,
    /// The name it gives itself.
    name: String,
    /// What it can do.
    capabilities: Vec<Capability>,
    /// Where it can be dialled; empty when it can't.
    addrs: Vec<String>,
    /// The trackers it is reached through.
    trackers: Vec<String>,
    /// Its role as a tracker.
    tracker: String,
    /// Whether this node is connected to it.
    connected: bool,
    /// Whether its id is proven.
    proven: bool,
    /// How it was found: `self`, `peer`, `table`, `flood` or `dht`.
    found: String,
    /// How many links away it is, when known.
    #[schema(required = true)]
    hops: Option<u32>,
}

/// A node that this one is connected to, or reaches through a tracker.
#[derive(Serialize, ToSchema)]
pub(super) struct Peer {
    /// Its id.
    node_id: String,
    /// The name it gives itself.
    name: String,
    /// Whether its connection is bound to its key.
    proven: bool,
    /// The connection's address.
    addr: String,
    /// Whether it connected to this node.
    inbound: bool,
    /// Whether the connection is encrypted.
    encrypted: bool,
    /// How it was found.
    found: String,
    /// `direct`, `inbound`, `punched` or `relay`.
    way: String,
    /// The tracker it is reached through, if it is not connected.
    via: Option<String>,
    /// That tracker's name.
    via_name: Option<String>,
    /// What is to be said of the way.
    note: Option<String>,
    /// Its role as a tracker.
    tracker: String,
    /// What it can do.
    capabilities: Vec<Capability>,
    /// The last round-trip time, in milliseconds.
    #[schema(required = true)]
    rtt_ms: Option<f64>,
    /// How long it is connected, in seconds.
    connected_s: u64,
    /// Calls of this node it is working on.
    in_flight: u64,
    /// The program version it names.
    version: String,
    /// What it can do beyond the first version of the protocol.
    features: Vec<String>,
}

/// A peer that was configured, and is not connected.
#[derive(Serialize, ToSchema)]
pub(super) struct MissingPeer {
    /// As it was named: `[NODE_ID@]HOST:PORT`.
    peer: String,
    /// Who must answer there, or answered last.
    #[schema(required = true)]
    node_id: Option<String>,
    /// `false`.
    connected: bool,
    /// The reason that the last dial or connection ended for, if one of the sides gave one.
    #[schema(required = true)]
    reason: Option<String>,
    /// How the last dial or connection ended, in words.
    message: String,
    /// In how many milliseconds it is dialled next.
    #[schema(required = true)]
    next_dial_ms: Option<u64>,
    /// How many dials have failed since one worked.
    failures: u64,
}

/// The state of a node.
#[derive(Serialize, ToSchema)]
pub(super) struct Node {
    /// Its id.
    node_id: String,
    /// Its name.
    name: String,
    /// The program version.
    version: String,
    /// Since when it runs, in seconds.
    uptime_s: u64,
    /// Where it listens.
    listen: Vec<String>,
    /// The addresses that others learn.
    addrs: Vec<String>,
    /// What it can do.
    capabilities: Vec<Capability>,
    /// What it is interested in.
    interests: Vec<String>,
    /// Its role as a tracker.
    tracker: String,
    /// Counters and gauges.
    #[schema(value_type = Object)]
    metrics: Value,
}

/// How long it took, in milliseconds from the beginning.
#[derive(Serialize, ToSchema)]
pub(super) struct Timings {
    /// Until the task was sent.
    sent_ms: f64,
    /// Until the first sign that it arrived.
    first_sign_ms: f64,
    /// Until the result was here and checked.
    total_ms: f64,
}

/// A call that succeeded.
#[derive(Serialize, ToSchema)]
pub(super) struct Outcome {
    /// The task's id.
    id: String,
    /// The answer, digit for digit.
    payload: Value,
    /// Who answered: its signature over the result was checked.
    responder: String,
    /// The name the responder gives itself.
    responder_name: String,
    /// Which way the answer came: `local`, `direct`, `flood` or `relay`.
    #[schema(example = "direct")]
    route: String,
    /// How many links away the responder is.
    hops: u32,
    /// The tracker the answer came through.
    #[schema(required = true)]
    via: Option<String>,
    /// Whether trackers on the way could not read it.
    sealed: bool,
    /// `true`: what is not signed by the responder is no success.
    verified: bool,
    /// How many chunks came before the result.
    chunks: u64,
    /// How long it took.
    timings: Timings,
    /// What was tried, in order.
    tried: Vec<Attempt>,
}

/// How an agent is reached, as its own node saw it.
#[derive(Serialize, ToSchema)]
pub(super) struct Reach {
    /// `process`, `exec`, `webhook`, `poll` (it comes for its tasks), `a2a` or `nobody`.
    #[schema(example = "poll")]
    by: String,
    /// Whether that worked when it was last tried.
    ok: Option<bool>,
    /// When that was, in UNIX seconds by the clock of the node that saw it.
    at: u64,
    /// Why it did not work.
    note: Option<String>,
}

/// What a capability is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Somebody who works on tasks.
    Agent,
    /// A model.
    Model,
    /// A tool.
    Tool,
}

/// A node to which an event could not be sent.
#[derive(Serialize, ToSchema)]
pub(super) struct NotSent {
    /// Which.
    node_id: String,
    /// Why.
    why: String,
}

/// An event that reached this node.
#[derive(Serialize, ToSchema)]
pub(super) struct Event {
    /// Its place: to be given as `after`, or as `Last-Event-ID`.
    cursor: String,
    /// Its id, unique together with `origin`.
    id: String,
    /// Its type.
    #[schema(example = "build.done")]
    event_type: String,
    /// What it carries.
    data: Value,
    /// The node that published it.
    origin: String,
    /// When it was published, in UNIX seconds by the origin's clock.
    timestamp: i64,
    /// Whether the origin's signature proves it.
    proven: bool,
}
