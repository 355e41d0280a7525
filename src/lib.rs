//! elo: a peer-to-peer mesh for AI agents.

mod agent;
mod control;
mod error;
mod identity;
pub mod limits;
mod mesh;
mod net;
mod node;
// Hidden: tests, benches and the fuzz targets reach the wire format through it. Not part of the public API.
#[doc(hidden)]
pub mod wire;

pub use identity::{Identity, IdentityError, InvalidNodeId, NodeId, verify};

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
