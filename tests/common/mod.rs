//! What the tests with real processes share: a home, a command that can't hang, a node that can't outlive its test.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod proc;
pub mod terminal;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take: far more than it needs, so that a slow machine passes and a hang is found.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A node's home folder, removed at the end.
pub struct Home {
    dir: TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::create_dir_all(self.path()).unwrap();
        std::fs::write(self.file(name), content).unwrap();
        self.file(name)
    }

    /// `elo` in this home, without this test's environment.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_elo"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.path()).env("ELO_HOME", self.path());
        // Whom a node finds by itself is tested by itself: the others meet whom they are told to, and nobody else.
        command.env("ELO_NO_LAN", "true").env("ELO_DHT", "off").env("ELO_NO_REMEMBER", "true");
        command.args(args).stdin(Stdio::null());
        command
    }

    /// The same, and it remembers peers, as it does by default.
    pub fn remembering<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(args);
        command.env_remove("ELO_NO_REMEMBER");
        command
    }

    /// Runs `elo` in this home to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ran {
        run(self.command(args))
    }

    /// Starts a node that listens on a free port of loopback.
    pub fn serve(&self, args: &[&str]) -> Serve {
        let mut all = vec!["serve", "--json", "--bind", "127.0.0.1", "--port", "0"];
        all.extend(args);
        Serve::start(self.command(all))
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Its stdout, having ended well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Its stdout as one JSON value, having ended well.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Its stdout as JSON, one value a line, having ended well.
    #[track_caller]
    pub fn json_lines(self) -> Vec<Value> {
        self.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// It ended with this code, and said this on stderr.
    #[track_caller]
    pub fn failed(&self, code: i32, said: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(said), "{said:?} is not in {:?}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

/// Runs a command to its end, within [`PATIENCE`].
pub fn run(command: Command) -> Ran {
    run_with_input(command, "")
}

/// The same, of a command that takes its time.
pub fn run_for(command: Command, patience: Duration) -> Ran {
    run_all(command, "", patience)
}

/// The same with something on its stdin.
pub fn run_with_input(command: Command, input: impl AsRef<[u8]>) -> Ran {
    run_all(command, input, PATIENCE)
}

fn run_all(mut command: Command, input: impl AsRef<[u8]>, patience: Duration) -> Ran {
    let input = input.as_ref().to_owned();
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let shown = format!("{command:?}");
    let mut child = Reaped(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let stdin = child.0.stdin.take();
    let writer = std::thread::spawn(move || {
        // The command may end without reading all of it.
        stdin.map(|mut stdin| stdin.write_all(&input))
    });
    let stdout = drain(child.0.stdout.take().unwrap());
    let stderr = drain(child.0.stderr.take().unwrap());
    let status = child.wait(patience).unwrap_or_else(|| panic!("{shown} did not end"));
    drop(writer.join());
    Ran {
        code: status.code().unwrap_or(-1),
        stdout: stdout.recv_timeout(PATIENCE).unwrap(),
        stderr: stderr.recv_timeout(PATIENCE).unwrap(),
    }
}

fn drain(mut pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(pipe.read_to_end(&mut bytes));
        drop(sender.send(String::from_utf8_lossy(&bytes).into_owned()));
    });
    receiver
}

/// A process that is killed, by its own id, when the test forgets it.
pub struct Reaped(pub Child);

impl Reaped {
    /// Waits for its end; `None` when it doesn't come.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A running node.
pub struct Serve {
    pub child: Reaped,
    /// The first line it printed.
    pub ready: Value,
    lines: Receiver<String>,
    errors: Receiver<String>,
    pub stdin: Option<ChildStdin>,
}

impl Serve {
    /// Starts it, and waits until it is ready.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let shown = format!("{command:?}");
        let mut child = Reaped(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let stdin = child.0.stdin.take();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.0.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let errors = drain(child.0.stderr.take().unwrap());
        let ready = match lines.recv_timeout(PATIENCE) {
            Ok(line) => serde_json::from_str(&line).unwrap_or(Value::String(line)),
            Err(_) => {
                drop(child);
                panic!("{shown} did not get ready: {}", errors.recv_timeout(PATIENCE).unwrap_or_default());
            }
        };
        Self { child, ready, lines, errors, stdin }
    }

    pub fn id(&self) -> String {
        self.ready["node_id"].as_str().unwrap().to_owned()
    }

    /// Where it listens.
    pub fn addr(&self) -> String {
        self.ready["listen"][0].as_str().unwrap().to_owned()
    }

    /// The next line of its stdout.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the node prints another line")
    }

    /// Waits for an event of a kind.
    #[track_caller]
    pub fn event(&self, kind: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.line()).unwrap();
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// Waits for its end; gives the exit code and what it wrote to stderr.
    #[track_caller]
    pub fn ended(mut self) -> (i32, String) {
        let status = self.child.wait(PATIENCE).expect("the node ends");
        (status.code().unwrap_or(-1), self.errors.recv_timeout(PATIENCE).unwrap_or_default())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Sends it a signal.
    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.0.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The permissions of a file.
#[cfg(unix)]
pub fn mode(path: impl AsRef<Path>) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
