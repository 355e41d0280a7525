//! Ways that fail: dials, connections and relays, and looking for a responder that was lost.

use std::net::SocketAddr;

use super::route::Reach;
use super::{LOST, Path, Phase, RECOVER, RETRY};
use crate::error::{CloseReason, Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::info::Source;
use crate::mesh::action::Action;
use crate::mesh::clock::Now;
use crate::mesh::peers::{Arrival, How};
use crate::mesh::state::State;
use crate::mesh::task_id::TaskId;
use crate::mesh::trackers::dial_patience;
use crate::wire::RelayError;

impl State {
    /// A node could not be dialled.
    pub fn dial_failed(&mut self, node: &NodeId, why: &str, now: Now, out: &mut Vec<Action>) {
        self.dialing.remove(node);
        self.tracker_not_dialled(node, now);
        // It may have dialled us meanwhile: then the one connection was refused for the other.
        let connected = self.peers.conn_of(node).is_some();
        let waiting = self.calls_where(|c| c.dialing.as_ref().is_some_and(|(n, _)| n == node));
        for id in waiting {
            if let Some(call) = self.calls.entries.get_mut(&id) {
                let dialed = call.dialing.take();
                if !connected {
                    call.undialable.extend(dialed);
                    call.tried("connect", Some(*node), why.to_owned(), now);
                }
                if matches!(call.phase, Phase::Dialing(_)) {
                    call.phase = Phase::Searching;
                    self.advance(&id, now, out);
                } else {
                    self.recover(&id, now, out);
                }
            }
        }
    }

    /// A node's connection ended. `restarted`: another run of it is here already.
    pub(in crate::mesh) fn calls_lost_node(
        &mut self,
        node: &NodeId,
        restarted: Option<&Arrival>,
        reason: Option<CloseReason>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let lost = self.calls_where(|c| matches!(c.phase, Phase::Sent { node: n, path: Path::Direct } if n == *node));
        for id in lost {
            let Some(call) = self.calls.entries.get_mut(&id) else { continue };
            let code = reason.map(|r| format!(" ({r})")).unwrap_or_default();
            call.tried("connect", Some(*node), format!("the connection ended before the answer{code}"), now);
            // A run that said goodbye does not come back, and the next one knows nothing of the task.
            let went = reason == Some(CloseReason::Shutdown);
            if restarted.is_some() || went || call.instance.is_none() {
                let why = match restarted {
                    Some(_) => "restarted",
                    None if went => "went down",
                    None => "was lost",
                };
                let message =
                    format!("the responder {why} before it answered{code}; whether the task ran is not known");
                self.fail(&id, ErrorCode::PeerGone, message, now, out);
            } else {
                self.lose_way(&id, now, out);
            }
        }
    }

    /// A tracker's connection ended.
    pub(in crate::mesh) fn calls_lost_tracker(&mut self, tracker: &NodeId, now: Now, out: &mut Vec<Action>) {
        let lost = self.calls_where(|c| matches!(c.phase, Phase::Sent { path: Path::Relay(t), .. } if t == *tracker));
        for id in lost {
            self.lose_way(&id, now, out);
        }
    }

    /// The way to the responder is gone; the responder may live.
    pub(super) fn lose_way(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let Some(node) = call.responder() else { return };
        if call.instance.is_none() && call.sends > 0 {
            let message = "the way to the responder was lost before it answered; whether the task ran is not known";
            return self.fail(id, ErrorCode::PeerGone, message.to_owned(), now, out);
        }
        // The time runs on until the responder is heard again, however often the way to it is lost meanwhile.
        let until = *call.lost_until.get_or_insert(now.mono + RECOVER);
        if until <= now.mono {
            return self.fail(id, ErrorCode::PeerGone, LOST.to_owned(), now, out);
        }
        call.phase = Phase::Lost { node, until };
        call.resend_at = Some(now.mono + RETRY);
        self.recover(id, now, out);
    }

    pub(in crate::mesh) fn call_relay_failed(
        &mut self,
        error: &RelayError,
        from: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let id = TaskId::from(&error.id);
        let Some(call) = self.calls.entries.get_mut(&id) else { return };
        let Phase::Sent { node, path: Path::Relay(tracker) } = call.phase else { return };
        if node != error.target || tracker != from {
            return;
        }
        let code = ErrorCode::from_wire(&error.error.code).unwrap_or(ErrorCode::Internal);
        call.tried("relay", Some(node), format!("{}: {}", error.error.code, error.error.message), now);
        // The responder was heard: what was lost is not the task, but what followed it.
        let only_copy = call.sends <= 1 && !call.working && code != ErrorCode::PeerGone && !call.spec.once;
        if code == ErrorCode::RateLimited {
            // There is a way, and there will be room on it: the same task goes again, then.
            let at = now.mono + error.error.retry_after().unwrap_or_default().max(RETRY);
            if at < call.deadline {
                call.resend_at = Some(at);
                return self.set_call_timer(&id);
            }
        }
        if matches!(code, ErrorCode::Overloaded | ErrorCode::RateLimited) && !only_copy {
            return; // It is sent again when its time comes.
        }
        call.unrelayable.insert((node, tracker));
        if only_copy {
            // The only copy was not passed on: nobody can have run it.
            if code != ErrorCode::NoPeer {
                call.refusal = Some(Box::new((node, error.error.clone(), Delivery::NotSent)));
            }
            self.unsend(&id);
            return self.advance(&id, now, out);
        }
        self.lose_way(&id, now, out);
    }

    /// Looks for the responder that a sent task lost.
    pub(super) fn recover(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get(id) else { return };
        let Phase::Lost { node, .. } = call.phase else { return };
        if let Some(peer) = self.peers.proven(&node)
            && peer.arrival.instance != call.instance
        {
            let message = "the responder restarted before it answered; whether the task ran is not known";
            return self.fail(id, ErrorCode::PeerGone, message.to_owned(), now, out);
        }
        match self.reach(call, &node) {
            Reach::Now(path) => self.dispatch(id, node, path, now, out),
            Reach::Dial(node, addrs) => {
                self.dial_for(id, node, addrs, now, out);
                self.set_call_timer(id);
            }
            Reach::Not(_) => self.set_call_timer(id),
        }
    }

    /// Which way to send a relayed task again, of which nothing was heard. A tracker that hangs, or that a cable no longer
    /// leads to, closes nothing: another one is tried while it is not known to be lost. The responder knows the task by
    /// its id, whichever way the copies come.
    pub(super) fn way_without_signs(
        &mut self,
        id: &TaskId,
        node: NodeId,
        path: Path,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Path {
        let (Path::Relay(tracker), Some(call)) = (path, self.calls.entries.get(id)) else { return path };
        if call.spec.via.is_some() {
            return path;
        }
        let (last_sent, sends, signs) = (call.last_sent, call.sends, call.first_sign.is_some());
        let mut silent = false;
        if let Some(conn) = self.peers.conn_of(&tracker)
            && let Some(peer) = self.peers.get_mut(conn)
            && peer.heard < last_sent
        {
            (peer.silent, silent) = (true, true);
            // If it lives, it answers, and counts again.
            self.ask(conn, now, out);
        }
        // A tracker that is heard may have lost the node without knowing it.
        if !silent && (signs || sends < 2) {
            return path;
        }
        self.other_way(id, &node, &tracker).unwrap_or(path)
    }

    fn other_way(&self, id: &TaskId, node: &NodeId, but: &NodeId) -> Option<Path> {
        if self.peers.conn_of(node).is_some() {
            return Some(Path::Direct);
        }
        let call = self.calls.entries.get(id)?;
        let relays = |t: &&NodeId| *t != but && !call.unrelayable.contains(&(*node, **t)) && self.speaks(t);
        let named = self.table.get(node).into_iter().flat_map(|r| &r.trackers);
        // What we have of the node may be from before it registered there.
        let others = self.peers.trackers().map(|(_, p)| &p.arrival.node);
        named.chain(others).find(relays).map(|tracker| Path::Relay(*tracker))
    }

    /// Whether a node is connected and not silent.
    pub(super) fn speaks(&self, node: &NodeId) -> bool {
        self.peers.proven(node).is_some_and(|peer| !peer.silent)
    }

    /// Dials for a call. One dial serves every call that waits for the node.
    pub(super) fn dial_for(
        &mut self,
        id: &TaskId,
        node: NodeId,
        addrs: Vec<SocketAddr>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if let Some(call) = self.calls.entries.get_mut(id) {
            call.dialing = Some((node, addrs.clone()));
        }
        if self.dialing.get(&node).is_none_or(|until| *until <= now.mono) {
            // The driver tells how it went; should that get lost, it is not waited for for ever.
            let most = dial_patience(&self.config.limits, addrs.len());
            self.dialing.insert(node, now.mono.saturating_add(most));
            let how = How::for_calls(self.table.source(&node).unwrap_or(Source::Flood));
            out.push(Action::Dial { node, addrs, how });
        }
    }
}
