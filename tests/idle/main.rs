//! What connections that say nothing cost a node: the memory of a real process, in plain text and encrypted, merely
//! connected and registered.
//!
//! The bounds are for a build without optimisation, and have room: they are to find a buffer that is kept.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod light;

use crate::common::Home;
use crate::common::proc::memory_kib;
use crate::light::{Manner, connect};

/// How many are looked at.
const COUNT: usize = 300;

/// How many come before: what is made once is not theirs.
const FIRST: usize = 32;

/// A message longer than one read.
const LONG: usize = 60 * 1024;

const LIMITS: &str = "[limits]\nhandshakes_per_second_per_ip = 100000\nhandshake_burst_per_ip = 100000\n";

/// Each of so many connections takes less than so many KiB of a tracker that a message like that came to before.
#[track_caller]
fn costs_less_than(kib: u64, manner: Manner) {
    let home = Home::new();
    home.write("elo.toml", LIMITS);
    let tracker = home.serve(&["--tracker"]);
    let (addr, id, pid) = (tracker.addr(), tracker.id().parse().unwrap(), tracker.child.0.id());
    let first = connect(&addr, id, manner, FIRST);
    let before = memory_kib(pid, "VmRSS");
    let lights = connect(&addr, id, manner, COUNT);
    let after = memory_kib(pid, "VmRSS");
    let each = after.saturating_sub(before) / COUNT as u64;
    assert!(each < kib, "{each} KiB for each of {COUNT}, {manner:?}: {before} KiB before, {after} KiB after");
    drop((first, lights));
}

#[test]
fn an_idle_connection_is_small() {
    costs_less_than(24, Manner::default());
    costs_less_than(28, Manner { registers: true, ..Manner::default() });
    costs_less_than(40, Manner { tls: true, registers: true, ..Manner::default() });
}

#[test]
fn a_connection_that_carried_a_long_message_holds_nothing_of_it() {
    // Under TLS rustls keeps the room of one record, up to the next read.
    costs_less_than(28, Manner { says: LONG, ..Manner::default() });
    costs_less_than(64, Manner { tls: true, says: LONG, ..Manner::default() });
}
