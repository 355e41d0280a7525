//! Time as it is passed in, and the alarms set on it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// This moment, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Since the node started; never goes back.
    pub mono: Duration,
    /// UNIX time in milliseconds; may jump.
    pub unix_ms: u64,
}

impl Now {
    /// UNIX time in whole seconds.
    pub fn unix_s(self) -> i64 {
        (self.unix_ms / 1000) as i64
    }
}

/// Alarms: at most one per key.
#[derive(Debug)]
pub struct Timers<K> {
    due: BTreeMap<(Duration, u64), K>,
    set: HashMap<K, (Duration, u64)>,
    count: u64,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), set: HashMap::new(), count: 0 }
    }
}

impl<K: Clone + Eq + Hash> Timers<K> {
    /// Sets the key's alarm, in place of the one it had.
    pub fn set(&mut self, key: K, at: Duration) {
        self.cancel(&key);
        self.count += 1;
        self.due.insert((at, self.count), key.clone());
        self.set.insert(key, (at, self.count));
    }

    /// Takes the key's alarm back.
    pub fn cancel(&mut self, key: &K) {
        if let Some(slot) = self.set.remove(key) {
            self.due.remove(&slot);
        }
    }

    /// Sets the key's alarm, unless it has one.
    pub fn set_once(&mut self, key: K, at: Duration) {
        if !self.set.contains_key(&key) {
            self.set(key, at);
        }
    }

    /// The next alarm that is due.
    pub fn pop(&mut self, now: Duration) -> Option<K> {
        let slot = *self.due.first_key_value()?.0;
        if slot.0 > now {
            return None;
        }
        let key = self.due.remove(&slot)?;
        self.set.remove(&key);
        Some(key)
    }

    /// When the next alarm is due.
    pub fn next(&self) -> Option<Duration> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// When the key's alarm is due.
    pub fn at(&self, key: &K) -> Option<Duration> {
        self.set.get(key).map(|(at, _)| *at)
    }

    /// How long until the key's alarm; nothing when it has none.
    pub fn due_in(&self, key: &K, now: Duration) -> Duration {
        self.set.get(key).map_or(Duration::ZERO, |(at, _)| at.saturating_sub(now))
    }

    /// How many are set.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.set.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_their_order_once_each() {
        let at = Duration::from_secs;
        let mut timers = Timers::default();
        timers.set("b", at(2));
        timers.set("a", at(1));
        timers.set("c", at(2));
        timers.set("a", at(3));
        timers.set_once("b", at(9));
        timers.set("gone", at(1));
        timers.cancel(&"gone");
        assert_eq!((timers.len(), timers.next()), (3, Some(at(2))));
        assert_eq!(timers.pop(at(1)), None);
        let rung: Vec<_> = std::iter::from_fn(|| timers.pop(at(3))).collect();
        assert_eq!(rung, ["b", "c", "a"]);
        assert_eq!((timers.len(), timers.next()), (0, None));
    }
}
