//! The responder's side: a task, what a handler is given with it, and what it answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::context::ChunkError;
use super::json::Json;
use super::payload::{self, PayloadError};
use crate::error::{CallError, Error, ErrorCode};
use crate::identity::NodeId;

/// Something another node asks for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Task {
    /// The task's id, chosen by the caller; unique together with [`caller`](Self::caller).
    pub id: String,
    /// What is asked for.
    pub capability: String,
    /// With what.
    pub payload: Json,
    /// Who asks. Its signature over the task was checked.
    pub caller: NodeId,
    /// Whether the caller's connection is bound to its key. `false` for the Python package's nodes: the task is
    /// signed by them all the same.
    pub proven: bool,
    /// The tracker it came through, if it came through one.
    pub via: Option<NodeId>,
    /// Whether it came sealed: no tracker could read it, and none can read the answer. `false` for what came over a connection
    /// of its caller's own, where there is no tracker to read it.
    pub sealed: bool,
    /// When the caller issued it, in UNIX seconds by the caller's clock.
    pub timestamp: i64,
    /// The caller's time to live for it.
    pub ttl: Duration,
    /// How long it may wait for whoever works on it, should they be away; part of [`ttl`](Self::ttl). Zero: not at all.
    pub wait: Duration,
}

impl Task {
    /// The payload's JSON text, digit for digit as the caller wrote it.
    pub fn payload_json(&self) -> &str {
        self.payload.text()
    }

    /// The payload as a type of one's own.
    ///
    /// # Errors
    ///
    /// `BAD_REQUEST` with what is wrong about the payload: for the caller to read, as it stands.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, TaskError> {
        serde_json::from_slice(self.payload.bytes())
            .map_err(|e| TaskError::with_code(ErrorCode::BadRequest, format!("the payload is not as expected: {e}")))
    }
}

/// What a handler answers when it can't give a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct TaskError {
    /// The code, [`ErrorCode::HandlerError`] unless said otherwise.
    pub code: ErrorCode,
    /// What happened, for the caller to read.
    pub message: String,
    /// When trying again makes sense, in whole seconds on the wire (rounded up).
    pub retry_after: Option<Duration>,
    not_run: bool,
}

impl TaskError {
    /// A handler's own error.
    pub fn new(message: impl Into<String>) -> Self {
        Self::with_code(ErrorCode::HandlerError, message)
    }

    /// An error with another code, such as [`ErrorCode::BadRequest`] for a payload that makes no sense.
    pub fn with_code(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, not_run: false }
    }

    /// The handler is full of work and did nothing for the task; the caller may come back after that time, and its node
    /// asks another provider first if there is one.
    pub fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        let mut error = Self::with_code(ErrorCode::Overloaded, message).not_run();
        error.retry_after = Some(retry_after);
        error
    }

    /// Says that nothing was done for the task, so that the caller's node may ask another provider.
    pub fn not_run(mut self) -> Self {
        self.not_run = true;
        self
    }

    pub(crate) fn is_not_run(&self) -> bool {
        self.not_run
    }
}

impl From<String> for TaskError {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<&str> for TaskError {
    fn from(message: &str) -> Self {
        Self::new(message)
    }
}

impl From<std::io::Error> for TaskError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for TaskError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<Box<dyn std::error::Error + Send + Sync>> for TaskError {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self::new(error.to_string())
    }
}

impl From<ChunkError> for TaskError {
    fn from(error: ChunkError) -> Self {
        let code = match error {
            ChunkError::Over => ErrorCode::Cancelled,
            ChunkError::TooLarge { .. } => ErrorCode::TooLarge,
            ChunkError::Invalid(_) => ErrorCode::HandlerError,
        };
        Self::with_code(code, error.to_string())
    }
}

/// A call that a handler made for its task failed. The code is [`ErrorCode::HandlerError`], as the codes of that call
/// say nothing about this task; its text names them.
impl From<CallError> for TaskError {
    fn from(error: CallError) -> Self {
        let mut own = Self::new(format!("a call made for this task failed: {error}"));
        own.retry_after = error.retry_after;
        own
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        Self::new(error.to_string())
    }
}

/// What most handlers' futures give. Any `Result<impl Into<Payload>, TaskError>` will do.
pub type TaskResult = Result<Value, TaskError>;

/// The payload of an answer: a JSON value, or JSON text to be sent digit for digit.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload(Form);

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Value(Value),
    Text(String),
    /// As it came from somebody else: JSON for certain.
    Raw(Bytes),
}

impl Payload {
    /// JSON text, for numbers that no [`Value`] holds. What isn't JSON is found out when it is sent, and becomes an error
    /// result.
    pub fn json(text: impl Into<String>) -> Self {
        Self(Form::Text(text.into()))
    }

    pub(crate) fn raw(json: Bytes) -> Self {
        Self(Form::Raw(json))
    }

    /// The payload as a value; what isn't JSON becomes `null`.
    pub fn into_value(self) -> Value {
        match self.0 {
            Form::Value(value) => value,
            Form::Text(text) => serde_json::from_str(&text).unwrap_or_default(),
            Form::Raw(json) => serde_json::from_slice(&json).unwrap_or_default(),
        }
    }

    pub(crate) fn into_bytes(self) -> Result<Bytes, PayloadError> {
        match self.0 {
            Form::Value(value) => payload::from_value(&value),
            Form::Text(text) => payload::from_json(&text),
            Form::Raw(json) => payload::from_raw(&json),
        }
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self(Form::Value(value))
    }
}

pub(crate) type BoxHandler =
    Arc<dyn Fn(Task, super::Context) -> Pin<Box<dyn Future<Output = Result<Payload, TaskError>> + Send>> + Send + Sync>;

pub(crate) fn boxed<F, Fut, P>(handler: F) -> BoxHandler
where
    F: Fn(Task, super::Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<P, TaskError>> + Send + 'static,
    P: Into<Payload>,
{
    Arc::new(move |task, context| {
        let answer = handler(task, context);
        Box::pin(async move { answer.await.map(Into::into) })
    })
}
