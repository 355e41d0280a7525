//! How many tasks are worked on at once, and how many wait for their turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Lets a bounded number of tasks in, first come first served; a bounded number waits; more are refused.
#[derive(Debug)]
pub struct Gate {
    places: Semaphore,
    #[cfg(test)]
    max_tasks: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
}

/// A place inside the [`Gate`], given back on drop.
#[derive(Debug)]
pub struct Permit<'a>(#[expect(dead_code, reason = "held for its drop")] SemaphorePermit<'a>);

/// Why a task didn't get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Every place is taken, and so is every place in the queue.
    Overloaded {
        /// How many wait.
        waiting: usize,
    },
    /// It was cancelled before its turn came.
    Cancelled,
    /// Its deadline passed before its turn came.
    DeadlineExceeded,
}

impl Gate {
    /// A gate for `max_tasks` at once (at least one) and `max_waiting` in the queue (none: refuse at once).
    pub fn new(max_tasks: usize, max_waiting: usize) -> Gate {
        let max_tasks = max_tasks.clamp(1, Semaphore::MAX_PERMITS);
        Gate {
            places: Semaphore::new(max_tasks),
            #[cfg(test)]
            max_tasks,
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// How many may be inside at once.
    #[cfg(test)]
    pub fn max_tasks(&self) -> usize {
        self.max_tasks
    }

    /// How many may wait.
    pub fn max_waiting(&self) -> usize {
        self.max_waiting
    }

    /// How many wait now.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many are inside now.
    #[cfg(test)]
    pub fn running(&self) -> usize {
        self.max_tasks.saturating_sub(self.places.available_permits())
    }

    /// Waits for a place. A task that is cancelled or past its deadline leaves the queue, and one that is so already
    /// doesn't get in even if there is room.
    pub async fn enter(&self, cancelled: &CancellationToken, deadline: Instant) -> Result<Permit<'_>, Refused> {
        if cancelled.is_cancelled() {
            return Err(Refused::Cancelled);
        }
        if Instant::now() >= deadline {
            return Err(Refused::DeadlineExceeded);
        }
        // A freed place goes to the first in the queue, so this can't overtake anybody.
        if let Ok(permit) = self.places.try_acquire() {
            return Ok(Permit(permit));
        }
        let _waiter = Waiter::join(self)?;
        tokio::select! {
            biased;
            () = cancelled.cancelled() => Err(Refused::Cancelled),
            () = tokio::time::sleep_until(deadline) => Err(Refused::DeadlineExceeded),
            permit = self.places.acquire() => match permit {
                Ok(permit) => Ok(Permit(permit)),
                // The semaphore is never closed; were it, nobody would get in any more.
                Err(_) => Err(Refused::Cancelled),
            },
        }
    }
}

/// One in the queue. Counted on creation, uncounted on drop, however the wait ended.
struct Waiter<'a>(&'a Gate);

impl<'a> Waiter<'a> {
    fn join(gate: &'a Gate) -> Result<Waiter<'a>, Refused> {
        gate.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < gate.max_waiting).then(|| waiting + 1)
            })
            .map(|_| Waiter(gate))
            .map_err(|waiting| Refused::Overloaded { waiting })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
