//! The threads that handlers run on: not those of the connections, so that a handler that blocks holds up handlers and
//! nothing else.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::mem;
use std::num::NonZero;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::sleep;

use super::Context;
use super::task::{BoxHandler, Payload, Task, TaskError};

/// The least number of threads: on a small machine too some handlers may block while others go on.
const LEAST: usize = 8;

/// A handler that holds its thread for longer is told of in the log, once it lets go.
const LONG: Duration = Duration::from_secs(1);

/// Where the handlers of all nodes of this process run; `None` when the system gives no threads for it.
///
/// One for the process and never ended: a node may be made and dropped within any runtime, where another one can't be
/// ended, and two hundred nodes in one process want no more threads than one.
pub(super) fn handlers() -> Option<&'static Handle> {
    static THREADS: OnceLock<Option<Runtime>> = OnceLock::new();
    let made = THREADS.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = Builder::new_multi_thread()
            .worker_threads((2 * cores).max(LEAST))
            .thread_name("elo-handler")
            .enable_all()
            .build();
        threads
            .inspect_err(|error| tracing::warn!(%error, "no threads for handlers: they share those of connections"))
            .ok()
    });
    made.as_ref().map(Runtime::handle)
}

/// How long the last handler may take over its first step before another thread begins with those that wait behind it.
const STUCK: Duration = Duration::from_millis(1);

/// How often it is looked whether that is so, while some wait.
const RESCUE: Duration = Duration::from_millis(2);

/// After so many handlers those that were begun before get their turn.
const TURN: usize = 32;

/// A handler's future with all that belongs to it.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the way to end a handler's future is put, once it is on a task of its own.
pub(super) type Started = Arc<OnceLock<AbortHandle>>;

/// Handlers that are yet to begin. Most are done with their first step, which is faster than any task and any waking of threads: so
/// one thread begins them one after the other, and only those that have to wait for something become tasks. When a
/// handler holds it up, another thread goes on with the rest.
#[derive(Default)]
struct Beginners {
    waiting: VecDeque<(Work, Started)>,
    /// How many threads are at it.
    runners: usize,
    /// When the last one was begun.
    begun: Option<Instant>,
    /// Whether somebody looks for those that are held up.
    watched: bool,
}

static BEGINNERS: Mutex<Beginners> =
    Mutex::new(Beginners { waiting: VecDeque::new(), runners: 0, begun: None, watched: false });

fn beginners() -> MutexGuard<'static, Beginners> {
    BEGINNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Beginners {
    /// Whether another thread is to help, which is counted then.
    fn wants_runner(&mut self, threads: usize) -> bool {
        let stuck = || self.begun.is_none_or(|begun| begun.elapsed() >= STUCK);
        let wants = !self.waiting.is_empty() && (self.runners == 0 || (self.runners < threads && stuck()));
        self.runners += usize::from(wants);
        wants
    }
}

/// Has a handler's future run on these threads.
pub(super) fn begin(threads: &'static Handle, work: Work, started: Started) {
    let (run, watch) = {
        let mut beginners = beginners();
        beginners.waiting.push_back((work, started));
        let run = beginners.wants_runner(threads.metrics().num_workers());
        let watch = !run && !beginners.watched;
        beginners.watched |= watch;
        (run, watch)
    };
    if run {
        threads.spawn(run_beginners());
    }
    if watch {
        threads.spawn(watch_beginners(threads));
    }
}

/// Counts a thread out when it ends otherwise than by finding nothing more to do.
struct Runner;

impl Drop for Runner {
    fn drop(&mut self) {
        beginners().runners -= 1;
    }
}

async fn run_beginners() {
    let runner = Runner;
    for count in 1.. {
        let (mut work, started) = {
            let mut beginners = beginners();
            let Some(next) = beginners.waiting.pop_front() else {
                // In the same look: who adds one afterwards knows that nobody is at it.
                beginners.runners -= 1;
                mem::forget(runner);
                return;
            };
            beginners.begun = Some(Instant::now());
            next
        };
        // It never panics: what its handler does is caught inside.
        let is_done = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
        if !is_done {
            let _ = started.set(tokio::spawn(work).abort_handle());
        }
        if count % TURN == 0 {
            yield_now().await;
        }
    }
}

async fn watch_beginners(threads: &'static Handle) {
    loop {
        sleep(RESCUE).await;
        let run = {
            let mut beginners = beginners();
            if beginners.waiting.is_empty() {
                beginners.watched = false;
                return;
            }
            beginners.wants_runner(threads.metrics().num_workers())
        };
        if run {
            threads.spawn(run_beginners());
        }
    }
}

/// Runs a handler, and tells of it when it holds its thread.
pub(super) async fn watched(handler: BoxHandler, task: Task, context: Context) -> Result<Payload, TaskError> {
    let capability = task.capability.clone();
    let began = Instant::now();
    let mut running = handler(task, context);
    tell(&capability, began.elapsed());
    poll_fn(|cx| {
        let began = Instant::now();
        let polled = running.as_mut().poll(cx);
        tell(&capability, began.elapsed());
        polled
    })
    .await
}

fn tell(capability: &str, held: Duration) {
    if held >= LONG {
        let seconds = held.as_secs_f64();
        tracing::warn!(
            capability,
            "a handler held its thread for {seconds:.1} s: what blocks belongs into spawn_blocking"
        );
    }
}
