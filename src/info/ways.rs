//! Which way messages go, and whether they are sealed on it.

use serde::Serialize;

/// Which way an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Route {
    /// This node answered itself.
    Local,
    /// Over a direct connection to a provider that was known.
    Direct,
    /// Over a direct connection to a provider that a query flood found.
    Flood,
    /// Through a tracker.
    Relay,
}

/// Whether what trackers pass on is sealed, so that they can't read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sealing {
    /// Never: the node seals nothing, and says that it takes nothing sealed.
    Off,
    /// Wherever the other end takes it; who takes nothing sealed is called in the open, and served.
    #[default]
    Preferred,
    /// Always: a task that a tracker brings in the open is refused, and none is sent so.
    Required,
}
