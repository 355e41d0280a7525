//! `elo serve` on a terminal: the prompt.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use common::Home;
use common::terminal::{has_python, sit};
use serde_json::json;

const SERVE: &[&str] = &["serve", "--bind", "127.0.0.1", "--port", "0", "--agent", "echo", "--name", "box"];

#[test]
fn the_prompt_takes_commands() {
    if !has_python() {
        return;
    }
    let (home, other) = (Home::new(), Home::new());
    other.run(["init"]).ok();
    let denied = other.run(["id"]).ok().trim().to_owned();
    let deny = format!("deny {denied} # floods us\r");
    let steps = json!([
        ["expect", "ready: box"],
        ["expect", "elo> "],
        ["send", "help\r"],
        ["expect", "publish TYPE"],
        ["send", "caps\r"],
        ["expect", "agent"],
        ["send", "peers\r"],
        ["expect", "no peers are connected"],
        ["send", "call echo {\"n\": 1}\r"],
        ["expect", "\"n\": 1\r\n}"],
        ["send", "call echo\r"],
        ["expect", "null"],
        ["send", "dance\r"],
        ["expect", "unknown command"],
        ["send", "deny abc\r"],
        ["expect", "elo: deny ID"],
        ["send", deny],
        ["expect", "the running node has taken it"],
        ["send", "access\r"],
        ["expect", "# floods us"],
        ["send", "revoke\r"],
        ["expect", "which node?"],
        ["send", "ca\t"],
        ["send", "\u{15}cap\t\r"],
        ["expect", "agent"],
        ["send", "quit\r"],
        ["expect", "stopping"],
        ["code", 0]
    ]);
    sit(&home, SERVE, &steps).ok();
    assert!(std::fs::read_to_string(home.file("access")).unwrap().contains(&format!("deny {denied}  # floods us")));
    let history = std::fs::read_to_string(home.file("history")).unwrap();
    assert!(history.contains("call echo"), "{history}");
    assert_eq!(common::mode(home.file("history")), 0o600);
    assert!(!home.file("node.sock").exists());
}

#[test]
fn several_lines_pasted_at_once_are_all_taken() {
    if !has_python() {
        return;
    }
    let home = Home::new();
    let steps = json!([
        ["expect", "elo> "],
        ["send", "call echo 111\rcall echo 222\rcall echo 333\r"],
        ["expect", "task echo for"],
        ["expect", "task echo for"],
        ["expect", "task echo for"],
        ["send", "quit\r"],
        ["expect", "stopping"],
        ["code", 0]
    ]);
    sit(&home, SERVE, &steps).ok();
}

#[test]
fn events_scroll_above_the_prompt() {
    if !has_python() {
        return;
    }
    let home = Home::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap().to_string();
    drop(listener);
    let args = [SERVE, &["--peer", &gone]].concat();
    let steps =
        json!([["expect", "elo> "], ["expect", "can't reach"], ["send", "\u{4}"], ["expect", "stopping"], ["code", 0]]);
    sit(&home, &args, &steps).ok();
}

#[test]
fn however_it_ends_the_terminal_is_as_it_was() {
    if !has_python() {
        return;
    }
    // By Ctrl-C at the prompt, and by a signal while the editor sits in its own mode.
    for end in [json!(["send", "\u{3}"]), json!(["kill", 15])] {
        let home = Home::new();
        sit(&home, SERVE, &json!([["expect", "elo> "], end, ["expect", "stopping"], ["code", 0]])).ok();
    }
}

#[test]
fn results_on_a_terminal_are_harmless_and_easy_to_read() {
    if !has_python() {
        return;
    }
    let home = Home::new();
    let node = home.serve(&["--agent", "echo"]);
    drop(node.id());
    let steps = json!([["expect", "\"a\": 1"], ["code", 0]]);
    sit(&home, &["call", "echo", "{\"a\":1,\"b\":\"\u{9b}2J\"}"], &steps).ok();
    let ran = sit(&home, &["call", "echo", "\"x\\u001b[31mred\""], &json!([["expect", "red"], ["code", 0]]));
    assert!(!ran.stdout.contains("\u{1b}[31m"), "{:?}", ran.stdout);
}

#[test]
fn a_person_who_waits_is_told_for_what() {
    if !has_python() {
        return;
    }
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "slow", "--name", "snail", "--exec", "sleep 3"]);
    let addr = node.addr();
    let args = ["call", "slow", "--peer", &addr];
    let wait = "slow: accepted by snail, no result yet (2 s)";
    let ran = sit(&caller, &args, &json!([["expect", wait], ["expect", "\r\u{1b}[K"], ["code", 0]]));
    ran.ok();
    // Not where nobody looks, nor for those who want it quiet or as JSON.
    for more in ["--json", "-q"] {
        let ran = sit(&caller, &[&args[..], &[more]].concat(), &json!([["code", 0]]));
        assert!(!ran.stdout.contains("accepted by"), "{}", ran.stdout);
        ran.ok();
    }
    // At the prompt, above it.
    let serve = [SERVE, &["--peer", &addr]].concat();
    let steps = json!([
        ["expect", "snail"],
        ["send", "call slow\r"],
        ["expect", "slow: accepted by snail, no result yet"],
        ["expect", "direct"],
        ["send", "quit\r"],
        ["expect", "stopping"],
        ["code", 0]
    ]);
    sit(&Home::new(), &serve, &steps).ok();
}

#[test]
fn history_is_there_after_a_restart_and_tab_completes_nodes_and_capabilities() {
    if !has_python() {
        return;
    }
    let home = Home::new();
    let node = Home::new();
    let other = node.serve(&["--agent", "translate", "--name", "polyglot"]);
    let addr = other.addr();
    let serve = [SERVE, &["--peer", &addr]].concat();
    let first = json!([
        ["expect", "polyglot"],
        ["send", "call trans\t"],
        ["expect", "translate"],
        ["send", " --to poly\t"],
        ["expect", "polyglot"],
        ["send", " 12345\r"],
        ["expect", "direct"],
        ["send", "quit\r"],
        ["expect", "stopping"],
        ["code", 0]
    ]);
    sit(&home, &serve, &first).ok();
    let history = std::fs::read_to_string(home.file("history")).unwrap();
    assert!(history.contains("call translate --to polyglot 12345"), "{history}");
    // Up twice: past `quit`.
    let second = json!([
        ["expect", "polyglot"],
        ["send", "\u{1b}[A\u{1b}[A\r"],
        ["expect", "12345"],
        ["expect", "direct"],
        ["send", "\u{4}"],
        ["expect", "stopping"],
        ["code", 0]
    ]);
    sit(&home, &serve, &second).ok();
}

#[test]
fn a_payload_can_be_typed() {
    if !has_python() {
        return;
    }
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--agent", "echo"]);
    let steps = json!([
        ["expect", "type the payload; Ctrl-D ends it"],
        ["send", "[7,\r"],
        ["send", "8]\r\u{4}"],
        ["expect", "  7,"],
        ["code", 0]
    ]);
    sit(&caller, &["call", "echo", "-", "--peer", &node.addr()], &steps).ok();
}
