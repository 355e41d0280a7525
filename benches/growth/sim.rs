//! The simulator's part. It is in no build but the library's own tests, so this builds those and runs the one that measures
//! (`mesh::sim::growth::curves`): a feature would bring the simulator, and what only tests may see of the state, into a
//! build that anybody can switch on.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::plan::{Case, Point};

const TEST: &str = "mesh::sim::growth::curves";

/// The longest that all of it may take; a quiet machine of two cores needs a few minutes.
const LONGEST: Duration = Duration::from_secs(1800);

/// Builds the library's tests with the settings that this bench was built with.
fn tests() -> Result<PathBuf, String> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["test", "--lib", "--no-run", "--locked", "--message-format=json"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if !cfg!(feature = "cli") {
        cargo.arg("--no-default-features");
    }
    let output = cargo.stderr(Stdio::inherit()).output().map_err(|e| format!("cargo: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages.filter(|m| m["target"]["kind"][0] == "lib" && m["profile"]["test"] == true);
    let executable = built.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
    executable.ok_or_else(|| format!("the library's tests were not built: {}", output.status))
}

/// Measures these meshes, one after the other; hands each on when it is done.
pub fn measure(cases: &[Case], mut done: impl FnMut(Point)) -> Result<(), String> {
    let mut command = Command::new(tests()?);
    command.args(["--ignored", "--exact", TEST, "--nocapture"]);
    command.env("ELO_GROWTH", serde_json::to_string(cases).map_err(|e| e.to_string())?);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
    }
    let until = Instant::now() + LONGEST;
    let mut points = 0;
    let end = loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) if line.starts_with('{') => {
                done(serde_json::from_str(&line).map_err(|e| format!("{line}: {e}"))?);
                points += 1;
            }
            Ok(_) => {}
            Err(end) => break end,
        }
    };
    if end == mpsc::RecvTimeoutError::Timeout {
        child.kill().map_err(|e| e.to_string())?;
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if points == cases.len() { Ok(()) } else { Err(format!("{points} of {} meshes simulated: {status}", cases.len())) }
}
