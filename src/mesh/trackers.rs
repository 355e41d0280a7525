//! Registering: with which trackers a node stays connected beyond those that were configured.
//!
//! Candidates are public trackers whose records were heard. A node that has fewer trackers than it wants dials them,
//! one chosen at random after a wait drawn at random: whoever loses a tracker does so together with many others, and they must
//! not all come to the same next one at the same moment. A public tracker does the same to find other trackers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::RngExt;

use super::action::Action;
use super::clock::Now;
use super::peers::{How, Peer};
use super::reachability::is_global;
use super::redial::Redial;
use super::state::{State, Timer};
use super::throttle::Bucket;
use crate::identity::NodeId;
use crate::info::Source;
use crate::limits::{Limits, MAX_FEDERATED, MAX_TRACKER_CANDIDATES, MAX_TRACKER_CANDIDATES_OF_ONE};
use crate::wire::{Record, TrackerRole};

/// Within what time a node without any tracker dials the next one: it can't be reached meanwhile.
const SPREAD_ALONE: Duration = Duration::from_millis(1000);

/// Within what time a node that has some, but fewer than it wants, dials the next one.
const SPREAD: Duration = Duration::from_secs(10);

/// Within what time it dials the one after that: its turn has come, and its record need not change once for each of them.
const SPREAD_NEXT: Duration = Duration::from_millis(300);

/// How many a node without any tracker dials at once: the first may be as dead as the one it lost.
const DIALS_ALONE: usize = 3;

/// After so many failures in a row a candidate is forgotten.
const MAX_FAILURES: u32 = 16;

/// How often one is dialled that never worked: 16 at once, then one in 5 s. Whoever tells of trackers can make up as many as
/// it likes, at addresses of its choosing.
const UNKNOWN_BURST: u32 = 16;
const UNKNOWN_EVERY: u32 = 5;

/// A tracker that is known, and not configured.
#[derive(Debug)]
struct Candidate {
    addrs: Vec<SocketAddr>,
    /// Of the record that named the addresses.
    seq: u64,
    told_by: NodeId,
    redial: Redial,
    /// Not dialled before.
    after: Duration,
    failures: u32,
    /// It is being dialled; when the news of it is no longer waited for.
    dialing: Option<Duration>,
}

/// The trackers to register with.
#[derive(Debug)]
pub struct Trackers {
    candidates: BTreeMap<NodeId, Candidate>,
    /// When it last registered with one of them; none was lost since.
    registered: Option<Duration>,
    /// Those that never worked, and from when on the next of them may be dialled.
    unknown: (Bucket, Duration),
    belongs: Belongs,
}

/// To whose trackers this node belongs, as far as that shows in this run.
#[derive(Debug, Default)]
struct Belongs {
    /// It connected to a private one.
    private: bool,
    /// One that says so came from a network of its own.
    claimed: bool,
    /// Its owner named a public one.
    public: bool,
}

impl Belongs {
    /// A tracker that is a peer. What a stranger from the internet says of itself changes nothing, nor does one that was
    /// dialled because it called itself public.
    fn note(&mut self, peer: &Peer) {
        let (arrival, how) = (&peer.arrival, peer.arrival.how);
        let chosen = !arrival.inbound && !how.on_demand && how.found != Source::Tracker;
        match arrival.tracker {
            TrackerRole::Private if chosen => self.private = true,
            TrackerRole::Private => self.claimed |= arrival.inbound && !is_global(arrival.addr.ip().to_canonical()),
            TrackerRole::Public => self.public |= chosen && how.found == Source::Peer,
            TrackerRole::None => {}
        }
    }

    fn to_private(&self) -> bool {
        self.private || self.claimed && !self.public
    }
}

impl Default for Trackers {
    fn default() -> Self {
        Self {
            candidates: BTreeMap::new(),
            registered: None,
            unknown: (Bucket::new(1, UNKNOWN_BURST), Duration::ZERO),
            belongs: Belongs::default(),
        }
    }
}

impl Trackers {
    /// From when on a candidate may be dialled.
    fn free_at(&self, candidate: &Candidate) -> Duration {
        if candidate.redial.was_good() { candidate.after } else { candidate.after.max(self.unknown.1) }
    }

    /// Makes room for another one that `told_by` tells of; `false` when there is none.
    fn make_room(&mut self, told_by: &NodeId, own: bool) -> bool {
        let of_one = self.candidates.values().filter(|c| c.told_by == *told_by).count();
        let full_of_one = !own && of_one >= MAX_TRACKER_CANDIDATES_OF_ONE;
        if !full_of_one && self.candidates.len() < MAX_TRACKER_CANDIDATES {
            return true;
        }
        // One that failed goes, first those that never worked. Those that nothing is known against stay.
        let failed = self.candidates.iter().filter(|(_, c)| c.failures > 0 && (!full_of_one || c.told_by == *told_by));
        let worst = failed.max_by_key(|(_, c)| (!c.redial.was_good(), c.failures)).map(|(node, _)| *node);
        worst.is_some_and(|node| self.candidates.remove(&node).is_some())
    }

    /// Takes a dial's place among those that never worked, if it is one of them.
    fn may_dial(&mut self, node: &NodeId, now: Now) -> bool {
        if self.candidates.get(node).is_some_and(|c| c.redial.was_good()) {
            return true;
        }
        let (bucket, from) = &mut self.unknown;
        match bucket.take(now.mono / UNKNOWN_EVERY) {
            Ok(()) => true,
            Err(wait) => {
                *from = now.mono + wait.saturating_mul(UNKNOWN_EVERY);
                false
            }
        }
    }

    /// How many there are.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    /// What they hold, in bytes.
    #[cfg(test)]
    pub fn weight(&self) -> usize {
        let addrs = |c: &Candidate| c.addrs.capacity() * size_of::<SocketAddr>();
        super::weight::btree(self.candidates.len(), size_of::<(NodeId, Candidate)>())
            + self.candidates.values().map(addrs).sum::<usize>()
    }
}

impl State {
    /// How many trackers it wants to be connected with.
    fn trackers_wanted(&self) -> usize {
        let most = self.config.limits.max_trackers;
        match self.config.tracker {
            _ if most == 0 => 0,
            // Who belongs to a private tracker does not publish itself elsewhere.
            TrackerRole::None if self.known_trackers.belongs.to_private() => 0,
            TrackerRole::None => most,
            TrackerRole::Public => MAX_FEDERATED,
            TrackerRole::Private => 0,
        }
    }

    /// Who is not let in any more is not dialled either.
    pub(super) fn forget_barred_trackers(&mut self) {
        let barred: Vec<NodeId> =
            self.known_trackers.candidates.keys().filter(|node| !self.admits(node)).copied().collect();
        for node in barred {
            self.known_trackers.candidates.remove(&node);
        }
    }

    /// A record was learned: it may be a tracker's.
    pub(super) fn tracker_learned(&mut self, record: &Record, from: Option<NodeId>, now: Now) {
        let node = record.node_id;
        let addrs = self.dialable(&record.addrs);
        if record.tracker != TrackerRole::Public || addrs.is_empty() || node == self.me || !self.admits(&node) {
            self.known_trackers.candidates.remove(&node);
            return;
        }
        if let Some(known) = self.known_trackers.candidates.get_mut(&node) {
            if known.seq < record.seq {
                known.seq = record.seq;
                if known.addrs != addrs {
                    known.addrs = addrs;
                    (known.failures, known.after) = (0, now.mono);
                }
            }
            return;
        }
        let told_by = from.unwrap_or(node);
        if !self.known_trackers.make_room(&told_by, told_by == node) {
            return self.refuse("too_many_trackers");
        }
        let candidate = Candidate {
            addrs,
            seq: record.seq,
            told_by,
            redial: Redial::new(&self.config.limits),
            after: now.mono,
            failures: 0,
            dialing: None,
        };
        self.known_trackers.candidates.insert(node, candidate);
        self.look_for_trackers(now);
    }

    /// Trackers came, went or became known: decides when the next one is dialled.
    pub(super) fn look_for_trackers(&mut self, now: Now) {
        for (_, peer) in self.peers.trackers() {
            self.known_trackers.belongs.note(peer);
        }
        let Some((at, alone)) = self.next_tracker_dial(now) else {
            return self.timers.cancel(&Timer::Register);
        };
        let goes_on = self.known_trackers.registered.is_some_and(|at| now.mono.saturating_sub(at) < SPREAD_NEXT);
        let spread = match alone {
            true => SPREAD_ALONE,
            false if goes_on => SPREAD_NEXT,
            false => SPREAD,
        };
        let wait = spread.mul_f64(self.rng.random_range(0.0..1.0));
        let at = at.max(now.mono).saturating_add(wait);
        // What was drawn stays, or those who hear much would draw again and again. It is only ever sooner: a node that has
        // lost its last tracker doesn't wait as long as it would with some.
        if self.timers.at(&Timer::Register).is_none_or(|set| alone && at < set && set - now.mono > spread) {
            self.timers.set(Timer::Register, at);
        }
    }

    /// Whether a tracker counts as one that this node has. One that came to it says no more than that it is one: anybody can.
    /// Trackers look for each other, and it is all the same to them who dialled.
    pub(super) fn is_own_tracker(&self, peer: &Peer) -> bool {
        self.config.tracker != TrackerRole::None || !peer.arrival.inbound
    }

    /// From when on the next tracker may be dialled, and whether there is none at all; `None`: nothing to do.
    fn next_tracker_dial(&self, now: Now) -> Option<(Duration, bool)> {
        let connected = self.peers.trackers().filter(|(_, p)| self.is_own_tracker(p)).count();
        let dialing = self.known_trackers.candidates.values().filter(|c| c.dialing.is_some()).count();
        let alone = connected == 0 && self.config.tracker == TrackerRole::None;
        let at_once = if alone { DIALS_ALONE } else { 1 };
        if connected + dialing >= self.trackers_wanted() || dialing >= at_once {
            return None;
        }
        let known = self.known_trackers.candidates.iter();
        let free = known.filter(|(n, c)| c.dialing.is_none() && self.peers.conn_of(n).is_none());
        free.map(|(_, c)| self.known_trackers.free_at(c).max(now.mono)).min().map(|at| (at, alone))
    }

    /// The wait is over: dials a tracker.
    pub(super) fn register_due(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.next_tracker_dial(now).is_some_and(|(at, _)| at <= now.mono) {
            let known = self.known_trackers.candidates.iter();
            let free = known.filter(|(n, c)| c.dialing.is_none() && self.peers.conn_of(n).is_none());
            let ready = free.filter(|(_, c)| self.known_trackers.free_at(c) <= now.mono);
            let ready: Vec<NodeId> = ready.map(|(n, _)| *n).collect();
            // At random: that spreads nodes over the trackers.
            let chosen = (!ready.is_empty()).then(|| ready[self.rng.random_range(0..ready.len())]);
            if let Some(node) = chosen
                && self.known_trackers.may_dial(&node, now)
                && let Some(candidate) = self.known_trackers.candidates.get_mut(&node)
            {
                let until = now.mono.saturating_add(dial_patience(&self.config.limits, candidate.addrs.len()));
                candidate.dialing = Some(until);
                let addrs = candidate.addrs.clone();
                // A call that wants to go there meanwhile waits for this dial.
                if self.dialing.get(&node).is_none_or(|until| *until <= now.mono) {
                    self.dialing.insert(node, until);
                    out.push(Action::Dial { node, addrs, how: How::kept(Source::Tracker) });
                }
            }
        }
        self.look_for_trackers(now);
    }

    /// A node was connected, and by that a candidate perhaps.
    pub(super) fn tracker_connected(&mut self, node: &NodeId, now: Now) {
        if let Some(candidate) = self.known_trackers.candidates.get_mut(node) {
            if candidate.dialing.take().is_some() {
                self.known_trackers.registered = Some(now.mono);
            }
            candidate.failures = 0;
        }
    }

    /// A node could not be dialled.
    pub(super) fn tracker_not_dialled(&mut self, node: &NodeId, now: Now) {
        let connected = self.peers.conn_of(node).is_some();
        let chance = self.rng.random_range(0.0..1.0);
        let Some(candidate) = self.known_trackers.candidates.get_mut(node) else { return };
        if candidate.dialing.take().is_some() && !connected {
            candidate.failures += 1;
            candidate.after = now.mono + candidate.redial.next(now.mono, &self.config.limits, chance);
            if candidate.failures >= MAX_FAILURES {
                self.known_trackers.candidates.remove(node);
            }
        }
        self.look_for_trackers(now);
    }

    /// A connection to a node ended that had begun at `since`.
    pub(super) fn tracker_lost(&mut self, node: &NodeId, since: Duration, now: Now) {
        let chance = self.rng.random_range(0.0..1.0);
        if let Some(candidate) = self.known_trackers.candidates.get_mut(node) {
            self.known_trackers.registered = None;
            candidate.redial.lost(now.mono.saturating_sub(since), now.mono, &self.config.limits);
            candidate.after = now.mono + candidate.redial.next(now.mono, &self.config.limits, chance);
        }
    }

    /// Dials that nobody told the end of are waited for no longer.
    pub(super) fn sweep_trackers(&mut self, now: Now) {
        let late = |c: &Candidate| c.dialing.is_some_and(|until| until <= now.mono);
        let late: Vec<NodeId> =
            self.known_trackers.candidates.iter().filter(|(_, c)| late(c)).map(|(n, _)| *n).collect();
        for node in late {
            self.tracker_not_dialled(&node, now);
        }
    }
}

/// The longest a dial to so many addresses takes.
pub fn dial_patience(limits: &Limits, addrs: usize) -> Duration {
    limits.connect_timeout.saturating_add(limits.handshake_timeout).saturating_mul(addrs as u32)
}
