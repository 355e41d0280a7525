//! What a handler is given beside its task.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::identity::NodeId;

/// Why a chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// Nobody waits for it any more: the task was cancelled, is past its deadline, or the node stops.
    #[error("the task is over: nobody waits for its chunks")]
    Over,
    /// It does not fit in a message.
    #[error("a chunk may have at most {limit} bytes of JSON, this one has {size}")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The most it may have.
        limit: usize,
    },
}

/// The running task's side of the conversation with its caller.
#[derive(Debug)]
pub struct Context {}

impl Context {
    /// Sends a part of the answer; parts arrive in the order sent. Waits while the caller is behind.
    pub async fn chunk(&self, data: Value) -> Result<(), ChunkError> {
        let _ = data;
        todo!()
    }

    /// Completes when the caller took the task back, its deadline passed, or the node stops.
    pub async fn cancelled(&self) {
        todo!()
    }

    /// Whether [`cancelled`](Self::cancelled) has completed.
    pub fn is_cancelled(&self) -> bool {
        todo!()
    }

    /// A token that is cancelled when the task is over; a clone may be kept and awaited anywhere.
    pub(crate) fn token(&self) -> tokio_util::sync::CancellationToken {
        todo!()
    }

    /// When the caller stops waiting.
    pub fn deadline(&self) -> Instant {
        todo!()
    }

    /// How much time is left.
    pub fn remaining(&self) -> Duration {
        self.deadline().saturating_duration_since(Instant::now())
    }

    /// Who asks.
    pub fn caller(&self) -> NodeId {
        todo!()
    }
}
