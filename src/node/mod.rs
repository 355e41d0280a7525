//! The public API: a [`Node`], the tasks it answers and the calls it makes.

mod builder;
mod call;
mod context;
mod info;
mod task;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

pub use builder::{Builder, Tracker};
pub use call::{Call, CallHandle, Outcome, Route, Timings};
pub use context::{ChunkError, Context};
pub(crate) use info::millis;
pub use info::{Activity, CapabilityInfo, Event, FoundNode, Metrics, PeerInfo, Status, TrackerRole};
pub use task::{Task, TaskError, TaskResult};

use crate::error::Error;
use crate::identity::NodeId;
use crate::wire::Capability;

/// A handle to a running node; clones are handles to the same node.
#[derive(Clone, Debug)]
pub struct Node {}

impl Node {
    /// Begins to set a node up.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The node's id: its public key.
    pub fn id(&self) -> NodeId {
        todo!()
    }

    /// The node's name.
    pub fn name(&self) -> String {
        todo!()
    }

    /// Where it listens; empty with `no_listen`.
    pub fn listen_addrs(&self) -> Vec<SocketAddr> {
        todo!()
    }

    /// Provides a capability from now on, or changes its details; peers are told.
    pub fn register(&self, cap: Capability) -> Result<(), Error> {
        let _ = cap;
        todo!()
    }

    /// Provides it no longer; peers are told. `false` when it was not provided.
    pub fn unregister(&self, name: &str) -> Result<bool, Error> {
        let _ = name;
        todo!()
    }

    /// Is interested in what a pattern covers from now on; peers are told.
    pub fn add_interest(&self, pattern: &str) -> Result<(), Error> {
        let _ = pattern;
        todo!()
    }

    /// Is no longer interested; `false` when it was not.
    pub fn remove_interest(&self, pattern: &str) -> Result<bool, Error> {
        let _ = pattern;
        todo!()
    }

    /// Answers tasks for a capability from now on, in place of the handler it had.
    pub fn handle<F, Fut>(&self, capability: impl Into<String>, handler: F) -> Result<(), Error>
    where
        F: Fn(Task, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = TaskResult> + Send + 'static,
    {
        let _ = (capability.into(), task::boxed(handler));
        todo!()
    }

    /// Prepares a call: await it for its result, or [`Call::start`] it for a handle.
    pub fn call(&self, capability: impl Into<String>, payload: Value) -> Call {
        let _ = (capability.into(), payload);
        todo!()
    }

    /// The same with the payload as JSON text, kept digit for digit.
    pub fn call_json(&self, capability: impl Into<String>, payload: &str) -> Call {
        let _ = (capability.into(), payload);
        todo!()
    }

    /// Publishes an event to the nodes whose interests cover its type. It is not acknowledged. Gives its id.
    pub fn publish(&self, event_type: &str, data: Value) -> Result<String, Error> {
        let _ = (event_type, data);
        todo!()
    }

    /// Events that a pattern covers (`task.done`, `task.*`, `*`), as they come. Peers are told of the interest while
    /// the subscription lives.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription, Error> {
        let _ = pattern;
        todo!()
    }

    /// What happens to the node, as it happens.
    pub fn activity(&self) -> ActivityStream {
        todo!()
    }

    /// The peers connected now.
    pub fn peers(&self) -> Vec<PeerInfo> {
        todo!()
    }

    /// Who provides a capability (`""`: everybody), from what is known here and by asking the mesh for as long as
    /// `wait` (at most 30 s). `query` may also be `None` wait: only what is known here.
    pub async fn find(&self, capability: &str, wait: Option<Duration>) -> Result<Vec<FoundNode>, Error> {
        let _ = (capability, wait);
        todo!()
    }

    /// Waits until at least one configured peer is connected, or nothing more can be waited for; `false` at the end
    /// of `wait`.
    pub async fn connected(&self, wait: Duration) -> bool {
        let _ = wait;
        todo!()
    }

    /// Counters and gauges.
    pub fn metrics(&self) -> Metrics {
        todo!()
    }

    /// The node's own state.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// Stops: no new tasks, those running get up to 5 s, peers are told, connections and the port are closed.
    /// Further use of any handle gives [`Error::Stopped`].
    pub async fn shutdown(&self) {
        todo!()
    }

    /// Completes when the node has stopped.
    pub async fn stopped(&self) {
        todo!()
    }
}

/// Events of one subscription; made by [`Node::subscribe`].
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// The next event; `None` when the node has stopped.
    pub async fn recv(&mut self) -> Option<Event> {
        todo!()
    }

    /// How many events were lost because they were not taken in time (256 wait at most).
    pub fn lost(&self) -> u64 {
        todo!()
    }
}

/// What happens to a node; made by [`Node::activity`].
#[derive(Debug)]
pub struct ActivityStream {}

impl ActivityStream {
    /// What happened next; `None` when the node has stopped. Of what is not taken in time the oldest is lost (1024 wait
    /// at most).
    pub async fn recv(&mut self) -> Option<Activity> {
        todo!()
    }
}
