//! The threads that handlers run on: not those of the connections, so that a handler that blocks holds up handlers and
//! nothing else.

use std::future::poll_fn;
use std::num::NonZero;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

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
