//! The Python package elo-node 0.5.0: two of its nodes, each a process, driven by `peer.py`.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Fault;
use crate::figures::Round;
use crate::load::{TooShort, histogram, micros};
use crate::process::{Process, cpu_time};

/// The release that is measured.
pub const VERSION: &str = "0.5.0";

fn interpreter() -> OsString {
    std::env::var_os("ELO_PYTHON").unwrap_or_else(|| "python3".into())
}

/// Whether the package is there, in that release.
pub fn is_installed() -> bool {
    let check = "import cryptography, elo, importlib.metadata as m; print(m.version('elo-node'))";
    let output = Command::new(interpreter()).args(["-c", check]).output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == VERSION)
}

/// A caller and the provider that it is connected to.
pub struct Pair {
    caller: Process,
    provider: Process,
}

impl Pair {
    pub async fn start() -> Result<Self, Fault> {
        let mut provider = node(&json!({ "agents": ["echo"] }))?;
        let addr = provider.line("ready ").await?;
        let mut caller = node(&json!({ "peers": [addr] }))?;
        caller.line("ready ").await?;
        Ok(Self { caller, provider })
    }

    /// The same closed loop as [`crate::load::run`], in Python.
    pub async fn run(&mut self, in_flight: usize, window: Duration, payload: &Value) -> Result<Round, Fault> {
        let processes = [self.caller.id(), self.provider.id()];
        let before = cpu_time(&processes)?;
        let command = json!({ "in_flight": in_flight, "seconds": window.as_secs_f64(), "payload": payload });
        self.caller.write(&command.to_string())?;
        let said: Value = serde_json::from_str(&self.caller.line("measured ").await?)?;
        let cpu = cpu_time(&processes)?.saturating_sub(before);
        if let Some(error) = said["error"].as_str() {
            return Err(format!("the Python package failed: {error}").into());
        }
        let mut latencies = histogram();
        for nanoseconds in said["ns"].as_array().into_iter().flatten().filter_map(Value::as_u64) {
            latencies.saturating_record(nanoseconds);
        }
        if latencies.is_empty() {
            return Err(TooShort.into());
        }
        let all = said["all"].as_f64().ok_or("the Python driver didn't count")?;
        Ok(Round {
            p50_us: Some(micros(&latencies, 0.5)),
            p99_us: Some(micros(&latencies, 0.99)),
            rate: Some(latencies.len() as f64 / window.as_secs_f64()),
            cpu_us: Some(cpu.as_secs_f64() * 1e6 / all),
            value: None,
        })
    }
}

fn node(settings: &Value) -> Result<Process, Fault> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/versus/peer.py");
    let arguments = [script.into_os_string(), settings.to_string().into()];
    Process::program("the Python package's node", &interpreter(), &arguments)
}
