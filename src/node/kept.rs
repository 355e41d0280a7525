//! How the configured peers are doing, for their owner to see.

use std::sync::Mutex;
use std::time::Duration;

use super::driver::{Shared, lock};
use super::links::PeerAddr;
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::info::ConfiguredPeer;

/// One of them.
#[derive(Debug)]
struct One {
    peer: String,
    node: Option<NodeId>,
    reason: Option<CloseReason>,
    message: String,
    /// On the state's clock.
    next: Option<Duration>,
    failures: u64,
}

/// All of them, in the order they were named.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Vec<One>>);

impl Kept {
    /// Another one; gives its number.
    pub(crate) fn add(&self, peer: &PeerAddr) -> usize {
        let mut all = lock(&self.0);
        let one = One {
            peer: peer.to_string(),
            node: peer.node,
            reason: None,
            message: String::new(),
            next: None,
            failures: 0,
        };
        all.push(one);
        all.len() - 1
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut One)) {
        if let Some(one) = lock(&self.0).get_mut(number) {
            change(one);
        }
    }

    /// It is being dialled, or is connected.
    pub(crate) fn busy(&self, number: usize) {
        self.change(number, |one| one.next = None);
    }

    /// It was there.
    pub(crate) fn met(&self, number: usize, node: NodeId) {
        self.change(number, |one| (one.node, one.failures, one.next) = (Some(node), 0, None));
    }

    /// A dial failed.
    pub(crate) fn failed(&self, number: usize, reason: Option<CloseReason>, message: &str) {
        self.change(number, |one| {
            (one.reason, one.message) = (reason, message.to_owned());
            one.failures = one.failures.saturating_add(1);
        });
    }

    /// It is dialled next then, on the state's clock.
    pub(crate) fn waits(&self, number: usize, until: Duration) {
        self.change(number, |one| one.next = Some(until));
    }

    /// A connection of a node ended.
    pub(crate) fn ended(&self, node: &NodeId, reason: Option<CloseReason>, message: &str) {
        for one in lock(&self.0).iter_mut().filter(|one| one.node == Some(*node)) {
            let words = match (reason, message) {
                (Some(reason), "") => format!("the connection ended: {reason}"),
                (Some(reason), message) => format!("the connection ended: {reason}: {message}"),
                (None, _) => "the connection was lost".to_owned(),
            };
            (one.reason, one.message) = (reason, words);
        }
    }
}

impl Shared {
    /// How the configured peers are doing.
    pub(crate) fn configured_peers(&self) -> Vec<ConfiguredPeer> {
        let all: Vec<ConfiguredPeer> = {
            let now = self.now().mono;
            let millis = |until: Duration| u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
            let kept = lock(&self.kept.0);
            let shown = |one: &One| ConfiguredPeer {
                peer: one.peer.clone(),
                node_id: one.node,
                connected: false,
                reason: one.reason,
                message: one.message.clone(),
                next_dial_ms: one.next.map(millis),
                failures: one.failures,
            };
            kept.iter().map(shown).collect()
        };
        self.read(|state, _| {
            let connected = |peer: &ConfiguredPeer| peer.node_id.is_some_and(|node| state.is_present(&node));
            all.into_iter().map(|peer| ConfiguredPeer { connected: connected(&peer), ..peer }).collect()
        })
    }
}
