//! Who listens to which events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{broadcast, mpsc};

use super::driver::{Shared, lock};
use crate::info::{Activity, Event};
use crate::wire::matches_pattern;

/// How many events wait for one subscriber.
const WAITING: usize = 256;

#[derive(Debug)]
struct Subscriber {
    id: u64,
    pattern: String,
    events: mpsc::Sender<Event>,
    lost: Arc<AtomicU64>,
}

/// All subscribers of a node.
#[derive(Debug)]
pub(crate) struct Subscribers {
    /// None when the node has stopped.
    list: Mutex<Option<Vec<Subscriber>>>,
    next: AtomicU64,
}

impl Default for Subscribers {
    fn default() -> Self {
        Self { list: Mutex::new(Some(Vec::new())), next: AtomicU64::new(0) }
    }
}

impl Subscribers {
    /// Hands an event to everybody whose pattern covers it; who doesn't keep up loses it, and can see that.
    pub(crate) fn deliver(&self, event: &Event) {
        for subscriber in lock(&self.list).iter().flatten().filter(|s| matches_pattern(&s.pattern, &event.event_type)) {
            if subscriber.events.try_send(event.clone()).is_err() {
                subscriber.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// `None`: there are as many as there may be.
    pub(crate) fn add(&self, pattern: &str, most: usize) -> Option<(u64, mpsc::Receiver<Event>, Arc<AtomicU64>)> {
        let (events, receiver) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(list) = lock(&self.list).as_mut() {
            if list.len() >= most {
                return None;
            }
            list.push(Subscriber { id, pattern: pattern.to_owned(), events, lost: Arc::clone(&lost) });
        }
        Some((id, receiver, lost))
    }

    fn remove(&self, id: u64) {
        if let Some(list) = lock(&self.list).as_mut() {
            list.retain(|s| s.id != id);
        }
    }

    /// Ends every subscription: the node has stopped.
    pub(crate) fn clear(&self) {
        *lock(&self.list) = None;
    }
}

/// Events of one subscription; made by [`crate::Node::subscribe`].
#[derive(Debug)]
#[must_use = "dropping a subscription ends it"]
pub struct Subscription {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: u64,
    pub(crate) pattern: String,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) lost: Arc<AtomicU64>,
}

impl Subscription {
    /// The next event; `None` when the node has stopped. Cancel safe.
    pub async fn recv(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// How many events were lost because they were not taken in time (256 wait at most).
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.subscribers.remove(self.id);
        self.shared.with(|state, now, out| state.remove_interest(&self.pattern, now, out));
    }
}

/// What happens to a node; made by [`crate::Node::activity`].
#[derive(Debug)]
#[must_use = "a stream that nobody reads tells nobody"]
pub struct ActivityStream {
    pub(crate) receiver: broadcast::Receiver<Arc<Activity>>,
    pub(crate) stopped: tokio_util::sync::CancellationToken,
}

impl ActivityStream {
    /// What happened next; `None` when the node has stopped. Of what is not taken in time the oldest is lost (1024 wait
    /// at most). Cancel safe.
    pub async fn recv(&mut self) -> Option<Activity> {
        loop {
            let received = tokio::select! {
                biased;
                received = self.receiver.recv() => received,
                () = self.stopped.cancelled() => return self.receiver.try_recv().ok().map(Arc::unwrap_or_clone),
            };
            match received {
                Ok(activity) => return Some(Arc::unwrap_or_clone(activity)),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
