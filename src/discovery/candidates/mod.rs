//! Addresses at which somebody may be: which are kept, and which is dialled next. Pure: the time is passed in.
//!
//! A candidate is one address, with the id that is said to be there. What is said is worth nothing until a handshake
//! proves it, and who says it may say it ten thousand times. So each source has a share of its own, new candidates take
//! only the places of failed ones, and dials are few at once and few a second.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::identity::NodeId;
use crate::info::Source;
use crate::limits::{
    CANDIDATE_BACKOFF_MAX, CANDIDATE_BACKOFF_MIN, CANDIDATE_BACKOFF_NODE, CANDIDATE_BACKOFF_SOON, CANDIDATE_DIAL_BURST,
    CANDIDATE_DIALS, CANDIDATE_DIALS_PER_SECOND, CANDIDATE_DIALS_PER_SOURCE, ENOUGH_PEERS, LAN_CANDIDATES, LAN_PEERS,
    MAX_CANDIDATE_ADDRS, MAX_CANDIDATES, MAX_CANDIDATES_PER_IP, REMEMBERED_CANDIDATES,
};

/// Two nodes that find each other at the same moment would both dial. The one with the smaller id does so at once, the
/// other after this time, if it is still alone then.
const POLITE: Duration = Duration::from_millis(500);

/// As many failures as a lie counts for: who answered was not who was named.
const LIE: u32 = 6;

/// For so many failures in a row, two minutes or so, whoever was met in this run may be cut off for a moment only.
const AWAY: u32 = 16;

/// Somebody said that a node is at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Who is said to be there; `None`: not said, anybody who proves an id will do.
    pub(crate) node: Option<NodeId>,
    /// Where.
    pub(crate) addr: SocketAddr,
    /// Who says so.
    pub(crate) source: Source,
    /// Whether it was a tracker when it was last met. Those are dialled first.
    pub(crate) tracker: bool,
}

/// How a dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Who was expected answered.
    Proven,
    /// Nobody answered, or not as it must.
    Failed,
    /// Somebody else answered, or the node there doesn't want us.
    Refused,
    /// It is this node itself.
    Itself,
}

/// Whom a node has, for deciding whom it wants.
#[derive(Clone, Debug, Default)]
pub(crate) struct Present {
    /// Who is connected, and proven.
    pub(crate) peers: HashSet<NodeId>,
    /// How many of them were found on the local network.
    pub(crate) lan: usize,
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Dial this one, and tell [`Candidates::ended`].
    Dial(Ticket, Sighting),
    /// Look again at that time, or when something changes.
    Wait(Option<Duration>),
}

/// A dial under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// What was counted for a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Candidates now.
    pub(crate) candidates: usize,
    /// Dials since the start.
    pub(crate) dialled: u64,
    /// Those that ended with a proof.
    pub(crate) proven: u64,
}

#[derive(Debug)]
struct Candidate {
    said: Sighting,
    /// Whether a handshake there has proven the id in this run.
    proven: bool,
    /// Failures since the last proof.
    failures: u32,
    /// When it may be dialled.
    due: Duration,
    /// When it was dialled last.
    tried: Option<Duration>,
    /// The dial under way.
    dialling: Option<Ticket>,
}

/// All candidates of a node.
#[derive(Debug)]
pub(crate) struct Candidates {
    me: NodeId,
    all: Vec<Candidate>,
    counts: HashMap<Source, Counts>,
    /// The dials under way.
    dials: HashMap<Ticket, Source>,
    /// The last dial of each source: the one that waits longest has its turn.
    turns: HashMap<Source, u64>,
    tickets: u64,
    /// Dials that may be made now, in thousandths.
    tokens: u64,
    filled: Duration,
    rng: StdRng,
}

/// The share that a source's candidates belong to, by number, and how large it is.
fn share(source: Source) -> (u8, usize) {
    match source {
        Source::Lan => (0, LAN_CANDIDATES),
        Source::Remembered => (1, REMEMBERED_CANDIDATES),
        _ => (2, MAX_CANDIDATES - LAN_CANDIDATES - REMEMBERED_CANDIDATES),
    }
}

const TOKEN: u64 = 1000;

impl Candidates {
    /// None yet.
    pub(crate) fn new(me: NodeId, seed: [u8; 32]) -> Self {
        Self {
            me,
            all: Vec::new(),
            counts: HashMap::new(),
            dials: HashMap::new(),
            turns: HashMap::new(),
            tickets: 0,
            tokens: TOKEN * u64::from(CANDIDATE_DIAL_BURST),
            filled: Duration::ZERO,
            rng: StdRng::from_seed(seed),
        }
    }

    /// How many there are from a source.
    pub(crate) fn len(&self, source: Source) -> usize {
        self.all.iter().filter(|c| c.said.source == source).count()
    }

    /// What was counted for a source.
    pub(crate) fn counts(&self, source: Source) -> Counts {
        Counts { candidates: self.len(source), ..self.counts.get(&source).copied().unwrap_or_default() }
    }

    /// Somebody says that a node is at an address. `false`: there is no room, or it can't be.
    pub(crate) fn seen(&mut self, said: Sighting, now: Duration) -> bool {
        if said.node == Some(self.me) || said.addr.port() == 0 || !dialable(&said.addr) {
            return false;
        }
        let same =
            |c: &&mut Candidate| c.said.source == said.source && c.said.node == said.node && c.said.addr == said.addr;
        if let Some(known) = self.all.iter_mut().find(same) {
            known.said.tracker |= said.tracker;
            return true;
        }
        let source = said.source;
        let of_source = |c: &Candidate| c.said.source == source;
        let of_node = |c: &Candidate| of_source(c) && c.said.node == said.node && said.node.is_some();
        let (number, most) = share(source);
        let of_share = |c: &Candidate| share(c.said.source).0 == number;
        let at_ip = |c: &Candidate| of_source(c) && c.said.addr.ip() == said.addr.ip();
        let room = self.make_room(MAX_CANDIDATE_ADDRS, of_node)
            && self.make_room(MAX_CANDIDATES_PER_IP, at_ip)
            && self.make_room(most, of_share);
        if !room {
            return false;
        }
        let polite = said.source == Source::Lan && said.node.is_some_and(|node| node < self.me);
        let wait = if polite { POLITE.mul_f64(self.rng.random_range(0.75..=1.25)) } else { Duration::ZERO };
        // What is known of the address or the node counts for whoever says it.
        let alike = |c: &&Candidate| c.said.addr == said.addr && c.failures > 0;
        let held = self.all.iter().filter(alike).map(|c| c.due).max().unwrap_or_default();
        self.all.push(Candidate {
            said,
            proven: false,
            failures: 0,
            due: (now + wait).max(held),
            tried: None,
            dialling: None,
        });
        true
    }

    /// Makes room among the candidates of a kind: of those that failed the one that did so most goes. Those that work, and
    /// those not tried yet, stay: whoever says much can't push out who was there before.
    fn make_room(&mut self, most: usize, kind: impl Fn(&Candidate) -> bool) -> bool {
        if self.all.iter().filter(|c| kind(c)).count() < most {
            return true;
        }
        let worst = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, c)| kind(c) && c.is_failing() && c.dialling.is_none())
            .max_by_key(|(_, c)| c.failures)
            .map(|(at, _)| at);
        worst.map(|at| self.all.swap_remove(at)).is_some()
    }

    /// A source takes back what it said of a node.
    #[cfg(any(feature = "lan", test))]
    pub(crate) fn gone(&mut self, node: &NodeId, source: Source) {
        self.all.retain(|c| c.said.source != source || c.said.node != Some(*node));
    }

    /// A source has begun anew: what it said is forgotten, except for the addresses that failed.
    #[cfg(feature = "lan")]
    pub(crate) fn restarted(&mut self, source: Source) {
        self.all.retain(|c| c.said.source != source || c.failures > 0 || c.dialling.is_some());
    }

    /// The connection to a node has ended: its candidates may be dialled again after a moment.
    pub(crate) fn lost(&mut self, node: &NodeId, now: Duration) {
        for at in 0..self.all.len() {
            if self.all[at].said.node == Some(*node) {
                let due = now + self.jitter(CANDIDATE_BACKOFF_MIN);
                let candidate = &mut self.all[at];
                candidate.due = candidate.due.max(due);
            }
        }
    }

    /// Who is dialled next.
    pub(crate) fn next(&mut self, now: Duration, present: &Present) -> Next {
        self.refill(now);
        let alone = present.peers.is_empty();
        let mut earliest: Option<Duration> = None;
        let mut best: Option<usize> = None;
        for (at, candidate) in self.all.iter().enumerate() {
            if !self.may_be_dialled(candidate, present) {
                continue;
            }
            let due = candidate.due_when(alone);
            if due > now {
                earliest = Some(earliest.map_or(due, |e| e.min(due)));
            } else if best.is_none_or(|best| self.rank(candidate) < self.rank(&self.all[best])) {
                best = Some(at);
            }
        }
        let Some(at) = best else { return Next::Wait(earliest) };
        if self.tokens < TOKEN {
            let missing = TOKEN - self.tokens;
            let wait = Duration::from_millis(missing.div_ceil(u64::from(CANDIDATE_DIALS_PER_SECOND)));
            return Next::Wait(Some(now + wait));
        }
        self.tokens -= TOKEN;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let candidate = &mut self.all[at];
        candidate.dialling = Some(ticket);
        candidate.tried = Some(now);
        let source = candidate.said.source;
        self.dials.insert(ticket, source);
        self.turns.insert(source, self.tickets);
        self.counts.entry(source).or_default().dialled += 1;
        Next::Dial(ticket, candidate.said.clone())
    }

    fn may_be_dialled(&self, candidate: &Candidate, present: &Present) -> bool {
        let said = &candidate.said;
        candidate.dialling.is_none()
            && said.node.is_none_or(|node| !present.peers.contains(&node))
            && self.wants_more(said.source, present)
            // One dial at a time to an address, and to a node.
            && !self.all.iter().any(|other| {
                other.dialling.is_some()
                    && (other.said.addr == said.addr || (said.node.is_some() && other.said.node == said.node))
            })
    }

    /// Whether a source's candidates are wanted, with those that are being dialled counted as if they were there.
    fn wants_more(&self, source: Source, present: &Present) -> bool {
        let dials = self.dials.values().filter(|s| **s == source).count();
        if self.dials.len() >= CANDIDATE_DIALS || dials >= CANDIDATE_DIALS_PER_SOURCE {
            return false;
        }
        match source {
            Source::Lan => present.lan + dials < LAN_PEERS,
            // Whoever is alone tries as many as may be at once: most of them may be gone.
            _ => present.peers.is_empty() || present.peers.len() + dials < ENOUGH_PEERS,
        }
    }

    /// A dial has ended.
    pub(crate) fn ended(&mut self, ticket: Ticket, outcome: Outcome, now: Duration) {
        let Some(source) = self.dials.remove(&ticket) else { return };
        if outcome == Outcome::Proven {
            self.counts.entry(source).or_default().proven += 1;
        }
        // It may have been taken back meanwhile.
        let Some(at) = self.all.iter().position(|c| c.dialling == Some(ticket)) else { return };
        let candidate = &mut self.all[at];
        candidate.dialling = None;
        let (node, addr) = (candidate.said.node, candidate.said.addr);
        match outcome {
            Outcome::Proven => {
                candidate.proven = true;
                candidate.failures = 0;
                // For when it is lost.
                candidate.due = now;
                return;
            }
            Outcome::Itself => {
                self.all.swap_remove(at);
                return;
            }
            Outcome::Failed => candidate.failures += 1,
            Outcome::Refused => candidate.failures = candidate.failures.saturating_add(LIE),
        }
        let failures = candidate.failures;
        let away = candidate.proven && failures <= AWAY;
        let most = if away { CANDIDATE_BACKOFF_SOON } else { CANDIDATE_BACKOFF_MAX };
        let wait = self.jitter(backoff(failures, most));
        let node_wait = self.jitter(backoff(failures, CANDIDATE_BACKOFF_NODE));
        for other in &mut self.all {
            if other.said.addr == addr {
                // Whoever is said to be there.
                other.due = other.due.max(now + wait);
            } else if node.is_some() && other.said.node == node && !other.proven {
                // What was not tried yet waits a moment only: it may be the right one among wrong ones.
                other.due = other.due.max(now + node_wait.min(CANDIDATE_BACKOFF_MIN * other.failures.max(1)));
            }
        }
    }

    /// Who comes first has the smallest: those that worked; then the sources take turns; of one source those with fewer
    /// failures, then trackers, then those that wait longest.
    fn rank(&self, candidate: &Candidate) -> (bool, u64, u32, bool, Duration) {
        let worked = candidate.proven && candidate.failures == 0;
        let turn = self.turns.get(&candidate.said.source).copied().unwrap_or_default();
        (!worked, turn, candidate.failures, !candidate.said.tracker, candidate.due)
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled).as_millis() as u64;
        if passed > 0 {
            let most = TOKEN * u64::from(CANDIDATE_DIAL_BURST);
            let more = passed.saturating_mul(u64::from(CANDIDATE_DIALS_PER_SECOND));
            self.tokens = self.tokens.saturating_add(more).min(most);
            self.filled = now;
        }
    }

    /// Between half of it and all of it, so that many nodes don't dial at the same moment.
    fn jitter(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(self.rng.random_range(0.5..=1.0))
    }
}

/// Whether an address can be that of one node.
fn dialable(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    !ip.is_unspecified() && !ip.is_multicast() && !matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast())
}

fn backoff(failures: u32, most: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    CANDIDATE_BACKOFF_MIN.saturating_mul(1 << doublings).min(most)
}

impl Candidate {
    /// Whether its place is free for another: it doesn't work, or has not done so for long.
    fn is_failing(&self) -> bool {
        self.failures > if self.proven { AWAY } else { 0 }
    }

    /// When it may be dialled: sooner when the node is alone.
    fn due_when(&self, alone: bool) -> Duration {
        match self.tried {
            Some(tried) if alone => self.due.min(tried + CANDIDATE_BACKOFF_SOON),
            _ => self.due,
        }
    }
}
