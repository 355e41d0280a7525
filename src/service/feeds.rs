//! Events kept for who reads them later, and goes on where it was.
//!
//! A feed is a pattern that somebody asked for. It hears events from then on, and for some minutes after its last reader
//! left, so that whoever comes back misses nothing; what had to make room is counted, and its readers are told.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Current, Fault};
use crate::info::Event;
use crate::node::Node;

/// The most feeds at once.
const MAX_FEEDS: usize = 64;

/// The most events that a feed keeps, and their bytes of data.
const MAX_KEPT: usize = 1024;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long a feed goes on without a reader.
const KEEP: Duration = Duration::from_secs(300);

/// The most events in one batch.
const MAX_BATCH: usize = 256;

/// The longest that somebody may wait for an event in one go.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(600);

/// A place in a feed: after which event. Its text form is what readers come back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Which run of the feed it is a place in.
    feed: u64,
    /// The number of the event.
    seq: u64,
}

impl Cursor {
    /// A place in none of the feeds: whoever reads on from there is told that something is missing.
    #[allow(dead_code, reason = "the features decide who reads")]
    pub(crate) const UNKNOWN: Self = Self { feed: 0, seq: 0 };
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.feed, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parts = text
            .split_once('-')
            .and_then(|(feed, seq)| Some(Self { feed: u64::from_str_radix(feed, 16).ok()?, seq: seq.parse().ok()? }));
        parts.ok_or_else(|| {
            Fault::bad_request(format!("{text:?} is no place in a feed of events: take one from an event"))
        })
    }
}

/// An event, and its place.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Kept {
    /// Its place in the feed.
    #[serde(rename = "cursor", serialize_with = "as_text")]
    pub(crate) place: Cursor,
    /// The event.
    #[serde(flatten)]
    pub(crate) event: Event,
}

fn as_text<S: serde::Serializer>(cursor: &Cursor, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(cursor)
}

/// Events that came after a place.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The events, in the order they came.
    pub(crate) events: Vec<Kept>,
    /// How many came after that place and are kept no longer, as far as is known.
    pub(crate) lost: u64,
    /// Whether the place is of an earlier run of the feed: how many were lost since is not known.
    pub(crate) restarted: bool,
    /// The place after them.
    pub(crate) next: Cursor,
}

#[derive(Debug)]
struct Feed {
    id: u64,
    events: VecDeque<(u64, usize, Event)>,
    bytes: usize,
    /// The number of the last event that came.
    seq: u64,
    readers: usize,
    left: Instant,
    news: watch::Sender<u64>,
    /// Hears the events; ends with the feed.
    hearing: Option<AbortOnDropHandle<()>>,
}

impl Feed {
    fn new(id: u64, hearing: Option<AbortOnDropHandle<()>>) -> Self {
        Self {
            id,
            events: VecDeque::new(),
            bytes: 0,
            seq: 0,
            readers: 0,
            left: Instant::now(),
            news: watch::Sender::new(0),
            hearing,
        }
    }

    fn push(&mut self, event: Event) {
        self.seq += 1;
        let size = event.data.to_string().len() + event.event_type.len();
        self.bytes += size;
        self.events.push_back((self.seq, size, event));
        while self.events.len() > MAX_KEPT || (self.bytes > MAX_BYTES && self.events.len() > 1) {
            if let Some((_, size, _)) = self.events.pop_front() {
                self.bytes -= size;
            }
        }
        self.news.send_replace(self.seq);
    }

    /// Events that its node could not hand over in time: their numbers are used up, so that readers see the gap.
    fn skip(&mut self, lost: u64) {
        self.seq += lost;
    }

    fn after(&self, cursor: Option<Cursor>) -> Batch {
        let (seq, restarted) = match cursor {
            Some(cursor) if cursor.feed == self.id => (cursor.seq.min(self.seq), false),
            Some(_) => (0, true),
            // From now on.
            None => (self.seq, false),
        };
        let events: Vec<Kept> = self
            .events
            .iter()
            .filter(|(n, ..)| *n > seq)
            .take(MAX_BATCH)
            .map(|(n, _, event)| Kept { place: Cursor { feed: self.id, seq: *n }, event: event.clone() })
            .collect();
        let last = events.last().map_or(if self.events.is_empty() { self.seq } else { seq }, |kept| kept.place.seq);
        let lost = (last - seq).saturating_sub(events.len() as u64);
        Batch { lost: if restarted { 0 } else { lost }, restarted, next: Cursor { feed: self.id, seq: last }, events }
    }
}

/// Feeds by their pattern.
#[derive(Debug)]
pub(crate) struct Feeds {
    current: Current,
    feeds: Mutex<HashMap<String, Feed>>,
}

impl Feeds {
    pub(crate) fn new(current: Current) -> Self {
        Self { current, feeds: Mutex::default() }
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<String, Feed>> {
        self.feeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to hear events that a pattern covers, unless that has begun. Gives the place of now.
    pub(crate) fn open(self: &Arc<Self>, pattern: &str) -> Result<Cursor, Fault> {
        let mut feeds = self.feeds();
        feeds.retain(|_, feed| feed.readers > 0 || feed.left.elapsed() < KEEP);
        if let Some(feed) = feeds.get_mut(pattern) {
            feed.left = Instant::now();
            return Ok(Cursor { feed: feed.id, seq: feed.seq });
        }
        if feeds.len() >= MAX_FEEDS {
            return Err(Fault::overloaded(format!("{MAX_FEEDS} patterns of events are listened to already")));
        }
        let node = self.current.get();
        let subscription = node.subscribe(pattern)?;
        let id: u64 = rand::rng().random();
        let (feeds_again, name) = (Arc::downgrade(self), pattern.to_owned());
        let current = self.current.clone();
        let hearing = tokio::spawn(async move {
            let (mut node, mut subscription) = (node, subscription);
            loop {
                let mut lost = 0;
                while let Some(event) = subscription.recv().await {
                    let Some(feeds) = feeds_again.upgrade() else { return };
                    let more = subscription.lost() - lost;
                    lost += more;
                    if !feeds.heard(&name, id, event, more) {
                        return;
                    }
                }
                // It has stopped: perhaps for a new key.
                let Some(next) = resubscribe(&current, &node, &name).await else { return };
                (node, subscription) = next;
            }
        });
        feeds.insert(pattern.to_owned(), Feed::new(id, Some(AbortOnDropHandle::new(hearing))));
        Ok(Cursor { feed: id, seq: 0 })
    }

    fn heard(&self, pattern: &str, id: u64, event: Event, lost: u64) -> bool {
        let mut feeds = self.feeds();
        let idle = |feed: &Feed| feed.readers == 0 && feed.left.elapsed() >= KEEP;
        let Some(feed) = feeds.get_mut(pattern).filter(|feed| feed.id == id) else { return false };
        if idle(feed) {
            // This runs on what the feed owns: it ends by itself, not by being dropped here.
            if let Some(hearing) = feed.hearing.take() {
                drop(hearing.detach());
            }
            feeds.remove(pattern);
            return false;
        }
        feed.skip(lost);
        feed.push(event);
        true
    }

    /// Events after a place; without one, those from now on. Waits that long for the first one.
    pub(crate) async fn next(
        self: &Arc<Self>,
        pattern: &str,
        after: Option<Cursor>,
        wait: Duration,
    ) -> Result<Batch, Fault> {
        let now = self.open(pattern)?;
        let reader = Reader::new(self, pattern);
        let after = after.unwrap_or(now);
        let deadline = tokio::time::Instant::now() + wait.min(MAX_WAIT);
        loop {
            let (batch, mut news) = {
                let feeds = self.feeds();
                let feed = feeds.get(reader.pattern).ok_or_else(|| Fault::gone("the feed has ended"))?;
                (feed.after(Some(after)), feed.news.subscribe())
            };
            if !batch.events.is_empty() || batch.restarted || wait.is_zero() {
                return Ok(batch);
            }
            if tokio::time::timeout_at(deadline, news.changed()).await.is_err() {
                return Ok(batch);
            }
        }
    }

    /// How many feeds there are.
    pub(crate) fn count(&self) -> usize {
        self.feeds().len()
    }

    /// The events that are kept now, of all feeds: the latest ones, each once.
    pub(crate) fn recent(&self, most: usize) -> Vec<Event> {
        let feeds = self.feeds();
        let mut events: Vec<&Event> =
            feeds.values().flat_map(|feed| feed.events.iter().map(|(.., event)| event)).collect();
        events.sort_by(|a, b| (b.timestamp, &b.origin, &b.id).cmp(&(a.timestamp, &a.origin, &a.id)));
        events.dedup_by(|a, b| (a.origin, &a.id) == (b.origin, &b.id));
        events.into_iter().take(most).cloned().collect()
    }
}

async fn resubscribe(current: &Current, node: &Node, pattern: &str) -> Option<(Node, crate::node::Subscription)> {
    let next = current.successor(node).await;
    let subscription = next.subscribe(pattern).ok()?;
    Some((next, subscription))
}

/// Counted while it reads.
struct Reader<'a> {
    feeds: &'a Feeds,
    pattern: &'a str,
}

impl<'a> Reader<'a> {
    fn new(feeds: &'a Feeds, pattern: &'a str) -> Self {
        if let Some(feed) = feeds.feeds().get_mut(pattern) {
            feed.readers += 1;
        }
        Self { feeds, pattern }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(feed) = self.feeds.feeds().get_mut(self.pattern) {
            feed.readers = feed.readers.saturating_sub(1);
            feed.left = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(n: u64, bytes: usize) -> Event {
        Event {
            id: n.to_string(),
            event_type: "work".to_owned(),
            data: json!("x".repeat(bytes)),
            origin: crate::identity::NodeId::from_bytes([1; 32]),
            timestamp: 0,
            proven: true,
        }
    }

    #[test]
    fn what_makes_room_is_counted_and_told_once() {
        let mut feed = Feed::new(7, None);
        let start = Cursor { feed: 7, seq: 0 };
        (1..=1500).for_each(|n| feed.push(event(n, 1)));
        let mut batch = feed.after(Some(start));
        assert_eq!((batch.lost, batch.events.len(), batch.events[0].event.id.as_str()), (476, MAX_BATCH, "477"));
        let mut count = batch.events.len();
        while !batch.events.is_empty() {
            batch = feed.after(Some(batch.next));
            assert_eq!(batch.lost, 0);
            count += batch.events.len();
        }
        assert_eq!((count, batch.next), (MAX_KEPT, Cursor { feed: 7, seq: 1500 }));
        // What the node could not hand over leaves a gap as well.
        feed.skip(3);
        feed.push(event(1501, 1));
        let batch = feed.after(Some(batch.next));
        assert_eq!((batch.lost, batch.events.len()), (3, 1));
        // A place that was never given is that of now.
        assert!(feed.after(Some(Cursor { feed: 7, seq: 9999 })).events.is_empty());
        assert!(feed.after(None).events.is_empty());
    }

    #[test]
    fn large_events_make_room_by_their_bytes() {
        let mut feed = Feed::new(7, None);
        (1..=100).for_each(|n| feed.push(event(n, 64 * 1024)));
        assert!(feed.bytes <= MAX_BYTES && feed.events.len() < 65, "{} events", feed.events.len());
        let batch = feed.after(Some(Cursor { feed: 7, seq: 0 }));
        assert_eq!(batch.lost + batch.events.len() as u64, 100);
    }
}
