//! A web hook that answers 202, and gives the result to the local HTTP API of its node afterwards.
#![cfg(all(unix, feature = "webhook", feature = "http"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod hook;

use std::io::{Read, Write};
use std::net::TcpStream;

use common::{Home, Ran, Serve, run};
use hook::{Act, Receiver};
use serde_json::{Value, json};

struct Stage {
    home: Home,
    caller: Home,
    node: Serve,
    receiver: Receiver,
}

impl Stage {
    fn new() -> Self {
        let receiver = Receiver::acting(vec![Act::text(202, "later")]);
        let (home, caller) = (Home::new(), Home::new());
        let node = home.serve(&["--agent", "sum", "--webhook", &receiver.url(), "--http", "127.0.0.1:0"]);
        Self { home, caller, node, receiver }
    }

    fn call(&self, more: &[&str]) -> std::thread::JoinHandle<Ran> {
        let addr = self.node.addr();
        let command = self.caller.command([&["call", "sum", "[1,2]", "--peer", &addr], more].concat());
        std::thread::spawn(move || run(command))
    }

    fn reply_url(&self, n: usize) -> String {
        let request = self.receiver.requests(n + 1)[n].clone();
        let url = request.json()["data"]["reply_url"].as_str().unwrap().to_owned();
        let base = self.node.ready["http"].as_str().unwrap();
        assert_eq!(url, format!("{base}/v1/tasks/{}/reply", request.id()));
        url
    }

    /// Posts to the API with the node's token, or another; gives the status.
    fn post(&self, url: &str, token: Option<&str>, body: &Value) -> u16 {
        let (host, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let own = std::fs::read_to_string(self.home.file("http.token")).unwrap();
        let (token, body) = (token.unwrap_or(own.trim()), body.to_string());
        let mut stream = TcpStream::connect(host).unwrap();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[test]
fn the_result_that_is_posted_later_reaches_the_caller() {
    let stage = Stage::new();
    let call = stage.call(&["--stream"]);
    let url = stage.reply_url(0);
    assert_eq!(stage.post(&url, Some("wrong"), &json!({ "result": 0 })), 401);
    assert_eq!(stage.post(&url, None, &json!({ "result": 1, "error": { "message": "both" } })), 422);
    let progress = url.replace("/reply", "/progress");
    assert_eq!(stage.post(&progress, None, &json!({ "data": "half of it" })), 200);
    assert_eq!(stage.post(&url, None, &json!({ "result": { "sum": 3 } })), 204);
    let said = call.join().unwrap().ok();
    assert!(said.contains("half of it") && said.contains("{\"sum\":3}"), "{said}");
    assert_eq!(stage.post(&url, None, &json!({ "result": 4 })), 410, "answered is answered");

    let call = stage.call(&[]);
    let url = stage.reply_url(1);
    let error = json!({ "error": { "code": "BAD_REQUEST", "message": "three numbers are needed" } });
    assert_eq!(stage.post(&url, None, &error), 204);
    call.join().unwrap().failed(1, "three numbers are needed");
    assert_eq!(stage.receiver.so_far().len(), 2, "each was posted once");
}

#[test]
fn what_never_comes_is_told_at_the_deadline_and_what_comes_after_it_is_gone() {
    let stage = Stage::new();
    let call = stage.call(&["--timeout", "1s"]);
    let url = stage.reply_url(0);
    call.join().unwrap().failed(4, "answered 202, to answer later, and did not in its time");
    assert_eq!(stage.post(&url, None, &json!({ "result": 4 })), 410);
    // With a new key the node takes answers as before.
    stage.home.run(["rotate"]).ok();
    let command = stage.home.command(["call", "sum"]);
    let call = std::thread::spawn(move || run(command));
    assert_eq!(stage.post(&stage.reply_url(1), None, &json!({ "result": 4 })), 204);
    assert_eq!(call.join().unwrap().ok(), "4\n");
}
