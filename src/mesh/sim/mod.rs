//! Whole meshes in one thread: many [`State`](super::State)s, a virtual clock, links that delay and break, and a seed
//! that decides all of it. A failing run repeats with its seed, step by step.
//!
//! Signatures are real: every message is written, parsed and checked as it is between two processes. What a driver
//! does with an [`Action`](super::Action), `carry.rs` does here.

mod big;
mod carry;
mod growth;
mod hostile;
mod ledger;
mod links;
mod node;
mod parting;
mod punch;
mod stories;
mod work;
mod world;

use node::{Node, Spec};
use work::Plan;
use world::{Ask, N, World, ms, secs};
