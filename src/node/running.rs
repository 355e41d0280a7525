//! What a running task, its handler, and those who may end it share.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// One allocation for all of it, and none for what most handlers never ask for.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// Notified when chunks may be sent again.
    pub(crate) credit: Notify,
    /// Set by the handler that begins, or by who has waited long enough for it to begin.
    begins: AtomicBool,
    cancelled: AtomicBool,
    /// Made when somebody wants to wait for it.
    token: OnceLock<CancellationToken>,
    /// The task that the handler's future is on, if it came to that; `None`: it is wanted no longer.
    task: OnceLock<Option<AbortHandle>>,
}

impl Running {
    /// Whether it is the asker's to begin it, or to say that it never began: `true` for one of them.
    pub(super) fn begins(&self) -> bool {
        !self.begins.swap(true, Ordering::AcqRel)
    }

    /// Nobody waits for the answer any more.
    pub(super) fn cancel(&self) {
        // In one order with what is below: one of the two sees what the other did.
        self.cancelled.store(true, Ordering::SeqCst);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }

    /// Whether it was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// A token that is cancelled with it.
    pub(super) fn token(&self) -> &CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        if self.is_cancelled() {
            token.cancel();
        }
        token
    }

    /// Its future is on a task now; which is ended if nobody wants it any more.
    pub(super) fn on(&self, task: AbortHandle) {
        if let Err(Some(task)) = self.task.set(Some(task)) {
            task.abort();
        }
    }

    /// Has the future dropped where it awaits, or when it comes to that.
    pub(super) fn end(&self) {
        if self.task.set(None).is_err()
            && let Some(Some(task)) = self.task.get()
        {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_asked_for_at_any_time_is_cancelled() {
        let (early, late) = (Running::default(), Running::default());
        let token = early.token().clone();
        assert!(!token.is_cancelled() && !early.is_cancelled());
        for running in [&early, &late] {
            running.cancel();
            assert!(running.is_cancelled() && running.token().is_cancelled());
        }
        assert!(token.is_cancelled());
    }

    #[test]
    fn it_begins_once() {
        let running = Running::default();
        assert!(running.begins() && !running.begins());
    }
}
