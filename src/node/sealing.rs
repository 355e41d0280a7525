//! Sealing what goes out through trackers and opening what comes, outside the lock.

use std::sync::Arc;

use super::driver::Shared;
use crate::identity::NodeId;
use crate::limits::LONG_MESSAGE;
use crate::net::{Connection, Late, Outgoing, Sealing};
use crate::seal::Message;
use crate::wire::{Checked, Draft, NotOpened, Object, Roots, SealKey, SealedKind, Unsigned, batch, draft};

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

    /// A message to be relayed: signed, sealed if there is a key, and wrapped; or on its way to that, when it may be signed
    /// together with others. `None`: it can't be sealed, and is not to be sent otherwise.
    pub(super) fn to_relay(
        &self,
        draft: Draft,
        target: NodeId,
        key: Option<SealKey>,
        over: &Connection,
    ) -> Option<Outgoing> {
        let inner = draft.unsigned(&self.me);
        let Some(key) = key else {
            // Everybody on the way can read it, so it is signed with nobody else's.
            return Some(Outgoing::Passable(draft::relay(&target, &self.me, 0, &inner.sign(&self.identity))));
        };
        let sealer = self.sealer.as_ref()?;
        let envelope = OfEnvelope::new(&draft, target, key)?;
        // The tracker checks the envelope, and its target all of it: both must take batches.
        let takes_batches = over.takes_batches() && sealer.takes_batches(&target);
        if inner.signed_len() < LONG_MESSAGE && takes_batches {
            let (me, weak) = (self.me, self.strong().map(|shared| Arc::downgrade(&shared))?);
            let seal = Box::new(move |inner: &Object| weak.upgrade()?.sealed(&envelope, inner));
            let wrap = Box::new(move |frame: Object| draft::relay(&target, &me, 0, &frame));
            return Some(Outgoing::Late(Late::Sealed(Box::new(Sealing { target, inner, seal, wrap }))));
        }
        let sign = |message: Unsigned| match takes_batches {
            true => batch::sign_long(&self.identity, message),
            false => message.sign(&self.identity),
        };
        let frame = sign(self.sealed(&envelope, &sign(inner))?);
        Some(Outgoing::Passable(draft::relay(&target, &self.me, 0, &frame)))
    }

    fn sealed(&self, of: &OfEnvelope, inner: &Object) -> Option<Unsigned> {
        let message = Message {
            kind: of.kind,
            id: &of.id,
            target: &of.target,
            key: &of.key,
            instance: of.instance.as_deref(),
            ttl_s: of.ttl_s,
            text: inner.raw(),
        };
        self.sealer.as_ref()?.seal_unsigned(&message, self.start.elapsed(), &mut rand::rng()).ok()
    }
}

/// What stands on an envelope.
struct OfEnvelope {
    kind: SealedKind,
    id: String,
    target: NodeId,
    key: SealKey,
    instance: Option<String>,
    ttl_s: Option<u64>,
}

impl OfEnvelope {
    fn new(draft: &Draft, target: NodeId, key: SealKey) -> Option<Self> {
        let (kind, id) = draft.sealed_kind()?;
        let (instance, ttl_s) = match draft {
            Draft::Task(task) => (task.instance.clone(), Some(task.ttl_s)),
            _ => (None, None),
        };
        Some(Self { kind, id: id.to_owned(), target, key, instance, ttl_s })
    }
}
