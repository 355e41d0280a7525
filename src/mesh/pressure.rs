//! What the state holds in memory, and what it gives up when that becomes too much: see [`crate::memory`].

use std::sync::Arc;

use super::state::State;
use crate::memory::{Kind, Level, Memory, Share};
use crate::wire::Message;

/// What the state holds, as it was counted last.
#[derive(Debug)]
pub struct Held {
    memory: Arc<Memory>,
    tasks: Share,
    answers: Share,
    chunks: Share,
    records: Share,
}

impl Held {
    /// Nothing yet.
    pub fn new(budget: usize) -> Self {
        let memory = Memory::new(budget);
        let share = |kind| Share::new(&memory, kind, 0);
        let [tasks, answers, chunks, records] = [Kind::Tasks, Kind::Answers, Kind::Chunks, Kind::Records].map(share);
        Self { memory, tasks, answers, chunks, records }
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        self.memory.level()
    }

    /// So many things were refused.
    pub fn count(&self, level: Level, n: u64) {
        self.memory.count(level, n);
    }
}

impl State {
    /// Where the node's memory is counted.
    pub fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.held.memory)
    }

    /// Counts what is held now. Nothing is added anywhere when nothing has changed.
    pub fn count_memory(&mut self) {
        let held = &mut self.held;
        held.tasks.set(self.tasks.payload_bytes());
        held.answers.set(self.tasks.kept_bytes());
        held.chunks.set(self.calls.early_bytes());
        held.records.set(self.table.bytes());
    }

    /// Memory is short: forgets what is kept here for others, the cheapest first.
    pub fn shed(&mut self) {
        let memory = self.memory();
        if memory.level() >= Level::Answers {
            let before = self.tasks.answers();
            self.tasks.keep_answers_within(
                usize::MAX,
                self.tasks.answered_bytes().saturating_sub(memory.excess(Level::Answers)),
            );
            memory.count(Level::Answers, (before - self.tasks.answers()) as u64);
            self.count_memory();
        }
        if memory.level() >= Level::Records {
            let (peers, me) = (&self.peers, self.me);
            let gone =
                self.table.forget_bytes(memory.excess(Level::Records), |n| *n == me || peers.conn_of(n).is_some());
            memory.count(Level::Records, gone);
            self.count_memory();
        }
    }

    /// Whether a message is gossip that there is no memory for. What a peer says of itself is not: without it nobody could
    /// be called.
    pub(super) fn is_too_much(&mut self, message: &Message, from: &crate::identity::NodeId) -> bool {
        let gossip = match message {
            Message::Query(_) | Message::Event(_) => true,
            Message::Announce(record, _) => record.node_id != *from,
            _ => false,
        };
        if !gossip || self.held.level() < Level::Gossip {
            return false;
        }
        self.held.count(Level::Gossip, 1);
        self.refuse("memory_gossip");
        true
    }
}
