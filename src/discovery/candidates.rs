//! Addresses at which somebody may be: which are kept, and which is dialled next. Pure: the time is passed in.
//!
//! A candidate is one address, with the id that is said to be there. What is said is worth nothing until a handshake
//! proves it, and who says it may say it ten thousand times. So each source has a share of its own, new candidates take
//! only the places of failed ones, and dials are few at once and few a second.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::identity::NodeId;
use crate::limits::{
    CANDIDATE_BACKOFF_ALONE, CANDIDATE_BACKOFF_MAX, CANDIDATE_BACKOFF_MIN, CANDIDATE_BACKOFF_NODE,
    CANDIDATE_DIAL_BURST, CANDIDATE_DIALS, CANDIDATE_DIALS_PER_SECOND, CANDIDATE_DIALS_PER_SOURCE, ENOUGH_PEERS,
    LAN_CANDIDATES, LAN_PEERS, MAX_CANDIDATE_ADDRS, MAX_CANDIDATES, MAX_CANDIDATES_PER_IP, REMEMBERED_CANDIDATES,
};
use crate::node::Source;

/// Two nodes that find each other at the same moment would both dial. The one with the smaller id does so at once, the
/// other after this time, if it is still alone then.
const POLITE: Duration = Duration::from_millis(500);

/// As many failures as a lie counts for: who answered was not who was named.
const LIE: u32 = 6;

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

/// The most candidates of one source.
fn share(source: Source) -> usize {
    match source {
        Source::Lan => LAN_CANDIDATES,
        Source::Remembered => REMEMBERED_CANDIDATES,
        _ => MAX_CANDIDATES - LAN_CANDIDATES - REMEMBERED_CANDIDATES,
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
        let at_ip = |c: &Candidate| of_source(c) && c.said.addr.ip() == said.addr.ip();
        let room = self.make_room(MAX_CANDIDATE_ADDRS, of_node)
            && self.make_room(MAX_CANDIDATES_PER_IP, at_ip)
            && self.make_room(share(source), of_source);
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
            .filter(|(_, c)| kind(c) && c.failures > 0 && !c.proven && c.dialling.is_none())
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
        let wait = self.jitter(backoff(failures, CANDIDATE_BACKOFF_MAX));
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
    /// When it may be dialled: sooner when the node is alone.
    fn due_when(&self, alone: bool) -> Duration {
        match self.tried {
            Some(tried) if alone => self.due.min(tried + CANDIDATE_BACKOFF_ALONE),
            _ => self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    fn addr(n: u16) -> SocketAddr {
        let [a, b] = n.to_be_bytes();
        SocketAddr::from(([10, 0, a, b], 7878))
    }

    fn said(n: u16, source: Source) -> Sighting {
        Sighting { node: Some(id(n)), addr: addr(n), source, tracker: false }
    }

    /// The smallest id: it dials at once.
    fn fresh() -> Candidates {
        Candidates::new(id(0), [7; 32])
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn dial(all: &mut Candidates, now: Duration, present: &Present) -> Option<(Ticket, Sighting)> {
        match all.next(now, present) {
            Next::Dial(ticket, said) => Some((ticket, said)),
            Next::Wait(_) => None,
        }
    }

    #[test]
    fn ten_thousand_announcements_take_one_share_and_push_out_nobody() {
        let mut all = fresh();
        assert!(all.seen(said(1, Source::Remembered), s(0)) && all.seen(said(2, Source::Lan), s(0)));
        let taken = (100..10_100).filter(|n| all.seen(said(*n, Source::Lan), s(1))).count();
        assert_eq!(taken, LAN_CANDIDATES - 1);
        assert_eq!((all.len(Source::Lan), all.len(Source::Remembered)), (LAN_CANDIDATES, 1));
        assert!(all.all.iter().any(|c| c.said == said(2, Source::Lan)), "who was first is still there");
        assert!(all.seen(said(20_000, Source::Remembered), s(1)), "the others' shares are free");
    }

    #[test]
    fn an_hour_of_bogus_announcements_costs_few_dials_and_no_burst() {
        let mut all = fresh();
        let present = Present::default();
        let (mut dials, mut under_way, mut n) = (0u64, Vec::new(), 0u16);
        for second in 0..3600u64 {
            for _ in 0..10 {
                n = n.wrapping_add(1).max(1);
                all.seen(said(n, Source::Lan), s(second));
            }
            for ticket in under_way.drain(..) {
                all.ended(ticket, Outcome::Failed, s(second));
            }
            while let Some((ticket, _)) = dial(&mut all, s(second), &present) {
                under_way.push(ticket);
            }
            assert!(under_way.len() <= CANDIDATE_DIALS_PER_SOURCE);
            dials += under_way.len() as u64;
            assert!(all.all.len() <= MAX_CANDIDATES);
        }
        let most = u64::from(CANDIDATE_DIAL_BURST + 3600 * CANDIDATE_DIALS_PER_SECOND);
        assert!(dials <= most, "{dials} dials, at most {most}");
        assert_eq!(all.counts(Source::Lan).dialled, dials);
    }

    #[test]
    fn one_source_cannot_keep_the_turns_of_another() {
        let mut all = fresh();
        for n in 100..300 {
            all.seen(said(n, Source::Lan), s(0));
        }
        all.seen(said(1, Source::Remembered), s(0));
        all.seen(Sighting { tracker: true, ..said(2, Source::Remembered) }, s(0));
        let (_, first) = dial(&mut all, s(0), &Present::default()).unwrap();
        assert_eq!(first.addr, addr(2), "trackers first");
        let order: Vec<Source> = (0..3).map(|_| dial(&mut all, s(0), &Present::default()).unwrap().1.source).collect();
        assert_eq!(order, [Source::Lan, Source::Remembered, Source::Lan]);
    }

    #[test]
    fn failures_are_waited_for_longer_and_longer_and_less_when_alone() {
        let mut all = fresh();
        all.seen(said(1, Source::Remembered), s(0));
        let alone = Present::default();
        let busy = Present { peers: [id(9)].into(), lan: 0 };
        let (mut now, mut before) = (Duration::ZERO, Duration::ZERO);
        for round in 0..12 {
            let (ticket, _) = dial(&mut all, now, &busy).unwrap();
            all.ended(ticket, Outcome::Failed, now);
            let Next::Wait(Some(due)) = all.next(now, &busy) else { panic!("it is waited for") };
            let wait = due - now;
            assert!(wait <= CANDIDATE_BACKOFF_MAX && (round > 8 || wait * 2 > before), "{wait:?} after {before:?}");
            let Next::Wait(Some(sooner)) = all.next(now, &alone) else { panic!("it is waited for") };
            assert!(sooner - now <= CANDIDATE_BACKOFF_ALONE);
            (now, before) = (due, wait);
        }
        assert!(before >= CANDIDATE_BACKOFF_MAX / 2, "{before:?}");
        let (ticket, _) = dial(&mut all, now, &busy).unwrap();
        all.ended(ticket, Outcome::Proven, now);
        assert!(dial(&mut all, now, &busy).is_some(), "what worked is forgiven");
    }

    #[test]
    fn an_address_that_fails_fails_for_everybody_said_to_be_there() {
        let mut all = fresh();
        all.seen(said(1, Source::Lan), s(0));
        all.seen(Sighting { addr: addr(1), ..said(2, Source::Lan) }, s(0));
        let (ticket, _) = dial(&mut all, s(0), &Present::default()).unwrap();
        assert!(dial(&mut all, s(0), &Present::default()).is_none(), "one dial at a time to an address");
        all.ended(ticket, Outcome::Refused, s(0));
        assert!(dial(&mut all, s(10), &Present::default()).is_none());
        all.seen(Sighting { addr: addr(1), ..said(3, Source::Lan) }, s(10));
        assert!(dial(&mut all, s(10), &Present::default()).is_none(), "nor for somebody new there");
    }

    #[test]
    fn wrong_addresses_of_a_node_take_little_room_and_hold_its_right_one_for_a_moment() {
        let mut all = fresh();
        let at = |n: u16| Sighting { addr: addr(n), ..said(1, Source::Lan) };
        for n in 100..200 {
            all.seen(at(n), s(0));
        }
        assert_eq!(all.len(Source::Lan), MAX_CANDIDATE_ADDRS);
        let (ticket, _) = dial(&mut all, s(0), &Present::default()).unwrap();
        assert!(dial(&mut all, s(0), &Present::default()).is_none(), "one dial at a time to a node");
        all.ended(ticket, Outcome::Refused, s(0));
        assert!(all.seen(at(1), s(1)), "in the place of the one that failed");
        let mut met = false;
        for second in 1..20 {
            while let Some((ticket, said)) = dial(&mut all, s(second), &Present::default()) {
                met |= said.addr == addr(1);
                all.ended(ticket, if met { Outcome::Proven } else { Outcome::Refused }, s(second));
                if met {
                    return;
                }
            }
        }
        panic!("the right address was never tried");
    }

    #[test]
    fn many_ports_of_one_machine_are_a_scan() {
        let mut all = fresh();
        for port in 1..1000 {
            let addr = SocketAddr::from(([10, 0, 0, 1], port));
            all.seen(Sighting { addr, ..said(port, Source::Lan) }, s(0));
        }
        assert_eq!(all.len(Source::Lan), MAX_CANDIDATES_PER_IP);
    }

    #[test]
    fn whoever_is_connected_or_enough_is_not_dialled() {
        let mut all = fresh();
        for n in 1..=20 {
            all.seen(said(n, Source::Lan), s(0));
            all.seen(said(100 + n, Source::Remembered), s(0));
        }
        let full = Present { peers: (1..=8).map(id).collect(), lan: LAN_PEERS };
        assert_eq!(all.next(s(0), &full), Next::Wait(None));
        let one_less = Present { peers: (1..=7).map(id).collect(), lan: LAN_PEERS - 1 };
        let (_, said) = dial(&mut all, s(0), &one_less).unwrap();
        assert!(said.source == Source::Lan && !one_less.peers.contains(&said.node.unwrap()));
        assert!(dial(&mut all, s(0), &one_less).is_none(), "the one under way counts");
        let two = Present { peers: [id(1), id(2)].into(), lan: LAN_PEERS };
        assert_eq!(dial(&mut all, s(0), &two).unwrap().1.source, Source::Remembered);
        assert!(dial(&mut all, s(0), &two).is_none());
    }

    #[test]
    fn of_two_that_find_each_other_the_smaller_id_dials_at_once() {
        let (mut small, mut large) = (Candidates::new(id(1), [1; 32]), Candidates::new(id(2), [1; 32]));
        small.seen(said(2, Source::Lan), s(0));
        large.seen(said(1, Source::Lan), s(0));
        assert!(dial(&mut small, s(0), &Present::default()).is_some());
        let Next::Wait(Some(due)) = large.next(s(0), &Present::default()) else { panic!("the larger waits") };
        assert!(due <= POLITE * 2 && dial(&mut large, due, &Present::default()).is_some());
    }

    #[test]
    fn what_cannot_be_is_not_taken() {
        let mut all = fresh();
        assert!(!all.seen(said(0, Source::Lan), s(0)), "this node itself");
        for text in ["0.0.0.0:1", "224.0.0.251:5353", "255.255.255.255:1", "10.0.0.1:0", "[ff02::fb]:1", "[::]:1"] {
            assert!(!all.seen(Sighting { addr: text.parse().unwrap(), ..said(1, Source::Lan) }, s(0)), "{text}");
        }
        all.seen(said(1, Source::Lan), s(0));
        let (ticket, _) = dial(&mut all, s(0), &Present::default()).unwrap();
        all.ended(ticket, Outcome::Itself, s(0));
        assert_eq!(all.len(Source::Lan), 0, "it was this node under another name");
        all.seen(said(1, Source::Lan), s(0));
        let (ticket, _) = dial(&mut all, s(0), &Present::default()).unwrap();
        all.gone(&id(1), Source::Lan);
        all.ended(ticket, Outcome::Failed, s(0));
        assert_eq!((all.len(Source::Lan), all.dials.len()), (0, 0));
    }
}
