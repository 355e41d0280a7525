//! Peers of earlier runs: a node that is started again finds them without being told of any.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use common::{Home, Serve, eventually, mode, run};
use rustix::process::Signal;
use serde_json::{Value, json};

/// A node that remembers.
fn serve(home: &Home, args: &[&str]) -> Serve {
    let mut all = vec!["serve", "--json", "--bind", "127.0.0.1", "--port", "0"];
    all.extend(args);
    Serve::start(home.remembering(all))
}

fn stop(node: Serve) -> String {
    node.signal(Signal::TERM);
    let (code, log) = node.ended();
    assert_eq!(code, 0, "{log}");
    log
}

fn health(home: &Home) -> Value {
    let status = home.run(["status", "--json"]).json();
    let all = status["node"]["discovery"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["name"] == "remembered").unwrap()
}

fn file(home: &Home) -> Value {
    serde_json::from_slice(&std::fs::read(home.file("peers.json")).unwrap()).unwrap()
}

#[test]
fn a_node_started_again_finds_the_peers_it_met_without_being_told_of_any() {
    let (one, two) = (Home::new(), Home::new());
    let provider = one.serve(&["--agent", "echo", "--tracker"]);
    let first = serve(&two, &["--peer", &provider.addr()]);
    first.event("peer_connected");
    stop(first);
    let written = file(&two);
    assert_eq!((&written["nodes"][0]["id"], &written["nodes"][0]["tracker"]), (&json!(provider.id()), &json!(true)));
    assert_eq!(written["nodes"][0]["addrs"], json!([provider.addr()]));
    assert_eq!(mode(two.file("peers.json")), 0o600);

    let second = serve(&two, &[]);
    assert_eq!(second.event("peer_connected")["node_id"], provider.id());
    let peer = two.run(["peers", "--json"]).json();
    assert_eq!((&peer["found"], &peer["way"]), (&json!("remembered"), &json!("direct")));
    let now = health(&two);
    assert_eq!((&now["state"], &now["dialled"], &now["proven"]), (&json!("on"), &json!(1), &json!(1)), "{now}");
    // It is lost, and comes back where it was.
    let (id, port) = (provider.id(), provider.addr().rsplit_once(':').unwrap().1.to_owned());
    stop(provider);
    second.event("peer_lost");
    let again = Serve::start(one.command(["serve", "--json", "--bind", "127.0.0.1", "--port", &port]));
    assert_eq!((again.id(), second.event("peer_connected")["node_id"].clone()), (id.clone(), json!(id)));
    stop(second);
    assert_eq!(
        std::fs::read_dir(two.path())
            .unwrap()
            .filter(|e| { e.as_ref().unwrap().file_name().to_string_lossy().contains("tmp") })
            .count(),
        0,
        "no draft is left"
    );

    // Who is configured as well is dialled once.
    let twice = serve(&two, &["--peer", &again.addr()]);
    twice.event("peer_connected");
    let up = || two.run(["status", "--json"]).json()["node"]["uptime_s"].as_u64();
    eventually("the time is over after which others are dialled", || up() >= Some(2));
    assert_eq!(two.run(["peers", "--json"]).json()["found"], "peer");
    assert_eq!(health(&two)["dialled"], 0);
    stop(twice);

    // Not with --no-remember.
    let third = serve(&two, &["--no-remember"]);
    assert_eq!(health(&two)["state"], "off");
    assert_eq!(two.run(["peers", "--json"]).ok(), "");
    stop(third);
}

#[test]
fn a_call_without_a_running_node_goes_through_who_was_met_and_says_so() {
    let (one, two) = (Home::new(), Home::new());
    let provider = one.serve(&["--agent", "echo"]);
    let first = serve(&two, &["--peer", &provider.addr()]);
    first.event("peer_connected");
    stop(first);
    let before = file(&two);
    let ran = run(two.remembering(["call", "echo", "5"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "5\n"), "{ran:?}");
    let said = format!("going through {} at {}", &provider.id()[..12], provider.addr());
    assert!(ran.stderr.contains(&said), "{ran:?}");
    let found = run(two.remembering(["find", "echo", "--json"]));
    assert_eq!(found.stderr, "");
    assert_eq!(found.json_lines()[0]["node_id"], provider.id());
    assert_eq!(file(&two), before, "a command only reads");
    for (variable, file) in [("true", ""), ("", "no-remember = true")] {
        two.write("elo.toml", file);
        let mut off = two.remembering(["call", "echo", "5"]);
        off.env("ELO_NO_REMEMBER", variable);
        run(off).failed(3, "no node is running");
    }
    two.write("elo.toml", "");
    drop(provider);
    run(two.remembering(["call", "echo", "5", "--timeout", "5s"])).failed(3, "those met in earlier runs are away");
}

#[test]
fn somebody_else_at_a_remembered_address_is_not_believed() {
    let (one, two, three) = (Home::new(), Home::new(), Home::new());
    let provider = one.serve(&[]);
    let first = serve(&two, &["--peer", &provider.addr()]);
    first.event("peer_connected");
    stop(first);
    let port = provider.addr().rsplit_once(':').unwrap().1.to_owned();
    stop(provider);
    let _other = Serve::start(three.command(["serve", "--json", "--bind", "127.0.0.1", "--port", &port]));
    let second = serve(&two, &[]);
    eventually("it was tried", || health(&two)["dialled"].as_u64() >= Some(1));
    eventually("it is written down", || file(&two)["nodes"][0]["failed"].as_u64() >= Some(1));
    assert_eq!((two.run(["peers", "--json"]).ok(), &health(&two)["proven"]), (String::new(), &json!(0)));
    stop(second);
}

#[test]
fn a_damaged_file_is_put_aside_and_the_node_starts() {
    let home = Home::new();
    home.run(["init"]).ok();
    let deep = "[".repeat(300_000);
    for content in ["{\"version\": 1, \"nodes\"", "", "\u{0}\u{1}", "{\"version\":9,\"nodes\":[]}", deep.as_str()] {
        home.write("peers.json", content);
        let ran = run(home.remembering(["call", "x"]));
        assert!(ran.code == 3 && ran.stderr.contains("are not used"), "{ran:?}");
        assert_eq!(std::fs::read_to_string(home.file("peers.json")).unwrap(), content, "a command only reads");
        let node = serve(&home, &[]);
        assert_eq!(health(&home)["state"], "on");
        assert_eq!(std::fs::read_to_string(home.file("peers.json.damaged")).unwrap(), content);
        let log = stop(node);
        assert!(log.contains("peers.json.damaged") && !log.contains("panicked"), "{log}");
    }
}

#[test]
fn where_nothing_can_be_written_it_is_said_once_and_shown() {
    let (one, two) = (Home::new(), Home::new());
    let provider = one.serve(&["--agent", "echo"]);
    // Nobody can write over a folder, not even root.
    std::fs::create_dir_all(two.file("peers.json")).unwrap();
    let node = serve(&two, &["--peer", &provider.addr()]);
    node.event("peer_connected");
    assert_eq!(health(&two)["state"], "failing");
    assert!(two.run(["status"]).ok().contains("remembered failing"));
    assert_eq!(two.run(["call", "echo", "1"]).ok(), "1\n");
    let log = stop(node);
    assert_eq!(log.matches("peers are not remembered").count(), 1, "{log}");
}
