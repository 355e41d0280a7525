//! Naming connections.

/// A connection, for as long as it lives; never used again within a node's run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);
