//! elo: a peer-to-peer mesh for AI agents.

#[cfg(feature = "cli")]
mod agent;
#[cfg(feature = "cli")]
mod control;
mod error;
mod identity;
pub mod limits;
mod mesh;
mod net;
mod node;
#[doc(hidden)]
pub mod wire;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub use error::{Attempt, CallError, CloseReason, Delivery, Error, ErrorCode};
pub use identity::{Identity, IdentityError, InvalidNodeId, NodeId, verify};
pub use limits::Limits;
pub use node::{
    Activity, ActivityStream, Builder, Call, CallHandle, CapabilityInfo, ChunkError, Context, Event, FoundNode,
    Metrics, Node, Outcome, Payload, PeerInfo, Route, Status, Subscription, Task, TaskError, TaskResult, Timings,
    Tracker, TrackerRole,
};
pub use wire::{Capability, CapabilityKind};
