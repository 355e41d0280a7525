//! `elo wake`, and `elo call --wait`: agents that are there, away, and late.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
#[cfg(feature = "mcp")]
#[path = "mcp/mod.rs"]
mod mcp_client;

use std::process::Stdio;

use common::{Home, PATIENCE, Reaped, eventually};

#[test]
fn a_wake_tells_each_step() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "echo", "--name", "box"]);
    let peer = node.addr();
    let told = caller.run(["wake", "box", "echo", "--peer", &peer]).ok();
    for part in ["STEP", "found and sent", "first sign", "agent asked", "total", "box", "in the node itself, there"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let woken = caller.run(["wake", "box", "echo", "--peer", &peer, "--json"]).json();
    assert_eq!((&woken["responder"], &woken["agent"]["reach"]["by"]), (&node.id().into(), &"process".into()));
    assert_eq!(woken["agent"]["reach"]["ok"], true);
    for step in ["sent_ms", "first_sign_ms", "total_ms"] {
        assert!(woken["timings"][step].is_number(), "{woken}");
    }
    assert!(woken["agent"]["agent_ms"].is_number(), "{woken}");
    // From the same home.
    assert!(home.run(["wake", "box", "echo"]).ok().contains("there"));
    caller.run(["wake", "box", "other", "--peer", &peer]).failed(1, "UNKNOWN_CAPABILITY");
    caller.run(["wake", "nobody", "echo", "--peer", &peer, "--timeout", "2s"]).failed(3, "NO_PEER");
    caller.run(["wake", "box", "echo"]).failed(3, "no node is running");
    caller.run(["wake", "box"]).failed(2, "CAPABILITY");
}

#[test]
fn a_program_is_looked_for() {
    let (home, caller) = (Home::new(), Home::new());
    let program = home.write("run.sh", "#!/bin/sh\ncat\n");
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let node = home.serve(&["--agent", "run", "--exec", program.to_str().unwrap(), "--name", "box"]);
    let told = caller.run(["wake", "box", "run", "--peer", &node.addr()]).ok();
    assert!(told.contains("a program, there"), "{told}");
    std::fs::remove_file(&program).unwrap();
    // What was found stands for a second.
    let mut last = None;
    eventually("it is missed", || {
        let ran = caller.run(["wake", "box", "run", "--peer", &node.addr()]);
        let missed = ran.code == 3;
        last = Some(ran);
        missed
    });
    let ran = last.unwrap();
    assert!(ran.stdout.contains("a program, away"), "{ran:?}");
    ran.failed(3, "away");
}

#[test]
fn an_agent_that_is_away_is_told_of_and_can_be_waited_for() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "night", "--poll", "--name", "box"]);
    let peer = node.addr();
    let ran = caller.run(["wake", "box", "night", "--peer", &peer]);
    assert!(ran.stdout.contains("nobody, away"), "{ran:?}");
    ran.failed(3, "elo call --wait");
    let ran = caller.run(["wake", "box", "night", "--peer", &peer, "--json"]);
    assert!(ran.stderr.contains("\"code\":\"AGENT_AWAY\"") && ran.stdout.contains("\"by\":\"nobody\""), "{ran:?}");
    caller.run(["call", "night", "--peer", &peer]).failed(3, "AGENT_AWAY");
    // It is waited for, and does not come.
    caller.run(["call", "night", "--wait", "1s", "--peer", &peer]).failed(3, "AGENT_AWAY");
    caller
        .run(["call", "night", "--wait", "10s", "--timeout", "10s", "--peer", &peer])
        .failed(2, "no time for the work");
}

/// An agent that comes: through `elo mcp`.
#[cfg(feature = "mcp")]
mod with_an_agent {
    use serde_json::json;

    use super::*;

    use crate::mcp_client::Mcp;

    #[test]
    fn an_agent_that_comes_late_still_answers() {
        let (home, caller) = (Home::new(), Home::new());
        let node = home.serve(&["--agent", "night", "--poll", "--name", "box"]);
        let mut call = caller.command(["call", "night", "--wait", "10m", "hello", "--peer", &node.addr()]);
        let mut call = Reaped(call.stdout(Stdio::piped()).spawn().unwrap());
        let mut agent = Mcp::start(&home, &[]);
        let task = agent.call("next_task", json!({ "wait_s": 20 }))["task"].clone();
        assert_eq!(task["payload"], "hello");
        agent.call("reply", json!({ "task_id": task["task_id"], "result": "here I am" }));
        assert_eq!(call.wait(PATIENCE).unwrap().code(), Some(0));
        let mut said = String::new();
        std::io::Read::read_to_string(&mut call.0.stdout.take().unwrap(), &mut said).unwrap();
        assert_eq!(said, "here I am\n");
        // Now it is there, for half a minute after its last word.
        let told = caller.run(["wake", "box", "night", "--peer", &node.addr()]).ok();
        assert!(told.contains("comes for its tasks, there"), "{told}");
    }
}
