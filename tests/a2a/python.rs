//! The official A2A SDK for Python drives the gateway, and is driven by a node.
//!
//! On with `ELO_INTEROP=1`; then an interpreter (`$ELO_PYTHON`, else `python3`) with `a2a-sdk[http-server]` 1.x and `uvicorn`
//! is required.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::served;
use crate::common::{Home, PATIENCE, Ran, Reaped, Serve, eventually, run_for};

/// The interpreter, if these tests are on.
fn python() -> Option<String> {
    if std::env::var_os("ELO_INTEROP").is_none_or(|value| value != "1") {
        println!("not run: set ELO_INTEROP=1, and ELO_PYTHON to a Python 3 with a2a-sdk and uvicorn");
        return None;
    }
    let name = std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into());
    let output = Command::new(&name).args(["-c", "import a2a.server.routes, uvicorn"]).output();
    let output = output.unwrap_or_else(|e| panic!("ELO_INTEROP needs Python 3, can't run {name:?}: {e}"));
    assert!(output.status.success(), "{name} has no a2a-sdk: {}", String::from_utf8_lossy(&output.stderr));
    Some(name)
}

fn script(name: &str) -> String {
    format!("{}/tests/a2a/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn drive(binding: &str) {
    let Some(python) = python() else { return };
    let (answering, streaming, home) = (Home::new(), Home::new(), Home::new());
    let exec = format!("{python} {}", script("agent_exec.py"));
    let args = ["--agent", "echo", "--agent", "slow", "--agent", "fail", "--max-tasks", "8", "--exec", &exec];
    let answers = answering.serve(&args);
    let streams = streaming.serve(&["--agent", "count", "--exec", &exec, "--exec-stream"]);
    let (_node, api) = served(&home, &["--agent", "here", "--peer", &answers.addr(), "--peer", &streams.addr()]);
    eventually("the three have met", || api.get("/v1/peers").text().matches("\"node_id\"").count() == 2);
    let mut command = Command::new(python);
    command.args([&script("gateway.py"), binding, &api.url(), &api.token]);
    let ran = run_for(command, Duration::from_secs(120));
    assert_eq!(ran.code, 0, "{}\n{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 11, "{}", ran.stdout);
    assert!(ran.stdout.ends_with("ok: version\n"), "{}", ran.stdout);
}

#[test]
fn the_sdk_drives_the_gateway_over_json_rpc() {
    drive("JSONRPC");
}

#[test]
fn the_sdk_drives_the_gateway_over_http() {
    drive("HTTP+JSON");
}

/// An agent made with the SDK.
struct Agent {
    _child: Reaped,
    lines: Receiver<String>,
    url: String,
}

impl Agent {
    fn start(python: &str, args: &[&str]) -> Self {
        let mut command = Command::new(python);
        command.arg(script("agent.py")).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Reaped(command.spawn().unwrap());
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.0.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut agent = Self { _child: child, lines, url: String::new() };
        agent.url = agent.told("url").as_str().unwrap().to_owned();
        agent
    }

    /// The next that it tells of that.
    #[track_caller]
    fn told(&self, what: &str) -> Value {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("it tells of {what}: {e}"));
            let line: Value = serde_json::from_str(&line).unwrap();
            if let Some(told) = line.get(what) {
                return told.clone();
            }
        }
    }
}

fn is_driven(binding: &str, streaming: &str) {
    let Some(python) = python() else { return };
    let agent = Agent::start(&python, &[binding, streaming]);
    let (outer, inner) = (Home::new(), Home::new());
    let node = outer.serve(&["--a2a-agent", &agent.url]);
    let caller: Serve = inner.serve(&["--peer", &node.addr()]);
    eventually("its skills are found in the mesh", || {
        let found = inner.run(["find", "shout", "--json", "--timeout", "1s"]);
        found.code == 0 && found.stdout.contains("\"by\":\"a2a\"")
    });
    let call = |args: &[&str]| -> Ran { inner.run([&["call"], args].concat()) };
    assert_eq!(call(&["shout", "\"quiet\""]).ok(), "QUIET\n");
    assert_eq!(call(&["greet", "1"]).ok(), "hello\n");
    assert_eq!(call(&["count", "{\"n\": 3}"]).ok(), "0 1 2 \n");
    let parts = call(&["count", "{\"n\": 3}", "--stream"]).ok();
    match streaming {
        "streaming" => assert_eq!(parts, "0 \n1 \n2 \n0 1 2 \n"),
        _ => assert_eq!(parts, "0 1 2 \n"),
    }
    let files = call(&["files", r#"{"parts": [{"text": "a"}, {"raw": "AQI=", "filename": "f"}]}"#]).json();
    let expected = json!({"parts": [{"data": {"kinds": ["text", "raw"]}}, {"raw": "AQI=", "filename": "two.bin"}]});
    assert_eq!(files, expected);
    for (skill, said) in
        [("fail", "out of paint"), ("reject", "not my kind of work"), ("ask", "which colour?"), ("big", "TOO_LARGE")]
    {
        let ran = call(&[skill, "\"x\""]);
        assert!(ran.code != 0 && ran.stderr.contains(said), "{ran:?}");
    }
    // Nobody gives it more input: it is told that it is over.
    assert!(agent.told("cancelled").is_string());
    call(&["slow", "1", "--timeout", "3s"]).failed(4, "TIMEOUT");
    assert!(agent.told("cancelled").is_string());
    drop(agent);
    call(&["shout", "\"x\""]).failed(3, "AGENT_AWAY");
    drop(caller);
}

#[test]
fn an_agent_of_the_sdk_is_driven_as_a_stream_over_json_rpc() {
    is_driven("JSONRPC", "streaming");
}

#[test]
fn an_agent_of_the_sdk_is_driven_by_polling_over_http() {
    is_driven("HTTP+JSON", "polling");
}

#[test]
fn an_agent_of_the_sdk_is_driven_as_a_stream_over_http() {
    is_driven("HTTP+JSON", "streaming");
}
