//! The machine around a node: its control socket, and the programs that it runs.
#![cfg(unix)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use elo::Node;
use serde_json::json;

use crate::attacker::Attacker;
use crate::common::{Home, Serve, mode, run};
use crate::mesh::{addr_of, meets, node};
use crate::stage::{Steady, echo, eventually};

/// A real process that is a tracker, and a steady caller that calls through it.
struct Machine {
    home: Home,
    process: Serve,
    provider: Node,
    caller: Node,
    steady: Steady,
}

impl Machine {
    async fn with(args: &[&str]) -> Self {
        let home = Home::new();
        let all: Vec<&str> = ["--tracker"].iter().chain(args).copied().collect();
        let process = home.serve(&all);
        let provider = node("provider").agent("steady").handler("steady", echo).peer(process.addr());
        let provider = provider.start().await.unwrap();
        let caller = node("caller").peer(process.addr()).peer(addr_of(&provider)).start().await.unwrap();
        meets(&caller, &[&provider]).await;
        eventually("both are at the tracker", || caller.peers().len() == 2 && provider.peers().len() == 2).await;
        let steady = Steady::begin(&caller, vec![(provider.id().to_string(), Some(process.id()))]);
        steady.goes_on().await;
        Self { home, process, provider, caller, steady }
    }

    async fn over(self) {
        let Self { home, process, provider, caller, steady } = self;
        steady.over().await;
        assert_eq!(caller.metrics().calls_failed, 0);
        let status = tokio::task::spawn_blocking(move || home.run(["status", "--json"]).json()).await.unwrap();
        let metrics = &status["node"]["metrics"];
        assert_eq!((&metrics["connections"], &metrics["tasks_running"]), (&json!(2), &json!(0)), "{metrics}");
        caller.shutdown().await;
        provider.shutdown().await;
        drop(process);
    }
}

/// Who has no right to the home's socket can't command the node, though everything around it be open to him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_has_no_say_over_a_node() {
    let machine = Machine::with(&[]).await;
    let home = machine.home.path();
    let socket = machine.home.file("node.sock");
    assert_eq!((mode(&home), mode(&socket)), (0o700, 0o600));
    for file in std::fs::read_dir(&home).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path) & 0o077, 0, "{} is open to others", path.display());
    }
    let me = std::fs::metadata(&home).unwrap().uid();
    if me == 0 {
        // As nobody, with the folders opened and a program of its own.
        let open = |path: &std::path::Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        let program = tempfile::tempdir().unwrap();
        open(program.path());
        let elo = program.path().join("elo");
        std::fs::copy(env!("CARGO_BIN_EXE_elo"), &elo).unwrap();
        open(&elo);
        open(&home);
        open(home.parent().unwrap());
        for args in [&["status"][..], &["stop", "--yes"], &["call", "ping"], &["publish", "news"]] {
            let mut command = Command::new(&elo);
            command.args(args).env_clear().env("HOME", program.path()).env("ELO_HOME", &home);
            command.env("ELO_NO_LAN", "true").env("ELO_DHT", "off").current_dir(program.path());
            command.stdin(std::process::Stdio::null()).uid(65_534).gid(65_534);
            let ran = tokio::task::spawn_blocking(move || run(command)).await.unwrap();
            assert_ne!(ran.code, 0, "{args:?}: {ran:?}");
            assert!(ran.stdout.is_empty(), "{args:?}: {ran:?}");
        }
        std::fs::set_permissions(&home, PermissionsExt::from_mode(0o700)).unwrap();
    }
    machine.over().await;
}

/// Nothing that a caller writes is read by a shell, taken for an argument, or makes a variable of the environment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_a_caller_writes_is_run() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("m");
    let args = ["--agent", "look", "--tool", "$(touch m)", "--exec", "printenv"];
    let machine = Machine::with(&args).await;
    let mut attacker = Attacker::connect(&machine.process.addr()).await;
    let evil = format!("$(touch {m});`touch {m}`|touch {m}\n\0--help", m = mark.display());
    for (n, id) in
        ["$(touch m);`touch m`|touch m&", "--version", "'\"; touch m #", "A=1 LD_PRELOAD=/x"].iter().enumerate()
    {
        let mut task = attacker.task(id);
        task["capability"] = json!(if n % 2 == 0 { "look" } else { "$(touch m)" });
        task["payload"] = json!({"LD_PRELOAD": "/x", "PATH": evil, "ELO_CALLER": evil, "args": [evil, "--help"]});
        attacker.sign_and_say(task).await;
        let result = attacker.result(id).await;
        assert_eq!(result["status"], "success", "{result}");
        let environment = result["payload"].as_str().unwrap();
        let of = |name: &str| environment.lines().find_map(|l| l.strip_prefix(&format!("{name}=")));
        assert_eq!(of("ELO_TASK_ID"), Some(*id), "{environment}");
        assert_eq!(of("ELO_CALLER"), Some(attacker.id().as_str()));
        assert!(of("LD_PRELOAD").is_none() && !environment.contains("touch /"), "{environment}");
    }
    machine.steady.goes_on().await;
    assert!(!mark.exists() && !machine.home.file("m").exists() && !std::path::Path::new("m").exists());
    drop(attacker);
    let metrics = || machine.home.run(["status", "--json"]).json()["node"]["metrics"]["connections"].clone();
    eventually("the attacker is gone", || metrics() == 2).await;
    machine.over().await;
}
