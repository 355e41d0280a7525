//! What the doors for agents of other languages have in common: MCP, the local HTTP API and the control socket.
//!
//! [`Desk`]: agents that come for their tasks. [`Calls`]: calls that are looked after here while their callers come and
//! go. [`Feeds`]: events kept for who reads them later. [`Reaches`](crate::agent::reach::Reaches): how the agent behind
//! each capability is reached, as observed. All of it belongs to one process, and outlives a change of its node's key.

mod calls;
mod desk;
#[cfg(feature = "webhook")]
mod event_hooks;
mod fault;
mod feeds;
#[cfg(test)]
mod tests;
mod wake;

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::task::AbortOnDropHandle;

use crate::agent::reach::Reaches;
use crate::node::Node;

#[cfg(feature = "a2a")]
pub(crate) use calls::Head as CallHead;
#[allow(unused_imports, reason = "the features decide who asks")]
pub(crate) use calls::{CallState, Calls, Progress as CallProgress, StartCall, outcome_with_digits};
#[allow(unused_imports, reason = "the features decide who asks")]
pub(crate) use desk::{Desk, Leased, Offer, Told, Wanted};
#[cfg(feature = "webhook")]
pub(crate) use event_hooks::{EventHooks, event_hooks};
pub(crate) use fault::Fault;
#[allow(unused_imports, reason = "the features decide who asks")]
pub(crate) use feeds::{Batch, Cursor, Feeds, Kept};
pub(crate) use wake::Woken;

/// The node that answers now: another one after its key was replaced.
#[derive(Clone, Debug)]
pub(crate) struct Current(Arc<tokio::sync::watch::Sender<Node>>);

impl Current {
    pub(crate) fn new(node: Node) -> Self {
        Self(Arc::new(tokio::sync::watch::Sender::new(node)))
    }

    pub(crate) fn get(&self) -> Node {
        self.0.borrow().clone()
    }

    pub(crate) fn put(&self, node: Node) {
        self.0.send_replace(node);
    }

    /// Completes with the node's successor once it has one.
    pub(crate) async fn successor(&self, of: &Node) -> Node {
        let mut changes = self.0.subscribe();
        loop {
            let now = changes.borrow_and_update().clone();
            if now.id() != of.id() {
                return now;
            }
            if changes.changed().await.is_err() {
                // It holds the sender itself.
                return std::future::pending().await;
            }
        }
    }
}

/// All of it, for one process.
#[derive(Debug)]
pub(crate) struct Service {
    current: Current,
    desk: Arc<Desk>,
    calls: Arc<Calls>,
    feeds: Arc<Feeds>,
    reaches: Arc<Reaches>,
    telling: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Service {
    /// For a node, whose handlers note in `reaches` how they fare.
    pub(crate) fn new(current: Current, reaches: Arc<Reaches>) -> Arc<Self> {
        let desk = Arc::new(Desk::new(current.clone(), Arc::clone(&reaches)));
        let service = Arc::new(Self {
            calls: Arc::new(Calls::default()),
            feeds: Arc::new(Feeds::new(current.clone())),
            desk,
            reaches,
            telling: Mutex::new(None),
            current,
        });
        wake::install(&service.current.get(), &service.reaches);
        let telling = wake::tell(service.current.clone(), Arc::clone(&service.reaches), Arc::clone(&service.desk));
        *service.telling.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(AbortOnDropHandle::new(tokio::spawn(telling)));
        service
    }

    /// The node that answers now.
    pub(crate) fn node(&self) -> Node {
        self.current.get()
    }

    /// The same, and whoever follows it.
    #[allow(dead_code, reason = "the features decide who asks")]
    pub(crate) fn current(&self) -> &Current {
        &self.current
    }

    /// The node has a successor: what was offered is offered by that.
    pub(crate) fn succeeded(&self, node: &Node) {
        wake::install(node, &self.reaches);
        self.desk.reinstall(node);
    }

    /// Agents that come for their tasks.
    pub(crate) fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// Calls under way.
    pub(crate) fn calls(&self) -> &Arc<Calls> {
        &self.calls
    }

    /// Events kept for who reads them later.
    pub(crate) fn feeds(&self) -> &Arc<Feeds> {
        &self.feeds
    }

    /// How agents are reached.
    #[allow(dead_code, reason = "the features decide who asks")]
    pub(crate) fn reaches(&self) -> &Arc<Reaches> {
        &self.reaches
    }

    /// Asks the node and its agent behind a capability for a sign of life, all the way there and back.
    pub(crate) async fn wake(
        &self,
        node: &str,
        capability: &str,
        timeout: std::time::Duration,
    ) -> Result<Woken, Fault> {
        wake::wake(&self.node(), node, capability, timeout).await
    }
}
