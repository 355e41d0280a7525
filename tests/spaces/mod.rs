//! Network namespaces for tests: whether they can be made here, and their end.
//!
//! They need root and `ip`, and what a test names besides. With `ELO_NETNS=1` a test fails where they can't be made;
//! without it it says that it was not run, and why; `ELO_NETNS=0` leaves it out.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};

/// Prints past the test's captured output: what was not run, or measured, is to be seen in a run that passes, too.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "netns: {line}").and_then(|()| out.flush()));
}

/// Whether this test may make namespaces, with these programs besides `ip`; if not, it was said why. All tests of a file
/// name the same programs.
#[track_caller]
pub fn may_be_made(programs: &[&str]) -> bool {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let wanted = std::env::var("ELO_NETNS").unwrap_or_default();
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    if wanted == "0" {
        say(&format!("{test}: NOT RUN: ELO_NETNS=0"));
        return false;
    }
    let Some(why) = WHY_NOT.get_or_init(|| why_not(programs)) else { return true };
    assert!(wanted != "1", "ELO_NETNS=1 wants network namespaces, and there are none: {why}");
    say(&format!("{test}: NOT RUN: {why} (ELO_NETNS=1 makes this a failure)"));
    false
}

/// What is missing for network namespaces, if something is.
fn why_not(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    for program in ["ip"].iter().chain(programs) {
        let (version, package) = match *program {
            "ip" => ("-V", "iproute2"),
            "nft" => ("--version", "nftables"),
            _ => ("--version", "python3, which emulates slow links where the kernel can't"),
        };
        if let Err(why) = tried(&[program, version]) {
            return Some(format!("{program} is missing (package {package}): {why}"));
        }
    }
    // What a container without the rights refuses: to make a namespace, a link, a rule.
    let probe = format!("elo-probe-{}", std::process::id());
    let rule = "add table ip nat { chain post { type nat hook postrouting priority 0; }; }";
    let steps: [&[&str]; 4] = [
        &["ip", "netns", "add", &probe],
        &["ip", "-n", &probe, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"],
        &["ip", "-n", &probe, "link", "add", "br0", "type", "bridge"],
        &["ip", "netns", "exec", &probe, "nft", rule],
    ];
    let steps = steps.iter().filter(|step| !step.contains(&"nft") || programs.contains(&"nft"));
    let why = steps.map(|step| tried(step)).find_map(Result::err);
    remove(&probe);
    why
}

/// Runs a program to its end; what it printed, or what it said when it failed.
pub fn tried(command: &[&str]) -> Result<String, String> {
    let shown = command.join(" ");
    let mut program = Command::new(command[0]);
    let ran = program.args(&command[1..]).stdin(Stdio::null()).output().map_err(|e| format!("{shown}: {e}"))?;
    if ran.status.success() {
        Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
    } else {
        Err(format!("{shown}: {}", String::from_utf8_lossy(&ran.stderr).trim()))
    }
}

/// Runs a program that must succeed.
#[track_caller]
pub fn must(command: &[&str]) -> String {
    tried(command).unwrap_or_else(|why| panic!("{why}"))
}

/// A new namespace, with loopback.
#[track_caller]
pub fn add(space: &str) {
    must(&["ip", "netns", "add", space]);
    must(&["ip", "-n", space, "link", "set", "lo", "up"]);
}

/// A program in a namespace. `ip` becomes what it runs: the process started is the program itself.
pub fn enter(space: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", space]).arg(program);
    command
}

/// A command in a namespace, with its own environment.
pub fn inside(space: &str, command: &Command) -> Command {
    let mut inside = enter(space, command.get_program());
    inside.args(command.get_args()).env_clear().stdin(Stdio::null());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inside
}

/// Gives nftables its rules in a namespace.
#[track_caller]
pub fn nft(space: &str, rules: &str) {
    let mut command = enter(space, "nft");
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let ran = child.wait_with_output().unwrap();
    assert!(ran.status.success(), "nft in {space}: {}\n{rules}", String::from_utf8_lossy(&ran.stderr));
}

/// Ends what runs in a namespace, and the namespace.
pub fn remove(space: &str) {
    let pids = tried(&["ip", "netns", "pids", space]).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        kill_process(pid, Signal::KILL).ok();
    }
    if let Err(why) = tried(&["ip", "netns", "del", space])
        && !why.contains("No such file")
    {
        eprintln!("{why}");
    }
}
