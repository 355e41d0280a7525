//! README's "Agents in any language": each of its pieces makes an agent join, and is called from another node.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
#[path = "mcp/mod.rs"]
mod mcp;

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use common::{Home, PATIENCE, Serve};
use mcp::Mcp;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

/// The piece of README in that language behind these words, in the section about agents.
fn piece(after: &str, language: &str) -> String {
    let readme = include_str!("../README.md");
    let (_, section) = readme.split_once("\n## Agents in any language\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let (_, rest) = section.split_once(&format!("**{after}**")).unwrap_or_else(|| panic!("README has no {after:?}"));
    let (_, piece) = rest.split_once(&format!("```{language}\n")).unwrap();
    piece.split_once("```").unwrap().0.to_owned()
}

/// Whether a program is there. With `ELO_INTEROP=1` it must be.
fn has(program: &str) -> bool {
    let runs = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(runs || std::env::var_os("ELO_INTEROP").is_none_or(|value| value != "1"), "ELO_INTEROP needs {program}");
    if !runs {
        println!("not run: there is no {program} here");
    }
    runs
}

/// A port that is free now. The pieces name ports, so each gets one in its place.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program and all that it has started, which end with it.
struct Group(Child);

impl Group {
    fn spawn(mut command: Command) -> Self {
        Self(command.process_group(0).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}

/// A folder like that of the project, where `elo` is on the PATH, and a node's home.
struct Place {
    home: Home,
    path: String,
}

impl Place {
    fn new() -> Self {
        let home = Home::new();
        std::fs::create_dir_all(home.file("bin")).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_elo"), home.file("bin/elo")).unwrap();
        for folder in ["examples", "clients"] {
            let target = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
            std::os::unix::fs::symlink(target, home.file(folder)).unwrap();
        }
        let path = format!("{}:{}", home.file("bin").display(), std::env::var("PATH").unwrap_or_default());
        Self { home, path }
    }

    /// A program in that folder, with the environment of a node that listens there.
    fn program(&self, name: &str, port: u16) -> Command {
        // As `elo` has it, so that no other node is met.
        let elo = self.home.command([""]);
        let mut command = Command::new(name);
        command.env_clear().envs(elo.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", &self.path).env("ELO_BIND", "127.0.0.1").env("ELO_PORT", port.to_string());
        command.current_dir(self.home.path());
        command
    }
}

/// Somebody else's node calls `shout`, as soon as there is one.
fn is_answered(port: u16) {
    let caller = Home::new();
    let peer = format!("127.0.0.1:{port}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ran = caller.run(["call", "shout", r#""hello""#, "--peer", &peer, "--json"]);
        if ran.stdout.contains("\"HELLO\"") {
            return;
        }
        assert!(Instant::now() < deadline, "{} {}", ran.stdout, ran.stderr);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Runs a piece for a shell, with other ports in the place of those it names.
fn shell(piece: &str) {
    let (place, port) = (Place::new(), free_port());
    let piece = piece.replace("9000", &free_port().to_string());
    let mut command = place.program("sh", port);
    command.args(["-e", "-c", &piece]);
    let _running = Group::spawn(command);
    is_answered(port);
}

#[test]
fn a_program() {
    if !has("python3") {
        return;
    }
    shell(&piece("A program", "sh"));
}

#[test]
fn a_web_hook() {
    if !has("python3") || !has("openssl") {
        return;
    }
    shell(&piece("A web hook", "sh"));
}

/// A node with its HTTP API where the clients look for it.
fn with_http(place: &Place) -> (Serve, String) {
    let node = place.home.serve(&["--http", "127.0.0.1:0"]);
    let http = node.ready["http"].as_str().unwrap().to_owned();
    (node, http)
}

fn port_of(node: &Serve) -> u16 {
    node.addr().rsplit_once(':').unwrap().1.parse().unwrap()
}

#[test]
fn a_python_program() {
    if !has("python3") {
        return;
    }
    let place = Place::new();
    let (node, http) = with_http(&place);
    let mut command = place.program("python3", 0);
    command.env("PYTHONPATH", place.home.file("clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("ELO_HTTP", http).args(["-c", &piece("Python and Node programs", "python")]);
    let _running = Group::spawn(command);
    is_answered(port_of(&node));
}

#[test]
fn a_node_program() {
    if !has("node") {
        return;
    }
    let place = Place::new();
    let (node, http) = with_http(&place);
    std::fs::copy(place.home.file("clients/node/elo_client.mjs"), place.home.file("elo_client.mjs")).unwrap();
    place.home.write("agent.mjs", piece("Python and Node programs", "js"));
    let mut command = place.program("node", 0);
    command.env("ELO_HTTP", http).arg("agent.mjs");
    let _running = Group::spawn(command);
    is_answered(port_of(&node));
}

/// What starts the server, as a client's settings say it.
fn server(settings: &Value) -> Vec<String> {
    let args = settings["args"].as_array().unwrap().iter().filter_map(Value::as_str);
    std::iter::once(settings["command"].as_str().unwrap()).chain(args).map(str::to_owned).collect()
}

#[test]
fn an_mcp_client() {
    // The three clients start the same.
    let claude = piece("MCP clients", "sh");
    let claude: Vec<&str> = claude.trim().split_once(" -- ").unwrap().1.split(' ').collect();
    assert_eq!(claude, ["elo", "mcp"]);
    let codex: toml::Table = piece("MCP clients", "toml").parse().unwrap();
    let codex = serde_json::to_value(&codex["mcp_servers"]["elo"]).unwrap();
    let cursor: Value = serde_json::from_str(&piece("MCP clients", "json")).unwrap();
    for settings in [&codex, &cursor["mcpServers"]["elo"]] {
        assert_eq!(server(settings), claude);
    }
    // And what is started so is an agent, once it says so.
    let home = Home::new();
    let node = home.serve(&[]);
    let mut client = Mcp::start(&home, &[]);
    client.call("offer", json!({ "capabilities": [{ "name": "shout" }] }));
    let caller = std::thread::spawn({
        let port = port_of(&node);
        move || is_answered(port)
    });
    // Its first tries may come too early for the offer, and be taken back.
    while !caller.is_finished() {
        let next = client.call("next_task", json!({ "wait_s": 1 }));
        if let Some(task) = next["task"].as_object() {
            let result = task["payload"].as_str().unwrap().to_uppercase();
            let reply = client.begin("reply", json!({ "task_id": task["task_id"], "result": result }));
            client.answer(reply);
        }
    }
    caller.join().unwrap();
}

/// An agent made with the official SDK, which needs `ELO_INTEROP=1` and `ELO_PYTHON`, as the tests of A2A do.
#[test]
fn an_a2a_agent() {
    if std::env::var_os("ELO_INTEROP").is_none_or(|value| value != "1") {
        println!("not run: set ELO_INTEROP=1, and ELO_PYTHON to a Python 3 with a2a-sdk and uvicorn");
        return;
    }
    let python = std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into());
    let (place, agent) = (Place::new(), free_port().to_string());
    let mut command = place.program(&python, 0);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/a2a/agent.py")).args(["JSONRPC", "true", &agent]);
    let _agent = Group::spawn(command);
    let port = free_port();
    let mut command = place.program("sh", port);
    command.args(["-e", "-c", &piece("A2A agents", "sh").replace("9000", &agent)]);
    let _running = Group::spawn(command);
    is_answered(port);
}
