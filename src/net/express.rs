//! A message that finds nothing else on its way is sent where it was written: waking the writer on another thread takes longer
//! than signing.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use super::connection::Shared;
use super::io::Out;
use super::late;
use super::outbox::Outgoing;
use crate::identity::Identity;
use crate::wire::codec;

/// The way out while the writer has nothing for it.
#[derive(Debug, Default)]
pub(super) struct Express(Mutex<Option<Arc<Out>>>);

impl Express {
    fn out(&self) -> MutexGuard<'_, Option<Arc<Out>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it may be used.
    pub(super) fn open(&self, out: Arc<Out>) {
        *self.out() = Some(out);
    }

    /// From now on there is no way out.
    pub(super) fn close(&self) {
        *self.out() = None;
    }

    /// Sends a message that the outbox gave back: signs it, writes what the socket takes, and leaves the rest to the writer.
    pub(super) fn send(&self, message: Outgoing, shared: &Shared, identity: &Identity) {
        let out = self.out().clone();
        // Whatever comes in between, the writer goes on.
        let mut lent = Lent { shared, rest: Vec::new() };
        let Some(out) = out else { return };
        let (framing, mut text) = (shared.outbox.framing(), BytesMut::new());
        match message {
            Outgoing::Ready(object) | Outgoing::Passable(object) => codec::encode(framing, object.raw(), &mut text),
            Outgoing::Late(message) => {
                for object in late::sign(identity, vec![message]) {
                    codec::encode(framing, object.raw(), &mut text);
                }
            }
        }
        if text.is_empty() {
            return;
        }
        let length = text.len();
        match out.write_now(text) {
            Ok(rest) => {
                shared.bytes_out.fetch_add(length as u64, Ordering::Relaxed);
                shared.messages_out.fetch_add(1, Ordering::Relaxed);
                shared.speaks();
                lent.rest = rest;
            }
            Err(error) => shared.follow(None, format!("the connection broke: {error}")),
        }
    }
}

/// Gives the way out back when it is dropped.
struct Lent<'a> {
    shared: &'a Shared,
    rest: Vec<u8>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.shared.outbox.sent(std::mem::take(&mut self.rest));
    }
}
