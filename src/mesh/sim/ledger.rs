//! What must hold whatever happens.

use std::collections::HashMap;

use super::world::{N, World, secs};
use crate::error::Delivery;
use crate::mesh::TaskKey;
use crate::mesh::state::Timer;

/// What happened, over all runs of all nodes.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Which run of which node ran a task.
    ran: HashMap<TaskKey, (N, u32)>,
    pub stopped: u64,
    /// How often a handler waited for room for a chunk.
    pub blocked: u64,
    pub calls: u64,
    pub succeeded: u64,
    pub failed: std::collections::BTreeMap<String, u64>,
}

impl Ledger {
    /// A handler was started.
    pub fn ran(&mut self, key: &TaskKey, by: (N, u32), seed: u64) {
        let before = self.ran.insert(key.clone(), by);
        assert!(before.is_none(), "seed {seed}: {key:?} ran twice, by (node, run) {before:?} and {by:?}");
    }

    /// A handler said that it did nothing: somebody else may.
    pub fn did_not_run(&mut self, key: &TaskKey) {
        self.ran.remove(key);
    }

    pub fn runs(&self) -> usize {
        self.ran.len()
    }

    pub fn ran_by(&self, key: &TaskKey) -> Option<(N, u32)> {
        self.ran.get(key).copied()
    }
}

impl World {
    /// Checks everybody's calls: ended, in time, and with what the responder computed.
    pub fn check_calls(&mut self) {
        let seed = self.seed;
        let slack = secs(1);
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            for (id, call) in &node.calls {
                let Some(ended) = &call.ended else {
                    assert!(self.now < call.deadline + slack, "seed {seed}: node {n}'s call {id} did not end");
                    continue;
                };
                assert!(ended.at <= call.deadline + slack, "seed {seed}: node {n}'s call {id} ended late: {ended:?}");
                let key = (node.id, id.clone());
                match &ended.result {
                    Ok(done) => {
                        let ran = self.ledger.ran_by(&key).map(|(m, _)| self.nodes[m].id);
                        assert_eq!(ran, Some(done.responder), "seed {seed}: {id} was answered by another than ran it");
                        assert_eq!(done.payload, super::work::answer_of(done.responder, call.n), "seed {seed}");
                        let in_order: Vec<u64> = (0..done.chunks).collect();
                        assert_eq!(call.chunks, in_order, "seed {seed}: {id}'s chunks");
                    }
                    Err(error) => {
                        let ran = self.ledger.ran_by(&key);
                        let unsent = error.delivery == Delivery::NotSent;
                        assert!(!(unsent && ran.is_some()), "seed {seed}: {id} ran at {ran:?}, its caller: {error:?}");
                    }
                }
            }
        }
    }

    /// Counts the calls that ended, and forgets them.
    pub fn settle_calls(&mut self) {
        self.check_calls();
        for node in &mut self.nodes {
            node.calls.retain(|_, call| {
                let Some(ended) = &call.ended else { return true };
                self.ledger.calls += 1;
                match &ended.result {
                    Ok(_) => self.ledger.succeeded += 1,
                    Err(e) => *self.ledger.failed.entry(format!("{} {:?}", e.code, e.delivery)).or_default() += 1,
                }
                false
            });
        }
    }

    /// Checks that every table is within its bounds.
    pub fn check_bounds(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            let (s, l, seed) = (&node.state, &node.spec.limits, self.seed);
            assert!(s.table.len() <= l.max_records, "seed {seed}: node {n} knows too many");
            assert!(s.queries.len() <= l.max_seen + l.max_calls, "seed {seed}: node {n}'s queries");
            assert!(s.seen_events.len() <= l.max_seen, "seed {seed}: node {n}'s events");
            assert!(s.tasks.len() <= l.max_remembered_tasks, "seed {seed}: node {n}'s tasks");
            assert!(s.calls.len() <= l.max_calls, "seed {seed}: node {n}'s calls");
            assert!(s.punches.len() <= crate::limits::MAX_PUNCHES, "seed {seed}: node {n}'s punches");
            assert!(s.relays.len() <= 16 * 1024, "seed {seed}: node {n}'s relays");
            let out: usize = s.in_flight.values().sum();
            assert!(out <= s.calls.len(), "seed {seed}: node {n} has {out} in flight in {} calls", s.calls.len());
            let conns = s.peers.iter().count();
            assert!(s.known_trackers.len() <= 32, "seed {seed}: node {n}'s trackers");
            let timers = 4 + s.calls.len() + 2 * s.tasks.len() + s.queries.len() + s.forwards.len() + 3 * conns;
            assert!(s.timers.len() <= timers, "seed {seed}: node {n} has {} alarms", s.timers.len());
        }
    }

    /// Checks that nothing is left of what is over.
    pub fn check_empty(&self) {
        for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            let (s, seed) = (&node.state, self.seed);
            let left = (s.calls.len(), s.tasks.len(), s.relays.len(), s.queries.len(), s.seen_events.len());
            assert_eq!(left, (0, 0, 0, 0, 0), "seed {seed}: node {n}: calls, tasks, relays, queries, events");
            assert!(s.in_flight.is_empty(), "seed {seed}: node {n}: {:?}", s.in_flight);
            assert!(s.dialing.is_empty(), "seed {seed}: node {n}: {:?}", s.dialing);
            assert_eq!((s.forwards.len(), s.shares.waiting()), (0, 0), "seed {seed}: node {n}");
            // It may go on looking for another tracker, and waits to ask one whether it can be dialled.
            let register = usize::from(s.timers.at(&Timer::Register).is_some());
            let alarms = 2 + register + usize::from(s.reach.waits());
            assert_eq!(
                s.timers.len(),
                alarms,
                "seed {seed}: node {n}: its record, its sweep, trackers: {:?}",
                s.timers
            );
            assert!(node.jobs.is_empty(), "seed {seed}: node {n}: {:?}", node.jobs);
        }
    }
}
