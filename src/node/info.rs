//! What a node tells of itself, its peers and what happens to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::wire::{Capability, CapabilityKind};

/// Whether a node is a tracker, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackerRole {
    /// Not a tracker.
    #[default]
    None,
    /// Anybody may register.
    Public,
    /// Only nodes on the allowlist may connect.
    Private,
}

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

/// Whether a way of finding nodes is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiscoveryState {
    /// It is not in use.
    #[default]
    Off,
    /// It works, as far as can be told.
    On,
    /// It is wanted, and there is no network for it at present.
    Waiting,
    /// It is wanted and does not work.
    Failing,
}

/// How one way of finding nodes is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DiscoveryHealth {
    /// Which: `lan`, `remembered`, …
    pub name: &'static str,
    /// Whether it is in use.
    pub state: DiscoveryState,
    /// Details in words: why it is off or failing, what it uses.
    pub detail: String,
    /// Addresses known from it now that may be dialled.
    pub candidates: usize,
    /// Dials made because of it since the start.
    pub dialled: u64,
    /// Those of the dials at whose end the expected node was.
    pub proven: u64,
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
    /// Connections now, those in the handshake included.
    pub connections: usize,
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
    /// What was refused or dropped, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Connections closed, by reason.
    pub closed: BTreeMap<String, u64>,
}

/// How a node's part in the Kademlia DHT is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DhtHealth {
    /// `dht`.
    pub source: &'static str,
    /// `off`, `starting` (not joined yet), `client` (it asks others) or `server` (it keeps things for others too).
    pub state: &'static str,
    /// Why it is so, in words.
    pub detail: String,
    /// Its UDP port.
    pub port: Option<u16>,
    /// Nodes in its routing table.
    pub nodes: usize,
    /// How many things of this node others keep in it: its capabilities, and what it says of itself.
    pub announced: usize,
    /// How many of them its own server keeps.
    pub kept_here: usize,
    /// When others last took one of them, in seconds ago.
    pub last_announce_s: Option<u64>,
    /// Lookups under way.
    pub lookups: usize,
    /// Lookups that led to somebody.
    pub lookups_found: u64,
    /// Lookups that led to nobody.
    pub lookups_failed: u64,
}

impl DhtHealth {
    /// Of a node that takes part in none.
    pub(crate) fn off(detail: &str) -> Self {
        Self { source: "dht", state: "off", detail: detail.to_owned(), ..Self::default() }
    }
}

/// The DHT among the other ways of finding nodes. It dials in its lookups, so it has no candidates to be counted.
impl From<&DhtHealth> for DiscoveryHealth {
    fn from(dht: &DhtHealth) -> Self {
        let off = dht.state == "off";
        let words = if dht.detail.is_empty() { String::new() } else { format!(", {}", dht.detail) };
        let port = dht.port.map_or_else(String::new, |port| format!(" on UDP port {port}"));
        let announced = match dht.announced {
            0 => String::new(),
            n => format!("; {n} announced"),
        };
        let looked = match (dht.lookups_found, dht.lookups_found + dht.lookups_failed) {
            (_, 0) => String::new(),
            (found, all) => format!("; {found} of {all} lookups found somebody"),
        };
        let detail = match off {
            true => dht.detail.clone(),
            false => format!("{}{port}{words}{announced}{looked}", dht.state),
        };
        let state = if off { DiscoveryState::Off } else { DiscoveryState::On };
        Self { name: dht.source, state, detail, ..Self::default() }
    }
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
    /// A published event that one of our interests or subscriptions covers.
    Published(Event),
}

pub(crate) fn millis(d: Duration) -> f64 {
    (d.as_secs_f64() * 1e6).round() / 1e3
}
