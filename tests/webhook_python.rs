//! Web hooks and Python: the library of Standard Webhooks verifies what is posted, and `examples/webhook.py` answers.
//!
//! The first is on with `ELO_INTEROP=1`; then an interpreter (`$ELO_PYTHON`, else `python3`) with `standardwebhooks` is
//! required. The second needs no package, and is not run where there is no interpreter.
#![cfg(all(unix, feature = "webhook"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod hook;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use common::{Home, Reaped, eventually, run_with_input};
use hook::{Act, Receiver, Request, private, secret};
use serde_json::{Value, json};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/webhook.py");
const VERIFY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/hook/verify.py");

fn required() -> bool {
    std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1")
}

fn interpreter() -> String {
    std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into())
}

#[test]
fn the_library_of_standard_webhooks_verifies_what_is_posted() {
    if !required() {
        println!("not run: set ELO_INTEROP=1 to verify with the Python package standardwebhooks");
        return;
    }
    let receiver = Receiver::acting(vec![Act::json(&json!("ok"))]);
    let (home, caller) = (Home::new(), Home::new());
    let (old, new) = (secret(24, 1), secret(64, 2));
    let file = private(&home, "secret", &format!("{new}\n{old}\n"));
    let hook = format!("work.*={}", receiver.url());
    let url = receiver.url();
    let node = home.serve(&["--agent", "sum", "--webhook", &url, "--webhook-secret", &file, "--event-hook", &hook]);
    let addr = node.addr();
    caller.run(["call", "sum", "{\"text\":\"dünya 😀 \\u0000\",\"n\":18446744073709551617}", "--peer", &addr]).ok();
    caller.run(["call", "wake", r#"{"capability":"sum"}"#, "--peer", &addr]).ok();
    home.run(["publish", "work.done", "{\"text\":\"ü\"}"]).ok();
    let requests = receiver.requests(3);
    let line = |request: &Request, secret: &str, change: &dyn Fn(&mut Value)| {
        let headers: serde_json::Map<String, Value> =
            request.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let mut line = json!({ "secret": secret, "headers": headers, "body": request.text() });
        change(&mut line);
        format!("{line}\n")
    };
    let as_it_is: &dyn Fn(&mut Value) = &|_| {};
    let mut lines = String::new();
    for request in &requests {
        lines += &line(request, &old, as_it_is);
        lines += &line(request, &new, as_it_is);
    }
    let task = requests.iter().find(|request| request.json()["type"] == "elo.task").unwrap();
    lines += &line(task, &secret(32, 3), as_it_is);
    lines += &line(task, &new, &|line| line["headers"]["webhook-id"] = json!("t_another"));
    lines += &line(task, &new, &|line| line["body"] = json!(line["body"].as_str().unwrap().replace("sum", "mus")));
    let mut python = Command::new(interpreter());
    python.arg(VERIFY);
    let said = run_with_input(python, lines).ok();
    let said: Vec<&str> = said.lines().collect();
    let (types, refused) = said.split_at(2 * requests.len());
    let mut types = types.to_vec();
    types.sort_unstable();
    assert_eq!(types, ["elo.probe", "elo.probe", "elo.task", "elo.task", "work.done", "work.done"]);
    assert_eq!(refused, ["refused: No matching signature found"; 3]);
}

/// Whether there is an interpreter; with `ELO_INTEROP=1` there must be.
fn has_python() -> bool {
    let found = Command::new(interpreter()).arg("--version").output().is_ok_and(|out| out.status.success());
    assert!(found || !required(), "ELO_INTEROP needs Python 3");
    if !found {
        println!("not run: there is no Python");
    }
    found
}

#[test]
fn the_receiver_in_the_document_adds_what_it_is_given() {
    if !has_python() {
        return;
    }
    let document = include_str!("../docs/webhooks.md");
    let program = document.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut command = Command::new(interpreter());
    command.args(["-c", &program.replace("9000", &port)]).stdin(Stdio::null()).stderr(Stdio::null());
    let _receiver = Reaped(command.spawn().unwrap());
    let (home, caller) = (Home::new(), Home::new());
    let node = home.serve(&["--tool", "add", "--webhook", &format!("http://127.0.0.1:{port}/")]);
    let call = || caller.run(["call", "add", "[1, 2.5, 3]", "--peer", &node.addr()]);
    eventually("it listens", || call().code == 0);
    assert_eq!(call().ok(), "6.5\n");
}

#[test]
fn the_example_answers_and_refuses_what_is_not_signed() {
    if !has_python() {
        return;
    }
    let (home, caller) = (Home::new(), Home::new());
    let file = private(&home, "secret", &format!("{}\n{}\n", secret(32, 1), secret(32, 2)));
    let mut command = Command::new(interpreter());
    command.args([EXAMPLE, &file, "0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut example = Reaped(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(example.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap();
    let node = home.serve(&["--agent", "shout", "--webhook", url, "--webhook-secret", &file]);
    let addr = node.addr();
    assert_eq!(caller.run(["call", "shout", "hello", "--peer", &addr]).ok(), "HELLO\n");
    assert_eq!(caller.run(["call", "shout", "[\"again\"]", "--peer", &addr]).ok(), "['AGAIN']\n");
    let woken = caller.run(["call", "wake", r#"{"capability":"shout"}"#, "--peer", &addr, "--json"]).json();
    assert_eq!(woken["payload"]["reach"]["ok"], true, "{woken}");
    // One of the secrets is enough; another one, or none, is not.
    for (name, args) in
        [("one", vec!["--webhook-secret", "one"]), ("other", vec!["--webhook-secret", "other"]), ("none", vec![])]
    {
        let home = Home::new();
        let one = private(&home, "one", &secret(32, 2));
        let other = private(&home, "other", &secret(32, 3));
        let args = args.into_iter().map(|arg| match arg {
            "one" => one.as_str(),
            "other" => other.as_str(),
            arg => arg,
        });
        let args: Vec<&str> = ["--agent", "shout", "--webhook", url].into_iter().chain(args).collect();
        let node = home.serve(&args);
        let ran = caller.run(["call", "shout", "x", "--peer", &node.addr()]);
        match name {
            "one" => assert_eq!(ran.ok(), "X\n"),
            _ => ran.failed(1, "401 Unauthorized"),
        }
    }
}
