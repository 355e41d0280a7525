//! News that a waiting call may use: connections, records, and what a query flood found.

use super::{Call, Flood, Path, Phase};
use crate::identity::NodeId;
use crate::mesh::action::Action;
use crate::mesh::clock::Now;
use crate::mesh::queries::Purpose;
use crate::mesh::state::State;
use crate::mesh::table::names;
use crate::mesh::task_id::TaskId;
use crate::wire::{Record, TrackerRole};

impl State {
    /// There is a new way to a node. `resend`: what was sent to it before may be lost.
    pub(in crate::mesh) fn calls_on_connected(&mut self, node: &NodeId, resend: bool, now: Now, out: &mut Vec<Action>) {
        if self.calls.is_empty() {
            return;
        }
        let waiting = self.calls_where(|c| match &c.phase {
            Phase::Searching => true,
            Phase::Dialing(n) => n == node,
            // Without a run to be signed for, a second copy might be run by another run.
            Phase::Sent { node: n, path: Path::Direct } => resend && n == node && c.instance.is_some(),
            Phase::Sent { .. } => false,
            Phase::Lost { .. } => true,
        });
        for id in waiting {
            let Some(call) = self.calls.entries.get_mut(&id) else { continue };
            match call.phase.clone() {
                Phase::Searching | Phase::Dialing(_) => {
                    call.dialing = None;
                    call.phase = Phase::Searching;
                    self.advance(&id, now, out);
                }
                Phase::Sent { node, .. } => self.dispatch(&id, node, Path::Direct, now, out),
                Phase::Lost { .. } => self.recover(&id, now, out),
            }
        }
    }

    /// A record was learned: the searching calls that it may help look again. Records come as often as peers please, so
    /// the others are left alone.
    pub(in crate::mesh) fn calls_nudge_for(&mut self, record: &Record, now: Now, out: &mut Vec<Action>) {
        if self.calls.is_empty() {
            return;
        }
        let node = &record.node_id;
        let helps = |c: &Call| match &c.spec.target {
            _ if record.tracker != TrackerRole::None || c.found.contains_key(node) => true,
            Some(target) => names(target, node, &record.name),
            None => record.caps.provides(&c.spec.capability),
        };
        for id in self.calls_where(|c| c.phase == Phase::Searching && helps(c)) {
            self.advance(&id, now, out);
        }
    }

    /// Something happened that any searching call may use.
    pub(in crate::mesh) fn calls_nudge(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.calls.is_empty() {
            return;
        }
        for id in self.calls_where(|c| c.phase == Phase::Searching) {
            self.advance(&id, now, out);
        }
    }

    pub(in crate::mesh) fn call_found(
        &mut self,
        id: &TaskId,
        found: &[(NodeId, u32)],
        via: Option<NodeId>,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        for (node, hops) in found {
            call.found.entry(*node).or_insert((*hops, via));
            call.tried("flood", Some(*node), format!("found, {hops} hops away"), now);
        }
        if call.phase == Phase::Searching {
            self.advance(id, now, out);
        }
    }

    pub(in crate::mesh) fn call_flood_over(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.flood = Flood::Over;
        call.query = None;
        if call.found.is_empty() {
            call.tried("flood", None, "nobody answered", now);
        }
        if call.phase == Phase::Searching {
            self.advance(id, now, out);
        }
    }

    pub(super) fn start_flood(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        let query = self.new_id();
        let until = now.mono + self.config.limits.query_wait;
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        call.flood = Flood::Asking;
        call.query = Some(query.clone());
        let until = until.min(call.deadline);
        // A node that is named is asked for by name alone: it may provide what it doesn't announce.
        let node = call.spec.target.clone().unwrap_or_default();
        let capability = if node.is_empty() { call.spec.capability.clone() } else { String::new() };
        self.ask_mesh(query, Purpose::Call(id.clone()), &capability, &node, 8, until, now, out);
    }
}
