//! Peers that a node was told to keep connected to.

use serde::Serialize;

use crate::error::CloseReason;
use crate::identity::NodeId;

/// A peer that the node was told to keep connected to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ConfiguredPeer {
    /// As it was named: `[NODE_ID@]HOST:PORT`.
    pub peer: String,
    /// Who must answer there, or answered last.
    pub node_id: Option<NodeId>,
    /// Whether it is connected, over whatever connection.
    pub connected: bool,
    /// The reason that the last dial or connection ended for, if one of the sides gave one.
    pub reason: Option<CloseReason>,
    /// How the last dial or connection ended, in words; empty when there was none that ended.
    pub message: String,
    /// In how many milliseconds it is dialled next; `None`: it is connected, or being dialled, or never dialled again, since it is this
    /// node itself.
    pub next_dial_ms: Option<u64>,
    /// How many dials have failed since one worked.
    pub failures: u64,
}
