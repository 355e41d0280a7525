//! Hole punching: two nodes behind NATs that talk through a tracker's relay come to a connection of their own.
//!
//! Both connect to each other's public address at the same moment, each from the local port of its connection to the
//! tracker: the NATs see two outgoing connections, and let the other's packets in as answers (TCP simultaneous open, RFC
//! 9293 §3.5; Ford, Srisuresh, Kegel: Peer-to-Peer Communication Across NATs, 2005). The tracker knows both public
//! addresses, and tells both when to begin. The relay stays in use until the connection has proven itself, by the
//! handshake; calls that went out over the relay end there.
//!
//! What a tracker that lies can make a node do is bounded here: see [`State::on_punch_start`].

mod addrs;
mod contacts;
#[cfg(test)]
pub(super) mod tests;
mod tracker;

use std::collections::BTreeMap;
use std::time::Duration;

use self::contacts::Contacts;
use self::tracker::Helped;
use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::peers::{Arrival, Peer};
use super::state::State;
use super::throttle::Bucket;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::{MAX_PUNCHES, MAX_PUNCHING};
use crate::wire::{PunchError, PunchStart, TrackerRole, draft};

/// Both nodes and the tracker list it.
pub const FEATURE: &str = "punch";

/// How long a tracker may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// When an attempt that nobody told the end of is given up: far more than it may take.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// How long nothing is tried after a failure: NATs change their ways seldom.
const BACKOFF: Duration = Duration::from_secs(300);

/// The same when only the tracker had too much to do.
const BUSY: Duration = Duration::from_secs(30);

/// The longest wait before it begins: half the longest round trip that a call would live with.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How often a node begins at a tracker's word what it did not ask for: once in 10 s, and 4 times on top.
const UNASKED_EVERY: u32 = 10;
const UNASKED_BURST: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The tracker was asked, with this id.
    Asked { id: String, tracker: NodeId },
    /// Both are at it.
    Punching,
    /// It came to nothing.
    Failed { why: String },
}

#[derive(Debug)]
struct Attempt {
    phase: Phase,
    /// When that is over.
    until: Duration,
}

/// Attempts of a node, whom it reaches through trackers, and whom it helped as a tracker.
#[derive(Debug)]
pub struct Punches {
    attempts: BTreeMap<NodeId, Attempt>,
    unasked: Bucket,
    contacts: Contacts,
    helped: Helped,
}

impl Default for Punches {
    fn default() -> Self {
        Self {
            attempts: BTreeMap::new(),
            unasked: Bucket::new(1, UNASKED_BURST),
            contacts: Contacts::default(),
            helped: Helped::default(),
        }
    }
}

impl Punches {
    pub(super) fn set(&mut self, node: NodeId, phase: Phase, until: Duration) {
        if self.attempts.len() >= MAX_PUNCHES && !self.attempts.contains_key(&node) {
            // What has failed longest ago goes first; what is under way stays while there is anything else.
            let goes = self.attempts.iter().min_by_key(|(_, a)| (!matches!(a.phase, Phase::Failed { .. }), a.until));
            if let Some(goes) = goes.map(|(node, _)| *node) {
                self.attempts.remove(&goes);
            }
        }
        self.attempts.insert(node, Attempt { phase, until });
    }

    /// Whether as many are under way as may be, those asked for included: each of them may be told to begin.
    fn is_full(&self) -> bool {
        let under_way = |a: &&Attempt| !matches!(a.phase, Phase::Failed { .. });
        self.attempts.values().filter(under_way).count() >= MAX_PUNCHING
    }

    /// How it stands with a node, in words; empty when nothing was tried.
    pub(super) fn note(&self, node: &NodeId) -> String {
        match self.attempts.get(node).map(|a| &a.phase) {
            Some(Phase::Asked { .. } | Phase::Punching) => "punching".to_owned(),
            Some(Phase::Failed { why }) => format!("punching failed: {why}"),
            None => String::new(),
        }
    }

    /// How many attempts are remembered.
    #[cfg(any(test, fuzzing))]
    pub fn len(&self) -> usize {
        self.attempts.len()
    }
}

/// Whether a list of features has this one.
fn can(features: &[String]) -> bool {
    features.iter().any(|f| f == FEATURE)
}

/// Whether a peer is a tracker that this node dialled, and that helps: the local port of that connection is the one its
/// NAT has a public port for. Over loopback there is no NAT to get through, and no address worth telling.
fn helps(peer: &Peer) -> bool {
    let a = &peer.arrival;
    peer.legacy.is_none()
        && a.tracker != TrackerRole::None
        && !a.inbound
        && !a.local.ip().is_loopback()
        && can(&a.features)
}

impl State {
    fn can_punch(&self) -> bool {
        can(&self.config.features)
    }

    /// A call goes to a node through a tracker: is there help to be had to a connection with it?
    pub(super) fn want_direct(&mut self, node: NodeId, via: NodeId, now: Now, out: &mut Vec<Action>) {
        let wanted = self.can_punch() && !self.draining && self.peers.conn_of(&node).is_none();
        if !wanted || self.punches.attempts.contains_key(&node) {
            return;
        }
        // Only a tracker that the other is connected to as well can help, and its record names those.
        let Some(record) = self.table.get(&node).filter(|r| can(&r.features)).cloned() else { return };
        let help = |t: &NodeId| record.trackers.contains(t) && self.peers.proven(t).is_some_and(helps);
        let tracker = Some(via).filter(&help).or_else(|| record.trackers.iter().find(|t| help(t)).copied());
        let Some(tracker) = tracker else { return };
        if self.punches.is_full() {
            return;
        }
        if self.is_symmetric() {
            return self.punch_ended(node, "symmetric NAT".to_owned(), now);
        }
        let Some(to) = self.peers.conn_of(&tracker) else { return };
        let id = self.new_id();
        let addrs = self.own_candidates(to);
        let ask = draft::punch(&id, Some(&node), &addrs);
        out.push(Action::Send { to, what: What::Ready(ask), on_full: OnFull::Drop });
        self.punches.set(node, Phase::Asked { id, tracker }, now.mono + ANSWER);
    }

    /// A tracker says: begin.
    ///
    /// A tracker may lie, or be told to by whom it serves. What it can make this node do: send a few TCP SYNs a second,
    /// to at most five addresses, once in ten seconds, on behalf of a node that has sent it a signed task through a
    /// tracker lately; and, where something answers, one `hello`. Never to loopback, and into a private network only if
    /// the tracker is in one itself, or gives this node's own public address, and then only near this node and not to
    /// ports below 1024.
    pub(super) fn on_punch_start(&mut self, start: PunchStart, from: NodeId, now: Now, out: &mut Vec<Action>) {
        let helper = self.peers.proven(&from).filter(|p| helps(p)).map(|p| p.arrival.clone());
        let (Some(arrival), true) = (helper, self.can_punch()) else { return self.refuse("unasked_punch") };
        let peer = start.peer;
        if peer == self.me || self.draining || self.peers.conn_of(&peer).is_some() {
            return; // A connection came first.
        }
        if !self.admits(&peer) {
            return self.refuse("punch_not_allowed");
        }
        let attempt = self.punches.attempts.get(&peer).map(|a| &a.phase);
        let asked = matches!(attempt, Some(Phase::Asked { id, tracker }) if *id == start.id && *tracker == from);
        if !asked {
            let busy = attempt == Some(&Phase::Punching) || self.punches.is_full();
            if busy || !self.punches.contacts.has(&peer) {
                return self.refuse("unasked_punch");
            }
            if self.punches.unasked.take(now.mono / UNASKED_EVERY).is_err() {
                return self.refuse("punch_rate");
            }
        }
        let given = start.addrs.len();
        let addrs = addrs::usable(&start.addrs, &arrival);
        if addrs.len() < given {
            self.refuse_n("punch_address", (given - addrs.len()) as u64);
        }
        if addrs.is_empty() {
            let why = "the tracker gave no address that may be tried";
            return self.punch_ended(peer, why.to_owned(), now);
        }
        self.punches.set(peer, Phase::Punching, now.mono + GIVEN_UP);
        out.push(Action::Punch {
            node: peer,
            local: arrival.local,
            addrs,
            wait: Duration::from_millis(start.wait_ms).min(MAX_WAIT),
            // Of the two one must say hello first, and both know which.
            dialler: self.me < peer,
        });
    }

    /// A tracker says that it can't help.
    pub(super) fn on_punch_error(&mut self, error: PunchError, from: NodeId, now: Now) {
        let asked =
            self.punches.attempts.get(&error.target).is_some_and(
                |a| matches!(&a.phase, Phase::Asked { id, tracker } if *id == error.id && *tracker == from),
            );
        if !asked {
            return self.refuse("unasked_punch");
        }
        let why = super::handshake::tellable(&error.error.message);
        self.punch_ended(error.target, why, now);
        if ErrorCode::from_wire(&error.error.code) == Some(ErrorCode::RateLimited)
            && let Some(attempt) = self.punches.attempts.get_mut(&error.target)
        {
            attempt.until = now.mono + BUSY;
        }
    }

    /// Both tried, and no connection came of it.
    pub fn punch_failed(&mut self, node: &NodeId, why: &str, now: Now) {
        if self.punches.attempts.get(node).is_some_and(|a| a.phase == Phase::Punching) {
            let why = if self.is_symmetric() { "symmetric NAT" } else { why };
            self.punch_ended(*node, why.to_owned(), now);
        }
    }

    fn punch_ended(&mut self, node: NodeId, why: String, now: Now) {
        self.punches.set(node, Phase::Failed { why }, now.mono + BACKOFF);
    }

    /// A node connected, whichever way; a tracker that helps is told where this node is in its own network.
    pub(super) fn punches_on_connected(&mut self, conn: ConnId, node: &NodeId, out: &mut Vec<Action>) {
        self.punches.attempts.remove(node);
        if !self.can_punch() || !self.peers.get(conn).is_some_and(helps) {
            return;
        }
        let addrs = self.own_candidates(conn);
        if !addrs.is_empty() {
            let id = self.new_id();
            let told = draft::punch(&id, None, &addrs);
            out.push(Action::Send { to: conn, what: What::Ready(told), on_full: OnFull::Drop });
        }
    }

    pub(super) fn punches_expire(&mut self, now: Now) {
        self.punches.contacts.expire(now.mono);
        self.punches.helped.expire(now.mono);
        let late: Vec<NodeId> =
            self.punches.attempts.iter().filter(|(_, a)| a.until <= now.mono).map(|(node, _)| *node).collect();
        for node in late {
            match self.punches.attempts.remove(&node).map(|a| a.phase) {
                Some(Phase::Asked { .. }) => self.punch_ended(node, "the tracker did not answer".to_owned(), now),
                Some(Phase::Punching) => self.punch_ended(node, "it did not come to an end".to_owned(), now),
                Some(Phase::Failed { .. }) | None => {}
            }
        }
    }

    /// Whether this node's NAT is known to give one local port several public ones: two trackers, to which the same local
    /// port is connected, see it at one address with different ports. With a single tracker nobody can tell.
    pub(super) fn is_symmetric(&self) -> bool {
        let seen: Vec<&Arrival> =
            self.peers.trackers().map(|(_, p)| &p.arrival).filter(|a| !a.inbound && a.observed.is_some()).collect();
        seen.iter().enumerate().any(|(i, a)| {
            seen[..i].iter().any(|b| {
                let same = |x: Option<std::net::SocketAddr>| x.map(|addr| addr.ip());
                a.local == b.local && same(a.observed) == same(b.observed) && a.observed != b.observed
            })
        })
    }
}
