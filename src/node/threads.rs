//! The threads that handlers run on: not those of the connections, so that a handler that blocks holds up handlers and
//! nothing else.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use super::finish;
use super::run::Beginning;
use super::running::Running;
use super::task::{Payload, TaskError};

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
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = Builder::new_multi_thread()
            .worker_threads((2 * cores).max(LEAST))
            .thread_name("elo-handler")
            .enable_all()
            .build();
        let threads = threads.and_then(|threads| {
            // Not a task of theirs: a handler that blocks may hold up their clock, too.
            let (handle, rescue) = (threads.handle().clone(), thread::Builder::new().name("elo-rescue".into()));
            rescue.stack_size(RESCUE_STACK).spawn(move || watch_beginners(&handle)).map(|_| threads)
        });
        threads
            .inspect_err(|error| tracing::warn!(%error, "no threads for handlers: they share those of connections"))
            .ok()
    });
    made.as_ref().map(Runtime::handle)
}

/// How long a handler may wait to be begun before another thread helps, and how long that one is waited for before the next: one
/// that blocks holds up those behind it, and so do many that each take their time.
const STUCK: Duration = Duration::from_millis(1);

/// How often it is looked whether that is so, while handlers are begun.
const RESCUE: Duration = Duration::from_millis(2);

/// For so many looks without anything to see it goes on: being woken costs more than looking.
const QUIET: u32 = 50;

/// What the thread needs that looks: it calls hardly anything but what an answer takes.
const RESCUE_STACK: usize = 512 * 1024;

/// Room for more handlers than that is given back when none waits.
const KEEP: usize = 256;

/// How long a thread that begins handlers waits for more of them before it ends.
const REST: Duration = Duration::from_secs(10);

/// What is left of a handler that has to wait for something.
pub(super) type Later = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What is to be begun.
#[cfg_attr(
    test,
    expect(clippy::large_enum_variant, reason = "nearly all are handlers, and a box for each would cost more")
)]
pub(super) enum Work {
    /// A handler.
    Handler(Beginning),
    #[cfg(test)]
    Future(Later),
}

impl Work {
    /// Its first step; what is left after that.
    fn step(self) -> Option<Later> {
        match self {
            Self::Handler(beginning) => beginning.step(),
            #[cfg(test)]
            Self::Future(mut future) => {
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                future.as_mut().poll(&mut context).is_pending().then_some(future)
            }
        }
    }

    /// All of it.
    pub(super) fn whole(self) -> Later {
        match self {
            Self::Handler(beginning) => beginning.whole(),
            #[cfg(test)]
            Self::Future(future) => future,
        }
    }
}

/// Handlers that are yet to begin. Most are done with their first step, which is faster than any task and any waking of threads: so
/// one thread begins them one after the other, and only those that have to wait for something become tasks. When a
/// handler holds it up, another thread goes on with the rest.
///
/// These threads are not tokio's: a task that becomes ready there has two threads woken, one to run it and one to look for
/// more, which costs as much as several calls.
#[derive(Default)]
struct Beginners {
    /// And since when. Each is a running task of its node, so there are no more than the nodes' `max_tasks` together.
    waiting: VecDeque<(Work, Arc<Running>, Instant)>,
    /// How many threads are at it, or called to it.
    runners: usize,
    /// When the last one was called.
    called: Option<Instant>,
    /// How many threads rest, and how many of these are called.
    resting: usize,
    calls: usize,
    /// Whether somebody looks for those that are held up.
    watched: bool,
}

static BEGINNERS: Mutex<Beginners> =
    Mutex::new(Beginners { waiting: VecDeque::new(), runners: 0, called: None, resting: 0, calls: 0, watched: false });

/// Wakes a thread that rests.
static CALL: Condvar = Condvar::new();

/// Wakes who looks for those that are held up.
static WATCH: Condvar = Condvar::new();

fn beginners() -> MutexGuard<'static, Beginners> {
    BEGINNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Beginners {
    /// Whether another thread is to help, which is counted then.
    fn wants_runner(&mut self, threads: usize) -> bool {
        let Some((.., since)) = self.waiting.front() else { return false };
        let stuck = || since.elapsed() >= STUCK && self.called.is_none_or(|called| called.elapsed() >= STUCK);
        let wants = self.runners == 0 || (self.runners < threads && stuck());
        if wants {
            self.runners += 1;
            self.called = Some(Instant::now());
        }
        wants
    }
}

/// Has handlers' futures run on these threads.
pub(super) fn begin(threads: &Handle, works: Vec<(Work, Arc<Running>)>) {
    let several = works.len() > 1;
    let (run, watch) = {
        let mut beginners = beginners();
        let now = Instant::now();
        beginners.waiting.extend(works.into_iter().map(|(work, running)| (work, running, now)));
        let run = beginners.wants_runner(threads.metrics().num_workers());
        // The only thread begins with this one, and has nothing else to do.
        let is_alone = run && beginners.runners == 1 && !several;
        let watch = !is_alone && !beginners.watched;
        beginners.watched |= watch;
        (run, watch)
    };
    if run {
        call_runner(threads);
    }
    if watch {
        WATCH.notify_one();
    }
}

/// Sets a thread to it that was counted already: one that rests, or a new one.
fn call_runner(threads: &Handle) {
    let mut beginners = beginners();
    if beginners.resting > beginners.calls {
        beginners.calls += 1;
        drop(beginners);
        return CALL.notify_one();
    }
    drop(beginners);
    let (thread, inside) = (thread::Builder::new().name("elo-handler".into()), threads.clone());
    if let Err(error) = thread.spawn(move || run(&inside)) {
        tracing::warn!(%error, "no further thread for handlers: they are begun on those that go on with them");
        // It may be held by a handler that blocks; then the next look calls for another.
        let inside = threads.clone();
        threads.spawn(async move { run_beginners(&inside) });
    }
}

/// One of the threads.
fn run(threads: &Handle) {
    // For what handlers do: spawn, sleep, connect.
    let _inside = threads.enter();
    loop {
        run_beginners(threads);
        let until = Instant::now() + REST;
        let mut beginners = beginners();
        beginners.resting += 1;
        while beginners.calls == 0 {
            let rest = until.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                beginners.resting -= 1;
                return;
            }
            beginners = CALL.wait_timeout(beginners, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        beginners.calls -= 1;
        beginners.resting -= 1;
    }
}

/// Begins handlers until there are none; then the thread is counted out.
fn run_beginners(threads: &Handle) {
    loop {
        let next = {
            let mut beginners = beginners();
            let next = beginners.waiting.pop_front();
            if beginners.waiting.is_empty() && beginners.waiting.capacity() > KEEP {
                beginners.waiting = VecDeque::new();
            }
            // In the same look: who adds one afterwards knows that nobody is at it.
            if next.is_none() && finish::is_empty() {
                beginners.runners -= 1;
                return;
            }
            next
        };
        let Some((work, running, _)) = next else {
            finish::flush();
            continue;
        };
        // What a handler panics with is caught inside; this is for the rest.
        let later = catch_unwind(AssertUnwindSafe(|| finish::collecting(|| work.step())));
        if let Ok(Some(later)) = later {
            running.on(threads.spawn(later).abort_handle());
        }
        finish::flush_due();
    }
}

/// Has another thread help when handlers wait too long, and sees to answers that wait because a handler blocks. On a thread of
/// its own: all others may be held.
fn watch_beginners(threads: &Handle) {
    let mut quiet = 0;
    let mut beginners = beginners();
    loop {
        quiet = if beginners.waiting.is_empty() && beginners.runners == 0 { quiet + 1 } else { 0 };
        if quiet > QUIET {
            quiet = 0;
            beginners.watched = false;
            beginners = WATCH.wait(beginners).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(beginners);
        thread::sleep(RESCUE);
        finish::flush_due();
        beginners = self::beginners();
        if beginners.wants_runner(threads.metrics().num_workers()) {
            drop(beginners);
            call_runner(threads);
            beginners = self::beginners();
        }
    }
}

/// Runs a handler's future, and tells of it when it holds its thread.
pub(super) async fn watched(
    capability: String,
    mut running: Pin<Box<dyn Future<Output = Result<Payload, TaskError>> + Send>>,
) -> Result<Payload, TaskError> {
    poll_fn(|cx| {
        let began = Instant::now();
        let polled = running.as_mut().poll(cx);
        tell(&capability, began.elapsed());
        polled
    })
    .await
}

pub(super) fn tell(capability: &str, held: Duration) {
    if held >= LONG {
        let seconds = held.as_secs_f64();
        tracing::warn!(
            capability,
            "a handler held its thread for {seconds:.1} s: what blocks belongs into spawn_blocking"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// These hold threads that belong to the whole process.
    static TURN: Mutex<()> = Mutex::new(());

    fn turn() -> MutexGuard<'static, ()> {
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begins(work: impl Future<Output = ()> + Send + 'static) -> Arc<Running> {
        let running = Arc::new(Running::default());
        begin(handlers().unwrap(), vec![(Work::Future(Box::pin(work)), Arc::clone(&running))]);
        running
    }

    /// A handler that holds its thread until that is dropped, and one that tells that it began.
    fn blocks(began: &Sender<()>) -> Sender<()> {
        let (hold, held): (Sender<()>, Receiver<()>) = channel();
        let began = began.clone();
        begins(async move {
            began.send(()).unwrap();
            let _ = held.recv();
        });
        hold
    }

    #[test]
    fn those_behind_one_that_blocks_are_begun_by_others_up_to_the_last_thread() {
        let _turn = turn();
        let threads = handlers().unwrap().metrics().num_workers();
        let (began, begun) = channel();
        let held: Vec<_> = (1..threads).map(|_| blocks(&began)).collect();
        for _ in 1..threads {
            begun.recv_timeout(PATIENCE).unwrap();
        }
        // With one thread left many more are done.
        let (done, is_done) = channel();
        for n in 0..1000 {
            let done = done.clone();
            begins(async move { done.send(n).unwrap() });
        }
        let all: HashSet<i32> = (0..1000).map(|_| is_done.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(all.len(), 1000);
        // With none they wait, and are not lost.
        let last = blocks(&began);
        begun.recv_timeout(PATIENCE).unwrap();
        let after = done.clone();
        begins(async move { after.send(1000).unwrap() });
        assert!(is_done.recv_timeout(Duration::from_millis(100)).is_err());
        drop((held, last));
        assert_eq!(is_done.recv_timeout(PATIENCE), Ok(1000));
        // And all threads are counted out.
        let (went, gone) = (Instant::now(), || beginners().runners == 0);
        while !gone() && went.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(gone());
    }

    /// It was on this thread last, and has something to do; the next one holds the thread.
    #[test]
    fn one_that_awaits_is_not_held_up_by_the_next() {
        let _turn = turn();
        for _ in 0..20 {
            let (done, is_done) = channel();
            let (hold, held) = channel::<()>();
            // Both are there when the thread comes to them.
            begins(async move {
                begins(async move {
                    tokio::task::yield_now().await;
                    done.send(()).unwrap();
                });
                begins(async move {
                    let _ = held.recv();
                });
            });
            is_done.recv_timeout(Duration::from_secs(5)).unwrap();
            drop(hold);
        }
    }

    #[test]
    fn many_that_each_take_their_time_have_several_threads() {
        let _turn = turn();
        let (done, is_done) = channel();
        for _ in 0..400 {
            let done = done.clone();
            begins(async move {
                std::thread::sleep(Duration::from_micros(500));
                done.send(std::thread::current().id()).unwrap();
            });
        }
        let threads: HashSet<_> = (0..400).map(|_| is_done.recv_timeout(PATIENCE).unwrap()).collect();
        assert!(threads.len() > 1);
    }

    #[test]
    fn a_thread_whose_handler_panics_is_counted_out_and_the_rest_is_begun() {
        let _turn = turn();
        let (done, is_done) = channel();
        for n in 0..50 {
            let done = done.clone();
            begins(async move {
                assert!(n % 10 != 5, "as wanted");
                done.send(n).unwrap();
            });
        }
        for _ in 0..45 {
            is_done.recv_timeout(PATIENCE).unwrap();
        }
        assert!(beginners().runners <= handlers().unwrap().metrics().num_workers());
    }

    /// Given up while it held its thread, it ends where it first awaits.
    #[test]
    fn one_that_was_ended_before_it_is_a_task_is_dropped_when_it_awaits() {
        let _turn = turn();
        let (began, begun) = channel();
        let (hold, held) = channel::<()>();
        let (dropped, is_dropped) = channel::<()>();
        let running = begins(async move {
            let _dropped = dropped;
            began.send(()).unwrap();
            let _ = held.recv();
            std::future::pending::<()>().await;
        });
        begun.recv_timeout(PATIENCE).unwrap();
        running.end();
        drop(hold);
        assert_eq!(is_dropped.recv_timeout(PATIENCE), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    }
}
