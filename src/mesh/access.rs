//! Who is let in: the owner's lists, and what follows from them for connections, tasks, records and floods.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::action::{Action, TaskKey};
use super::clock::Now;
use super::conn_id::ConnId;
use super::state::State;
use crate::error::{CloseReason, ErrorCode};
use crate::identity::NodeId;
use crate::wire::WireError;

/// Whom a node lets in. A denied node is shut out of everything, a private node lets in those allowed and nobody else.
///
/// Cheap to clone, however many ids it holds.
///
/// ```
/// use elo::{Access, Identity};
///
/// let (friend, foe) = (Identity::generate().id(), Identity::generate().id());
/// let access = Access::private().allow(friend).deny(foe);
/// assert!(access.admits(&friend) && !access.admits(&foe));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    private: bool,
    allowed: Arc<BTreeSet<NodeId>>,
    denied: Arc<BTreeSet<NodeId>>,
}

/// What the lists say of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Decision {
    /// It is let in: it is allowed, or the node is public and doesn't deny it.
    Admitted,
    /// The node is private, and does not name it.
    NotListed,
    /// It is denied.
    Denied,
}

impl Access {
    /// Everybody is let in who isn't denied: the default.
    pub fn public() -> Self {
        Self::default()
    }

    /// Nobody is let in who isn't allowed.
    pub fn private() -> Self {
        Self { private: true, ..Self::default() }
    }

    /// With a node that is let in, also if it was denied before.
    #[must_use]
    pub fn allow(mut self, node: NodeId) -> Self {
        remove(&mut self.denied, &node);
        Arc::make_mut(&mut self.allowed).insert(node);
        self
    }

    /// With a node that is shut out, also if it was allowed before.
    #[must_use]
    pub fn deny(mut self, node: NodeId) -> Self {
        remove(&mut self.allowed, &node);
        Arc::make_mut(&mut self.denied).insert(node);
        self
    }

    /// Without either of them for a node.
    #[must_use]
    pub fn forget(mut self, node: &NodeId) -> Self {
        remove(&mut self.allowed, node);
        remove(&mut self.denied, node);
        self
    }

    /// Whether only those allowed are let in.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// Whether everybody is let in, and nobody listed.
    fn is_open(&self) -> bool {
        !self.private && self.allowed.is_empty() && self.denied.is_empty()
    }

    /// Those allowed, by their ids.
    pub fn allowed(&self) -> impl ExactSizeIterator<Item = &NodeId> {
        self.allowed.iter()
    }

    /// Those denied, by their ids.
    pub fn denied(&self) -> impl ExactSizeIterator<Item = &NodeId> {
        self.denied.iter()
    }

    /// What the lists say of a node that goes by any of these ids: one that is denied shuts it out, one that is allowed lets
    /// it in.
    pub(crate) fn decides_of(&self, ids: &[NodeId]) -> Decision {
        let says = |decision| ids.iter().any(|id| self.decides(id) == decision);
        if says(Decision::Denied) {
            Decision::Denied
        } else if says(Decision::Admitted) {
            Decision::Admitted
        } else {
            Decision::NotListed
        }
    }

    /// What the lists say of an id. The one place where they are looked at.
    pub fn decides(&self, node: &NodeId) -> Decision {
        if self.denied.contains(node) {
            Decision::Denied
        } else if self.private && !self.allowed.contains(node) {
            Decision::NotListed
        } else {
            Decision::Admitted
        }
    }

    /// Whether a node is let in.
    pub fn admits(&self, node: &NodeId) -> bool {
        self.decides(node) == Decision::Admitted
    }

    /// Of these ids; who is in both lists is denied.
    pub(crate) fn of(private: bool, allowed: BTreeSet<NodeId>, denied: BTreeSet<NodeId>) -> Self {
        let mut access = Self { private, allowed: Arc::new(allowed), denied: Arc::new(denied) };
        access.settle();
        access
    }

    /// Both together: private if one of them is, and denied wins over allowed.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let both = |a: &Arc<BTreeSet<NodeId>>, b: &Arc<BTreeSet<NodeId>>| match (a.is_empty(), b.is_empty()) {
            (true, _) => Arc::clone(b),
            (_, true) => Arc::clone(a),
            _ => Arc::new(a.union(b).copied().collect()),
        };
        let mut access = Self {
            private: self.private || other.private,
            allowed: both(&self.allowed, &other.allowed),
            denied: both(&self.denied, &other.denied),
        };
        access.settle();
        access
    }

    /// Private from now on if that is said.
    pub(crate) fn private_if(mut self, private: bool) -> Self {
        self.private |= private;
        self
    }

    fn settle(&mut self) {
        let (allowed, denied) = (&self.allowed, &self.denied);
        if denied.iter().any(|node| allowed.contains(node)) {
            let left = allowed.difference(denied).copied().collect();
            self.allowed = Arc::new(left);
        }
    }
}

fn remove(set: &mut Arc<BTreeSet<NodeId>>, node: &NodeId) {
    // Looked at first: the copy of a shared set is made only when there is something to take out.
    if set.contains(node) {
        Arc::make_mut(set).remove(node);
    }
}

impl State {
    /// Why a node is not let in, in words for it; `None`: it is.
    pub(super) fn barred(&self, node: &NodeId) -> Option<String> {
        // An id that ended is nobody's, whatever the lists say.
        if let Some(why) = self.ended(node) {
            return Some(why);
        }
        match self.decides(node) {
            Decision::Admitted => None,
            Decision::NotListed => Some(format!("this node is private: its owner must allow {node}")),
            Decision::Denied => Some(format!("this node's owner denied {node}")),
        }
    }

    /// Why a connection is not let in.
    pub(super) fn barred_from(&self, node: &NodeId, legacy: bool) -> Option<String> {
        if legacy && self.config.access.is_private() {
            let why = "this node is private: a Python node can't prove its id, so it can't be on the allowlist";
            return Some(why.to_owned());
        }
        self.barred(node)
    }

    /// Whether a node is shut out of everything, what it says through others included.
    pub(super) fn is_denied(&self, node: &NodeId) -> bool {
        self.ended(node).is_some() || self.decides(node) == Decision::Denied
    }

    /// What the lists say of a node, by whichever id it is listed: that of an earlier key of its, too.
    fn decides(&self, node: &NodeId) -> Decision {
        // The usual case, and asked with each message: nobody is listed.
        if self.config.access.is_open() {
            return Decision::Admitted;
        }
        self.config.access.decides_of(&self.ids_of(node))
    }

    /// Whether a node may be connected to this one.
    pub fn admits(&self, node: &NodeId) -> bool {
        self.barred(node).is_none()
    }

    /// The lists there are now.
    pub fn access(&self) -> &Access {
        &self.config.access
    }

    /// Running tasks of callers that are no longer let in are answered so and stopped.
    pub(super) fn stop_barred_tasks(&mut self, now: Now, out: &mut Vec<Action>) {
        let mut keys: Vec<(TaskKey, String)> = Vec::new();
        for key in self.tasks.unanswered() {
            if key.0 != self.me
                && let Some(why) = self.barred(&key.0)
            {
                keys.push((key.clone(), why));
            }
        }
        keys.sort();
        for (key, why) in keys {
            self.stop_task(&key, WireError::new(ErrorCode::NotAllowed, why), now, out);
        }
    }

    /// Other lists from now on: who is no longer let in is told so and closed, its running tasks are answered and
    /// stopped, and what is known of those denied is forgotten.
    pub fn set_access(&mut self, access: Access, now: Now, out: &mut Vec<Action>) {
        self.name_ids(access.allowed().chain(access.denied()).copied());
        self.config.access = access;
        // The answers first: they still find their way.
        self.stop_barred_tasks(now, out);
        self.calls_on_denied(now, out);
        let barred: Vec<(ConnId, String)> = self
            .peers
            .iter()
            .filter_map(|(conn, p)| Some((conn, self.barred_from(&p.arrival.node, p.legacy.is_some())?)))
            .collect();
        for (conn, why) in barred {
            self.refuse("not_allowed");
            self.drop_peer(conn, CloseReason::NotAllowed, &why, now, out);
        }
        let known: Vec<NodeId> = self.table.iter().map(|r| r.node_id).filter(|n| self.is_denied(n)).collect();
        for node in known {
            self.table.forget(&node, now);
            // Should it be let in again, what it says is news.
            self.table.revive(&node);
        }
        self.forget_barred_trackers();
        self.refresh_trackers(now);
        self.flush_record(now, out);
        // Somebody may be allowed now who could take what waits.
        self.calls_nudge(now, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn denied_wins_and_private_lets_in_the_allowed_alone() {
        let public = Access::public().allow(id(1)).deny(id(2));
        let private = Access::private().allow(id(1)).deny(id(2));
        use Decision::{Admitted, Denied, NotListed};
        assert_eq!([1, 2, 3].map(|n| public.decides(&id(n))), [Admitted, Denied, Admitted]);
        assert_eq!([1, 2, 3].map(|n| private.decides(&id(n))), [Admitted, Denied, NotListed]);
        // What is said last counts.
        let access = Access::private().deny(id(1)).allow(id(1));
        assert_eq!((access.decides(&id(1)), access.denied().len()), (Admitted, 0));
        assert_eq!(access.clone().deny(id(1)).decides(&id(1)), Denied);
        assert_eq!(access.forget(&id(1)).decides(&id(1)), NotListed);
    }

    #[test]
    fn of_two_lists_the_stricter_counts() {
        let flags = Access::private().allow(id(1)).allow(id(2));
        let file = Access::public().allow(id(3)).deny(id(2));
        for both in [flags.and(&file), file.and(&flags)] {
            assert!(both.is_private());
            assert_eq!([1, 2, 3, 4].map(|n| both.admits(&id(n))), [true, false, true, false]);
        }
        assert_eq!(flags.and(&Access::public()), flags);
        let both = Access::of(false, [id(1), id(2)].into(), [id(2)].into());
        assert_eq!((both.allowed().len(), both.decides(&id(2))), (1, Decision::Denied));
    }

    #[test]
    fn a_copy_is_its_own() {
        let many: BTreeSet<NodeId> = (0..1000u32)
            .map(|n| {
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&n.to_le_bytes());
                NodeId::from_bytes(bytes)
            })
            .collect();
        let before = Access::of(true, many, BTreeSet::new());
        let after = before.clone().deny(id(0));
        assert!(before.admits(&id(0)) && !after.admits(&id(0)));
        assert_eq!((before.allowed().len(), after.allowed().len()), (1000, 999));
    }
}
