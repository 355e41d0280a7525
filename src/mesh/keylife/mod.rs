//! Keys that end: which id took another's place, and which are void.
//!
//! Both are said by statements that the keys themselves signed ([`Rotation`], [`Revocation`]). Of two successors of one id
//! the one seen first counts, for ever: whoever stole a key can sign a second one, and nobody but those who saw the first
//! could tell which is the owner's. What comes here is checked; [`news`] is about what is not checked yet.

mod news;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use news::KeyNews;
pub use shelf::Share;
use shelf::Shelf;

use super::conn_id::ConnId;
use super::throttle::Bucket;
use crate::identity::NodeId;
use crate::limits::{STATEMENT_BURST, STATEMENTS_PER_SECOND};
use crate::wire::{Object, Revocation, Rotation};

/// How many successions in a row are followed: eight times as many as one node can show at once.
const MAX_STEPS: usize = 64;

/// Of how many refused successions it is remembered that they were told.
const MAX_TOLD: usize = 256;

/// What an id is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// Another one took its place: the latest of them.
    Replaced(NodeId),
    /// It is void; why, in its owner's words.
    Revoked(String),
}

impl Standing {
    /// What is said to who uses it all the same; `None`: it may be used.
    pub fn refusal(&self, id: &NodeId) -> Option<String> {
        match self {
            Self::Good => None,
            Self::Replaced(new) => Some(format!("{id} was replaced: its node is {new} now")),
            Self::Revoked(reason) if reason.is_empty() => Some(format!("{id} was revoked by its owner")),
            Self::Revoked(reason) => Some(format!("{id} was revoked by its owner ({reason})")),
        }
    }
}

/// A second successor of an id that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fork {
    /// The id.
    pub old: NodeId,
    /// Who took its place.
    pub kept: NodeId,
    /// Who says so as well.
    pub refused: NodeId,
}

/// The statements that are known.
#[derive(Debug, Default)]
pub struct KeyLife {
    /// The ids that the owner named: pinned, allowed, denied.
    named: BTreeSet<NodeId>,
    /// By the id that ended.
    rotations: Shelf<Rotation>,
    /// The same, the other way round: new, then old.
    by_new: BTreeSet<(NodeId, NodeId)>,
    revocations: Shelf<Revocation>,
    /// How many statements about ids that mean nothing here each connection may still bring.
    news: BTreeMap<ConnId, Bucket>,
    /// Refused successions that the owner was told of.
    told: BTreeSet<Fork>,
}

impl KeyLife {
    /// The owner named an id: what is said about it is kept before all else.
    pub fn name(&mut self, id: NodeId) {
        self.named.insert(id);
        self.rotations.promote(&id);
        self.revocations.promote(&id);
    }

    /// The newest id of the node that had this one; itself, if it has no successor.
    pub fn current(&self, id: &NodeId) -> NodeId {
        let mut current = *id;
        for _ in 0..MAX_STEPS {
            match self.rotations.get(&current) {
                Some(step) => current = step.new,
                None => break,
            }
        }
        current
    }

    /// What an id is worth.
    pub fn standing(&self, id: &NodeId) -> Standing {
        if let Some(revocation) = self.revocations.get(id) {
            return Standing::Revoked(revocation.reason.clone());
        }
        match self.current(id) {
            current if current == *id => Standing::Good,
            current => Standing::Replaced(current),
        }
    }

    /// An id, and those its node had before, as far as they are known: whoever is named by one of them is named.
    pub fn ids_of(&self, id: &NodeId) -> Vec<NodeId> {
        let mut ids = vec![*id];
        let mut next = 0;
        while let Some(new) = ids.get(next).copied() {
            let from = (new, NodeId::from_bytes([0; 32]));
            let olds = self.by_new.range(from..).take_while(|(n, _)| *n == new).map(|(_, old)| *old);
            let room = MAX_STEPS.saturating_sub(ids.len());
            let olds: Vec<NodeId> = olds.filter(|old| !ids.contains(old)).take(room).collect();
            ids.extend(olds);
            next += 1;
        }
        ids
    }

    /// The ids that the owner named which an id stands for.
    pub fn named_by(&self, id: &NodeId) -> Vec<NodeId> {
        self.ids_of(id).into_iter().filter(|old| old != id && self.named.contains(old)).collect()
    }

    /// Whether the owner named an id, or one that its node had before.
    pub fn is_named(&self, id: &NodeId) -> bool {
        self.ids_of(id).iter().any(|id| self.named.contains(id))
    }

    /// Whether this is known already: that one id took another's place.
    pub fn knows_step(&self, step: &Rotation) -> bool {
        self.rotations.get(&step.old).is_some_and(|known| known.new == step.new)
    }

    /// Whether an id is void.
    pub fn is_revoked(&self, id: &NodeId) -> bool {
        self.revocations.get(id).is_some()
    }

    /// Whether a connection may bring another statement about an id that means nothing here.
    pub fn may_bring(&mut self, conn: ConnId, now: std::time::Duration) -> bool {
        let bucket = self.news.entry(conn).or_insert_with(|| Bucket::new(STATEMENTS_PER_SECOND, STATEMENT_BURST));
        bucket.take(now).is_ok()
    }

    /// A connection ended.
    pub fn forget_conn(&mut self, conn: ConnId) {
        self.news.remove(&conn);
    }

    /// The first statement of a chain that contradicts what is known.
    pub fn fork(&self, chain: &[Rotation]) -> Option<Fork> {
        chain.iter().find_map(|step| {
            let kept = self.rotations.get(&step.old).map(|known| known.new).filter(|kept| *kept != step.new)?;
            Some(Fork { old: step.old, kept, refused: step.new })
        })
    }

    /// Whether the owner is to be told of a refused succession: once.
    pub fn tell_fork(&mut self, fork: Fork) -> bool {
        if self.told.len() >= MAX_TOLD {
            self.told.pop_first();
        }
        self.told.insert(fork)
    }

    /// Keeps the statements of a chain whose signatures were checked and that has no [`fork`](Self::fork). Gives the ids
    /// that ended by it. A statement of an id that was revoked before is left out: the key may have been a thief's then.
    pub fn absorb(&mut self, chain: &[Rotation], share: impl Fn(&Rotation) -> Share, teller: NodeId) -> Vec<NodeId> {
        let mut ended = Vec::new();
        for step in chain {
            if self.rotations.get(&step.old).is_some()
                || self.is_revoked(&step.old)
                || self.leads_to(&step.new, &step.old)
            {
                continue;
            }
            // What stands for a named id is as good as named.
            let share = if self.is_named(&step.old) { Share::Named } else { share(step) };
            if let Some(gone) = self.rotations.put(step.old, step.kept(), share, teller) {
                self.by_new.remove(&(gone.new, gone.old));
            }
            if self.rotations.get(&step.old).is_some() {
                self.by_new.insert((step.new, step.old));
                ended.push(step.old);
            }
        }
        ended
    }

    /// Whether one id's successions lead to another.
    fn leads_to(&self, from: &NodeId, to: &NodeId) -> bool {
        let mut at = *from;
        for _ in 0..MAX_STEPS {
            match self.rotations.get(&at) {
                Some(step) if step.new == *to => return true,
                Some(step) => at = step.new,
                None => return false,
            }
        }
        // Longer than anybody follows: as good as a circle.
        true
    }

    /// Keeps a revocation whose signature was checked; `false` when it is known already, or there is no room for it.
    pub fn revoke(&mut self, revocation: &Revocation, share: Share, teller: NodeId) -> bool {
        let id = revocation.node_id;
        if self.is_revoked(&id) {
            return false;
        }
        let share = if self.is_named(&id) { Share::Named } else { share };
        self.revocations.put(id, revocation.kept(), share, teller);
        self.is_revoked(&id)
    }

    /// The revocations that a peer is told of, those that matter here and the newest first.
    pub fn revocations(&self, most: usize) -> Vec<Object> {
        self.revocations.best(most).into_iter().map(|kept| kept.object.clone()).collect()
    }

    /// All that is kept, to be saved: rotations, then revocations.
    pub fn saved(&self) -> Vec<(Share, Object)> {
        let rotations = self.rotations.iter().map(|k| (k.share, k.statement.object.clone()));
        let revocations = self.revocations.iter().map(|k| (k.share, k.statement.object.clone()));
        rotations.chain(revocations).collect()
    }

    /// How many statements are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.rotations.len() + self.revocations.len()
    }
}
