//! Attempts of one node, with made-up trackers and clocks.

use std::net::SocketAddr;

use crate::identity::NodeId;
use crate::info::Source;
use crate::mesh::peers::{Arrival, How};
use crate::wire::{Caps, Speaker, TrackerRole};

/// A connection to a tracker that helps.
pub(in crate::mesh) fn arrival(tracker: &str, local: &str) -> Arrival {
    let tracker: SocketAddr = tracker.parse().unwrap();
    let local: SocketAddr = local.parse().unwrap();
    Arrival {
        node: NodeId::from_bytes([9; 32]),
        speaker: Speaker::Proven,
        addr: tracker,
        local,
        inbound: false,
        encrypted: false,
        how: How::kept(Source::Peer),
        instance: Some("run".into()),
        version: String::new(),
        features: vec![super::FEATURE.to_owned()],
        tracker: TrackerRole::Public,
        observed: Some(local),
        caps: Caps::default(),
    }
}
