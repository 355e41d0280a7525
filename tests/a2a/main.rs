//! A2A: the gateway of `elo serve`, and agents outside of the mesh; real nodes, and clients and agents that are not ours.
#![cfg(all(unix, feature = "a2a"))]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../http/client.rs"]
mod client;
#[path = "../common/mod.rs"]
mod common;
mod fake;
mod hostile;
mod outside;
mod python;
