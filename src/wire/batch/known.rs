//! The hashes of a tree that are known to lead to its root: from a message that was proven, its leaf, the nodes above it, and the
//! neighbours of all of these.
//!
//! A message that comes later is proven as soon as its own way meets one of them, if what is left of its path are the neighbours
//! that are known there: the full climb would hash the same on from there, up to the same root. So each node of a tree
//! is hashed once, and not once for every message below it. Whatever isn't proven so is climbed as if nothing were known.

use super::Proof;
use super::tree::{Hash, LEVELS, levels, node};
use crate::limits::BATCH_MAX;

/// Fewer than twice the messages of a batch: 16 KiB at most.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The leaves, then each level above them, the root last. What is known of a hash's way up is all of it: nothing is put
    /// in without the nodes above it, and their neighbours.
    hashes: Box<[Option<Hash>]>,
}

/// The hashes on a leaf's way up, the leaf first.
#[derive(Debug)]
pub(super) struct Way {
    hashes: [Hash; LEVELS + 1],
    length: usize,
}

impl Way {
    /// From the leaf to the root. The proof's path has the length that its place demands.
    pub(super) fn to_root(leaf: Hash, proof: &Proof<'_>) -> Self {
        let mut way = Self { hashes: [leaf; LEVELS + 1], length: 0 };
        let mut path = proof.path.iter();
        for (_, index, width) in levels(proof.index.into(), proof.count.into()) {
            let at = way.hashes[way.length];
            way.length += 1;
            if width > 1 {
                way.hashes[way.length] = above(&at, index, width, &mut path).unwrap_or(at);
            }
        }
        way
    }

    /// What it leads to.
    pub(super) fn root(&self) -> &Hash {
        &self.hashes[self.length - 1]
    }
}

/// The node above one; it is the same if that has no neighbour.
fn above<'a>(at: &Hash, index: usize, width: usize, path: &mut impl Iterator<Item = &'a Hash>) -> Option<Hash> {
    if index ^ 1 >= width {
        return Some(*at);
    }
    let neighbour = path.next()?;
    Some(if index % 2 == 1 { node(neighbour, at) } else { node(at, neighbour) })
}

impl Known {
    /// What a message proves whose signature over the root was checked.
    pub(super) fn new(way: &Way, proof: &Proof<'_>) -> Self {
        let size: usize = levels(0, proof.count.into()).map(|(_, _, width)| width).sum();
        debug_assert!(size < 2 * BATCH_MAX);
        let mut known = Self { hashes: vec![None; size].into() };
        known.learn(way, proof);
        known
    }

    /// Whether a message of a batch with that count is one of this tree, by what is known. If so, more is known then.
    pub(super) fn proves(&mut self, leaf: Hash, proof: &Proof<'_>) -> bool {
        let mut way = Way { hashes: [leaf; LEVELS + 1], length: 0 };
        let mut path = proof.path.iter();
        let mut met = false;
        for (start, index, width) in levels(proof.index.into(), proof.count.into()) {
            if !met {
                let at = way.hashes[way.length];
                met = self.get(start + index) == Some(&at);
                if !met {
                    let Some(next) = above(&at, index, width, &mut path).filter(|_| width > 1) else { return false };
                    way.length += 1;
                    way.hashes[way.length] = next;
                    continue;
                }
            }
            if index ^ 1 < width && self.get(start + (index ^ 1)) != path.next() {
                return false;
            }
        }
        self.learn(&way, proof);
        true
    }

    fn get(&self, place: usize) -> Option<&Hash> {
        self.hashes.get(place)?.as_ref()
    }

    /// Notes a way and its neighbours.
    fn learn(&mut self, way: &Way, proof: &Proof<'_>) {
        let mut path = proof.path.iter();
        let hashes = way.hashes.iter().take(way.length);
        for (hash, (start, index, width)) in hashes.zip(levels(proof.index.into(), proof.count.into())) {
            self.hashes[start + index] = Some(*hash);
            if index ^ 1 < width {
                self.hashes[start + (index ^ 1)] = path.next().copied();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::super::tree::{Tree, climb};
    use super::super::{Roots, sign, tree, verify_signed, write};
    use super::*;
    use crate::identity::Identity;
    use crate::wire::json::{Object, Unsigned};
    use crate::wire::{Draft, Framing, codec};

    fn alice() -> Identity {
        Identity::from_seed([1; 32])
    }

    fn cancel(n: usize) -> Unsigned {
        Draft::Cancel { id: n.to_string() }.unsigned(&alice().id())
    }

    fn batch(count: usize) -> Vec<Object> {
        sign(&alice(), (0..count).map(cancel).collect())
    }

    fn bytes(object: &Object) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(&object.str("signature").unwrap().unwrap()[1..]).unwrap()
    }

    #[test]
    fn in_any_order_all_are_proven_and_nothing_else_is() {
        for count in (2..=40).chain([63, 64, 65, 129, BATCH_MAX]) {
            let leaves: Vec<Hash> = (0..count).map(|n| tree::leaf([n.to_be_bytes().as_slice()])).collect();
            let tree = Tree::new(leaves.iter().copied());
            for step in [1, 2, 3, 7, count - 1] {
                let mut known: Option<Known> = None;
                for n in 0..count {
                    let index = (count / 2 + n * step) % count;
                    let path: Vec<Hash> = tree.path(index).copied().collect();
                    let (at, size) = (index as u16, count as u16);
                    let proof = Proof { signature: &[0; 64], index: at, count: size, path: &path };
                    let way = Way::to_root(leaves[index], &proof);
                    assert_eq!(Some(*way.root()), climb(leaves[index], index, count, &path));
                    let Some(known) = &mut known else {
                        known = Some(Known::new(&way, &proof));
                        continue;
                    };
                    assert!(!known.proves(leaves[(index + 1) % count], &proof), "another leaf");
                    assert!(!known.proves(*tree.root(), &proof), "the root for a leaf");
                    for level in 0..path.len() {
                        let mut path = path.clone();
                        path[level][31] ^= 1;
                        assert!(!known.proves(leaves[index], &Proof { path: &path, ..proof }), "{level}");
                    }
                    assert!(known.proves(leaves[index], &proof), "{index} of {count}");
                    assert!(known.proves(leaves[index], &proof), "again");
                }
                let known = known.unwrap();
                let hashes = known.hashes.iter().flatten().count();
                if step == 1 {
                    assert_eq!(hashes, known.hashes.len(), "all is known at last");
                }
            }
        }
    }

    #[test]
    fn what_is_known_is_given_back() {
        let id = alice().id();
        let mut roots = Roots::new();
        let batches: Vec<Vec<Object>> = (3..8).map(batch).collect();
        for (n, batch) in batches.iter().enumerate() {
            verify_signed(&batch[0], &id, &mut roots).unwrap();
            assert_eq!(roots.trees(), 2.min(n + 1), "of few batches");
        }
        let checks = roots.checks();
        for message in batches.iter().flat_map(|batch| &batch[1..2]) {
            verify_signed(message, &id, &mut roots).unwrap();
            assert!(roots.trees() <= 2);
        }
        for message in batches.iter().rev().flat_map(|batch| &batch[2..]) {
            verify_signed(message, &id, &mut roots).unwrap();
        }
        assert_eq!((roots.trees(), roots.checks()), (0, checks), "all messages have come");
        verify_signed(&batches[0][1], &id, &mut roots).unwrap();
        assert_eq!((roots.trees(), roots.checks()), (0, checks), "one that comes twice brings nothing back");
        let split = batch(9);
        for message in &split {
            verify_signed(message, &id, &mut roots).unwrap();
            roots.rest();
            assert_eq!((roots.trees(), roots.checks()), (0, checks + 1), "the root itself stays");
        }
        verify_signed(&batch(10)[0], &id, &mut roots).unwrap();
        assert_eq!(roots.trees(), 1);
        roots.clear();
        assert_eq!((roots.trees(), roots.len(), roots.capacity()), (0, 0, 0));
    }

    #[test]
    fn what_is_written_is_what_is_signed() {
        let id = alice().id();
        let query = |n: usize| Draft::Query {
            id: n.to_string(),
            capability: "x".into(),
            node: String::new(),
            ttl: 5,
            timestamp: 1,
            limit: 1,
        };
        for count in (0..20).chain([33, BATCH_MAX, BATCH_MAX + 1, 2 * BATCH_MAX + 3]) {
            let message = |n: usize| if n % 7 == 3 { query(n).unsigned(&id) } else { cancel(n) };
            let messages: Vec<Unsigned> = (0..count).map(message).collect();
            for framing in [Framing::Line, Framing::Length] {
                let (mut one, mut other) = (BytesMut::from(&b"before"[..]), BytesMut::from(&b"before"[..]));
                write(&alice(), &messages, framing, &mut one);
                for object in sign(&alice(), messages.clone()) {
                    codec::encode(framing, object.raw(), &mut other);
                }
                assert_eq!(one, other, "{count}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

        /// Changed in whatever way, with parts of the tree known or nothing: the answer is the same.
        #[test]
        fn what_is_known_changes_no_answer(
            count in 2usize..40,
            seen in prop::collection::vec(any::<usize>(), 0..20),
            tries in prop::collection::vec((any::<usize>(), any::<usize>(), 0u8..8, any::<usize>(), any::<usize>()), 1..12),
        ) {
            let (id, signed) = (alice().id(), batch(count));
            let leaves = signed.iter().map(|m| tree::leaf([&*m.signing_bytes(&["signature"])]));
            let leaves: Vec<Hash> = leaves.collect();
            let hashes: Vec<Hash> = {
                let tree = Tree::new(leaves.iter().copied());
                (0..count).flat_map(|n| tree.path(n).copied().collect::<Vec<_>>()).chain([*tree.root(), [0; 32]]).collect()
            };
            let mut roots = Roots::new();
            for index in seen {
                verify_signed(&signed[index % count], &id, &mut roots).unwrap();
            }
            for (message, from, how, one, two) in tries {
                let message = &signed[message % count];
                let mut bytes = bytes(if how == 0 { &signed[from % count] } else { message });
                let places = (bytes.len() - 68) / 32;
                let at = 68 + 32 * (one % places);
                match how {
                    1 => bytes[64..66].copy_from_slice(&(one as u16 % 48).to_be_bytes()),
                    2 => bytes[66..68].copy_from_slice(&(one as u16 % 48).to_be_bytes()),
                    3 | 4 => bytes[at..at + 32].copy_from_slice(&hashes[two % hashes.len()]),
                    5 => bytes[at + two % 32] ^= 1 << (two % 8),
                    6 => bytes[one % 64] ^= 1,
                    _ => {}
                }
                let text = format!("\"m{}\"", URL_SAFE_NO_PAD.encode(&bytes));
                let object = message.with_member("signature", text.as_bytes());
                let (len, checks) = (roots.len(), roots.checks());
                let mut fresh = Roots::new();
                let answer = verify_signed(&object, &id, &mut roots);
                prop_assert_eq!(answer, verify_signed(&object, &id, &mut fresh));
                prop_assert_eq!(answer.is_ok(), object == *message);
                if answer.is_ok() {
                    prop_assert_eq!(roots.checks() - checks, u64::from(len == 0), "the root was known");
                } else {
                    prop_assert_eq!(roots.checks() - checks, fresh.checks(), "what is wrong costs what it did");
                    prop_assert_eq!(roots.len(), len);
                }
            }
        }
    }
}
