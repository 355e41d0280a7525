//! What a node tells of itself, its peers and what happens to it: values that the floors above hand to its owner.

mod access;
mod activity;
mod configured;
mod discovery;
mod memory;
mod reachability;
mod ways;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::identity::NodeId;
use crate::wire::{Capability, CapabilityKind, TrackerRole};

pub use access::{AccessFile, AccessFileState, AccessStatus, TaskRefusals};
pub use activity::{Activity, Event};
pub use configured::ConfiguredPeer;
pub use discovery::{DhtHealth, DiscoveryHealth, DiscoveryState};
pub use memory::MemoryInfo;
pub use reachability::{PortMapping, Reachability, TrackerName, VerifiedAddr};
pub use ways::{Route, Sealing};

/// How a node was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// Its address was configured.
    Peer,
    /// It found us: it made the connection.
    #[default]
    Inbound,
    /// It announced itself on the local network.
    Lan,
    /// A tracker named it.
    Tracker,
    /// A peer named it: in answer to a query, or by passing its record on.
    Flood,
    /// The Kademlia DHT named it.
    Dht,
    /// It was a peer of an earlier run.
    Remembered,
}

impl Source {
    /// The word that listings show, and programs read.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Inbound => "inbound",
            Self::Lan => "lan",
            Self::Tracker => "tracker",
            Self::Flood => "flood",
            Self::Dht => "dht",
            Self::Remembered => "remembered",
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Way {
    /// This node dialled it.
    Direct,
    /// It dialled this node.
    Inbound,
    /// Both dialled at once, through their NATs.
    Punched,
    /// Not at all: it is reached through a tracker's relay.
    Relay,
}

/// One capability in a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CapabilityInfo {
    /// Its kind.
    pub kind: CapabilityKind,
    /// Its name.
    pub name: String,
    /// Its details.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl From<Capability> for CapabilityInfo {
    fn from(cap: Capability) -> Self {
        Self { kind: cap.kind, name: cap.name, details: cap.details }
    }
}

/// A connected peer, or a node reached through a tracker.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its id. Of an unproven peer: the id it claims.
    pub node_id: NodeId,
    /// The name it gives itself.
    pub name: String,
    /// Whether its connection is bound to its key. `false` for the Python package's nodes.
    pub proven: bool,
    /// The connection's address.
    pub addr: SocketAddr,
    /// Whether it connected to us.
    pub inbound: bool,
    /// Whether the connection is encrypted (TLS 1.3). Of a node that is reached through a tracker: the connection to that
    /// tracker.
    pub encrypted: bool,
    /// How it was found.
    pub found: Source,
    /// How it is connected.
    pub way: Way,
    /// The tracker it is reached through, if it is not connected: [`addr`](Self::addr) is that tracker's then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<NodeId>,
    /// That tracker's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub via_name: String,
    /// What is to be said of the way: "punching", "punching failed: …".
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Its tracker role.
    pub tracker: TrackerRole,
    /// What it provides.
    pub capabilities: Vec<CapabilityInfo>,
    /// The last measured round-trip time, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// How long it is connected, in seconds.
    pub connected_s: u64,
    /// Calls of ours it is working on.
    pub in_flight: usize,
    /// The program version it names.
    pub version: String,
    /// What it can do beyond the first version of the protocol.
    pub features: Vec<String>,
    /// This node's address as the peer sees it, if this node dialled: another than its own behind a NAT.
    pub observed: Option<SocketAddr>,
}

/// A node that is known, connected or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FoundNode {
    /// Its id.
    pub node_id: NodeId,
    /// The name it gives itself.
    pub name: String,
    /// What it provides.
    pub capabilities: Vec<CapabilityInfo>,
    /// Where it can be dialled; empty when it can't.
    pub addrs: Vec<String>,
    /// The trackers it is reached through.
    pub trackers: Vec<NodeId>,
    /// Its tracker role.
    pub tracker: TrackerRole,
    /// Whether we are connected to it.
    pub connected: bool,
    /// Whether its id is proven: by its signed record, or by its connection.
    pub proven: bool,
    /// How it was found: `self`, `peer`, `table`, `flood`, `dht`.
    pub found: &'static str,
    /// How many links away it is, when known.
    pub hops: Option<u32>,
}

/// Counters since the start, and gauges of this moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Proven peers connected now.
    pub peers: usize,
    /// Unproven (Python) peers connected now.
    pub unproven_peers: usize,
    /// Peers, proven or not, whose connection is encrypted now.
    pub encrypted_peers: usize,
    /// Connections now, those in the handshake included.
    pub connections: usize,
    /// Those of them that others made, and that have not proven who they are.
    pub half_open: usize,
    /// Records of other nodes kept now.
    pub records: usize,
    /// Tasks running now.
    pub tasks_running: usize,
    /// Tasks answered with success.
    pub tasks_done: u64,
    /// Tasks answered with an error.
    pub tasks_failed: u64,
    /// Calls in flight now.
    pub calls_running: usize,
    /// Calls that ended with success.
    pub calls_done: u64,
    /// Calls that ended with an error.
    pub calls_failed: u64,
    /// Messages received after the handshake.
    pub messages_in: u64,
    /// Messages sent after the handshake.
    pub messages_out: u64,
    /// Bytes received after the handshake.
    pub bytes_in: u64,
    /// Bytes sent after the handshake.
    pub bytes_out: u64,
    /// Frames relayed for others.
    pub relayed: u64,
    /// Queries and events passed on for others.
    pub flooded: u64,
    /// Dials made as a tracker for peers that asked whether they can be dialled.
    pub dial_backs: u64,
    /// What was refused or dropped, by reason: which bound, which fault.
    pub refused: BTreeMap<String, u64>,
    /// Connections closed, by reason.
    pub closed: BTreeMap<String, u64>,
    /// What it holds for its peers.
    pub memory: MemoryInfo,
}

/// A node's own state, for a person or a monitor.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// The program version.
    pub version: String,
    /// Since when it runs, in seconds.
    pub uptime_s: u64,
    /// Where it listens; empty with `no_listen`.
    pub listen: Vec<SocketAddr>,
    /// The addresses its record publishes.
    pub addrs: Vec<String>,
    /// Whether others can dial it.
    pub reachability: Reachability,
    /// The port on the gateway; `None` when none was asked for.
    pub port_map: Option<PortMapping>,
    /// Its tracker role.
    pub tracker: TrackerRole,
    /// Whether what goes through trackers is sealed.
    pub sealing: Sealing,
    /// Who is let in, and what was refused to the others.
    pub access: AccessStatus,
    /// What it provides.
    pub capabilities: Vec<CapabilityInfo>,
    /// What it is interested in.
    pub interests: Vec<String>,
    /// How each way of finding nodes is doing, by name.
    pub discovery: Vec<DiscoveryHealth>,
    /// Its part in the Kademlia DHT.
    pub dht: DhtHealth,
    /// Counters and gauges.
    pub metrics: Metrics,
}

pub(crate) fn millis(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}
