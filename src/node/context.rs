//! What a handler is given beside its task.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

#[cfg(feature = "cli")]
use tokio_util::sync::CancellationToken;

use super::Node;
use super::driver::Shared;
use super::payload::PayloadError;
use super::running::Running;
use super::task::Payload;
use crate::error::Error;
use crate::identity::NodeId;
use crate::limits::MAX_PAYLOAD;
use crate::mesh::{ChunkRefused, ConnId, TaskKey};

/// Why a chunk was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// It can't be written as JSON that every language reads; the text says why.
    #[error("the chunk can't be sent: {0}")]
    Invalid(String),
}

/// The running task's side of the conversation with its caller.
#[derive(Debug)]
pub struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) key: TaskKey,
    pub(crate) conn: Option<ConnId>,
    pub(crate) running: Arc<Running>,
    pub(crate) deadline: tokio::time::Instant,
    pub(crate) caller: NodeId,
}

impl Context {
    /// Sends a part of the answer; parts arrive in the order sent. Waits while the caller is behind.
    ///
    /// # Errors
    ///
    /// The task is over, or the chunk can't be sent as it is.
    pub async fn chunk(&self, data: impl Into<Payload>) -> Result<(), ChunkError> {
        let data = data.into().into_bytes().map_err(|e| match e {
            PayloadError::TooLarge { size } => ChunkError::TooLarge { size, limit: MAX_PAYLOAD },
            other => ChunkError::Invalid(other.to_string()),
        })?;
        // A handler that does nothing but send must let others have their turn, also when nothing holds it up.
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(connection) = self.conn.and_then(|c| self.shared.connection(c)) {
                tokio::select! {
                    () = connection.room() => {}
                    () = self.running.token().cancelled() => return Err(ChunkError::Over),
                }
            }
            // Asked for before the look, so that credit given in between is not missed.
            let credit = self.running.credit.notified();
            tokio::pin!(credit);
            credit.as_mut().enable();
            match self.shared.with(|state, now, out| state.chunk(&self.key, data.clone(), now, out)) {
                Ok(()) => return Ok(()),
                Err(ChunkRefused::Over) => return Err(ChunkError::Over),
                Err(ChunkRefused::Full) => {}
            }
            tokio::select! {
                () = credit => {}
                () = self.running.token().cancelled() => return Err(ChunkError::Over),
            }
        }
    }

    /// Completes when the caller took the task back, its deadline passed, or the node stops. A handler that goes on
    /// for more than 2 s after that is dropped where it awaits.
    pub async fn cancelled(&self) {
        self.running.token().cancelled().await;
    }

    /// Whether [`cancelled`](Self::cancelled) has completed.
    pub fn is_cancelled(&self) -> bool {
        self.running.is_cancelled()
    }

    /// A token that is cancelled when the task is over; a clone may be kept and awaited anywhere.
    #[cfg(feature = "cli")]
    pub(crate) fn token(&self) -> CancellationToken {
        self.running.token().clone()
    }

    /// When the caller stops waiting.
    pub fn deadline(&self) -> Instant {
        self.deadline.into_std()
    }

    /// How much time is left.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(tokio::time::Instant::now())
    }

    /// The node that runs the task, to make calls of its own or publish. It stops when its owner's last handle is
    /// dropped, so this one is not to be kept for longer than the task runs.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`]: the owner's last handle was dropped.
    pub fn node(&self) -> Result<Node, Error> {
        let inner = self.shared.owner.get().and_then(Weak::upgrade);
        inner.map(|inner| Node { inner }).ok_or(Error::Stopped)
    }

    /// Who asks.
    pub fn caller(&self) -> NodeId {
        self.caller
    }
}
