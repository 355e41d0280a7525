//! `elo mcp` over stdin and stdout: each tool, and what becomes of tasks when clients and nodes come and go.
#![cfg(all(unix, feature = "mcp"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
#[path = "mcp/mod.rs"]
mod mcp_client;

use common::{Home, eventually};
use mcp_client::Mcp;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Two nodes that are connected: the first is the home of an agent, the second of who calls it.
fn two() -> (Home, Home, common::Serve, common::Serve) {
    let (agent, caller) = (Home::new(), Home::new());
    let one = agent.serve(&["--name", "one"]);
    let two = caller.serve(&["--name", "two", "--peer", &one.addr()]);
    two.event("peer_connected");
    (agent, caller, one, two)
}

/// An agent that offers something, known to a caller.
fn offers(agent: &mut Mcp, caller: &mut Mcp, name: &str) {
    agent.call("offer", json!({ "capabilities": [{ "name": name, "description": "for a test" }] }));
    eventually("the offer is known", || {
        let found = caller.call("find_agents", json!({ "capability": name }));
        found["agents"].as_array().is_some_and(|agents| !agents.is_empty())
    });
}

#[test]
fn it_says_what_there_is() {
    let home = Home::new();
    let node = home.serve(&["--agent", "echo", "--name", "solo"]);
    let mut client = Mcp::start(&home, &[]);
    let id = client.ask("tools/list", json!({}));
    let tools = client.answer(id)["result"]["tools"].clone();
    let names: Vec<&str> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    for name in [
        "find_agents",
        "call_agent",
        "check_call",
        "cancel_call",
        "offer",
        "next_task",
        "reply",
        "progress",
        "publish",
        "next_events",
        "peers",
        "status",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for tool in tools.as_array().unwrap() {
        assert!(tool["annotations"]["readOnlyHint"].is_boolean(), "{tool}");
    }
    let status = client.call("status", json!({}));
    assert_eq!((&status["node_id"], &status["tasks_waiting"]), (&json!(node.id()), &json!(0)));
    assert_eq!(client.call("peers", json!({})), json!({ "peers": [] }));

    let id = client.ask("resources/list", json!({}));
    assert_eq!(client.answer(id)["result"]["resources"].as_array().unwrap().len(), 3);
    let id = client.ask("resources/templates/list", json!({}));
    assert_eq!(client.answer(id)["result"]["resourceTemplates"][0]["uriTemplate"], "elo://agents/{node}");
    let mut read = |uri: &str| {
        let id = client.ask("resources/read", json!({ "uri": uri }));
        client.answer(id)
    };
    let text = |answer: &Value| -> Value {
        serde_json::from_str(answer["result"]["contents"][0]["text"].as_str().unwrap()).unwrap()
    };
    assert_eq!(text(&read("elo://peers")), json!({ "peers": [] }));
    assert_eq!(text(&read("elo://agents"))["agents"][0]["name"], "solo");
    assert_eq!(text(&read("elo://agents/solo"))["node_id"], node.id());
    assert_eq!(text(&read("elo://events/recent")), json!({ "events": [] }));
    for wrong in ["elo://agents/nobody", "elo://else", "file:///etc/passwd"] {
        assert!(read(wrong)["error"]["message"].as_str().unwrap().contains("nothing is at"), "{wrong}");
    }
    assert_eq!(client.hang_up(), 0);
}

#[test]
fn what_is_wrong_is_said_and_the_session_goes_on() {
    let home = Home::new();
    let _node = home.serve(&[]);
    let mut client = Mcp::start(&home, &[]);
    for garbage in ["garbage", "{", "[]", "{\"jsonrpc\":\"2.0\"}", "\u{0}\u{1b}", "{\"id\":1}"] {
        client.line(garbage);
    }
    client.line(&format!("{{\"jsonrpc\":\"2.0\",\"id\":99,\"method\":\"{}\"}}", "x".repeat(9 * 1024 * 1024)));
    let id = client.ask("no/such/method", json!({}));
    assert!(client.answer(id)["error"]["code"].is_i64());
    for (tool, arguments, said) in [
        ("no_such_tool", json!({}), "no tool"),
        ("status", json!({ "x": 1 }), "unknown field"),
        ("call_agent", json!({}), "name a capability"),
        ("call_agent", json!({ "capability": 7 }), "invalid type"),
        ("call_agent", json!({ "capability": "x", "payload_json": "{" }), "not JSON"),
        ("call_agent", json!({ "capability": "x", "timeout_s": -1 }), "timeout_s"),
        ("call_agent", json!({ "capability": "x", "timeout_s": 5, "wait_for_agent_s": 9 }), "no time for the work"),
        ("call_agent", json!({ "capability": "" }), ""),
        ("offer", json!({}), "say in capabilities"),
        ("offer", json!({ "capabilities": [{ "name": "x", "kind": "spoon" }] }), "spoon"),
        ("offer", json!({ "capabilities": [{ "name": "x".repeat(200) }] }), "128"),
        ("next_task", json!({ "wait_s": 1e9 }), "0 to 600"),
        ("next_task", json!({ "capabilities": ["none"] }), "offer"),
        ("reply", json!({ "task_id": "t_none" }), "one of result"),
        ("reply", json!({ "task_id": "t_none", "result": 1 }), "no task"),
        ("progress", json!({ "task_id": "t_none", "text": "x" }), "no task"),
        ("check_call", json!({ "id": "none" }), "no call"),
        ("cancel_call", json!({ "id": "none" }), "no call"),
        ("next_events", json!({ "pattern": "x", "after": "here" }), "no place"),
        ("publish", json!({}), "event_type"),
    ] {
        let refusal = client.refused(tool, arguments.clone());
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains(said), "{tool} {arguments}: {refusal}");
    }
    assert_eq!(client.hang_up(), 0);
}

#[test]
fn a_task_goes_to_an_agent_and_its_answer_comes_back() {
    let (agent_home, caller_home, _one, _two) = two();
    let (mut agent, mut caller) = (Mcp::start(&agent_home, &[]), Mcp::start(&caller_home, &[]));
    offers(&mut agent, &mut caller, "review");
    // Waiting for it all the time, the way a person would have a model do it.
    let call = caller.begin("call_agent", json!({ "node": "one", "payload": { "n": 9_223_372_036_854_775_809_u64 } }));
    let task = agent.call("next_task", json!({ "wait_s": 20 }))["task"].clone();
    assert_eq!((&task["capability"], &task["attempt"]), (&json!("review"), &json!(1)));
    assert_eq!(task["payload"]["n"], 9_223_372_036_854_775_809_u64);
    let id = task["task_id"].clone();
    let told = agent.call("progress", json!({ "task_id": id, "text": "half of it" }));
    assert_eq!(told["lease_ms"], 300_000);
    while caller.progress(call) != "half of it" {}
    agent.call("reply", json!({ "task_id": id, "result_json": "[123456789012345678901234567890]" }));
    let answer = caller.answer(call);
    let text = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("\"payload\":[123456789012345678901234567890]"), "{text}");
    assert!(text.contains("\"parts\":[\"half of it\"]"), "{text}");
    // A number that the structured form would change: there is none then.
    assert!(answer["result"].get("structuredContent").is_none(), "{answer}");
    // Answered is answered.
    assert_eq!(agent.refused("reply", json!({ "task_id": id, "result": 1 }))["code"], "GONE");

    // An error of the agent's own.
    let call = caller.begin("call_agent", json!({ "capability": "review" }));
    let task = agent.call("next_task", json!({ "wait_s": 20 }));
    assert_eq!(task["task"]["payload"], Value::Null);
    agent.call("reply", json!({ "task_id": task["task"]["task_id"], "error": "I don't feel like it" }));
    let refusal = caller.refusal(call);
    assert_eq!((&refusal["code"], &refusal["message"]), (&json!("HANDLER_ERROR"), &json!("I don't feel like it")));

    // Digits that are lost on their way here are not sent.
    let many: Value = serde_json::from_str("[123456789012345678901234567890]").unwrap();
    let call = json!({ "capability": "review", "payload": many });
    assert!(caller.refused("call_agent", call)["message"].as_str().unwrap().contains("payload_json"));
}

#[test]
fn a_call_is_left_alone_and_looked_after_later() {
    let (agent_home, caller_home, _one, _two) = two();
    let (mut agent, mut caller) = (Mcp::start(&agent_home, &[]), Mcp::start(&caller_home, &[]));
    offers(&mut agent, &mut caller, "build");
    let started = caller.call("call_agent", json!({ "capability": "build", "wait": false }));
    let id = started["id"].clone();
    let task = agent.call("next_task", json!({ "wait_s": 20 }))["task"]["task_id"].clone();
    agent.call("progress", json!({ "task_id": task, "text": "compiling" }));
    let check = caller.call("check_call", json!({ "id": id, "wait_s": 20 }));
    assert_eq!(
        (&check["state"], &check["chunks"], &check["next"]),
        (&json!("accepted"), &json!(["compiling"]), &json!(1))
    );
    agent.call("reply", json!({ "task_id": task, "result": "built" }));
    let check = caller.call("check_call", json!({ "id": id, "after": 1, "wait_s": 20 }));
    assert_eq!((&check["state"], &check["outcome"]["payload"]), (&json!("done"), &json!("built")));
    assert_eq!(check["outcome"]["responder_name"], "one");

    // Taken back: its agent hears of it.
    let id = caller.call("call_agent", json!({ "capability": "build", "wait": false }))["id"].clone();
    let task = agent.call("next_task", json!({ "wait_s": 20 }))["task"]["task_id"].clone();
    let cancelled = caller.call("cancel_call", json!({ "id": id }));
    assert_eq!((&cancelled["state"], &cancelled["error"]["code"]), (&json!("failed"), &json!("CANCELLED")));
    eventually("the agent is told", || {
        let id = agent.begin("progress", json!({ "task_id": task, "text": "still at it" }));
        agent.answer(id)["result"]["isError"] == true
    });
    // So is one whose request is cancelled.
    let call = caller.begin("call_agent", json!({ "capability": "build" }));
    let task = agent.call("next_task", json!({ "wait_s": 20 }))["task"]["task_id"].clone();
    caller.cancel(call);
    eventually("the agent is told", || {
        let id = agent.begin("progress", json!({ "task_id": task, "text": "still at it" }));
        agent.answer(id)["result"]["isError"] == true
    });
}

#[test]
fn who_stops_waiting_leaves_the_task_to_the_next() {
    let (agent_home, caller_home, _one, _two) = two();
    let (mut first, mut second) = (Mcp::start(&agent_home, &[]), Mcp::start(&agent_home, &[]));
    let mut caller = Mcp::start(&caller_home, &[]);
    offers(&mut first, &mut caller, "work");
    let waits = first.begin("next_task", json!({ "wait_s": 60 }));
    eventually("it waits", || second.call("status", json!({}))["agents_waiting"] == 1);
    first.cancel(waits);
    eventually("it waits no more", || second.call("status", json!({}))["agents_waiting"] == 0);
    // The other one hangs up while it waits.
    first.begin("next_task", json!({ "wait_s": 60 }));
    eventually("it waits", || second.call("status", json!({}))["agents_waiting"] == 1);
    assert_eq!(first.hang_up(), 0);
    eventually("it waits no more", || second.call("status", json!({}))["agents_waiting"] == 0);
    let call = caller.begin("call_agent", json!({ "capability": "work" }));
    let task = second.call("next_task", json!({ "wait_s": 20 }))["task"].clone();
    assert_eq!(task["attempt"], 1);
    second.call("reply", json!({ "task_id": task["task_id"], "result": 1 }));
    caller.text(call);
    // Nothing comes: that is no error.
    let none = second.call("next_task", json!({ "wait_s": 0.05 }));
    assert!(none["task"].is_null() && none["note"].as_str().unwrap().contains("again"), "{none}");
}

#[test]
fn several_agents_never_get_the_same_task() {
    let (agent_home, caller_home, _one, _two) = two();
    let mut agents: Vec<Mcp> = (0..3).map(|_| Mcp::start(&agent_home, &[])).collect();
    let mut caller = Mcp::start(&caller_home, &[]);
    offers(&mut agents[0], &mut caller, "sum");
    let calls: Vec<u64> =
        (0..12).map(|n| caller.begin("call_agent", json!({ "capability": "sum", "payload": n }))).collect();
    let mut got = Vec::new();
    for _ in 0..4 {
        // All of them wait at once.
        let waits: Vec<u64> =
            agents.iter_mut().map(|agent| agent.begin("next_task", json!({ "wait_s": 20 }))).collect();
        for (agent, waits) in agents.iter_mut().zip(waits) {
            let task: Value = serde_json::from_str(&agent.text(waits)).unwrap();
            let payload = task["task"]["payload"].clone();
            agent.call("reply", json!({ "task_id": task["task"]["task_id"], "result": payload }));
            got.push(payload.as_u64().unwrap());
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..12).collect::<Vec<u64>>());
    for (n, call) in calls.into_iter().enumerate() {
        let answer: Value = serde_json::from_str(&caller.text(call)).unwrap();
        assert_eq!(answer["payload"], n);
    }
}

#[test]
fn a_task_whose_agent_was_killed_goes_to_the_next() {
    let (agent_home, caller_home, _one, _two) = two();
    let (mut first, mut second) = (Mcp::start(&agent_home, &[]), Mcp::start(&agent_home, &[]));
    let mut caller = Mcp::start(&caller_home, &[]);
    offers(&mut first, &mut caller, "work");
    let call = caller.begin("call_agent", json!({ "capability": "work" }));
    let task = first.call("next_task", json!({ "wait_s": 20, "lease_s": 1 }))["task"].clone();
    first.child.0.kill().unwrap();
    let again = second.call("next_task", json!({ "wait_s": 20 }))["task"].clone();
    assert_eq!((&again["task_id"], &again["attempt"]), (&task["task_id"], &json!(2)));
    second.call("reply", json!({ "task_id": again["task_id"], "result": "done" }));
    let answer: Value = serde_json::from_str(&caller.text(call)).unwrap();
    assert_eq!(answer["payload"], "done");
    // Nobody answers at all: an error at the deadline, not silence.
    let call = caller.begin("call_agent", json!({ "capability": "work", "timeout_s": 2 }));
    second.call("next_task", json!({ "wait_s": 20 }));
    assert_eq!(caller.refusal(call)["code"], "TIMEOUT");
}

#[test]
fn a_node_that_was_killed_is_missed_and_found_again() {
    let home = Home::new();
    let mut node = home.serve(&["--name", "phoenix"]);
    let mut client = Mcp::start(&home, &[]);
    client.call("offer", json!({ "capabilities": [{ "name": "rise" }] }));
    let waits = client.begin("next_task", json!({ "wait_s": 60 }));
    eventually("it waits", || client.call("status", json!({}))["agents_waiting"] == 1);
    node.signal(Signal::KILL);
    node.child.wait(common::PATIENCE).unwrap();
    assert_eq!(client.refusal(waits)["code"], "NODE_GONE");
    let refusal = client.refused("find_agents", json!({}));
    assert_eq!(refusal["code"], "NOT_RUNNING");
    assert!(refusal["message"].as_str().unwrap().contains(&*home.path().to_string_lossy()), "{refusal}");
    assert!(refusal["next"].as_str().unwrap().contains("elo serve"), "{refusal}");
    let _node = home.serve(&["--name", "phoenix"]);
    // It knows nothing of the offer: the session does.
    let call = client.begin("next_task", json!({ "wait_s": 20 }));
    eventually("it is offered again", || client.call("status", json!({}))["offers"][0]["name"] == "rise");
    let called = client.begin("call_agent", json!({ "capability": "rise", "payload": "up" }));
    let task: Value = serde_json::from_str(&client.text(call)).unwrap();
    client.call("reply", json!({ "task_id": task["task"]["task_id"], "result": "risen" }));
    assert!(client.text(called).contains("risen"));
}

#[test]
fn an_agent_that_is_away_can_be_waited_for() {
    let (agent_home, caller_home, _one, _two) = two();
    let mut caller = Mcp::start(&caller_home, &[]);
    // Nobody has come yet: the node expects somebody.
    let poll = Home::new();
    let _three = poll.serve(&["--name", "three", "--poll", "--agent", "night", "--peer", &_one.addr()]);
    eventually("it is known", || {
        let found = caller.call("find_agents", json!({ "capability": "night" }));
        found["agents"].as_array().is_some_and(|agents| !agents.is_empty())
    });
    let refusal = caller.refused("call_agent", json!({ "capability": "night" }));
    assert_eq!(refusal["code"], "AGENT_AWAY");
    assert!(refusal["next"].as_str().unwrap().contains("wait_for_agent_s"), "{refusal}");
    let call = caller.begin("call_agent", json!({ "capability": "night", "wait_for_agent_s": 30 }));
    let mut agent = Mcp::start(&poll, &[]);
    let task = agent.call("next_task", json!({ "wait_s": 20 }))["task"].clone();
    agent.call("reply", json!({ "task_id": task["task_id"], "result": "good morning" }));
    assert!(caller.text(call).contains("good morning"));
    drop(agent_home);
}

#[test]
fn events_are_heard_from_where_the_session_was() {
    let (one_home, two_home, _one, _two) = two();
    let (mut hears, mut tells) = (Mcp::start(&one_home, &[]), Mcp::start(&two_home, &[]));
    let first = hears.call("next_events", json!({ "pattern": "build.*", "wait_s": 0 }));
    assert_eq!(first["events"], json!([]));
    let types = |batch: &Value| -> Vec<String> {
        batch["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["event_type"].as_str().unwrap().to_owned())
            .collect()
    };
    // What is published before it is known who listens goes nowhere.
    let mut heard = Vec::new();
    eventually("the interest is known", || {
        tells.call("publish", json!({ "event_type": "build.warm", "data": 1 }));
        heard = types(&hears.call("next_events", json!({ "pattern": "build.*", "wait_s": 0.2 })));
        !heard.is_empty()
    });
    tells.call("publish", json!({ "event_type": "build.failed", "data": { "why": "tests" } }));
    tells.call("publish", json!({ "event_type": "other", "data": 1 }));
    tells.call("publish", json!({ "event_type": "build.done" }));
    let mut got = Vec::new();
    eventually("both are heard", || {
        got.extend(types(&hears.call("next_events", json!({ "pattern": "build.*", "wait_s": 1 }))));
        got.ends_with(&["build.failed".to_owned(), "build.done".to_owned()])
    });
    assert!(got.iter().filter(|kind| *kind == "build.failed").count() == 1, "{got:?}");
    // From an earlier place: all of it again.
    let again = hears.call("next_events", json!({ "pattern": "build.*", "wait_s": 0, "after": first["next"] }));
    assert!(types(&again).contains(&"build.failed".to_owned()), "{again}");
    // A request that is taken back loses nothing.
    let waits = hears.begin("next_events", json!({ "pattern": "late", "wait_s": 60 }));
    eventually("the interest is known", || {
        tells.call("publish", json!({ "event_type": "late" }));
        hears.cancel(waits);
        let batch = hears.call("next_events", json!({ "pattern": "late", "wait_s": 0.2 }));
        !batch["events"].as_array().unwrap().is_empty()
    });
    let id = hears.ask("resources/read", json!({ "uri": "elo://events/recent" }));
    let recent = hears.answer(id)["result"]["contents"][0]["text"].as_str().unwrap().to_owned();
    assert!(recent.contains("build.failed") && !recent.contains("\"other\""), "{recent}");
}

#[test]
fn where_no_node_runs_it_starts_one() {
    let (home, other) = (Home::new(), Home::new());
    let node = other.serve(&["--agent", "echo"]);
    let flags = ["--bind", "127.0.0.1", "--port", "0", "--name", "own", "--peer", &node.addr()];
    let mut client = Mcp::start(&home, &flags);
    eventually("it is connected", || !client.call("peers", json!({}))["peers"].as_array().unwrap().is_empty());
    assert_eq!(client.call("call_agent", json!({ "capability": "echo", "payload": "hi" }))["payload"], "hi");
    // It is the home's node, for other commands and other clients.
    assert_eq!(home.run(["status", "--json"]).json()["node"]["name"], "own");
    let mut second = Mcp::start(&home, &[]);
    assert_eq!(second.call("status", json!({}))["name"], "own");
    home.run(["serve"]).failed(1, "already running");
    assert_eq!(client.hang_up(), 0);
    home.run(["peers"]).failed(1, "no node is running");
    assert_eq!(second.refused("status", json!({}))["code"], "NOT_RUNNING");
    // Told to stop by a signal it ends as well.
    let mut client = Mcp::start(&home, &flags);
    let pid = rustix::process::Pid::from_raw(i32::try_from(client.child.0.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(client.child.wait(common::PATIENCE).unwrap().code(), Some(0));
    home.run(["peers"]).failed(1, "no node is running");
    // A start that fails says why, and nothing on stdout.
    let ran = home.run(["mcp", "--peer", "not a peer"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{}", ran.stderr);
}
