//! Remembering ids against loops and duplicates, bounded by time and by count.
//!
//! An id is remembered together with the key that signed it, so nobody can silence somebody else's message by using
//! its id first.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

/// What was seen, with something remembered for each.
#[derive(Debug)]
pub struct Seen<K, V> {
    entries: HashMap<K, (V, u64)>,
    order: VecDeque<(Duration, u64, K)>,
    count: u64,
    cap: usize,
    keep: Duration,
}

impl<K: Clone + Eq + Hash, V> Seen<K, V> {
    /// Remembers at most `cap` entries, each for `keep`.
    pub fn new(cap: usize, keep: Duration) -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), count: 0, cap: cap.max(1), keep }
    }

    /// Remembers a key; `false` when it is known already. The oldest make room.
    pub fn insert(&mut self, key: K, value: V, now: Duration) -> bool {
        self.expire(now);
        if self.entries.contains_key(&key) {
            return false;
        }
        // Entries that were removed leave their places behind: those are bounded too.
        while (self.entries.len() >= self.cap || self.order.len() >= 2 * self.cap) && self.pop_oldest() {}
        self.count += 1;
        self.entries.insert(key.clone(), (value, self.count));
        self.order.push_back((now.saturating_add(self.keep), self.count, key));
        true
    }

    /// Whether a key is remembered.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// What is remembered for a key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Forgets what is old.
    pub fn expire(&mut self, now: Duration) {
        while self.order.front().is_some_and(|(until, ..)| *until <= now) {
            self.pop_oldest();
        }
    }

    /// Forgets one key.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        // Its place in the order stays until its time comes; the count tells that it is no longer the same entry.
        self.entries.remove(key).map(|(value, _)| value)
    }

    /// What it holds, in bytes; `beyond` tells what an entry holds outside of the tables.
    #[cfg(test)]
    pub fn weight(&self, beyond: impl Fn(&K, &V) -> usize) -> usize {
        let entries: usize = self.entries.iter().map(|(key, (value, _))| beyond(key, value)).sum();
        // Keys stand in both tables; what they hold outside of them is taken to be as long on the average.
        let tables = super::weight::hash(self.entries.capacity(), size_of::<(K, (V, u64))>())
            + self.order.capacity() * size_of::<(Duration, u64, K)>();
        tables + 2 * entries
    }

    /// How many are remembered.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn pop_oldest(&mut self) -> bool {
        let Some((_, count, key)) = self.order.pop_front() else { return false };
        if self.entries.get(&key).is_some_and(|(_, c)| *c == count) {
            self.entries.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_known_until_its_time_or_until_there_is_no_room() {
        let at = Duration::from_secs;
        let mut seen = Seen::new(3, at(10));
        assert!(seen.insert("a", 1, at(0)) && seen.insert("b", 2, at(1)));
        assert!(!seen.insert("a", 9, at(9)));
        assert_eq!(seen.get_mut(&"a"), Some(&mut 1));
        assert!(seen.insert("a", 3, at(10)), "its time was over");
        assert!(seen.insert("c", 4, at(10)) && seen.insert("d", 5, at(10)));
        assert_eq!((seen.len(), seen.get_mut(&"b")), (3, None));
        seen.expire(at(20));
        assert_eq!((seen.len(), seen.order.len()), (0, 0));
    }

    #[test]
    fn removing_and_inserting_again_keeps_no_more_than_its_bounds() {
        let mut seen = Seen::new(3, Duration::from_secs(10));
        for n in 0..100 {
            seen.remove(&"a");
            assert!(seen.insert("a", n, Duration::ZERO));
            assert!(seen.order.len() <= 6);
        }
        // The places left behind don't take the entry with them.
        assert!(seen.insert("b", 1, Duration::ZERO) && !seen.insert("a", 1, Duration::ZERO));
    }
}
