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

/// Alarms. Those that are [set](Self::set) are found by their keys, at most one for each. For what comes and goes with every
/// message there are those that are [put](Self::put): whoever has one holds its place, and nothing is looked up.
#[derive(Debug)]
pub struct Timers<K> {
    due: BTreeMap<Place, K>,
    set: HashMap<K, Place>,
    count: u64,
}

/// Where an alarm stands: when it is due, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Duration, u64);

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), set: HashMap::new(), count: 0 }
    }
}

impl<K: Clone + Eq + Hash> Timers<K> {
    /// Sets the key's alarm, in place of the one it had.
    pub fn set(&mut self, key: K, at: Duration) {
        let place = self.put(key.clone(), at);
        if let Some(before) = self.set.insert(key, place) {
            self.due.remove(&before);
        }
    }

    /// An alarm that its place alone leads to. The key is what it is for: no alarm of the same key may be [set](Self::set).
    pub fn put(&mut self, key: K, at: Duration) -> Place {
        self.count += 1;
        let place = Place(at, self.count);
        self.due.insert(place, key);
        place
    }

    /// Takes an alarm back that was put. One that rang is gone already.
    pub fn take(&mut self, place: Place) {
        self.due.remove(&place);
    }

    /// Takes the key's alarm back.
    pub fn cancel(&mut self, key: &K) {
        if let Some(place) = self.set.remove(key) {
            self.due.remove(&place);
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
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        let (place, key) = first.remove_entry();
        if self.set.get(&key) == Some(&place) {
            self.set.remove(&key);
        }
        Some(key)
    }

    /// When the next alarm is due.
    pub fn next(&self) -> Option<Duration> {
        self.due.first_key_value().map(|(place, _)| place.0)
    }

    /// When the key's alarm is due.
    pub fn at(&self, key: &K) -> Option<Duration> {
        self.set.get(key).map(|place| place.0)
    }

    /// How long until the key's alarm; nothing when it has none.
    pub fn due_in(&self, key: &K, now: Duration) -> Duration {
        self.set.get(key).map_or(Duration::ZERO, |place| place.0.saturating_sub(now))
    }

    /// How many are set.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.due.len()
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

    #[test]
    fn those_that_were_put_are_led_to_by_their_places() {
        let at = Duration::from_secs;
        let mut timers = Timers::default();
        timers.set("set", at(2));
        let places = [1, 2, 2, 3].map(|s| timers.put("put", at(s)));
        timers.take(places[1]);
        timers.take(places[1]);
        assert_eq!((timers.len(), timers.at(&"put"), timers.at(&"set")), (4, None, Some(at(2))));
        let rung: Vec<_> = std::iter::from_fn(|| timers.pop(at(2))).collect();
        assert_eq!(rung, ["put", "set", "put"]);
        // One that rang is not there to be taken back.
        timers.take(places[0]);
        timers.cancel(&"put");
        assert_eq!((timers.len(), timers.next()), (1, Some(at(3))));
        timers.take(places[3]);
        assert_eq!((timers.len(), timers.next(), timers.pop(at(9))), (0, None, None));
    }
}
