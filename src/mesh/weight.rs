//! How much memory a node's knowledge of others takes, for tests that bound it.

use super::state::State;

/// What a B-tree of so many entries holds: its nodes have room for 11, and are two thirds full when filled in no order;
/// links to the parent and the children come on top.
pub fn btree(entries: usize, entry: usize) -> usize {
    if entries == 0 {
        return 0;
    }
    let leaves = entries.div_ceil(7);
    leaves * (11 * entry + 12) + leaves.div_ceil(7) * (12 * 8)
}

/// What a hash table holds that was grown to this capacity: a power of two of buckets, with a byte for each.
pub fn hash(capacity: usize, entry: usize) -> usize {
    if capacity == 0 {
        return 0;
    }
    (capacity * 8 / 7).next_power_of_two() * (entry + 1) + 16
}

impl State {
    /// What is kept to find others, in bytes.
    pub fn discovery_weight(&self) -> Weight {
        Weight {
            table: self.table.weight(),
            queries: self.queries.weight() + self.forwards.weight(),
            events: self.seen_events.weight(|(_, id), ()| id.capacity()),
            trackers: self.known_trackers.weight(),
            shares: self.shares.weight(),
        }
    }
}

/// See [`State::discovery_weight`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Weight {
    /// Records of others, their order and their names, and those that left.
    pub table: usize,
    /// Queries of ours, those seen, and those that wait.
    pub queries: usize,
    /// Events seen.
    pub events: usize,
    /// Trackers to register with.
    pub trackers: usize,
    /// What waits for other trackers.
    pub shares: usize,
}

impl Weight {
    /// All of it.
    pub fn total(&self) -> usize {
        self.table + self.queries + self.events + self.trackers + self.shares
    }
}
