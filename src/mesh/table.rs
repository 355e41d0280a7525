//! The interest table: what is known of other nodes, from their signed records. On a tracker it is the registry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::clock::Now;
use super::seen::Seen;
use crate::identity::NodeId;
use crate::limits::Limits;
use crate::wire::{Caps, Record};

/// What became of a record.
#[derive(Debug)]
pub enum Learned {
    /// It is new, or newer than the one before; what was provided before is given, to tell who must hear of a loss.
    Newer(Option<Arc<Record>>),
    /// It is the one known already, or an older one.
    Known,
    /// It is past its time, or dated in the future.
    Dead,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    expires: Duration,
    heard: u64,
}

/// Records of other nodes.
#[derive(Debug)]
pub struct Table {
    entries: BTreeMap<NodeId, Entry>,
    by_cap: HashMap<String, BTreeSet<NodeId>>,
    by_heard: BTreeMap<u64, NodeId>,
    gone: Seen<NodeId, u64>,
    heard: u64,
    cap: usize,
    max_ttl: Duration,
    skew_ms: u64,
}

impl Table {
    /// An empty one.
    pub fn new(limits: &Limits) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_cap: HashMap::new(),
            by_heard: BTreeMap::new(),
            gone: Seen::new(limits.max_records, Duration::from_secs(crate::wire::MAX_RECORD_TTL_S)),
            heard: 0,
            cap: limits.max_records.max(1),
            max_ttl: Duration::from_secs(crate::wire::MAX_RECORD_TTL_S),
            skew_ms: limits.clock_skew.as_millis() as u64,
        }
    }

    /// Learns a record whose signature was checked. When there is no room, the one longest unheard goes; `keep` says
    /// which must stay (those of connected peers).
    pub fn learn(&mut self, record: Record, now: Now, keep: impl Fn(&NodeId) -> bool) -> Learned {
        let Some(expires) = self.expiry(&record, now) else { return Learned::Dead };
        let node = record.node_id;
        if let Some(gone) = self.gone.get_mut(&node)
            && *gone >= record.seq
        {
            return Learned::Dead;
        }
        let before = match self.entries.get(&node) {
            Some(entry) if entry.record.seq >= record.seq => return Learned::Known,
            Some(_) => self.take(&node),
            None => None,
        };
        while self.entries.len() >= self.cap {
            let oldest = self.by_heard.values().find(|n| !keep(n)).or_else(|| self.by_heard.values().next()).copied();
            match oldest {
                Some(oldest) => drop(self.take(&oldest)),
                None => break,
            }
        }
        self.heard += 1;
        for name in record.caps.names() {
            self.by_cap.entry(name.to_owned()).or_default().insert(node);
        }
        self.by_heard.insert(self.heard, node);
        // The record is a slice of the message it came in; kept by itself it doesn't keep the whole message alive.
        let record = Record { object: record.object.detached(), ..record };
        self.entries.insert(node, Entry { record: Arc::new(record), expires, heard: self.heard });
        Learned::Newer(before)
    }

    fn expiry(&self, record: &Record, now: Now) -> Option<Duration> {
        let ttl = Duration::from_secs(record.ttl_s).min(self.max_ttl);
        let latest = record.seq.checked_add(ttl.as_millis() as u64 + self.skew_ms)?;
        if record.seq > now.unix_ms + self.skew_ms || latest <= now.unix_ms {
            return None;
        }
        Some(now.mono + ttl.min(Duration::from_millis(latest - now.unix_ms)))
    }

    /// The record of a node.
    pub fn get(&self, node: &NodeId) -> Option<&Arc<Record>> {
        self.entries.get(node).map(|e| &e.record)
    }

    /// Who provides a capability.
    pub fn providers(&self, capability: &str) -> impl Iterator<Item = &Arc<Record>> {
        self.by_cap.get(capability).into_iter().flatten().filter_map(|n| self.get(n))
    }

    /// Everything known.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.values().map(|e| &e.record)
    }

    /// The nodes that a text names: an id, the beginning of ids (at least 4 characters), or a name.
    pub fn named<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a Arc<Record>> {
        self.iter().filter(move |r| names(text, &r.node_id, &r.name))
    }

    /// Forgets a node that left, and refuses what it said before it left.
    pub fn forget(&mut self, node: &NodeId, now: Now) -> Option<Arc<Record>> {
        let record = self.take(node)?;
        self.gone.remove(node);
        self.gone.insert(*node, record.seq, now.mono);
        Some(record)
    }

    /// A node that left is back: what it says itself is believed again.
    pub fn revive(&mut self, node: &NodeId) {
        self.gone.remove(node);
    }

    /// Forgets what is past its time.
    pub fn expire(&mut self, now: Now) {
        let dead: Vec<_> = self.entries.iter().filter(|(_, e)| e.expires <= now.mono).map(|(n, _)| *n).collect();
        for node in dead {
            self.take(&node);
        }
        self.gone.expire(now.mono);
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn take(&mut self, node: &NodeId) -> Option<Arc<Record>> {
        let entry = self.entries.remove(node)?;
        self.by_heard.remove(&entry.heard);
        for name in entry.record.caps.names() {
            if let Some(nodes) = self.by_cap.get_mut(name) {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.by_cap.remove(name);
                }
            }
        }
        Some(entry.record)
    }
}

/// Whether a text names a node: its id, the beginning of its id (at least 4 characters), or its name.
pub fn names(text: &str, node: &NodeId, name: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    text == name || (text.len() >= 4 && node.to_string().starts_with(text))
}

/// The capability names of two records together.
pub fn joint_caps(a: &Caps, b: Option<&Caps>) -> Caps {
    let mut all = a.clone();
    for cap in b.into_iter().flat_map(Caps::iter) {
        all.insert(cap);
    }
    all
}
