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
//! - *A path that leads to hashes known from other messages, and on from there to nothing.* What is left of a path must be the
//!   neighbours that are known there: then hashing on would give the root that was signed.
//!
//! A message shows the hashes of others. Who can guess all of a neighbour can see that the guess is right, so messages
//! for different readers don't belong into one batch, unless they are sealed.

mod known;
mod proof;
mod roots;
#[cfg(test)]
mod tests;
mod tree;

use std::iter::once;

use bytes::BytesMut;

use self::proof::{Proof, Texts};
pub use self::roots::Roots;
use self::tree::Tree;
use super::codec::{self, Framing};
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

/// Signs messages with as few signatures as can be, and gives them in the order they came. A single one is signed plainly
/// unless it is [long](sign_long),
/// and so is what changes on its way ([`Unsigned::is_all_covered`]); of the others up to
/// [`BATCH_MAX`](crate::limits::BATCH_MAX) share a signature.
///
/// They should all be for one reader, or sealed: see [the module](self). Their reader must list [`BATCH`], and so must
/// everybody else who checks them on their way.
pub fn sign(identity: &Identity, messages: Vec<Unsigned>) -> Vec<Object> {
    let mut trees = Trees::new(identity, &messages);
    messages
        .into_iter()
        .map(|message| match trees.next(&message) {
            Some(signature) => message.with_signature(signature),
            None => message.sign(identity),
        })
        .collect()
}

/// Signs a long message: as a batch of one. A plain signature hashes all of it twice with SHA-512, and checking it once more; here it is
/// hashed once on either side, with what most processors have instructions for. What changes on its way is signed plainly.
pub fn sign_long(identity: &Identity, message: Unsigned) -> Object {
    if !message.is_all_covered() {
        return message.sign(identity);
    }
    let tree = Tree::new(once(tree::leaf(once(&*message.signing_bytes()))));
    let signature = identity.sign(&roots::signed_text(1, tree.root()));
    let mut texts = Texts::new(&signature, 1);
    message.with_signature(texts.write(0, tree.path(0)))
}

/// Like [`sign`], for messages that are only to be sent: each is appended to `out`, [encoded](codec::encode).
pub fn write(identity: &Identity, messages: &[Unsigned], framing: Framing, out: &mut BytesMut) {
    let mut trees = Trees::new(identity, messages);
    for message in messages {
        match trees.next(message) {
            Some(signature) => codec::encode_parts(framing, &message.parts(signature), out),
            None => codec::encode_parts(framing, &message.parts(&message.plain_signature(identity)), out),
        }
    }
}

/// The trees over some messages, signed; then the texts of the messages' signatures, one after the other.
struct Trees {
    trees: Vec<(Tree, Texts)>,
    /// Over how many messages each tree is, but for the last.
    size: usize,
    /// How many of those that share signatures were given theirs.
    given: usize,
}

impl Trees {
    fn new(identity: &Identity, messages: &[Unsigned]) -> Self {
        let together: Vec<&Unsigned> = messages.iter().filter(|message| message.is_all_covered()).collect();
        // Of about the same size: none is left with a message alone when there is more than one.
        let size = together.len().div_ceil(together.len().div_ceil(BATCH_MAX).max(1)).max(1);
        let trees = together.chunks(size).filter(|messages| messages.len() > 1).map(|messages| {
            let tree = Tree::new(messages.iter().map(|message| tree::leaf(once(&*message.signing_bytes()))));
            // At most `BATCH_MAX`, so it fits.
            let count = u16::try_from(messages.len()).unwrap_or(u16::MAX);
            let signature = identity.sign(&roots::signed_text(count, tree.root()));
            (tree, Texts::new(&signature, count))
        });
        Self { trees: trees.collect(), size, given: 0 }
    }

    /// The text of the next message's signature; `None`: it is signed alone.
    fn next(&mut self, message: &Unsigned) -> Option<&[u8]> {
        if !message.is_all_covered() {
            return None;
        }
        let (number, index) = (self.given / self.size, self.given % self.size);
        self.given += 1;
        let (tree, texts) = self.trees.get_mut(number)?;
        // Below `BATCH_MAX`, so it fits.
        Some(texts.write(u16::try_from(index).unwrap_or(u16::MAX), tree.path(index)))
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
    if roots.is_signed(signer, leaf, &proof) { Ok(()) } else { Err(SignatureError::Invalid) }
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
