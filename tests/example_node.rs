//! `examples/node.py`, a node that speaks the wire itself, serves and calls in a mesh of ours.
//!
//! On with `ELO_INTEROP=1`; then an interpreter (`$ELO_PYTHON`, else `python3`) with `cryptography` is required.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use elo::{Route, Task, TaskResult, Tracker};
use mesh::{addr_of, eventually, node};
use serde_json::{Value, json};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/node.py");

/// The interpreter, if these tests are on.
fn python() -> Option<String> {
    let on = std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1");
    if !on {
        println!("not run: set ELO_INTEROP=1 to test examples/node.py, which needs the Python package cryptography");
    }
    on.then(|| std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into()))
}

/// A running example; killed when dropped.
struct Example {
    child: Child,
    node_id: String,
}

impl Example {
    fn serving(python: &str, peer: &str, capability: &str) -> Self {
        let mut command = Command::new(python);
        let mut child = command.args([PROGRAM, peer, capability]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self { child, node_id: ready["node_id"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn it_serves_a_peer_and_through_a_tracker_and_never_runs_a_task_twice() {
    let Some(python) = python() else { return };
    let tracker = node("tracker").tracker(Tracker::Public).start().await.unwrap();
    let far = node("far").peer(addr_of(&tracker)).start().await.unwrap();
    let peer = addr_of(&tracker).to_string();
    let example = tokio::task::spawn_blocking(move || Example::serving(&python, &peer, "words")).await.unwrap();

    eventually("the tracker knows it", || {
        tracker.peers().iter().any(|peer| peer.capabilities.iter().any(|cap| cap.name == "words"))
    })
    .await;
    let direct = tracker.call("words", json!("one two  three")).await.unwrap();
    assert_eq!((direct.payload.value(), direct.route), (&json!({ "words": 3 }), Route::Direct));
    assert_eq!(direct.responder.to_string(), example.node_id);

    let relayed = far.call("words", json!("ä é")).await.unwrap();
    assert_eq!((relayed.payload.value(), relayed.route), (&json!({ "words": 2 }), Route::Relay));
    assert_eq!(relayed.via, Some(tracker.id()));

    // A number that Python writes in another way is sent as Python writes it.
    assert_eq!(far.call_json("words", r#"{"n":1E5}"#).await.unwrap().payload, json!({ "words": 2 }));
    assert_eq!(far.call("words", json!("")).await.unwrap().payload, json!({ "words": 0 }));
}

#[tokio::test]
async fn it_calls_its_peer() {
    let Some(python) = python() else { return };
    let peer = node("peer")
        .agent("echo")
        .default_handler(|task: Task, _| async move { TaskResult::Ok(task.payload.into_value()) })
        .start()
        .await
        .unwrap();
    let run = |capability: &str| {
        let (python, peer, capability) = (python.clone(), addr_of(&peer).to_string(), capability.to_owned());
        let run = move || Command::new(python).args([PROGRAM, &peer, &capability, r#"{"a":1}"#]).output().unwrap();
        tokio::task::spawn_blocking(run)
    };
    let output = run("echo").await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(printed.to_string().contains(r#"{"a":1}"#), "{printed}");
    let nowhere = run("nowhere").await.unwrap();
    let printed: Value = serde_json::from_slice(&nowhere.stdout).unwrap();
    assert_eq!(printed["code"], json!("UNKNOWN_CAPABILITY"));
}
