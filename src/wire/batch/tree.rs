//! The tree of hashes over the messages of a batch: the shape of RFC 6962, section 2.1.
//!
//! Leaves and nodes are hashed with different first bytes, so neither passes for the other. A node without a neighbour
//! moves up as it is; it is not hashed with itself, which would give two lists of messages the same root
//! (CVE-2012-2459).

use std::iter::successors;

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};

use crate::limits::BATCH_MAX;

/// A SHA-256 hash.
pub(super) type Hash = [u8; 32];

/// The most levels above the leaves.
pub(super) const LEVELS: usize = BATCH_MAX.next_power_of_two().ilog2() as usize;

/// What SHA-256 begins with: FIPS 180-4, section 5.3.3.
const BEGIN: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The hash of a message, given as the pieces of its text.
pub(super) fn leaf<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    let mut hash = Sha256::new();
    hash.update([0]);
    for piece in pieces {
        hash.update(piece);
    }
    hash.finalize().into()
}

/// The hash of two nodes that are neighbours.
pub(super) fn node(left: &Hash, right: &Hash) -> Hash {
    // The 65 bytes padded as SHA-256 demands, and nothing around them: these are most of what is hashed.
    let mut text = [[0; 64]; 2];
    let [first, second] = &mut text;
    first[0] = 1;
    first[1..33].copy_from_slice(left);
    first[33..].copy_from_slice(&right[..31]);
    second[0] = right[31];
    second[1] = 0x80;
    second[62..].copy_from_slice(&(65u16 * 8).to_be_bytes());
    let mut state = BEGIN;
    compress256(&mut state, &text);
    let mut hash = [0; 32];
    for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

/// Where the neighbours of one leaf stand, from the leaf up: `true` for one on the left. A level where it has none is left
/// out.
pub(super) fn sides(index: usize, count: usize) -> impl Iterator<Item = bool> {
    let (mut index, mut width) = (index, count);
    std::iter::from_fn(move || {
        while width > 1 {
            let (i, w) = (index, width);
            (index, width) = (i / 2, w.div_ceil(2));
            if i % 2 == 1 {
                return Some(true);
            }
            if i + 1 < w {
                return Some(false);
            }
        }
        None
    })
}

/// Each level from that leaf's up to the root's: where it begins when all are in one row, the place in it, and how wide it is.
pub(super) fn levels(index: usize, count: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    successors(Some((0, index, count)), |&(start, index, width)| {
        (width > 1).then(|| (start + width, index / 2, width.div_ceil(2)))
    })
}

/// The root that a leaf and its neighbours lead to; `None` unless there are as many of them as the leaf's place demands.
#[cfg(test)]
pub(super) fn climb(leaf: Hash, index: usize, count: usize, path: &[Hash]) -> Option<Hash> {
    let mut sides = sides(index, count);
    let mut root = leaf;
    for neighbour in path {
        root = if sides.next()? { node(neighbour, &root) } else { node(&root, neighbour) };
    }
    sides.next().is_none().then_some(root)
}

/// All hashes over some leaves.
pub(super) struct Tree {
    /// The leaves, then each level above them, the root last.
    hashes: Vec<Hash>,
    count: usize,
}

impl Tree {
    /// Over at least one leaf.
    pub(super) fn new(leaves: impl ExactSizeIterator<Item = Hash>) -> Self {
        let count = leaves.len();
        let mut hashes = Vec::with_capacity(2 * count + 16);
        hashes.extend(leaves);
        let (mut start, mut width) = (0, count);
        while width > 1 {
            for i in (start..start + width).step_by(2) {
                let above = if i + 1 < start + width { node(&hashes[i], &hashes[i + 1]) } else { hashes[i] };
                hashes.push(above);
            }
            (start, width) = (start + width, width.div_ceil(2));
        }
        Self { hashes, count }
    }

    /// What is signed.
    pub(super) fn root(&self) -> &Hash {
        // There is a leaf at least.
        &self.hashes[self.hashes.len() - 1]
    }

    /// The neighbours of one leaf, from the leaf up.
    pub(super) fn path(&self, index: usize) -> impl Iterator<Item = &Hash> {
        let (mut index, mut start, mut width) = (index, 0, self.count);
        std::iter::from_fn(move || {
            while width > 1 {
                let (i, s, w) = (index, start, width);
                (index, start, width) = (i / 2, s + w, w.div_ceil(2));
                if (i ^ 1) < w {
                    return self.hashes.get(s + (i ^ 1));
                }
            }
            None
        })
    }
}
