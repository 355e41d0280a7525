//! A call turns to the DHT: when the flood has found nobody for a while, or there is nobody to flood.

use std::net::SocketAddr;

use super::{Call, Flood, Phase};
use crate::identity::NodeId;
use crate::mesh::action::Action;
use crate::mesh::clock::Now;
use crate::mesh::lookups::{DHT_AFTER, LookupId, Wanted};
use crate::mesh::state::{State, Timer};
use crate::mesh::task_id::TaskId;

/// How far a call is with the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dht {
    NotYet,
    Asking(LookupId),
    Over,
}

impl Call {
    /// Whether the DHT is to be asked now, while the flood may still be answered.
    pub(super) fn is_dht_due(&self, now: Now) -> bool {
        self.dht == Dht::NotYet && (self.flood == Flood::Over || self.dht_at.is_some_and(|at| at <= now.mono))
    }
}

impl State {
    /// The flood goes out: the DHT follows after a moment, or at once when nobody is there to be asked.
    pub(super) fn plan_dht(&mut self, id: &TaskId, now: Now) -> bool {
        let alone = self.peers.all_proven().next().is_none();
        let Some(call) = self.calls.entries.get_mut(id).filter(|c| c.dht == Dht::NotYet) else { return false };
        let at = if alone { now.mono } else { now.mono + DHT_AFTER };
        call.dht_at = Some(at);
        if !alone {
            self.timers.set(Timer::Dht(id.clone()), at);
        }
        alone
    }

    /// The moment has passed.
    pub(in crate::mesh) fn call_dht_due(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        if self.calls.entries.get(id).is_some_and(|c| c.phase == Phase::Searching && c.dht == Dht::NotYet) {
            self.advance(id, now, out);
        }
    }

    /// Asks the DHT for what a call wants.
    pub(super) fn ask_dht(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        let wanted = match &call.spec.target {
            Some(target) => match target.parse() {
                Ok(node) => Some(Wanted::Node(node)),
                Err(_) => {
                    call.tried("dht", None, "it knows whole ids only, not names or beginnings of ids", now);
                    None
                }
            },
            // Every node answers these, so none announces them.
            None if crate::limits::BUILT_IN.contains(&call.spec.capability.as_str()) => None,
            None => Some(Wanted::Capability(call.spec.capability.clone())),
        };
        // Through a certain tracker: where else the node is doesn't matter.
        let wanted = wanted.filter(|_| call.spec.via.is_none());
        call.dht = Dht::Over;
        let asked = wanted.is_some();
        match wanted.and_then(|wanted| self.look_up(wanted, now, out)) {
            Some(lookup) => {
                if let Some(call) = self.calls.entries.get_mut(id) {
                    call.dht = Dht::Asking(lookup);
                }
                self.wait_for_lookup(lookup);
                self.set_call_timer(id);
            }
            None => {
                if asked && let Some(call) = self.calls.entries.get_mut(id) {
                    call.tried("dht", None, "too many lookups are under way", now);
                }
                self.advance(id, now, out);
            }
        }
    }

    /// The call needs the DHT no longer.
    pub(super) fn leave_dht(&mut self, dht: Dht, out: &mut Vec<Action>) {
        if let Dht::Asking(lookup) = dht {
            self.leave_lookup(lookup, out);
        }
    }

    /// Nobody came of a lookup.
    pub(in crate::mesh) fn calls_lookup_over(&mut self, lookup: LookupId, why: &str, now: Now, out: &mut Vec<Action>) {
        for id in self.calls_where(|c| c.dht == Dht::Asking(lookup)) {
            let Some(call) = self.calls.entries.get_mut(&id) else { continue };
            call.dht = Dht::Over;
            call.tried("dht", None, why.to_owned(), now);
            if call.phase == Phase::Searching {
                self.advance(&id, now, out);
            }
        }
    }

    /// Somebody whom the DHT named is connected; what it is worth shows when its record comes.
    pub(in crate::mesh) fn calls_candidate_arrived(
        &mut self,
        lookup: LookupId,
        node: NodeId,
        addr: SocketAddr,
        what: &Wanted,
        now: Now,
    ) {
        for id in self.calls_where(|c| c.dht == Dht::Asking(lookup)) {
            let Some(call) = self.calls.entries.get_mut(&id) else { continue };
            call.tried("dht", Some(node), format!("named, and connected at {addr}"), now);
            if matches!(what, Wanted::Node(wanted) if *wanted != node) {
                call.dht_tracker = Some(node);
            }
        }
    }

    /// A tracker that is connected already is named by the node that is looked for.
    pub(in crate::mesh) fn calls_tracker_named(
        &mut self,
        lookup: LookupId,
        tracker: NodeId,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        for id in self.calls_where(|c| c.dht == Dht::Asking(lookup)) {
            let Some(call) = self.calls.entries.get_mut(&id) else { continue };
            call.tried("dht", Some(tracker), "named as the node's tracker", now);
            call.dht_tracker = Some(tracker);
            if call.phase == Phase::Searching {
                self.advance(&id, now, out);
            }
        }
    }
}
