//! Nodes that stop, are killed, come back, and change their key.

use rustix::process::Signal;
use serde_json::json;

use crate::client::{Api, answer, served};
use crate::common::{Home, Serve, eventually};

#[test]
fn who_waits_when_the_node_stops_is_told() {
    let home = Home::new();
    let (node, api) = served(&home, &[]);
    api.offer("work");
    let task = api.send("POST", "/v1/tasks/next", &[], r#"{"wait_s": 600}"#);
    let events = api.send("GET", "/v1/events?wait_s=600", &[], "");
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "nobody", "timeout_s": 600}"#);
    let stream = api.stream("GET", "/v1/events", &[], "");
    eventually("they wait", || api.agents()["agents_waiting"] == 1 && api.agents()["feeds"] == 1);
    node.signal(Signal::TERM);
    answer(task).problem(503, "STOPPED");
    answer(events).problem(503, "STOPPED");
    assert_eq!(answer(call).status, 503);
    assert_eq!(stream.skip(1).count(), 0);
    assert_eq!(node.ended().0, 0);
}

#[test]
fn a_node_that_was_killed_comes_back_with_its_token() {
    let home = Home::new();
    let (mut node, api) = served(&home, &[]);
    api.offer("work");
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work"}"#);
    let task = api.take(r#"{"wait_s": 20}"#);
    let place = api.get("/v1/events?pattern=test").json(200)["next"].as_str().unwrap().to_owned();
    node.child.0.kill().unwrap();
    node.child.0.wait().unwrap();
    let mut said = Vec::new();
    drop(std::io::Read::read_to_end(&mut &call, &mut said));
    assert_eq!(said, b"", "nobody answers for it");
    drop(node);

    let args = ["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--http", &api.addr];
    let again = Serve::start(home.command(args));
    let same = Api::of(&home, &again);
    assert_eq!((&same.addr, &same.token), (&api.addr, &api.token));
    // What it had in memory is gone, and everybody who comes back hears so.
    api.reply(&task, r#"{"result": 1}"#).problem(410, "GONE");
    api.post("/v1/tasks/next", "{}").problem(404, "NOT_FOUND");
    let heard = api.get(&format!("/v1/events?pattern=test&after={place}")).json(200);
    assert_eq!((&heard["restarted"], &heard["events"]), (&json!(true), &json!([])));
    api.offer("work");
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work"}"#);
    let task = api.take(r#"{"wait_s": 20}"#);
    api.reply(&task, r#"{"result": "again"}"#);
    assert_eq!(answer(call).json(200)["payload"], "again");
}

#[test]
fn a_new_key_changes_nothing_for_agents() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    api.offer("work");
    let before = api.get("/v1/status").json(200)["node"]["node_id"].clone();
    let waiting = api.send("POST", "/v1/tasks/next", &[], r#"{"capabilities": ["work"], "wait_s": 60}"#);
    let mut stream = api.stream("GET", "/v1/events?pattern=test", &[], "");
    eventually("it waits", || api.agents()["agents_waiting"] == 1);
    home.run(["rotate"]).ok();
    let after = api.get("/v1/status").json(200)["node"]["node_id"].clone();
    assert_ne!(before, after);
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work"}"#);
    let task = answer(waiting).json(200);
    assert_eq!(task["caller"], after);
    api.reply(&task, r#"{"result": "by the same agent"}"#);
    assert_eq!(answer(call).json(200)["payload"], "by the same agent");
    api.post("/v1/events", r#"{"type": "test", "data": 1}"#).json(200);
    assert_eq!(stream.nth(1).unwrap().data["origin"], after);
}
