//! The clients of the HTTP API for Python and Node, and the examples made with them: real interpreters, real nodes.
//!
//! `$ELO_PYTHON`, else `python3`, and `node`; without one of them its tests are not run, unless `ELO_INTEROP=1` demands it.
#![cfg(all(unix, feature = "http"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../common/mod.rs"]
mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{Home, PATIENCE, Reaped, Serve, eventually, run_for};
use serde_json::json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A language's interpreter, and the end of its files' names.
#[derive(Clone, Debug)]
struct Language {
    interpreter: String,
    ending: &'static str,
}

fn interpreter(name: String) -> Option<String> {
    let there = Command::new(&name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return Some(name);
    }
    assert!(std::env::var_os("ELO_INTEROP").is_none_or(|value| value != "1"), "ELO_INTEROP needs {name}");
    println!("not run: there is no {name}");
    None
}

fn python() -> Option<Language> {
    let name = std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into());
    Some(Language { interpreter: interpreter(name)?, ending: "py" })
}

fn node() -> Option<Language> {
    Some(Language { interpreter: interpreter("node".into())?, ending: "mjs" })
}

impl Language {
    /// A program in it, beside that node.
    fn program(&self, file: &str, home: &Home, node: &Serve) -> Command {
        let mut command = Command::new(&self.interpreter);
        command.arg(format!("{ROOT}/{file}.{}", self.ending)).env("ELO_HOME", home.path());
        command.env("ELO_HTTP", node.ready["http"].as_str().unwrap()).env_remove("ELO_TOKEN");
        // Nothing is left beside the sources.
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        command
    }

    /// One that goes on.
    fn start(&self, file: &str, home: &Home, node: &Serve, args: &[&str]) -> Running {
        let mut command = self.program(file, home, node);
        let mut child = Reaped(command.args(args).stdout(Stdio::piped()).spawn().unwrap());
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.0.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, lines }
    }
}

/// A program that goes on, until it is dropped.
struct Running {
    child: Reaped,
    lines: Receiver<String>,
}

impl Running {
    #[track_caller]
    fn says(&self, what: &str) {
        let line = self.lines.recv_timeout(PATIENCE).expect("it says something");
        assert!(line.contains(what), "{what:?} is not in {line:?}");
    }
}

fn served(home: &Home, args: &[&str]) -> Serve {
    let mut all = vec!["--http", "127.0.0.1:0"];
    all.extend(args);
    home.serve(&all)
}

/// Everything that a client can do, in its own language.
fn can_do_it_all(language: &Language) {
    let homes = (Home::new(), Home::new());
    let other = served(&homes.1, &["--agent", "echo"]);
    let node = served(&homes.0, &["--peer", &other.addr()]);
    node.event("peer_connected");
    let mut command = language.program("tests/clients/check", &homes.0, &node);
    command.env("OTHER_HTTP", other.ready["http"].as_str().unwrap());
    command.env("OTHER_TOKEN", std::fs::read_to_string(homes.1.file("http.token")).unwrap().trim());
    command.env("OTHER_ID", other.id());
    assert_eq!(run_for(command, Duration::from_secs(120)).ok().lines().last(), Some("all of it"));
}

#[test]
fn the_python_client_does_it_all() {
    if let Some(python) = python() {
        can_do_it_all(&python);
    }
}

#[test]
fn the_node_client_does_it_all() {
    if let Some(node) = node() {
        can_do_it_all(&node);
    }
}

#[test]
fn the_clients_stay_small() {
    for client in ["clients/python/elo_client.py", "clients/node/elo_client.mjs"] {
        let lines = std::fs::read_to_string(format!("{ROOT}/{client}")).unwrap().lines().count();
        assert!(lines < 200, "{client} has {lines} lines");
    }
}

#[test]
fn the_examples_work_for_each_other() {
    let (Some(python), Some(javascript)) = (python(), node()) else { return };
    let homes = (Home::new(), Home::new());
    let one = served(&homes.0, &[]);
    let headline = python.start("examples/agent", &homes.0, &one, &[]);
    headline.says("serving headline");
    let two = served(&homes.1, &["--peer", &one.addr()]);
    let shout = javascript.start("examples/agent", &homes.1, &two, &[]);
    shout.says("serving shout");
    for (capability, payload, answer) in
        [("shout", r#""hello""#, "HELLO"), ("headline", r#""rust agents meet""#, "*** RUST AGENTS MEET ***")]
    {
        let mut said = String::new();
        eventually("it is answered", || {
            let ran =
                Home::new().run(["call", capability, payload, "--peer", &one.addr(), "--peer", &two.addr(), "--json"]);
            said = ran.stdout + &ran.stderr;
            serde_json::from_str(&said).is_ok_and(|outcome: serde_json::Value| outcome["payload"] == answer)
        });
    }
    let ran = Home::new().run(["call", "headline", "17", "--peer", &one.addr()]);
    ran.failed(1, "BAD_REQUEST: the payload is a line of text");
}

/// An agent that is killed while it has a task: another one, in another language, answers.
fn killed_with_a_task(killed: &Language, other: &Language) {
    let home = Home::new();
    let node = served(&home, &[]);
    let doomed = killed.start("tests/clients/agent", &home, &node, &["hang"]);
    doomed.says("serving");
    let mut call = Reaped(home.command(["call", "work", "1", "--json"]).stdout(Stdio::piped()).spawn().unwrap());
    doomed.says("has 1");
    drop(doomed);
    let heir = other.start("tests/clients/agent", &home, &node, &["work"]);
    heir.says("serving");
    heir.says("has 1, as number 2");
    assert!(call.wait(PATIENCE).unwrap().success());
    let outcome: serde_json::Value = serde_json::from_reader(call.0.stdout.take().unwrap()).unwrap();
    assert_eq!(outcome["payload"], json!({"by": other.ending, "of": 1}));
}

#[test]
fn a_task_of_a_killed_python_agent_is_answered_by_another() {
    if let (Some(python), Some(node)) = (python(), node()) {
        killed_with_a_task(&python, &node);
    }
}

#[test]
fn a_task_of_a_killed_node_agent_is_answered_by_another() {
    if let (Some(python), Some(node)) = (python(), node()) {
        killed_with_a_task(&node, &python);
    }
}

/// The node is killed and comes back: its agents offer again, and go on.
fn outlives_its_node(language: &Language) {
    let home = Home::new();
    let mut node = served(&home, &[]);
    let addr = node.ready["http"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let mut agent = language.start("tests/clients/agent", &home, &node, &["work"]);
    agent.says("serving");
    let answer = json!({"by": language.ending, "of": 1});
    let works = || {
        let ran = home.run(["call", "work", "1", "--json", "--timeout", "5s"]);
        serde_json::from_str(&ran.stdout).is_ok_and(|outcome: serde_json::Value| outcome["payload"] == answer)
    };
    eventually("it works", works);
    node.child.0.kill().unwrap();
    node.child.0.wait().unwrap();
    drop(node);
    let _again = Serve::start(home.command(["serve", "--json", "--no-listen", "--http", &addr]));
    eventually("it works again", works);
    assert!(agent.child.0.try_wait().unwrap().is_none());
}

#[test]
fn a_python_agent_outlives_its_node() {
    if let Some(python) = python() {
        outlives_its_node(&python);
    }
}

#[test]
fn a_node_agent_outlives_its_node() {
    if let Some(node) = node() {
        outlives_its_node(&node);
    }
}
