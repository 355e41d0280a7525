//! `elo call` and `elo find`: payloads, routes, exit codes.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Home, PATIENCE, Reaped, eventually, run_with_input};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

#[test]
fn payloads_come_back_as_they_went() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "echo"]);
    let call = |payload: &str| caller.run(["call", "echo", payload, "--peer", &node.addr()]).ok();
    assert_eq!(call("hello you"), "hello you\n");
    assert_eq!(call("\"quoted\""), "quoted\n");
    assert_eq!(call("[1,2]"), "[1,2]\n");
    assert_eq!(call("-5"), "-5\n");
    assert_eq!(call("{\"b\":1,\"a\":\"ü\"}").trim(), "{\"a\":\"ü\",\"b\":1}");
    let stdin = run_with_input(caller.command(["call", "echo", "-", "--peer", &node.addr()]), "{\"x\":\n1}\n");
    assert_eq!(stdin.ok().trim(), "{\"x\":1}");
    let text = run_with_input(caller.command(["call", "echo", "-", "--peer", &node.addr()]), "two\nlines\n");
    assert_eq!(text.ok(), "two\nlines\n");
    assert_eq!(caller.run(["call", "echo", "--peer", &node.addr()]).ok(), "null\n");
    assert!(!caller.path().exists(), "a call made the home folder");
}

#[test]
fn the_outcome_as_json_and_the_trace() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "echo", "--name", "box"]);
    let ran = caller.run(["call", "echo", "[7]", "--peer", &node.addr(), "--json", "--trace"]);
    assert!(ran.stderr.contains("direct") && ran.stderr.contains("signature verified"), "{}", ran.stderr);
    let outcome = ran.json();
    assert_eq!(outcome["payload"], json!([7]));
    assert_eq!(outcome["responder"], node.id());
    assert_eq!((&outcome["responder_name"], &outcome["route"]), (&json!("box"), &json!("direct")));
    assert_eq!(outcome["verified"], true);
}

#[test]
fn two_nodes_and_a_third_call() {
    let (first, second, third) = (Home::new(), Home::new(), Home::new());
    let one = first.serve(&["--agent", "echo", "--name", "one"]);
    let two = second.serve(&["--tool", "grep", "--name", "two", "--peer", &one.addr()]);
    two.event("peer_connected");
    // Through a short-lived node, and through the running ones.
    assert_eq!(third.run(["call", "echo", "hi", "--peer", &one.addr()]).ok(), "hi\n");
    assert_eq!(second.run(["call", "echo", "hi"]).ok(), "hi\n");
    assert_eq!(first.run(["call", "grep", "hi", "--to", "two"]).ok(), "hi\n");
    assert_eq!(first.run(["call", "grep", "hi", "--to", &two.id()[..8]]).ok(), "hi\n");
    assert_eq!(first.run(["call", "ping", "--to", &two.id(), "--json"]).json()["responder"], two.id());
    // Its own capability, from the same home.
    assert_eq!(first.run(["call", "echo", "me", "--json"]).json()["responder"], one.id());
    // Named, a node answers its own ping as well.
    assert_eq!(first.run(["call", "ping", "--to", "one", "--json"]).json()["responder"], one.id());
    // A node runs here, and a peer is named: a key of its own, so that the running node stays where it is.
    let ran = second.run(["call", "echo", "hi", "--peer", &one.addr(), "-v"]);
    assert!(ran.stderr.contains("a key of its own"), "{}", ran.stderr);
    assert_eq!(ran.ok(), "hi\n");
    assert_eq!(second.run(["peers", "--json"]).json_lines().len(), 1);
    // A peer pinned to its id, and to a wrong one.
    assert_eq!(third.run(["call", "echo", "x", "--peer", &format!("{}@{}", one.id(), one.addr())]).ok(), "x\n");
    third.run(["call", "echo", "x", "--peer", &format!("{}@{}", two.id(), one.addr())]).failed(3, "NO_PEER");
}

#[test]
fn find_tells_who_provides_it() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "echo", "--model", "llama", "--name", "box"]);
    let found = caller.run(["find", "llama", "--peer", &node.addr(), "--json"]).json_lines();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["node_id"], node.id());
    let table = caller.run(["find", "--peer", &node.addr()]).ok();
    assert!(table.contains("NAME") && table.contains("box") && table.contains("model:llama"), "{table}");
    caller.run(["find", "nothing", "--peer", &node.addr(), "--timeout", "300ms"]).failed(1, "nobody provides");
    home.run(["find", "echo"]).ok();
}

#[test]
fn chunks_are_printed_as_they_come() {
    let (home, caller) = (Home::new(), Home::new());
    let command = "echo one; echo '{\"n\": 2}'; read -r never < \"$ELO_TEST_FIFO\"; echo three";
    let fifo = home.write("x", "").with_file_name("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut serve = home.command([
        "serve",
        "--json",
        "--bind",
        "127.0.0.1",
        "--port",
        "0",
        "--agent",
        "talk",
        "--exec",
        command,
        "--exec-shell",
        "--exec-stream",
    ]);
    serve.env("ELO_TEST_FIFO", &fifo);
    let node = common::Serve::start(serve);
    let mut call = caller.command(["call", "talk", "--stream", "--peer", &node.addr()]);
    let mut call = Reaped(call.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(call.0.stdout.take().unwrap()).lines();
    // These are here before the program has ended: it waits for the line written below.
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap(), json!({"n": 2}));
    std::fs::write(&fifo, "go\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "three");
    assert_eq!(serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap(), json!({"lines": 3}));
    assert!(lines.next().is_none());
    assert_eq!(call.wait(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn exit_codes_tell_what_became_of_the_task() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "fail", "--exec", "sh -c 'echo oh no >&2; exit 3'"]);
    let addr = node.addr();
    caller.run(["call", "fail", "--peer", &addr]).failed(1, "HANDLER_ERROR");
    caller.run(["call", "fail", "--peer", &addr]).failed(1, "oh no");
    caller.run(["call", "fail", "--peer", &addr, "--timeout", "no"]).failed(2, "--timeout");
    caller.run(["call", "nobody-has-this", "--peer", &addr, "--timeout", "5s"]).failed(3, "NO_PEER");
    let ran = caller.run(["call", "nobody-has-this", "--peer", &addr, "--json", "--trace"]);
    let error: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((ran.code, &error["error"]["delivery"]), (3, &json!("not_sent")));
    assert!(error["error"]["tried"].as_array().is_some_and(|t| !t.is_empty()), "{error}");
    home.run(["stop"]).ok();
    caller.run(["call", "fail", "--peer", &addr]).failed(3, &addr);

    let slow = home.serve(&["--agent", "slow", "--exec", "sleep 60"]);
    caller.run(["call", "slow", "--peer", &slow.addr(), "--timeout", "1s"]).failed(4, "TIMEOUT");
}

#[test]
fn ctrl_c_cancels_the_task_there() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "slow", "--exec", "sleep 60"]);
    let running = Home::new();
    let through = running.serve(&["--peer", &node.addr()]);
    through.event("peer_connected");
    for (home, args) in [(&caller, vec!["call", "slow", "--peer"]), (&running, vec!["call", "slow"])] {
        let addr = node.addr();
        let args = if args.len() == 3 { [&args[..], &[addr.as_str()]].concat() } else { args };
        let mut command = home.command(args);
        let mut call = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let id = node.event("task_received")["id"].clone();
        let pid = Pid::from_raw(i32::try_from(call.0.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        assert_eq!(call.wait(PATIENCE).unwrap().code(), Some(130));
        let finished = node.event("task_finished");
        assert_eq!((&finished["id"], &finished["success"]), (&id, &json!(false)));
    }
}

#[test]
fn a_caller_that_is_killed_cancels_as_well() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "slow", "--exec", "sleep 60"]);
    let through = caller.serve(&["--peer", &node.addr()]);
    through.event("peer_connected");
    let mut command = caller.command(["call", "slow"]);
    let call = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    node.event("task_received");
    drop(call);
    assert_eq!(node.event("task_finished")["success"], false);
}

#[test]
fn a_peer_that_is_not_there_is_told_at_once() {
    let caller = Home::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let start = std::time::Instant::now();
    caller.run(["call", "x", "--peer", &free]).failed(3, &free);
    assert!(start.elapsed() < PATIENCE / 3, "it waited for a peer that refuses");
}

#[test]
fn settings_name_the_peers_when_nothing_runs() {
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "echo"]);
    caller.write("elo.toml", format!("peer = ['{}']\ntimeout = '20s'\n", node.addr()));
    assert_eq!(caller.run(["call", "echo", "hi"]).ok(), "hi\n");
    let other = Home::new();
    let mut command = other.command(["call", "echo", "hi"]);
    command.env("ELO_PEER", node.addr());
    assert_eq!(common::run(command).ok(), "hi\n");
    eventually("the short-lived nodes are gone", || home.run(["peers", "--json"]).json_lines().is_empty());
}
