//! Handlers that came back on a thread that begins them: their answers are decided, and leave, together.

use std::cell::Cell;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::driver::Shared;
use super::run::RunningTask;
use crate::mesh::TaskKey;
use crate::wire::WireError;

/// So many answers go out together at most.
const MOST: usize = 32;

/// How long an answer waits for others, while the thread is at other handlers.
const WAIT: Duration = Duration::from_micros(100);

/// A task whose handler came back.
pub(super) struct Finished {
    pub(super) shared: Arc<Shared>,
    pub(super) key: TaskKey,
    pub(super) body: Result<Bytes, WireError>,
    /// It counts as running until its answer is on its way.
    pub(super) task: RunningTask,
}

/// The answers of all nodes of this process that wait: never for longer than the handler takes that is begun meanwhile, and if
/// that blocks until somebody looks after it, see [`threads`](super::threads).
struct Waiting {
    answers: Vec<Finished>,
    since: Option<Instant>,
}

static WAITING: Mutex<Waiting> = Mutex::new(Waiting { answers: Vec::new(), since: None });

thread_local! {
    /// Whether this thread sees to the answers when it has begun what there is.
    static COLLECTS: Cell<bool> = const { Cell::new(false) };
}

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs something on a thread that calls [`flush_due`] afterwards.
pub(super) fn collecting<T>(run: impl FnOnce() -> T) -> T {
    COLLECTS.set(true);
    let result = run();
    COLLECTS.set(false);
    result
}

/// A handler came back.
pub(super) fn finish(finished: Finished) {
    if !COLLECTS.get() {
        return decide(vec![finished]);
    }
    let mut waiting = waiting();
    waiting.answers.push(finished);
    waiting.since.get_or_insert_with(Instant::now);
}

/// Whether no answer waits.
pub(super) fn is_empty() -> bool {
    waiting().answers.is_empty()
}

/// Has the answers decided if there are enough of them, or one has waited for long enough.
pub(super) fn flush_due() {
    let waiting = waiting();
    if waiting.answers.len() >= MOST || waiting.since.is_some_and(|since| since.elapsed() >= WAIT) {
        flush_of(waiting);
    }
}

/// Has all answers decided that wait.
pub(super) fn flush() {
    flush_of(waiting());
}

fn flush_of(mut waiting: MutexGuard<'static, Waiting>) {
    waiting.since = None;
    let answers = mem::take(&mut waiting.answers);
    drop(waiting);
    decide(answers);
}

fn decide(answers: Vec<Finished>) {
    let mut answers = answers.into_iter().peekable();
    while let Some(first) = answers.next() {
        let shared = Arc::clone(&first.shared);
        // Let go of when the answers are on their way.
        let mut tasks = Vec::with_capacity(answers.len() + 1);
        shared.with(|state, now, out| {
            let mut next = Some(first);
            while let Some(Finished { key, body, task, .. }) = next {
                state.finish_task(&key, body, now, out);
                tasks.push(task);
                next = answers.next_if(|next| Arc::ptr_eq(&next.shared, &shared));
            }
        });
    }
}
