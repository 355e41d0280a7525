//! What must hold whatever happens.

use std::collections::HashMap;

use super::world::{N, World, secs};
use crate::error::Delivery;
use crate::mesh::TaskKey;

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
            let broken = node.state.broken_bound();
            assert_eq!(broken, None, "seed {}: node {n}", self.seed);
        }
    }

    /// Checks that nothing is left of what is over.
    pub fn check_empty(&self) {
        for (n, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.up) {
            let seed = self.seed;
            assert_eq!(node.state.left_over(), None, "seed {seed}: node {n}");
            assert!(node.jobs.is_empty(), "seed {seed}: node {n}: {:?}", node.jobs);
        }
    }
}
