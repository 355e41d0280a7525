//! What a node survives: handlers and programs that panic, block or never end; a disk that is full or may be read only;
//! a process that is suspended; descriptors that are used up; a peer that restarts in the middle of an answer; and its own
//! end. Each test says what must go on meanwhile, and what is as before afterwards.
//!
//! Clocks that are set are told in the simulator (`mesh/sim/stories/clocks.rs`), where they can be; everything at once
//! in network namespaces (`tests/netns/faults.rs`).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod descriptors;
mod disk;
mod end;
mod handlers;
#[path = "../mesh/mod.rs"]
mod mesh;
mod programs;
#[path = "../spaces/mod.rs"]
mod spaces;
mod suspended;

use std::time::Duration;

/// How long anything may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition for as long as a busy machine takes.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, looking).await.is_ok(), "waited in vain: {what}");
}

/// A call that must succeed, tried again while its provider is being reached.
async fn answered(node: &elo::Node, to: &str, payload: serde_json::Value) {
    let trying = async {
        loop {
            let call = node.call("echo", payload.clone()).to(to).timeout(Duration::from_secs(10));
            match call.await {
                Ok(outcome) => return assert_eq!(outcome.payload, payload),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.unwrap_or_else(|_| panic!("{to} does not answer"));
}
