//! Running a task's handler, and what becomes of it.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::call::CallParts;
use super::context::Context;
use super::driver::{Shared, lock};
use super::finish::{self, Finished};
use super::json::Json;
use super::payload;
use super::running::Running;
use super::task::{BoxHandler, Payload, Task, TaskError, TaskResult, boxed};
use super::threads::{self, Later, Work};
use crate::error::ErrorCode;
use crate::limits::WAKE;
use crate::mesh::{TaskKey, TaskToRun};
use crate::wire::WireError;

/// How long a handler may go on after nobody waits for it any more, before it is dropped where it awaits.
const GRACE: Duration = Duration::from_secs(2);

/// How long a handler may wait for a thread. One that is ready begins within microseconds, so this long means that
/// others hold them all, and then another node may be asked.
const BEGIN: Duration = Duration::from_secs(5);

/// How often it is looked whether a task has waited too long to begin, or to end.
const LOOK: Duration = Duration::from_millis(500);

/// The same when the node ends, which waits for the last task.
const LAST_LOOK: Duration = Duration::from_millis(10);

/// A task whose handler has not come back.
#[derive(Debug)]
pub(crate) struct RunningTask {
    pub(crate) running: Arc<Running>,
    since: Instant,
    /// When it was first seen that nobody waits for it any more.
    over: Option<Instant>,
    /// The node has not stopped while this is there.
    _counted: TaskTrackerToken,
}

impl Shared {
    /// Hands a task to its handler, on a tokio task of its own; or gives what is to be begun on the threads for handlers, with
    /// what else there is.
    #[must_use]
    pub(super) fn run_task(&self, key: TaskKey, mut task: TaskToRun) -> Option<(Work, Arc<Running>)> {
        let shared = self.strong()?;
        let Some((handler, own)) = self.handler_for(&task) else {
            let message = format!("{:?} is announced here, but nothing answers it", task.capability);
            let body = Err(WireError::new(ErrorCode::UnknownCapability, message));
            self.with(|state, now, out| state.finish_task(&key, body, now, out));
            return None;
        };
        let running = Arc::new(Running::default());
        let entry = RunningTask {
            running: Arc::clone(&running),
            since: Instant::now(),
            over: None,
            _counted: self.spawned.token(),
        };
        let first = {
            let mut tasks = lock(&self.tasks);
            let first = tasks.is_empty();
            tasks.insert(key.clone(), entry);
            first
        };
        if first {
            self.tasks_begin.notify_one();
        }
        // Whoever ends the node cancels those that it finds, after it has said so.
        if self.stop.is_cancelled() {
            running.cancel();
        }
        // Nobody reads the message any more, and it is freed where it was made.
        task.message = None;
        let context = Context {
            shared: Arc::clone(&shared),
            key: key.clone(),
            conn: task.conn,
            running: Arc::clone(&running),
            deadline: self.instant(task.deadline),
            caller: task.caller,
        };
        // The answer is made, signed and sent where the handler ran: going back to another thread would cost as much
        // as the signature.
        let over = Over { shared, key, body: None };
        let beginning = Beginning { handler, task: into_task(task), context, over };
        // What is built in never blocks, and is answered also when every handler does.
        if self.apart && own {
            return Some((Work::Handler(beginning), running));
        }
        running.on(self.runtime.spawn(beginning.whole()).abort_handle());
        None
    }

    /// Has handlers begun on their threads; on those of the connections if there are none.
    pub(super) fn begin(&self, works: Vec<(Work, Arc<Running>)>) {
        if works.is_empty() {
            return;
        }
        match threads::handlers() {
            Some(threads) => threads::begin(threads, works),
            None => {
                for (work, running) in works {
                    running.on(self.runtime.spawn(work.whole()).abort_handle());
                }
            }
        }
    }

    /// What came of a task, unless it was given up.
    fn task_over(self: &Arc<Self>, key: TaskKey, body: Result<Bytes, WireError>) {
        // Whoever takes it out answers it.
        let Some(task) = lock(&self.tasks).remove(&key) else { return };
        finish::finish(Finished { shared: Arc::clone(self), key, body, task });
    }

    /// Gives up tasks that no thread was free for, and those that go on when nobody waits for them any more. One look at all
    /// of them now and then: a timer for each would cost more than most handlers do.
    pub(crate) async fn watch_tasks(self: Arc<Self>) {
        loop {
            if lock(&self.tasks).is_empty() {
                tokio::select! {
                    () = self.tasks_begin.notified() => {}
                    () = self.stop.cancelled() => if lock(&self.tasks).is_empty() { return },
                }
            }
            match self.stop.is_cancelled() {
                true => tokio::time::sleep(LAST_LOOK).await,
                false => tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = self.stop.cancelled() => {}
                },
            }
            let mut given_up = Vec::new();
            let now = Instant::now();
            for (key, task) in &mut *lock(&self.tasks) {
                if task.running.is_cancelled() && now - *task.over.get_or_insert(now) >= GRACE {
                    given_up.push((key.clone(), Arc::clone(&task.running), Err(stopped())));
                } else if now - task.since >= BEGIN && task.running.begins() {
                    given_up.push((key.clone(), Arc::clone(&task.running), to_body(Err(never_began()))));
                }
            }
            for (key, running, body) in given_up {
                running.end();
                self.task_over(key, body);
            }
        }
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
            WAKE => Some((boxed(wake), false)),
            "relay" => Some((boxed(relay), false)),
            _ => Some((handlers.default.clone()?, true)),
        }
    }
}

fn into_task(task: TaskToRun) -> Task {
    Task {
        id: task.id,
        capability: task.capability,
        payload: Json::new(task.payload),
        caller: task.caller,
        proven: task.proven,
        via: task.via,
        sealed: task.sealed,
        timestamp: task.timestamp,
        ttl: Duration::from_secs(task.ttl_s),
        wait: Duration::from_secs(task.wait_s),
    }
}

/// A handler that is yet to begin, with all that belongs to it.
pub(super) struct Beginning {
    handler: BoxHandler,
    task: Task,
    context: Context,
    over: Over,
}

impl Beginning {
    /// Its first step, which is the last one of most handlers. Gives what is left.
    pub(super) fn step(self) -> Option<Later> {
        let Self { handler, task, context, over } = self;
        if !context.running.begins() {
            return None;
        }
        let capability = task.capability.clone();
        let began = Instant::now();
        let step = || {
            let mut running = handler(task, context);
            match running.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
                Poll::Ready(result) => {
                    // What it leaves behind may panic as well.
                    drop(running);
                    Ok(result)
                }
                Poll::Pending => Err(running),
            }
        };
        let stepped = catch_unwind(AssertUnwindSafe(step));
        threads::tell(&capability, began.elapsed());
        match stepped {
            Ok(Ok(result)) => over.with(to_body(result)),
            // There it is polled once more, with somebody to wake.
            Ok(Err(running)) => return Some(Box::pin(over.after(threads::watched(capability, running)))),
            Err(panic) => over.with(Err(panicked(&*panic))),
        }
        None
    }

    /// All of it, for a task of its own.
    pub(super) fn whole(self) -> Later {
        let Self { handler, task, context, over } = self;
        Box::pin(async move {
            if context.running.begins() {
                let capability = task.capability.clone();
                over.after(async move { threads::watched(capability, handler(task, context)).await }).await;
            }
        })
    }
}

/// Ends a task when its handler's future does, also when that is dropped: with the runtime, or where it awaits.
struct Over {
    shared: Arc<Shared>,
    key: TaskKey,
    body: Option<Result<Bytes, WireError>>,
}

impl Over {
    /// The handler has come back.
    fn with(mut self, body: Result<Bytes, WireError>) {
        self.body = Some(body);
    }

    /// The handler comes back when its future does.
    async fn after(self, running: impl Future<Output = Result<Payload, TaskError>>) {
        self.with(match caught(running).await {
            Ok(result) => to_body(result),
            Err(panic) => Err(panicked(&*panic)),
        });
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        let body = self.body.take().unwrap_or_else(|| Err(stopped()));
        let key = self.key.clone();
        self.shared.task_over(key, body);
    }
}

fn stopped() -> WireError {
    WireError::new(ErrorCode::Cancelled, "the handler was stopped")
}

/// Runs a handler's future so that its panic is only an answer; a panic while it is dropped, too.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, Box<dyn Any + Send>> {
    let mut future = pin!(Some(future));
    let result = poll_fn(|cx| {
        let poll = || future.as_mut().as_pin_mut().map_or(Poll::Pending, |future| future.poll(cx));
        match catch_unwind(AssertUnwindSafe(poll)) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await;
    // Nothing of it is looked at any more.
    catch_unwind(AssertUnwindSafe(|| future.set(None))).and(result)
}

fn panicked(panic: &(dyn Any + Send)) -> WireError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    tracing::error!(panic = %text, "a handler panicked");
    // The text may say more of this machine than its caller should know; the log has it.
    WireError::new(ErrorCode::HandlerError, "the handler panicked")
}

fn never_began() -> TaskError {
    let message = "every thread for handlers is held by one that blocks; this task was not begun";
    tracing::warn!("{message}");
    TaskError::overloaded(message, BEGIN)
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

/// Built in: how the agent behind a capability is reached. Here it is a handler of the node's own process.
async fn wake(task: Task, context: Context) -> TaskResult {
    let capability = task.payload["capability"].as_str().unwrap_or_default();
    let shared = &context.shared;
    if !shared.read(|state, _| state.announces(capability)) {
        let message = format!("{capability:?} is not provided here");
        return Err(TaskError::with_code(ErrorCode::UnknownCapability, message).not_run());
    }
    let at = shared.read(|_, now| now.unix_s());
    Ok(json!({ "capability": capability, "reach": { "by": "process", "ok": true, "at": at }, "agent_ms": 0.0 }))
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
        wait: task.wait,
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
        wait: task.wait,
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
