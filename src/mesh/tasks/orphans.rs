//! Tasks whose caller is gone: they are not worked on until their deadlines for nobody.
//!
//! A caller that lost its way to the responder looks for another one for 10 s, and then gives the call up; so who has not
//! come back for longer than that waits no more. A caller that comes back sends the task again, or is connected anew by the
//! same run, and then the task just goes on.

use std::time::Duration;

use super::Entry;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::mesh::action::{Action, TaskKey};
use crate::mesh::clock::Now;
use crate::mesh::peers::Arrival;
use crate::mesh::state::{State, Timer};
use crate::wire::WireError;

/// A caller that repeats its relayed task does so every 30 s at the latest: after this long without a copy it is gone. Two
/// copies may be lost.
const COPIES: Duration = Duration::from_secs(100);

impl Entry {
    /// Whether what is said of the task goes over the connection to that node.
    fn goes_over(&self, key: &TaskKey, node: &NodeId) -> bool {
        match &self.trail.via {
            Some(tracker) => tracker == node,
            None => key.0 == *node,
        }
    }
}

impl State {
    fn running_where(&self, wanted: impl Fn(&TaskKey, &Entry) -> bool) -> Vec<TaskKey> {
        if self.tasks.running() == 0 {
            return Vec::new();
        }
        let running = self.tasks.entries.iter().filter(|(_, e)| e.answer.is_none() && !e.local);
        let mut keys: Vec<_> = running.filter(|(k, e)| wanted(k, e)).map(|(k, _)| k.clone()).collect();
        keys.sort();
        keys
    }

    /// A node's connection ended: the callers of tasks that came over it have a while to come back. `instance` is the
    /// run that was connected.
    pub(in crate::mesh) fn tasks_lost_way(&mut self, node: &NodeId, instance: Option<&str>, now: Now) {
        let due = now.mono.saturating_add(self.config.limits.caller_timeout);
        for key in self.running_where(|key, entry| entry.goes_over(key, node)) {
            let Some(entry) = self.tasks.entries.get_mut(&key) else { continue };
            if entry.trail.via.is_none() {
                entry.caller_run = instance.map(str::to_owned);
            } else if entry.repeated {
                // Its copies tell, over whichever tracker they come.
                continue;
            }
            entry.orphan = true;
            self.timers.set(Timer::Orphan(key), due);
        }
    }

    /// A node is connected. If it is another run of a caller that was lost, nobody waits for that one's tasks.
    pub(in crate::mesh) fn tasks_on_connected(&mut self, arrival: &Arrival, now: Now, out: &mut Vec<Action>) {
        let Some(instance) = &arrival.instance else { return };
        let other = |run: &Option<String>| run.as_ref().is_some_and(|run| run != instance);
        for key in self.running_where(|key, entry| key.0 == arrival.node && other(&entry.caller_run)) {
            self.give_task_up(&key, "the caller restarted: nobody waits for the task any more", now, out);
        }
    }

    /// The caller repeats its task: it is there.
    pub(super) fn heard_of_caller(&mut self, key: &TaskKey, now: Now) {
        let Some(entry) = self.tasks.entries.get_mut(key) else { return };
        entry.caller_run = None;
        entry.orphan = entry.answer.is_none() && entry.trail.via.is_some();
        if entry.answer.is_some() || entry.trail.via.is_none() {
            return self.timers.cancel(&Timer::Orphan(key.clone()));
        }
        self.timers.set(Timer::Orphan(key.clone()), now.mono + COPIES.max(self.config.limits.caller_timeout));
    }

    /// A caller had a while to come back.
    pub(in crate::mesh) fn orphan_due(&mut self, key: &TaskKey, now: Now, out: &mut Vec<Action>) {
        let Some(entry) = self.tasks.entries.get(key).filter(|e| e.answer.is_none()) else { return };
        // A client that doesn't send again hears the answer all the same, if it, or its tracker, is back.
        let (node, run) = match &entry.trail.via {
            Some(tracker) if !entry.repeated => (tracker, None),
            Some(_) => return self.give_task_up(key, "the caller was not heard of any more", now, out),
            None => (&key.0, entry.caller_run.as_ref()),
        };
        let back = match self.peers.proven(node) {
            Some(peer) => run.is_none_or(|run| peer.arrival.instance.as_ref() == Some(run)),
            None => entry.legacy.is_some_and(|conn| self.peers.get(conn).is_some()),
        };
        if !back {
            self.give_task_up(key, "the connection to the caller was lost, and it did not come back", now, out);
        }
    }

    fn give_task_up(&mut self, key: &TaskKey, why: &str, now: Now, out: &mut Vec<Action>) {
        self.refuse("caller_gone");
        self.answer(key, Err(WireError::new(ErrorCode::PeerGone, why)), now, out);
        out.push(Action::StopTask { key: key.clone() });
    }
}
