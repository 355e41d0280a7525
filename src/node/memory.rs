//! The keeper of the memory budget: woken when a level is reached, it gives up what has to go, and looks again until
//! nothing has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::driver::{Shared, lock};
use crate::error::CloseReason;
use crate::info::MemoryInfo;
use crate::memory::{Kind, Level};
use crate::mesh::ConnId;
use crate::net::Connection;

/// How long it waits before it looks again: what is closed takes a moment to be gone.
const LOOK: Duration = Duration::from_millis(50);

/// For how many looks tasks are refused because of what peers hold, before the largest of them is closed: a second.
const MAX_REFUSING: u32 = 20;

impl Shared {
    /// Keeps the node within its memory budget, on a task of its own.
    pub(super) fn keep_memory(&self) {
        let Some(shared) = self.strong() else { return };
        let woken = Arc::new(Notify::new());
        let wake = Arc::clone(&woken);
        self.memory.wake_with(move || wake.notify_one());
        let stop = self.stop.clone();
        self.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = shared.shed_when_woken(&woken) => {}
            }
        });
    }

    async fn shed_when_woken(&self, woken: &Notify) {
        loop {
            woken.notified().await;
            tracing::warn!(used = self.memory.used(), budget = self.memory.budget(), "memory runs short");
            // Who was closed and is not gone yet holds no more than it is about to give back.
            let (mut closed, mut refusing) = (HashSet::new(), 0);
            while self.memory.seen() > Level::Calm {
                self.with(|state, _, _| state.shed());
                let level = self.memory.level();
                refusing = if level >= Level::Tasks { refusing + 1 } else { 0 };
                // Who fills the memory up to just below that level keeps everybody's tasks out, at no cost: not for long.
                let held = self.memory.used_for(Kind::Outboxes) + self.memory.used_for(Kind::Input);
                let lasting = refusing > MAX_REFUSING && held >= self.memory.budget() / 5;
                if level >= Level::Peers || lasting {
                    self.close_largest(&mut closed);
                }
                tokio::time::sleep(LOOK).await;
            }
            tracing::info!(used = self.memory.used(), "there is memory again");
        }
    }

    /// Closes those who hold the most, until tasks are taken again.
    fn close_largest(&self, closed: &mut HashSet<ConnId>) {
        let links: Vec<(ConnId, Arc<Connection>)> =
            lock(&self.conns).iter().map(|(id, link)| (*id, Arc::clone(&link.connection))).collect();
        closed.retain(|conn| links.iter().any(|(id, _)| id == conn));
        let going: usize = links.iter().filter(|(id, _)| closed.contains(id)).map(|(_, c)| c.holds()).sum();
        let mut wanted = self.memory.excess(Level::Tasks).saturating_sub(going);
        let mut all: Vec<_> =
            links.into_iter().filter(|(id, _)| !closed.contains(id)).map(|(id, c)| (c.holds(), id, c)).collect();
        all.sort_by_key(|(holds, id, _)| (std::cmp::Reverse(*holds), *id));
        for (holds, id, connection) in all {
            // Who holds nothing can give nothing back.
            if wanted == 0 || holds == 0 {
                break;
            }
            connection
                .shed(CloseReason::TooSlow, "this node is short of memory, and this connection holds the most of it");
            closed.insert(id);
            self.memory.count(Level::Peers, 1);
            wanted = wanted.saturating_sub(holds);
        }
    }

    /// What is shown of it.
    pub(super) fn memory_info(&self) -> MemoryInfo {
        let memory = &self.memory;
        let used = |kind| memory.used_for(kind) as u64;
        MemoryInfo {
            budget: memory.budget() as u64,
            used: memory.used() as u64,
            connections: used(Kind::Connections),
            outboxes: used(Kind::Outboxes),
            input: used(Kind::Input),
            tasks: used(Kind::Tasks),
            answers: used(Kind::Answers),
            chunks: used(Kind::Chunks),
            records: used(Kind::Records),
            shedding: Level::STEPS.into_iter().filter(|l| *l <= memory.level()).map(Level::as_str).collect(),
            shed: Level::STEPS.into_iter().map(|level| (level.as_str(), memory.shed(level))).collect(),
        }
    }
}
