//! A node's life as a process: ready, running, stopped.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use common::{Home, PATIENCE, Serve, eventually, mode};
use rustix::process::Signal;

#[test]
fn the_first_line_says_where_it_is() {
    let home = Home::new();
    let node = home.serve(&["--name", "box"]);
    assert_eq!(node.ready["event"], "ready");
    assert_eq!(node.ready["name"], "box");
    assert_eq!(node.ready["node_id"], home.run(["id", "--json"]).json()["node_id"]);
    assert!(node.addr().starts_with("127.0.0.1:"));
    assert_eq!(node.ready["control"], home.file("node.sock").to_str().unwrap());
    assert_eq!(mode(home.file("node.sock")), 0o600);
    assert_eq!(mode(home.file("identity.seed")), 0o600);
}

#[test]
fn without_json_people_can_read_it() {
    let home = Home::new();
    let node = Serve::start(home.command(["serve", "--bind", "127.0.0.1", "--port", "0", "--name", "box"]));
    assert!(node.ready.as_str().unwrap().contains("made a new identity"), "{}", node.ready);
    let line = node.line();
    assert!(line.contains("ready: box listening on 127.0.0.1:"), "{line}");
    assert!(!line.contains('\u{1b}'), "colours without a terminal: {line:?}");
}

#[test]
fn a_node_that_does_not_listen() {
    let home = Home::new();
    let node = Serve::start(home.command(["serve", "--json", "--no-listen"]));
    assert_eq!(node.ready["listen"], serde_json::json!([]));
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let name = |flags: &[&str], env: Option<&str>, file: Option<&str>| {
        let home = Home::new();
        if let Some(file) = file {
            home.write("elo.toml", file);
        }
        let mut command = home.command(["serve", "--json", "--no-listen"].iter().chain(flags));
        if let Some(env) = env {
            command.env("ELO_NAME", env);
        }
        Serve::start(command).ready["name"].as_str().unwrap().to_owned()
    };
    let file = Some("name = 'file'");
    assert_eq!(name(&["--name", "flag"], Some("env"), file), "flag");
    assert_eq!(name(&[], Some("env"), file), "env");
    assert_eq!(name(&[], None, file), "file");
    assert_eq!(name(&[], None, None).len(), 12);
}

#[test]
fn stop_frees_the_home_and_the_port() {
    let home = Home::new();
    let node = home.serve(&[]);
    let addr = node.addr();
    home.run(["stop"]).ok();
    // Right away, without waiting for the process.
    let port = addr.rsplit(':').next().unwrap();
    let again = Serve::start(home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", port]));
    assert_eq!(again.addr(), addr);
    assert_eq!(again.ready["node_id"], node.ready["node_id"]);
    assert_eq!(node.ended().0, 0);
    home.run(["stop", "--json"]).ok();
    assert_eq!(again.ended().0, 0);
    assert!(!home.file("node.sock").exists());
    home.run(["stop"]).failed(1, "no node is running");
}

#[test]
fn signals_stop_it_gracefully() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let home = Home::new();
        let node = home.serve(&[]);
        node.signal(signal);
        let (code, stderr) = node.ended();
        assert_eq!(code, 0, "{signal:?}: {stderr}");
        assert!(!home.file("node.sock").exists());
    }
}

#[test]
fn a_second_signal_stops_it_at_once() {
    let home = Home::new();
    let node = home.serve(&["--agent", "slow", "--exec", "sleep 60"]);
    let caller = Home::new();
    let mut call = caller.command(["call", "slow", "--peer", &node.addr()]);
    let _call = common::Reaped(call.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    node.event("task_received");
    node.signal(Signal::TERM);
    eventually("the node stops listening", || std::net::TcpStream::connect(node.addr()).is_err());
    node.signal(Signal::TERM);
    // 130 by the second signal, 0 if the node was quicker than it.
    let (code, _) = node.ended();
    assert!([0, 130].contains(&code), "{code}");
}

#[test]
fn a_home_has_one_node() {
    let home = Home::new();
    let mut node = home.serve(&[]);
    let second = home.run(["serve", "--port", "0"]);
    second.failed(1, "already running in this home");
    second.failed(1, &format!("pid {}", node.child.0.id()));
    assert!(node.is_running());
    home.run(["status"]).ok();
    home.run(["init", "--force"]).failed(1, "elo stop");
}

#[test]
fn what_a_killed_node_left_is_replaced() {
    let home = Home::new();
    let node = home.serve(&[]);
    node.signal(Signal::KILL);
    node.ended();
    assert!(home.file("node.sock").exists());
    home.run(["peers"]).failed(1, "no node is running");
    let _node = home.serve(&[]);
    home.run(["peers"]).ok();
}

#[test]
fn the_end_of_stdin_does_not_stop_it() {
    let home = Home::new();
    let mut command = home.command(["serve", "--json", "--no-listen"]);
    command.stdin(Stdio::piped());
    let mut node = Serve::start(command);
    drop(node.stdin.take());
    home.run(["status"]).ok();
    assert!(node.is_running());
}

#[test]
fn a_closed_stdout_does_not_stop_it() {
    let home = Home::new();
    let mut command = home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "echo"]);
    let mut child = common::Reaped(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let caller = Home::new();
    for _ in 0..3 {
        let answer = caller.run(["call", "echo", "hi", "--peer", ready["listen"][0].as_str().unwrap()]).ok();
        assert_eq!(answer, "hi\n");
    }
    home.run(["stop"]).ok();
    assert_eq!(child.wait(PATIENCE).unwrap().code(), Some(0));
}

#[test]
fn a_stdout_that_nobody_reads_does_not_stop_it() {
    let home = Home::new();
    let mut command = home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "echo"]);
    let mut child = common::Reaped(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    // Held, and not read beyond what a buffer takes with the first line.
    let mut stdout = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let request = "{\"v\":1,\"op\":\"call\",\"args\":{\"capability\":\"echo\",\"payload\":1,\"timeout_ms\":9000,\"local\":true}}\n";
    for _ in 0..1000 {
        let mut socket = UnixStream::connect(home.file("node.sock")).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"type\":\"done\""), "{answer}");
    }
    home.run(["stop"]).ok();
    assert_eq!(child.wait(PATIENCE).unwrap().code(), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.len() > 60_000, "its pipe was never full: {} bytes", rest.len());
}

#[test]
fn a_port_in_use_is_told_and_leaves_the_home_free() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    home.run(["serve", "--bind", "127.0.0.1", "--port", &port]).failed(1, "another port");
    assert!(!home.file("node.sock").exists());
    home.serve(&[]);
}

#[test]
fn a_private_tracker_keeps_strangers_out() {
    let (tracker, friend, stranger) = (Home::new(), Home::new(), Home::new());
    for home in [&friend, &stranger] {
        home.run(["init"]).ok();
    }
    let allowed = friend.run(["id"]).ok().trim().to_owned();
    let node = tracker.serve(&["--tracker", "--private", "--allow", &allowed, "--agent", "echo"]);
    assert_eq!(friend.run(["call", "echo", "1", "--peer", &node.addr()]).ok(), "1\n");
    let ran = stranger.run(["call", "echo", "1", "--peer", &node.addr()]);
    ran.failed(3, "NOT_ALLOWED");
    assert!(!ran.stderr.contains("check the address"), "{}", ran.stderr);
}
