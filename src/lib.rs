//! elo: a peer-to-peer mesh for AI agents.

mod agent;
mod control;
mod error;
mod identity;
pub mod limits;
mod mesh;
mod net;
mod node;
mod wire;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
