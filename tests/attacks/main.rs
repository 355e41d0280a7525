//! One attack for each row of the threat table in docs/security.md: an attacker that speaks raw bytes against real nodes over
//! real sockets. Each checks that the attack fails, that a steady caller is answered all the while by the rest of the
//! mesh, and that nothing is left over.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod attacker;
mod canon;
#[path = "../common/mod.rs"]
mod common;
mod connections;
mod document;
mod encrypted;
mod identities;
mod keylife;
mod lying;
#[path = "../mesh/mod.rs"]
mod mesh;
mod processes;
mod records;
mod relays;
mod scans;
mod sealing;
mod stage;
mod tasks;
mod texts;
mod wiretap;
