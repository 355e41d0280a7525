//! Real processes of the Python package elo-node, driven by tests.
#![allow(dead_code)] // Each test file uses some of it.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use elo::{Builder, Limits, Node};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::mesh::{eventually, node};

/// How long anything may take. The package itself waits 30 s for results.
const PATIENCE: Duration = Duration::from_secs(40);

/// Whether these tests are on: `ELO_INTEROP=1`, with `$ELO_PYTHON` (default `python3`) that has the package.
pub fn is_on() -> bool {
    let on = std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1");
    if !on {
        println!("not run: set ELO_INTEROP=1 to test with the Python package elo-node 0.5.0");
        return false;
    }
    let name = interpreter();
    let check = "import cryptography, importlib.metadata as m; print(m.version('elo-node'))";
    let output = Command::new(&name).args(["-c", check]).output();
    let output = output.unwrap_or_else(|e| panic!("ELO_INTEROP needs Python 3 with elo-node, can't run {name:?}: {e}"));
    let version = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(version.trim(), "0.5.0", "{name} needs `pip install elo-node==0.5.0`; it said: {errors}");
    true
}

pub fn interpreter() -> String {
    std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into())
}

/// A Python process. It is killed when this is dropped, also by a panic.
pub struct Python {
    child: Child,
    input: ChildStdin,
    lines: mpsc::UnboundedReceiver<Value>,
    /// Lines that came while others were waited for.
    seen: VecDeque<Value>,
    commands: u64,
    pub node_id: String,
    pub port: u16,
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Python {
    /// A node of the package; see `node.py` for the settings.
    pub async fn node(settings: Value) -> Self {
        Self::run("node.py", &[settings.to_string()]).await
    }

    /// Frames by hand, on a connection to this node.
    pub async fn frames(to: &Node) -> Self {
        Self::run("frames.py", &["127.0.0.1".to_owned(), crate::mesh::port_of(to).to_string()]).await
    }

    async fn run(script: &str, arguments: &[String]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
        let mut child = Command::new(interpreter())
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::unbounded_channel();
        // It ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}")));
            }
        });
        let mut python =
            Self { child, input, lines, seen: VecDeque::new(), commands: 0, node_id: String::new(), port: 0 };
        let ready = python.line(|l| l["event"] == "ready").await;
        python.node_id = ready["node_id"].as_str().unwrap().to_owned();
        python.port = ready["port"].as_u64().unwrap_or_default().try_into().unwrap();
        python
    }

    /// Waits for a line of its output.
    pub async fn line(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.seen.iter().position(&wanted) {
            return self.seen.remove(at).unwrap();
        }
        let reading = async {
            loop {
                let line = self.lines.recv().await.expect("the Python process ended");
                if wanted(&line) {
                    return line;
                }
                self.seen.push_back(line);
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("waited in vain for a line")
    }

    /// Writes a line to its input.
    pub fn write(&mut self, line: &Value) {
        self.write_text(&line.to_string());
    }

    /// Writes a line to its input, digit for digit.
    pub fn write_text(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        self.input.flush().unwrap();
    }

    /// Begins a command; [`Self::answer`] gives what comes of it.
    pub fn begin(&mut self, op: &str, mut command: Value) -> u64 {
        self.commands += 1;
        command["op"] = json!(op);
        command["n_command"] = json!(self.commands);
        self.write(&command);
        self.commands
    }

    pub async fn answer(&mut self, command: u64) -> Value {
        let mut line = self.line(|l| l["reply"] == command).await;
        assert!(line.get("failed").is_none(), "{line}");
        line["value"].take()
    }

    /// Gives a command, and waits for its answer.
    pub async fn ask(&mut self, op: &str, command: Value) -> Value {
        let command = self.begin(op, command);
        self.answer(command).await
    }

    /// `send_task`: its result.
    pub async fn call(&mut self, target: &str, capability: &str, payload: Value) -> Value {
        self.ask("call", json!({"target": target, "capability": capability, "payload": payload})).await
    }

    /// Waits until its handler ran.
    pub async fn handled(&mut self, capability: &str) -> Value {
        self.line(|l| l["event"] == "handled" && l["capability"] == capability).await
    }

    /// How often its handler ran for a capability, among the lines that came so far.
    pub fn has_handled(&mut self, capability: &str) -> usize {
        while let Ok(line) = self.lines.try_recv() {
            self.seen.push_back(line);
        }
        self.seen.iter().filter(|l| l["event"] == "handled" && l["capability"] == capability).count()
    }

    /// Waits until so many messages of a type came to it.
    pub async fn received(&mut self, kind: &str, count: u64) {
        while self.ask("counts", json!({})).await["received"][kind].as_u64().unwrap_or(0) < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a frame; only with [`Self::frames`].
    pub async fn frame(&mut self, kind: &str) -> Value {
        let mut line = self.line(|l| l["frame"]["type"] == kind).await;
        line["frame"].take()
    }

    /// Where it listens.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Ends it without a word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A node that admits the package's nodes.
pub fn legacy(name: &str) -> Builder {
    let mut limits = Limits::default();
    // Nobody else is asked in most tests; they needn't wait for them.
    limits.query_wait = Duration::from_millis(500);
    limits.redial_min = Duration::from_millis(50);
    node(name).legacy(true).limits(limits)
}

/// Waits until a node knows a Python node, and that it provides a capability.
pub async fn provides(node: &Node, python: &Python, capability: &str) {
    eventually("the Python node's capability is known", || {
        node.peers()
            .iter()
            .any(|p| p.node_id.to_string() == python.node_id && p.capabilities.iter().any(|c| c.name == capability))
    })
    .await;
}

/// Waits until a node has so many Python nodes for peers.
pub async fn unproven(node: &Node, count: usize) {
    eventually("the Python nodes come or go", || node.peers().iter().filter(|p| !p.proven).count() == count).await;
}
