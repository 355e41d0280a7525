//! What must hold of a node's state whatever came: for the simulator and the fuzzer.

use super::state::{State, Timer};

impl State {
    /// The first table that is larger than it may be.
    pub fn broken_bound(&self) -> Option<String> {
        let l = &self.config.limits;
        let conns = self.peers.iter().count();
        let in_flight: usize = self.in_flight.values().sum();
        // This node's calls to itself are bounded as calls.
        let local = self.tasks.running_for(&self.me);
        let own = self.calls.len() + 2 * self.tasks.entries() + self.queries.len() + self.forwards.len() + 3 * conns;
        let bounds = [
            ("records", self.table.len(), l.max_records.max(1)),
            ("events", self.seen_events.len(), l.max_seen),
            ("tasks", self.tasks.weight(), l.max_remembered_tasks),
            ("tasks running and answered", self.tasks.entries(), l.max_tasks + local + l.max_answers),
            ("running tasks", self.tasks.running(), l.max_tasks + local),
            ("calls", self.calls.len(), l.max_calls),
            ("punches", self.punches.len(), crate::limits::MAX_PUNCHES),
            ("relays", self.relays.len(), 16 * 1024),
            ("trackers", self.known_trackers.len(), crate::limits::MAX_TRACKER_CANDIDATES),
            ("lookups", self.lookup_counts().0, crate::limits::MAX_LOOKUPS),
            ("tasks in flight at others", in_flight, self.calls.len()),
            ("nodes being dialled", self.dialing.len(), l.max_records.max(1) + l.max_calls),
            // Beside those of calls, tasks, queries and connections: the record, the sweep, trackers, lookups.
            ("alarms", self.timers.len(), 4 + own + 2 * self.calls.len() + crate::limits::MAX_LOOKUPS),
        ];
        let broken = bounds.into_iter().chain(self.queries.bounds(l)).find(|(_, is, most)| is > most);
        broken.map(|(what, is, most)| format!("{is} {what}, at most {most} may be"))
    }

    /// What is still there of what is over, when no call, task or query has been for long enough.
    pub fn left_over(&self) -> Option<String> {
        // It may go on looking for another tracker, and waits to ask one whether it can be dialled.
        let register = usize::from(self.timers.at(&Timer::Register).is_some());
        let alarms = 2 + register + usize::from(self.reach.waits());
        let counts = [
            ("calls", self.calls.len(), 0),
            ("tasks", self.tasks.weight() + self.tasks.entries(), 0),
            ("relays", self.relays.len(), 0),
            ("queries", self.queries.len(), 0),
            ("events", self.seen_events.len(), 0),
            ("tasks in flight at others", self.in_flight.len(), 0),
            ("nodes being dialled", self.dialing.len(), 0),
            ("queries waiting to be passed on", self.forwards.len(), 0),
            ("records waiting for a tracker", self.shares.waiting(), 0),
            ("alarms", self.timers.len(), alarms),
        ];
        let left = counts.into_iter().find(|(_, is, expected)| is != expected);
        left.map(|(what, is, expected)| format!("{is} {what} instead of {expected}: {:?}", self.timers))
    }
}
