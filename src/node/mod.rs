//! The public API: a [`Node`], the tasks it answers and the calls it makes.

mod access;
mod actions;
mod builder;
mod call;
mod context;
#[cfg(feature = "dht")]
mod dht;
#[cfg(not(feature = "dht"))]
#[path = "nodht.rs"]
mod dht;
mod dialback;
mod dials;
mod driver;
mod finish;
mod hooks;
mod json;
mod keeper;
mod kept;
pub(crate) mod keys;
mod links;
mod memory;
mod news;
mod payload;
mod publish;
mod run;
mod running;
mod sealing;
mod search;
mod start;
mod subscriptions;
mod task;
mod threads;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::Value;

#[cfg(feature = "lan")]
pub use builder::Lan;
pub use builder::{Builder, Dht, Tracker};
pub use call::{Call, CallHandle, Outcome, Timings};
pub use context::{ChunkError, Context};
pub use json::Json;
pub use publish::{NotSent, Published};
pub use search::Search;
pub use subscriptions::{ActivityStream, Subscription};
pub use task::{Payload, Task, TaskError, TaskResult};

use driver::Shared;

use crate::error::Error;
use crate::identity::NodeId;
use crate::info::{ConfiguredPeer, DiscoveryHealth, Metrics, PeerInfo, Status};
use crate::limits::MAX_EVENT;
use crate::wire::Capability;

/// A handle to a running node; clones are handles to the same node. When the last one is dropped the node stops
/// without a word to its peers: prefer [`shutdown`](Self::shutdown).
///
/// A handler that needs its node takes it from [`Context::node`]. One that keeps a clone of its own keeps the node
/// running until somebody shuts it down.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

/// What handles own: its end is the node's end.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Node {
    /// Begins to set a node up.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Ends it here and now, as dropping the last handle does.
    #[cfg(feature = "cli")]
    pub(crate) fn end(&self) {
        self.inner.shared.end();
    }

    /// The node's id: its public key.
    pub fn id(&self) -> NodeId {
        self.inner.shared.me
    }

    /// The node's name.
    pub fn name(&self) -> String {
        self.inner.shared.name.clone()
    }

    /// Where it listens; empty with `no_listen`.
    pub fn listen_addrs(&self) -> Vec<SocketAddr> {
        self.inner.shared.listen.clone()
    }

    fn running(&self) -> Result<&Arc<Shared>, Error> {
        if self.inner.shared.closing.is_cancelled() { Err(Error::Stopped) } else { Ok(&self.inner.shared) }
    }

    /// Provides a capability from now on, or changes its details; peers are told.
    ///
    /// # Errors
    ///
    /// The name is not valid, there are 256 already, or the record would be larger than 8 KiB.
    pub fn register(&self, cap: Capability) -> Result<(), Error> {
        let shared = self.running()?;
        builder::check_name("a capability", &cap.name)?;
        shared.with(|state, now, out| {
            if !state.fits(&cap) {
                return Err(Error::TooLarge {
                    what: "this node's record with that capability",
                    size: state.record_size_with(&cap),
                    limit: crate::limits::MAX_RECORD,
                });
            }
            let name = cap.name.clone();
            if state.register(cap, now, out) {
                Ok(())
            } else {
                Err(Error::Invalid(format!("no room for {name:?}: a node has at most 256 capabilities")))
            }
        })
    }

    /// Provides it no longer; peers are told. `false` when it was not provided.
    ///
    /// # Errors
    ///
    /// The node is stopped.
    pub fn unregister(&self, name: &str) -> Result<bool, Error> {
        Ok(self.running()?.with(|state, now, out| state.unregister(name, now, out)))
    }

    /// Is interested in what a pattern covers from now on; peers are told.
    ///
    /// # Errors
    ///
    /// The pattern is not valid, or there are 256 already.
    pub fn add_interest(&self, pattern: &str) -> Result<(), Error> {
        let shared = self.running()?;
        builder::check_name("an interest", pattern)?;
        if shared.with(|state, now, out| state.add_interest(pattern, now, out)) {
            Ok(())
        } else {
            Err(Error::Invalid("a node has at most 256 interests".to_owned()))
        }
    }

    /// Is no longer interested; `false` when it was not.
    ///
    /// # Errors
    ///
    /// The node is stopped.
    pub fn remove_interest(&self, pattern: &str) -> Result<bool, Error> {
        Ok(self.running()?.with(|state, now, out| state.remove_interest(pattern, now, out)))
    }

    /// Answers tasks for a capability from now on, in place of the handler it had, whether it is announced or not.
    ///
    /// # Errors
    ///
    /// The name is not valid, or the node is stopped.
    pub fn handle<F, Fut, P>(&self, capability: impl Into<String>, handler: F) -> Result<(), Error>
    where
        F: Fn(Task, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<P, TaskError>> + Send + 'static,
        P: Into<Payload>,
    {
        let shared = self.running()?;
        let capability = capability.into();
        builder::check_name("a capability", &capability)?;
        shared.with(|state, _, _| state.handles(&capability));
        let mut handlers = shared.handlers.write().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock: whoever ends the node takes the handlers away after that.
        if shared.stop.is_cancelled() {
            return Err(Error::Stopped);
        }
        let before = handlers.by_capability.insert(capability, task::boxed(handler));
        drop(handlers);
        // Not under the lock: it may hold the last handle to a node, whose end wants it.
        drop(before);
        Ok(())
    }

    /// Prepares a call: await it for its result, or [`Call::start`] it for a handle. The payload is a [`Value`], or what came
    /// from somebody else as [`Json`].
    pub fn call(&self, capability: impl Into<String>, payload: impl Into<Payload>) -> Call {
        self.prepare(capability.into(), payload.into().into_bytes())
    }

    /// The same with the payload as JSON text, for integers that no [`Value`] holds. Floats are written in their
    /// shortest form.
    pub fn call_json(&self, capability: impl Into<String>, payload: &str) -> Call {
        self.prepare(capability.into(), payload::from_json(payload))
    }

    fn prepare(&self, capability: String, payload: Result<bytes::Bytes, payload::PayloadError>) -> Call {
        Call {
            node: self.clone(),
            capability,
            payload,
            target: None,
            via: None,
            timeout: Duration::from_secs(60),
            wait: Duration::ZERO,
            local: false,
            once: false,
        }
    }

    /// Publishes an event to the nodes whose interests cover its type: at most 64 KiB of JSON, not acknowledged. Gives
    /// its id.
    ///
    /// # Errors
    ///
    /// The type or the data is not valid, or the node is stopped.
    pub fn publish(&self, event_type: &str, data: Value) -> Result<String, Error> {
        let shared = self.running()?;
        builder::check_name("an event's type", event_type)?;
        let data = payload::from_value(&data).map_err(|e| Error::Invalid(format!("the data can't be sent: {e}")))?;
        if data.len() > MAX_EVENT {
            return Err(Error::TooLarge { what: "the event's data", size: data.len(), limit: MAX_EVENT });
        }
        Ok(shared.with(|state, now, out| {
            let id = state.new_id();
            state.publish(id.clone(), event_type, data, now, out);
            id
        }))
    }

    /// Publishes the statement that a key is void, as [`Identity::revocation`](crate::Identity::revocation) made it: peers
    /// are told, and tell others. Gives how many peers were told; 0 when nobody is connected (then nobody but this node knows).
    /// Whoever has heard of it lets nobody in with that id any more; nothing takes it back. After the node's own id was
    /// revoked its peers refuse it: shut it down.
    ///
    /// # Errors
    ///
    /// It is no revocation, its signature is not that of the key it names, or the node is stopped.
    pub fn revoke(&self, statement: &str) -> Result<usize, Error> {
        let shared = self.running()?;
        let revocation = keys::read_revocation(statement)?;
        Ok(shared.with(|state, now, out| state.publish_revocation(&revocation, now, out)))
    }

    /// Whether this node's own id was revoked, as far as it knows: nobody who has heard of it talks to it any more.
    pub fn is_revoked(&self) -> bool {
        let shared = &self.inner.shared;
        shared.read(|state, _| state.standing(&shared.me).refusal(&shared.me).is_some())
    }

    /// The id that the node with this one has now, as far as this node knows: another one after the node's owner gave it a
    /// new key.
    pub fn current_id(&self, id: &NodeId) -> NodeId {
        self.inner.shared.read(|state, _| state.current_id(id))
    }

    /// Events that a pattern covers (`task.done`, `task.*`, `*`), as they come. Peers are told of the interest while
    /// the subscription lives.
    ///
    /// # Errors
    ///
    /// The pattern is not valid, there are 256 interests or [`Limits::max_subscriptions`](crate::Limits::max_subscriptions)
    /// subscriptions already, or the node is stopped.
    pub fn subscribe(&self, pattern: &str) -> Result<Subscription, Error> {
        let shared = Arc::clone(self.running()?);
        let most = shared.net.limits.max_subscriptions;
        self.add_interest(pattern)?;
        let Some((id, events, lost)) = shared.subscribers.add(pattern, most) else {
            shared.with(|state, now, out| state.remove_interest(pattern, now, out));
            return Err(Error::Invalid(format!(
                "this node has {most} subscriptions already (the limit max_subscriptions)"
            )));
        };
        Ok(Subscription { shared, id, pattern: pattern.to_owned(), events, lost })
    }

    /// What happens to the node, as it happens.
    pub fn activity(&self) -> ActivityStream {
        let shared = &self.inner.shared;
        let receiver = shared.activity.subscribe();
        shared.with(|state, _, _| state.watch(true));
        ActivityStream { receiver, stopped: shared.stopped.clone() }
    }

    /// The peers connected now.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.inner.shared.read(|state, now| state.peer_infos(now))
    }

    /// The nodes that are not connected and reached through a tracker: those there were tasks with in the last 10 minutes,
    /// at most 256.
    pub fn contacts(&self) -> Vec<PeerInfo> {
        self.inner.shared.read(|state, now| state.contact_infos(now))
    }

    /// The peers it was told to keep connected to, in the order they were named: whether they are, why not, and when they are
    /// dialled next.
    pub fn configured_peers(&self) -> Vec<ConfiguredPeer> {
        self.inner.shared.configured_peers()
    }

    /// Waits until at least one peer is connected; `false` at the end of `wait`, or when the node has stopped.
    pub async fn connected(&self, wait: Duration) -> bool {
        let shared = &self.inner.shared;
        let mut changed = shared.peers_changed.subscribe();
        let connected = async {
            while !shared.read(|state, _| state.has_peers()) {
                if changed.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = connected => true,
            () = tokio::time::sleep(wait) => false,
            () = shared.stopped.cancelled() => false,
        }
    }

    /// Counters and gauges.
    pub fn metrics(&self) -> Metrics {
        self.inner.shared.metrics()
    }

    /// The node's own state.
    pub fn status(&self) -> Status {
        let shared = &self.inner.shared;
        let metrics = shared.metrics();
        let dht = shared.dht_health();
        let access = shared.access_status();
        let mut discovery = shared.discovery.health();
        discovery.insert(0, DiscoveryHealth::from(&dht));
        shared.read(|state, _| Status {
            node_id: shared.me,
            name: shared.name.clone(),
            version: shared.net.version.clone(),
            uptime_s: shared.start.elapsed().as_secs(),
            listen: shared.listen.clone(),
            addrs: state.addrs().iter().map(ToString::to_string).collect(),
            reachability: state.reachability(),
            port_map: driver::lock(&shared.port_map).clone(),
            tracker: state.tracker_role(),
            sealing: state.sealing(),
            access,
            capabilities: state.capabilities(),
            interests: state.interests(),
            dht,
            discovery,
            metrics,
        })
    }

    /// Stops, and waits for it: no new tasks and calls, those running get up to [`Limits::drain_timeout`] (5 s), peers
    /// are told, connections and the port are closed. Further use of any handle gives [`Error::Stopped`].
    ///
    /// It may be called any number of times, and goes on when its caller stops waiting. A handler had better not wait
    /// for it, as it waits for the handler.
    ///
    /// [`Limits::drain_timeout`]: crate::Limits::drain_timeout
    pub async fn shutdown(&self) {
        self.inner.shared.shutdown().await;
    }

    /// Completes when the node has stopped.
    pub async fn stopped(&self) {
        self.inner.shared.stopped.cancelled().await;
    }
}
