//! Messages that are signed when it is their turn to be written, together with what else waits.

use std::collections::BTreeMap;
use std::fmt;

use bytes::BytesMut;

use crate::identity::{Identity, NodeId};
use crate::wire::{Framing, Object, Unsigned, batch, codec};

/// Seals a signed message into an envelope, which is then signed as well. `None`: it can't be sealed, and is not sent in
/// any other way.
pub type Seal = Box<dyn FnOnce(&Object) -> Option<Unsigned> + Send>;

/// Wraps an envelope for a tracker to pass on.
pub type Wrap = Box<dyn FnOnce(Object) -> Object + Send>;

/// A message that is signed when its turn comes.
pub enum Late {
    /// For the peer itself.
    Plain(Unsigned),
    /// For somebody behind the peer.
    Sealed(Box<Sealing>),
}

/// A message for somebody behind the peer: signed, sealed, signed outside, wrapped.
pub struct Sealing {
    /// Whom it is for.
    pub target: NodeId,
    /// The message.
    pub inner: Unsigned,
    /// Closes its envelope.
    pub seal: Seal,
    /// Addresses it.
    pub wrap: Wrap,
}

/// How much longer a message is with its signature, at most: 64 bytes of signature, index and count, and a path of
/// [`BATCH_MAX`](crate::limits::BATCH_MAX)'s depth, in base64.
const SIGNATURE: usize = 512;

/// How much an envelope and what a tracker reads are around a message, besides their signatures.
const ENVELOPE: usize = 1024;

impl Late {
    /// About how many bytes it will be; not fewer.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Plain(message) => message.signed_len() + SIGNATURE,
            // What is sealed is base64.
            Self::Sealed(sealing) => (sealing.inner.signed_len() + SIGNATURE) / 3 * 4 + ENVELOPE + SIGNATURE,
        }
    }
}

impl fmt::Debug for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Late").field("size", &self.size()).finish_non_exhaustive()
    }
}

/// Those for one node behind the peer: their messages, and what becomes of each.
#[derive(Default)]
struct OfTarget {
    messages: Vec<Unsigned>,
    rest: Vec<(usize, Seal, Wrap)>,
}

/// Signs messages together, and appends them to `out` in the order they came.
pub(super) fn write(identity: &Identity, messages: Vec<Late>, framing: Framing, out: &mut BytesMut) {
    let is_plain = |message: &Late| matches!(message, Late::Plain(_));
    if !messages.iter().all(is_plain) {
        for message in sign(identity, messages) {
            codec::encode(framing, message.raw(), out);
        }
        return;
    }
    let plain = messages.into_iter().filter_map(|message| match message {
        Late::Plain(message) => Some(message),
        Late::Sealed(_) => None,
    });
    // They are signed on their way into the buffer, and are nothing else in between.
    batch::write(identity, &plain.collect::<Vec<_>>(), framing, out);
}

/// Signs messages together, and gives them in the order they came.
///
/// Who reads a message also sees hashes of those it was signed with, and could guess at what they say. So messages for one reader
/// are signed together, and nothing else is; envelopes are, whosoever they are, since nobody guesses what is sealed.
pub(super) fn sign(identity: &Identity, messages: Vec<Late>) -> Vec<Object> {
    let mut done: Vec<Option<Object>> = Vec::new();
    done.resize_with(messages.len(), || None);
    let mut plain = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
    let mut sealed: BTreeMap<NodeId, OfTarget> = BTreeMap::new();
    for (place, message) in messages.into_iter().enumerate() {
        match message {
            Late::Plain(message) => {
                plain.0.push(place);
                plain.1.push(message);
            }
            Late::Sealed(sealing) => {
                let Sealing { target, inner, seal, wrap } = *sealing;
                let of_target = sealed.entry(target).or_default();
                of_target.messages.push(inner);
                of_target.rest.push((place, seal, wrap));
            }
        }
    }
    for (place, object) in plain.0.into_iter().zip(batch::sign(identity, plain.1)) {
        done[place] = Some(object);
    }
    let mut envelopes = (Vec::new(), Vec::new());
    for OfTarget { messages, rest } in sealed.into_values() {
        for (object, (place, seal, wrap)) in batch::sign(identity, messages).iter().zip(rest) {
            match seal(object) {
                Some(envelope) => {
                    envelopes.0.push((place, wrap));
                    envelopes.1.push(envelope);
                }
                // The call is sent again, and ends at its deadline.
                None => tracing::warn!("a message could not be sealed to its target's key; it is not sent"),
            }
        }
    }
    for ((place, wrap), object) in envelopes.0.into_iter().zip(batch::sign(identity, envelopes.1)) {
        done[place] = Some(wrap(object));
    }
    done.into_iter().flatten().collect()
}
