//! What happens to the node, for its owner to see.

use std::net::SocketAddr;

use serde::Serialize;

use crate::error::CloseReason;
use crate::identity::NodeId;

/// A published event that reached this node.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Event {
    /// Its id, unique together with `origin`.
    pub id: String,
    /// Its type, such as `task.done`.
    pub event_type: String,
    /// What it carries.
    pub data: serde_json::Value,
    /// Who published it. Its signature was checked when `proven`.
    pub origin: NodeId,
    /// When it was published, in UNIX seconds by the origin's clock.
    pub timestamp: i64,
    /// Whether the origin's signature proves it. `false` for the Python package's events, which are not signed.
    pub proven: bool,
}

/// Something that happened to the node, for its owner to see.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activity {
    /// A peer completed its handshake.
    PeerConnected {
        /// Its id.
        node_id: NodeId,
        /// Its name, empty until its record came.
        name: String,
        /// Where it is connected.
        addr: SocketAddr,
        /// Whether it dialled us.
        inbound: bool,
        /// Whether its id is proven.
        proven: bool,
    },
    /// A peer's connection ended.
    PeerLost {
        /// Its id.
        node_id: NodeId,
        /// Its name.
        name: String,
        /// Why, if it or we said so.
        reason: Option<CloseReason>,
    },
    /// A connection was refused or closed before it was proven.
    Refused {
        /// Its address.
        addr: SocketAddr,
        /// Why.
        reason: CloseReason,
        /// Details in words.
        message: String,
    },
    /// A configured peer could not be reached; it is tried again.
    DialFailed {
        /// The address as configured.
        peer: String,
        /// What went wrong.
        message: String,
        /// When it is tried again, in milliseconds.
        retry_in_ms: u64,
    },
    /// The lists of who is let in changed, or the file with them can't be used.
    AccessChanged {
        /// Whether only those allowed are let in.
        private: bool,
        /// How many are allowed now.
        allowed: usize,
        /// How many are denied now.
        denied: usize,
        /// What is wrong with the file, if something is.
        problem: Option<String>,
    },
    /// A task arrived and its handler starts.
    TaskReceived {
        /// Its id.
        id: String,
        /// What is asked for.
        capability: String,
        /// Who asks.
        caller: NodeId,
        /// Through which tracker it came, if through one.
        via: Option<NodeId>,
        /// Whether it came sealed, so that no tracker could read it.
        sealed: bool,
    },
    /// A task was answered.
    TaskFinished {
        /// Its id.
        id: String,
        /// What was asked for.
        capability: String,
        /// Who asked.
        caller: NodeId,
        /// Whether it was answered with success.
        success: bool,
        /// The error, if not.
        error: Option<String>,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// A node that this one's owner named (pinned, allowed or denied) has another key: its id is another now. Told once.
    IdReplaced {
        /// The id that was named.
        old: NodeId,
        /// The id now.
        new: NodeId,
    },
    /// An id was revoked by its owner: one that this node's owner named, that was connected or known, or this node's own.
    /// Nobody is let in with it any more.
    IdRevoked {
        /// The id.
        node_id: NodeId,
        /// Why, in its owner's words; may be empty.
        reason: String,
    },
    /// Another node claims the place of one that this node's owner named and that has a successor already: its key may have
    /// been stolen. The claim is refused. Told once.
    SuccessorRefused {
        /// The id that was named.
        old: NodeId,
        /// Whom this node takes for it.
        kept: NodeId,
        /// Who claims its place as well.
        refused: NodeId,
    },
    /// A published event that one of our interests or subscriptions covers.
    Published(Event),
}
