//! Calls through the API, to agents behind the API of another node.

use std::thread;

use serde_json::{Value, json};

use crate::client::{Api, answer, served};
use crate::common::{Home, Serve, eventually};

/// Two nodes that are connected; the second one's agents are called through the first one.
struct Pair {
    caller: Api,
    agent: Api,
    _nodes: (Serve, Serve),
    _homes: (Home, Home),
}

fn pair(args: &[&str]) -> Pair {
    let homes = (Home::new(), Home::new());
    let (other, agent) = served(&homes.1, args);
    let (node, caller) = served(&homes.0, &["--peer", &other.addr()]);
    node.event("peer_connected");
    Pair { caller, agent, _nodes: (node, other), _homes: homes }
}

impl Pair {
    /// Offers it, and waits until the caller's node knows.
    fn offer(&self, name: &str) {
        self.agent.offer(name);
        let path = format!("/v1/agents?capability={name}&wait_s=1");
        eventually("it is found", || self.caller.get(&path).json(200)["agents"] != json!([]));
    }
}

#[test]
fn a_call_is_answered_digit_for_digit() {
    let pair = pair(&[]);
    pair.offer("sum");
    let agent = pair.agent.clone();
    let serving = thread::spawn(move || {
        let task = agent.post("/v1/tasks/next", r#"{"capabilities": ["sum"], "wait_s": 20}"#);
        assert!(task.text().contains("[12345678901234567890123,0.1]"), "digits were lost: {}", task.text());
        let task = task.json(200);
        agent.reply(&task, r#"{"result": 98765432109876543210987}"#);
        task
    });
    let outcome = pair.caller.post("/v1/calls", r#"{"capability": "sum", "payload": [12345678901234567890123, 0.1]}"#);
    assert!(outcome.text().contains("\"payload\":98765432109876543210987,"), "{}", outcome.text());
    let outcome = outcome.json(200);
    let task = serving.join().unwrap();
    assert_eq!(outcome["responder"], pair.agent.get("/v1/status").json(200)["node"]["node_id"]);
    assert_eq!(task["caller"], pair.caller.get("/v1/status").json(200)["node"]["node_id"]);
    assert_eq!((&outcome["route"], &outcome["verified"]), (&json!("direct"), &json!(true)));
    assert_eq!((&task["id"], &task["attempt"]), (&outcome["id"], &json!(1)));
}

#[test]
fn what_goes_wrong_is_told_with_what_is_known() {
    let pair = pair(&["--agent", "echo"]);
    let problem = pair.caller.post("/v1/calls", r#"{"capability": "nobody", "timeout_s": 5}"#).problem(503, "NO_PEER");
    assert_eq!(problem["delivery"], "not_sent");
    assert!(problem["tried"].as_array().is_some_and(|tried| !tried.is_empty()), "{problem}");

    pair.offer("grumpy");
    for (reply, status, code, retry) in [
        (r#"{"error": {"message": "I would rather not"}}"#, 502, "HANDLER_ERROR", None),
        (r#"{"error": {"message": "I would rather not", "code": "BAD_REQUEST"}}"#, 400, "BAD_REQUEST", None),
        (r#"{"error": {"message": "I would rather not", "code": "INTERNAL"}}"#, 502, "INTERNAL", None),
        (r#"{"error": {"message": "I would rather not", "code": "RATE_LIMITED"}}"#, 429, "RATE_LIMITED", None),
        (
            r#"{"error": {"message": "I would rather not", "code": "OVERLOADED", "retry_after_s": 7}}"#,
            503,
            "OVERLOADED",
            Some("7"),
        ),
    ] {
        let agent = pair.agent.clone();
        let serving = thread::spawn(move || agent.reply(&agent.take(r#"{"wait_s": 20}"#), reply).status);
        let answer = pair.caller.post("/v1/calls", r#"{"capability": "grumpy"}"#);
        let problem = answer.problem(status, code);
        assert_eq!(problem["delivery"], "answered");
        assert_eq!(answer.headers.get("retry-after").map(String::as_str), retry);
        assert_eq!(serving.join().unwrap(), 204);
    }
    // Whoever waits longer than there is time for hears of that.
    pair.caller.post("/v1/calls", r#"{"capability": "grumpy", "timeout_s": 1}"#).problem(504, "TIMEOUT");
}

#[test]
fn parts_of_the_answer_come_as_they_are_made() {
    let pair = pair(&[]);
    pair.offer("count");
    let agent = pair.agent.clone();
    let serving = thread::spawn(move || {
        let task = agent.take(r#"{"wait_s": 20}"#);
        for n in 1..=3 {
            agent.progress(&task, &format!(r#"{{"data": {{"n": {n}}}}}"#)).json(200);
        }
        // A sign of life is no part of it.
        agent.progress(&task, "").json(200);
        agent.reply(&task, r#"{"result": null}"#).status
    });
    let stream = pair.caller.stream("POST", "/v1/calls", &[], r#"{"capability": "count"}"#);
    let sent: Vec<_> = stream.map(|sent| (sent.name, sent.data)).collect();
    assert_eq!(serving.join().unwrap(), 204);
    let names: Vec<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["sent", "accepted", "chunk", "chunk", "chunk", "outcome"]);
    assert_eq!(sent[4].1, json!({"n": 3}));
    assert_eq!((&sent[5].1["payload"], &sent[5].1["chunks"]), (&Value::Null, &json!(3)));

    let mut stream = pair.caller.stream("POST", "/v1/calls", &[], r#"{"capability": "nobody"}"#);
    let last = stream.find(|sent| sent.name == "error").unwrap();
    assert_eq!((&last.data["code"], &last.data["status"]), (&json!("NO_PEER"), &json!(503)));
    assert!(stream.next().is_none());
}

#[test]
fn a_call_is_looked_after_while_its_caller_is_away() {
    let pair = pair(&[]);
    pair.offer("slow");
    let started = pair.caller.post("/v1/calls", r#"{"capability": "slow", "async": true}"#);
    let place = started.headers["location"].clone();
    let id = started.json(202)["id"].as_str().unwrap().to_owned();
    assert_eq!(place, format!("/v1/calls/{id}"));
    let call = pair.caller.get(&place).json(200);
    assert!(["sent", "accepted"].contains(&call["state"].as_str().unwrap()), "{call}");

    let task = pair.agent.take(r#"{"wait_s": 20}"#);
    for n in 0..3 {
        pair.agent.progress(&task, &format!(r#"{{"data": {n}}}"#)).json(200);
    }
    eventually("they came", || pair.caller.get(&place).json(200)["next"] == 3);
    let call = pair.caller.get(&format!("{place}?after=1&wait_s=20")).json(200);
    assert_eq!((&call["chunks"], &call["state"]), (&json!([1, 2]), &json!("accepted")));

    let mut stream = pair.caller.stream("GET", &format!("{place}/events"), &["Last-Event-ID: 1"], "");
    let first = stream.next().unwrap();
    assert_eq!((first.name.as_str(), first.id.as_str(), &first.data), ("chunk", "2", &json!(2)));
    let waiting = pair.caller.send("GET", &format!("{place}?after=3&wait_s=20"), &[], "");
    pair.agent.reply(&task, r#"{"result": "done"}"#);
    let call = answer(waiting).json(200);
    assert_eq!((&call["state"], &call["outcome"]["payload"]), (&json!("done"), &json!("done")));
    let last = stream.next().unwrap();
    assert_eq!((last.name.as_str(), &last.data["payload"]), ("outcome", &json!("done")));
    assert!(stream.next().is_none());
    pair.caller.get("/v1/calls/nothing").problem(404, "NOT_FOUND");
    pair.caller.get("/v1/calls/nothing/events").problem(404, "NOT_FOUND");
}

#[test]
fn a_call_is_taken_back() {
    let pair = pair(&[]);
    pair.offer("slow");
    let id = pair.caller.post("/v1/calls", r#"{"capability": "slow", "async": true}"#).json(202)["id"].clone();
    let task = pair.agent.take(r#"{"wait_s": 20}"#);
    let call = pair.caller.ask("DELETE", &format!("/v1/calls/{}", id.as_str().unwrap()), "").json(200);
    assert_eq!((&call["state"], &call["error"]["code"]), (&json!("failed"), &json!("CANCELLED")));
    eventually("its agent hears of it", || pair.agent.progress(&task, "").status == 410);
    pair.agent.reply(&task, r#"{"result": 1}"#).problem(410, "GONE");

    // Whoever hangs up takes it back as well, waiting for an answer or reading a stream.
    for headers in [&[][..], &["Accept: text/event-stream"]] {
        let waiting = pair.caller.send("POST", "/v1/calls", headers, r#"{"capability": "slow"}"#);
        let task = pair.agent.take(r#"{"wait_s": 20}"#);
        pair.agent.progress(&task, "").json(200);
        drop(waiting);
        eventually("its agent hears of it", || pair.agent.progress(&task, "").status == 410);
    }
}

#[test]
fn an_agent_that_is_away_is_told_or_waited_for() {
    let pair = pair(&["--agent", "sleepy", "--poll"]);
    let problem = pair.caller.post("/v1/calls", r#"{"capability": "sleepy"}"#).problem(503, "AGENT_AWAY");
    assert_eq!(problem["delivery"], "answered");
    let waiting = pair.caller.send("POST", "/v1/calls", &[], r#"{"capability": "sleepy", "wait_for_agent_s": 30}"#);
    eventually("it waits", || pair.agent.agents()["tasks_waiting"] == 1);
    let task = pair.agent.take(r#"{"capabilities": ["sleepy"]}"#);
    pair.agent.reply(&task, r#"{"result": "good morning"}"#);
    assert_eq!(answer(waiting).json(200)["payload"], "good morning");

    // Now it was there.
    let id = pair.agent.get("/v1/status").json(200)["node"]["node_id"].as_str().unwrap().to_owned();
    let awake = pair.caller.get(&format!("/v1/wake/{id}/sleepy")).json(200);
    assert_eq!((&awake["reach"]["by"], &awake["reach"]["ok"]), (&json!("poll"), &json!(true)));
    assert_eq!(awake["responder"], id);
    pair.caller.get(&format!("/v1/wake/{id}/nothing")).problem(404, "UNKNOWN_CAPABILITY");
}

#[test]
fn others_are_listed() {
    let pair = pair(&["--name", "box", "--agent", "echo"]);
    let peers = pair.caller.get("/v1/peers").json(200);
    assert_eq!(peers["missing"], json!([]));
    assert_eq!(peers["peers"][0]["way"], "direct");
    let found = pair.caller.get("/v1/agents?capability=echo&wait_s=1").json(200);
    assert_eq!(found["agents"][0]["name"], "box");
    assert_eq!(found["agents"][0]["capabilities"][0]["details"]["reach"]["by"], "process");
    assert!(!found["tried"].as_array().unwrap().is_empty());
    assert_eq!(pair.caller.get("/v1/agents").json(200)["agents"].as_array().unwrap().len(), 2);
    pair.caller.get("/v1/agents?capability=%00").problem(400, "BAD_REQUEST");
    pair.caller.get("/v1/agents?wait_s=31").problem(422, "BAD_REQUEST");
}
