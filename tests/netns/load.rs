//! A steady load of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::nodes::Door;

/// A call that has ended.
pub struct Done {
    pub began: Instant,
    pub ended: Instant,
    /// The outcome, or the error as the node tells it.
    pub result: Result<Value, Value>,
}

impl Done {
    pub fn took(&self) -> Duration {
        self.ended - self.began
    }

    /// The code of its error, if it failed.
    pub fn code(&self) -> Option<&str> {
        self.result.as_ref().err().map(|error| error["code"].as_str().unwrap_or("?"))
    }
}

/// Calls that begin one after the other at a steady pace, whatever becomes of those before.
pub struct Load {
    stop: Arc<AtomicBool>,
    pacer: JoinHandle<Vec<JoinHandle<Done>>>,
}

impl Load {
    /// Starts calling through these nodes in turn.
    pub fn start(doors: Vec<Door>, per_second: u32, capability: &str, payload: &Value, ttl: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, capability, payload) = (stop.clone(), capability.to_owned(), payload.clone());
        let pacer = spawn(move || {
            let start = Instant::now();
            let mut calls = Vec::new();
            for (n, door) in (1u32..).zip(doors.iter().cycle()) {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let (door, capability, payload) = (door.clone(), capability.clone(), payload.clone());
                calls.push(spawn(move || {
                    let began = Instant::now();
                    let result = door.call(&capability, &payload, ttl);
                    Done { began, ended: Instant::now(), result }
                }));
                sleep((Duration::from_secs(1) * n / per_second).saturating_sub(start.elapsed()));
            }
            calls
        });
        Self { stop, pacer }
    }

    /// Begins no more calls, and gives all when the last has ended.
    pub fn end(self) -> Vec<Done> {
        self.stop.store(true, Ordering::Relaxed);
        self.pacer.join().unwrap().into_iter().map(|call| call.join().unwrap()).collect()
    }
}
