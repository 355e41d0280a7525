//! The caller's side: asking for something, following it, and what comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Node;
use super::driver::{Shared, lock};
use super::json::Json;
use super::news::{Hearer, Piece, news};
use super::payload::PayloadError;
use crate::error::{Attempt, CallError, Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::info::{Route, millis};
use crate::limits::MAX_TTL_S;
use crate::mesh::calls::WINDOW;
use crate::mesh::{CallDone, CallEvent, CallSpec, TaskId};
use crate::wire::is_name;

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
    /// The answer.
    pub payload: Json,
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
    /// Whether the task and all of its answer went through trackers sealed, so that they could not read it. `false` for
    /// the other routes, where there is no tracker in between.
    pub sealed: bool,
    /// Whether the result's signature was checked against the responder's key: `true` for every success, since a
    /// result that isn't signed so is never taken for one. (An answer of this node itself needs none.)
    pub verified: bool,
    /// How many chunks came before the result.
    pub chunks: u64,
    /// How long it took.
    pub timings: Timings,
    /// What was tried, in order.
    pub tried: Vec<Attempt>,
}

impl Outcome {
    /// The payload's JSON text, digit for digit as the responder wrote it.
    pub fn payload_json(&self) -> &str {
        self.payload.text()
    }

    /// The payload as a type of one's own.
    ///
    /// # Errors
    ///
    /// The answer is not what `T` expects.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.payload.bytes())
    }
}

/// A call being prepared; made by [`Node::call`]. Await it for the result, or [`start`](Self::start) it for a handle.
#[derive(Clone, Debug)]
#[must_use = "a call does nothing until it is awaited or started"]
pub struct Call {
    pub(crate) node: Node,
    pub(crate) capability: String,
    pub(crate) payload: Result<Bytes, PayloadError>,
    pub(crate) target: Option<String>,
    pub(crate) via: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) wait: Duration,
    pub(crate) local: bool,
    pub(crate) once: bool,
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

    /// Waits that long for the agent behind the capability, should it be away, instead of ending with
    /// [`ErrorCode::AgentAway`] at once: its node holds the task until the agent comes. Part of the
    /// [`timeout`](Self::timeout), which is to leave time for the work. Default: not at all.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Allows this node itself to answer, if it provides the capability. Not allowed by default.
    pub fn allow_local(mut self) -> Self {
        self.local = true;
        self
    }

    /// Rather fails than may run twice: what a tracker says, or could have arranged, is no proof that the task did not run.
    ///
    /// Without it a call whose task went through a tracker goes to another provider, or to the next run of the same node,
    /// when the tracker reports that it did not pass the task on, or brings the node's refusal (of which a later run may
    /// be the author, or after which it may bring the task once more). A tracker that lies has the work done twice that
    /// way. With it the same task is tried on other ways to the same node for 10 s; then the call ends with
    /// `PEER_GONE`, or with the refusal, and whether it ran is not known. Calls that need no tracker are not affected.
    /// Default: off.
    pub fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// Starts the call. The error is about the call as it was put; whatever happens later, the handle tells.
    ///
    /// # Errors
    ///
    /// `BAD_REQUEST` and `TOO_LARGE` for what can't be sent, `CANCELLED` when the node is stopped.
    pub async fn start(self) -> Result<CallHandle, CallError> {
        let refused = |code, message| CallError {
            code,
            message,
            retry_after: None,
            delivery: Delivery::NotSent,
            responder: None,
            tried: Vec::new(),
        };
        let parts = CallParts {
            payload: self.payload.map_err(|e| refused(e.code(), format!("the payload can't be sent: {e}")))?,
            capability: self.capability,
            target: self.target,
            via: self.via,
            timeout: self.timeout,
            wait: self.wait,
            local: self.local,
            once: self.once,
            except: None,
        };
        self.node.inner.shared.start_call(parts)
    }
}

impl IntoFuture for Call {
    type Output = Result<Outcome, CallError>;
    type IntoFuture = std::pin::Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            // It may be the last handle: the node must live until the answer is here.
            let _node = self.node.clone();
            self.start().await?.outcome().await
        })
    }
}

/// What a call is made of.
#[derive(Debug)]
pub(crate) struct CallParts {
    pub(crate) capability: String,
    pub(crate) payload: Bytes,
    pub(crate) target: Option<String>,
    pub(crate) via: Option<String>,
    pub(crate) timeout: Duration,
    pub(crate) wait: Duration,
    pub(crate) local: bool,
    pub(crate) once: bool,
    /// A node that must not be asked.
    pub(crate) except: Option<NodeId>,
}

impl Shared {
    /// Starts a call.
    pub(crate) fn start_call(self: &Arc<Self>, parts: CallParts) -> Result<CallHandle, CallError> {
        let refused = |code, message: &str| CallError {
            code,
            message: message.to_owned(),
            retry_after: None,
            delivery: Delivery::NotSent,
            responder: None,
            tried: Vec::new(),
        };
        if !is_name(&parts.capability) {
            let message = "a capability's name has 1 to 128 characters and no control characters";
            return Err(refused(ErrorCode::BadRequest, message));
        }
        if parts.timeout.is_zero() || parts.timeout > Duration::from_secs(MAX_TTL_S) {
            return Err(refused(ErrorCode::BadRequest, "the timeout must be above 0 and at most a day"));
        }
        let long = |t: &Option<String>| t.as_ref().is_some_and(|t| !is_name(t));
        if long(&parts.target) || long(&parts.via) {
            return Err(refused(ErrorCode::BadRequest, "a node is named by its id, the beginning of it, or its name"));
        }
        if self.closing.is_cancelled() {
            return Err(refused(ErrorCode::Cancelled, "this node is stopped"));
        }
        let (teller, events) = news();
        let id = self.with(|state, now, out| {
            let id = state.new_task_id(now);
            lock(&self.calls).insert(id.clone(), teller);
            let spec = CallSpec {
                id: id.clone(),
                capability: parts.capability,
                payload: parts.payload,
                target: parts.target,
                via: parts.via,
                timeout: parts.timeout,
                wait: parts.wait.min(parts.timeout),
                local: parts.local,
                once: parts.once,
                except: parts.except,
            };
            state.start_call(spec, now, out);
            id
        });
        Ok(CallHandle {
            shared: Arc::clone(self),
            text: id.to_text(),
            id,
            events,
            early: VecDeque::new(),
            accepted: false,
            ended: false,
            done: None,
        })
    }
}

/// A full window of chunks, `accepted` and the end: so much of a call's news may wait for its owner.
pub(super) const CHANNEL: usize = WINDOW as usize + 8;

/// A call in flight. Dropping it cancels the call; so does dropping the last handle to the node.
#[derive(Debug)]
#[must_use = "dropping a call cancels it"]
pub struct CallHandle {
    shared: Arc<Shared>,
    id: TaskId,
    /// The same, as its owner reads it.
    text: String,
    events: Hearer,
    /// Chunks that came while something else was waited for.
    early: VecDeque<Bytes>,
    accepted: bool,
    /// Whether the end has come, taken or not.
    ended: bool,
    done: Option<Result<CallDone, CallError>>,
}

impl CallHandle {
    /// The task's id.
    pub fn id(&self) -> &str {
        &self.text
    }

    /// The next chunk, in order; `None` when there will be no more. The responder waits when the caller doesn't take
    /// its chunks (at most 32 are on the way). Cancel safe, as is everything on this handle but
    /// [`outcome`](Self::outcome): dropping that cancels the call.
    pub async fn next_chunk(&mut self) -> Option<Value> {
        let text = self.next_chunk_text().await?;
        Some(serde_json::from_slice(&text).unwrap_or_default())
    }

    /// The same as JSON text, digit for digit.
    pub async fn next_chunk_json(&mut self) -> Option<String> {
        let text = self.next_chunk_text().await?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    async fn next_chunk_text(&mut self) -> Option<Bytes> {
        while self.early.is_empty() && self.done.is_none() {
            self.take_event().await;
        }
        let chunk = self.early.pop_front()?;
        self.shared.with(|state, _, out| state.chunks_taken(&self.id, 1, out));
        Some(chunk)
    }

    /// Waits until the responder said that it has the task, or the call ended. `true`: the responder has or had it.
    pub async fn accepted(&mut self) -> bool {
        while !self.accepted && self.done.is_none() {
            self.take_event().await;
        }
        self.accepted || matches!(self.done, Some(Ok(_)))
    }

    async fn take_event(&mut self) {
        match self.events.next().await {
            Some(Piece::Event(CallEvent::Accepted)) => self.accepted = true,
            Some(Piece::Event(CallEvent::Chunk(data))) => {
                self.accepted = true;
                self.early.push_back(data);
            }
            Some(Piece::Event(CallEvent::Done(done))) => self.end(*done),
            Some(Piece::End(done)) => self.end(done),
            None => {
                self.ended = true;
                self.done = Some(Err(CallError {
                    code: ErrorCode::Cancelled,
                    message: "this node stopped".to_owned(),
                    retry_after: None,
                    delivery: if self.accepted { Delivery::Accepted } else { Delivery::Unconfirmed },
                    responder: None,
                    tried: Vec::new(),
                }));
            }
        }
    }

    fn end(&mut self, done: Result<CallDone, CallError>) {
        self.ended = true;
        self.done = Some(done);
    }

    /// Takes the call back: the responder is told to stop, and the outcome is the error `CANCELLED`.
    pub fn cancel(&self) {
        self.shared.with(|state, now, out| state.cancel_call(&self.id, now, out));
    }

    /// Waits for the result. Chunks not taken before are passed over. Dropping the future cancels the call; to wait for a
    /// while and then do something else, await it by reference (`&mut`, pinned).
    ///
    /// # Errors
    ///
    /// Whatever ended the call instead: see [`CallError`].
    pub async fn outcome(mut self) -> Result<Outcome, CallError> {
        loop {
            if let Some(done) = self.done.take() {
                return done.map(|d| outcome_of(std::mem::take(&mut self.text), d));
            }
            let waiting = self.early.len() as u64;
            if waiting > 0 {
                self.early.clear();
                self.shared.with(|state, _, out| state.chunks_taken(&self.id, waiting, out));
            }
            self.take_event().await;
        }
    }
}

fn outcome_of(id: String, done: CallDone) -> Outcome {
    Outcome {
        id,
        // For as long as its owner likes, and without what came with it.
        payload: Json::new(Bytes::copy_from_slice(&done.payload)),
        responder: done.responder,
        responder_name: done.responder_name,
        route: done.route,
        hops: done.hops,
        via: done.via,
        sealed: done.sealed,
        verified: true,
        chunks: done.chunks,
        timings: Timings {
            sent_ms: millis(done.timings[0]),
            first_sign_ms: millis(done.timings[1]),
            total_ms: millis(done.timings[2]),
        },
        tried: done.tried.into_iter().map(Into::into).collect(),
    }
}

impl Drop for CallHandle {
    fn drop(&mut self) {
        if !self.ended {
            self.cancel();
        }
    }
}
