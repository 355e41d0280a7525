//! One signature over many messages, each of which stays provable by itself.
//!
//! The messages are the leaves of a tree of hashes (RFC 6962, section 2.1; RFC 9162 has the same), whose root is signed.
//! Each message carries that signature, its place among the leaves, and the hashes that lead from it to the root: whoever
//! has the message and its author's id can check it, without the other messages, without having been there, and for
//! ever. Roughtime servers sign their answers so (draft-ietf-ntp-roughtime).
//!
//! What is tried against it, and what stops it:
//!
//! - *A node of the tree passed off as a message, or a message as a node.* They are hashed with different first bytes.
//! - *Two lists with one root.* A node without a neighbour moves up as it is. Hashing it with itself, as Bitcoin did, gave
//!   `[a, b, c]` and `[a, b, c, c]` the same root (CVE-2012-2459).
//! - *Another place.* The path alone tells on which side each neighbour stands, and that is the same for a leaf in several
//!   trees: the first of three and the first of four, the second of two and the third of three. So anybody on the way could
//!   write another index and count into a good signature. The count is therefore signed with the root, as RFC 9162 signs
//!   a tree's size; for a given count no two places have the same sides.
//! - *A second text for the same signature.* Everything in it has one length for its place, base64 has one spelling, and
//!   ed25519 signatures are checked strictly.
//! - *A signature meant for something else.* What is signed begins with [`CONTEXT`]; all else that a node's key signs begins
//!   with other bytes (a message with `{`, TLS with spaces, an item of the DHT with a digit).
//! - *A good root, remembered, for another's messages or with another signature.* [`Roots`] compares all of it.
//!
//! A message shows the hashes of others. Who can guess all of a neighbour can see that the guess is right, so messages
//! for different readers don't belong into one batch, unless they are sealed.

mod proof;
mod roots;
#[cfg(test)]
mod tests;
mod tree;

use std::iter::once;

use self::proof::Proof;
pub use self::roots::Roots;
use self::tree::Tree;
use super::json::{Object, SignatureError, Unsigned, plain_signature, verify_object};
use crate::identity::{Identity, NodeId};
use crate::limits::BATCH_MAX;

/// What a record and a handshake list when a node takes messages that were signed in a batch.
pub const BATCH: &str = "batch";

/// With what a text that is signed for a batch begins.
pub const CONTEXT: &[u8] = b"elo-batch-v1\n";

/// Whether a list of features has this one.
pub fn lists_batch(features: &[String]) -> bool {
    features.iter().any(|feature| feature == BATCH)
}

/// Signs messages with as few signatures as can be, and gives them in the order they came. A single one is signed plainly,
/// and so is what changes on its way ([`Unsigned::is_all_covered`]); of the others up to
/// [`BATCH_MAX`](crate::limits::BATCH_MAX) share a signature.
///
/// They should all be for one reader, or sealed: see [the module](self). Their reader must list [`BATCH`], and so must
/// everybody else who checks them on their way.
pub fn sign(identity: &Identity, messages: Vec<Unsigned>) -> Vec<Object> {
    let mut signed = Vec::with_capacity(messages.len());
    let mut batch = Vec::with_capacity(messages.len().min(BATCH_MAX));
    let together = messages.iter().filter(|message| message.is_all_covered()).count();
    // Trees of about the same size: none is left with a message alone when there is more than one.
    let size = together.div_ceil(together.div_ceil(BATCH_MAX).max(1));
    for (place, message) in messages.into_iter().enumerate() {
        if message.is_all_covered() {
            batch.push((place, message));
            if batch.len() == size {
                finish(identity, &mut batch, &mut signed);
            }
        } else {
            signed.push((place, message.sign(identity)));
        }
    }
    finish(identity, &mut batch, &mut signed);
    signed.sort_unstable_by_key(|(place, _)| *place);
    signed.into_iter().map(|(_, message)| message).collect()
}

fn finish(identity: &Identity, batch: &mut Vec<(usize, Unsigned)>, signed: &mut Vec<(usize, Object)>) {
    if batch.len() < 2 {
        signed.extend(batch.drain(..).map(|(place, message)| (place, message.sign(identity))));
        return;
    }
    let tree = Tree::new(batch.iter().map(|(_, message)| tree::leaf(once(&*message.signing_bytes()))));
    // At most `BATCH_MAX`, so both fit.
    let count = u16::try_from(batch.len()).unwrap_or(u16::MAX);
    let signature = identity.sign(&roots::signed_text(count, tree.root()));
    let mut text = String::new();
    for (index, (place, message)) in (0..).zip(batch.drain(..)) {
        proof::write(&signature, index, count, tree.path(index.into()), &mut text);
        signed.push((place, message.with_signature(&text)));
    }
}

/// Checks that `signer` signed everything in the object but its `signature`: by itself, or in a batch. Whoever keeps a
/// message can check it so later, apart from any connection.
///
/// # Errors
///
/// See [`SignatureError`].
pub fn verify_signed(object: &Object, signer: &NodeId, roots: &mut Roots) -> Result<(), SignatureError> {
    let text = object.text("signature").map_err(|_| SignatureError::Malformed)?.ok_or(SignatureError::Missing)?;
    if !proof::is_proof(&text) {
        let signature = plain_signature(&text)?;
        let signed = roots.check(signer, &object.signing_bytes(&["signature"]), &signature);
        return if signed { Ok(()) } else { Err(SignatureError::Invalid) };
    }
    let mut bytes = [0; proof::MAX];
    let proof = Proof::read(&text, &mut bytes).ok_or(SignatureError::Malformed)?;
    let leaf = match object.around("signature") {
        Some((before, after)) => tree::leaf([before, after]),
        None => tree::leaf(once(&*object.signing_bytes(&["signature"]))),
    };
    let root = tree::climb(leaf, proof.index.into(), proof.count.into(), proof.path);
    let root = root.ok_or(SignatureError::Malformed)?;
    if roots.is_signed(signer, root, &proof) { Ok(()) } else { Err(SignatureError::Invalid) }
}

/// Like [`verify_object`], for what is never signed in a batch, and counted.
pub(super) fn verify_plain(
    object: &Object,
    signer: &NodeId,
    uncovered: &[&str],
    roots: &mut Roots,
) -> Result<(), SignatureError> {
    roots.counted();
    verify_object(object, signer, uncovered)
}
