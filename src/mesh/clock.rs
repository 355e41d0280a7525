//! Time as it is passed in, and the alarms set on it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use super::keyed::Keyed;

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
///
/// Most alarms are put behind all others of their kind: every task's is so long from now, every call's as well. Those
/// stand in a [`Lane`], where one comes and goes at the cost of writing it down; what fits behind none of these is in a tree.
#[derive(Debug)]
pub struct Timers<K> {
    lanes: [Lane<K>; LANES],
    due: BTreeMap<Place, K>,
    set: HashMap<K, Place, Keyed>,
    /// The one that is due first: asked for far more often than it changes.
    first: Option<Place>,
    count: u64,
}

/// Where an alarm stands: when it is due, its number, and its lane; [`LANES`]: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Duration, u64, usize);

/// Of how many kinds most alarms are: those of tasks, those of calls, and what is far off, which would keep others behind it.
const LANES: usize = 4;

/// How many places of alarms that were taken back a lane may have, whatever else it has.
const GAPS: usize = 32;

/// Room for so many is kept by a lane with none.
const KEPT: usize = 1024;

/// Alarms in the order in which they are due. The first and the last are there; between them some may have been taken back.
#[derive(Debug)]
struct Lane<K> {
    alarms: VecDeque<(Place, Option<K>)>,
    /// How many were taken back, and still have their places.
    gaps: usize,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self { alarms: VecDeque::new(), gaps: 0 }
    }
}

impl<K> Lane<K> {
    fn first(&self) -> Option<Place> {
        self.alarms.front().map(|(place, _)| *place)
    }

    fn last(&self) -> Option<Place> {
        self.alarms.back().map(|(place, _)| *place)
    }

    fn pop(&mut self) -> Option<K> {
        let (_, key) = self.alarms.pop_front()?;
        self.trim();
        key
    }

    fn take(&mut self, place: Place) {
        let first = self.first().is_some_and(|first| first == place);
        let at = if first { Ok(0) } else { self.alarms.binary_search_by(|(other, _)| other.cmp(&place)) };
        let Some((_, key)) = at.ok().and_then(|at| self.alarms.get_mut(at)) else { return };
        self.gaps += usize::from(key.take().is_some());
        self.trim();
        // So what is there for long doesn't keep the places of all that came after it.
        if self.gaps > GAPS + self.alarms.len() / 2 {
            self.alarms.retain(|(_, key)| key.is_some());
            self.gaps = 0;
        }
    }

    fn trim(&mut self) {
        while self.alarms.front().is_some_and(|(_, key)| key.is_none()) {
            self.alarms.pop_front();
            self.gaps -= 1;
        }
        while self.alarms.back().is_some_and(|(_, key)| key.is_none()) {
            self.alarms.pop_back();
            self.gaps -= 1;
        }
        // What many took at once is given back when they are gone.
        if self.alarms.is_empty() && self.alarms.capacity() > KEPT {
            self.alarms = VecDeque::new();
        }
    }
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { lanes: Default::default(), due: BTreeMap::new(), set: HashMap::default(), first: None, count: 0 }
    }
}

impl<K: Clone + Eq + Hash> Timers<K> {
    /// Sets the key's alarm, in place of the one it had.
    pub fn set(&mut self, key: K, at: Duration) {
        self.count += 1;
        let place = Place(at, self.count, LANES);
        self.due.insert(place, key.clone());
        if let Some(before) = self.set.insert(key, place) {
            self.due.remove(&before);
        }
        self.look();
    }

    /// An alarm that its place alone leads to. The key is what it is for: no alarm of the same key may be [set](Self::set).
    pub fn put(&mut self, key: K, at: Duration) -> Place {
        self.count += 1;
        // Behind the latest of those that it fits behind, so that the others stay open for what is due before it.
        let mut best: Option<(Option<Place>, usize)> = None;
        for (lane, alarms) in self.lanes.iter().enumerate() {
            let last = alarms.last();
            if last.is_none_or(|last| last.0 <= at) && best.is_none_or(|(best, _)| best < last) {
                best = Some((last, lane));
            }
        }
        let place = Place(at, self.count, best.map_or(LANES, |(_, lane)| lane));
        match self.lanes.get_mut(place.2) {
            Some(lane) => lane.alarms.push_back((place, Some(key))),
            None => drop(self.due.insert(place, key)),
        }
        if self.first.is_none_or(|first| place < first) {
            self.first = Some(place);
        }
        place
    }

    /// Takes an alarm back that was put. One that rang is gone already.
    pub fn take(&mut self, place: Place) {
        match self.lanes.get_mut(place.2) {
            Some(lane) => lane.take(place),
            None => drop(self.due.remove(&place)),
        }
        if self.first == Some(place) {
            self.look();
        }
    }

    /// Takes the key's alarm back.
    pub fn cancel(&mut self, key: &K) {
        if let Some(place) = self.set.remove(key) {
            self.due.remove(&place);
            self.look();
        }
    }

    /// Sets the key's alarm, unless it has one.
    pub fn set_once(&mut self, key: K, at: Duration) {
        if !self.set.contains_key(&key) {
            self.set(key, at);
        }
    }

    /// Looks for the one that is due first.
    fn look(&mut self) {
        let mut first = self.due.first_key_value().map(|(place, _)| *place);
        for lane in &self.lanes {
            if let Some((place, _)) = lane.alarms.front()
                && first.is_none_or(|first| *place < first)
            {
                first = Some(*place);
            }
        }
        self.first = first;
    }

    /// The next alarm that is due.
    pub fn pop(&mut self, now: Duration) -> Option<K> {
        let first = self.first.filter(|first| first.0 <= now)?;
        let key = match self.lanes.get_mut(first.2) {
            Some(lane) => lane.pop(),
            None => self.due.remove(&first).inspect(|key| {
                if self.set.get(key) == Some(&first) {
                    self.set.remove(key);
                }
            }),
        };
        self.look();
        key
    }

    /// When the next alarm is due.
    pub fn next(&self) -> Option<Duration> {
        self.first.map(|place| place.0)
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
        self.due.len() + self.lanes.iter().map(|lane| lane.alarms.len() - lane.gaps).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        /// Beside a plain list of all alarms: each rings once, in the order of the times and then of the numbers, and what was
        /// taken back doesn't. And what was taken back takes no room for long.
        #[test]
        fn alarms_in_lanes_ring_as_those_in_a_list(steps in prop::collection::vec((0u8..8, 0u64..60, any::<prop::sample::Index>()), 1..400)) {
            let (mut timers, mut now) = (Timers::default(), 0);
            let mut all: Vec<(Duration, u32, Place)> = Vec::new();
            for (n, (what, ms, which)) in steps.into_iter().enumerate() {
                let soon = Duration::from_millis(now + if what == 0 { ms } else { u64::from(what) * 1000 });
                match what {
                    0..4 => all.push((soon, n as u32, timers.put(n as u32, soon))),
                    4..7 if !all.is_empty() => timers.take(all.remove(which.index(all.len())).2),
                    _ => now += ms,
                }
                let at = Duration::from_millis(now);
                all.sort_unstable_by_key(|(due, n, _)| (*due, *n));
                while all.first().is_some_and(|(due, ..)| *due <= at) {
                    prop_assert_eq!(timers.pop(at), Some(all.remove(0).1));
                }
                prop_assert_eq!(timers.pop(at), None);
                prop_assert_eq!((timers.len(), timers.next()), (all.len(), all.first().map(|(due, ..)| *due)));
                let room: usize = timers.lanes.iter().map(|lane| lane.alarms.len()).sum();
                prop_assert!(room <= 2 * all.len() + 2 * LANES * GAPS, "{} places for {}", room, all.len());
            }
        }
    }
}
