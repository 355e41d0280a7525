//! Agents behind a node: how each is reached is told to others, and nobody there is said at once.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{Home, eventually};
use serde_json::{Value, json};

/// What a node knows of a capability of somebody else.
fn reach(home: &Home, capability: &str) -> Value {
    let found = home.run(["find", capability, "--json"]).json_lines();
    let caps = found.iter().filter_map(|node| node["capabilities"].as_array()).flatten();
    caps.filter(|cap| cap["name"] == capability).map(|cap| cap["details"]["reach"].clone()).next().unwrap_or_default()
}

#[test]
fn how_each_agent_is_reached_is_shown_as_its_node_saw_it() {
    let (first, second) = (Home::new(), Home::new());
    let program = first.write("agent.sh", "#!/bin/sh\ncat\n");
    let executable = |mode| std::fs::set_permissions(&program, PermissionsExt::from_mode(mode)).unwrap();
    executable(0o700);
    let one = first.serve(&["--agent", "sum", "--exec", program.to_str().unwrap(), "--name", "one"]);
    let two = second.serve(&["--peer", &one.addr()]);
    two.event("peer_connected");
    eventually("it is known", || reach(&second, "sum")["ok"] == true);
    let seen = reach(&second, "sum");
    assert_eq!((&seen["by"], seen["at"].as_u64().unwrap() > 1_700_000_000), (&json!("exec"), true), "{seen}");
    assert!(second.run(["find", "sum"]).ok().contains("sum (exec, "), "{}", second.run(["find", "sum"]).ok());

    // It is gone: whoever calls hears that something is wrong, and so do all others from then on.
    executable(0o600);
    eventually("it is told", || {
        let _ = second.run(["call", "sum", "1"]);
        reach(&second, "sum")["ok"] == false
    });
    assert!(second.run(["find", "sum"]).ok().contains("sum (exec fails, "));
}

#[test]
fn an_agent_that_has_not_come_is_away() {
    let (first, second) = (Home::new(), Home::new());
    let one = first.serve(&["--agent", "sum", "--poll", "--name", "one"]);
    let two = second.serve(&["--peer", &one.addr()]);
    two.event("peer_connected");
    eventually("it is known", || reach(&second, "sum")["by"] == "nobody");
    assert!(second.run(["find", "sum"]).ok().contains("sum (nobody, "));
    let call = second.run(["call", "sum", "1", "--json"]);
    let error: Value = serde_json::from_str(&call.stderr).unwrap_or_else(|e| panic!("{e}: {}", call.stderr));
    assert_eq!((&error["error"]["code"], &error["error"]["exit"]), (&json!("AGENT_AWAY"), &json!(3)), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("has not come yet"), "{error}");
    // With somebody else who has it the call goes there.
    let third = Home::new();
    let three = third.serve(&["--agent", "sum", "--peer", &one.addr(), "--name", "three"]);
    three.event("peer_connected");
    eventually("it is answered by the other", || second.run(["call", "sum", "7"]).stdout.trim() == "7");
}

#[test]
fn flags_that_don_t_go_together_are_told() {
    let home = Home::new();
    for (args, said) in [
        (&["--agent", "a", "--poll", "--exec", "cat"][..], "don't go together"),
        (&["--poll"], "without a capability"),
        (&["--agent", "a", "--webhook", "ftp://x"], "is not a URL"),
        (&["--agent", "a", "--webhook", "http://"], "is not a URL"),
        (&["--webhook-secret", "f"], "--webhook-secret needs"),
        (&["--event-hook", "x"], "PATTERN=URL"),
        (&["--http", "7880"], "is not IP:PORT"),
        (&["--http", "0.0.0.0:7880"], "has no TLS"),
        (&["--http-insecure"], "need --http"),
        (&["--http", "127.0.0.1:0", "--http-cert", "c"], "belong together"),
        (&["--a2a-agent", "box"], "is not a URL"),
    ] {
        let args: Vec<&str> = ["serve", "--port", "0"].iter().chain(args).copied().collect();
        home.run(&args).failed(2, said);
    }
    home.write("elo.toml", "agent = \"a\"\nwebhook = \"gopher://x\"\n");
    home.run(["serve", "--port", "0"]).failed(2, "is not a URL");
}
