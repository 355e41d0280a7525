//! Events: published by one, passed on to those whose interests match, at most once each.

use bytes::Bytes;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::state::State;
use crate::identity::NodeId;
use crate::limits::{FLOOD_TTL, MAX_EVENT};
use crate::wire::{Draft, Event, matches_pattern};

impl State {
    /// Publishes an event to the peers that want it, and to ourselves. `data` is canonical JSON.
    pub fn publish(&mut self, id: String, event_type: &str, data: Bytes, now: Now, out: &mut Vec<Action>) {
        self.seen_events.insert_from(self.me, (self.me, id.clone()), (), now.mono);
        self.deliver(&id, event_type, &data, self.me, now.unix_s(), true, out);
        let draft =
            Draft::Event { id, event_type: event_type.to_owned(), data, timestamp: now.unix_s(), ttl: FLOOD_TTL };
        for conn in self.interested(|r| r.is_interested(event_type), &[]) {
            out.push(Action::Send { to: conn, what: What::Sign(draft.clone()), on_full: OnFull::Drop });
        }
    }

    pub(super) fn on_event(&mut self, event: Event, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        let Some(origin) = event.origin else { return };
        if self.is_denied(&origin) {
            return self.refuse("denied_origin");
        }
        if event.data.len() > MAX_EVENT {
            return self.refuse("event_too_large");
        }
        let skew = self.config.limits.clock_skew.as_secs();
        if event.timestamp.abs_diff(now.unix_s()) > skew {
            return self.refuse("event_clock");
        }
        let from = self.peers.proven_on(conn).unwrap_or(origin);
        if origin == self.me || !self.seen_events.insert_from(from, (origin, event.id.clone()), (), now.mono) {
            return self.refuse("duplicate_event");
        }
        self.deliver(&event.id, &event.event_type, &event.data, origin, event.timestamp, true, out);
        if event.ttl <= 1 {
            return;
        }
        let to = self.interested(|r| r.is_interested(&event.event_type), &[origin, from]);
        self.counters.flooded += to.len() as u64;
        let on = event.object.with_member("ttl", (event.ttl - 1).to_string().as_bytes());
        for conn in to {
            out.push(Action::Send { to: conn, what: What::Ready(on.clone()), on_full: OnFull::Drop });
        }
    }

    #[allow(clippy::too_many_arguments)] // The event's own members.
    pub(super) fn deliver(
        &self,
        id: &str,
        event_type: &str,
        data: &Bytes,
        origin: NodeId,
        timestamp: i64,
        proven: bool,
        out: &mut Vec<Action>,
    ) {
        if !self.interests.keys().any(|p| matches_pattern(p, event_type)) {
            return;
        }
        let data = serde_json::from_slice(data).unwrap_or_default();
        let (id, event_type) = (id.to_owned(), event_type.to_owned());
        out.push(Action::Event(crate::info::Event { id, event_type, data, origin, timestamp, proven }));
    }
}
