//! Running a task's handler, and what becomes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::call::CallParts;
use super::context::Context;
use super::driver::{Shared, lock};
use super::payload;
use super::task::{BoxHandler, Payload, Task, TaskError, TaskResult, boxed};
use super::threads;
use crate::error::ErrorCode;
use crate::mesh::{TaskKey, TaskToRun};
use crate::wire::WireError;

/// How long a handler may go on after nobody waits for it any more, before it is dropped where it awaits.
const GRACE: Duration = Duration::from_secs(2);

/// How long a handler may wait for a thread. One that is ready begins within microseconds, so this long means that
/// others hold them all, and then another node may be asked.
const BEGIN: Duration = Duration::from_secs(5);

/// A task whose handler has not come back.
#[derive(Debug)]
pub(crate) struct RunningTask {
    /// Cancelled when nobody waits for it any more.
    pub(crate) token: CancellationToken,
    /// Notified when chunks may be sent again.
    pub(crate) credit: Arc<Notify>,
}

impl Shared {
    /// Hands a task to its handler, on a tokio task of its own.
    pub(crate) fn run_task(&self, key: TaskKey, task: TaskToRun) {
        let Some(shared) = self.strong() else { return };
        let token = self.stop.child_token();
        let credit = Arc::new(Notify::new());
        let running = RunningTask { token: token.clone(), credit: Arc::clone(&credit) };
        lock(&self.tasks).insert(key.clone(), running);
        let context = Context {
            shared: Arc::clone(&shared),
            key: key.clone(),
            conn: task.conn,
            token: token.clone(),
            credit,
            deadline: self.instant(task.deadline),
            caller: task.caller,
        };
        self.spawn(async move {
            let body = match shared.handler_for(&task) {
                Some((handler, own)) => {
                    // What is built in never blocks, and is answered also when every handler does.
                    let elsewhere = (shared.apart && own).then(threads::handlers).flatten();
                    guarded(handler, into_task(task), context, &token, elsewhere).await
                }
                None => Err(WireError::new(
                    ErrorCode::UnknownCapability,
                    format!("{:?} is announced here, but nothing answers it", task.capability),
                )),
            };
            lock(&shared.tasks).remove(&key);
            shared.with(|state, now, out| state.finish_task(&key, body, now, out));
        });
    }

    /// What answers a task, and whether it is the owner's.
    fn handler_for(&self, task: &TaskToRun) -> Option<(BoxHandler, bool)> {
        let handlers = self.handlers.read().unwrap_or_else(PoisonError::into_inner);
        if task.gateway {
            return Some((boxed(pass_on), false));
        }
        if let Some(handler) = handlers.by_capability.get(&task.capability) {
            return Some((Arc::clone(handler), true));
        }
        match task.capability.as_str() {
            "ping" => Some((boxed(ping), false)),
            "health" => Some((boxed(health), false)),
            "relay" => Some((boxed(relay), false)),
            _ => Some((handlers.default.clone()?, true)),
        }
    }
}

fn into_task(task: TaskToRun) -> Task {
    Task {
        id: task.id,
        capability: task.capability,
        payload: serde_json::from_slice(&task.payload).unwrap_or_default(),
        caller: task.caller,
        proven: task.proven,
        via: task.via,
        sealed: task.sealed,
        timestamp: task.timestamp,
        ttl: Duration::from_secs(task.ttl_s),
        payload_text: task.payload,
    }
}

/// Runs a handler so that its panic, its error and its deafness to cancellation are all just answers.
async fn guarded(
    handler: BoxHandler,
    task: Task,
    context: Context,
    token: &CancellationToken,
    elsewhere: Option<&Handle>,
) -> Result<Bytes, WireError> {
    // Taken once: by the handler that begins, or by who has waited long enough for it to begin.
    let begins = Arc::new(AtomicBool::new(false));
    let taken = Arc::clone(&begins);
    let work = async move {
        match taken.swap(true, Ordering::AcqRel) {
            false => threads::watched(handler, task, context).await,
            true => Err(never_began()),
        }
    };
    // A task of its own: a panic ends there, and it can be dropped from outside.
    let mut running = AbortOnDrop(match elsewhere {
        Some(threads) => threads.spawn(work),
        None => tokio::spawn(work),
    });
    let never = async {
        tokio::time::sleep(BEGIN).await;
        if begins.swap(true, Ordering::AcqRel) {
            std::future::pending::<()>().await;
        }
    };
    let joined = tokio::select! {
        joined = &mut running.0 => Some(joined),
        () = never => return to_body(Err(never_began())),
        () = async { token.cancelled().await; tokio::time::sleep(GRACE).await } => None,
    };
    match joined {
        Some(Ok(result)) => to_body(result),
        Some(Err(error)) if error.is_panic() => {
            let panic = error.into_panic();
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default();
            tracing::error!(panic = %text, "a handler panicked");
            // The text may say more of this machine than its caller should know; the log has it.
            Err(WireError::new(ErrorCode::HandlerError, "the handler panicked"))
        }
        Some(Err(_)) | None => Err(WireError::new(ErrorCode::Cancelled, "the handler was stopped")),
    }
}

fn never_began() -> TaskError {
    let message = "every thread for handlers is held by one that blocks; this task was not begun";
    tracing::warn!("{message}");
    TaskError::overloaded(message, BEGIN)
}

struct AbortOnDrop(tokio::task::JoinHandle<Result<Payload, TaskError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn to_body(result: Result<Payload, TaskError>) -> Result<Bytes, WireError> {
    match result {
        Ok(payload) => payload.into_bytes().map_err(|e| {
            let message = format!("the handler's result can't be sent: {e}");
            WireError::new(e.code(), message)
        }),
        Err(mut error) => {
            payload::cut(&mut error.message);
            let (not_run, retry_after) = (error.is_not_run(), error.retry_after);
            let error = WireError::new(error.code, error.message);
            let error = if not_run { error.not_run() } else { error };
            Err(match retry_after {
                Some(wait) => error.retry_after_s(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
                None => error,
            })
        }
    }
}

/// Built in: a sign of life.
async fn ping(task: Task, context: Context) -> TaskResult {
    let shared = &context.shared;
    Ok(json!({ "pong": task.payload, "node_id": shared.me.to_string(), "name": shared.name }))
}

/// Built in: how the node is.
async fn health(_: Task, context: Context) -> TaskResult {
    let shared = &context.shared;
    let view = shared.read(|state, _| state.view());
    Ok(json!({
        "status": if shared.closing.is_cancelled() { "stopping" } else { "ok" },
        "name": shared.name,
        "node_id": shared.me.to_string(),
        "version": shared.net.version,
        "uptime_s": shared.start.elapsed().as_secs(),
        "peers": view.peers + view.unproven_peers,
        "tasks_running": view.tasks_running,
    }))
}

/// What the Python package asks a tracker for: `{target, capability, payload, ttl_s}`, sent on in our name.
async fn relay(task: Task, context: Context) -> Result<Payload, TaskError> {
    #[derive(serde::Deserialize)]
    struct Inner<'a> {
        #[serde(default)]
        target: String,
        capability: String,
        #[serde(borrow)]
        payload: Option<&'a serde_json::value::RawValue>,
        ttl_s: Option<f64>,
    }
    let wrong = |e: serde_json::Error| {
        let message = format!("the payload must be {{target, capability, payload, ttl_s}}: {e}");
        TaskError::with_code(ErrorCode::BadRequest, message)
    };
    let inner: Inner<'_> = serde_json::from_str(task.payload_json()).map_err(wrong)?;
    let text = inner.payload.map_or("{}", serde_json::value::RawValue::get);
    let ttl = inner.ttl_s.filter(|s| (0.001..86_400.0).contains(s)).map(Duration::from_secs_f64);
    // It names nodes by what it knows of them, which may be `first 12 characters of the id@host:port`.
    let target = match inner.target.split_once('@') {
        Some((id, _)) if id.len() == 12 => id.to_owned(),
        _ => inner.target,
    };
    let target = Some(target).filter(|t| !t.is_empty());
    // By capability: anybody but the caller, whose handler may be what waits for this.
    let except = target.is_none().then_some(task.caller);
    let parts = CallParts {
        capability: inner.capability.clone(),
        payload: payload::from_json(text).map_err(|e| TaskError::with_code(e.code(), e.to_string()))?,
        target,
        via: None,
        timeout: ttl.unwrap_or(context.remaining()).min(context.remaining()),
        local: true,
        once: false,
        except,
    };
    answer_of(parts, &context).await
}

/// A Python node asked for what somebody else provides.
async fn pass_on(task: Task, context: Context) -> Result<Payload, TaskError> {
    let parts = CallParts {
        capability: task.capability.clone(),
        // As written by Python it isn't canonical, and is signed anew.
        payload: payload::from_json(task.payload_json()).map_err(|e| TaskError::with_code(e.code(), e.to_string()))?,
        target: None,
        via: None,
        timeout: context.remaining(),
        local: false,
        once: false,
        except: Some(task.caller),
    };
    answer_of(parts, &context).await
}

async fn answer_of(parts: CallParts, context: &Context) -> Result<Payload, TaskError> {
    let to_error = |e: crate::error::CallError| {
        let mut error = TaskError::with_code(e.code, e.message);
        error.retry_after = e.retry_after;
        error
    };
    let handle = context.shared.start_call(parts).map_err(to_error)?;
    let outcome = handle.outcome().await.map_err(to_error)?;
    // The answer keeps its digits: it is handed on as the text it came as.
    Ok(Payload::json(outcome.payload_json()))
}
