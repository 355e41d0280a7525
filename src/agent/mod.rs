//! Ways to answer a task without writing Rust.
//!
//! `Webhook` posts each task to a URL, whose response is the result.
//!
//! [`Exec`] runs a program for each task: the task's JSON on its stdin, its stdout the result. A gate bounds how
//! many tasks are worked on at once and how many may wait. Of the node's API it knows
//! payloads only: what else is needed comes in as an [`ExecTask`] and a [`ChunkSink`].

#[cfg(feature = "a2a")]
pub(crate) mod a2a;
mod command;
mod exec;
mod gate;
mod output;
mod process;
pub(crate) mod reach;
#[cfg(test)]
#[cfg(unix)]
mod tests;
#[cfg(feature = "webhook")]
pub(crate) mod web;
#[cfg(feature = "webhook")]
pub(crate) mod webhook;

pub use exec::{ChunkSink, Exec, ExecFailure, ExecTask};

use std::time::Duration;

/// Most bytes of a result, and of one line in stream mode, unless set otherwise: what a payload may have. Text that grows when
/// it is written as JSON may turn out too large then.
pub const MAX_OUTPUT: usize = crate::limits::MAX_PAYLOAD;

/// Tasks that may wait for a place, unless set otherwise. Enough for a burst; a caller beyond it is better told to go
/// elsewhere than kept waiting.
pub const MAX_WAITING: usize = 64;

/// After how many seconds a caller that was refused may try again.
pub const RETRY_AFTER_S: u64 = 1;

/// Bytes of stderr kept for the error message: enough for the last lines of a stack trace.
const STDERR_TAIL: usize = 2 * 1024;

/// How long what a program left behind may go on writing after the program itself has ended. Long enough for a
/// `tee` to finish, short enough that a forgotten background process doesn't keep the caller waiting.
const GRACE: Duration = Duration::from_millis(500);

/// How long a read may take once every process that could write has been killed. What is in the pipe is there at
/// once; the time is for the runtime to notice.
const SETTLE: Duration = Duration::from_millis(50);

/// Most bytes read from a pipe after that: the largest buffer an unprivileged process can give a pipe on Linux.
const PIPE_BUFFER: usize = 1024 * 1024;

/// How long to wait for a killed program to be gone. One stuck in the kernel is left to the runtime to collect.
const REAP: Duration = Duration::from_secs(2);
