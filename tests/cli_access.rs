//! `elo allow`, `elo deny`, `elo revoke`, `elo access`, and what they do to running nodes: real processes.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use common::{Home, Reaped, eventually, mode};
use elo::Identity;
use serde_json::{Value, json};

fn id(n: u8) -> String {
    Identity::from_seed([n; 32]).id().to_string()
}

/// A home that has its key already.
fn home() -> (Home, String) {
    let home = Home::new();
    home.run(["init"]).ok();
    let id = home.run(["id"]).ok().trim().to_owned();
    (home, id)
}

fn access(home: &Home) -> Value {
    home.run(["status", "--json"]).json()["node"]["access"].clone()
}

fn peers(home: &Home) -> Vec<Value> {
    home.run(["peers", "--json"]).json_lines()
}

#[test]
fn who_is_allowed_connects_without_a_restart_and_sees_before_why_it_does_not() {
    let tracker = Home::new();
    let serving = tracker.serve(&["--tracker", "--private", "--agent", "echo"]);
    let (guest, guest_id) = home();
    let _guest = guest.serve(&["--peer", &serving.addr()]);
    eventually("the refusal is listed", || {
        let away = peers(&guest);
        away.len() == 1
            && away[0]["connected"] == false
            && away[0]["reason"] == "NOT_ALLOWED"
            && away[0]["failures"] != 0
    });
    let listed = guest.run(["peers"]).ok();
    for part in ["no peers are connected", "NOT CONNECTED", "NEXT DIAL", &serving.addr(), "NOT_ALLOWED", "must allow"] {
        assert!(listed.contains(part), "{part:?} is not in {listed}");
    }
    let said = tracker.run(["allow", &guest_id, "--note", "the guest"]).ok();
    assert!(said.contains(&format!("allowed {guest_id}")) && said.contains("has taken it"), "{said}");
    assert_eq!(access(&tracker)["allowed"], 1);
    eventually("it is connected", || peers(&guest).iter().any(|peer| peer["node_id"] == serving.id()));
    assert_eq!(guest.run(["call", "echo", "\"hi\""]).ok().trim(), "hi");
    let file = std::fs::read_to_string(tracker.file("access")).unwrap();
    assert!(file.ends_with(&format!("allow {guest_id}  # the guest\n")), "{file}");
    assert_eq!(mode(tracker.file("access")), 0o600);
    // And out again.
    let said = tracker.run(["revoke", &guest_id]).ok();
    assert!(said.contains("no longer allowed"), "{said}");
    eventually("it is closed", || peers(&guest).iter().all(|peer| peer["connected"] == false));
}

#[test]
fn who_is_denied_is_closed_at_once_and_its_running_call_is_answered() {
    let provider = Home::new();
    let serving = provider.serve(&["--agent", "slow", "--exec", "sleep 600"]);
    let (caller, caller_id) = home();
    let caller_node = caller.serve(&["--peer", &serving.addr()]);
    caller_node.event("peer_connected");
    let mut call = caller.command(["call", "slow", "1", "--timeout", "100s", "--json"]);
    let call = Reaped(call.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap());
    serving.event("task_received");
    provider.run(["deny", &caller_id]).ok();
    let lost = caller_node.event("peer_lost");
    assert_eq!(lost["reason"], "NOT_ALLOWED");
    let mut call = call;
    let status = call.wait(common::PATIENCE).expect("the call ends");
    assert_eq!(status.code(), Some(1));
    let mut error = String::new();
    std::io::Read::read_to_string(&mut call.0.stderr.take().unwrap(), &mut error).unwrap();
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["delivery"]), (&json!("NOT_ALLOWED"), &json!("answered")));
    eventually("its program was stopped", || {
        provider.run(["status", "--json"]).json()["node"]["metrics"]["tasks_running"] == 0
    });
    assert!(peers(&provider).is_empty());
}

#[test]
fn a_file_edited_by_hand_is_taken_and_one_that_breaks_changes_nothing() {
    let node = Home::new();
    node.write("access", format!("# mine\ndeny {}\n", id(1)));
    let _serving = node.serve(&[]);
    assert_eq!(access(&node)["denied"], 1);
    // In place, as a simple editor does it.
    node.write("access", format!("# mine\ndeny {}\ndeny {}\n", id(1), id(2)));
    eventually("it is taken", || access(&node)["denied"] == 2);
    node.write("access", format!("deny {}\n\nallow {}\n", id(1), id(1)));
    eventually("it is seen", || access(&node)["file"]["state"] == "broken");
    assert_eq!(access(&node)["denied"], 2);
    let status = node.run(["status"]).ok();
    let said = format!("access:3: allow {}: line 1 says deny", id(1));
    assert!(status.contains("THE FILE IS NOT USED") && status.contains(&said), "{status}");
    // It is not written over, and the reason is said.
    for args in [&["deny", &id(3)][..], &["access"], &["allow"], &["revoke", &id(1)]] {
        node.run(args).failed(1, &said);
    }
    std::fs::remove_file(node.file("access")).unwrap();
    eventually("it is gone", || access(&node)["file"]["detail"].as_str().unwrap().contains("gone"));
    assert_eq!(access(&node)["denied"], 2);
    node.run(["deny", &id(3)]).ok();
    assert_eq!((&access(&node)["denied"], &access(&node)["file"]["state"]), (&json!(1), &json!("taken")));
}

#[test]
fn a_node_does_not_start_with_a_file_that_can_not_be_used() {
    let node = Home::new();
    let serve = ["serve", "--bind", "127.0.0.1", "--port", "0"];
    for (content, said) in
        [("allow me\n", "access:1: allow: a node id has 43"), ("# a\n\nbless x\n", "access:3: \"bless\"")]
    {
        node.write("access", content);
        node.run(serve).failed(2, said);
    }
    let path = node.write("access", format!("deny {}\n", id(1)));
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    node.run(serve).failed(2, "chmod 600");
    node.run(["deny", &id(2)]).failed(1, "chmod 600");
}

#[test]
fn edits_at_once_lose_nothing() {
    let node = Home::new();
    let _serving = node.serve(&[]);
    let ids: Vec<String> = (1..=24).map(id).collect();
    let children: Vec<Reaped> = ids
        .iter()
        .map(|id| {
            let mut command = node.command(["deny", id, "--quiet"]);
            Reaped(command.stdout(std::process::Stdio::null()).spawn().unwrap())
        })
        .collect();
    for mut child in children {
        assert!(child.wait(common::PATIENCE).expect("it ends").success());
    }
    let listed = node.run(["access", "--json"]).json_lines();
    assert_eq!(listed.len(), 24);
    assert!(ids.iter().all(|id| listed.iter().any(|e| e["node_id"] == *id && e["access"] == "deny")));
    assert_eq!(access(&node)["denied"], 24);
    let left: Vec<_> = std::fs::read_dir(node.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("draft")), "{left:?}");
}

#[test]
fn the_lists_are_shown_with_where_they_come_from() {
    let node = Home::new();
    assert!(node.run(["access"]).ok().contains("nobody is allowed or denied by name"));
    assert!(node.run(["deny", &id(1)]).ok().contains("no node is running here"));
    node.run(["allow", &id(2), &id(3), "--note", "ma\u{1b}chines"]).ok();
    let text = node.run(["allow"]).ok();
    assert!(text.contains(&format!("deny   {}  line 3\n", id(1))), "{text}");
    assert!(text.contains(&format!("allow  {}  line 4  # ma chines\n", id(2))), "{text}");
    let _serving = node.serve(&["--private", "--allow", &id(4), "--deny", &id(2)]);
    let text = node.run(["access"]).ok();
    assert!(text.starts_with("private, only those allowed are let in; 2 allowed, 2 denied; "), "{text}");
    assert!(text.contains(&format!("allow  {}  settings\n", id(4))), "{text}");
    let listed = node.run(["access", "--json"]).json_lines();
    let settings: Vec<_> = listed.iter().filter(|e| e["source"] == "settings").collect();
    assert_eq!((listed.len(), settings.len()), (5, 2));
    // What the settings say is told, since the file can't change it.
    let said = node.run(["allow", &id(2)]).ok();
    assert!(said.contains("already") && said.contains("denied by the node's own settings still"), "{said}");
    let changed = node.run(["revoke", &id(1), &id(9), "--json"]).json();
    let changes =
        json!([{"node_id": id(1), "before": "deny", "now": null}, {"node_id": id(9), "before": null, "now": null}]);
    assert_eq!((&changed["changes"], &changed["running"]), (&changes, &json!(true)));
    assert_eq!(changed["decisions"][0]["decision"], "not_listed");
}

#[test]
fn wrong_usage_is_said() {
    let node = Home::new();
    for args in [&["deny"][..], &["revoke"], &["deny", "abc"], &["allow", "--note", "x"], &["allow", &id(1), "x y"]] {
        assert_eq!(node.run(args).code, 2, "{args:?}");
    }
    node.run(["deny", &id(1), "--note", &"x".repeat(161)]).failed(2, "160 characters");
    assert!(!node.file("access").exists());
    node.run(["serve", "--allow", &id(1)]).failed(2, "--allow needs --private");
}

#[test]
fn rules_of_the_settings_file_are_kept() {
    let provider = Home::new();
    let (caller, caller_id) = home();
    let (other, _) = home();
    let policy = format!(
        "agent = ['deploy', 'free']\n[[policy]]\ncapability = 'deploy'\nallow = ['{caller_id}']\nrate = '1/day'\n"
    );
    provider.write("elo.toml", policy);
    let serving = provider.serve(&[]);
    for home in [&caller, &other] {
        let run =
            |capability: &str| home.run(["call", capability, "1", "--peer", &serving.addr(), "--to", &serving.id()]);
        run("free").ok();
        if home.path() == caller.path() {
            run("deploy").ok();
            let limited = run("deploy");
            limited.failed(1, "RATE_LIMITED");
            assert!(limited.stderr.contains("1/day") && limited.stderr.contains("try again in 86"), "{limited:?}");
        } else {
            run("deploy").failed(1, "NOT_ALLOWED");
        }
    }
    let counted = access(&provider);
    assert_eq!(counted["refused"], json!({"deploy": {"NOT_ALLOWED": 1, "RATE_LIMITED": 1}}));
    let status = provider.run(["status"]).ok();
    assert!(status.contains("by 1 rule; tasks refused: deploy 1 NOT_ALLOWED and 1 RATE_LIMITED"), "{status}");
    for (line, said) in
        [("rate = '1'", "elo.toml:5: policy: rate"), ("speed = 1", "elo.toml:5: policy: unknown key \"speed\"")]
    {
        let wrong = Home::new();
        wrong.write("elo.toml", format!("agent = 'a'\n\n[[policy]]\ncapability = 'a'\n{line}\n"));
        wrong.run(["serve", "--port", "0"]).failed(2, said);
    }
}

#[test]
fn who_is_not_served_by_name_is_refused() {
    let (friend, friend_id) = home();
    let (stranger, _) = home();
    let provider = Home::new();
    let serving = provider.serve(&["--agent", "echo", "--serve-only", &friend_id]);
    let call = |home: &Home| home.run(["call", "echo", "1", "--peer", &serving.addr(), "--to", &serving.id()]);
    call(&friend).ok();
    call(&stranger).failed(1, "NOT_ALLOWED");
    assert_eq!(access(&provider)["serve_only"], 1);
}
