//! Real programs, run for tasks.

mod command;
mod end;
mod output;
mod queue;

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::node::Payload;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ChunkSink, Exec, ExecTask};

/// A condition that doesn't come true within this fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A sink that hands chunks to the test; full after one.
struct Chunks(mpsc::Sender<Value>);

impl ChunkSink for Chunks {
    async fn send(&mut self, value: Payload) -> Result<(), ()> {
        let value = value.into_value();
        self.0.send(value).await.map_err(|_| ())
    }
}

fn chunks() -> (Chunks, mpsc::Receiver<Value>) {
    let (sender, receiver) = mpsc::channel(1);
    (Chunks(sender), receiver)
}

/// A sink for tests that don't stream.
struct NoChunks;

impl ChunkSink for NoChunks {
    async fn send(&mut self, value: Payload) -> Result<(), ()> {
        panic!("a chunk, though nobody asked for any: {value:?}");
    }
}

fn sh(script: &str) -> Exec {
    Exec::new(script, true).unwrap()
}

fn task(json: impl Into<Bytes>) -> ExecTask {
    ExecTask {
        id: "task-1".into(),
        capability: "test".into(),
        caller: "caller-1".into(),
        json: json.into(),
        deadline: Instant::now() + PATIENCE,
        cancelled: CancellationToken::new(),
    }
}

/// Waits for something that must come soon.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(PATIENCE, what).await;
    in_time.expect("it takes too long")
}

/// Waits until something holds.
async fn until(mut holds: impl FnMut() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

fn pid(value: &Value) -> rustix::process::Pid {
    let raw = value.as_i64().expect("a process id");
    rustix::process::Pid::from_raw(raw.try_into().unwrap()).unwrap()
}

/// Whether a process lives. One that is dead but not collected (by whom we don't control) counts as dead.
fn alive(pid: rustix::process::Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
    let zombie = stat.is_ok_and(|stat| stat.contains(") Z "));
    !zombie && exists(pid)
}

/// Whether the process id is taken, be it by a dead process nobody has collected.
fn exists(pid: rustix::process::Pid) -> bool {
    rustix::process::test_kill_process(pid).is_ok()
}

impl Exec {
    /// Runs it, for its result as a value.
    async fn run_value(&self, task: ExecTask, chunks: impl ChunkSink) -> Result<Value, super::ExecFailure> {
        self.run(task, chunks).await.map(Payload::into_value)
    }
}
