//! Agents that come for their tasks.

use std::thread;

use serde_json::json;

use crate::client::{answer, served};
use crate::common::{Home, eventually};

#[test]
fn offers_come_and_go() {
    let home = Home::new();
    let (_node, api) = served(&home, &["--agent", "own"]);
    api.post("/v1/tasks/next", r#"{"wait_s": 0}"#).problem(404, "NOT_FOUND");
    let offered = api.ask("PUT", "/v1/offers/a%2Fb", r#"{"kind": "tool", "description": "Does it."}"#).json(200);
    assert_eq!((&offered["name"], &offered["kind"]), (&json!("a/b"), &json!("tool")));
    assert_eq!((&offered["reach"]["by"], &offered["reach"]["ok"]), (&json!("poll"), &json!(true)));
    // Without a body it is an agent.
    assert_eq!(api.ask("PUT", "/v1/offers/plain", "").json(200)["kind"], "agent");
    let offers = api.get("/v1/offers").json(200);
    let names: Vec<&str> = offers["offers"].as_array().unwrap().iter().map(|o| o["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a/b", "plain"]);
    let provided = api.get("/v1/status").json(200)["node"]["capabilities"].as_array().unwrap().len();
    assert_eq!(provided, 3);

    let problem = api.ask("PUT", "/v1/offers/own", "{}").problem(409, "CONFLICT");
    assert!(problem["detail"].as_str().unwrap().contains("another name"), "{problem}");
    api.ask("PUT", "/v1/offers/x", r#"{"kind": "robot"}"#).problem(422, "BAD_REQUEST");
    api.ask("PUT", &format!("/v1/offers/{}", "x".repeat(129)), "{}").problem(400, "BAD_REQUEST");
    let long = format!(r#"{{"description": "{}"}}"#, "x".repeat(1001));
    api.ask("PUT", "/v1/offers/x", &long).problem(422, "BAD_REQUEST");

    api.post("/v1/tasks/next", r#"{"capabilities": ["other"]}"#).problem(404, "NOT_FOUND");
    assert_eq!(api.post("/v1/tasks/next", r#"{"wait_s": 0.1}"#).status, 204);
    let waiting = api.send("POST", "/v1/tasks/next", &[], r#"{"capabilities": ["plain"], "wait_s": 20}"#);
    eventually("it waits", || api.agents()["agents_waiting"] == 1);
    assert_eq!(api.ask("DELETE", "/v1/offers/plain", "").status, 204);
    answer(waiting).problem(410, "GONE");
    api.ask("DELETE", "/v1/offers/plain", "").problem(404, "NOT_FOUND");
}

#[test]
fn each_task_goes_to_one_agent() {
    const TASKS: usize = 60;
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    api.offer("work");
    let agents: Vec<_> = (0..8)
        .map(|_| {
            let api = api.clone();
            thread::spawn(move || {
                let mut done = Vec::new();
                loop {
                    let next = api.post("/v1/tasks/next", r#"{"wait_s": 5}"#);
                    if next.status == 204 {
                        return done;
                    }
                    let task = next.json(200);
                    assert_eq!(task["attempt"], 1);
                    let payload = task["payload"].as_u64().unwrap();
                    assert_eq!(api.reply(&task, &format!(r#"{{"result": {payload}}}"#)).status, 204);
                    done.push(payload);
                }
            })
        })
        .collect();
    let calls: Vec<_> = (0..TASKS)
        .map(|n| {
            let body = format!(r#"{{"capability": "work", "payload": {n}}}"#);
            api.send("POST", "/v1/calls", &[], &body)
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(answer(call).json(200)["payload"], n);
    }
    let mut done: Vec<u64> = agents.into_iter().flat_map(|agent| agent.join().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, (0..TASKS as u64).collect::<Vec<_>>());
}

#[test]
fn a_task_of_an_agent_that_is_gone_goes_to_the_next_one() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    api.offer("work");
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work"}"#);
    let first = api.take(r#"{"wait_s": 20, "lease_s": 1}"#);
    assert_eq!((&first["attempt"], &first["lease_ms"]), (&json!(1), &json!(1000)));
    // It says no more.
    let second = api.take(r#"{"wait_s": 20, "lease_s": 60}"#);
    assert_eq!((&second["task_id"], &second["attempt"]), (&first["task_id"], &json!(2)));
    assert_eq!(api.reply(&second, r#"{"result": "by the second"}"#).status, 204);
    // The first one was only slow.
    api.reply(&first, r#"{"result": "late"}"#).problem(410, "GONE");
    assert_eq!(answer(call).json(200)["payload"], "by the second");
}

#[test]
fn an_agent_that_shows_that_it_works_keeps_its_task() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    api.offer("work");
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work"}"#);
    let task = api.take(r#"{"wait_s": 20, "lease_s": 2}"#);
    let other = api.send("POST", "/v1/tasks/next", &[], r#"{"wait_s": 4}"#);
    // Twice as long as its lease, by the clock of what others wait for.
    let (sender, over) = std::sync::mpsc::channel();
    let watching = thread::spawn(move || sender.send(answer(other).status));
    let status = loop {
        let told = api.progress(&task, "").json(200);
        assert_eq!(told["lease_ms"], 2000);
        if let Ok(status) = over.recv_timeout(std::time::Duration::from_millis(200)) {
            break status;
        }
    };
    watching.join().unwrap().unwrap();
    assert_eq!(status, 204, "another one was given the task");
    assert_eq!(api.reply(&task, r#"{"result": 1}"#).status, 204);
    assert_eq!(answer(call).json(200)["payload"], 1);
}

#[test]
fn a_task_that_nobody_answers_ends_with_an_error() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    api.offer("work");
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work", "timeout_s": 2}"#);
    let task = api.take(r#"{"wait_s": 20}"#);
    answer(call).problem(504, "TIMEOUT");
    eventually("it is over", || api.progress(&task, "").status == 410);
}

#[test]
fn an_answer_that_does_not_fit_leaves_the_task_with_its_agent() {
    let home = Home::new();
    let (_node, api) = served(&home, &[]);
    api.offer("work");
    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work"}"#);
    let task = api.take(r#"{"wait_s": 20}"#);
    let deep = format!(r#"{{"result": {}1{}}}"#, "[".repeat(70), "]".repeat(70));
    let large = format!(r#"{{"result": "{}"}}"#, "x".repeat(1_000_000));
    api.reply(&task, &deep).problem(400, "BAD_REQUEST");
    api.reply(&task, &large).problem(413, "TOO_LARGE");
    api.progress(&task, &large.replace("result", "data")).problem(413, "TOO_LARGE");
    for wrong in [
        "{}",
        r#"{"result": 1, "error": {"message": "x"}}"#,
        r#"{"error": "x"}"#,
        r#"{"error": {"message": "x", "code": "NO_SUCH"}}"#,
        r#"{"error": {"message": "x", "retry_after_s": -1}}"#,
        r#"{"reslut": 1}"#,
        "[1, null]",
    ] {
        api.reply(&task, wrong).problem(422, "BAD_REQUEST");
    }
    assert_eq!(api.reply(&task, r#"{"result": "fits"}"#).status, 204);
    assert_eq!(answer(call).json(200)["payload"], "fits");
    api.post("/v1/tasks/t_never/reply", r#"{"result": 1}"#).problem(410, "GONE");
}
