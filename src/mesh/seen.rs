//! Remembering ids against loops and duplicates, bounded by time and by count.
//!
//! An id is remembered together with the key that signed it, so nobody can silence somebody else's message by using
//! its id first. And it is remembered for whoever brought it: when there is no room, the oldest goes of the one that brought the
//! most, so nobody can have somebody else's message forgotten, and then repeat it, by bringing many of its own. After
//! Suter, Lakshman, Stiliadis and Choudhury, "Buffer management schemes for supporting TCP in gigabit routers with
//! per-flow queueing" (1999): drop from the longest queue.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::identity::NodeId;

/// Who brings what nobody in particular brings.
const NOBODY: NodeId = NodeId::from_bytes([0; 32]);

/// Keys in the order they came, each with the time until when it is remembered, and its count.
type Order<K> = VecDeque<(Duration, u64, K)>;

/// What was seen, with something remembered for each.
#[derive(Debug)]
pub struct Seen<K, V> {
    entries: HashMap<K, (V, u64)>,
    /// By who brought them.
    orders: HashMap<NodeId, Order<K>>,
    /// The same, by how many places they have.
    longest: BTreeSet<(usize, NodeId)>,
    /// The places in all of them.
    places: usize,
    count: u64,
    cap: usize,
    keep: Duration,
}

impl<K: Clone + Eq + Hash, V> Seen<K, V> {
    /// Remembers at most `cap` entries, each for `keep`.
    pub fn new(cap: usize, keep: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            orders: HashMap::new(),
            longest: BTreeSet::new(),
            places: 0,
            count: 0,
            cap: cap.max(1),
            keep,
        }
    }

    /// Remembers a key; `false` when it is known already. The oldest make room.
    pub fn insert(&mut self, key: K, value: V, now: Duration) -> bool {
        self.insert_from(NOBODY, key, value, now)
    }

    /// The same for what somebody brought. Its own oldest make room, or those of who brought more.
    pub fn insert_from(&mut self, from: NodeId, key: K, value: V, now: Duration) -> bool {
        self.expire_of(&from, now);
        if self.entries.contains_key(&key) {
            return false;
        }
        // Entries that were removed leave their places behind: those are bounded too.
        while self.entries.len() >= self.cap || self.places >= 2 * self.cap {
            let own = self.orders.get(&from).map_or(0, VecDeque::len);
            // Of several that brought the same, whoever comes now gives way.
            let Some((most, longest)) = self.longest.last().copied() else { break };
            self.pop_oldest(&if most > own { longest } else { from });
        }
        self.count += 1;
        self.places += 1;
        self.entries.insert(key.clone(), (value, self.count));
        let order = self.orders.entry(from).or_default();
        self.longest.remove(&(order.len(), from));
        order.push_back((now.saturating_add(self.keep), self.count, key));
        self.longest.insert((order.len(), from));
        true
    }

    /// Whether a key is remembered.
    pub fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is remembered for a key.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(value, _)| value)
    }

    /// Forgets what is old.
    pub fn expire(&mut self, now: Duration) {
        let all: Vec<NodeId> = self.longest.iter().map(|(_, from)| *from).collect();
        for from in all {
            self.expire_of(&from, now);
        }
    }

    fn expire_of(&mut self, from: &NodeId, now: Duration) {
        while self.orders.get(from).and_then(VecDeque::front).is_some_and(|(until, ..)| *until <= now) {
            self.pop_oldest(from);
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
        let orders: usize = self.orders.values().map(VecDeque::capacity).sum();
        // Keys stand in both tables; what they hold outside of them is taken to be as long on the average.
        let tables = super::weight::hash(self.entries.capacity(), size_of::<(K, (V, u64))>())
            + super::weight::hash(self.orders.capacity(), size_of::<(NodeId, Order<K>)>())
            + super::weight::btree(self.longest.len(), size_of::<(usize, NodeId)>())
            + orders * size_of::<(Duration, u64, K)>();
        tables + 2 * entries
    }

    /// How many are remembered.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn pop_oldest(&mut self, from: &NodeId) {
        let Some(order) = self.orders.get_mut(from) else { return };
        self.longest.remove(&(order.len(), *from));
        let oldest = order.pop_front();
        if order.is_empty() {
            self.orders.remove(from);
        } else {
            self.longest.insert((order.len(), *from));
        }
        let Some((_, count, key)) = oldest else { return };
        self.places -= 1;
        if self.entries.get(&key).is_some_and(|(_, c)| *c == count) {
            self.entries.remove(&key);
        }
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
        assert_eq!((seen.len(), seen.places, seen.orders.len(), seen.longest.len()), (0, 0, 0, 0));
    }

    #[test]
    fn removing_and_inserting_again_keeps_no_more_than_its_bounds() {
        let mut seen = Seen::new(3, Duration::from_secs(10));
        for n in 0..100 {
            seen.remove(&"a");
            assert!(seen.insert("a", n, Duration::ZERO));
            assert!(seen.places <= 6);
        }
        // The places left behind don't take the entry with them.
        assert!(seen.insert("b", 1, Duration::ZERO) && !seen.insert("a", 1, Duration::ZERO));
    }

    #[test]
    fn who_brings_many_has_its_own_forgotten_and_nobody_elses() {
        let node = |n| NodeId::from_bytes([n; 32]);
        let mut seen = Seen::new(100, Duration::from_secs(600));
        for n in 0..10 {
            assert!(seen.insert_from(node(1), (1, n), (), Duration::ZERO));
        }
        // Two of them, in turns, and one after the other.
        for n in 0..1000 {
            assert!(seen.insert_from(node(2), (2, n), (), Duration::from_secs(1)));
            assert!(n < 500 || seen.insert_from(node(3), (3, n), (), Duration::from_secs(2)));
            assert!(seen.len() <= 100);
        }
        assert!((0..10).all(|n| !seen.insert_from(node(4), (1, n), (), Duration::from_secs(3))), "they are known");
        assert!(seen.contains(&(2, 999)) && seen.contains(&(3, 999)) && !seen.contains(&(2, 900)));
        // What is old goes whoever brought it.
        seen.expire(Duration::from_secs(700));
        assert_eq!((seen.len(), seen.places, seen.orders.len(), seen.longest.len()), (0, 0, 0, 0));
    }
}
