//! The caller's side: asking for something, following it, and what comes back.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Attempt, CallError};
use crate::identity::NodeId;

use super::Node;

/// Which way an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Route {
    /// This node answered itself.
    Local,
    /// Over a direct connection to a provider that was known.
    Direct,
    /// Over a direct connection to a provider that a query flood found.
    Flood,
    /// Through a tracker.
    Relay,
}

/// How long a call took, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Until a provider was chosen and the task was sent, in milliseconds.
    pub sent_ms: f64,
    /// Until the first sign that it arrived (accepted, chunk or result), in milliseconds.
    pub first_sign_ms: f64,
    /// Until the result was here and checked, in milliseconds.
    pub total_ms: f64,
}

/// A call that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The task's id.
    pub id: String,
    /// The answer. Integers beyond 64 bits lose digits here; [`payload_json`](Self::payload_json) keeps them.
    pub payload: Value,
    /// Who answered: its signature over the result was checked.
    pub responder: NodeId,
    /// The name the responder gives itself.
    pub responder_name: String,
    /// Which way the answer came.
    pub route: Route,
    /// Links between us and the responder when it was found: 0 for ourselves, 1 for a peer; for [`Route::Flood`]
    /// the links the query travelled, for [`Route::Relay`] 1 + the trackers passed.
    pub hops: u32,
    /// The tracker the answer came through.
    pub via: Option<NodeId>,
    /// Whether the result's signature was made by the responder's key. Always `true` but for errors of unproven peers.
    pub verified: bool,
    /// How many chunks came before the result.
    pub chunks: u64,
    /// How long it took.
    pub timings: Timings,
    /// What was tried, in order.
    pub tried: Vec<Attempt>,
    #[serde(skip)]
    pub(crate) payload_text: Bytes,
}

impl Outcome {
    /// The payload's JSON text, digit for digit as the responder wrote it.
    pub fn payload_json(&self) -> &str {
        std::str::from_utf8(&self.payload_text).unwrap_or("null")
    }
}

/// A call being prepared; made by [`Node::call`]. Await it for the result, or [`start`](Self::start) it for a handle.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is awaited or started"]
pub struct Call {
    pub(crate) node: Node,
    pub(crate) capability: String,
    pub(crate) payload: Result<Bytes, String>,
    pub(crate) target: Option<String>,
    pub(crate) via: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) local: bool,
}

impl Call {
    /// Asks this node and no other: its id, the beginning of its id (at least 4 characters, unique among the nodes
    /// known), or its name.
    pub fn to(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }

    /// Sends through this connected tracker (id, beginning of the id, or name), whatever other way there is.
    pub fn via(mut self, tracker: impl Into<String>) -> Self {
        self.via = Some(tracker.into());
        self
    }

    /// How long the answer may take in all; it travels with the task, in whole seconds (rounded up). Default 60 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Allows this node itself to answer, if it provides the capability. Not allowed by default.
    pub fn allow_local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Starts the call. The error is about the call as it was put; whatever happens later, the handle tells.
    pub async fn start(self) -> Result<CallHandle, CallError> {
        todo!()
    }
}

impl IntoFuture for Call {
    type Output = Result<Outcome, CallError>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.start().await?.outcome().await })
    }
}

/// A call in flight. Dropping it cancels the call.
#[derive(Debug)]
pub struct CallHandle {
    pub(crate) id: String,
}

impl CallHandle {
    /// The task's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next chunk, in order; `None` when there will be no more. The responder waits when the caller doesn't take
    /// its chunks (at most 32 are on the way).
    pub async fn next_chunk(&mut self) -> Option<Value> {
        todo!()
    }

    /// Waits until the responder said that it has the task, or the call ended.
    pub async fn accepted(&mut self) {
        todo!()
    }

    /// Takes the call back: the responder is told to stop, and the outcome is the error `CANCELLED`.
    pub fn cancel(&self) {
        todo!()
    }

    /// Waits for the result. Chunks not taken before are passed over.
    pub async fn outcome(self) -> Result<Outcome, CallError> {
        todo!()
    }
}
