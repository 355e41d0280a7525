//! Sealing what goes out through trackers and opening what comes, outside the lock.

use super::driver::Shared;
use crate::identity::NodeId;
use crate::seal::Message;
use crate::wire::{Checked, Draft, NotOpened, Object, Roots, SealKey, draft};

impl Shared {
    /// A message from a connection, opened if it is an envelope for this node. On that connection's own task.
    pub(super) fn opened(&self, message: Checked, roots: &mut Roots) -> Checked {
        let Some(sealed) = message.sealed_for(&self.me) else { return message };
        let opened = match &self.sealer {
            Some(sealer) => sealer.open(sealed, self.start.elapsed()),
            None => Err(NotOpened::Off),
        };
        if let Err(why) = &opened {
            // Whose and what it is stands outside; nothing of what is in it is known.
            let (source, kind) = (sealed.source.short(), sealed.kind.as_str());
            tracing::debug!(%source, kind, %why, "a sealed message was not opened");
        }
        message.opened(opened, roots)
    }

    /// A message to be relayed: signed, sealed if there is a key, and wrapped. `None`: it can't be sealed, and is not to be
    /// sent otherwise.
    pub(super) fn sign_relay(&self, draft: &Draft, target: &NodeId, key: Option<SealKey>) -> Option<Object> {
        let inner = draft.sign(&self.identity);
        let frame = match key {
            None => inner,
            Some(key) => {
                let (kind, id) = draft.sealed_kind()?;
                let (instance, ttl_s) = match draft {
                    Draft::Task(task) => (task.instance.as_deref(), Some(task.ttl_s)),
                    _ => (None, None),
                };
                let message = Message { kind, id, target, key: &key, instance, ttl_s, text: inner.raw() };
                let sealer = self.sealer.as_ref()?;
                sealer.seal(&self.identity, &message, self.start.elapsed(), &mut rand::rng()).ok()?
            }
        };
        Some(draft::relay(target, &self.me, 0, &frame))
    }
}
