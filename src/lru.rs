//! A map that forgets what was unused for longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most `cap` entries.
pub(crate) struct Lru<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    tick: u64,
    cap: usize,
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    pub(crate) fn new(cap: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), tick: 0, cap: cap.max(1) }
    }

    /// An entry, which counts as used.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (tick, value) = self.entries.get_mut(key)?;
        self.order.remove(tick);
        self.tick += 1;
        *tick = self.tick;
        self.order.insert(self.tick, key.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.tick += 1;
        if let Some((tick, _)) = self.entries.insert(key.clone(), (self.tick, value)) {
            self.order.remove(&tick);
        }
        self.order.insert(self.tick, key);
        while self.entries.len() > self.cap
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        let order = &mut self.order;
        self.entries.retain(|key, (tick, value)| {
            let kept = keep(key, value);
            if !kept {
                order.remove(tick);
            }
            kept
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_unused_for_longest_goes() {
        let mut lru = Lru::new(3);
        for n in 0..3 {
            lru.insert(n, n);
        }
        assert_eq!(lru.get_mut(&0), Some(&mut 0));
        lru.insert(3, 3);
        assert_eq!((lru.get_mut(&1).copied(), lru.len()), (None, 3));
        lru.insert(2, 20);
        assert_eq!((lru.get_mut(&2).copied(), lru.len()), (Some(20), 3));
        lru.retain(|key, _| *key != 0);
        lru.insert(4, 4);
        assert_eq!((lru.len(), lru.order.len()), (3, 3));
    }
}
