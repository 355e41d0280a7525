//! The local HTTP API of `elo serve`: real nodes, and clients that are not ours.
#![cfg(all(unix, feature = "http"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod access;
mod calls;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod events;
mod hostile;
mod lives;
mod load;
mod tasks;
mod tools;
