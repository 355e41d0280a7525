//! The Python package elo-node 0.5.0 and this node work for each other: real Python processes, real sockets.
//!
//! On with `ELO_INTEROP=1`; then an interpreter (`$ELO_PYTHON`, else `python3`) with `elo-node==0.5.0` is required.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;
mod python;

use std::time::Duration;

use elo::{Capability, Context, ErrorCode, Node, Payload, Route, Task, TaskError, TaskResult, Tracker};
use mesh::{addr_of, eventually, meets, node};
use python::{Python, is_on, legacy, provides, unproven};
use serde_json::{Value, json};

async fn echo(task: Task, _: Context) -> Result<Payload, TaskError> {
    // As text: integers of any length come back as they were.
    Ok(Payload::json(format!(r#"{{"got":{},"capability":{:?}}}"#, task.payload_json(), task.capability)))
}

async fn refuse(_: Task, _: Context) -> TaskResult {
    Err(TaskError::with_code(ErrorCode::Overloaded, "çok meşgul"))
}

/// What languages like to write differently.
const HARD: &str = r#"{"a":[1e16,1e-7,0.1,1e22,5e-324,1.7976931348623157e308,-0.0,1.0,123456789012345680.0],
    "b":{"z":1,"é":"日本 \u0007 😀 \"\\\/ \u2028","":null,"A":[{},[],[[true,false]]]},
    "c":123456789012345678901234567890,"d":-9007199254740993,"e":"\u007f\u0080"}"#;

#[tokio::test]
async fn python_dials_us_and_calls_what_we_provide() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").agent("early").agent("refuse").handler("refuse", refuse).default_handler(echo);
    let ours = ours.start().await.unwrap();
    let mut python = Python::node(json!({"peers": [addr_of(&ours)]})).await;
    unproven(&ours, 1).await;

    let result = python.call("", "early", json!({"x": "ä"})).await;
    assert_eq!(result["status"], "success", "{result}");
    assert_eq!(result["payload"], json!({"got": {"x": "ä"}, "capability": "early"}));

    // Registered after it connected.
    ours.register(Capability::tool("late")).unwrap();
    let result = python.call("", "late", json!({})).await;
    assert_eq!(result["payload"]["capability"], "late", "{result}");

    // By id, and by as much of it as the package shows its owner.
    let id = ours.id().to_string();
    for target in [id.as_str(), &id[..12], &id[..20], &format!("{}@{}", &id[..12], addr_of(&ours))] {
        let result = python.call(target, "ping", json!({"n": 1})).await;
        assert_eq!(result["payload"]["pong"], json!({"n": 1}), "{target}: {result}");
    }

    let result = python.call("", "refuse", json!({})).await;
    assert_eq!(result["error"], json!({"code": "OVERLOADED", "message": "çok meşgul"}), "{result}");
    let result = python.call("", "nowhere", json!({})).await;
    assert_eq!(result["error"]["code"], "NO_PEER", "{result}");
    assert_eq!(ours.metrics().tasks_done, 6);
}

/// It speaks lines in plain text, with nodes that encrypt among themselves.
#[tokio::test]
async fn the_client_in_the_protocols_document_calls_a_node() {
    if !is_on() {
        return;
    }
    let document = include_str!("../docs/protocol.md");
    let (_, section) = document.split_once("\n## 18. A client in Python\n").unwrap();
    let (_, program) = section.split_once("```python\n").unwrap();
    let (program, _) = program.split_once("```").unwrap();
    let server = node("server").start().await.unwrap();
    let port = mesh::port_of(&server).to_string();
    let (program, port) = (program.to_owned(), port);
    let run = move || std::process::Command::new(python::interpreter()).args(["-c", &program, &port]).output();
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert!(out.contains("'status': 'success'"), "{out}");
}

#[tokio::test]
async fn python_calls_by_a_host_name_it_dialled() {
    if !is_on() {
        return;
    }
    // The package names this connection "…@localhost:PORT", which we never see.
    let ours = legacy("ours").agent("early").default_handler(echo).start().await.unwrap();
    let mut python = Python::node(json!({"peers": [format!("localhost:{}", mesh::port_of(&ours))]})).await;
    assert_eq!(python.call("", "early", json!({})).await["status"], "success");
    ours.register(Capability::agent("late")).unwrap();
    python.received("hello_ack", 2).await;
    assert_eq!(python.call("", "late", json!({})).await["status"], "success");
}

#[tokio::test]
async fn python_sees_us_and_whom_we_know() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").agent("work").default_handler(echo).start().await.unwrap();
    let other = node("other").agent("other-work").default_handler(echo).peer(addr_of(&ours)).start().await.unwrap();
    meets(&other, &[&ours]).await;
    let mut python = Python::node(json!({"peers": [addr_of(&ours)]})).await;
    let short = ours.id().short();
    let known = python.ask("known", json!({})).await;
    assert_eq!(known["nodes"][0]["addr"], format!("{short}@{}", addr_of(&ours)), "{known}");
    assert_eq!(known["nodes"][0]["caps"], json!(["work"]), "{known}");
    let found = python.ask("discover", json!({})).await;
    let of = |id: &str| found["nodes"].as_array().unwrap().iter().find(|n| n["node_id"] == id).cloned();
    assert_eq!(of(&short).unwrap()["connected"], true, "{found}");
    assert_eq!(of(&other.id().short()).unwrap()["caps"], json!(["other-work"]), "{found}");

    // Its events reach us, and nothing proves whose they are.
    let mut events = ours.subscribe("python.*").unwrap();
    python.ask("publish", json!({"type": "python.started", "data": {"ä": 1}})).await;
    let event = events.recv().await.unwrap();
    assert_eq!((event.data, event.origin.to_string(), event.proven), (json!({"ä": 1}), python.node_id.clone(), false));
}

#[tokio::test]
async fn python_is_told_of_other_nodes_that_admit_it() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").tracker(Tracker::Public).start().await.unwrap();
    let admits = legacy("admits").agent("work").default_handler(echo).peer(addr_of(&ours)).start().await.unwrap();
    let refuses = node("refuses").peer(addr_of(&ours)).start().await.unwrap();
    meets(&ours, &[&admits, &refuses]).await;
    let mut python = Python::node(json!({"peers": [addr_of(&ours)]})).await;
    unproven(&admits, 1).await;
    // It dials both, had both been named.
    let result = python.call("", "work", json!({})).await;
    assert_eq!(result["status"], "success", "{result}");
    // Each told it of the other, once.
    let received = python.ask("counts", json!({})).await["received"].clone();
    assert!(received["hello_ack"].as_u64().unwrap() <= 3 && received.get("bye").is_none(), "{received}");
    assert_eq!(ours.metrics().closed.get("DUPLICATE"), None);
    assert_eq!(admits.metrics().tasks_done, 1);
    assert!(!refuses.metrics().closed.contains_key("BAD_HANDSHAKE"));
}

#[tokio::test]
async fn we_dial_python_and_call_what_it_provides() {
    if !is_on() {
        return;
    }
    let mut python = Python::node(json!({"agents": ["early", "raise"]})).await;
    let ours = legacy("ours").peer(python.addr()).start().await.unwrap();
    provides(&ours, &python, "early").await;
    let peers = ours.peers();
    assert!(!peers[0].proven && !peers[0].inbound, "{peers:?}");

    let outcome = ours.call("early", json!({"ü": [1.5]})).await.unwrap();
    assert_eq!(outcome.payload, json!({"echo": {"ü": [1.5]}}));
    assert_eq!((outcome.route, outcome.responder.to_string()), (Route::Direct, python.node_id.clone()));
    // Its handler had it from us: the package checked our signature.
    assert_eq!(python.handled("early").await["caller"], ours.id().to_string());

    for target in [&python.node_id[..], &python.node_id[..12], &python.node_id[..6]] {
        let outcome = ours.call("anything", json!({})).to(target).await.unwrap();
        assert_eq!(outcome.payload, json!({"echo": {}}), "{target}");
    }

    let error = ours.call("raise", json!({})).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Internal, "it went wrong: ä"));

    // It registers late, and tells names alone.
    python.ask("register", json!({"caps": {"agents": ["late"], "tools": ["tool"]}})).await;
    provides(&ours, &python, "tool").await;
    assert_eq!(ours.call("late", json!(1)).await.unwrap().payload, json!({"echo": 1}));
    assert_eq!(ours.call("early", json!(2)).await.unwrap().payload, json!({"echo": 2}), "it still provides that");
}

#[tokio::test]
async fn python_that_dialled_us_is_called_like_any_other() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").start().await.unwrap();
    let mut python = Python::node(json!({"peers": [addr_of(&ours)]})).await;
    let waiting = ours.call("work", json!({"n": 1})).timeout(Duration::from_secs(20)).start().await.unwrap();
    python.ask("register", json!({"caps": {"agents": ["work"]}})).await;
    // Known in time or not: the call looks for somebody while it can.
    match waiting.outcome().await {
        Ok(outcome) => assert_eq!(outcome.payload, json!({"echo": {"n": 1}})),
        Err(error) => assert_eq!(error.code, ErrorCode::NoPeer),
    }
    provides(&ours, &python, "work").await;
    assert_eq!(ours.call("work", json!({"n": 2})).await.unwrap().payload, json!({"echo": {"n": 2}}));
}

#[tokio::test]
async fn hard_payloads_verify_both_ways() {
    if !is_on() {
        return;
    }
    let digits = |task: Task, _: Context| async move {
        TaskResult::Ok(json!(task.payload_json().contains("123456789012345678901234567890")))
    };
    let ours = legacy("ours").agent("echo").agent("digits").handler("digits", digits).default_handler(echo);
    let ours = ours.start().await.unwrap();
    let mut python = Python::node(json!({"peers": [addr_of(&ours)], "agents": ["py"]})).await;
    provides(&ours, &python, "py").await;

    // Our task, verified there; its result, verified here.
    let outcome = ours.call_json("py", HARD).await.unwrap();
    let there = python.handled("py").await;
    let sent: Value = serde_json::from_str(HARD).unwrap();
    assert_eq!(there["payload"], sent);
    assert_eq!(outcome.payload["echo"], sent);
    assert!(outcome.payload_json().contains("123456789012345678901234567890"), "{}", outcome.payload_json());

    // Its task, verified here. Python reads the numbers from the text.
    let command = r#"{"op":"call","n_command":1000,"target":"","capability":"digits","payload":HARD}"#;
    python.write_text(&command.replace("HARD", &HARD.replace('\n', " ")));
    let result = python.answer(1000).await;
    assert_eq!(result["payload"], json!(true), "{result}");
    let result = python.call("", "echo", sent.clone()).await;
    assert_eq!(result["status"], "success", "{result}");
    assert_eq!(result["payload"]["got"], sent);
    assert_eq!(ours.metrics().refused.get("bad_signature"), None);
}

#[tokio::test]
async fn a_tracker_relays_between_two_python_nodes() {
    if !is_on() {
        return;
    }
    let tracker = legacy("tracker").tracker(Tracker::Public).start().await.unwrap();
    let mut provider = Python::node(json!({"peers": [addr_of(&tracker)], "agents": ["work", "raise"]})).await;
    let mut caller = Python::node(json!({"peers": [addr_of(&tracker)]})).await;
    unproven(&tracker, 2).await;
    let id = provider.node_id.clone();
    let tracker_addr = format!("{}@{}", tracker.id().short(), addr_of(&tracker));
    let payload = json!({"target": id, "capability": "work", "payload": {"é": 0.1}, "tracker": ""});

    let result = caller.ask("relay", payload.clone()).await;
    assert_eq!(result["payload"], json!({"echo": {"é": 0.1}}), "{result}");
    // The tracker sends it on under its own name.
    assert_eq!(provider.handled("work").await["caller"], tracker.id().to_string());

    for (target, via) in [(&id[..12], ""), (&id[..12], &tracker_addr[..]), ("", "")] {
        let mut command = payload.clone();
        command["target"] = json!(target);
        command["tracker"] = json!(via);
        let result = caller.ask("relay", command).await;
        assert_eq!(result["status"], "success", "{target} via {via}: {result}");
    }
    // A target that isn't connected: the package goes to whoever provides `relay`.
    for target in [&id[..], &id[..12]] {
        let result = caller.call(target, "work", json!(2)).await;
        assert_eq!(result["payload"], json!({"echo": 2}), "{result}");
    }

    let result = caller.call(&id, "raise", json!({})).await;
    assert_eq!(result["error"], json!({"code": "INTERNAL", "message": "it went wrong: ä"}), "{result}");
    let stranger = elo::Identity::generate().id().to_string();
    let result = caller.call(&stranger, "work", json!({})).await;
    assert_eq!(result["error"]["code"], "NO_PEER", "{result}");
    provider.kill();
    unproven(&tracker, 1).await;
    let result = caller.call(&id, "work", json!({})).await;
    assert_eq!(result["error"]["code"], "NO_PEER", "{result}");
}

#[tokio::test]
async fn what_another_native_node_provides_is_passed_on() {
    if !is_on() {
        return;
    }
    let provider = node("provider").agent("rare").default_handler(echo).start().await.unwrap();
    let middle = node("middle").peer(addr_of(&provider)).start().await.unwrap();
    meets(&middle, &[&provider]).await;
    let gateway = legacy("gateway").peer(addr_of(&middle)).start().await.unwrap();
    meets(&gateway, &[&middle]).await;
    let mut python = Python::node(json!({"peers": [addr_of(&gateway)], "agents": ["both"]})).await;
    let result = python.call("", "rare", json!({"n": 1e22})).await;
    assert_eq!(result["payload"], json!({"got": {"n": 1e22}, "capability": "rare"}), "{result}");
    // Known by now: no second query.
    let result = python.call("", "rare", json!({})).await;
    assert_eq!(result["status"], "success", "{result}");
    assert_eq!(python.ask("counts", json!({})).await["received"]["query_resp"], 1);
    assert_eq!(provider.metrics().tasks_done, 2);

    // Between two Python nodes it passes on as well, and never back to the caller.
    let other = Python::node(json!({"peers": [addr_of(&gateway)], "agents": ["both"]})).await;
    provides(&gateway, &other, "both").await;
    for _ in 0..4 {
        assert_eq!(python.call("", "both", json!({})).await["status"], "success");
    }
    assert_eq!(python.has_handled("both"), 0);
    // The gateway tells the mesh's refusal too.
    provider.shutdown().await;
    eventually("the provider is gone", || middle.peers().iter().all(|p| p.name != "provider")).await;
    let result = python.call("", "rare", json!({})).await;
    assert_eq!(result["status"], "error", "{result}");
}

#[tokio::test]
async fn restarts_and_goodbyes() {
    if !is_on() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let ours = legacy("ours").start().await.unwrap();
    let settings = json!({"peers": [addr_of(&ours)], "key": home.path(), "agents": ["old", "never"]});
    let mut first = Python::node(settings).await;
    provides(&ours, &first, "never").await;
    let call = ours.call("never", json!({})).start().await.unwrap();
    first.handled("never").await;

    // The same identity again, while the first process lives.
    let second = Python::node(json!({"peers": [addr_of(&ours)], "key": home.path(), "agents": ["new"]})).await;
    assert_eq!(first.node_id, second.node_id);
    provides(&ours, &second, "new").await;
    unproven(&ours, 1).await;
    assert!(ours.peers()[0].capabilities.iter().all(|c| c.name != "old"), "{:?}", ours.peers());
    let error = call.outcome().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PeerGone, "{error}");
    assert_eq!(ours.call("new", json!(1)).await.unwrap().payload, json!({"echo": 1}));

    // Killed without a word, and stopped in good order.
    second.kill();
    unproven(&ours, 0).await;
    let mut third = Python::node(json!({"peers": [addr_of(&ours)]})).await;
    unproven(&ours, 1).await;
    third.ask("stop", json!({})).await;
    unproven(&ours, 0).await;

    // We go: it sees that.
    let mut fourth = Python::node(json!({"peers": [addr_of(&ours)]})).await;
    unproven(&ours, 1).await;
    ours.shutdown().await;
    loop {
        let known = fourth.ask("known", json!({})).await;
        if known == json!({"nodes": [], "connected": []}) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_python_node_that_restarts_on_its_port_is_dialled_again() {
    if !is_on() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let first = Python::node(json!({"key": home.path(), "agents": ["old"]})).await;
    let (port, addr) = (first.port, first.addr());
    let ours = legacy("ours").peer(addr).start().await.unwrap();
    provides(&ours, &first, "old").await;
    first.kill();
    unproven(&ours, 0).await;
    let second = Python::node(json!({"key": home.path(), "agents": ["new"], "port": port})).await;
    provides(&ours, &second, "new").await;
    assert_eq!(ours.call("new", json!(1)).await.unwrap().payload, json!({"echo": 1}));
}

#[tokio::test]
async fn a_result_that_is_not_json_closes_the_connection_and_ends_its_calls() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").start().await.unwrap();
    let python = Python::node(json!({"peers": [addr_of(&ours)], "agents": ["nan"]})).await;
    provides(&ours, &python, "nan").await;
    let error = ours.call("nan", json!({})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PeerGone, "{error}");
    assert!(error.message.contains("BAD_MESSAGE"), "{error}");
    unproven(&ours, 0).await;
    assert_eq!(ours.metrics().closed.get("BAD_MESSAGE"), Some(&1));
}

/// Nodes without `--legacy`, and private ones, are clear about it.
async fn refuses(ours: Node, code: &str) {
    let mut python = Python::node(json!({"peers": [addr_of(&ours)]})).await;
    assert_eq!(python.ask("known", json!({})).await["connected"], json!([]));
    let mut frames = Python::frames(&ours).await;
    let caps = json!({"agents": [], "models": [], "tools": []});
    frames.write(&json!({"type": "hello", "node_id": "ME", "caps": caps, "interests": [], "tracker": "public"}));
    let bye = frames.frame("bye").await;
    assert_eq!(bye["code"], code, "{bye}");
    assert!(bye["reason"].as_str().unwrap().contains("Python"), "{bye}");
    frames.line(|l| l["event"] == "closed").await;
    assert!(ours.peers().is_empty());
}

#[tokio::test]
async fn refused_without_legacy_and_by_a_private_tracker() {
    if !is_on() {
        return;
    }
    refuses(node("plain").start().await.unwrap(), "BAD_HANDSHAKE").await;
    let private = legacy("private").tracker(Tracker::Private { allow: Vec::new() });
    refuses(private.start().await.unwrap(), "NOT_ALLOWED").await;
    // And a Python node that we dial without `legacy` shows in what we tell our owner.
    let python = Python::node(json!({})).await;
    let ours = node("ours").peer(python.addr()).start().await.unwrap();
    let mut activity = ours.activity();
    let mut told = String::new();
    while !told.contains("`legacy`") {
        told = format!("{:?}", activity.recv().await);
    }
}
