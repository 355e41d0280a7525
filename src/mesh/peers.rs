//! Connected peers: what is known of each, and whether they still give signs of life.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::action::{Action, OnFull, What};
use super::budget::Budget;
use super::clock::Now;
use super::conn_id::ConnId;
use super::keyed::Keyed;
use super::state::State;
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::info::Source;
use crate::wire::{Caps, Heartbeat, Object, Speaker, TrackerRole, draft};

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
    /// Whether only the two ends can read it.
    pub encrypted: bool,
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
    /// Whether it is closed if it says nothing for a while: another connection was offered.
    pub probed: bool,
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
    by_node: HashMap<NodeId, ConnId, Keyed>,
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

    pub(super) fn insert(&mut self, conn: ConnId, peer: Peer) {
        let (node, role) = (peer.arrival.node, peer.arrival.tracker);
        if peer.legacy.is_some() {
            self.legacy.insert(node, conn);
        } else {
            self.by_node.insert(node, conn);
        }
        self.by_conn.insert(conn, peer);
        self.set_tracker(conn, role);
    }

    pub(super) fn retire(&mut self, conn: ConnId) {
        self.trackers.remove(&conn);
        if let Some(peer) = self.by_conn.remove(&conn)
            && peer.legacy.is_none()
        {
            self.retired.insert(conn, peer.arrival.node);
        }
    }

    /// Takes a connection out. The peer is given when it was the one in use.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Peer> {
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

impl State {
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

    pub(super) fn on_heartbeat(&mut self, conn: ConnId, beat: &Heartbeat, now: Now, out: &mut Vec<Action>) {
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

    /// Something about a task came over a connection.
    pub(super) fn used_over(&mut self, conn: ConnId, node: &NodeId, now: Now) {
        match self.peers.get_mut(conn) {
            Some(peer) => peer.used = now.mono,
            // It was replaced meanwhile.
            None => self.used(node, now),
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
        if let Some(conn) = self.peers.conn_of(&self.keys.current(node))
            && let Some(peer) = self.peers.get_mut(conn)
        {
            peer.arrival.how.on_demand = false;
        }
        self.is_present(node)
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
