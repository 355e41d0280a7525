//! What the owner is shown.

use std::collections::BTreeMap;

use super::clock::Now;
use super::conn_id::ConnId;
use super::peers::Peer;
use super::state::{Counters, State};
use crate::identity::NodeId;
use crate::info::{CapabilityInfo, FoundNode, PeerInfo, Source, TaskRefusals, Way};
use crate::wire::{Capability, CapabilityKind, Record, TrackerRole};

/// Gauges and counters of the state.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Proven peers.
    pub peers: usize,
    /// Python nodes.
    pub unproven_peers: usize,
    /// Peers of either kind whose connection is encrypted.
    pub encrypted_peers: usize,
    /// Records kept.
    pub records: usize,
    /// Handlers at work.
    pub tasks_running: usize,
    /// Calls in flight.
    pub calls_running: usize,
    /// What was counted.
    pub counters: Counters,
}

impl State {
    /// Gauges and counters.
    pub fn view(&self) -> View {
        View {
            peers: self.peers.all_proven().count(),
            unproven_peers: self.peers.legacy().count(),
            encrypted_peers: self.peers.iter().filter(|(_, peer)| peer.arrival.encrypted).count(),
            records: self.table.len(),
            tasks_running: self.tasks.running(),
            calls_running: self.calls.len(),
            counters: self.counters.clone(),
        }
    }

    /// The connected peers, by name and id.
    pub fn peer_infos(&self, now: Now) -> Vec<PeerInfo> {
        let mut infos: Vec<PeerInfo> = self.peers.iter().map(|(_, peer)| self.peer_info(peer, now)).collect();
        infos.sort_by(|a, b| (&a.name, a.node_id).cmp(&(&b.name, b.node_id)));
        infos
    }

    fn peer_info(&self, peer: &Peer, now: Now) -> PeerInfo {
        let a = &peer.arrival;
        let record = self.table.get(&a.node).filter(|_| peer.legacy.is_none());
        let capabilities = match (&peer.legacy, record) {
            (Some(legacy), _) => legacy.caps.iter().map(|n| Capability::new(CapabilityKind::Agent, n).into()).collect(),
            (None, Some(record)) => capabilities(record),
            (None, None) => Vec::new(),
        };
        PeerInfo {
            node_id: a.node,
            name: record.map(|r| r.name.clone()).unwrap_or_default(),
            proven: peer.legacy.is_none(),
            addr: a.addr,
            inbound: a.inbound,
            encrypted: a.encrypted,
            found: a.how.found,
            via: None,
            via_name: String::new(),
            note: String::new(),
            way: match a.inbound {
                _ if a.how.punched => Way::Punched,
                true => Way::Inbound,
                false => Way::Direct,
            },
            tracker: a.tracker,
            capabilities,
            rtt_ms: peer.rtt.map(crate::info::millis),
            connected_s: now.mono.saturating_sub(peer.since).as_secs(),
            in_flight: self.in_flight.get(&a.node).copied().unwrap_or(0),
            version: a.version.clone(),
            features: a.features.clone(),
            observed: a.observed,
        }
    }

    /// Everybody known here who provides a capability (`""`: everybody), this node included.
    pub fn known(&self, capability: &str, now: Now) -> Vec<FoundNode> {
        let wanted = |r: &Record| capability.is_empty() || r.caps.provides(capability);
        let own = self.record.iter().filter(|r| wanted(r)).map(|r| self.found(r, "self", Some(0)));
        let known = self.table.iter().filter(|r| wanted(r)).map(|r| {
            let connected = self.peers.conn_of(&r.node_id).is_some();
            self.found(r, if connected { "peer" } else { "table" }, connected.then_some(1))
        });
        let legacy = self
            .peers
            .legacy()
            .map(|(_, p)| self.peer_info(p, now))
            .filter(|p| capability.is_empty() || p.capabilities.iter().any(|c| c.name == capability));
        let legacy = legacy.map(|p| FoundNode {
            node_id: p.node_id,
            name: p.name,
            capabilities: p.capabilities,
            addrs: Vec::new(),
            trackers: Vec::new(),
            tracker: TrackerRole::None,
            connected: true,
            proven: false,
            found: "peer",
            hops: Some(1),
        });
        own.chain(known).chain(legacy).collect()
    }

    /// One node as it is shown.
    pub fn found(&self, record: &Record, how: &'static str, hops: Option<u32>) -> FoundNode {
        FoundNode {
            node_id: record.node_id,
            name: record.name.clone(),
            capabilities: capabilities(record),
            addrs: record.addrs.iter().map(ToString::to_string).collect(),
            trackers: record.trackers.clone(),
            tracker: record.tracker,
            connected: self.peers.conn_of(&record.node_id).is_some(),
            proven: true,
            found: how,
            hops,
        }
    }

    /// What this node provides.
    pub fn capabilities(&self) -> Vec<CapabilityInfo> {
        self.caps.iter().map(CapabilityInfo::from).collect()
    }

    /// What this node is interested in.
    pub fn interests(&self) -> Vec<String> {
        self.interests.keys().cloned().collect()
    }

    /// Whether a proven node is connected.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.peers.conn_of(&self.keys.current(node)).is_some()
    }

    /// Who is connected and proven, and how each was found.
    pub fn connected_nodes(&self) -> impl Iterator<Item = (NodeId, Source)> {
        self.peers.all_proven().map(|(_, peer)| (peer.arrival.node, peer.arrival.how.found))
    }

    /// Whether a node is connected, proven or not.
    pub fn is_present(&self, node: &NodeId) -> bool {
        self.is_connected(node) || self.peers.legacy_conn_of(node).is_some()
    }

    /// Who is connected over a connection that is in use.
    pub fn node_of(&self, conn: ConnId) -> Option<NodeId> {
        self.peers.get(conn).map(|p| p.arrival.node)
    }

    /// Whether a connection is a Python node's.
    pub fn is_legacy(&self, conn: ConnId) -> bool {
        self.peers.get(conn).is_some_and(|p| p.legacy.is_some())
    }

    /// Whether anybody is connected.
    pub fn has_peers(&self) -> bool {
        self.peers.iter().next().is_some()
    }

    /// How many rules there are for capabilities, for how many nodes everything is served if only for some, and what was
    /// refused by capability.
    pub fn task_refusals(&self) -> (usize, Option<usize>, BTreeMap<String, TaskRefusals>) {
        let (rules, serve_only) = self.policies.size();
        (rules, serve_only, self.policies.refused().clone())
    }

    /// What is counted as refused, with names for programs.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        self.counters.refused.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
    }
}

pub(super) fn capabilities(record: &Record) -> Vec<CapabilityInfo> {
    record.details().iter().map(CapabilityInfo::from).collect()
}
