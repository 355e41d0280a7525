//! Nodes that are reached only through a tracker: what a person sees of them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::identity::NodeId;
use crate::info::{PeerInfo, Source, Way};
use crate::limits::MAX_CONTACTS;
use crate::mesh::clock::Now;
use crate::mesh::state::State;
use crate::wire::TrackerRole;

/// How long after the last task between them a node is shown.
const SHOWN: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Contact {
    /// The tracker it was last reached through.
    via: NodeId,
    since: Duration,
    last: Duration,
}

/// With whom there were tasks over a relay lately, either way.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    by_node: BTreeMap<NodeId, Contact>,
}

impl Contacts {
    pub(super) fn has(&self, node: &NodeId) -> bool {
        self.by_node.contains_key(node)
    }

    fn note(&mut self, node: NodeId, via: NodeId, now: Duration) {
        if self.by_node.len() >= MAX_CONTACTS && !self.by_node.contains_key(&node) {
            let oldest = self.by_node.iter().min_by_key(|(_, c)| c.last).map(|(node, _)| *node);
            if let Some(oldest) = oldest {
                self.by_node.remove(&oldest);
            }
        }
        let contact = self.by_node.entry(node).or_insert(Contact { via, since: now, last: now });
        contact.via = via;
        contact.last = now;
    }

    pub(super) fn expire(&mut self, now: Duration) {
        self.by_node.retain(|_, c| now.saturating_sub(c.last) < SHOWN);
    }
}

impl State {
    /// A signed task went to a node, or came from it, through a tracker.
    pub(in crate::mesh) fn note_contact(&mut self, node: NodeId, via: NodeId, now: Now) {
        self.punches.contacts.note(node, via, now.mono);
    }

    /// The nodes reached only through a tracker, by name and id: those there were tasks with lately.
    pub fn contact_infos(&self, now: Now) -> Vec<PeerInfo> {
        let contacts = self.punches.contacts.by_node.iter().filter(|(node, _)| self.peers.conn_of(node).is_none());
        let mut infos: Vec<PeerInfo> = contacts
            .filter_map(|(node, contact)| {
                let tracker = self.peers.proven(&contact.via)?;
                let record = self.table.get(node);
                Some(PeerInfo {
                    node_id: *node,
                    name: record.map(|r| r.name.clone()).unwrap_or_default(),
                    proven: true,
                    addr: tracker.arrival.addr,
                    inbound: false,
                    encrypted: tracker.arrival.encrypted,
                    found: self.table.source(node).unwrap_or(Source::Tracker),
                    way: Way::Relay,
                    via: Some(contact.via),
                    via_name: self.table.get(&contact.via).map(|r| r.name.clone()).unwrap_or_default(),
                    note: self.punches.note(node),
                    tracker: record.map_or(TrackerRole::None, |r| r.tracker),
                    capabilities: record.map(|r| crate::mesh::view::capabilities(r)).unwrap_or_default(),
                    rtt_ms: None,
                    connected_s: now.mono.saturating_sub(contact.since).as_secs(),
                    in_flight: self.in_flight.get(node).copied().unwrap_or(0),
                    version: record.map(|r| r.version.clone()).unwrap_or_default(),
                    features: record.map(|r| r.features.clone()).unwrap_or_default(),
                    observed: None,
                })
            })
            .collect();
        infos.sort_by(|a, b| (&a.name, a.node_id).cmp(&(&b.name, b.node_id)));
        infos
    }
}
