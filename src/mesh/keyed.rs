//! Hashing for what is looked up with every message: as safe as the standard library's against peers that choose their keys so
//! that they collide, in a fraction of its time, since keys are short here and their words are taken side by side.
//!
//! Multilinear hashing: the sum of the key's words, each multiplied by a secret number of its own. After Dietzfelbinger,
//! "Universal hashing and k-wise independent random variables via integer arithmetic without primes" (1996), and Lemire
//! and Kaser, "Strongly universal string hashing is fast" (2014): whatever two keys somebody chooses who doesn't know the
//! numbers, they meet in no more places than two keys at random.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

/// How many words are taken side by side: more than a node's id and a UUID have together. A longer key's are taken in groups.
const WORDS: usize = 16;

/// The secret numbers: for each word one, and the one that the sum begins with.
static SECRET: LazyLock<[u128; WORDS]> = LazyLock::new(|| {
    let random = RandomState::new();
    let half = |n: usize| u128::from(random.hash_one(n));
    std::array::from_fn(|n| half(2 * n) << 64 | half(2 * n + 1))
});

/// Makes hashers for a [`HashMap`](std::collections::HashMap).
#[derive(Clone, Copy, Debug, Default)]
pub struct Keyed;

impl BuildHasher for Keyed {
    type Hasher = Sum;

    #[inline]
    fn build_hasher(&self) -> Sum {
        let secret = &*SECRET;
        Sum { secret, sum: secret[0], at: 1 }
    }
}

/// The sum so far.
#[derive(Clone, Copy, Debug)]
pub struct Sum {
    secret: &'static [u128; WORDS],
    sum: u128,
    at: usize,
}

impl Sum {
    /// The group's own hash is the first word of the next one.
    #[cold]
    fn next_group(&mut self) {
        let group = self.finish();
        (self.sum, self.at) = (self.secret[0].wrapping_add(self.secret[1].wrapping_mul(group.into())), 2);
    }
}

impl Hasher for Sum {
    #[inline]
    fn write_u64(&mut self, word: u64) {
        if self.at == WORDS {
            self.next_group();
        }
        if let Some(number) = self.secret.get(self.at) {
            self.sum = self.sum.wrapping_add(number.wrapping_mul(word.into()));
            self.at += 1;
        }
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            // Whoever hashes a text says where it ends; so the zeros at its end are no other text's.
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    #[inline]
    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    #[inline]
    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        (self.sum >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::identity::NodeId;

    #[test]
    fn keys_alike_but_for_a_bit_are_spread() {
        let mut all = HashSet::new();
        let mut low = HashSet::new();
        for bit in 0..256 {
            let mut bytes = [0; 32];
            bytes[bit / 8] = 1 << (bit % 8);
            for id in ["", "a", "b", "aaaaaaaa", "aaaaaaaaa"] {
                let hash = Keyed.hash_one((NodeId::from_bytes(bytes), id));
                all.insert(hash);
                low.insert(hash % 4096);
            }
        }
        assert_eq!(all.len(), 256 * 5);
        // Of 1280 in 4096 places 1099 are expected to be alone or first.
        assert!(low.len() > 1000, "{}", low.len());
    }

    #[test]
    fn every_word_of_a_long_key_counts() {
        let text = "x".repeat(64 * 8);
        let changed = (0..text.len()).map(|at| {
            let mut text = text.clone();
            text.replace_range(at..=at, "y");
            Keyed.hash_one(text)
        });
        let hashes: HashSet<u64> = changed.chain([Keyed.hash_one(&text), Keyed.hash_one(&text[1..])]).collect();
        assert_eq!(hashes.len(), text.len() + 2);
    }
}
