//! A peer-to-peer mesh for AI agents: one process, one TCP port, one ed25519 key.
//!
//! A [`Node`] says what it can do; any other node finds it by that, hands it a [`Task`] and gets back a result whose
//! author a signature proves. Nodes that can't reach each other meet at a tracker, which is a node as well.
//!
//! ```
//! use std::net::{Ipv4Addr, SocketAddr};
//!
//! use elo::{Node, Task};
//! use serde_json::json;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
//! let agent = Node::builder()
//!     .listen(loopback)
//!     .agent("count")
//!     .handler("count", |task: Task, _| async move {
//!         Ok(json!(task.payload.as_str().unwrap_or_default().chars().count()))
//!     })
//!     .start()
//!     .await?;
//!
//! let caller = Node::builder().no_listen().peer(agent.listen_addrs()[0].to_string()).start().await?;
//! let outcome = caller.call("count", json!("five!")).await?;
//! assert_eq!(outcome.payload, json!(5));
//! assert_eq!(outcome.responder, agent.id());
//! # caller.shutdown().await;
//! # agent.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! What happens to a call that fails is said by [`CallError`]: its [`code`](CallError::code), and how far the task is
//! known to have come ([`Delivery`]). Every bound of a node stands in [`limits`]. Several nodes may run in one process;
//! there is no global state. A node runs on tokio, with its I/O and time drivers enabled.
//!
//! | module | what |
//! |---|---|
//! | `wire` | messages, their two framings, canonical JSON, signatures |
//! | `identity` | keys, node ids, the key file |
//! | `seal` | sealing what trackers pass on |
//! | `info` | what a node tells its owner |
//! | `mesh` | what the protocol decides, without sockets, clocks or runtime |
//! | `discovery` | ways to learn addresses: the local network, the Kademlia DHT, peers of earlier runs |
//! | `net` | sockets: listener, dialer, connections |
//! | `node` | the public API, and the driver that carries out what `mesh` decides |
//! | `agent`, `service`, `control`, `cli` | the command `elo` (feature `cli`) |
//! | `http` | the local HTTP API of `elo serve` (feature `http`) |

#[cfg(feature = "a2a")]
mod a2a;
mod access_file;
#[cfg(feature = "cli")]
mod agent;
#[doc(hidden)]
pub mod benching;
#[cfg(feature = "cli")]
mod control;
mod discovery;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "http")]
mod http;
mod identity;
mod info;
pub mod limits;
mod lru;
#[cfg(feature = "mcp")]
mod mcp;
mod memory;
mod mesh;
mod net;
mod node;
mod private_file;
#[doc(hidden)]
pub mod seal;
#[doc(hidden)]
pub mod wire;

#[cfg(feature = "cli")]
mod service;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use error::{Attempt, CallError, CloseReason, Delivery, Error, ErrorCode};
pub use identity::{Identity, IdentityError, InvalidNodeId, NodeId, Rotated, verify};
pub use info::{
    AccessFile, AccessFileState, AccessStatus, Activity, CapabilityInfo, ConfiguredPeer, DhtHealth, DiscoveryHealth,
    DiscoveryState, Event, FoundNode, MemoryInfo, Metrics, PeerInfo, PortMapping, Reachability, Route, Sealing, Source,
    Status, TaskRefusals, TrackerName, VerifiedAddr, Way,
};
pub use limits::Limits;
pub use mesh::access::{Access, Decision};
pub use mesh::handshake::Tls;
pub use mesh::policy::{Policy, Rate};
#[cfg(feature = "lan")]
pub use node::Lan;
pub use node::{
    ActivityStream, Builder, Call, CallHandle, ChunkError, Context, Dht, Json, Node, NotSent, Outcome, Payload,
    Published, Search, Subscription, Task, TaskError, TaskResult, Timings, Tracker,
};
pub use wire::{Capability, CapabilityKind, TrackerRole};

/// The fuzz targets call this crate by its name.
#[cfg(test)]
extern crate self as elo;

/// What the fuzz targets do with their inputs, here with those that are kept: see `fuzz/src/lib.rs`.
#[cfg(test)]
#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "the fuzz crate has an entry for each target, the tests go through all of them")]
mod fuzz_targets;

/// README's code, compiled and run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
