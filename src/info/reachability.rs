//! Whether others can dial the node, and the port on its router.

use std::net::SocketAddr;

use serde::Serialize;

use crate::identity::NodeId;

/// A tracker, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TrackerName {
    /// Its id.
    pub node_id: NodeId,
    /// The name it gives itself; empty when that is not known.
    pub name: String,
}

/// An address at which this node was dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifiedAddr {
    /// The address.
    pub addr: SocketAddr,
    /// The trackers that dialled it.
    pub by: Vec<TrackerName>,
}

/// Whether others can dial this node, as trackers found out that it asked to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reachability {
    /// They can.
    Dialable {
        /// Where; these are published, unless the owner named others.
        addrs: Vec<VerifiedAddr>,
    },
    /// They can't: a tracker tried, and did not come through.
    Nat {
        /// The trackers through which it is reached.
        trackers: Vec<TrackerName>,
        /// What the tracker met with.
        why: String,
    },
    /// Nobody has tried.
    Unknown {
        /// Why not.
        why: String,
        /// The trackers through which it is reached.
        trackers: Vec<TrackerName>,
    },
}

/// The port on the gateway that was asked for with `Builder::port_map`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PortMapping {
    /// A gateway is being asked.
    Looking,
    /// The gateway says that this address leads here.
    Mapped {
        /// The address outside.
        external: SocketAddr,
        /// `PCP`, `NAT-PMP` or `UPnP`.
        protocol: &'static str,
    },
    /// There is none; it is tried again.
    Failed {
        /// Why not.
        why: String,
    },
}
