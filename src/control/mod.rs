//! The local socket between `elo <command>` and the running node of a home.
//!
//! One request a connection, a line of JSON; the answer is lines of JSON, the last one `done` or `error`; a
//! call that was asked to says how far it is (`progress`). A client that
//! hangs up before that ends its request: a call is cancelled, a stream is let go. One that sends another line has enough:
//! what counts as a result so far ends the answer, where there is such a thing. The same conversation runs over a
//! pair of pipes inside one process, for commands that bring their own node and for the prompt of `elo serve`.

mod bench;
mod client;
#[cfg(unix)]
mod door;
#[cfg(not(unix))]
#[path = "nodoor.rs"]
mod door;
mod framing;
mod protocol;
mod service;
mod session;

pub(crate) use client::{Client, ControlError, Reply};
pub(crate) use door::{Door, DoorError, connect};
pub(crate) use protocol::{
    AccessArgs, BenchArgs, CallArgs, EventsArgs, FindArgs, NoArgs, Progress, PublishArgs, RevokeArgs, RotateArgs,
    Stage, WakeArgs, op,
};
#[cfg(feature = "mcp")]
pub(crate) use protocol::{
    CancelCallArgs, CheckCallArgs, NextEventsArgs, NextTaskArgs, OfferArgs, RecentEventsArgs, ReplyArgs, ReplyError,
    TaskProgressArgs, WithdrawArgs,
};
pub(crate) use session::{Shared, attach};
