//! The command line itself: help, wrong usage, the settings file.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use common::{Home, run_with_input};

const COMMANDS: &[&str] = &[
    "serve",
    "call",
    "find",
    "bench",
    "peers",
    "events",
    "publish",
    "status",
    "stop",
    "init",
    "id",
    "pubkey",
    "demo",
    "completions",
];

#[test]
fn help_and_version_go_to_stdout() {
    let home = Home::new();
    let help = home.run(["--help"]).ok();
    for command in COMMANDS {
        assert!(help.contains(command), "{command} is not in the help");
        let help = home.run([command, "--help"]).ok();
        assert!(help.contains("Usage:") && help.contains("Example"), "{help}");
    }
    assert!(home.run(["--version"]).ok().starts_with("elo "));
    assert!(home.run(["call", "--help"]).ok().contains("3 not delivered"));
}

#[test]
fn wrong_usage_is_told_with_exit_code_2() {
    let home = Home::new();
    let id = "A".repeat(43);
    let long = "x".repeat(200);
    for (args, said) in [
        (&[][..], "Usage"),
        (&["bogus"], "unrecognized subcommand"),
        (&["cal"], "'call'"),
        (&["-q", "-v", "id"], "cannot be used with"),
        (&["id", "extra"], "unexpected argument"),
        (&["init", "--forse"], "--force"),
        (&["pubkey", "--hex"], "unexpected argument"),
        (&["peers", "x"], "unexpected argument"),
        (&["status", "x"], "unexpected argument"),
        (&["stop", "x"], "unexpected argument"),
        (&["demo", "x"], "unexpected argument"),
        (&["completions"], "<SHELL>"),
        (&["completions", "tcsh"], "possible values"),
        (&["call"], "<CAPABILITY>"),
        (&["call", ""], "1 to 128 characters"),
        (&["call", &long], "1 to 128 characters"),
        (&["call", "a\u{1b}b"], "control characters"),
        (&["call", "x", "y", "z"], "unexpected argument 'z'"),
        (&["call", "x", "--to", "--trace"], "looks like a flag"),
        (&["call", "x", "--timeout", "0"], "at least 1ms"),
        (&["call", "x", "--timeout", "soon"], "500ms"),
        (&["call", "x", "--timeout", "25h"], "at most 24h"),
        (&["call", "x", "--peer", "a:b"], "not a port"),
        (&["call", "x", "--peer", "me@box"], "node id"),
        (&["call", "x", "--peer", "http://box"], "HOST:PORT"),
        (&["find", "x", "--timeout", "1m"], "longer than 30s"),
        (&["find", ""], "1 to 128 characters"),
        (&["publish"], "<TYPE>"),
        (&["publish", ""], "1 to 128 characters"),
        (&["events", "--type", ""], "1 to 128 characters"),
        (&["serve", "--port", "70000"], "0..=65535"),
        (&["serve", "--bind", "box"], "IP address"),
        (&["serve", "--peer", ":1"], "HOST:PORT"),
        (&["serve", "--advertise", "box:1"], "IP:PORT"),
        (&["serve", "--advertise", "1.2.3.4:0"], "port 0"),
        (&["serve", "--agent", ""], "1 to 128 characters"),
        (&["serve", "--name", &long], "1 to 128 characters"),
        (&["serve", "--private", "--allow", &id, "--deny", &id], "both name"),
        (&["serve", "--serve-only", "abc"], "43 characters"),
        (&["serve", "--tracker", "--allow", &id], "--allow needs --private"),
        (&["serve", "--tracker", "--private", "--allow", "abc"], "43 characters"),
        (&["serve", "--no-listen", "--port", "1"], "--no-listen"),
        (&["serve", "--no-listen", "--tracker"], "--no-listen doesn't go with --tracker"),
        (&["serve", "--dht", "nonsense"], "none of mesh, off and public"),
        (&["serve", "--dht", "off", "--dht-port", "1"], "--dht-port doesn't go"),
        (&["serve", "--exec-stream"], "need --exec"),
        (&["serve", "--exec", "cat"], "without a capability"),
        (&["serve", "--exec", " ", "--agent", "a"], "--exec is empty"),
        (&["serve", "--exec", "/no/such/program", "--agent", "a"], "/no/such/program"),
        (&["serve", "--exec", "cat 'x", "--agent", "a"], "unbalanced"),
        (&["serve", "--max-tasks", "0"], "1 to 4096"),
        (&["serve", "--config", "/no/such/file"], "/no/such/file"),
    ] {
        let ran = home.run(args);
        ran.failed(2, said);
        assert!(ran.stdout.is_empty(), "{args:?}: {}", ran.stdout);
        if !args.is_empty() {
            assert!(ran.stderr.starts_with("elo: "), "{args:?}: {}", ran.stderr);
        }
    }
    assert!(!home.path().exists(), "wrong usage left something behind");
}

#[test]
fn with_json_an_error_is_one_object() {
    let home = Home::new();
    for args in
        [&["call", "--json"][..], &["--json", "bogus"], &["serve", "--exec-stream", "--json"], &["peers", "--json"]]
    {
        let ran = home.run(args);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!(error["error"]["exit"], ran.code, "{error}");
        assert!(error["error"]["message"].is_string());
    }
}

#[test]
fn a_home_that_cant_be_written_is_said_with_what_to_do() {
    let home = Home::new();
    // A folder in place of the lock can't be opened for writing, by root either.
    std::fs::create_dir_all(home.file("node.lock")).unwrap();
    let ran = home.run(["serve", "--bind", "127.0.0.1", "--port", "0"]);
    ran.failed(1, "can't open the lock");
    ran.failed(1, "name another folder with --home");
}

#[test]
fn without_a_node_it_is_said_how_to_have_one() {
    let home = Home::new();
    for args in [&["peers"][..], &["events"], &["publish", "x"], &["stop"]] {
        let ran = home.run(args);
        ran.failed(1, "no node is running");
        ran.failed(1, "elo serve");
    }
    for args in [&["call", "x"][..], &["find"], &["find", "x"]] {
        home.run(args).failed(3, "--peer HOST:PORT");
    }
    home.run(["status"]).failed(1, "");
    assert!(!home.path().exists(), "a question made the home folder");
}

#[test]
fn a_payload_too_large_is_refused_before_it_is_all_read() {
    let home = Home::new();
    let ran = run_with_input(home.command(["call", "x", "-"]), vec![b'x'; 8 * 1024 * 1024]);
    ran.failed(3, "TOO_LARGE");
    run_with_input(home.command(["call", "x", "-"]), b"\xff\xfe").failed(2, "not UTF-8");
}

#[test]
fn faults_of_the_settings_file_name_the_line() {
    let home = Home::new();
    for (content, said) in [
        ("prot = 1", "elo.toml:1: unknown key \"prot\"; did you mean \"port\"?"),
        ("# one\n\nno_listen = true", "elo.toml:3: unknown key \"no_listen\"; did you mean \"no-listen\"?"),
        ("port = 'x'", "elo.toml:1: port"),
        ("name = 'a'\nname = 'b'", "elo.toml:2"),
        ("tracker = 1", "elo.toml:1: tracker"),
        ("exec-stream = true", "need --exec"),
        ("\n[[policy]]\ncapability = 'a*b'", "elo.toml:3: policy: capability"),
    ] {
        home.write("elo.toml", content);
        home.run(["serve", "--port", "0"]).failed(2, said);
    }
    let other = home.write("other.toml", "nmae = 'x'");
    home.run(["serve", "--config", other.to_str().unwrap()]).failed(2, "did you mean \"name\"?");
}

#[test]
fn settings_from_the_environment_are_checked_as_flags_are() {
    let home = Home::new();
    let mut command = home.command(["serve"]);
    command.env("ELO_EXEC_STREAM", "yes");
    common::run(command).failed(2, "need --exec");
    let mut command = home.command(["serve"]);
    command.env("ELO_PORT", "many");
    common::run(command).failed(2, "many");
}

#[test]
fn completions_for_every_shell() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = home.run(["completions", shell]).ok();
        assert!(script.contains("elo") && script.contains("serve"), "{shell}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_stdout_is_no_panic() {
    let home = Home::new();
    let mut command = std::process::Command::new("sh");
    let elo = env!("CARGO_BIN_EXE_elo");
    command.args(["-c", &format!("{{ '{elo}' completions bash; echo code $? >&2; }} | true")]);
    command.env("ELO_HOME", home.path());
    let ran = common::run(command);
    assert!(ran.stderr.contains("code 0") && !ran.stderr.contains("panicked"), "{ran:?}");
}

#[test]
fn a_home_too_deep_for_a_socket_is_said_so() {
    let home = Home::new();
    let deep = home.path().join("d".repeat(120));
    home.run(["serve", "--port", "0", "--home", deep.to_str().unwrap()]).failed(2, "choose a shorter --home");
}
