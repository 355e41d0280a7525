//! What a tracker's process has of what it passes on: nothing in its log, its status or its memory, and all of it when
//! nothing is sealed.
#![cfg(target_os = "linux")]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use common::{Home, PATIENCE, Serve, eventually, run_with_input};
use serde_json::Value;

/// In the payload, the chunks, the answer and an error; made at run time, so that no program holds it by itself.
fn marker() -> String {
    ["quartz", "sphinx", "vow"].map(|w| w.to_uppercase()).join("-")
}

/// Whether a process has a text anywhere in its memory.
fn has_in_memory(pid: u32, text: &str) -> bool {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut looked = 0;
    let found = maps.lines().any(|line| {
        let mut parts = line.split(' ');
        let (from, to) = parts.next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        // What it can't write it has from its file.
        if !parts.next().unwrap().starts_with("rw") {
            return false;
        }
        let mut bytes = vec![0; (to - from) as usize];
        // Some regions can't be read; a heap always can.
        let Ok(()) = memory.read_exact_at(&mut bytes, from) else { return false };
        looked += bytes.len();
        bytes.windows(text.len()).any(|w| w == text.as_bytes())
    });
    assert!(looked > 100_000, "only {looked} bytes of memory were looked at");
    found
}

struct Seen {
    log: bool,
    status: bool,
    memory: bool,
}

fn serve(home: &Home, args: &[&str], sealed: &str) -> Serve {
    let mut all = vec!["serve", "--json"];
    all.extend(args);
    let mut command = home.command(all);
    command.env("ELO_SEALED", sealed);
    Serve::start(command)
}

/// Has calls go through a tracker's process, and looks what it has of them.
fn what_a_tracker_sees(sealed: &str) -> Seen {
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let mut command =
        homes[0].command(["serve", "--json", "--tracker", "--bind", "127.0.0.1", "--port", "0", "--no-lan"]);
    command.env("ELO_LOG", "trace");
    let tracker = Serve::start(command);
    let addr = tracker.addr();
    // Answers with what it was asked, writes it as a chunk, and in the end fails with it.
    let script = r#"read -r line; printf '"chunk %s"\n' "$line" | tr -d '"'; echo "$line" >&2; exit 3"#;
    let cat = ["--no-listen", "--peer", &addr, "--tool", "cat", "--exec", "cat"];
    let fail = ["--no-listen", "--peer", &addr, "--tool", "fail", "--exec", script, "--exec-shell"];
    let (cat, fail) = (serve(&homes[1], &cat, sealed), serve(&homes[2], &fail, sealed));
    let _ = (&cat, &fail);
    // Many of them, and long: in the control run something must be left of them.
    let payload = format!("\"{}\"", marker().repeat(20_000));
    for (capability, works) in [("cat", true), ("fail", false), ("cat", true)] {
        let home = Home::new();
        let mut command = home.command(["call", capability, "-", "--json", "--peer", &addr, "--timeout", "30s"]);
        command.env("ELO_SEALED", sealed);
        let ran = run_with_input(command, &payload);
        assert_eq!(ran.code == 0, works, "{ran:?}");
        assert!(ran.stdout.contains(&marker()) || !works);
        if works {
            let outcome: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!((&outcome["route"], &outcome["sealed"]), (&"relay".into(), &(sealed != "off").into()));
        }
    }
    let pid = tracker.child.0.id();
    let memory = has_in_memory(pid, &marker());
    let status = homes[0].run(["status", "--json"]).ok();
    assert!(serde_json::from_str::<Value>(&status).unwrap()["node"]["metrics"]["relayed"].as_u64().unwrap() >= 6);
    let status = status.contains(&marker());
    homes[0].run(["stop"]).ok();
    let (code, log) = tracker.ended();
    assert_eq!(code, 0);
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "it logs at all: {PATIENCE:?}");
    Seen { log: log.contains(&marker()), status, memory }
}

#[test]
fn a_tracker_s_process_has_nothing_of_what_is_sealed() {
    let seen = what_a_tracker_sees("required");
    assert!(!seen.memory, "in its memory");
    assert!(!seen.log && !seen.status);
}

#[test]
fn a_tracker_s_process_has_what_is_not_sealed() {
    // Its log and its status say nothing of anybody's payloads in any case.
    let seen = what_a_tracker_sees("off");
    assert!(seen.memory, "the look into memory finds what is there");
    assert!(!seen.log && !seen.status);
}

#[test]
fn the_switches_are_flags_an_environment_and_a_setting() {
    let sealing = |args: &[&str], env: &str, file: &str| {
        let home = Home::new();
        if !file.is_empty() {
            home.write("elo.toml", file);
        }
        let mut all = vec!["serve", "--json", "--no-listen"];
        all.extend(args);
        let mut command = home.command(all);
        command.env("ELO_SEALED", env);
        let _node = Serve::start(command);
        home.run(["status", "--json"]).json()["node"]["sealing"].as_str().unwrap().to_owned()
    };
    assert_eq!(sealing(&[], "", ""), "preferred");
    assert_eq!(sealing(&["--require-sealed"], "off", "sealed = \"off\""), "required");
    assert_eq!(sealing(&["--no-sealed"], "", ""), "off");
    assert_eq!(sealing(&[], "required", "sealed = \"off\""), "required");
    assert_eq!(sealing(&[], "", "sealed = \"off\""), "off");
    let home = Home::new();
    home.run(["serve", "--no-sealed", "--require-sealed"]).failed(2, "cannot be used with");
    let mut command = home.command(["serve", "--no-listen"]);
    command.env("ELO_SEALED", "maybe");
    common::run(command).failed(2, "none of preferred, required and off");
    home.write("elo.toml", "sealed = \"maybe\"");
    home.run(["serve", "--no-listen"]).failed(2, "none of preferred, required and off");
}

#[test]
fn an_event_for_one_node_and_a_call_say_whether_they_are_sealed() {
    let homes: [Home; 3] = std::array::from_fn(|_| Home::new());
    let tracker = homes[0].serve(&["--tracker"]);
    let peer = tracker.addr();
    let one = Serve::start(homes[1].command(["serve", "--json", "--no-listen", "--peer", &peer, "--tool", "echo"]));
    let two = Serve::start(homes[2].command(["serve", "--json", "--no-listen", "--peer", &peer, "--interest", "x"]));
    eventually("both are registered", || homes[0].run(["peers", "--json"]).json_lines().len() == 2);
    let called = homes[2].run(["call", "echo", "1", "--trace"]);
    assert!(called.stderr.contains(", sealed, 2 hops"), "{called:?}");
    let received = one.event("task_received");
    assert_eq!(received["sealed"], true);
    let published = homes[1].run(["publish", "--to", &two.id(), "x", "7", "--json"]).json();
    assert_eq!((&published["sent"][0], &published["not_sent"]), (&two.id().into(), &Value::Array(vec![])));
    let event = two.event("published");
    assert_eq!((&event["data"], &event["origin"]), (&7.into(), &one.id().into()));
    let nobody = elo::Identity::generate().id().to_string();
    homes[1].run(["publish", "--to", &nobody, "x", "7"]).failed(1, "not sent to");
}
