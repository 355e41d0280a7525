//! A node against an attacker, or a mistaken client, that speaks to it by hand over a raw socket: what is answered,
//! what is counted, that no handler ran, and that an honest peer is served all the while and nothing is left behind.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod answers;
mod batches;
mod dialback;
mod handshakes;
mod lines;
mod load;
mod members;
#[path = "../mesh/mod.rs"]
mod mesh;
mod punches;
mod queries;
#[allow(dead_code, reason = "others use the rest")]
mod raw;
mod records;
mod relays;
mod scrambled;
mod target;
mod tasks;
