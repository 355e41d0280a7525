//! Answers in parts: at most a window of them is on its way, and what is not acknowledged is kept.

use bytes::Bytes;

use crate::mesh::action::{Action, OnFull, TaskKey};
use crate::mesh::clock::Now;
use crate::mesh::state::State;
use crate::mesh::task_id::TaskId;
use crate::wire::Draft;

/// The most bytes of chunks on the way unacknowledged, beyond the first chunk: two messages of the largest size.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// Why a chunk was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkRefused {
    /// The caller is behind; [`Action::Credit`] tells when to try again.
    Full,
    /// The task is over.
    Over,
}

impl State {
    pub(in crate::mesh) fn on_chunk_ack(&mut self, key: &TaskKey, next: u64, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        let (running, unacked) = (entry.running, entry.unacked_bytes);
        while entry.unacked.front().is_some_and(|(seq, _)| *seq < next) {
            if let Some((_, data)) = entry.unacked.pop_front() {
                entry.unacked_bytes -= data.len();
            }
        }
        let freed = unacked - entry.unacked_bytes;
        if std::mem::take(&mut entry.waiting) {
            out.push(Action::Credit { key: key.clone() });
        }
        self.tasks.acknowledged(key, running, freed);
    }

    /// The handler sends a chunk; `data` is canonical JSON.
    ///
    /// # Errors
    ///
    /// The caller is behind, or the task is over.
    pub fn chunk(&mut self, key: &TaskKey, data: Bytes, now: Now, out: &mut Vec<Action>) -> Result<(), ChunkRefused> {
        let entry = self.tasks.entries.get_mut(key).filter(|e| e.answer.is_none()).ok_or(ChunkRefused::Over)?;
        if entry.legacy.is_some() {
            // The package knows no chunks; its node gets the result alone.
            return Ok(());
        }
        if let Some(window) = entry.window {
            let full = entry.unacked.len() as u64 >= window
                || (!entry.unacked.is_empty() && entry.unacked_bytes + data.len() > WINDOW_BYTES);
            if full {
                entry.waiting = true;
                return Err(ChunkRefused::Full);
            }
            entry.unacked.push_back((entry.next_seq, data.clone()));
            entry.unacked_bytes += data.len();
            self.tasks.unacked_bytes += data.len();
        }
        let seq = entry.next_seq;
        entry.next_seq += 1;
        (entry.accepted, entry.accept_at) = (true, None);
        let (trail, local, window) = (entry.trail, entry.local, entry.window);
        if local {
            return if self.call_local_chunk(&key.1, data, now, out) {
                Ok(())
            } else {
                // The caller's own channel is full: this chunk comes again when there is room.
                if let Some(entry) = self.tasks.entries.get_mut(key) {
                    entry.next_seq = seq;
                    entry.waiting = true;
                }
                Err(ChunkRefused::Full)
            };
        }
        let unacknowledged = window.is_none();
        let draft = Draft::Chunk { id: key.1.to_text(), caller: key.0, seq, data };
        let sent = self.send_to(&key.0, trail, draft, OnFull::Close, out);
        if !sent
            && unacknowledged
            && let Some(entry) = self.tasks.entries.get_mut(key)
        {
            // The caller is gone, and no window holds the handler up: it waits until the caller asks again.
            entry.next_seq = seq;
            entry.waiting = true;
            return Err(ChunkRefused::Full);
        }
        Ok(())
    }

    /// Room for a local call's chunks again.
    pub(in crate::mesh) fn local_credit(&mut self, id: &TaskId, out: &mut Vec<Action>) {
        let key = (self.me, id.clone());
        if let Some(entry) = self.tasks.entries.get_mut(&key)
            && std::mem::take(&mut entry.waiting)
        {
            out.push(Action::Credit { key });
        }
    }
}
