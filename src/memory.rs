//! How much memory peers make this node hold: counted in one place, and what is given up when it becomes too much.
//!
//! Whoever holds something for a peer adds it here and takes it off again: two atomic additions, no lock. What is counted is
//! what a peer can make grow; the program itself and the allocator's own are not. Who wants to know how bad it
//! is asks for the [`Level`]; what has to be done about it is the keeper's, in `node/memory.rs`, which is woken when a
//! level is reached.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// What memory is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections at rest.
    Connections,
    /// Messages that wait to be sent.
    Outboxes,
    /// Input that is not a complete message yet.
    Input,
    /// Payloads of tasks whose handlers run or wait.
    Tasks,
    /// Answers remembered, and chunks that are not acknowledged.
    Answers,
    /// Chunks that came before their turn.
    Chunks,
    /// Records of other nodes.
    Records,
}

const KINDS: usize = 7;

/// How bad it is: each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room.
    #[default]
    Calm,
    /// Remembered answers are forgotten: their callers may be told `DUPLICATE`.
    Answers,
    /// Records of nodes that are not connected are forgotten: they can be asked for again.
    Records,
    /// Gossip is dropped.
    Gossip,
    /// New tasks are refused.
    Tasks,
    /// The peer that holds the most is closed.
    Peers,
    /// New connections are refused.
    Connections,
}

impl Level {
    /// All that something is done at, in their order.
    pub const STEPS: [Self; 6] =
        [Self::Answers, Self::Records, Self::Gossip, Self::Tasks, Self::Peers, Self::Connections];

    /// The word that listings show; empty for the first.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "",
            Self::Answers => "answers",
            Self::Records => "records",
            Self::Gossip => "gossip",
            Self::Tasks => "tasks",
            Self::Peers => "peers",
            Self::Connections => "connections",
        }
    }

    /// From how many percent of the budget on.
    const fn percent(self) -> usize {
        match self {
            Self::Calm => 0,
            Self::Answers => 70,
            Self::Records => 75,
            Self::Gossip => 80,
            Self::Tasks => 85,
            Self::Peers => 90,
            Self::Connections => 95,
        }
    }
}

/// All memory that is counted.
pub struct Memory {
    budget: usize,
    /// From how many bytes on anything is done.
    first: usize,
    total: AtomicUsize,
    kinds: [AtomicUsize; KINDS],
    shed: [AtomicU64; Level::STEPS.len()],
    /// The level that the keeper was woken for.
    told: AtomicU8,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("budget", &self.budget).field("used", &self.used()).finish_non_exhaustive()
    }
}

impl Memory {
    /// None of so many bytes is used.
    pub fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self {
            budget,
            first: share(budget, Level::Answers),
            total: AtomicUsize::new(0),
            kinds: Default::default(),
            shed: Default::default(),
            told: AtomicU8::new(0),
            wake: OnceLock::new(),
        })
    }

    /// Whom to wake when a level is reached; once.
    pub fn wake_with(&self, wake: impl Fn() + Send + Sync + 'static) {
        let _ = self.wake.set(Box::new(wake));
    }

    /// How many bytes there are in all.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// How many are used.
    pub fn used(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// How many are used for something.
    pub fn used_for(&self, kind: Kind) -> usize {
        self.kinds[kind as usize].load(Ordering::Relaxed)
    }

    /// So many more are used.
    pub fn add(&self, kind: Kind, bytes: usize) {
        self.kinds[kind as usize].fetch_add(bytes, Ordering::Relaxed);
        let total = self.total.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if total >= self.first {
            self.reached(total);
        }
    }

    /// So many are given back.
    pub fn sub(&self, kind: Kind, bytes: usize) {
        self.kinds[kind as usize].fetch_sub(bytes, Ordering::Relaxed);
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cold]
    fn reached(&self, total: usize) {
        let level = self.level_of(total) as u8;
        // Waking for each message that comes meanwhile would only take time from what has to be done.
        if self.told.fetch_max(level, Ordering::AcqRel) < level
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// For the keeper: it has seen how bad it is, and is to be woken only when it is worse.
    pub fn seen(&self) -> Level {
        let level = self.level();
        self.told.store(level as u8, Ordering::Release);
        // What came between the two.
        level.max(self.level())
    }

    /// How bad it is.
    pub fn level(&self) -> Level {
        let total = self.used();
        if total < self.first { Level::Calm } else { self.level_of(total) }
    }

    fn level_of(&self, total: usize) -> Level {
        let reached = |level: &&Level| total >= share(self.budget, **level);
        Level::STEPS.iter().rev().find(reached).copied().unwrap_or_default()
    }

    /// How many bytes are to go until something of that level need no longer go: to 5 % below where it begins, so that it
    /// doesn't begin again with the next message.
    pub fn excess(&self, level: Level) -> usize {
        self.used().saturating_sub(share(self.budget, level) - self.budget / 20)
    }

    /// So many things were given up or refused.
    pub fn count(&self, level: Level, n: u64) {
        if let Some(counter) = (level as usize).checked_sub(1).and_then(|at| self.shed.get(at)) {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// How many things were given up or refused at a level.
    pub fn shed(&self, level: Level) -> u64 {
        (level as usize).checked_sub(1).and_then(|at| self.shed.get(at)).map_or(0, |c| c.load(Ordering::Relaxed))
    }
}

/// From how many bytes on a level is reached.
fn share(budget: usize, level: Level) -> usize {
    // Divided first: a budget may be any number.
    budget / 100 * level.percent()
}

/// What one holder has of it; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    kind: Kind,
    bytes: usize,
}

impl Share {
    /// Some to begin with.
    pub fn new(memory: &Arc<Memory>, kind: Kind, bytes: usize) -> Self {
        let mut share = Self { memory: Arc::clone(memory), kind, bytes: 0 };
        share.set(bytes);
        share
    }

    /// How many bytes it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// It is so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.memory.add(self.kind, more),
            None => self.memory.sub(self.kind, self.bytes - bytes),
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_reached_in_their_order_and_left_again() {
        let memory = Memory::new(1000);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        memory.wake_with(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut input = Share::new(&memory, Kind::Input, 699);
        assert_eq!((memory.level(), woken.load(Ordering::Relaxed)), (Level::Calm, 0));
        let mut seen = Vec::new();
        for used in 700..1200 {
            input.set(used);
            if seen.last() != Some(&memory.level()) {
                seen.push(memory.level());
            }
        }
        assert_eq!(seen, Level::STEPS);
        assert_eq!(woken.load(Ordering::Relaxed), 6, "once for each level");
        assert_eq!((memory.used(), memory.used_for(Kind::Input), memory.excess(Level::Peers)), (1199, 1199, 349));
        input.set(760);
        assert_eq!((memory.seen(), memory.excess(Level::Answers)), (Level::Records, 110));
        input.set(900);
        assert_eq!(woken.load(Ordering::Relaxed), 7);
        drop(input);
        assert_eq!((memory.level(), memory.used()), (Level::Calm, 0));
    }

    #[test]
    fn any_budget_can_be_told() {
        let memory = Memory::new(usize::MAX);
        memory.add(Kind::Records, 1 << 40);
        assert_eq!((memory.level(), memory.excess(Level::Answers)), (Level::Calm, 0));
    }
}
