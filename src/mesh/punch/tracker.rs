//! The tracker's side: who is helped to a connection, how often, and when both begin.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::{MAX_WAIT, addrs, can};
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::{MAX_PUNCH_CANDIDATES, MAX_PUNCH_PAIRS};
use crate::mesh::action::{Action, OnFull, What};
use crate::mesh::clock::Now;
use crate::mesh::conn_id::ConnId;
use crate::mesh::peers::Peer;
use crate::mesh::seen::Seen;
use crate::mesh::state::State;
use crate::mesh::throttle::Bucket;
use crate::wire::{Punch, TrackerRole, WireError, draft};

/// How long two nodes are not helped again, whichever of them asks.
const PAIR: Duration = Duration::from_secs(30);

/// How often a node takes part, asking or asked for: once in 6 s, and 16 times on top.
const NODE_EVERY: u32 = 6;
const NODE_BURST: u32 = 16;

/// How many are helped in all, a second: two short messages each.
const ALL_PER_SECOND: u32 = 50;

/// How long a node's rate is remembered: until its bucket is full again.
const REMEMBERED: Duration = Duration::from_secs(6 * 16);

/// Both messages should be there before it begins, whatever a thread is busy with.
const MARGIN: Duration = Duration::from_millis(20);

/// Whom a tracker helped.
#[derive(Debug)]
pub(super) struct Helped {
    pairs: Seen<(NodeId, NodeId), ()>,
    nodes: BTreeMap<NodeId, (Bucket, Duration)>,
    all: Bucket,
    /// Where peers are in their own networks, as they told.
    candidates: BTreeMap<ConnId, Vec<SocketAddr>>,
}

impl Default for Helped {
    fn default() -> Self {
        Self {
            pairs: Seen::new(MAX_PUNCH_PAIRS, PAIR),
            nodes: BTreeMap::new(),
            all: Bucket::new(ALL_PER_SECOND, ALL_PER_SECOND),
            candidates: BTreeMap::new(),
        }
    }
}

impl Helped {
    /// Whether those two may be helped now; counts it.
    fn may(&mut self, a: NodeId, b: NodeId, now: Duration) -> bool {
        // Whoever asks pays first: what is refused must not use up the other's share.
        let pair = (a.min(b), a.max(b));
        self.pairs.expire(now);
        self.take(a, now) && !self.pairs.contains(&pair) && self.take(b, now) && self.all.take(now).is_ok() && {
            self.pairs.insert(pair, (), now)
        }
    }

    fn take(&mut self, node: NodeId, now: Duration) -> bool {
        if self.nodes.len() >= MAX_PUNCH_PAIRS && !self.nodes.contains_key(&node) {
            return false;
        }
        let (bucket, used) = self.nodes.entry(node).or_insert_with(|| (Bucket::new(1, NODE_BURST), now));
        *used = now;
        bucket.take(now / NODE_EVERY).is_ok()
    }

    pub(super) fn expire(&mut self, now: Duration) {
        self.pairs.expire(now);
        self.nodes.retain(|_, (_, used)| now.saturating_sub(*used) < REMEMBERED);
    }
}

/// How long each of two nodes has to wait so that both begin at once: a message takes half a round trip.
fn waits(a: Option<Duration>, b: Option<Duration>) -> [Duration; 2] {
    let half = |rtt: Option<Duration>| (rtt.unwrap_or_default() / 2).min(MAX_WAIT - MARGIN);
    let (a, b) = (half(a), half(b));
    let begin = a.max(b) + MARGIN;
    [begin - a, begin - b]
}

impl State {
    /// A node tells where it is in its own network, and may ask for help to a connection with another.
    pub(in crate::mesh) fn on_punch(
        &mut self,
        punch: Punch,
        conn: ConnId,
        from: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let helps = self.config.tracker != TrackerRole::None && can(&self.config.features);
        if helps && self.peers.get(conn).is_some() {
            let mut candidates = addrs::passed_on(&punch.addrs);
            candidates.truncate(MAX_PUNCH_CANDIDATES);
            self.punches.helped.candidates.insert(conn, candidates);
        }
        let Some(target) = punch.target else { return };
        let refusal = if helps {
            self.help(&punch.id, from, target, now, out).err()
        } else {
            Some(WireError::new(ErrorCode::NoTracker, "this node is not a tracker that helps to punch"))
        };
        if let Some(error) = refusal {
            self.refuse("punch_refused");
            let error = draft::punch_error(&punch.id, &target, &error);
            out.push(Action::Send { to: conn, what: What::Ready(error), on_full: OnFull::Drop });
        }
    }

    fn help(
        &mut self,
        id: &str,
        from: NodeId,
        target: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), WireError> {
        let no_peer = |why: String| WireError::new(ErrorCode::NoPeer, why);
        if target == from {
            return Err(WireError::new(ErrorCode::BadRequest, "that is the asking node itself"));
        }
        // The address that counts is the one a node's own connection comes from: who was dialled shows another.
        let able = |p: &&Peer| p.legacy.is_none() && p.arrival.inbound && can(&p.arrival.features);
        let asker = self.peers.proven(&from).filter(able);
        let Some(asker) = asker else { return Err(no_peer("the asking node can't punch from its connection".into())) };
        let Some(other) = self.peers.proven(&target) else {
            return Err(no_peer(format!("{} is not connected to this tracker", target.short())));
        };
        if !able(&other) {
            return Err(no_peer(format!("{} can't punch from its connection", target.short())));
        }
        let waits = waits(asker.rtt, other.rtt);
        let seen = [asker.arrival.addr, other.arrival.addr];
        if !self.punches.helped.may(from, target, now.mono) {
            return Err(WireError::new(ErrorCode::RateLimited, "the tracker has helped these nodes a moment ago"));
        }
        let conns = [self.peers.conn_of(&from), self.peers.conn_of(&target)];
        let same_nat = seen[0].ip() == seen[1].ip();
        let nodes = [from, target];
        for (i, to) in conns.into_iter().enumerate() {
            let (Some(to), Some(other)) = (to, conns[1 - i]) else { continue };
            let mut addrs = vec![seen[1 - i]];
            // Where a node is in its own network is told to whoever is in the same, and to nobody else.
            if same_nat && let Some(own) = self.punches.helped.candidates.get(&other) {
                addrs.extend(own.iter().filter(|a| **a != seen[1 - i]));
            }
            let wait_ms = waits[i].as_millis() as u64;
            let start = draft::punch_start(id, &nodes[1 - i], &addrs, wait_ms);
            out.push(Action::Send { to, what: What::Ready(start), on_full: OnFull::Drop });
        }
        Ok(())
    }

    /// A connection ended.
    pub(in crate::mesh) fn punches_on_lost(&mut self, conn: ConnId) {
        self.punches.helped.candidates.remove(&conn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn both_begin_at_the_same_moment() {
        let ms = Duration::from_millis;
        for (a, b, wanted) in [
            (Some(ms(200)), Some(ms(20)), [ms(20), ms(110)]),
            (Some(ms(20)), Some(ms(200)), [ms(110), ms(20)]),
            (None, Some(ms(100)), [ms(70), ms(20)]),
            (None, None, [ms(20), ms(20)]),
            (Some(Duration::MAX), None, [ms(20), MAX_WAIT]),
        ] {
            assert_eq!(waits(a, b), wanted);
        }
    }

    #[test]
    fn a_pair_waits_and_a_node_has_its_share_and_all_have_theirs() {
        let at = Duration::from_secs;
        let mut helped = Helped::default();
        assert!(helped.may(id(1), id(2), at(0)));
        // The same two, whichever asks.
        assert!(!helped.may(id(1), id(2), at(1)) && !helped.may(id(2), id(1), at(1)));
        assert!(helped.may(id(2), id(1), at(31)));
        // One that asks for everybody.
        let passed = (10..=200).filter(|n| helped.may(id(9), id(*n), at(100))).count();
        assert_eq!(passed, NODE_BURST as usize);
        // One that everybody asks for.
        let passed = (10..=200).filter(|n| helped.may(id(*n), id(201), at(110))).count();
        assert_eq!(passed, NODE_BURST as usize);
        helped.expire(at(300));
        assert!(helped.nodes.is_empty());
        let mut helped = Helped::default();
        let passed = (0..100).filter(|n| helped.may(id(*n), id(*n + 100), at(0))).count();
        assert_eq!(passed, ALL_PER_SECOND as usize);
    }
}
