//! What a running node tells: status, peers, events, in both formats.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use common::{Home, PATIENCE, Reaped, Serve, eventually};
use serde_json::{Value, json};

fn pair() -> (Home, Serve, Home, Serve) {
    let (first, second) = (Home::new(), Home::new());
    let one = first.serve(&["--agent", "echo", "--name", "one", "--tracker", "--interest", "news.*"]);
    let two = second.serve(&["--tool", "grep", "--name", "two", "--peer", &one.addr()]);
    two.event("peer_connected");
    one.event("peer_connected");
    (first, one, second, two)
}

#[test]
fn status_in_both_formats() {
    let (first, one, second, _two) = pair();
    second.run(["call", "echo", "hi"]).ok();
    let status = first.run(["status", "--json"]).json();
    assert_eq!(status["running"], true);
    assert_eq!(status["identity"], one.id());
    let node = &status["node"];
    assert_eq!((&node["name"], &node["tracker"]), (&json!("one"), &json!("public")));
    assert_eq!(node["listen"][0], one.addr());
    assert_eq!(node["metrics"]["peers"], 1);
    assert_eq!(node["metrics"]["tasks_done"], 1);
    assert_eq!(node["interests"], json!(["news.*"]));
    let text = first.run(["status"]).ok();
    for part in [&one.id(), "one (elo ", &one.addr(), "public", "1 proven", "echo", "1 done", "news.*", "refused"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert_eq!(text.matches(&one.id()).count(), 1, "{text}");
    assert!(text.contains("1 connection (") && text.contains("1 record of other nodes"), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("dht")).count(), 1, "{text}");
}

#[test]
fn peers_in_both_formats() {
    let (first, one, second, two) = pair();
    let peers = first.run(["peers", "--json"]).json_lines();
    assert_eq!(peers.len(), 1);
    assert_eq!((&peers[0]["node_id"], &peers[0]["inbound"]), (&json!(two.id()), &json!(true)));
    eventually("the other's record is here", || first.run(["peers"]).ok().contains("tool:grep"));
    let table = first.run(["peers"]).ok();
    assert!(table.contains("NAME") && table.contains("two") && table.contains(&two.id()[..12]), "{table}");
    let table = second.run(["peers"]).ok();
    assert!(table.contains("one") && table.contains("public tracker") && table.contains(&one.addr()), "{table}");
    let alone = Home::new();
    let _node = alone.serve(&[]);
    assert!(alone.run(["peers"]).ok().contains("no peers"));
    assert_eq!(alone.run(["peers", "--json"]).ok(), "");
}

/// Starts `elo events`, and publishes at the other node until the first line is here.
fn first_event(listener: &Home, publisher: &Home, json: bool) -> String {
    let mut command = listener.command(["events", "--type", "task.*"]);
    if json {
        command.arg("--json");
    }
    let mut events = Reaped(command.stdout(Stdio::piped()).spawn().unwrap());
    let stdout = BufReader::new(events.0.stdout.take().unwrap());
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut first = None;
    eventually("the event comes", || {
        publisher.run(["publish", "other.thing", "1"]).ok();
        publisher.run(["publish", "task.done", "{\"n\": 1}"]).ok();
        first = lines.recv_timeout(std::time::Duration::from_millis(200)).ok();
        first.is_some()
    });
    first.unwrap()
}

#[test]
fn events_in_both_formats() {
    let (first, _one, second, two) = pair();
    let event: Value = serde_json::from_str(&first_event(&first, &second, true)).unwrap();
    assert_eq!((&event["event_type"], &event["data"]), (&json!("task.done"), &json!({"n": 1})));
    assert_eq!((&event["origin"], &event["proven"]), (&json!(two.id()), &json!(true)));
    let line = first_event(&first, &second, false);
    assert!(line.starts_with("task.done from ") && line.contains("{\"n\":1}"), "{line}");
    let id = second.run(["publish", "x", "--json"]).json()["id"].clone();
    assert!(id.is_string());
}

#[test]
fn interests_show_as_activity() {
    let (_first, one, second, two) = pair();
    eventually("the event arrives", || {
        second.run(["publish", "news.today", "sun"]).ok();
        one.event("published")["event_type"] == "news.today"
    });
    drop(two);
    let lost = one.event("peer_lost");
    assert_eq!(lost["name"], "two");
}

#[test]
fn events_end_when_the_node_stops() {
    let home = Home::new();
    let _node = home.serve(&[]);
    let mut command = home.command(["events"]);
    let mut events = Reaped(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    home.run(["stop"]).ok();
    assert_eq!(events.wait(PATIENCE).unwrap().code(), Some(1));
}

#[test]
fn the_control_socket_bears_bad_clients() {
    let home = Home::new();
    let _node = home.serve(&[]);
    let ask = |request: &[u8]| {
        let mut stream = UnixStream::connect(home.file("node.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The node may hang up before it has read everything.
        drop(stream.write_all(request));
        let mut line = String::new();
        drop(BufReader::new(stream).read_line(&mut line));
        serde_json::from_str::<Value>(&line).unwrap_or_default()
    };
    for (request, code) in [
        (&b"nonsense\n"[..], "BAD_REQUEST"),
        (b"{\"v\":99,\"op\":\"peers\",\"args\":{}}\n", "BAD_REQUEST"),
        (b"{\"v\":1,\"op\":\"dance\",\"args\":{}}\n", "BAD_REQUEST"),
        (b"{\"v\":1,\"op\":\"call\",\"args\":{}}\n", "BAD_REQUEST"),
        (b"{\"v\":1,\"op\":\"find\",\"args\":[]}\n", "BAD_REQUEST"),
    ] {
        let answer = ask(request);
        assert_eq!(answer["data"]["code"], code, "{answer}");
        assert_eq!(answer["v"], 1);
    }
    let long = vec![b'x'; 3 * 1024 * 1024];
    assert_eq!(ask(&long)["data"]["code"], "TOO_LARGE");
    // As many as there are places, silent; the next is told, and a place is free again when one leaves.
    // A client above may still hold its place when these come, and leave it afterwards: then one more takes it.
    let silence = || UnixStream::connect(home.file("node.sock")).unwrap();
    let mut silent: Vec<_> = (0..32).map(|_| silence()).collect();
    eventually("all places are taken", || {
        let next = home.run(["peers"]);
        if next.code == 0 {
            silent.push(silence());
            return false;
        }
        next.failed(1, "OVERLOADED");
        true
    });
    silent.clear();
    eventually("there is room again", || home.run(["peers"]).code == 0);
}
