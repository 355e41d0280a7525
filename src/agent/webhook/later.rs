//! Answers that come later: where they are sent to, and what waits for them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::node::{Context, Payload, Task, TaskError};

/// Waits for the answer to a task that somebody has under this id, from when it is first polled on. It sees to the end of
/// the task as well.
pub(crate) type Hold = Arc<
    dyn Fn(Arc<Task>, Arc<Context>, String) -> Pin<Box<dyn Future<Output = Result<Payload, TaskError>> + Send>>
        + Send
        + Sync,
>;

/// Where answers come that are not given at once. Nowhere, until it is said where: the node runs before its local HTTP API
/// does, and they outlive a change of its key.
#[derive(Default)]
pub(crate) struct Later(Mutex<Option<Open>>);

#[derive(Clone)]
pub(super) struct Open {
    base: String,
    pub(super) hold: Hold,
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Later").field(&self.open().map(|open| open.base)).finish()
    }
}

impl Later {
    /// From now on they come to the HTTP API at this base, such as `http://127.0.0.1:7880`.
    pub(crate) fn at(&self, base: &str, hold: Hold) {
        let open = Open { base: base.trim_end_matches('/').to_owned(), hold };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
    }

    pub(super) fn open(&self) -> Option<Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Open {
    /// Where the answer of a delivery is posted to.
    pub(super) fn reply_url(&self, delivery: &str) -> String {
        format!("{}/v1/tasks/{delivery}/reply", self.base)
    }
}
