//! Whether this node can be dialled, and where: it asks trackers, and believes what came in over its own listener.
//!
//! ```text
//!            asked                 the line came, and the tracker names the address
//! unknown ─────────► asking ──────────────────────────────────────────► verified, for 10 min, then asked again
//!    ▲                 │ ▲                                                │  fails once: asked again in 15 s
//!    │ tracker lost    │ └──── after 30 s, 1 min, … 10 min ───┐           │  fails twice in a row
//!    └─────────────────┼──────────────────────────────────── failed ◄─────┘
//!                      └── refused, no line or no answer within 10 s ─►
//! ```
//!
//! That is one tracker's view. The node is dialable at what any of them verified.

mod views;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::dialback::FEATURE;
use super::state::{State, Timer};
use crate::identity::NodeId;
use crate::info::{Reachability, TrackerName, VerifiedAddr};
use crate::limits::MAX_ADDRS;
use crate::wire::dialback::dial_back;
use crate::wire::{DialBackResult, ProbeNonce, TrackerRole};

use views::Asked;
pub use views::Reach;

/// Whether an address is one of the internet's.
pub(super) fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let local = ip.is_private() || ip.is_loopback() || ip.is_link_local();
            !(local || shared || a == 0 || ip.is_documentation() || ip.is_multicast() || a >= 240)
        }
        IpAddr::V6(ip) => (ip.segments()[0] & 0xe000) == 0x2000,
    }
}

impl State {
    /// Connections changed: trackers that came are asked, those that went are not waited for.
    pub(super) fn reach_look(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.config.port.is_none() {
            return;
        }
        let offers = |p: &super::peers::Peer| p.arrival.features.iter().any(|f| f == FEATURE);
        // Who came here and calls itself a tracker is not asked: it could make this node take its addresses back.
        let offering =
            self.peers.trackers().filter(|(_, p)| offers(p) && self.is_own_tracker(p)).map(|(conn, p)| Asked {
                conn,
                node: p.arrival.node,
                observed: p.arrival.observed.map(|addr| addr.ip().to_canonical()),
                loopback: p.arrival.addr.ip().to_canonical().is_loopback(),
            });
        // Those that are asked already come first: newcomers don't push them out.
        let (known, new): (Vec<_>, Vec<_>) = offering.partition(|a| self.reach.views.contains_key(&a.node));
        self.reach.look(&[known, new].concat(), now.mono);
        self.reach_due(now, out);
    }

    /// Asks whom it is time for, and publishes what has changed.
    pub(super) fn reach_due(&mut self, now: Now, out: &mut Vec<Action>) {
        let own = self.config.advertise.first().map(SocketAddr::port).or(self.config.port);
        let Some(own) = own else { return };
        for ask in self.reach.due(own, now.mono, &mut self.rng) {
            let message = dial_back(&ask.id, ask.port, &ask.nonce);
            out.push(Action::Send { to: ask.conn, what: What::Ready(message), on_full: OnFull::Drop });
        }
        match self.reach.next_due() {
            Some(at) => self.timers.set(Timer::Reach, at),
            None => self.timers.cancel(&Timer::Reach),
        }
        self.flush_addrs(now, out);
    }

    /// A line for a tracker's question came in over the listener.
    pub fn probed(&mut self, nonce: ProbeNonce, now: Now, out: &mut Vec<Action>) {
        if self.reach.arrived(nonce, now.mono, &mut self.rng) {
            self.reach_due(now, out);
        } else {
            self.refuse("unknown_probe");
        }
    }

    pub(super) fn on_dial_back_result(
        &mut self,
        answer: DialBackResult,
        conn: ConnId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        if self.reach.answered(conn, answer, now.mono, &mut self.rng) {
            self.reach_due(now, out);
        } else {
            self.refuse("unknown_dial_back_result");
        }
    }

    /// This node's port has an address on its gateway now, or none any more.
    #[cfg(any(feature = "port-map", test, fuzzing))]
    pub fn mapped(&mut self, mapped: Option<SocketAddr>, now: Now, out: &mut Vec<Action>) {
        if self.reach.set_mapped(mapped, now.mono) {
            self.reach_due(now, out);
        }
    }

    /// What trackers leave of the addresses to publish; `None`: there is none that could tell.
    pub(super) fn verified_addrs(&self) -> Option<Vec<SocketAddr>> {
        let verified: Vec<SocketAddr> = self.reach.verified().into_keys().collect();
        let beyond: Vec<SocketAddr> = verified.iter().filter(|a| !a.ip().is_loopback()).copied().collect();
        let mut asked = self.reach.views.values().filter(|v| v.conn.is_some()).peekable();
        let any = asked.peek().is_some();
        if !beyond.is_empty() || asked.any(|v| !v.loopback) {
            return Some(beyond.into_iter().take(MAX_ADDRS).collect());
        }
        // A tracker on this machine tells nothing of the world, and its view is worth something where there is no other.
        let local = self.config.bound.is_none() && self.local_ips.iter().any(|ip| !ip.is_loopback());
        ((any || !verified.is_empty()) && !local).then_some(verified)
    }

    /// The address on the gateway, where nobody can verify it: the owner asked for it to be made, and who dials it in vain
    /// has lost little.
    pub(super) fn mapped_addr(&self) -> Option<SocketAddr> {
        self.reach.mapped.filter(|addr| is_global(addr.ip()))
    }

    /// What the owner is told.
    pub fn reachability(&self) -> Reachability {
        let named = |node: &NodeId| TrackerName {
            node_id: *node,
            name: self.table.get(node).map(|r| r.name.clone()).unwrap_or_default(),
        };
        let trackers = || self.trackers.iter().map(named).collect();
        let verified = self.reach.verified();
        if !verified.is_empty() {
            let addrs = verified.into_iter();
            let addrs = addrs.map(|(addr, by)| VerifiedAddr { addr, by: by.iter().map(named).collect() });
            return Reachability::Dialable { addrs: addrs.collect() };
        }
        let asked = || self.reach.views.values().filter(|v| v.conn.is_some());
        if let Some(why) = asked().find_map(|v| v.failed.clone()) {
            return Reachability::Nat { trackers: trackers(), why };
        }
        let why = match () {
            () if self.config.port.is_none() => "this node does not listen",
            () if asked().next().is_some() => "a tracker was asked and has not answered yet",
            () if self.config.tracker != TrackerRole::None => "no other tracker that could test it is connected",
            () => "no tracker that could test it is connected",
        };
        Reachability::Unknown { why: why.to_owned(), trackers: trackers() }
    }
}
