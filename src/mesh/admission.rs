//! Connections that come and go: who is admitted, which of two is kept, which are given up.

use std::time::Duration;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::peers::{Arrival, How, Peer};
use super::state::{State, Timer};
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::info::{Activity, Source};
use crate::wire::{Object, Speaker, TrackerRole, draft};

/// How long a connection may take to answer when another one from the same node makes it doubtful.
const PROBE: Duration = Duration::from_secs(5);

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
                    if let Some(peer) = self.peers.get_mut(old) {
                        peer.probed = true;
                    }
                    return Err((CloseReason::Duplicate, "another connection between us is kept".into()));
                }
                // Who replaces a connection that was to stay stays as well.
                on_demand &= peer.arrival.how.on_demand;
                let same_run = peer.arrival.instance == arrival.instance;
                let earlier = peer.arrival.instance.clone();
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
                    self.tasks_lost_way(&node, earlier.as_deref(), now);
                    self.calls_lost_node(&node, Some(&arrival), None, now, out);
                }
            }
        }
        let peer = Peer {
            since: now.mono,
            used: now.mono,
            heard: now.mono,
            silent: false,
            probed: false,
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
        self.tasks_on_connected(&arrival, now, out);
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
        self.keys_on_connected(conn, out);
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
        if let Some(why) = self.barred_from(&arrival.node, legacy) {
            return Err((CloseReason::NotAllowed, why));
        }
        // The package tells connections apart by the first 12 characters of an id: an unproven node may not come near
        // the id of a proven one, nor ours.
        let near = |id: &NodeId| id.short() == arrival.node.short();
        if legacy && (near(&self.me) || self.peers.all_proven().any(|(_, p)| near(&p.arrival.node))) {
            return Err((CloseReason::NotAllowed, "a node that proved this id is connected".into()));
        }
        Ok(())
    }

    pub(super) fn legacy_like(&self, node: &NodeId) -> Vec<ConnId> {
        let short = node.short();
        self.peers.legacy().filter(|(_, p)| p.arrival.node.short() == short).map(|(c, _)| c).collect()
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
        self.keys.forget_conn(conn);
        let Some(peer) = self.peers.remove(conn) else { return };
        let node = peer.arrival.node;
        let said = peer.bye.as_ref().and_then(|(reason, _)| *reason);
        let reason = said.or(reason);
        let name = self.table.get(&node).map(|r| r.name.clone()).unwrap_or_default();
        out.push(Action::Activity(Activity::PeerLost { node_id: node, name, reason }));
        self.queries_on_disconnected(conn);
        self.tasks_lost_way(&node, peer.arrival.instance.as_deref(), now);
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
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::wire::Caps;

    fn arrival(node: NodeId, inbound: bool, instance: &str) -> Arrival {
        let addr: SocketAddr = ([127, 0, 0, 1], 1).into();
        Arrival {
            node,
            speaker: Speaker::Proven,
            addr,
            local: addr,
            inbound,
            encrypted: false,
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
