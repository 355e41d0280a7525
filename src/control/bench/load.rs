//! The workers, and what they share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::error::{CallError, ErrorCode};
use crate::node::Call;

use super::tally::Tally;

/// The least pause after a failed call; it doubles with each one in a row. Without it a node that refuses would be hammered, and
/// so would the mesh, which a call asks for a node that is away.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause, unless the other side asked for more.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The longest pause that the other side may ask for: the bench has an end.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// So long without an answer, and so many failures, are a node that went away.
const AWAY_AFTER: Duration = Duration::from_secs(5);
const AWAY_FAILURES: u64 = 10;

/// What the workers share.
pub(super) struct Load {
    call: Call,
    in_flight: usize,
    /// How many calls are left to be made, if they are counted; only once they count.
    left: Option<AtomicU64>,
    /// Whether calls count: no longer the warm-up.
    counts: AtomicBool,
    under_way: AtomicUsize,
    tally: Mutex<Tally>,
    fate: Mutex<Fate>,
    /// No further calls are to be made.
    pub(super) stop: CancellationToken,
    /// It went on failing, in a way that repeating doesn't help.
    pub(super) hopeless: CancellationToken,
}

/// How it is going.
struct Fate {
    last_answer: Instant,
    /// Failures in a row because nobody is there.
    away: u64,
    /// Failures in a row that stay failures.
    refused: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    pub(super) fn new(call: Call, in_flight: usize, calls: Option<u64>) -> Self {
        Self {
            call,
            in_flight,
            left: calls.map(AtomicU64::new),
            counts: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            tally: Mutex::new(Tally::default()),
            fate: Mutex::new(Fate { last_answer: Instant::now(), away: 0, refused: 0 }),
            stop: CancellationToken::new(),
            hopeless: CancellationToken::new(),
        }
    }

    /// From now on calls count; what was counted before is forgotten.
    pub(super) fn count(&self) {
        let mut tally = lock(&self.tally);
        *tally = Tally::default();
        self.counts.store(true, Ordering::Release);
    }

    /// How many calls are under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Acquire)
    }

    /// Looks at what was counted.
    pub(super) fn tally<T>(&self, look: impl FnOnce(&Tally) -> T) -> T {
        look(&lock(&self.tally))
    }

    /// Whether another call is to be made, and whether it is one of those that were asked for; `None`: no more.
    fn next(&self) -> Option<bool> {
        if self.stop.is_cancelled() {
            return None;
        }
        match &self.left {
            Some(left) if self.counts.load(Ordering::Acquire) => {
                let took = left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
                took.is_ok().then_some(true)
            }
            _ => Some(false),
        }
    }

    /// Counts what ends once the warm-up is over: then as many calls are counted that began before as are cut off at the end. Of a
    /// number of calls those count that were asked for.
    fn record(&self, asked_for: bool, count: impl FnOnce(&mut Tally)) {
        let mut tally = lock(&self.tally);
        if self.left.is_none() || asked_for == self.counts.load(Ordering::Acquire) {
            count(&mut tally);
        }
    }

    fn answered(&self) {
        *lock(&self.fate) = Fate { last_answer: Instant::now(), away: 0, refused: 0 };
    }

    /// Notes a failure; gives the pause it is followed by.
    fn failed(&self, error: &CallError, in_a_row: u32) -> Duration {
        let mut fate = lock(&self.fate);
        let (mut away, mut refused) = (0, 0);
        match error.code {
            ErrorCode::NoPeer | ErrorCode::NoTracker | ErrorCode::PeerGone | ErrorCode::Timeout => away = fate.away + 1,
            code if !code.is_retryable() => refused = fate.refused + 1,
            // Full of work or above its rate: it is there.
            _ => {}
        }
        (fate.away, fate.refused) = (away, refused);
        let gone = away >= AWAY_FAILURES && fate.last_answer.elapsed() >= AWAY_AFTER;
        if gone || refused >= self.in_flight as u64 + AWAY_FAILURES {
            self.hopeless.cancel();
        }
        match error.retry_after {
            Some(wait) => wait.min(RETRY_MAX),
            None => PAUSE_MIN.saturating_mul(1 << in_a_row.min(6)).min(PAUSE_MAX),
        }
    }
}

/// One worker: a call at a time, until there are to be no more.
pub(super) async fn work(load: Arc<Load>) {
    let mut failures = 0;
    while let Some(asked_for) = load.next() {
        load.under_way.fetch_add(1, Ordering::AcqRel);
        let start = Instant::now();
        let result = load.call.clone().await;
        let took = start.elapsed();
        load.under_way.fetch_sub(1, Ordering::AcqRel);
        match result {
            Ok(outcome) => {
                failures = 0;
                load.record(asked_for, |tally| tally.answered(took, &outcome));
                load.answered();
            }
            Err(error) => {
                load.record(asked_for, |tally| tally.failed(&error));
                let pause = load.failed(&error, failures);
                failures += 1;
                tokio::select! {
                    () = sleep(pause) => {}
                    () = load.stop.cancelled() => return,
                }
            }
        }
    }
}
