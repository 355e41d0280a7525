//! How much memory peers make a node hold.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a node holds for its peers, in bytes, and what it gave up when that became too much.
///
/// What gives way, and from which share of the budget on, is said at
/// [`Limits::memory_budget`](crate::Limits::memory_budget).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryInfo {
    /// How many bytes may be held.
    pub budget: u64,
    /// How many are, in all.
    pub used: u64,
    /// For connections at rest.
    pub connections: u64,
    /// For messages that wait to be sent.
    pub outboxes: u64,
    /// For input that is not a complete message yet.
    pub input: u64,
    /// For payloads of tasks that run.
    pub tasks: u64,
    /// For answers remembered, and chunks that are not acknowledged.
    pub answers: u64,
    /// For chunks that came before their turn.
    pub chunks: u64,
    /// For records of other nodes.
    pub records: u64,
    /// What gives way now, in the order in which it does: `answers`, `records`, `gossip`, `tasks`, `peers`, `connections`.
    /// Empty while there is room.
    pub shedding: Vec<&'static str>,
    /// How many of each were given up or refused since the start.
    pub shed: BTreeMap<&'static str, u64>,
}
