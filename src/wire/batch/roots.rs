//! Which roots were checked already.

use super::known::{Known, Way};
use super::tree::Hash;
use super::{CONTEXT, Proof};
use crate::identity::{NodeId, verify};
use crate::limits::MAX_ROOTS;

/// Of how many roots the hashes below are kept: of a message that is sealed, its envelope's and its own.
const KNOWN: usize = 2;

/// What a batch's signature was found to be good for: all of it is compared, so nothing passes by what another was
/// checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verified {
    signature: [u8; 64],
    root: Hash,
    count: u16,
    signer: NodeId,
}

#[derive(Clone, Debug)]
struct Entry {
    verified: Verified,
    /// What is known of the tree, while messages of it are expected.
    known: Option<Known>,
    /// How many of its messages have not come yet, if none comes twice.
    left: u16,
}

/// The signed roots that were checked last, at most [`MAX_ROOTS`](crate::limits::MAX_ROOTS) of them. One for each
/// connection: who sends many pushes out its own. It takes no memory before the first batch.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// The one used last first.
    verified: Vec<Entry>,
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

    /// Of how many roots it keeps hashes that are below them.
    #[cfg(test)]
    pub(super) fn trees(&self) -> usize {
        self.verified.iter().filter(|entry| entry.known.is_some()).count()
    }

    /// Forgets all roots, and gives their memory back. Messages of the same batches are then checked as the first of them was.
    pub fn clear(&mut self) {
        self.verified = Vec::new();
    }

    /// Keeps the roots, and gives back what makes it quicker to check messages that come one after the other: nothing more
    /// is there at the moment. It has given it back by itself if all messages of the batches have come.
    pub fn rest(&mut self) {
        for entry in &mut self.verified {
            entry.known = None;
        }
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

    /// Whether `signer` signed the root that this leaf leads to.
    pub(super) fn is_signed(&mut self, signer: &NodeId, leaf: Hash, proof: &Proof<'_>) -> bool {
        let is_meant = |entry: &Entry| {
            let v = &entry.verified;
            v.count == proof.count && v.signature == *proof.signature && v.signer == *signer
        };
        let meant = self
            .verified
            .iter_mut()
            .position(|entry| is_meant(entry) && entry.known.as_mut().is_some_and(|known| known.proves(leaf, proof)));
        if let Some(place) = meant {
            self.used(place);
            return true;
        }
        let way = Way::to_root(leaf, proof);
        let root = *way.root();
        let new = Verified { signature: *proof.signature, root, count: proof.count, signer: *signer };
        let place = match self.verified.iter().position(|entry| entry.verified == new) {
            Some(place) => place,
            None => {
                if !self.check(signer, &signed_text(proof.count, &root), proof.signature) {
                    return false;
                }
                self.verified.truncate(MAX_ROOTS - 1);
                self.verified.insert(0, Entry { verified: new, known: None, left: proof.count });
                0
            }
        };
        if self.verified[place].left > 1 {
            self.verified[place].known = Some(Known::new(&way, proof));
        }
        self.used(place);
        for entry in self.verified.iter_mut().skip(KNOWN) {
            entry.known = None;
        }
        true
    }

    /// A message of that root was proven.
    fn used(&mut self, place: usize) {
        self.verified[..=place].rotate_right(1);
        let entry = &mut self.verified[0];
        entry.left = entry.left.saturating_sub(1);
        if entry.left == 0 {
            entry.known = None;
        }
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
