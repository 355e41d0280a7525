//! Ten thousand agents that wait.

use std::io::Write;
use std::net::TcpStream;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::client::{answer, served};
use crate::common::proc::memory_kib;
use crate::common::{Home, eventually};

const AGENTS: usize = 10_000;

/// Descriptors for them all, and for what else there is.
const DESCRIPTORS: u64 = AGENTS as u64 + 2_000;

/// Raises this process's soft limit, and that of those it starts.
fn enough_descriptors() -> bool {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= DESCRIPTORS) {
        return true;
    }
    let raised = Rlimit { current: Some(DESCRIPTORS), ..limit };
    limit.maximum.is_none_or(|most| most >= DESCRIPTORS) && setrlimit(Resource::Nofile, raised).is_ok()
}

#[test]
fn ten_thousand_wait_and_one_gets_the_task() {
    if !enough_descriptors() {
        println!("not run: {DESCRIPTORS} descriptors are needed, and the hard limit is lower (ulimit -Hn)");
        return;
    }
    let home = Home::new();
    let (node, api) = served(&home, &["--agent", "echo"]);
    api.offer("work");
    let head = format!(
        "POST /v1/tasks/next HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n",
        api.token
    );
    let body = r#"{"wait_s": 600, "lease_s": 60}"#;
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    let pid = node.child.0.id();
    let before = memory_kib(pid, "VmRSS");
    let agents: Vec<TcpStream> = (0..AGENTS)
        .map(|_| {
            let mut agent = api.connect();
            agent.write_all(request.as_bytes()).unwrap();
            agent
        })
        .collect();
    eventually("all of them wait", || api.agents()["agents_waiting"] == AGENTS);
    println!("{} KiB for each that waits", (memory_kib(pid, "VmRSS") - before) / AGENTS as u64);
    // The node has time for others.
    api.bare("GET", "/health", &[]).json(200);
    api.post("/v1/calls", r#"{"capability": "echo", "payload": 1}"#).json(200);

    let call = api.send("POST", "/v1/calls", &[], r#"{"capability": "work", "payload": "for one"}"#);
    let mut had = Vec::new();
    eventually("one is given it", || {
        had = (0..AGENTS).filter(|n| has_something(&agents[*n])).collect();
        !had.is_empty()
    });
    assert_eq!(api.agents()["tasks_leased"], 1);
    let task = answer(&agents[had[0]]).json(200);
    assert_eq!(task["payload"], "for one");
    assert_eq!(api.reply(&task, r#"{"result": "by one"}"#).status, 204);
    assert_eq!(answer(call).json(200)["payload"], "by one");
    assert_eq!((0..AGENTS).filter(|n| has_something(&agents[*n])).count(), 0, "more than one was given something");
    assert_eq!(api.agents()["agents_waiting"], AGENTS - 1);

    drop(agents);
    eventually("all of them left", || api.agents()["agents_waiting"] == 0);
    api.bare("GET", "/health", &[]).json(200);
}

fn has_something(agent: &TcpStream) -> bool {
    agent.set_nonblocking(true).unwrap();
    let has = agent.peek(&mut [0]).is_ok();
    agent.set_nonblocking(false).unwrap();
    has
}
