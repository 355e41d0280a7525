//! What goes through trackers sealed, and to which key.
//!
//! A node's record says that it takes sealed messages, and its key; the record is signed, so no tracker can say otherwise.
//! Nothing is sent open because a key is missing or wrong: then it is not sent.

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::state::{State, Timer};
use super::task_id::TaskId;
use super::trail::Trail;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::info::Sealing;
use crate::wire::{Draft, Event, NotOpened, SealKey, Sealed, SealedKind, WireError};

/// How a message is to be sealed, should a tracker pass it on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seal {
    /// As the record of whom it is for says.
    #[default]
    ByRecord,
    /// To this key, which it named itself.
    To(SealKey),
    /// Not: it came so, and is answered so.
    Plain,
}

/// What a caller is told of a node that nothing is known of.
const UNKNOWN: &str = "its record is not known here, and without it nothing can be sealed for it";

impl State {
    /// The key to which what is relayed to a node is sealed; `None`: it is not sealed.
    pub(super) fn seal_for(&self, node: &NodeId, seal: Seal) -> Result<Option<SealKey>, &'static str> {
        match seal {
            Seal::To(key) => return Ok(Some(key)),
            Seal::Plain => return Ok(None),
            Seal::ByRecord if self.config.sealing == Sealing::Off => return Ok(None),
            Seal::ByRecord => {}
        }
        let record = self.table.get(node).ok_or(UNKNOWN)?;
        match (record.takes_sealed(), record.seal) {
            (true, Some(key)) => Ok(Some(key)),
            (true, None) => Err("its record says that it takes sealed messages, and names no key for them"),
            (false, _) if self.config.sealing == Sealing::Required => {
                Err("it takes no sealed messages, and this node sends no others through trackers")
            }
            (false, _) => Ok(None),
        }
    }

    /// Whether what goes through trackers is sealed.
    pub fn sealing(&self) -> Sealing {
        self.config.sealing
    }

    /// This node's seal key is another from now on; its record tells.
    pub fn set_seal_key(&mut self, key: SealKey, now: Now, out: &mut Vec<Action>) {
        self.seal_key = Some(key);
        self.timers.set(Timer::SealKey, now.mono.saturating_add(self.config.limits.seal_key_lifetime));
        self.record_dirty = true;
        self.flush_record(now, out);
    }

    /// The key has had its time.
    pub(super) fn seal_key_due(&self, out: &mut Vec<Action>) {
        // As long as a record that names the key may be believed, by the clock that is furthest behind.
        let limits = &self.config.limits;
        let keep = limits.record_ttl.saturating_add(limits.clock_skew.saturating_mul(2));
        out.push(Action::ReplaceSealKey { keep });
    }

    /// An envelope for this node that could not be used. Who sealed a task is told which key to seal it to.
    pub(super) fn on_unopened(&mut self, sealed: Sealed, why: NotOpened, from: NodeId, out: &mut Vec<Action>) {
        self.refuse(match why {
            NotOpened::Off => "sealed_off",
            NotOpened::Key => "not_opened",
            NotOpened::Inner => "not_as_sealed",
        });
        if sealed.kind != SealedKind::Task {
            // What is lost of a task's course is asked for again.
            return;
        }
        if let Some(why) = self.barred(&sealed.source) {
            let error = WireError::new(ErrorCode::NotAllowed, why).not_run();
            return self.answer_unheld(sealed.id, Err(error), sealed.source, Trail::open(from), None, out);
        }
        let mut error = match (why, &sealed.instance) {
            (NotOpened::Inner, _) => WireError::new(ErrorCode::BadRequest, format!("the task: {why}")),
            (_, Some(instance)) if *instance != self.config.instance => WireError::new(
                ErrorCode::PeerGone,
                "this node restarted since: what its earlier run did with the task is not known",
            ),
            _ => WireError::new(ErrorCode::PeerGone, format!("the task: {why}")),
        };
        if why != NotOpened::Inner {
            error.instance = Some(self.config.instance.clone());
            error.seal = self.seal_key.map(Box::new);
        }
        // An earlier copy may have been opened.
        if !self.tasks.is_known(&(sealed.source, TaskId::from(&sealed.id))) {
            error = error.not_run();
        }
        self.answer_unheld(sealed.id, Err(error), sealed.source, Trail::open(from), None, out);
    }

    /// An event that its origin sealed for this node alone: it goes no further.
    pub(super) fn on_sealed_event(&mut self, event: Event, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        if event.origin.is_some_and(|origin| self.barred(&origin).is_some()) {
            return self.refuse("not_allowed");
        }
        self.on_event(Event { ttl: 1, ..event }, conn, now, out);
    }

    /// Sends an event to one node alone: over its connection, else sealed through a tracker. `draft` is the same for all.
    ///
    /// # Errors
    ///
    /// Why it can't be sent.
    pub fn publish_to(
        &mut self,
        node: &NodeId,
        draft: &Draft,
        now: Now,
        out: &mut Vec<Action>,
    ) -> Result<(), &'static str> {
        if let (true, Draft::Event { id, event_type, data, timestamp, .. }) = (*node == self.me, draft) {
            if self.seen_events.insert((self.me, id.clone()), (), now.mono) {
                self.deliver(id, event_type, data, self.me, *timestamp, true, out);
            }
            return Ok(());
        }
        let on_full = OnFull::Drop;
        if let Some(to) = self.peers.conn_of(node) {
            out.push(Action::Send { to, what: What::Sign(draft.clone()), on_full });
            return Ok(());
        }
        let Some(key) = self.seal_for(node, Seal::ByRecord)? else {
            return Err("it is not connected, and what is not sealed is not published through trackers");
        };
        let record = self.table.get(node).ok_or(UNKNOWN)?;
        let named = record.trackers.iter().find_map(|t| self.peers.conn_of(t));
        let to = named.or_else(|| self.peers.trackers().map(|(conn, _)| conn).next());
        let to = to.ok_or("it is not connected, and no tracker is")?;
        out.push(Action::Send { to, what: What::SignRelay(draft.clone(), Box::new((*node, Some(key)))), on_full });
        Ok(())
    }
}
