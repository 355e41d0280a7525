//! The other processes: started, talked to by lines, ended.
//!
//! None outlives the bench. They are killed when what holds them is dropped, after a panic or Ctrl-C too; and where the
//! system can, it kills them when the bench itself was killed (see [`crate::roles`], `exec`).

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::Fault;

/// How long a line is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines wait to be read; older ones go. A server may print one for each connection.
const LINES: usize = 4096;

/// What a program's first line begins with; then come the nanoseconds since 1970 at its exec.
pub const EXEC: &str = "exec at ";

/// What Linux counts times in, for programs: 100 a second on every machine.
const TICKS_PER_SECOND: u64 = 100;

/// A process.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::UnboundedReceiver<String>,
    /// The last lines, for the error when it ended.
    last: VecDeque<String>,
    name: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// This program again, in another role.
    pub fn role(role: &str, arguments: &[&str]) -> Result<Self, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--role").arg(role).args(arguments);
        Self::spawn(role, command)
    }

    /// Another program, by way of a role that has it end with the bench. Its first line is [`EXEC`] and when it began.
    pub fn program<S: AsRef<OsStr>>(name: &str, program: &OsStr, arguments: &[S]) -> Result<Self, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env_remove("RUST_LOG").args(["--role", "exec"]).arg(program).args(arguments);
        Self::spawn(name, command)
    }

    /// What it prints, on either way, is read all the time: nothing waits for a full pipe.
    fn spawn(name: &str, mut command: Command) -> Result<Self, Fault> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{name} can't be started: {e}"))?;
        let (sender, lines) = mpsc::unbounded_channel();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
            child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            // It ends with the process.
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        // Read on: a process that can't print would wait or die.
                    }
                }
            });
        }
        let input = child.stdin.take();
        Ok(Self { child, input, lines, last: VecDeque::new(), name: name.to_owned() })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The rest of the first line that contains a text.
    pub async fn line(&mut self, containing: &str) -> Result<String, Fault> {
        self.first(containing, |line| line.find(containing).map(|at| line[at + containing.len()..].trim().to_owned()))
            .await
    }

    /// What is found in the first line in which something is; `what` is for the error.
    pub async fn first<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T, Fault> {
        let wait = async {
            while let Some(line) = self.lines.recv().await {
                if let Some(found) = find(&line) {
                    return Some(found);
                }
                if self.last.len() == LINES {
                    self.last.pop_front();
                }
                self.last.push_back(line);
            }
            None
        };
        let (found, why) = match tokio::time::timeout(PATIENCE, wait).await {
            Ok(found) => (found, "ended".to_owned()),
            Err(_) => (None, format!("gave no {what:?} in {PATIENCE:?}")),
        };
        found.ok_or_else(|| {
            let said: Vec<&str> = self.last.iter().rev().take(8).rev().map(String::as_str).collect();
            format!("{} {why}; it said:\n{}", self.name, said.join("\n")).into()
        })
    }

    /// Writes a line to its input.
    pub fn write(&mut self, line: &str) -> Result<(), Fault> {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        writeln!(input, "{line}").map_err(|e| format!("{} takes no line: {e}", self.name))?;
        Ok(())
    }
}

/// A port nobody listens on now.
pub fn free_port() -> Result<u16, Fault> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// User and system time of some processes together. Counted in ticks of 10 ms.
pub fn cpu_time(processes: &[u32]) -> Result<Duration, Fault> {
    let mut ticks = 0;
    for process in processes {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // Behind the name, which may contain anything, in brackets.
        let rest = stat.rsplit_once(')').ok_or("an odd /proc/PID/stat")?.1;
        let mut fields = rest.split_whitespace().skip(11);
        for _ in ["utime", "stime"] {
            ticks += fields.next().ok_or("a short /proc/PID/stat")?.parse::<u64>()?;
        }
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident memory in kB, of 1000 bytes.
pub fn resident_kb(process: u32) -> Result<f64, Fault> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS in /proc/PID/status")?;
    // What Linux writes as kB are 1024 bytes.
    let kib: f64 = line.split_whitespace().nth(1).ok_or("an odd VmRSS")?.parse()?;
    Ok(kib * 1.024)
}
