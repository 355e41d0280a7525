//! `elo serve --exec`: a program answers.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use common::{Home, Reaped, eventually};
use serde_json::{Value, json};

#[test]
fn a_program_is_given_the_task_and_its_environment() {
    let (home, caller) = (Home::new(), Home::new());
    caller.run(["init"]).ok();
    let script = "printf '{\"in\": %s, \"id\": \"%s\", \"capability\": \"%s\", \"caller\": \"%s\"}' \
                  \"$(cat)\" \"$ELO_TASK_ID\" \"$ELO_CAPABILITY\" \"$ELO_CALLER\"";
    let node = home.serve(&["--tool", "look", "--exec", script, "--exec-shell"]);
    let outcome = caller.run(["call", "look", "12345678901234567890123", "--json", "--peer", &node.addr()]).ok();
    assert!(outcome.contains("12345678901234567890123"), "digits were lost: {outcome}");
    let outcome: Value = serde_json::from_str(&outcome).unwrap();
    let answer = &outcome["payload"];
    let given = &answer["in"];
    assert_eq!((&given["id"], &given["capability"]), (&outcome["id"], &json!("look")));
    assert_eq!((&given["caller"], &given["ttl_s"]), (&answer["caller"], &json!(60)));
    assert_eq!((&answer["capability"], &answer["id"]), (&json!("look"), &outcome["id"]));
    assert_eq!(answer["caller"], caller.run(["id", "--json"]).json()["node_id"]);
}

#[test]
fn its_output_is_json_or_text() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--tool", "cat", "--exec", "cat"]);
    let given = caller.run(["call", "cat", "[1]", "--peer", &node.addr()]).json();
    assert_eq!(given["payload"], json!([1]));
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--tool", "say", "--exec", "echo plain text"]);
    assert_eq!(caller.run(["call", "say", "--peer", &node.addr()]).ok(), "plain text\n");
}

#[test]
fn a_program_that_is_gone_is_an_agent_that_is_away() {
    let (home, caller) = (Home::new(), Home::new());
    let program = home.write("agent", "#!/bin/sh\necho here\n");
    let allow = |mode| std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
    allow(0o755);
    let node = home.serve(&["--tool", "say", "--exec", program.to_str().unwrap()]);
    let call = || caller.run(["call", "say", "--peer", &node.addr()]);
    assert_eq!(call().ok(), "here\n");
    allow(0o644);
    call().failed(3, "AGENT_AWAY");
    allow(0o755);
    assert_eq!(call().ok(), "here\n");
    std::fs::remove_file(&program).unwrap();
    call().failed(3, "AGENT_AWAY");
    call().failed(3, "can't be run any more");
}

#[test]
fn more_tasks_than_may_wait_are_told_to_come_back() {
    let home = Home::new();
    let node = home.serve(&["--agent", "slow", "--exec", "sleep 60", "--max-tasks", "1"]);
    let caller = Home::new();
    let through = caller.serve(&["--peer", &node.addr()]);
    through.event("peer_connected");
    // One runs, 64 wait; one session of the control socket each would be too many, so several nodes call.
    let callers: Vec<Home> = (0..3).map(|_| Home::new()).collect();
    let nodes: Vec<_> = callers.iter().map(|home| home.serve(&["--peer", &node.addr()])).collect();
    nodes.iter().for_each(|node| drop(node.event("peer_connected")));
    let mut calls = Vec::new();
    for i in 0..65 {
        let mut call = callers[i % 3].command(["call", "slow"]);
        calls.push(Reaped(call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()));
    }
    for _ in 0..65 {
        node.event("task_received");
    }
    let ran = caller.run(["call", "slow", "--timeout", "20s"]);
    ran.failed(1, "OVERLOADED");
    ran.failed(1, "try again in");
    drop(calls);
    eventually("they are cancelled", || home.run(["status", "--json"]).json()["node"]["metrics"]["tasks_running"] == 0);
}
