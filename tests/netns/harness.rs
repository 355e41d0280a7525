//! Whether the rows can run here, how they print, and the programs they use.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::net::{Net, sweep};

/// What is measured on the slow and shared machines of a CI may take this many times what is promised; the figure
/// printed tells how long it took.
pub const SLOW: u32 = 3;

/// Prints past the test's captured output: what was measured is to be seen in a run that passes, too.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "netns: {line}").and_then(|()| out.flush()));
}

/// Prints what a row measured.
pub fn figure(row: &str, what: &str) {
    say(&format!("{row}: {what}"));
}

/// How long something took, as it is printed.
pub fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

/// A new little internet for a row, or `None` where there can't be one, having said so.
pub fn internet(row: &str) -> Option<Net> {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    let wanted = std::env::var("ELO_NETNS").unwrap_or_default();
    if wanted == "0" {
        say(&format!("{row}: NOT RUN: ELO_NETNS=0"));
        return None;
    }
    let why_not = WHY_NOT.get_or_init(|| {
        let why_not = why_not();
        if why_not.is_none() {
            sweep();
        }
        why_not
    });
    match why_not {
        None => Some(Net::new()),
        Some(why) if wanted == "1" => panic!("ELO_NETNS=1 wants network namespaces, and there are none: {why}"),
        Some(why) => {
            say(&format!("{row}: NOT RUN: {why} (ELO_NETNS=1 makes this a failure)"));
            None
        }
    }
}

/// What is missing for network namespaces, if something is.
fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    for (program, version, package) in [
        ("ip", "-V", "iproute2"),
        ("nft", "--version", "nftables"),
        (&python(), "--version", "python3, which emulates slow links where the kernel can't"),
    ] {
        if !Command::new(program).arg(version).output().is_ok_and(|ran| ran.status.success()) {
            return Some(format!("{program} is missing (package {package})"));
        }
    }
    // What a container without the rights refuses: to make a namespace, a link, a rule.
    let probe = Net::new();
    let space = format!("{}probe", probe.tag());
    let steps: [&[&str]; 4] = [
        &["ip", "netns", "add", &space],
        &["ip", "-n", &space, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1"],
        &["ip", "-n", &space, "link", "add", "br0", "type", "bridge"],
        &[
            "ip",
            "netns",
            "exec",
            &space,
            "nft",
            "add table ip nat { chain post { type nat hook postrouting priority 0; }; }",
        ],
    ];
    probe.adopt(&space);
    steps.iter().find_map(|step| tried(step).err())
}

/// The Python interpreter that CI made sure of.
pub fn python() -> String {
    std::env::var("ELO_PYTHON").unwrap_or_else(|_| "python3".into())
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

/// Tries until it works; how long that took. Panics with the last reason when `patience` is over.
#[track_caller]
pub fn until<T>(what: &str, patience: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return (value, start.elapsed()),
            Err(why) if start.elapsed() > patience => panic!("{what}: not within {patience:?}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
