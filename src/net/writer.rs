//! The task that writes.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{sleep, sleep_until, timeout};

use super::NetConfig;
use super::connection::{Ending, FOREVER, Shared};
use super::io::WriteHalf;
use super::late::{self, Late};
use super::outbox::{Next, Part};
use crate::error::CloseReason;
use crate::wire::{Framing, codec, draft};

/// A buffer larger than this is given back when it is empty: it was for a burst.
const KEEP: usize = 4 * 1024;

pub(super) struct Writer {
    ending: Arc<Ending>,
    half: WriteHalf,
    cfg: Arc<NetConfig>,
    batch: BytesMut,
}

/// Why nothing more can be written.
enum Stuck {
    Lost(io::Error),
    TooSlow,
}

impl Writer {
    pub(super) fn new(ending: Arc<Ending>, half: WriteHalf, cfg: Arc<NetConfig>) -> Self {
        ending.shared.express.open(half.out());
        Self { ending, half, cfg, batch: BytesMut::new() }
    }

    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.ending.shared);
        // If a panic ends this task, the reader must not go on alone.
        let guard = shared.aborted.clone().drop_guard();
        let overdue = async {
            let within = shared.outbox.until_closed().await;
            sleep(within).await;
        };
        tokio::select! {
            biased;
            () = shared.aborted.cancelled() => return,
            written = self.write_until_closed(&shared) => match written {
                Ok(()) => {}
                // The peer may have said why before it went: the reader takes what is there.
                Err(Stuck::Lost(error)) => shared.follow(None, format!("the connection broke: {error}")),
                Err(Stuck::TooSlow) => {
                    let waited = self.cfg.limits.write_timeout;
                    let message = format!("the peer took nothing of what was sent to it for {waited:?}");
                    return shared.abort(Some(CloseReason::TooSlow), message);
                }
            },
            () = overdue => return shared.abort(None, "the peer did not take the rest in time"),
        }
        guard.disarm();
        // The stream's half ends when the last lets go of it.
        shared.express.close();
        drop(self.half);
        shared.written.cancel();
    }

    async fn write_until_closed(&mut self, shared: &Shared) -> Result<(), Stuck> {
        let silence = self.cfg.limits.heartbeat_interval.min(FOREVER);
        let mut several = false;
        loop {
            let next = tokio::select! {
                next = shared.outbox.next(several) => Some(next),
                () = sleep_until(shared.spoke_at() + silence) => None,
            };
            let (messages, long) = match next {
                Some(Next::Round(round)) => {
                    self.half.resume(round.rest);
                    self.encode(shared, round.parts, round.bytes);
                    let bytes = self.batch.len() + self.half.kept();
                    shared.outbox.encoded(bytes + round.long.as_ref().map_or(0, BytesMut::len));
                    (round.messages, round.long)
                }
                Some(Next::Closed) => break,
                // Others spoke meanwhile.
                None if shared.spoke_at().elapsed() < silence => continue,
                None => {
                    let beat = draft::heartbeat(&self.cfg.identity.id(), self.cfg.now(), None, None);
                    codec::encode(shared.outbox.framing(), beat.raw(), &mut self.batch);
                    (1, None)
                }
            };
            self.write_batch(shared, long.as_ref().map_or(0, BytesMut::len)).await?;
            if let Some(long) = long {
                self.batch = long;
                self.write_batch(shared, 0).await?;
            }
            shared.messages_out.fetch_add(messages as u64, Ordering::Relaxed);
            shared.speaks();
            several = messages > 1;
        }
        if shared.outbox.take_bye(&mut self.batch) {
            self.write_batch(shared, 0).await?;
            shared.messages_out.fetch_add(1, Ordering::Relaxed);
        }
        self.half.part().await.map_err(Stuck::Lost)
    }

    /// Puts them into the batch, signed.
    fn encode(&mut self, shared: &Shared, parts: Vec<Part>, room: usize) {
        let framing = shared.outbox.framing();
        self.batch.reserve(room);
        let mut late = Vec::new();
        for part in parts {
            match part {
                Part::Late(message) => late.push(message),
                Part::Encoded { bytes, .. } => {
                    self.sign(framing, &mut late);
                    if self.batch.is_empty() {
                        self.batch = bytes;
                    } else {
                        self.batch.extend_from_slice(&bytes);
                    }
                }
            }
        }
        self.sign(framing, &mut late);
    }

    fn sign(&mut self, framing: Framing, late: &mut Vec<Late>) {
        if late.is_empty() {
            return;
        }
        late::write(&self.cfg.identity, mem::take(late), framing, &mut self.batch);
    }

    async fn write_batch(&mut self, shared: &Shared, after: usize) -> Result<(), Stuck> {
        let patience: Duration = self.cfg.limits.write_timeout;
        let room = self.batch.capacity();
        while self.batch.has_remaining() || self.half.kept() > 0 {
            let before = self.batch.len();
            // Any progress starts the time anew: a slow line is not a peer that doesn't read.
            match timeout(patience, self.half.write_part(&mut self.batch)).await {
                Ok(Ok(())) => {
                    let written = before - self.batch.len();
                    shared.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
                    shared.outbox.written(self.batch.len() + self.half.kept() + after);
                }
                Ok(Err(error)) => return Err(Stuck::Lost(error)),
                Err(_) => return Err(Stuck::TooSlow),
            }
        }
        // A connection at rest keeps a small buffer at most.
        if room > KEEP {
            self.batch = BytesMut::new();
        }
        Ok(())
    }
}
