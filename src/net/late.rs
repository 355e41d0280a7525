//! Messages that are signed when it is their turn to be written, together with what else waits.

use std::collections::BTreeMap;
use std::fmt;

use crate::identity::{Identity, NodeId};
use crate::wire::{Object, Unsigned, batch};

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

/// Signs messages together, and gives them in the order they came.
///
/// Who reads a message also sees hashes of those it was signed with, and could guess at what they say. So messages for one reader
/// are signed together, and nothing else is; envelopes are, whosoever they are, since nobody guesses what is sealed.
pub(super) fn sign(identity: &Identity, messages: Vec<Late>) -> Vec<Object> {
    let mut done: Vec<Option<Object>> = Vec::new();
    done.resize_with(messages.len(), || None);
    let (mut plain, mut plain_places) = (Vec::new(), Vec::new());
    let mut inner: BTreeMap<NodeId, (Vec<Unsigned>, Vec<(usize, Seal, Wrap)>)> = BTreeMap::new();
    for (place, message) in messages.into_iter().enumerate() {
        match message {
            Late::Plain(message) => {
                plain.push(message);
                plain_places.push(place);
            }
            Late::Sealed(sealing) => {
                let Sealing { target, inner: message, seal, wrap } = *sealing;
                let of_target = inner.entry(target).or_default();
                of_target.0.push(message);
                of_target.1.push((place, seal, wrap));
            }
        }
    }
    for (place, object) in plain_places.into_iter().zip(batch::sign(identity, plain)) {
        done[place] = Some(object);
    }
    let (mut envelopes, mut envelope_places) = (Vec::new(), Vec::new());
    for (messages, places) in inner.into_values() {
        for (object, (place, seal, wrap)) in batch::sign(identity, messages).iter().zip(places) {
            match seal(object) {
                Some(envelope) => {
                    envelopes.push(envelope);
                    envelope_places.push((place, wrap));
                }
                // The call is sent again, and ends at its deadline.
                None => tracing::warn!("a message could not be sealed to its target's key; it is not sent"),
            }
        }
    }
    for ((place, wrap), object) in envelope_places.into_iter().zip(batch::sign(identity, envelopes)) {
        done[place] = Some(wrap(object));
    }
    done.into_iter().flatten().collect()
}
