//! Connected peers: who is admitted, and which of two connections is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::action::{Action, OnFull, What};
use super::budget::Budget;
use super::clock::Now;
use super::conn_id::ConnId;
use super::state::{State, Timer};
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::node::{Activity, Source, TrackerRole};
use crate::wire::{Caps, Object, Speaker, draft};

/// How long a connection may take to answer when another one from the same node makes it doubtful.
const PROBE: Duration = Duration::from_secs(5);

/// How this side came to have a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// How the node was found.
    pub found: Source,
    /// Whether this side dialled it for calls, and not for its owner.
    pub on_demand: bool,
    /// Whether both sides dialled at once, through their NATs.
    pub punched: bool,
}

impl How {
    /// The other side dialled.
    pub const INBOUND: Self = Self { found: Source::Inbound, on_demand: false, punched: false };

    /// Both sides dialled at once for calls, as a tracker told them.
    pub const PUNCHED: Self = Self { found: Source::Tracker, on_demand: true, punched: true };

    /// This side dialled it to stay connected.
    pub const fn kept(found: Source) -> Self {
        Self { found, on_demand: false, punched: false }
    }

    /// This side dialled it for calls.
    pub const fn for_calls(found: Source) -> Self {
        Self { found, on_demand: true, punched: false }
    }
}

/// Who came through the handshake, and how.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The id, proven or claimed.
    pub node: NodeId,
    /// Which of the two.
    pub speaker: Speaker,
    /// The other end's address.
    pub addr: SocketAddr,
    /// This end's address.
    pub local: SocketAddr,
    /// Whether the other side dialled.
    pub inbound: bool,
    /// How this side came to have the connection.
    pub how: How,
    /// Which run of the node it is.
    pub instance: Option<String>,
    /// Its program version.
    pub version: String,
    /// What it can do beyond this version of the protocol.
    pub features: Vec<String>,
    /// Its tracker role, as its `welcome` says; its record says it too.
    pub tracker: TrackerRole,
    /// This node's address as its `welcome` says that the peer sees it.
    pub observed: Option<SocketAddr>,
    /// What a Python node's hello says it provides.
    pub caps: Caps,
}

/// A connected peer.
#[derive(Debug)]
pub struct Peer {
    /// See [`Arrival`].
    pub arrival: Arrival,
    /// When it connected.
    pub since: Duration,
    /// When a task, or a message about one, last went over it.
    pub used: Duration,
    /// When it was last heard.
    pub heard: Duration,
    /// Whether it said nothing where something was to be expected: other ways are tried before it.
    pub silent: bool,
    /// The last round-trip time.
    pub rtt: Option<Duration>,
    /// The heartbeat that waits for its answer.
    pub asked: Option<(u64, Duration)>,
    /// What only a Python node has.
    pub legacy: Option<Legacy>,
    /// The interests that it was told what is known for.
    pub told: Option<Vec<String>>,
    /// Why it said it leaves.
    pub bye: Option<(Option<CloseReason>, String)>,
}

/// What is kept for a Python node.
#[derive(Debug)]
pub struct Legacy {
    /// The names it provides.
    pub caps: BTreeSet<String>,
    /// How much it may be sent.
    pub budget: Budget,
    /// The capabilities it was told of.
    pub told: BTreeSet<String>,
    /// Answers that wait for the next minute.
    pub held: VecDeque<Object>,
}

/// All connected peers.
#[derive(Debug, Default)]
pub struct Peers {
    by_conn: BTreeMap<ConnId, Peer>,
    by_node: HashMap<NodeId, ConnId>,
    /// The Python nodes, by the ids they claim.
    legacy: BTreeMap<NodeId, ConnId>,
    /// The trackers among the proven ones.
    trackers: BTreeSet<ConnId>,
    /// Connections that were replaced: what was on its way over them still counts.
    retired: HashMap<ConnId, NodeId>,
}

impl Peers {
    /// The peer on a connection.
    pub fn get(&self, conn: ConnId) -> Option<&Peer> {
        self.by_conn.get(&conn)
    }

    /// The peer on a connection.
    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Peer> {
        self.by_conn.get_mut(&conn)
    }

    /// The connection of a proven node.
    pub fn conn_of(&self, node: &NodeId) -> Option<ConnId> {
        self.by_node.get(node).copied()
    }

    /// The proven peer with this id.
    pub fn proven(&self, node: &NodeId) -> Option<&Peer> {
        self.by_conn.get(self.by_node.get(node)?)
    }

    /// The proven node that speaks on a connection, a replaced one included.
    pub fn proven_on(&self, conn: ConnId) -> Option<NodeId> {
        match self.by_conn.get(&conn) {
            Some(peer) if peer.legacy.is_none() => Some(peer.arrival.node),
            Some(_) => None,
            None => self.retired.get(&conn).copied(),
        }
    }

    /// The connection of a Python node that claims this id.
    pub fn legacy_conn_of(&self, node: &NodeId) -> Option<ConnId> {
        self.legacy.get(node).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (ConnId, &Peer)> {
        self.by_conn.iter().map(|(c, p)| (*c, p))
    }

    /// Those whose id is proven.
    pub fn all_proven(&self) -> impl Iterator<Item = (ConnId, &Peer)> {
        self.iter().filter(|(_, p)| p.legacy.is_none())
    }

    /// The Python nodes.
    pub fn legacy(&self) -> impl Iterator<Item = (ConnId, &Peer)> {
        self.legacy.values().filter_map(|c| Some((*c, self.by_conn.get(c)?)))
    }

    /// The trackers among the proven ones.
    pub fn trackers(&self) -> impl Iterator<Item = (ConnId, &Peer)> {
        self.trackers.iter().filter_map(|c| Some((*c, self.by_conn.get(c)?)))
    }

    /// A peer says whether it is a tracker; gives whether that is news.
    pub fn set_tracker(&mut self, conn: ConnId, role: TrackerRole) -> bool {
        let Some(peer) = self.by_conn.get_mut(&conn).filter(|p| p.legacy.is_none()) else { return false };
        if role == TrackerRole::None {
            self.trackers.remove(&conn);
        } else {
            self.trackers.insert(conn);
        }
        std::mem::replace(&mut peer.arrival.tracker, role) != role
    }

    fn insert(&mut self, conn: ConnId, peer: Peer) {
        let (node, role) = (peer.arrival.node, peer.arrival.tracker);
        if peer.legacy.is_some() {
            self.legacy.insert(node, conn);
        } else {
            self.by_node.insert(node, conn);
        }
        self.by_conn.insert(conn, peer);
        self.set_tracker(conn, role);
    }

    fn retire(&mut self, conn: ConnId) {
        self.trackers.remove(&conn);
        if let Some(peer) = self.by_conn.remove(&conn)
            && peer.legacy.is_none()
        {
            self.retired.insert(conn, peer.arrival.node);
        }
    }

    /// Takes a connection out. The peer is given when it was the one in use.
    fn remove(&mut self, conn: ConnId) -> Option<Peer> {
        self.retired.remove(&conn);
        self.trackers.remove(&conn);
        let peer = self.by_conn.remove(&conn)?;
        if self.by_node.get(&peer.arrival.node) == Some(&conn) {
            self.by_node.remove(&peer.arrival.node);
        }
        if self.legacy.get(&peer.arrival.node) == Some(&conn) {
            self.legacy.remove(&peer.arrival.node);
        }
        Some(peer)
    }
}

/// Of two live connections between the same two nodes: whether the new one is kept.
///
/// Both sides decide alike without talking: another run of the peer replaces its earlier run; a connection made by the
/// same side as before is that side giving the earlier one up; of two made by both at once, the one dialled by the
/// smaller id stays.
fn keeps_new(me: &NodeId, old: &Arrival, new: &Arrival) -> bool {
    let restarted = matches!((&old.instance, &new.instance), (Some(a), Some(b)) if a != b);
    if restarted || old.inbound == new.inbound {
        return true;
    }
    let dialler = if new.inbound { &new.node } else { me };
    let other = if new.inbound { me } else { &new.node };
    dialler < other
}

impl State {
    /// A connection came through the handshake. Gives the records for its `welcome`, or why it is refused.
    ///
    /// # Errors
    ///
    /// The reason and its words for `bye`.
    pub fn connected(
        &mut self,
        conn: ConnId,
        arrival: Arrival,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<Vec<Object>, (CloseReason, String)> {
        self.admit(&arrival)?;
        let node = arrival.node;
        self.dialing.remove(&node);
        let is_legacy = matches!(arrival.speaker, Speaker::Legacy(_));
        let (mut resend, mut on_demand) = (false, arrival.how.on_demand);
        if is_legacy {
            // The package's nodes replace their own earlier connection when they restart.
            if let Some(old) = self.peers.legacy_conn_of(&node) {
                self.drop_peer(old, CloseReason::Duplicate, "a newer connection of the same node", now, out);
            }
        } else {
            for old in self.legacy_like(&node) {
                self.drop_peer(old, CloseReason::NotAllowed, "the node with this id proved it", now, out);
            }
            if let Some(old) = self.peers.conn_of(&node)
                && let Some(peer) = self.peers.get(old)
            {
                if !keeps_new(&self.me, &peer.arrival, &arrival) {
                    self.ask(old, now, out);
                    self.timers.set_once(Timer::Probe(old), now.mono + PROBE);
                    return Err((CloseReason::Duplicate, "another connection between us is kept".into()));
                }
                // Who replaces a connection that was to stay stays as well.
                on_demand &= peer.arrival.how.on_demand;
                let same_run = peer.arrival.instance == arrival.instance;
                self.peers.retire(old);
                self.timers.cancel(&Timer::Probe(old));
                self.shares.forget(old);
                self.timers.cancel(&Timer::Share(old));
                let message = "replaced by a newer connection".to_owned();
                out.push(Action::Close { conn: old, reason: CloseReason::Duplicate, message });
                resend = same_run;
                if !same_run {
                    self.table.forget(&node, now);
                    self.relays_on_lost(&node, now, out);
                    self.calls_lost_node(&node, Some(&arrival), None, now, out);
                }
            }
        }
        let peer = Peer {
            since: now.mono,
            used: now.mono,
            heard: now.mono,
            silent: false,
            rtt: None,
            asked: None,
            legacy: is_legacy.then(|| self.legacy_arrived(&arrival, now)),
            told: None,
            bye: None,
            arrival: Arrival { how: How { on_demand, ..arrival.how }, ..arrival.clone() },
        };
        self.peers.insert(conn, peer);
        let name = self.table.get(&node).map(|r| r.name.clone()).unwrap_or_default();
        out.push(Action::Activity(Activity::PeerConnected {
            node_id: node,
            name,
            addr: arrival.addr,
            inbound: arrival.inbound,
            proven: !is_legacy,
        }));
        if is_legacy {
            self.calls_nudge(now, out);
            return Ok(Vec::new());
        }
        self.learn_local_addr(&arrival);
        self.tracker_connected(&node, now);
        self.refresh_trackers(now);
        self.reach_look(now, out);
        let welcome = self.records_for_welcome(&node);
        if let Some(record) = &self.record {
            let announce = draft::announce(&record.object, crate::limits::FLOOD_TTL);
            out.push(Action::Send { to: conn, what: What::Ready(announce), on_full: OnFull::Drop });
        }
        self.ask(conn, now, out);
        self.punches_on_connected(conn, &node, out);
        self.flush_record(now, out);
        self.lookups_on_connected(conn, &arrival, now, out);
        if arrival.tracker != TrackerRole::None {
            self.met_tracker(conn, now, out);
        }
        self.calls_on_connected(&node, resend, now, out);
        self.queries_on_connected(conn, now, out);
        Ok(welcome)
    }

    fn admit(&self, arrival: &Arrival) -> Result<(), (CloseReason, String)> {
        if arrival.node == self.me {
            return Err((CloseReason::SelfConnection, "that is this node itself".into()));
        }
        let legacy = matches!(arrival.speaker, Speaker::Legacy(_));
        if let Some(allow) = &self.config.allow {
            if legacy {
                let message = "this node is private: a Python node can't prove its id, so it can't be on the allowlist";
                return Err((CloseReason::NotAllowed, message.into()));
            }
            if !allow.contains(&arrival.node) {
                let message = format!("this node is private: its owner must allow {}", arrival.node);
                return Err((CloseReason::NotAllowed, message));
            }
        }
        // The package tells connections apart by the first 12 characters of an id: an unproven node may not come near
        // the id of a proven one, nor ours.
        let near = |id: &NodeId| id.short() == arrival.node.short();
        if legacy && (near(&self.me) || self.peers.all_proven().any(|(_, p)| near(&p.arrival.node))) {
            return Err((CloseReason::NotAllowed, "a node that proved this id is connected".into()));
        }
        Ok(())
    }

    fn legacy_like(&self, node: &NodeId) -> Vec<ConnId> {
        let short = node.short();
        self.peers.legacy().filter(|(_, p)| p.arrival.node.short() == short).map(|(c, _)| c).collect()
    }

    /// Asks a peer for a sign of life, which also measures the way.
    pub(super) fn ask(&mut self, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        self.asks += 1;
        let ask = self.asks;
        let Some(peer) = self.peers.get_mut(conn) else { return };
        if peer.legacy.is_some() {
            return;
        }
        peer.asked = Some((ask, now.mono));
        let heartbeat = draft::heartbeat(&self.me, now.unix_s(), Some(ask), None);
        out.push(Action::Send { to: conn, what: What::Ready(heartbeat), on_full: OnFull::Drop });
    }

    pub(super) fn on_heartbeat(
        &mut self,
        conn: ConnId,
        beat: &crate::wire::Heartbeat,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if let Some(ask) = beat.ask {
            let answer = draft::heartbeat(&self.me, now.unix_s(), None, Some(ask));
            out.push(Action::Send { to: conn, what: What::Ready(answer), on_full: OnFull::Drop });
        }
        if let Some(answer) = beat.answer {
            self.share_confirmed(conn, answer, now, out);
        }
        if let Some(peer) = self.peers.get_mut(conn)
            && let Some((ask, at)) = peer.asked
            && beat.answer == Some(ask)
        {
            peer.rtt = Some(now.mono.saturating_sub(at));
            peer.asked = None;
        }
    }

    /// Something about a task went to or came from a node.
    pub(super) fn used(&mut self, node: &NodeId, now: Now) {
        if let Some(conn) = self.peers.conn_of(node)
            && let Some(peer) = self.peers.get_mut(conn)
        {
            peer.used = now.mono;
        }
    }

    /// Whether a node is connected; if so the connection stays, whatever it was made for: its owner wants it.
    pub fn keep_peer(&mut self, node: &NodeId) -> bool {
        if let Some(conn) = self.peers.conn_of(node)
            && let Some(peer) = self.peers.get_mut(conn)
        {
            peer.arrival.how.on_demand = false;
        }
        self.is_present(node)
    }

    /// Closes connections that were dialled for calls and have had none for a while, and those to trackers beyond the wanted
    /// ones. Not those to trackers that our record names, which we are reached through, nor a tracker's own, which others
    /// are reached through, nor the last one.
    pub(super) fn close_unused(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.config.tracker != TrackerRole::None {
            return;
        }
        let after = self.config.limits.unused_timeout;
        let is_unused = |p: &Peer| {
            let spare = p.arrival.how.found == Source::Tracker && !p.arrival.inbound;
            (p.arrival.how.on_demand || spare && p.arrival.tracker != TrackerRole::None)
                && now.mono.saturating_sub(p.used) >= after
                && (p.arrival.tracker == TrackerRole::None || !self.trackers.contains(&p.arrival.node))
                && !self.in_flight.contains_key(&p.arrival.node)
                && self.tasks.running_for(&p.arrival.node) == 0
        };
        let unused: Vec<ConnId> = self.peers.all_proven().filter(|(_, p)| is_unused(p)).map(|(c, _)| c).collect();
        let most = self.peers.all_proven().count().saturating_sub(1);
        for conn in unused.into_iter().take(most) {
            self.drop_peer(conn, CloseReason::Unused, "no task or call for a while", now, out);
        }
    }

    /// Closes a peer of ours and does what its end asks for.
    pub(super) fn drop_peer(
        &mut self,
        conn: ConnId,
        reason: CloseReason,
        message: &str,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        out.push(Action::Close { conn, reason, message: message.to_owned() });
        self.disconnected(conn, Some(reason), now, out);
    }

    /// A connection ended, for that reason if one of the sides gave one.
    pub fn disconnected(&mut self, conn: ConnId, reason: Option<CloseReason>, now: Now, out: &mut Vec<Action>) {
        self.timers.cancel(&Timer::Probe(conn));
        self.timers.cancel(&Timer::Legacy(conn));
        self.punches_on_lost(conn);
        self.timers.cancel(&Timer::Share(conn));
        self.shares.forget(conn);
        let Some(peer) = self.peers.remove(conn) else { return };
        let node = peer.arrival.node;
        let said = peer.bye.as_ref().and_then(|(reason, _)| *reason);
        let reason = said.or(reason);
        let name = self.table.get(&node).map(|r| r.name.clone()).unwrap_or_default();
        out.push(Action::Activity(Activity::PeerLost { node_id: node, name, reason }));
        self.queries_on_disconnected(conn);
        if peer.legacy.is_some() {
            self.calls_lost_node(&node, None, reason, now, out);
            return;
        }
        let is_tracker = self.config.tracker != TrackerRole::None;
        let dialable = self.table.get(&node).is_some_and(|r| !r.addrs.is_empty() || !r.trackers.is_empty());
        if is_tracker || said == Some(CloseReason::Shutdown) || !dialable {
            self.table.forget(&node, now);
        }
        self.relays_on_lost(&node, now, out);
        self.tracker_lost(&node, peer.since, now);
        self.refresh_trackers(now);
        self.reach_look(now, out);
        self.flush_record(now, out);
        self.calls_lost_node(&node, None, reason, now, out);
        self.calls_lost_tracker(&node, now, out);
    }

    /// The connections that a text names: proven peers and Python nodes.
    pub(super) fn peers_named(&self, text: &str) -> Vec<NodeId> {
        let named = self.peers.iter().filter(|(_, p)| {
            let node = &p.arrival.node;
            let name = self.table.get(node).map_or("", |r| r.name.as_str());
            super::table::names(text, node, name)
        });
        let set: BTreeSet<NodeId> = named.map(|(_, p)| p.arrival.node).collect();
        set.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(node: NodeId, inbound: bool, instance: &str) -> Arrival {
        let addr: SocketAddr = ([127, 0, 0, 1], 1).into();
        Arrival {
            node,
            speaker: Speaker::Proven,
            addr,
            local: addr,
            inbound,
            how: How::default(),
            instance: Some(instance.into()),
            version: String::new(),
            features: Vec::new(),
            tracker: TrackerRole::None,
            observed: None,
            caps: Caps::default(),
        }
    }

    #[test]
    fn both_sides_keep_the_same_of_two_connections_made_at_once() {
        let small = NodeId::from_bytes([1; 32]);
        let large = NodeId::from_bytes([2; 32]);
        for small_sees_its_own_first in [true, false] {
            for large_sees_its_own_first in [true, false] {
                // The connection dialled by the small one is outbound there and inbound at the large one.
                let at = |me: &NodeId, other: NodeId, own_first: bool| {
                    let (own, theirs) = (arrival(other, false, "a"), arrival(other, true, "a"));
                    let (old, new) = if own_first { (own, theirs) } else { (theirs, own) };
                    let kept = if keeps_new(me, &old, &new) { new } else { old };
                    if kept.inbound { other } else { *me }
                };
                assert_eq!(at(&small, large, small_sees_its_own_first), small);
                assert_eq!(at(&large, small, large_sees_its_own_first), small);
            }
        }
    }

    #[test]
    fn another_run_of_the_peer_replaces_its_earlier_one_whoever_dialled() {
        let small = NodeId::from_bytes([1; 32]);
        let large = NodeId::from_bytes([2; 32]);
        assert!(keeps_new(&small, &arrival(large, false, "a"), &arrival(large, true, "b")));
        assert!(!keeps_new(&small, &arrival(large, false, "a"), &arrival(large, true, "a")));
    }
}
