//! The official MCP SDKs for Python and TypeScript drive `elo mcp` over both transports, against real nodes behind a tracker.
//!
//! On with `ELO_INTEROP=1`; then an interpreter (`$ELO_PYTHON`, else `python3`) with `mcp` is required, and npm (or
//! `$ELO_NPM`, a folder whose node_modules has the SDK) with Node.js.
#![cfg(all(unix, feature = "mcp"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{Home, Serve, run_for};
use serde_json::{Value, json};

const PYTHON: &str = "2.3.0";
const NPM: &str = "@modelcontextprotocol/sdk@1.32.2";

/// How long a whole script may take.
const SCRIPT: Duration = Duration::from_secs(300);

fn is_on() -> bool {
    let on = std::env::var_os("ELO_INTEROP").is_some_and(|value| value == "1");
    if !on {
        println!("not run: set ELO_INTEROP=1 to test with the MCP SDKs for Python and TypeScript");
    }
    on
}

/// An interpreter that has the SDK.
fn python() -> String {
    let name = std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into());
    let check = "import importlib.metadata as m; print(m.version('mcp'))";
    let output = Command::new(&name).args(["-c", check]).output();
    let output = output.unwrap_or_else(|e| panic!("ELO_INTEROP needs Python 3 with mcp, can't run {name:?}: {e}"));
    let version = String::from_utf8_lossy(&output.stdout);
    assert_eq!(version.trim(), PYTHON, "{name} needs `pip install mcp=={PYTHON}`");
    name
}

/// A folder with the SDK for Node.js; fetched once.
fn npm() -> PathBuf {
    if let Some(folder) = std::env::var_os("ELO_NPM") {
        return folder.into();
    }
    static ONCE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONCE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mcp-npm");
    std::fs::create_dir_all(&folder).unwrap();
    if !folder.join("node_modules/@modelcontextprotocol/sdk").exists() {
        let mut npm = Command::new("npm");
        npm.current_dir(&folder).args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".", NPM]);
        let status = npm.status().unwrap_or_else(|e| panic!("ELO_INTEROP needs npm, or ELO_NPM: {e}"));
        assert!(status.success(), "npm install {NPM} failed");
    }
    folder
}

/// A tracker, and two nodes that reach each other through it alone.
struct Stage {
    agent: Home,
    caller: Home,
    _nodes: Vec<Serve>,
    _tracker: Home,
}

fn stage() -> Stage {
    let (tracker, agent, caller) = (Home::new(), Home::new(), Home::new());
    let mut nodes = vec![tracker.serve(&["--tracker", "--name", "tracker"])];
    let addr = nodes[0].addr();
    for (home, name) in [(&agent, "agent"), (&caller, "caller")] {
        let node = Serve::start(home.command(["serve", "--json", "--no-listen", "--name", name, "--peer", &addr]));
        node.event("peer_connected");
        nodes.push(node);
    }
    Stage { agent, caller, _nodes: nodes, _tracker: tracker }
}

/// `elo mcp` as a client starts it.
fn over_stdio(home: &Home) -> Value {
    let command = home.command(["mcp"]);
    let env: serde_json::Map<String, Value> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value?.to_str()?.into())))
        .collect();
    json!({ "command": env!("CARGO_BIN_EXE_elo"), "args": ["mcp"], "env": env })
}

/// `elo mcp --http`, running, and how a client gets there.
fn over_http(home: &Home) -> (Serve, Value) {
    let server = Serve::start(home.command(["mcp", "--http", "127.0.0.1:0", "--json"]));
    let token = std::fs::read_to_string(home.file("mcp.token")).unwrap();
    let client = json!({ "url": server.ready["url"], "token": token.trim() });
    (server, client)
}

#[track_caller]
fn ends_well(command: Command) {
    let ran = run_for(command, SCRIPT);
    assert!(ran.code == 0 && ran.stdout.trim() == "all well", "{}\n{}", ran.stdout, ran.stderr);
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

#[track_caller]
fn with_python(agent: &Value, caller: &Value, mode: &str) {
    let mut command = Command::new(python());
    command.arg(script("mcp_client.py")).arg(json!({ "agent": agent, "caller": caller, "mode": mode }).to_string());
    ends_well(command);
}

#[track_caller]
fn with_node(agent: &Value, caller: &Value) {
    let mut command = Command::new("node");
    command.arg(script("mcp_client.mjs")).arg(npm()).arg(json!({ "agent": agent, "caller": caller }).to_string());
    ends_well(command);
}

#[test]
fn python_over_stdio() {
    if is_on() {
        let stage = stage();
        with_python(&over_stdio(&stage.agent), &over_stdio(&stage.caller), "auto");
    }
}

#[test]
fn python_over_http() {
    if is_on() {
        let stage = stage();
        let ((_one, agent), (_two, caller)) = (over_http(&stage.agent), over_http(&stage.caller));
        with_python(&agent, &caller, "auto");
    }
}

#[test]
fn python_over_http_with_sessions() {
    if is_on() {
        let stage = stage();
        let ((_one, agent), (_two, caller)) = (over_http(&stage.agent), over_http(&stage.caller));
        with_python(&agent, &caller, "legacy");
    }
}

#[test]
fn typescript_over_stdio() {
    if is_on() {
        let stage = stage();
        with_node(&over_stdio(&stage.agent), &over_stdio(&stage.caller));
    }
}

#[test]
fn typescript_over_http() {
    if is_on() {
        let stage = stage();
        let ((_one, agent), (_two, caller)) = (over_http(&stage.agent), over_http(&stage.caller));
        with_node(&agent, &caller);
    }
}
