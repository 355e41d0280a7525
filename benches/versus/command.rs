//! The command `elo serve`, as its users run it, in a home of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::Fault;
use crate::process::Process;

/// The command, built with the bench: it lies above the folder that the bench is in. What cargo says when it builds the bench
/// stays as it was when the target folder is moved, and may be another's command then.
pub static ELO: LazyLock<PathBuf> = LazyLock::new(|| {
    let bench = std::env::current_exe().unwrap_or_default();
    let beside = bench.ancestors().nth(2).map(|folder| folder.join("elo"));
    beside.filter(|file| file.is_file()).unwrap_or_else(|| env!("CARGO_BIN_EXE_elo").into())
});

/// What a server for thousands of connections from one machine needs raised, and a tracker that relays all the time.
const RAISED: &str = "[limits]
max_connections = 100000
max_connections_per_ip = 100000
max_half_open = 4096
handshakes_per_second_per_ip = 1000000
handshake_burst_per_ip = 1000000
messages_per_second = 4000000000
message_burst = 4000000000
signatures_per_second = 4000000000
signature_burst = 4000000000
bytes_per_second = 4000000000
byte_burst = 4000000000
floods_per_second = 4000000000
flood_burst = 4000000000
relay_bytes_per_second = 4000000000
relay_byte_burst = 4000000000
memory_budget = \"4 GiB\"
";

/// A home folder with a key, so that starting doesn't make one.
pub struct Home(TempDir);

impl Home {
    pub fn new(raised: bool) -> Result<Self, Fault> {
        let home = tempfile::tempdir()?;
        let made = Command::new(&*ELO).arg("--home").arg(home.path()).arg("init").output();
        let made = made.map_err(|e| format!("{} can't be started: {e}", ELO.display()))?;
        if !made.status.success() {
            return Err(format!("elo init: {}", String::from_utf8_lossy(&made.stderr)).into());
        }
        if raised {
            std::fs::write(home.path().join("elo.toml"), RAISED)?;
        }
        Ok(Self(home))
    }

    /// `elo serve` on a free port of loopback, with these flags. It finds nobody: no network but this machine's is used.
    pub fn command(&self, flags: &[&str]) -> Vec<String> {
        let home = self.0.path().display().to_string();
        let words =
            ["--home", &home, "--json", "serve", "--bind", "127.0.0.1", "--port", "0", "--no-lan", "--dht", "off"];
        words.iter().chain(flags).map(|word| (*word).to_owned()).collect()
    }
}

/// The event that it is ready, if a line is that. Its members come in no order that is promised.
fn event_ready(line: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok().filter(|event| event["event"] == "ready")
}

/// It runs.
pub struct Serve {
    pub process: Process,
    pub id: String,
    pub addr: String,
    _home: Home,
}

impl Serve {
    pub async fn start(home: Home, flags: &[&str]) -> Result<Self, Fault> {
        let mut process = Process::program("elo serve", ELO.as_os_str(), &home.command(flags))?;
        let ready = process.first("ready", event_ready).await?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| format!("not ready: {ready}"));
        Ok(Self { process, id: text(&ready["node_id"])?, addr: text(&ready["listen"][0])?, _home: home })
    }

    /// A tracker for everybody.
    pub async fn tracker(raised: bool) -> Result<Self, Fault> {
        Self::start(Home::new(raised)?, &["--tracker"]).await
    }
}
