//! Which roots were checked already.

use super::tree::Hash;
use super::{CONTEXT, Proof};
use crate::identity::{NodeId, verify};
use crate::limits::MAX_ROOTS;

/// What a batch's signature was found to be good for: all of it is compared, so nothing passes by what another was
/// checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified {
    signature: [u8; 64],
    root: Hash,
    count: u16,
    signer: NodeId,
}

/// The signed roots that were checked last, at most [`MAX_ROOTS`](crate::limits::MAX_ROOTS) of them. One for each
/// connection: who sends many pushes out its own. It takes no memory before the first batch.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// The one used last first.
    verified: Vec<Verified>,
    checks: u64,
}

impl Roots {
    /// None yet.
    pub const fn new() -> Self {
        Self { verified: Vec::new(), checks: 0 }
    }

    /// How many signatures were checked with this, plain ones and roots, good ones and bad: each costs some 45 µs. What was
    /// known already isn't counted.
    pub fn checks(&self) -> u64 {
        self.checks
    }

    /// How many roots it knows.
    pub fn len(&self) -> usize {
        self.verified.len()
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.verified.is_empty()
    }

    /// For how many it has taken memory.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.verified.capacity()
    }

    /// Forgets all roots, and gives their memory back. Messages of the same batches are then checked as the first of them was.
    pub fn clear(&mut self) {
        self.verified = Vec::new();
    }

    /// A signature is checked elsewhere.
    pub(super) fn counted(&mut self) {
        self.checks += 1;
    }

    /// Checks a signature, and counts it.
    pub(super) fn check(&mut self, signer: &NodeId, text: &[u8], signature: &[u8; 64]) -> bool {
        self.checks += 1;
        verify(signer, text, signature)
    }

    /// Whether `signer` signed that root.
    pub(super) fn is_signed(&mut self, signer: &NodeId, root: Hash, proof: &Proof<'_>) -> bool {
        let new = Verified { signature: *proof.signature, root, count: proof.count, signer: *signer };
        if let Some(place) = self.verified.iter().position(|known| *known == new) {
            self.verified[..=place].rotate_right(1);
            return true;
        }
        if !self.check(signer, &signed_text(proof.count, &root), proof.signature) {
            return false;
        }
        if self.verified.len() >= MAX_ROOTS {
            self.verified.truncate(MAX_ROOTS - 1);
        }
        self.verified.insert(0, new);
        true
    }
}

/// What is signed for a batch.
pub(super) fn signed_text(count: u16, root: &Hash) -> [u8; CONTEXT.len() + 34] {
    let mut text = [0; CONTEXT.len() + 34];
    text[..CONTEXT.len()].copy_from_slice(CONTEXT);
    text[CONTEXT.len()..CONTEXT.len() + 2].copy_from_slice(&count.to_be_bytes());
    text[CONTEXT.len() + 2..].copy_from_slice(root);
    text
}
