//! Whole meshes of `elo serve` processes: each way a call can go, and what becomes of nodes that come and go.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::process::Stdio;

use common::{Home, PATIENCE, Reaped, Serve, eventually};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::json;

fn no_listen(home: &Home, args: &[&str]) -> Serve {
    let node = Serve::start(home.command(["serve", "--json", "--no-listen"].iter().chain(args)));
    node.event("peer_connected");
    node
}

#[test]
fn two_nodes_that_do_not_listen_meet_at_a_tracker() {
    let (box_, agent, caller) = (Home::new(), Home::new(), Home::new());
    let tracker = box_.serve(&["--tracker", "--name", "box"]);
    let provider = no_listen(&agent, &["--peer", &tracker.addr(), "--agent", "render", "--name", "rendy"]);
    let _asker = no_listen(&caller, &["--peer", &tracker.addr()]);
    let outcome = caller.run(["call", "render", "[7]", "--json"]).json();
    assert_eq!((&outcome["route"], &outcome["via"]), (&json!("relay"), &json!(tracker.id())));
    assert_eq!((&outcome["responder"], &outcome["payload"]), (&json!(provider.id()), &json!([7])));
    assert_eq!(outcome["verified"], true);
    let trace = caller.run(["call", "render", "--to", "rendy", "--via", "box", "--trace"]);
    assert!(trace.stderr.contains("relay via") && trace.stderr.contains("rendy ("), "{}", trace.stderr);
}

#[test]
fn a_relayed_answer_in_parts_and_a_relayed_cancel() {
    let (box_, agent, caller) = (Home::new(), Home::new(), Home::new());
    let tracker = box_.serve(&["--tracker"]);
    let command = "echo one; echo two; sleep 60";
    let provider = no_listen(
        &agent,
        &["--peer", &tracker.addr(), "--agent", "talk", "--exec", command, "--exec-shell", "--exec-stream"],
    );
    let _asker = no_listen(&caller, &["--peer", &tracker.addr()]);
    let mut call = caller.command(["call", "talk", "--stream"]);
    let mut call = Reaped(call.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(call.0.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "one");
    assert_eq!(lines.next().unwrap().unwrap(), "two");
    interrupt(&mut call);
    assert_eq!(provider.event("task_finished")["success"], false);
}

#[test]
fn a_provider_three_hops_away_is_found_and_called() {
    let homes: Vec<Home> = (0..4).map(|_| Home::new()).collect();
    let mut nodes = vec![homes[0].serve(&["--agent", "archive", "--name", "far"])];
    for home in &homes[1..] {
        let node = home.serve(&["--peer", &nodes[nodes.len() - 1].addr()]);
        node.event("peer_connected");
        nodes.push(node);
    }
    let outcome = homes[3].run(["call", "archive", "1", "--json"]).json();
    assert_eq!((&outcome["responder"], &outcome["route"]), (&json!(nodes[0].id()), &json!("flood")));
    assert_eq!(outcome["hops"], 3);
    let table = homes[3].run(["peers"]).ok();
    assert!(table.contains("far"), "it was not connected to: {table}");
    let searched = homes[2].run(["find", "archive", "--trace", "--timeout", "1s"]);
    assert!(searched.stdout.contains("far") && searched.stdout.contains("flood, 2 hops"), "{searched:?}");
    for step in ["0 nodes known here", "2 peers are asked", "found, 2 hops away", "not asked", "over"] {
        assert!(searched.stderr.contains(step), "{step:?} is not in {searched:?}");
    }
}

#[test]
fn a_node_that_comes_back_at_another_port_replaces_its_entry() {
    let (box_, agent, caller) = (Home::new(), Home::new(), Home::new());
    let tracker = box_.serve(&["--tracker"]);
    let first = agent.serve(&["--peer", &tracker.addr(), "--agent", "echo"]);
    first.event("peer_connected");
    let _asker = no_listen(&caller, &["--peer", &tracker.addr()]);
    assert_eq!(caller.run(["call", "echo", "1", "--json"]).json()["responder"], first.id());
    first.signal(Signal::KILL);
    let (id, old) = (first.id(), first.addr());
    first.ended();
    let second = agent.serve(&["--peer", &tracker.addr(), "--agent", "echo"]);
    second.event("peer_connected");
    assert_eq!(second.id(), id);
    assert_ne!(second.addr(), old);
    assert_eq!(caller.run(["call", "echo", "2"]).ok(), "2\n");
    let found = caller.run(["find", "echo", "--json"]).json_lines();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["addrs"], json!([second.addr()]));
}

#[test]
fn a_tracker_that_restarts_is_found_again() {
    let (box_, agent, caller) = (Home::new(), Home::new(), Home::new());
    let tracker = box_.serve(&["--tracker"]);
    let addr = tracker.addr();
    let provider = no_listen(&agent, &["--peer", &addr, "--agent", "echo"]);
    let asker = no_listen(&caller, &["--peer", &addr]);
    tracker.signal(Signal::KILL);
    tracker.ended();
    let port = addr.rsplit(':').next().unwrap();
    let _again = Serve::start(box_.command(["serve", "--json", "--tracker", "--bind", "127.0.0.1", "--port", port]));
    provider.event("peer_connected");
    asker.event("peer_connected");
    assert_eq!(caller.run(["call", "echo", "1", "--json"]).json()["route"], "relay");
}

#[test]
fn a_private_tracker_serves_its_own_and_refuses_a_stranger() {
    let (box_, agent, caller, stranger) = (Home::new(), Home::new(), Home::new(), Home::new());
    let mut args = vec!["--tracker".to_owned(), "--private".to_owned()];
    for home in [&agent, &caller] {
        home.run(["init"]).ok();
        args.extend(["--allow".to_owned(), home.run(["id"]).ok().trim().to_owned()]);
    }
    let tracker = box_.serve(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let _provider = no_listen(&agent, &["--peer", &tracker.addr(), "--agent", "secret"]);
    let _asker = no_listen(&caller, &["--peer", &tracker.addr()]);
    assert_eq!(caller.run(["call", "secret", "42", "--json"]).json()["route"], "relay");
    let outside = Serve::start(stranger.command(["serve", "--json", "--no-listen", "--peer", &tracker.addr()]));
    let fault = outside.event("dial_failed")["message"].to_string();
    assert!(fault.contains("NOT_ALLOWED") && fault.contains(&outside.id()), "{fault}");
    assert_eq!(tracker.event("refused")["reason"], "NOT_ALLOWED");
    stranger.run(["call", "secret", "42", "--timeout", "5s"]).failed(3, "NO_PEER");
}

fn interrupt(call: &mut Reaped) {
    kill_process(Pid::from_raw(i32::try_from(call.0.id()).unwrap()).unwrap(), Signal::INT).unwrap();
    assert_eq!(call.wait(PATIENCE).unwrap().code(), Some(130));
}

/// The processes that a program wrote to a file, one id a line.
fn pids(path: &std::path::Path, count: usize) -> Vec<Pid> {
    let mut pids = Vec::new();
    eventually("the program has started its child", || {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        pids = text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
        pids.len() == count && text.ends_with('\n')
    });
    pids
}

/// Whether it runs; one that was killed and that nobody collects in this container doesn't.
fn runs(pid: Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    test_kill_process(pid).is_ok() && !state.contains(") Z ")
}

#[test]
fn a_program_dies_with_its_children() {
    // When the caller gives up, at the deadline, and when the node stops.
    for end in ["interrupt", "deadline", "stop"] {
        let (home, caller) = (Home::new(), Home::new());
        let file = home.write("pids", "");
        let script = home.write("work.sh", "sleep 300 &\necho $$ >> \"$1\"\necho $! >> \"$1\"\nwait\n");
        let command = format!("sh {} {}", script.display(), file.display());
        let node = home.serve(&["--agent", "slow", "--exec", &command]);
        let timeout = if end == "deadline" { "2s" } else { "60s" };
        let mut call = caller.command(["call", "slow", "--timeout", timeout, "--peer", &node.addr()]);
        let mut call = Reaped(call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let pids = pids(&file, 2);
        assert!(pids.iter().all(|pid| runs(*pid)));
        match end {
            "interrupt" => interrupt(&mut call),
            "deadline" => assert_eq!(call.wait(PATIENCE).unwrap().code(), Some(4)),
            _ => node.signal(Signal::TERM),
        }
        eventually(&format!("after {end} the program and its child are gone"), || !pids.iter().any(|pid| runs(*pid)));
    }
}

#[test]
fn a_person_reads_who_connected_by_name() {
    let (home, other) = (Home::new(), Home::new());
    let node = Serve::start(home.command(["serve", "--bind", "127.0.0.1", "--port", "0", "--name", "one"]));
    let mut addr = None;
    while addr.is_none() {
        addr = node.line().split("listening on ").nth(1).map(str::to_owned);
    }
    let two = other.serve(&["--name", "two", "--peer", &addr.unwrap()]);
    let line = loop {
        let line = node.line();
        if line.contains(" connected ") {
            break line;
        }
    };
    assert!(line.contains(&format!("peer two ({})", &two.id()[..12])), "{line}");
}
