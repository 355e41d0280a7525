//! What simulated handlers do: they work for a while, send chunks, and answer or fail as the payload says.

use bytes::Bytes;
use rand::Rng;

use super::world::{Ev, N, World, ms};
use crate::error::ErrorCode;
use crate::mesh::{ChunkRefused, TaskKey, TaskToRun};
use crate::wire::{WireError, canonicalize_value};

/// What a task asks its handler to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Tells calls apart: it comes back in the answer.
    pub n: u64,
    /// How long to work in all.
    pub ms: u64,
    /// How many chunks to send.
    pub chunks: u64,
    /// How large each is, beyond a few bytes.
    pub size: usize,
    /// With which error to end.
    pub error: Option<ErrorCode>,
}

impl Plan {
    pub fn to_json(&self) -> Bytes {
        let error = self.error.map(ErrorCode::as_str);
        let value = serde_json::json!({
            "n": self.n, "ms": self.ms, "chunks": self.chunks, "size": self.size, "error": error,
        });
        canonicalize_value(&value).unwrap().into()
    }

    fn read(text: &[u8]) -> Self {
        let value: serde_json::Value = serde_json::from_slice(text).unwrap();
        let n = |k: &str| value[k].as_u64().unwrap_or_default();
        Self {
            n: n("n"),
            ms: n("ms"),
            chunks: n("chunks"),
            size: n("size") as usize,
            error: value["error"].as_str().and_then(ErrorCode::from_wire),
        }
    }
}

/// A handler at work.
#[derive(Debug)]
pub struct Job {
    plan: Plan,
    sent: u64,
    /// It waits for room for its next chunk.
    blocked: bool,
    pub stopped: bool,
}

/// What a node's handler answers to a plan: nobody else would answer the same.
pub fn answer_of(node: crate::identity::NodeId, n: u64) -> Bytes {
    canonicalize_value(&serde_json::json!({ "by": node.to_string(), "n": n })).unwrap().into()
}

impl World {
    pub fn start_job(&mut self, n: N, key: TaskKey, task: &TaskToRun) {
        assert!(self.nodes[n].up);
        let instance = (n, self.nodes[n].run);
        self.ledger.ran(&key, instance, self.seed);
        let job = Job { plan: Plan::read(&task.payload), sent: 0, blocked: false, stopped: false };
        let step = job.step();
        assert!(self.nodes[n].jobs.insert(key.clone(), job).is_none());
        self.after(ms(step), Ev::Work { n, run: instance.1, key });
    }

    pub fn credit(&mut self, n: N, key: &TaskKey) {
        let Some(job) = self.nodes[n].jobs.get_mut(key) else { return };
        if std::mem::take(&mut job.blocked) {
            let run = self.nodes[n].run;
            self.after(ms(0), Ev::Work { n, run, key: key.clone() });
        }
    }

    pub fn stop_job(&mut self, n: N, key: &TaskKey) {
        let Some(job) = self.nodes[n].jobs.get_mut(key) else { return };
        job.stopped = true;
        self.ledger.stopped += 1;
        // It takes a moment to notice.
        let run = self.nodes[n].run;
        let wait = ms(self.rng.next_u64() % 50);
        self.after(wait, Ev::Work { n, run, key: key.clone() });
    }

    pub fn work(&mut self, n: N, key: TaskKey) {
        let Some(job) = self.nodes[n].jobs.get_mut(&key) else { return };
        if job.stopped {
            self.nodes[n].jobs.remove(&key);
            let error = WireError::new(ErrorCode::Cancelled, "the handler was stopped");
            return self.with(n, |s, now, out| s.finish_task(&key, Err(error), now, out));
        }
        if job.sent < job.plan.chunks {
            let number = job.sent.to_string();
            let text = format!("\"{}{number}\"", "0".repeat(job.plan.size));
            let step = job.step();
            let taken = self.with(n, |s, now, out| s.chunk(&key, text.into(), now, out));
            let Some(job) = self.nodes[n].jobs.get_mut(&key) else { return };
            match taken {
                Ok(()) => {
                    job.sent += 1;
                    let run = self.nodes[n].run;
                    self.after(ms(step), Ev::Work { n, run, key });
                }
                Err(ChunkRefused::Full) => {
                    job.blocked = true;
                    self.ledger.blocked += 1;
                }
                // A stop is on its way.
                Err(ChunkRefused::Over) => {}
            }
            return;
        }
        let plan = job.plan.clone();
        self.nodes[n].jobs.remove(&key);
        let body = match plan.error {
            // As `TaskError::overloaded` does: the handler says that it did nothing.
            Some(ErrorCode::Overloaded) => Err(WireError::new(ErrorCode::Overloaded, "as asked for").not_run()),
            Some(code) => Err(WireError::new(code, "as asked for")),
            None => Ok(answer_of(self.nodes[n].id, plan.n)),
        };
        if plan.error == Some(ErrorCode::Overloaded) {
            self.ledger.did_not_run(&key);
        }
        self.with(n, |s, now, out| s.finish_task(&key, body, now, out));
    }
}

impl Job {
    fn step(&self) -> u64 {
        self.plan.ms / (self.plan.chunks + 1)
    }
}
