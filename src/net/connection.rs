//! A connection: the handle to it, and what its two tasks share.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::NetConfig;
use super::express::Express;
use super::handshake::Established;
use super::hooks::Hooks;
use super::outbox::{Closing, Outbox, Outgoing, SendError};
use super::reader::Reader;
use super::writer::Writer;
use crate::error::CloseReason;
use crate::mesh::ConnId;
use crate::wire::{Object, Speaker, draft};

/// How long the other side may take to end its half of the stream after we ended ours: what it had on the way arrives
/// in that time.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// How long a peer may take for its `bye` when the memory is wanted.
const SHED: Duration = Duration::from_millis(500);

/// Longer times mean "never"; added to a moment they would overflow it.
pub(super) const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) reason: Option<CloseReason>,
    pub(super) message: String,
}

/// What the two tasks and the handle share.
pub(super) struct Shared {
    pub(super) id: ConnId,
    pub(super) speaker: Speaker,
    /// See [`Connection::takes_batches`].
    pub(super) takes_batches: bool,
    pub(super) outbox: Outbox,
    /// Stop at once.
    pub(super) aborted: CancellationToken,
    /// The writer has written its last.
    pub(super) written: CancellationToken,
    /// What it holds is to be given back at once: nothing more is read.
    pub(super) shed: CancellationToken,
    /// Bytes of input that is not a complete message yet.
    pub(super) partial: AtomicUsize,
    /// The first cause counts: those after it are its consequences.
    end: Mutex<Option<End>>,
    began: Instant,
    /// Milliseconds after `began`.
    heard: AtomicU64,
    spoke: AtomicU64,
    /// For a message that finds nothing else on its way.
    pub(super) express: Express,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) messages_in: AtomicU64,
    pub(super) messages_out: AtomicU64,
}

impl Shared {
    /// Notes why it ends, unless that is known already.
    pub(super) fn ends(&self, reason: Option<CloseReason>, message: impl Into<String>) {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if end.is_none() {
            *end = Some(End { reason, message: message.into() });
        }
    }

    /// Ends it in good order: what waits is sent, then `bye`.
    pub(super) fn close(&self, reason: CloseReason, message: &str, within: Duration) {
        let bye = Some(draft::bye(reason, message));
        // Whoever closes the outbox gives the reason: a close after the peer's end changes nothing any more.
        if self.outbox.close(Closing { bye, within }) {
            self.ends(Some(reason), message);
        }
    }

    /// Ends it after the peer did: what waits is sent, and no `bye`.
    pub(super) fn follow(&self, reason: Option<CloseReason>, message: impl Into<String>) {
        self.ends(reason, message);
        self.outbox.close(Closing { bye: None, within: LINGER });
    }

    /// Ends it here and now.
    pub(super) fn abort(&self, reason: Option<CloseReason>, message: impl Into<String>) {
        self.ends(reason, message);
        self.outbox.close(Closing { bye: None, within: Duration::ZERO });
        self.aborted.cancel();
    }

    pub(super) fn hears(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.heard.store(self.millis(), Ordering::Relaxed);
    }

    /// Something was said.
    pub(super) fn speaks(&self) {
        self.spoke.store(self.millis(), Ordering::Relaxed);
    }

    /// When something was said last.
    pub(super) fn spoke_at(&self) -> Instant {
        self.began + Duration::from_millis(self.spoke.load(Ordering::Relaxed))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// When something was heard last.
    pub(super) fn heard_at(&self) -> Instant {
        self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Time since the connection began, for what counts by it.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).field("speaker", &self.speaker).finish_non_exhaustive()
    }
}

/// Held by both tasks: when the second lets go, however it ended, the connection is over.
pub(super) struct Ending {
    pub(super) shared: Arc<Shared>,
    pub(super) hooks: Arc<dyn Hooks>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.express.close();
        // Also those that wait for room must learn of it.
        self.shared.abort(None, "the connection's tasks were stopped");
        let end = self.shared.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (reason, message) = end.map_or((None, String::new()), |end| (end.reason, end.message));
        self.hooks.closed(self.shared.id, reason, message);
    }
}

/// A handle to a connection; cloning it is cheap. When the last one is dropped the connection is closed at once, unless
/// [`close`](Self::close) was called: then it ends by itself within the times given there.
#[derive(Clone, Debug)]
pub struct Connection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    cfg: Arc<NetConfig>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A graceful end is bounded in time, and would be none if the handle had to be kept for it.
        if !self.shared.outbox.is_closed() {
            self.shared.abort(None, "the connection was dropped");
        }
    }
}

impl Established {
    /// Makes the connection and its two tasks, which are yet to be [run](Tasks::run). `first` is sent before anything
    /// else.
    pub fn prepare(
        self,
        id: ConnId,
        first: Option<Object>,
        hooks: Arc<dyn Hooks>,
        cfg: &Arc<NetConfig>,
    ) -> (Connection, Tasks) {
        let framing = self.stream.codec.framing();
        let shared = Arc::new(Shared {
            id,
            speaker: self.proven.speaker,
            takes_batches: self.proven.takes_batches(),
            outbox: Outbox::new(framing, &cfg.limits, Arc::clone(&cfg.memory)),
            aborted: CancellationToken::new(),
            written: CancellationToken::new(),
            shed: CancellationToken::new(),
            partial: AtomicUsize::new(0),
            end: Mutex::default(),
            began: Instant::now(),
            heard: AtomicU64::new(0),
            spoke: AtomicU64::new(0),
            express: Express::default(),
            bytes_in: AtomicU64::new(self.stream.bytes_in),
            bytes_out: AtomicU64::new(self.stream.bytes_out),
            messages_in: AtomicU64::new(0),
            messages_out: AtomicU64::new(0),
        });
        // An empty outbox takes any one message that fits on the wire, and a welcome is made to fit.
        if let Some(first) = first
            && let Err(error) = shared.outbox.push(Outgoing::Ready(first))
        {
            shared.abort(None, error.to_string());
        }
        let ending = Arc::new(Ending { shared: Arc::clone(&shared), hooks });
        let (read, write) = self.stream.io.into_split();
        let reader = Reader::new(Arc::clone(&ending), read, self.stream.codec, self.stream.buffer, cfg);
        let writer = Writer::new(ending, write, Arc::clone(cfg));
        let inner = Arc::new(Inner { shared, cfg: Arc::clone(cfg) });
        (Connection { inner }, Tasks { reader, writer })
    }

    /// Makes the connection, and runs its tasks.
    #[cfg(test)]
    pub fn start(self, id: ConnId, first: Option<Object>, hooks: Arc<dyn Hooks>, cfg: &Arc<NetConfig>) -> Connection {
        let (connection, tasks) = self.prepare(id, first, hooks, cfg);
        tasks.run();
        connection
    }
}

/// A connection's two tasks. They end when it does; dropping them instead ends it.
#[must_use = "a connection without its tasks is over"]
pub struct Tasks {
    reader: Reader,
    writer: Writer,
}

impl Tasks {
    /// Sets them going. Must be called within a tokio runtime.
    pub fn run(self) {
        tokio::spawn(self.reader.run());
        tokio::spawn(self.writer.run());
    }

    /// How many bytes each of them takes while it waits.
    #[cfg(test)]
    pub fn sizes(self) -> [usize; 2] {
        [size_of_val(&self.reader.run()), size_of_val(&self.writer.run())]
    }
}

impl Connection {
    /// Whether the peer takes messages that were signed in a batch: it listed that in its handshake.
    pub fn takes_batches(&self) -> bool {
        self.inner.shared.takes_batches
    }

    /// Puts a message into the outbox; never waits.
    ///
    /// # Errors
    ///
    /// When there is no room, the connection is closed, or the message is longer than the wire allows.
    pub fn send(&self, message: Outgoing) -> Result<(), SendError> {
        let shared = &self.inner.shared;
        if let Some(message) = shared.outbox.push(message)? {
            shared.express.send(message, shared, &self.inner.cfg.identity);
        }
        Ok(())
    }

    /// Has the writer wait, as more is sent presently: see [`uncork`](Self::uncork).
    pub fn cork(&self) {
        self.inner.shared.outbox.corked();
    }

    /// The writer may go on. Whoever corked it must say so.
    pub fn uncork(&self) {
        self.inner.shared.outbox.uncork();
    }

    /// A message that is ready.
    #[cfg(test)]
    pub fn send_object(&self, message: &Object) -> Result<(), SendError> {
        self.send(Outgoing::Ready(message.clone()))
    }

    /// Whether less than half of the outbox is used.
    #[cfg(test)]
    pub fn has_room(&self) -> bool {
        self.inner.shared.outbox.has_room()
    }

    /// Waits until less than half of the outbox is used, or the connection is closed.
    pub async fn room(&self) {
        self.inner.shared.outbox.room().await;
    }

    /// Whether it takes no more messages.
    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        self.inner.shared.outbox.is_closed()
    }

    /// Ends the connection in good order: sends what waits (for at most [`Limits::write_timeout`]), then `bye`, then
    /// ends this half of the stream. Messages of the peer's are still taken until it ends its half, for 2 s at most.
    ///
    /// [`Limits::write_timeout`]: crate::Limits::write_timeout
    pub fn close(&self, reason: CloseReason, message: &str) {
        self.inner.shared.close(reason, message, self.inner.cfg.limits.write_timeout);
    }

    /// Gives back what it holds, and ends it: `bye` is sent if the peer takes it soon.
    pub fn shed(&self, reason: CloseReason, message: &str) {
        let shared = &self.inner.shared;
        shared.outbox.empty();
        shared.close(reason, message, SHED);
        shared.shed.cancel();
    }

    /// Bytes that it holds for its peer: what waits to be sent, and input that is not complete.
    pub fn holds(&self) -> usize {
        let shared = &self.inner.shared;
        shared.outbox.bytes() + shared.partial.load(Ordering::Relaxed)
    }

    /// Ends the connection here and now; what waits is lost.
    pub fn abort(&self) {
        self.inner.shared.abort(None, "the connection was aborted");
    }

    /// Bytes of messages received.
    pub fn bytes_in(&self) -> u64 {
        self.inner.shared.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes of messages sent.
    pub fn bytes_out(&self) -> u64 {
        self.inner.shared.bytes_out.load(Ordering::Relaxed)
    }

    /// Messages received after the handshake.
    pub fn messages_in(&self) -> u64 {
        self.inner.shared.messages_in.load(Ordering::Relaxed)
    }

    /// Messages sent after the handshake.
    pub fn messages_out(&self) -> u64 {
        self.inner.shared.messages_out.load(Ordering::Relaxed)
    }
}
