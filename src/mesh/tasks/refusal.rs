//! Which tasks are not begun, and why.

use crate::error::ErrorCode;
use crate::info::Sealing;
use crate::memory::Level;
use crate::mesh::action::TaskKey;
use crate::mesh::clock::Now;
use crate::mesh::policy;
use crate::mesh::sealing::Seal;
use crate::mesh::state::State;
use crate::mesh::trail::Trail;
use crate::wire::{Task, TrackerRole, WireError};

impl State {
    /// Counts a task that the owner's lists or rules keep out.
    pub(super) fn count_refused(&mut self, capability: &str, code: ErrorCode) {
        self.refuse(if code == ErrorCode::RateLimited { "task_rate" } else { "not_allowed" });
        self.counters.tasks_failed += 1;
        let name = if self.provides(capability) { capability } else { policy::OTHER };
        self.policies.count(name, code);
    }

    pub(super) fn task_refusal(
        &mut self,
        task: &Task,
        key: &TaskKey,
        legacy: bool,
        trail: Trail,
        now: Now,
    ) -> Option<WireError> {
        let caller = key.0;
        let error = |code, message: String| Some(WireError::new(code, message).not_run());
        if task.caller != caller {
            return error(ErrorCode::NotAllowed, "the task is signed by another node than the one that sent it".into());
        }
        match (task.target, &task.target_name) {
            (Some(target), _) if target == self.me => {}
            (None, Some(name)) if legacy && self.is_legacy_name(name) => {}
            (None, Some(_)) => return error(ErrorCode::BadRequest, "target: not a node id".into()),
            // Left open: only from the caller's own mouth, or whoever overhears it could have it run elsewhere too.
            (None, None) if trail.via.is_none() => {}
            _ => return error(ErrorCode::BadRequest, format!("the task is not for this node, {}", self.me)),
        }
        if trail.via.is_some() && trail.seal == Seal::Plain && self.config.sealing == Sealing::Required {
            let message = "this node takes tasks through trackers only when they are sealed: its record has the key";
            return error(ErrorCode::NotAllowed, message.into());
        }
        let skew = self.config.limits.clock_skew.as_secs();
        // The timestamp is any 64-bit number the caller chose.
        let age = now.unix_s().saturating_sub(task.timestamp);
        if age < -i64::try_from(skew).unwrap_or(i64::MAX) {
            let ahead = age.unsigned_abs();
            let message = format!("the task is dated {ahead} s in the future by this node's clock: check the clocks");
            return error(ErrorCode::Expired, message);
        }
        // The timestamp is a whole second: the task may have been issued at the end of it.
        if age > task.ttl_s as i64 {
            let message = format!(
                "the task was issued {age} s ago by this node's clock and lives for {} s: check the clocks, or send it anew",
                task.ttl_s
            );
            return error(ErrorCode::Expired, message);
        }
        if self.tasks.may_be_forgotten(task, now, &self.config.limits) {
            // Not "not run": that is what is not known.
            let message = "this node's clock was set back: by its earlier time the task is past its deadline, and whether it \
                           ran is no longer known; send it anew";
            return Some(WireError::new(ErrorCode::Expired, message));
        }
        if let Some(instance) = &task.instance
            && *instance != self.config.instance
        {
            let mut error = WireError::new(
                ErrorCode::PeerGone,
                "this node restarted since: what its earlier run did with the task is not known",
            );
            error.instance = Some(self.config.instance.clone());
            return Some(error.not_run());
        }
        let cancelled = &self.tasks.cancelled_early.0;
        if !cancelled.is_empty() && cancelled.contains(key) {
            return error(ErrorCode::Cancelled, "the caller took the task back".into());
        }
        if self.draining {
            // With its run, which tells that the node itself refused it.
            let mut error = WireError::new(ErrorCode::PeerGone, "the node is going down");
            error.instance = Some(self.config.instance.clone());
            return Some(error.not_run());
        }
        let relays = task.capability == "relay" && (legacy || self.config.tracker != TrackerRole::None);
        if !self.provides(&task.capability) && !relays && !legacy {
            return error(ErrorCode::UnknownCapability, format!("{:?} is not provided here", task.capability));
        }
        if self.held.level() >= Level::Tasks {
            self.held.count(Level::Tasks, 1);
            let message = "this node is short of memory and takes no new tasks".to_owned();
            return Some(WireError::new(ErrorCode::Overloaded, message).retry_after_s(1).not_run());
        }
        if !self.policies.is_open()
            && let Some(error) = self.policies.forbids(&self.ids_of(&caller), &task.capability)
        {
            return Some(error);
        }
        if let Some((message, seconds)) = self.tasks.no_room(&caller, &key.1, &self.config.limits) {
            return Some(WireError::new(ErrorCode::Overloaded, message).retry_after_s(seconds).not_run());
        }
        self.policies.crowded(&caller, &task.capability, now.mono)
    }
}

/// The counter that a refusal goes to.
pub(super) fn reason_of(code: &str) -> &'static str {
    match ErrorCode::from_wire(code) {
        Some(ErrorCode::Expired) => "expired_task",
        Some(ErrorCode::UnknownCapability) => "unknown_capability",
        Some(ErrorCode::Overloaded) => "overloaded",
        Some(ErrorCode::PeerGone) => "other_run",
        _ => "bad_task",
    }
}
