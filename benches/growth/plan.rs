//! What is measured, for real nodes and for the simulator alike: its tests include this file.

use std::collections::BTreeSet;
use std::time::Duration;

use elo::Limits;
use serde::{Deserialize, Serialize};

/// Provided by one node.
pub const RARE: &str = "rare";

/// Provided by every node that is no tracker.
pub const COMMON: &str = "common";

/// Of interest to every node that is no tracker; provided by nobody but for a moment.
pub const WANTED: &str = "wanted.*";

/// How many links a node of a mesh has, and how many a tracker has to other trackers.
pub const DEGREE: usize = 8;

/// With how many trackers a node is registered: what a record names.
const REGISTERED: usize = 4;

/// Who is connected with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// All nodes with one tracker.
    Tracker,
    /// Each node with four trackers, which are connected with each other.
    Federation,
    /// Nodes with each other, without any tracker.
    Mesh,
}

/// A mesh to be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    pub shape: Shape,
    /// Nodes that are no trackers.
    pub nodes: usize,
    pub trackers: usize,
}

/// What one of them cost, on the average, in the whole mesh.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Cost {
    pub messages: f64,
    pub bytes: f64,
}

/// What was measured of a mesh.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    #[serde(flatten)]
    pub case: Case,
    /// Real nodes and sockets, or the simulator.
    pub real: bool,
    pub links: usize,
    /// A query for what one node provides.
    pub rare: Cost,
    /// The share of these queries that found it.
    pub found: f64,
    /// A query for what every node provides.
    pub common: Cost,
    /// A capability registered, or no longer provided, that nobody is interested in.
    pub quiet: Cost,
    /// The same, of interest to every node.
    pub wanted: Cost,
    /// Records of others that a node keeps, on the average.
    pub records: f64,
    /// Records that a tracker keeps, at most.
    pub tracker_records: Option<usize>,
    /// Bytes that a node keeps to find others, on the average. Simulator only.
    pub knowledge: Option<f64>,
    /// Bytes that a tracker keeps to find others, at most. Simulator only.
    pub tracker_knowledge: Option<usize>,
    /// Resident memory of the process for each node, both ends of its connections included. Real nodes only.
    pub resident: Option<f64>,
}

impl Cost {
    /// The share of each of so many.
    pub fn each(messages: u64, bytes: u64, of: usize) -> Self {
        Self { messages: messages as f64 / of as f64, bytes: bytes as f64 / of as f64 }
    }
}

impl Case {
    /// Nodes and trackers.
    pub fn all(&self) -> usize {
        self.nodes + self.trackers
    }

    /// Whether a node is a tracker: the first ones are.
    pub fn is_tracker(&self, n: usize) -> bool {
        n < self.trackers
    }

    /// Which node alone provides [`RARE`].
    pub fn rare(&self) -> usize {
        self.trackers + self.nodes / 2
    }

    /// So many nodes that ask, or change what they provide: none of them the one that provides [`RARE`].
    pub fn some(&self, most: usize) -> Vec<usize> {
        let others: Vec<usize> = (self.trackers..self.all()).filter(|n| *n != self.rare()).collect();
        others.iter().copied().step_by(others.len().div_ceil(most)).collect()
    }

    /// Who dials whom: each time the later one the earlier one. The same on every run.
    pub fn links(&self) -> BTreeSet<(usize, usize)> {
        let mut dice = Dice(self.nodes as u64);
        match self.shape {
            Shape::Tracker => (1..self.all()).map(|n| (n, 0)).collect(),
            Shape::Mesh => regular(self.nodes, &mut dice),
            Shape::Federation => {
                let mut links = regular(self.trackers, &mut dice);
                for n in self.trackers..self.all() {
                    let mut its = BTreeSet::new();
                    while its.len() < REGISTERED.min(self.trackers) {
                        its.insert((n, dice.below(self.trackers)));
                    }
                    links.append(&mut its);
                }
                links
            }
        }
    }

    /// A bench has more nodes at one address and at one tracker than anybody; and what is sent to keep connections and
    /// records alive, which is the same at all times, is put off until after it.
    pub fn limits() -> Limits {
        Limits::default().with(|l| {
            l.max_connections = 50_000;
            l.max_connections_per_ip = 50_000;
            l.max_half_open = 10_000;
            l.handshakes_per_second_per_ip = 1_000_000;
            l.handshake_burst_per_ip = 1_000_000;
            l.handshake_timeout = Duration::from_secs(60);
            l.memory_budget = 16 << 30;
            l.max_records = 50_000;
            l.max_records_per_peer = 50_000;
            // Who is connected with whom is said, and nobody looks for more.
            l.max_trackers = 0;
            l.record_ttl = Duration::from_secs(3600);
            l.heartbeat_interval = Duration::from_secs(600);
            l.idle_timeout = Duration::from_secs(1800);
        })
    }
}

/// A connected graph at random, made of rings through all nodes: each node has [`DEGREE`] links, or fewer where two rings
/// have one in common.
fn regular(n: usize, dice: &mut Dice) -> BTreeSet<(usize, usize)> {
    let mut links = BTreeSet::new();
    for _ in 0..DEGREE / 2 {
        let mut ring: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            ring.swap(i, dice.below(i + 1));
        }
        let ends = |i: usize| (ring[i].max(ring[(i + 1) % n]), ring[i].min(ring[(i + 1) % n]));
        links.extend((0..n).map(ends).filter(|(a, b)| a != b));
    }
    links
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few lines, and the same in the bench and in the simulator.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}
