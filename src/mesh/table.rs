//! The interest table: what is known of other nodes, from their signed records. On a tracker it is the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Now;
use super::seen::Seen;
use crate::identity::NodeId;
use crate::info::Source;
use crate::limits::{Limits, RECORD_BYTES};
use crate::wire::{Record, TrackerRole};

/// The first of all ids in their order.
const FIRST: NodeId = NodeId::from_bytes([0; 32]);

/// What became of a record.
#[derive(Debug)]
pub enum Learned {
    /// It is new, or newer than the one before; what was provided before is given, to tell who must hear of a loss.
    Newer(Option<Arc<Record>>),
    /// It is the one known already, or an older one.
    Known,
    /// It is past its time, or dated in the future.
    Dead,
    /// Its node is denied here.
    Denied,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    expires: Duration,
    heard: u64,
    source: Source,
    /// Who told it.
    from: NodeId,
}

/// Records of other nodes.
#[derive(Debug)]
pub struct Table {
    entries: BTreeMap<NodeId, Entry>,
    /// Who provides what. One set, since a map of sets takes several times the memory when every node names other things.
    by_cap: BTreeSet<(String, NodeId)>,
    /// By who told them, and when they were heard.
    by_heard: BTreeMap<NodeId, BTreeMap<u64, NodeId>>,
    /// What all of them take up.
    bytes: usize,
    /// The trackers among them.
    trackers: BTreeSet<NodeId>,
    gone: Seen<NodeId, u64>,
    heard: u64,
    cap: usize,
    cap_of_one: usize,
    max_ttl: Duration,
    skew_ms: u64,
}

impl Table {
    /// An empty one.
    pub fn new(limits: &Limits) -> Self {
        Self {
            entries: BTreeMap::new(),
            by_cap: BTreeSet::new(),
            by_heard: BTreeMap::new(),
            bytes: 0,
            trackers: BTreeSet::new(),
            gone: Seen::new(limits.max_records, Duration::from_secs(crate::wire::MAX_RECORD_TTL_S)),
            heard: 0,
            cap: limits.max_records.max(1),
            cap_of_one: limits.max_records_per_peer.max(1),
            max_ttl: Duration::from_secs(crate::wire::MAX_RECORD_TTL_S),
            skew_ms: u64::try_from(limits.clock_skew.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Learns a record whose signature was checked, and that `from` told. When there is no room, one of those goes that
    /// the peer told which told the most, the one longest unheard; `keep` says which must stay (those of connected peers).
    pub fn learn(
        &mut self,
        record: Record,
        source: Source,
        mut from: NodeId,
        now: Now,
        keep: impl Fn(&NodeId) -> bool,
    ) -> Learned {
        let Some(expires) = self.expiry(&record, now) else { return Learned::Dead };
        let node = record.node_id;
        if let Some(gone) = self.gone.get_mut(&node)
            && *gone >= record.seq
        {
            return Learned::Dead;
        }
        let before = match self.entries.get(&node) {
            Some(entry) if entry.record.seq >= record.seq => return Learned::Known,
            // Who tells of it again doesn't become the one that its place counts for; the node itself does.
            Some(entry) => {
                from = if from == node { node } else { entry.from };
                self.take(&node)
            }
            None => None,
        };
        while self.by_heard.get(&from).is_some_and(|told| told.len() >= self.cap_of_one) {
            let told = self.by_heard.get(&from).and_then(|told| told.values().find(|n| !keep(n))).copied();
            match told {
                Some(oldest) => drop(self.take(&oldest)),
                // All of them are connected.
                None => break,
            }
        }
        while self.entries.len() >= self.cap {
            let any = || self.by_heard.values().flat_map(BTreeMap::values).next().copied();
            match self.least_wanted(&keep).or_else(any) {
                Some(oldest) => drop(self.take(&oldest)),
                None => break,
            }
        }
        self.heard += 1;
        for name in record.caps.names() {
            self.by_cap.insert((name.to_owned(), node));
        }
        self.by_heard.entry(from).or_default().insert(self.heard, node);
        self.bytes += bytes(&record);
        if record.tracker != TrackerRole::None {
            self.trackers.insert(node);
        }
        // The record is a slice of the message it came in; kept by itself it doesn't keep the whole message alive. What
        // is said of capabilities takes many times the room when it is read; the text is enough until somebody looks.
        let caps = record.caps.without_details();
        let record = Record { object: record.object.detached(), caps, ..record };
        self.entries.insert(node, Entry { record: Arc::new(record), expires, heard: self.heard, source, from });
        Learned::Newer(before)
    }

    /// The one longest unheard of those that the peer told which told the most, and that need not stay.
    fn least_wanted(&self, keep: &impl Fn(&NodeId) -> bool) -> Option<NodeId> {
        let may_go = |told: &BTreeMap<u64, NodeId>| told.values().find(|n| !keep(n)).copied();
        if let Some(oldest) = self.by_heard.values().max_by_key(|told| told.len()).and_then(may_go) {
            return Some(oldest);
        }
        let mut tellers: Vec<_> = self.by_heard.values().collect();
        tellers.sort_by_key(|told| std::cmp::Reverse(told.len()));
        tellers.into_iter().find_map(may_go)
    }

    /// Forgets records until so many bytes less are held, or only those are left that must stay. Gives how many went.
    pub fn forget_bytes(&mut self, bytes: usize, keep: impl Fn(&NodeId) -> bool) -> u64 {
        let most = self.bytes.saturating_sub(bytes);
        let mut gone = 0;
        while self.bytes > most {
            let Some(oldest) = self.least_wanted(&keep) else { break };
            self.take(&oldest);
            gone += 1;
        }
        gone
    }

    /// What all records take up, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn expiry(&self, record: &Record, now: Now) -> Option<Duration> {
        let ttl = Duration::from_secs(record.ttl_s).min(self.max_ttl);
        let latest = record.seq.checked_add(self.skew_ms.saturating_add(ttl.as_millis() as u64))?;
        if record.seq > now.unix_ms.saturating_add(self.skew_ms) || latest <= now.unix_ms {
            return None;
        }
        Some(now.mono + ttl.min(Duration::from_millis(latest - now.unix_ms)))
    }

    /// The record of a node.
    pub fn get(&self, node: &NodeId) -> Option<&Arc<Record>> {
        self.entries.get(node).map(|e| &e.record)
    }

    /// How a node was found.
    pub fn source(&self, node: &NodeId) -> Option<Source> {
        self.entries.get(node).map(|e| e.source)
    }

    /// Who provides a capability.
    pub fn providers(&self, capability: &str) -> impl Iterator<Item = &Arc<Record>> {
        self.provider_ids(capability).filter_map(|n| self.get(n))
    }

    /// Their ids.
    pub fn provider_ids(&self, capability: &str) -> impl Iterator<Item = &NodeId> {
        let named = self.by_cap.range((capability.to_owned(), FIRST)..);
        named.take_while(move |(name, _)| name == capability).map(|(_, n)| n)
    }

    /// Who provides what one of these patterns covers, `not` left out: some of them, if there are many.
    pub fn wanted(&self, interests: &[String], not: &NodeId, most: usize) -> Vec<&Arc<Record>> {
        /// How many entries are looked at in all: a peer chooses its interests, and changes them as often as it likes.
        const LOOKS: usize = 16 * 1024;
        let names = interests.iter().flat_map(|pattern| {
            let prefix = pattern.strip_suffix('*');
            let from = prefix.unwrap_or(pattern);
            let names = self.by_cap.range((from.to_owned(), FIRST)..);
            names.take_while(move |(name, _)| if prefix.is_some() { name.starts_with(from) } else { name == from })
        });
        let mut found = BTreeSet::new();
        for node in names.map(|(_, node)| node).take(LOOKS).filter(|n| *n != not) {
            if found.len() >= most {
                break;
            }
            found.insert(node);
        }
        found.into_iter().filter_map(|n| self.get(n)).collect()
    }

    /// Everything known.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.entries.values().map(|e| &e.record)
    }

    /// The trackers that are known.
    pub fn trackers(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.trackers.iter().filter_map(|n| self.get(n))
    }

    /// Everything known, beginning after that node's place in the order of ids.
    pub fn from(&self, node: &NodeId) -> impl Iterator<Item = &Arc<Record>> {
        let before = self.entries.range(..=*node);
        self.entries.range((Bound::Excluded(*node), Bound::Unbounded)).chain(before).map(|(_, e)| &e.record)
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

    /// What it holds, in bytes.
    #[cfg(test)]
    pub fn weight(&self) -> usize {
        use super::weight::btree;
        let records: usize = self.entries.values().map(|e| e.record.weight()).sum();
        let names: usize = self.by_cap.iter().map(|(name, _)| name.capacity()).sum();
        btree(self.entries.len(), size_of::<(NodeId, Entry)>())
            + btree(self.by_cap.len(), size_of::<(String, NodeId)>())
            + btree(self.entries.len(), size_of::<(u64, NodeId)>())
            + btree(self.by_heard.len(), size_of::<(NodeId, BTreeMap<u64, NodeId>)>())
            + btree(self.trackers.len(), size_of::<NodeId>())
            + self.gone.weight(|_, _| 0)
            + records
            + names
    }

    fn take(&mut self, node: &NodeId) -> Option<Arc<Record>> {
        let entry = self.entries.remove(node)?;
        if let Some(told) = self.by_heard.get_mut(&entry.from) {
            told.remove(&entry.heard);
            if told.is_empty() {
                self.by_heard.remove(&entry.from);
            }
        }
        self.bytes -= bytes(&entry.record);
        self.trackers.remove(node);
        for name in entry.record.caps.names() {
            self.by_cap.remove(&(name.to_owned(), *node));
        }
        Some(entry.record)
    }
}

/// What a record takes up, about: its text, what was read from it, and its places in the tables.
fn bytes(record: &Record) -> usize {
    2 * record.object.raw().len() + RECORD_BYTES
}

/// Whether a text names a node: its id, the beginning of its id (at least 4 characters), or its name.
pub fn names(text: &str, node: &NodeId, name: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    text == name || (text.len() >= 4 && node.starts_with(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::{Capability, Caps, RecordDraft};

    const START_MS: u64 = 1_000_000_000;
    const TELLER: NodeId = NodeId::from_bytes([255; 32]);

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), unix_ms: START_MS + seconds * 1000 }
    }

    fn record(seed: u8, seq_s: i64, ttl_s: u64, cap: &str) -> Record {
        let mut caps = Caps::default();
        caps.insert(Capability::tool(cap));
        caps.insert(Capability::agent(cap));
        let draft = RecordDraft {
            name: format!("n{seed}"),
            caps,
            interests: Vec::new(),
            addrs: Vec::new(),
            trackers: Vec::new(),
            tracker: TrackerRole::None,
            features: Vec::new(),
            version: String::new(),
            instance: String::new(),
            dht: None,
            seal: None,
            seq: START_MS.saturating_add_signed(seq_s * 1000),
            ttl_s,
        };
        draft.sign(&Identity::from_seed([seed; 32])).unwrap()
    }

    fn table(max: usize) -> Table {
        Table::new(&Limits { max_records: max, ..Limits::default() })
    }

    #[test]
    fn the_highest_seq_wins_and_what_is_provided_follows_it() {
        let mut t = table(10);
        let learn = |t: &mut Table, r: Record| t.learn(r, Source::Flood, TELLER, at(0), |_| false);
        assert!(matches!(learn(&mut t, record(1, 0, 60, "a")), Learned::Newer(None)));
        assert!(matches!(learn(&mut t, record(1, 0, 60, "b")), Learned::Known));
        assert!(matches!(learn(&mut t, record(1, 1, 60, "b")), Learned::Newer(Some(_))));
        assert!(matches!(learn(&mut t, record(1, 0, 60, "a")), Learned::Known));
        assert_eq!((t.providers("a").count(), t.providers("b").count(), t.by_cap.len()), (0, 1, 1));
    }

    #[test]
    fn a_record_ends_with_its_time_whatever_its_clock_says() {
        let mut t = table(10);
        let skew = 300;
        for (seq_s, alive) in [(skew, true), (skew + 1, false), (-60 - skew + 1, true), (-60 - skew, false)] {
            let learned = t.learn(record(1, seq_s, 60, "a"), Source::Flood, TELLER, at(0), |_| false);
            assert_eq!(!matches!(learned, Learned::Dead), alive, "{seq_s}");
            t.expire(at(61));
            assert_eq!(t.len(), 0);
        }
        // The oldest that passes lives for a second.
        t.learn(record(1, -60 - skew + 1, 60, "a"), Source::Flood, TELLER, at(0), |_| false);
        t.expire(at(1));
        assert_eq!(t.len(), 0);
    }

    #[test]
    fn the_one_longest_unheard_goes_unless_it_is_connected() {
        let mut t = table(3);
        for seed in 1..=3 {
            t.learn(record(seed, 0, 60, "a"), Source::Flood, TELLER, at(0), |_| false);
        }
        t.learn(record(1, 1, 60, "a"), Source::Flood, TELLER, at(0), |_| false);
        let second = Identity::from_seed([2; 32]).id();
        t.learn(record(4, 0, 60, "a"), Source::Flood, TELLER, at(0), |n| *n == second);
        let has = |t: &Table, seed| t.get(&Identity::from_seed([seed; 32]).id()).is_some();
        assert_eq!([1, 2, 3, 4].map(|s| has(&t, s)), [true, true, false, true]);
        assert_eq!((t.by_heard[&TELLER].len(), t.providers("a").count()), (3, 3));
    }

    #[test]
    fn who_tells_much_pushes_out_its_own_and_nobody_elses() {
        let teller = |n| NodeId::from_bytes([n; 32]);
        let mut t = Table::new(&Limits { max_records: 20, max_records_per_peer: 15, ..Limits::default() });
        let has = |t: &Table, seed| t.get(&Identity::from_seed([seed; 32]).id()).is_some();
        for seed in 1..=6 {
            t.learn(record(seed, 0, 60, "a"), Source::Flood, teller(200), at(0), |_| false);
        }
        for seed in 50..=90 {
            t.learn(record(seed, 0, 60, "a"), Source::Flood, teller(201), at(0), |_| false);
        }
        assert_eq!((t.len(), t.by_heard[&teller(201)].len()), (20, 14));
        assert!((1..=6).all(|seed| has(&t, seed)) && has(&t, 90) && !has(&t, 50));
        // Alone it has no more than its own share.
        let mut t = Table::new(&Limits { max_records: 20, max_records_per_peer: 15, ..Limits::default() });
        for seed in 50..=90 {
            t.learn(record(seed, 0, 60, "a"), Source::Flood, teller(201), at(0), |_| false);
        }
        assert_eq!(t.len(), 15);
        // What somebody told first stays its own, though another repeats it; not when it speaks for itself.
        t.learn(record(1, 0, 60, "a"), Source::Flood, teller(200), at(0), |_| false);
        t.learn(record(1, 1, 60, "a"), Source::Flood, teller(201), at(0), |_| false);
        assert_eq!(t.by_heard[&teller(200)].len(), 1);
        let own = Identity::from_seed([1; 32]).id();
        t.learn(record(1, 2, 60, "a"), Source::Flood, own, at(0), |_| false);
        assert!(!t.by_heard.contains_key(&teller(200)) && t.by_heard[&own].len() == 1);
    }

    #[test]
    fn memory_is_given_back_and_counted() {
        let mut t = table(100);
        for seed in 1..=10 {
            t.learn(record(seed, 0, 60, "a"), Source::Flood, TELLER, at(0), |_| false);
        }
        let (all, kept) = (t.bytes(), Identity::from_seed([1; 32]).id());
        assert!(all > 10 * RECORD_BYTES, "{all}");
        // They are not all of one length.
        assert_eq!((t.forget_bytes(all / 2 - 100, |n| *n == kept), t.len()), (5, 5));
        assert_eq!((t.forget_bytes(usize::MAX, |n| *n == kept), t.len()), (4, 1));
        t.expire(at(100));
        assert_eq!((t.bytes(), t.by_heard.len()), (0, 0));
    }

    #[test]
    fn what_a_node_said_before_it_left_is_refused_until_it_is_back() {
        let mut t = table(10);
        t.learn(record(1, 0, 60, "a"), Source::Flood, TELLER, at(0), |_| false);
        let id = Identity::from_seed([1; 32]).id();
        assert!(t.forget(&id, at(1)).is_some() && t.forget(&id, at(1)).is_none());
        assert!(matches!(t.learn(record(1, 0, 60, "a"), Source::Flood, TELLER, at(2), |_| false), Learned::Dead));
        assert!(matches!(
            t.learn(record(1, 1, 60, "a"), Source::Flood, TELLER, at(2), |_| false),
            Learned::Newer(None)
        ));
        t.forget(&id, at(3));
        t.revive(&id);
        assert!(matches!(
            t.learn(record(1, 0, 60, "a"), Source::Flood, TELLER, at(3), |_| false),
            Learned::Newer(None)
        ));
    }

    #[test]
    fn nodes_are_named_by_id_beginning_or_name() {
        let id = Identity::from_seed([1; 32]).id();
        let text = id.to_string();
        for (name, fits) in [(&text[..], true), (&text[..4], true), (&text[..3], false), ("n1", true), ("", false)] {
            assert_eq!(names(name, &id, "n1"), fits, "{name}");
        }
        assert!(!names("", &id, ""));
    }

    #[test]
    fn what_is_wanted_is_found_by_name_and_by_beginning_each_once() {
        let mut t = table(300);
        for (seed, cap) in [(1, "a.x"), (2, "a.y"), (3, "ab"), (4, "b")] {
            t.learn(record(seed, 0, 60, cap), Source::Flood, TELLER, at(0), |_| false);
        }
        let id = |seed| Identity::from_seed([seed; 32]).id();
        let wanted = |interests: &[&str], most| {
            let interests: Vec<String> = interests.iter().map(|i| (*i).to_owned()).collect();
            let found = t.wanted(&interests, &id(2), most);
            (1..=4).filter(|seed| found.iter().any(|r| r.node_id == id(*seed))).collect::<Vec<u8>>()
        };
        assert_eq!(wanted(&["a.*", "a.x"], 9), [1]);
        assert_eq!(wanted(&["a*"], 9), [1, 3]);
        assert_eq!(wanted(&["*"], 9), [1, 3, 4]);
        assert_eq!(wanted(&["b", "a", "c*"], 9), [4]);
        assert_eq!(wanted(&["*"], 2).len(), 2);
    }
}
