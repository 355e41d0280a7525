//! What waits to be sent to one peer: bounded in bytes and in messages.
//!
//! A message that is signed already is copied in. Holding on to it instead would be cheaper at first sight, but a relayed
//! message is a slice of the buffer it arrived in, and would keep all of that alive. Those that the writer signs wait as they
//! are: it takes what is there and signs it together.
//!
//! A long message of a task's course waits apart, so that a short one that comes later need not wait for its time on the line: each
//! round of the writer takes the short ones that wait, and then one long one. What so comes out of its order is put into it by
//! its numbers. All else keeps its order, and nodes of the Python package, which have no numbers, are sent everything in the order it came.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::late::Late;
use crate::limits::{LONG_MESSAGE, Limits, MAX_MESSAGE, ROUND_BYTES, ROUND_MESSAGES};
use crate::memory::{Kind, Memory};
use crate::wire::{Framing, Object, codec};

/// So often a writer lets others run before it writes, at most: each time some of them spoke.
const PATIENCE: u32 = 4;

/// A message on its way out.
#[derive(Debug)]
pub enum Outgoing {
    /// Ready to be sent.
    Ready(Object),
    /// Ready as well, and a part of a task's course: if it is long, short ones may pass it.
    Passable(Object),
    /// Signed when its turn comes, together with what else is there.
    Late(Late),
}

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
    /// It has these to write.
    Round(Round),
    /// Everything was taken, and nothing more will come.
    Closed,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// How many messages they are.
    pub(super) messages: usize,
    /// The short ones, in their order.
    pub(super) parts: Vec<Part>,
    /// A long one, encoded.
    pub(super) long: Option<BytesMut>,
    /// What the short ones take in the outbox.
    pub(super) bytes: usize,
    /// What is left of a message that was sent without the writer, as it goes over the wire. It comes first.
    pub(super) rest: Vec<u8>,
}

/// Messages that wait.
#[derive(Debug)]
pub(super) enum Part {
    /// Encoded: some, one after the other.
    Encoded {
        /// The messages.
        bytes: BytesMut,
        /// How many.
        messages: usize,
    },
    /// One that is yet to be signed.
    Late(Late),
}

impl Part {
    /// How many messages it has, and how many bytes it takes.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Encoded { bytes, messages } => (*messages, bytes.len()),
            Self::Late(late) => (1, late.size()),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    short: VecDeque<Part>,
    long: VecDeque<BytesMut>,
    /// What all that takes.
    bytes: usize,
    /// How many there are in all.
    messages: usize,
    /// Bytes, and messages, that the writer took and has not written yet: they count as well.
    taken_bytes: usize,
    taken_messages: usize,
    /// Whether the writer lets it fill, see [`Outbox::cork`].
    corked: bool,
    /// Whether a message is being sent without the writer, which then waits.
    lent: bool,
    /// What is left of that.
    rest: Vec<u8>,
    /// Whether several messages were written together last: then more are likely to come.
    several: bool,
    /// Whether the peer has said something since a message was sent without the writer. Who says much in a row, unasked, is to have
    /// it signed together.
    heard: bool,
    closing: Option<Closing>,
}

impl Queue {
    /// Whether the writer has something to do. A cork holds no more than `bytes` and `messages`.
    fn is_due(&self, (bytes, messages): (usize, usize)) -> bool {
        let waits = self.messages > 0 && (!self.corked || self.bytes >= bytes || self.messages >= messages);
        !self.lent && (waits || !self.rest.is_empty())
    }

    /// Whether nothing is on its way, and nothing more is expected.
    fn is_at_rest(&self) -> bool {
        self.messages == 0 && self.taken_messages == 0 && self.heard && !self.corked && !self.lent && !self.several
    }

    /// What is written next: short messages, as many as fit into a round, and one long one.
    fn take_round(&mut self) -> Round {
        let mut round = Round { rest: mem::take(&mut self.rest), ..Round::default() };
        while round.messages < ROUND_MESSAGES && round.bytes < ROUND_BYTES {
            let Some(part) = self.short.pop_front() else { break };
            let (messages, bytes) = part.size();
            round.messages += messages;
            round.bytes += bytes;
            round.parts.push(part);
        }
        round.long = self.long.pop_front();
        if round.long.is_some() {
            round.messages += 1;
        }
        let bytes = round.bytes + round.long.as_ref().map_or(0, BytesMut::len);
        if self.short.is_empty() && self.short.capacity() > ROUND_MESSAGES {
            // A connection at rest keeps no room.
            self.short = VecDeque::new();
        }
        self.bytes -= bytes;
        self.messages -= round.messages;
        // Of what was sent without the writer the rest counts as taken already.
        self.taken_bytes = bytes + round.rest.len();
        self.taken_messages = round.messages + usize::from(!round.rest.is_empty());
        self.several = round.messages > 1;
        round
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    framing: Framing,
    max_bytes: usize,
    max_messages: usize,
    /// What a cork holds at most: a round, and of a small outbox less than would fill it. Else a peer that reads could be
    /// taken for one that doesn't, as nobody writes meanwhile.
    cork: (usize, usize),
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
            cork: (ROUND_BYTES.min(limits.outbox_bytes / 2), ROUND_MESSAGES.min(limits.outbox_messages / 2)),
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

    /// Takes a message in, or says why not. Never waits. Gives it back when nothing else is on its way: who brought it may send it
    /// without waking the writer, and then says that it is [sent](Self::sent).
    pub(super) fn push(&self, message: Outgoing) -> Result<Option<Outgoing>, SendError> {
        let length = match &message {
            Outgoing::Ready(object) | Outgoing::Passable(object) => object.raw().len(),
            Outgoing::Late(late) => late.size(),
        };
        if length > MAX_MESSAGE {
            return Err(SendError::TooLarge);
        }
        let mut queue = self.queue();
        if queue.closing.is_some() {
            return Err(SendError::Closed);
        }
        let bytes = queue.bytes + queue.taken_bytes;
        let messages = queue.messages + queue.taken_messages;
        // One message has room in any case: else a small outbox could never pass on a large one.
        if messages > 0 && (bytes + length > self.max_bytes || messages >= self.max_messages) {
            return Err(SendError::Full);
        }
        if length < LONG_MESSAGE && queue.is_at_rest() {
            (queue.lent, queue.heard) = (true, false);
            (queue.taken_messages, queue.taken_bytes) = (1, length);
            self.memory.add(Kind::Outboxes, length);
            return Ok(Some(message));
        }
        let before = queue.bytes;
        match message {
            Outgoing::Passable(object) if length >= LONG_MESSAGE && self.framing == Framing::Line => {
                let mut encoded = BytesMut::with_capacity(length + 1);
                codec::encode(self.framing, object.raw(), &mut encoded);
                queue.bytes += encoded.len();
                queue.long.push_back(encoded);
            }
            Outgoing::Ready(object) | Outgoing::Passable(object) => {
                let mut encoded = match queue.short.pop_back() {
                    Some(Part::Encoded { bytes, messages }) if bytes.len() < ROUND_BYTES => (bytes, messages),
                    other => {
                        queue.short.extend(other);
                        (BytesMut::new(), 0)
                    }
                };
                let before = encoded.0.len();
                codec::encode(self.framing, object.raw(), &mut encoded.0);
                queue.bytes += encoded.0.len() - before;
                queue.short.push_back(Part::Encoded { bytes: encoded.0, messages: encoded.1 + 1 });
            }
            Outgoing::Late(late) => {
                queue.bytes += length;
                queue.short.push_back(Part::Late(late));
            }
        }
        let more = queue.bytes - before;
        queue.messages += 1;
        // Before the writer can take it: what is given back first would make less than nothing.
        self.memory.add(Kind::Outboxes, more);
        let is_due = queue.is_due(self.cork);
        drop(queue);
        if is_due {
            self.filled.notify_one();
        }
        Ok(None)
    }

    /// A message that was given back is sent, up to this rest of it.
    pub(super) fn sent(&self, rest: Vec<u8>) {
        let mut queue = self.queue();
        let before = mem::replace(&mut queue.taken_bytes, rest.len());
        queue.taken_messages = usize::from(!rest.is_empty());
        queue.lent = false;
        queue.rest = rest;
        self.memory.add(Kind::Outboxes, queue.taken_bytes);
        self.memory.sub(Kind::Outboxes, before);
        let goes_on = queue.is_due(self.cork) || queue.closing.is_some();
        let is_waited_for = queue.messages > 0;
        drop(queue);
        if goes_on {
            self.filled.notify_one();
        }
        if is_waited_for && self.has_room() {
            self.drained.notify_waiters();
        }
    }

    /// Has the writer wait until the guard is dropped, unless much comes together: the reader is at messages that have come
    /// already, and what is said to them can be signed together. Nothing is waited for meanwhile but the reader's work.
    pub(super) fn cork(&self) -> Corked<'_> {
        let mut queue = self.queue();
        (queue.corked, queue.heard) = (true, true);
        Corked(self)
    }

    /// Has the writer wait until [`uncork`](Self::uncork) is called: what is said presently can be signed together. Two that cork it don't know of each other: the first to uncork it
    /// does so for both.
    pub(super) fn corked(&self) {
        self.queue().corked = true;
    }

    /// The writer may go on.
    pub(super) fn uncork(&self) {
        let mut queue = self.queue();
        queue.corked = false;
        let is_due = queue.is_due(self.cork);
        drop(queue);
        if is_due {
            self.filled.notify_one();
        }
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
        queue.bytes + queue.taken_bytes
    }

    /// Throws away what the writer has not taken yet.
    pub(super) fn empty(&self) {
        let mut queue = self.queue();
        let thrown = (mem::take(&mut queue.short), mem::take(&mut queue.long));
        let bytes = mem::take(&mut queue.bytes);
        queue.messages = 0;
        drop(queue);
        drop(thrown);
        self.memory.sub(Kind::Outboxes, bytes);
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
            && queue.bytes + queue.taken_bytes <= self.max_bytes / 2
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

    /// For the writer: waits for something to write. Cancelling it loses nothing.
    ///
    /// With `patient` it lets those run first who are ready to: the news that made one of them speak as a rule come to
    /// others, too, and what they all say is signed together.
    pub(super) async fn next(&self, patient: bool) -> Next {
        // How many there were when it last let others run; as long as that brings more, it does so again.
        let (mut seen, mut turns) = (0, if patient { PATIENCE } else { 0 });
        loop {
            let is_due = {
                let mut queue = self.queue();
                let is_closing = queue.closing.is_some() && !queue.lent;
                let grows = queue.messages > mem::replace(&mut seen, queue.messages);
                match queue.is_due(self.cork) || (queue.messages > 0 && is_closing) {
                    true if turns == 0 || !grows || queue.messages >= ROUND_MESSAGES => {
                        return Next::Round(queue.take_round());
                    }
                    false if queue.messages == 0 && is_closing => return Next::Closed,
                    is_due => is_due,
                }
            };
            if is_due {
                turns -= 1;
                yield_now().await;
                continue;
            }
            // A permit is kept if the notice came between the look and this.
            self.filled.notified().await;
        }
    }

    /// For the writer: what it took is signed and encoded now, and so many bytes.
    pub(super) fn encoded(&self, bytes: usize) {
        let mut queue = self.queue();
        let before = mem::replace(&mut queue.taken_bytes, bytes);
        drop(queue);
        self.memory.add(Kind::Outboxes, bytes);
        self.memory.sub(Kind::Outboxes, before);
        if bytes == 0 {
            // None of it could be sealed: there is nothing to write, and who waits for room has it.
            self.written(0);
        }
    }

    /// For the writer: what it took is down to `rest` bytes.
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

/// See [`Outbox::cork`].
#[derive(Debug)]
pub(super) struct Corked<'a>(&'a Outbox);

impl Drop for Corked<'_> {
    fn drop(&mut self) {
        self.0.uncork();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let left = self.bytes();
        self.memory.sub(Kind::Outboxes, left);
    }
}
