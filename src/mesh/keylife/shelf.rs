//! Statements kept, in shares that can't take room from each other.

use std::collections::BTreeMap;

use crate::identity::NodeId;
use crate::limits::{MAX_MET_STATEMENTS, MAX_NAMED_STATEMENTS, MAX_OTHER_STATEMENTS};

/// What an id that a statement is about means to this node: each has a share of the room of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// Nothing: it is kept for others to be told.
    Other,
    /// It was met: it is or was connected, or its record is known.
    Met,
    /// The owner named it, or an id that led to it.
    Named,
}

impl Share {
    /// How many statements it holds.
    pub const fn room(self) -> usize {
        match self {
            Self::Other => MAX_OTHER_STATEMENTS,
            Self::Met => MAX_MET_STATEMENTS,
            Self::Named => MAX_NAMED_STATEMENTS,
        }
    }

    /// Its name in a file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Met => "met",
            Self::Named => "named",
        }
    }

    /// Of its name in a file.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Other, Self::Met, Self::Named].into_iter().find(|share| share.as_str() == name)
    }
}

/// A statement that is kept.
#[derive(Debug)]
pub struct Kept<T> {
    /// The statement.
    pub statement: T,
    /// In whose room.
    pub share: Share,
    /// Who brought it.
    teller: NodeId,
    /// When, counted in statements.
    at: u64,
}

/// Statements by the id that they are about.
#[derive(Debug)]
pub struct Shelf<T> {
    entries: BTreeMap<NodeId, Kept<T>>,
    count: u64,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), count: 0 }
    }
}

impl<T> Shelf<T> {
    /// The one about an id.
    pub fn get(&self, id: &NodeId) -> Option<&T> {
        self.entries.get(id).map(|kept| &kept.statement)
    }

    /// Keeps a statement about an id that there is none about. When its share is full, whoever brought the most of what is
    /// there loses the oldest of theirs: nobody's flood pushes out what others brought. Gives what went.
    pub fn put(&mut self, id: NodeId, statement: T, share: Share, teller: NodeId) -> Option<T> {
        let gone = if self.entries.values().filter(|kept| kept.share == share).count() >= share.room() {
            self.make_room(share, teller)
        } else {
            None
        };
        self.count += 1;
        self.entries.insert(id, Kept { statement, share, teller, at: self.count });
        gone
    }

    fn make_room(&mut self, share: Share, newcomer: NodeId) -> Option<T> {
        let mut brought: BTreeMap<NodeId, usize> = BTreeMap::new();
        for kept in self.entries.values().filter(|kept| kept.share == share) {
            *brought.entry(kept.teller).or_default() += 1;
        }
        // Of several with as many it is the newcomer's own that goes.
        let loser = brought.into_iter().max_by_key(|(teller, n)| (*n, *teller == newcomer))?.0;
        let theirs = self.entries.iter().filter(|(_, kept)| kept.share == share && kept.teller == loser);
        let oldest = *theirs.min_by_key(|(_, kept)| kept.at)?.0;
        self.entries.remove(&oldest).map(|kept| kept.statement)
    }

    /// The owner named the id: what is said about it is no longer one of many. It stays where it is when there is no room.
    pub fn promote(&mut self, id: &NodeId) {
        let named = self.entries.values().filter(|kept| kept.share == Share::Named).count();
        if let Some(kept) = self.entries.get_mut(id)
            && named < Share::Named.room()
        {
            kept.share = Share::Named;
        }
    }

    /// Everything kept, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Kept<T>> {
        self.entries.values()
    }

    /// Some of them: those that mean more, and the newest, first.
    pub fn best(&self, most: usize) -> Vec<&T> {
        let mut all: Vec<&Kept<T>> = self.entries.values().collect();
        all.sort_by_key(|kept| std::cmp::Reverse((kept.share, kept.at)));
        all.into_iter().take(most).map(|kept| &kept.statement).collect()
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
