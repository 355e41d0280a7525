//! Running a program for each task.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::node::Payload;
use bytes::Bytes;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::command::{ExecError, find_program, split};
use super::gate::{Gate, Refused};
use super::output::{self, Tail};
use super::process::Process;
use super::{MAX_OUTPUT, MAX_WAITING, RETRY_AFTER_S};

/// How to run a program for each task. Clones share the places and the queue.
///
/// The program gets the task's JSON on stdin, ended by a newline, and `ELO_TASK_ID`, `ELO_CAPABILITY` and
/// `ELO_CALLER` in its environment, which is otherwise the node's. With exit status 0 its stdout is the result: JSON if it parses, else
/// text without the last newline. Anything else is a failure that quotes the end of stderr.
///
/// Each program runs in a process group of its own. When the task is cancelled, past its deadline or dropped, the
/// whole group gets SIGKILL. The same happens to whatever is left of the group when the program has ended: a task's
/// background processes don't outlive it, unless they move to a group or session of their own (`setsid`). On systems
/// without process groups only the program itself is killed.
#[derive(Debug, Clone)]
pub struct Exec {
    program: Arc<Program>,
    stream: bool,
    max_output: usize,
    gate: Arc<Gate>,
}

/// What to run.
#[derive(Debug)]
struct Program {
    path: PathBuf,
    args: Vec<String>,
}

/// A task for a program.
#[derive(Debug, Clone)]
pub struct ExecTask {
    /// The task's id, for `ELO_TASK_ID`.
    pub id: String,
    /// The capability asked for, for `ELO_CAPABILITY`.
    pub capability: String,
    /// The caller's node id, for `ELO_CALLER`.
    pub caller: String,
    /// The task's JSON, for stdin.
    pub json: Bytes,
    /// When the program is killed.
    pub deadline: Instant,
    /// Tells that the caller no longer wants the answer.
    pub cancelled: CancellationToken,
}

/// Takes the parts of an answer.
pub trait ChunkSink: Send {
    /// Takes one part. Nothing more is read from the program until it is done, so a sink that waits slows the program
    /// down. An error says that nobody wants any more, and ends the program.
    fn send(&mut self, value: Payload) -> impl Future<Output = Result<(), ()>> + Send;
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecFailure {
    /// Every place is taken and the queue is full. Nothing was run; trying again later helps.
    #[error("overloaded: {waiting} tasks wait already; try again in {retry_after_s} s")]
    Overloaded {
        /// How many wait.
        waiting: usize,
        /// Seconds after which to try again.
        retry_after_s: u64,
    },
    /// The caller took the task back.
    #[error("the task was cancelled")]
    Cancelled,
    /// The deadline passed, in the queue or while the program ran.
    #[error("the task's deadline passed before the program was done")]
    DeadlineExceeded,
    /// The program ended with something else than exit status 0.
    #[error("the program failed with {status}{}", quote(stderr_tail))]
    Failed {
        /// How it ended, such as `exit status: 3` or `signal: 9 (SIGKILL)`.
        status: String,
        /// The last 2 KiB of its stderr.
        stderr_tail: String,
    },
    /// It wrote more than can be sent.
    #[error("the program wrote more than the {limit} bytes that fit in one message")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The sink takes no more chunks.
    #[error("nobody takes the program's output any more")]
    NobodyListens,
    /// The program is gone, or may no longer be run. Nothing was run.
    #[error("the program can't be run any more: {0}")]
    Gone(String),
    /// The program couldn't be started.
    #[error("the program can't be started: {0}")]
    Spawn(String),
    /// The program was started, but the system doesn't say how it ended.
    #[error("the program's exit status is unknown: {0}")]
    Lost(String),
}

fn quote(stderr_tail: &str) -> String {
    if stderr_tail.is_empty() {
        return ", and wrote nothing to stderr".to_owned();
    }
    format!(": {stderr_tail}")
}

impl From<Refused> for ExecFailure {
    fn from(refused: Refused) -> ExecFailure {
        match refused {
            Refused::Overloaded { waiting } => ExecFailure::Overloaded { waiting, retry_after_s: RETRY_AFTER_S },
            Refused::Cancelled => ExecFailure::Cancelled,
            Refused::DeadlineExceeded => ExecFailure::DeadlineExceeded,
        }
    }
}

impl Exec {
    /// Prepares to run `command`, split into words as a shell would, without running a shell; or, with `shell`, to
    /// run it as `sh -c COMMAND` (`cmd /C` on Windows).
    ///
    /// # Errors
    ///
    /// An empty command, quotes that don't match, a program that isn't there or can't be run.
    pub fn new(command: &str, shell: bool) -> Result<Exec, ExecError> {
        if command.contains('\0') {
            return Err(ExecError::Nul);
        }
        let words = if !shell {
            split(command)?
        } else if command.trim().is_empty() {
            return Err(ExecError::Empty);
        } else {
            let (sh, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
            [sh, flag, command].map(String::from).to_vec()
        };
        let mut words = words.into_iter();
        let path = find_program(&words.next().ok_or(ExecError::Empty)?)?;
        let args = words.collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Exec {
            program: Arc::new(Program { path, args }),
            stream: false,
            max_output: MAX_OUTPUT,
            gate: Arc::new(Gate::new(cores, MAX_WAITING)),
        })
    }

    /// Whether the program can be run now; the error says what is in the way.
    ///
    /// # Errors
    ///
    /// It is gone, or may no longer be run.
    pub fn is_there(&self) -> Result<String, String> {
        let path = &self.program.path;
        match super::command::obstacle(path) {
            None => Ok(format!("{} can be run", path.display())),
            Some(why) => Err(format!("{} can't be run: {why}", path.display())),
        }
    }

    /// Whether each line of stdout is a chunk, sent as it appears. The result is then `{"lines": N}`. Default: no.
    pub fn stream(mut self, stream: bool) -> Exec {
        self.stream = stream;
        self
    }

    /// How many programs run at once, at least one. Default: the number of cores. To be set before cloning.
    pub fn max_tasks(mut self, max_tasks: usize) -> Exec {
        self.gate = Arc::new(Gate::new(max_tasks, self.gate.max_waiting()));
        self
    }

    /// How many tasks may wait for a place; 0 refuses what can't run at once. Default: 64. To be set before cloning.
    #[cfg(test)]
    pub fn max_waiting(mut self, max_waiting: usize) -> Exec {
        self.gate = Arc::new(Gate::new(self.gate.max_tasks(), max_waiting));
        self
    }

    /// Most bytes of stdout, or of one line when streaming, as the program wrote them. Default: [`MAX_OUTPUT`].
    #[cfg(test)]
    pub fn max_output(mut self, max_output: usize) -> Exec {
        self.max_output = max_output;
        self
    }

    /// How many programs run now.
    #[cfg(test)]
    pub fn running(&self) -> usize {
        self.gate.running()
    }

    /// How many tasks wait now.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.gate.waiting()
    }

    /// Runs the program for one task, once there is a place. Dropping the future kills the program.
    ///
    /// `chunks` is used only when streaming.
    ///
    /// # Errors
    ///
    /// See [`ExecFailure`]. Whatever the failure, the program and its children are dead.
    pub async fn run(&self, task: ExecTask, chunks: impl ChunkSink) -> Result<Payload, ExecFailure> {
        let _place = self.gate.enter(&task.cancelled, task.deadline).await?;
        let started = Process::start(self.command(&task));
        let (mut process, pipes) = started.map_err(|error| self.not_started(&error))?;
        let mut tail = Tail::default();
        let limit = self.max_output;
        let work = process.work(task.json, pipes, &mut tail, |stdout| async move {
            match self.stream {
                true => output::lines(stdout, limit, chunks).await,
                false => output::collect(stdout, limit).await,
            }
        });
        let result = tokio::select! {
            biased;
            () = task.cancelled.cancelled() => Err(ExecFailure::Cancelled),
            () = tokio::time::sleep_until(task.deadline) => Err(ExecFailure::DeadlineExceeded),
            result = work => result,
        };
        process.end().await;
        let (status, value) = result?;
        let stderr_tail = tail.text();
        if !status.success() {
            let status = status.to_string();
            return Err(ExecFailure::Failed { status, stderr_tail });
        }
        if !stderr_tail.is_empty() {
            tracing::debug!(task = task.id, stderr = stderr_tail, "the program succeeded");
        }
        Ok(value)
    }

    fn not_started(&self, error: &io::Error) -> ExecFailure {
        let message = format!("{}: {error}", self.program.path.display());
        match error.kind() {
            // The program itself, or the interpreter that its first line names.
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => ExecFailure::Gone(message),
            _ => ExecFailure::Spawn(message),
        }
    }

    fn command(&self, task: &ExecTask) -> Command {
        let mut command = Command::new(&self.program.path);
        // Whoever calls decides what the program is fed: it has no business with the key.
        for secret in ["ELO_PASSPHRASE", "ELO_PASSPHRASE_FILE", "ELO_NEW_PASSPHRASE", "ELO_NEW_PASSPHRASE_FILE"] {
            command.env_remove(secret);
        }
        command.args(&self.program.args);
        for (name, value) in
            [("ELO_TASK_ID", &task.id), ("ELO_CAPABILITY", &task.capability), ("ELO_CALLER", &task.caller)]
        {
            // They come from the network, and the environment can't hold a NUL.
            command.env(name, value.replace('\0', "\u{FFFD}"));
        }
        command
    }
}
