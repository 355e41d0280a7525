//! Nodes in networks as people have them: real `elo serve` processes in network namespaces, behind NATs made with
//! nftables, with delay and loss, and links that are cut. Each row says in its name what must hold, and prints what
//! it measured as `netns: ROW: FIGURE`.
//!
//! They need root, `ip`, `nft` and `python3`. With `ELO_NETNS=1` they fail where they can't run; without it they say
//! that they were not run, and why; `ELO_NETNS=0` leaves them out. Nothing leaves the namespaces.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod dht;
mod faults;
mod harness;
mod lan;
mod load;
mod loss;
mod nat;
mod net;
mod nodes;
mod router;
#[path = "../spaces/mod.rs"]
mod spaces;
mod trackers;
mod wire;
