//! What waits to be sent to one peer: bounded in bytes and in messages.
//!
//! Messages are copied in as they go out. Holding on to them instead would be cheaper at first sight, but a relayed
//! message is a slice of the buffer it arrived in, and would keep all of that alive.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;

use crate::limits::{Limits, MAX_MESSAGE};
use crate::memory::{Kind, Memory};
use crate::wire::{Framing, Object, codec};

/// A message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer doesn't read as fast as it is written to; later there may be room.
    #[error("the outbox of this connection is full")]
    Full,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
    /// The message doesn't fit on the wire.
    #[error("the message is longer than {MAX_MESSAGE} bytes")]
    TooLarge,
}

/// How an outbox is closed.
#[derive(Debug)]
pub(super) struct Closing {
    /// The last message, after what waits.
    pub(super) bye: Option<Object>,
    /// How long the rest may take.
    pub(super) within: Duration,
}

/// What the writer does next.
#[derive(Debug)]
pub(super) enum Next {
    /// It has a batch of that many messages to write.
    Batch(usize),
    /// Everything was taken, and nothing more will come.
    Closed,
}

#[derive(Debug, Default)]
struct Queue {
    /// Encoded messages.
    waiting: BytesMut,
    /// How many there are.
    messages: usize,
    /// Bytes, and messages, that the writer took and has not written yet: they count as well.
    taken_bytes: usize,
    taken_messages: usize,
    closing: Option<Closing>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    framing: Framing,
    max_bytes: usize,
    max_messages: usize,
    memory: Arc<Memory>,
    queue: Mutex<Queue>,
    /// There is something to write, or nothing more to come. Only the writer waits for it.
    filled: Notify,
    /// There is room, or never will be.
    drained: Notify,
    /// It was closed.
    closed: Notify,
}

impl Outbox {
    pub(super) fn new(framing: Framing, limits: &Limits, memory: Arc<Memory>) -> Self {
        Self {
            framing,
            max_bytes: limits.outbox_bytes,
            max_messages: limits.outbox_messages,
            memory,
            queue: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            closed: Notify::new(),
        }
    }

    /// Nothing in here panics half-way through a change, so what a poisoned lock guards is still sound.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How messages are told apart.
    pub(super) fn framing(&self) -> Framing {
        self.framing
    }

    /// Takes a message in, or says why not. Never waits.
    pub(super) fn push(&self, message: &Object) -> Result<(), SendError> {
        let length = message.raw().len();
        if length > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        let mut queue = self.queue();
        if queue.closing.is_some() {
            return Err(SendError::Closed);
        }
        let bytes = queue.waiting.len() + queue.taken_bytes;
        let messages = queue.messages + queue.taken_messages;
        // One message has room in any case: else a small outbox could never pass on a large one.
        if messages > 0 && (bytes + length > self.max_bytes || messages >= self.max_messages) {
            return Err(SendError::Full);
        }
        let before = queue.waiting.len();
        codec::encode(self.framing, message.raw(), &mut queue.waiting);
        let more = queue.waiting.len() - before;
        queue.messages += 1;
        // Before the writer can take it: what is given back first would make less than nothing.
        self.memory.add(Kind::Outboxes, more);
        drop(queue);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes no more in. The first one to close it decides how; `false` for the others.
    pub(super) fn close(&self, how: Closing) -> bool {
        let mut queue = self.queue();
        if queue.closing.is_some() {
            return false;
        }
        queue.closing = Some(how);
        drop(queue);
        self.filled.notify_one();
        self.drained.notify_waiters();
        self.closed.notify_waiters();
        true
    }

    /// How many bytes wait in it.
    pub(super) fn bytes(&self) -> usize {
        let queue = self.queue();
        queue.waiting.len() + queue.taken_bytes
    }

    /// Throws away what the writer has not taken yet.
    pub(super) fn empty(&self) {
        let mut queue = self.queue();
        let waiting = mem::take(&mut queue.waiting);
        queue.messages = 0;
        drop(queue);
        self.memory.sub(Kind::Outboxes, waiting.len());
    }

    /// Whether it was closed.
    pub(super) fn is_closed(&self) -> bool {
        self.queue().closing.is_some()
    }

    /// Waits until it is closed, and tells how long the rest may take.
    pub(super) async fn until_closed(&self) -> Duration {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            if let Some(closing) = &self.queue().closing {
                return closing.within;
            }
            closed.await;
        }
    }

    /// Whether less than half of it is used.
    pub(super) fn has_room(&self) -> bool {
        let queue = self.queue();
        queue.closing.is_none()
            && queue.waiting.len() + queue.taken_bytes <= self.max_bytes / 2
            && queue.messages + queue.taken_messages <= self.max_messages / 2
    }

    /// Waits until less than half of it is used, or it is closed.
    pub(super) async fn room(&self) {
        loop {
            let mut drained = std::pin::pin!(self.drained.notified());
            drained.as_mut().enable();
            if self.has_room() || self.is_closed() {
                return;
            }
            drained.await;
        }
    }

    /// For the writer: waits for something to write, and swaps all of it into `batch`, which must be empty.
    /// Cancelling it loses nothing.
    pub(super) async fn next(&self, batch: &mut BytesMut) -> Next {
        loop {
            {
                let mut queue = self.queue();
                if queue.messages > 0 {
                    mem::swap(&mut queue.waiting, batch);
                    queue.taken_bytes = batch.len();
                    queue.taken_messages = mem::take(&mut queue.messages);
                    return Next::Batch(queue.taken_messages);
                }
                if queue.closing.is_some() {
                    return Next::Closed;
                }
            }
            // A permit is kept if the notice came between the look and this.
            self.filled.notified().await;
        }
    }

    /// For the writer: the batch is down to `rest` bytes.
    pub(super) fn written(&self, rest: usize) {
        let mut queue = self.queue();
        let written = queue.taken_bytes.saturating_sub(rest);
        queue.taken_bytes = rest.min(queue.taken_bytes);
        if rest == 0 {
            queue.taken_messages = 0;
        }
        drop(queue);
        self.memory.sub(Kind::Outboxes, written);
        if self.has_room() {
            self.drained.notify_waiters();
        }
    }

    /// For the writer, when everything is written: the last message, encoded. Once.
    pub(super) fn take_bye(&self, batch: &mut BytesMut) -> bool {
        let bye = self.queue().closing.as_mut().and_then(|closing| closing.bye.take());
        match bye {
            Some(bye) => {
                codec::encode(self.framing, bye.raw(), batch);
                true
            }
            None => false,
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let left = self.bytes();
        self.memory.sub(Kind::Outboxes, left);
    }
}
