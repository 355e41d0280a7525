//! An MCP client in a few lines: JSON-RPC over the stdin and stdout of `elo mcp`.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::common::{Home, PATIENCE, Reaped};

/// A client, and the process it talks to.
pub struct Mcp {
    pub child: Reaped,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Messages that came while others were waited for.
    seen: VecDeque<Value>,
    last: u64,
}

impl Mcp {
    /// `elo mcp` in this home, past the first words.
    #[track_caller]
    pub fn start(home: &Home, args: &[&str]) -> Self {
        let mut client = Self::silent(home, args);
        let hello = json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" },
        });
        let id = client.ask("initialize", hello);
        let hello = client.answer(id);
        assert!(hello["result"]["instructions"].as_str().unwrap().contains("next_task"), "{hello}");
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        client
    }

    /// The same, before anything was said.
    #[track_caller]
    pub fn silent(home: &Home, args: &[&str]) -> Self {
        let mut command = home.command(std::iter::once(&"mcp").chain(args));
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = Reaped(spawned.unwrap());
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.0.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let stdin = child.0.stdin.take();
        Self { child, stdin, lines, seen: VecDeque::new(), last: 0 }
    }

    /// Writes a line as it is.
    pub fn line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub fn send(&mut self, message: &Value) {
        self.line(&message.to_string());
    }

    /// Asks, and does not wait.
    pub fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.last, "method": method, "params": params }));
        self.last
    }

    /// Asks for a tool, and does not wait; progress is told of under the request's own number.
    pub fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        let token = self.last + 1;
        self.ask("tools/call", json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": token } }))
    }

    /// Takes a request back.
    pub fn cancel(&mut self, id: u64) {
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } }));
    }

    /// The first message that fits.
    #[track_caller]
    pub fn wait(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.seen.iter().position(&fits) {
            return self.seen.remove(at).unwrap();
        }
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {what}; saw {:?}", self.seen));
            let message: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not of MCP: {line}"));
            if fits(&message) {
                return message;
            }
            self.seen.push_back(message);
        }
    }

    #[track_caller]
    pub fn answer(&mut self, id: u64) -> Value {
        self.wait(&format!("answer to {id}"), |message| message["id"] == id)
    }

    /// What a client was told of a request meanwhile.
    #[track_caller]
    pub fn progress(&mut self, id: u64) -> String {
        let told = self.wait("progress", |message| {
            message["method"] == "notifications/progress" && message["params"]["progressToken"] == id
        });
        told["params"]["message"].as_str().unwrap().to_owned()
    }

    /// The text of a tool's answer, which was well.
    #[track_caller]
    pub fn text(&mut self, id: u64) -> String {
        let answer = self.answer(id);
        assert_eq!(answer["result"]["isError"], false, "{answer}");
        answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// A tool's answer, which was well.
    #[track_caller]
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin(tool, arguments);
        serde_json::from_str(&self.text(id)).unwrap()
    }

    /// What a tool says that refuses.
    #[track_caller]
    pub fn refused(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin(tool, arguments);
        self.refusal(id)
    }

    #[track_caller]
    pub fn refusal(&mut self, id: u64) -> Value {
        let answer = self.answer(id);
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        answer["result"]["structuredContent"].clone()
    }

    /// Hangs up, and waits for its end; gives the exit code.
    #[track_caller]
    pub fn hang_up(mut self) -> i32 {
        drop(self.stdin.take());
        self.child.wait(PATIENCE).expect("elo mcp ends when its client hangs up").code().unwrap_or(-1)
    }
}
