//! One program at work on one task: its process group, its pipes, its end.

use std::future::Future;
use std::pin::pin;
use std::process::ExitStatus;

use crate::node::Payload;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use super::exec::ExecFailure;
use super::output::{Tail, Tap};
use super::{GRACE, REAP};

/// A running program. Dropping it kills the program and its children.
pub struct Process {
    // Dropped before `child`: while the program hasn't been collected, its group's id can't mean anybody else.
    group: Group,
    child: Child,
}

/// The pipes to a running program.
pub struct Pipes {
    /// To its stdin.
    pub stdin: Option<ChildStdin>,
    /// From its stdout.
    pub stdout: Tap<Box<dyn AsyncRead + Send + Unpin>>,
    /// From its stderr.
    pub stderr: Tap<Box<dyn AsyncRead + Send + Unpin>>,
    /// Tells both that nothing more is expected.
    ended: CancellationToken,
}

impl Process {
    /// Starts the program in a process group of its own.
    pub fn start(mut command: Command) -> std::io::Result<(Process, Pipes)> {
        use std::process::Stdio;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let group = Group::led_by(&child);
        let ended = CancellationToken::new();
        let tap = |pipe: Option<Box<dyn AsyncRead + Send + Unpin>>| {
            Tap::new(pipe.unwrap_or(Box::new(tokio::io::empty())), ended.clone())
        };
        let pipes = Pipes {
            stdin: child.stdin.take(),
            stdout: tap(child.stdout.take().map(|pipe| Box::new(pipe) as _)),
            stderr: tap(child.stderr.take().map(|pipe| Box::new(pipe) as _)),
            ended,
        };
        Ok((Process { group, child }, pipes))
    }

    /// Feeds the program, reads it, and waits for its end, all at the same time: none can hold up another.
    ///
    /// `read` makes the value of stdout. When the program has ended but something it started still holds its stdout
    /// or stderr, that gets half a second more and is then killed; what stands in the pipes by then counts.
    pub async fn work<R, F>(
        &mut self,
        input: Bytes,
        pipes: Pipes,
        tail: &mut Tail,
        read: R,
    ) -> Result<(ExitStatus, Payload), ExecFailure>
    where
        R: FnOnce(Tap<Box<dyn AsyncRead + Send + Unpin>>) -> F,
        F: Future<Output = Result<Payload, ExecFailure>>,
    {
        let mut reading = pin!(async {
            let stderr = async {
                tail.read(pipes.stderr).await;
                Ok(())
            };
            let (value, ()) = tokio::try_join!(read(pipes.stdout), stderr)?;
            Ok::<Payload, ExecFailure>(value)
        });
        let mut value = None;
        let status = {
            let mut feeding = pin!(feed(pipes.stdin, input));
            let mut fed = false;
            loop {
                tokio::select! {
                    status = self.child.wait() => break status,
                    result = &mut reading, if value.is_none() => value = Some(result?),
                    () = &mut feeding, if !fed => fed = true,
                }
            }
        };
        self.group.leader_collected();
        let status = status.map_err(|error| ExecFailure::Lost(error.to_string()))?;
        let value = match value {
            Some(value) => value,
            None => match tokio::time::timeout(GRACE, &mut reading).await {
                Ok(result) => result?,
                Err(_) => {
                    self.group.kill();
                    pipes.ended.cancel();
                    reading.await?
                }
            },
        };
        Ok((status, value))
    }

    /// Kills what is left of the program and its children, and collects it.
    pub async fn end(mut self) {
        self.group.kill();
        // Where there are no process groups, this is what kills it; elsewhere it has been.
        let _ = self.child.start_kill();
        if tokio::time::timeout(REAP, self.child.wait()).await.is_err() {
            tracing::warn!("a killed program isn't gone yet; it is left to the system");
        }
    }
}

/// Writes the task to the program. One that doesn't read it, or not to the end, is free not to.
async fn feed(stdin: Option<ChildStdin>, input: Bytes) {
    let Some(mut stdin) = stdin else { return };
    let written = async {
        stdin.write_all(&input).await?;
        if !input.ends_with(b"\n") {
            // So that `read` in a shell takes it for a line.
            stdin.write_all(b"\n").await?;
        }
        stdin.shutdown().await
    };
    if let Err(error) = written.await {
        tracing::debug!(%error, "the program didn't read its whole input");
    }
}

/// The program's process group: itself and what it started, as long as they don't move to a group of their own.
/// Killed on drop.
///
/// The system doesn't give a group's id to anybody else while a member lives or the leader hasn't been collected.
#[cfg(unix)]
struct Group(Option<rustix::process::Pid>);

#[cfg(unix)]
impl Group {
    fn led_by(child: &Child) -> Group {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        Group(pid.and_then(rustix::process::Pid::from_raw))
    }

    /// With the leader collected, the id is only safe to use while others are left.
    fn leader_collected(&mut self) {
        let empty = |group| rustix::process::test_kill_process_group(group) == Err(rustix::io::Errno::SRCH);
        self.0 = self.0.filter(|&group| !empty(group));
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // It fails when nobody is left, which is what we want.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// No process groups here: only the program itself is killed.
#[cfg(not(unix))]
struct Group;

#[cfg(not(unix))]
impl Group {
    fn led_by(_: &Child) -> Group {
        Group
    }

    fn leader_collected(&mut self) {}

    fn kill(&mut self) {}
}
