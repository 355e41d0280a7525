//! Schemas of what a node tells of itself and others. The values themselves are made elsewhere, and say more as time goes on.
#![allow(dead_code, reason = "only their shape is used, in the description of the API")]

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One step of finding somebody, and how it went.
#[derive(Serialize, ToSchema)]
pub(super) struct Attempt {
    /// `local`, `table`, `connect`, `flood`, `dht` or `relay`.
    #[schema(example = "table")]
    step: String,
    /// The node it concerned, if one.
    #[schema(required = true)]
    node: Option<String>,
    /// What came of it, in words.
    result: String,
    /// When it ended, in milliseconds from the beginning.
    at_ms: f64,
}

/// What a node can do.
#[derive(Serialize, ToSchema)]
pub(super) struct Capability {
    /// `agent`, `model` or `tool`.
    #[schema(example = "agent")]
    kind: String,
    /// The name it is found and called by.
    #[schema(example = "summarize")]
    name: String,
    /// More that its node says of it: `description`; `reach`, how its agent is reached, and when that was seen.
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
}

/// A node that was found.
#[derive(Serialize, ToSchema)]
pub(super) struct Agent {
    /// Its id.
    node_id: String,
    /// The name it gives itself.
    name: String,
    /// What it can do.
    capabilities: Vec<Capability>,
    /// Where it can be dialled; empty when it can't.
    addrs: Vec<String>,
    /// The trackers it is reached through.
    trackers: Vec<String>,
    /// Its role as a tracker.
    tracker: String,
    /// Whether this node is connected to it.
    connected: bool,
    /// Whether its id is proven.
    proven: bool,
    /// How it was found: `self`, `peer`, `table`, `flood` or `dht`.
    found: String,
    /// How many links away it is, when known.
    #[schema(required = true)]
    hops: Option<u32>,
}

/// Who was found, and how.
#[derive(Serialize, ToSchema)]
pub(super) struct Agents {
    /// This node first, then by name.
    nodes: Vec<Agent>,
    /// What was tried, in order.
    tried: Vec<Attempt>,
}

/// A node that this one is connected to, or reaches through a tracker.
#[derive(Serialize, ToSchema)]
pub(super) struct Peer {
    /// Its id.
    node_id: String,
    /// The name it gives itself.
    name: String,
    /// Whether its connection is bound to its key.
    proven: bool,
    /// The connection's address.
    addr: String,
    /// Whether it connected to this node.
    inbound: bool,
    /// Whether the connection is encrypted.
    encrypted: bool,
    /// How it was found.
    found: String,
    /// `direct`, `inbound`, `punched` or `relay`.
    way: String,
    /// The tracker it is reached through, if it is not connected.
    via: Option<String>,
    /// That tracker's name.
    via_name: Option<String>,
    /// What is to be said of the way.
    note: Option<String>,
    /// Its role as a tracker.
    tracker: String,
    /// What it can do.
    capabilities: Vec<Capability>,
    /// The last round-trip time, in milliseconds.
    #[schema(required = true)]
    rtt_ms: Option<f64>,
    /// How long it is connected, in seconds.
    connected_s: u64,
    /// Calls of this node it is working on.
    in_flight: u64,
    /// The program version it names.
    version: String,
    /// What it can do beyond the first version of the protocol.
    features: Vec<String>,
}

/// Who this node is connected to.
#[derive(Serialize, ToSchema)]
pub(super) struct Peers {
    /// Those connected, and those reached through a tracker.
    peers: Vec<Peer>,
    /// Those that were configured and are not connected.
    #[schema(value_type = Vec<Object>)]
    missing: Vec<Value>,
}

/// The state of a node.
#[derive(Serialize, ToSchema)]
pub(super) struct Node {
    /// Its id.
    node_id: String,
    /// Its name.
    name: String,
    /// The program version.
    version: String,
    /// Since when it runs, in seconds.
    uptime_s: u64,
    /// Where it listens.
    listen: Vec<String>,
    /// The addresses that others learn.
    addrs: Vec<String>,
    /// What it can do.
    capabilities: Vec<Capability>,
    /// What it is interested in.
    interests: Vec<String>,
    /// Its role as a tracker.
    tracker: String,
    /// Counters and gauges.
    #[schema(value_type = Object)]
    metrics: Value,
}
