//! Carrying out what the mesh decided: outside the lock, by whoever brought the input.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;

use super::call::CHANNEL;
use super::driver::{Shared, lock};
use super::news::{Full, Teller};
use super::running::Running;
use super::search::SearchNews;
use super::threads::Work;
use crate::error::CloseReason;
use crate::info::Activity;
use crate::limits::LONG_MESSAGE;
use crate::mesh::{Action, CallEvent, ConnId, Now, OnFull, State, TaskId, What};
use crate::net::{Connection, Late, Outgoing, Punch, SendError};
use crate::wire::{Draft, Object, batch, draft};

/// What is done once for many actions.
#[derive(Default)]
struct Together {
    /// The connection that was sent to last.
    last: Option<(ConnId, Arc<Connection>)>,
    /// Connections whose writers wait until all is said.
    corked: Vec<Arc<Connection>>,
    /// Handlers that are to be begun.
    works: Vec<(Work, Arc<Running>)>,
    /// Whether there is more than one action.
    several: bool,
}

impl Drop for Together {
    fn drop(&mut self) {
        for connection in &self.corked {
            connection.uncork();
        }
    }
}

impl Shared {
    /// Carries actions out, and those that come of it.
    pub(crate) fn carry_out(&self, actions: Vec<Action>) {
        let mut together = Together::default();
        together.several = actions.len() > 1;
        // What comes of an action comes before what was to follow it.
        let mut rest = Vec::new();
        let mut actions = actions.into_iter();
        loop {
            let Some(action) = actions.next() else {
                match rest.pop() {
                    Some(earlier) => actions = earlier,
                    None => break,
                }
                continue;
            };
            let more = self.carry_out_one(action, &mut together);
            if !more.is_empty() {
                rest.push(std::mem::replace(&mut actions, more.into_iter()));
            }
        }
        self.begin(std::mem::take(&mut together.works));
    }

    fn carry_out_one(&self, action: Action, together: &mut Together) -> Vec<Action> {
        match action {
            Action::Send { to, what, on_full } => return self.send(to, what, on_full, together),
            Action::SignLegacy { conn, draft } => {
                let message = draft.sign(&self.identity);
                return self.decide(|s, now, out| s.send_legacy(conn, message, now, out));
            }
            Action::Close { conn, reason, message } => {
                if let Some(connection) = self.connection(conn) {
                    connection.close(reason, &message);
                }
            }
            Action::Dial { node, addrs, how } => self.dial_for_calls(node, addrs, how),
            Action::DialBack { conn, id, addr, nonce } => self.dial_back(conn, id, addr, nonce),
            Action::Dht { lookup, what } => return self.ask_dht(lookup, what),
            Action::DhtStop { lookup } => self.stop_dht(lookup),
            Action::DialUnknown { lookup, addr, node } => self.dial_unknown(lookup, addr, node),
            Action::Punch { node, local, addrs, wait, dialler } => {
                self.punch(node, Punch { local, addrs, wait, dialler });
            }
            Action::CheckKeys { from, news } => {
                let news = news.check();
                return self.decide(|s, now, out| s.keys_checked(from, news, now, out));
            }
            Action::SaveKeys => self.keys_changed.notify_one(),
            Action::SignRecord(draft) => match draft.sign(&self.identity) {
                Some(record) => {
                    let more = self.decide(|s, _, out| s.record_signed(record, out));
                    self.dht_may_change();
                    return more;
                }
                None => tracing::error!("this node's record is too large to be published: register less"),
            },
            Action::ReplaceSealKey { keep } => {
                if let Some(sealer) = &self.sealer {
                    let key = sealer.replace_key(keep, self.start.elapsed(), &mut rand::rng());
                    return self.decide(|s, now, out| s.set_seal_key(key, now, out));
                }
            }
            Action::RunTask { key, task } => together.works.extend(self.run_task(key, *task)),
            Action::StopTask { key } => {
                if let Some(task) = lock(&self.tasks).get(&key) {
                    task.running.cancel();
                }
            }
            Action::Credit { key } => {
                if let Some(task) = lock(&self.tasks).get(&key) {
                    task.running.credit.notify_waiters();
                }
            }
            // Told already, under the lock.
            Action::Call { .. } => {}
            Action::Found { id, record, how, hops } => {
                let found = self.read(|state, _| state.found(&record, how, Some(hops)));
                if let Some(sender) = lock(&self.finds).get(&id) {
                    // A listing that nobody reads fast enough is cut short.
                    let _ = sender.try_send(SearchNews::Node(Box::new(found)));
                }
            }
            Action::FindNote { id, result } => {
                if let Some(sender) = lock(&self.finds).get(&id) {
                    let _ = sender.try_send(SearchNews::Dht(result));
                }
            }
            Action::FindOver { id } => drop(lock(&self.finds).remove(&id)),
            Action::Event(event) => {
                self.subscribers.deliver(&event);
                self.tell(Activity::Published(event));
            }
            Action::Activity(activity) => {
                if matches!(activity, Activity::PeerConnected { .. } | Activity::PeerLost { .. }) {
                    self.peers_changed.send_modify(|n| *n += 1);
                    self.dht_may_change();
                }
                self.tell(activity);
            }
        }
        Vec::new()
    }

    fn send(&self, to: ConnId, what: What, on_full: OnFull, together: &mut Together) -> Vec<Action> {
        let connection = match &together.last {
            Some((conn, connection)) if *conn == to => Arc::clone(connection),
            _ => {
                let Some(connection) = self.connection(to) else { return Vec::new() };
                if together.several && !together.corked.iter().any(|corked| Arc::ptr_eq(corked, &connection)) {
                    connection.cork();
                    together.corked.push(Arc::clone(&connection));
                }
                together.last = Some((to, Arc::clone(&connection)));
                connection
            }
        };
        let message = match what {
            What::Ready(object) => Outgoing::Ready(object),
            What::Sign(draft) => self.to_peer(&draft, &connection),
            What::Relay { target, source, hops, frame } => {
                Outgoing::Passable(draft::relay(&target, &source, hops, &frame))
            }
            What::SignRelay(draft, to) => match self.to_relay(draft, to.0, to.1, &connection) {
                Some(message) => message,
                None => return self.not_sealed(on_full),
            },
        };
        match connection.send(message) {
            // A closed connection is reported on its own.
            Ok(()) | Err(SendError::Closed) => Vec::new(),
            Err(SendError::TooLarge) => {
                tracing::warn!("a message is larger than the wire carries; it is dropped");
                self.not_sent(&connection, on_full)
            }
            Err(SendError::Full) => self.not_sent(&connection, on_full),
        }
    }

    /// A message for the peer itself. It is signed when it is written, with what else there is then, if the peer takes that;
    /// else here and now, and so on whatever core there is.
    fn to_peer(&self, draft: &Draft, peer: &Connection) -> Outgoing {
        let message = draft.unsigned(&self.me);
        if message.is_all_covered() && message.signed_len() < LONG_MESSAGE && peer.takes_batches() {
            return Outgoing::Late(Late::Plain(message));
        }
        match message.is_all_covered() {
            true if peer.takes_batches() => Outgoing::Passable(batch::sign_long(&self.identity, message)),
            true => Outgoing::Passable(message.sign(&self.identity)),
            // Queries and events.
            false => Outgoing::Ready(message.sign(&self.identity)),
        }
    }

    /// A message can't be sealed: it is not sent in any other way.
    fn not_sealed(&self, on_full: OnFull) -> Vec<Action> {
        tracing::warn!("a message could not be sealed to its target's key; it is not sent");
        self.decide(|s, now, out| match on_full {
            OnFull::FailCall(id) => s.call_not_sealed(&id, now, out),
            _ => s.refuse("not_sealed"),
        })
    }

    fn not_sent(&self, connection: &Connection, on_full: OnFull) -> Vec<Action> {
        match on_full {
            OnFull::Drop => self.decide(|s, _, _| s.refuse("outbox_full")),
            OnFull::Close => {
                connection.close(CloseReason::TooSlow, "the outbox for this peer is full");
                Vec::new()
            }
            OnFull::FailCall(id) => self.decide(|s, now, out| s.call_send_failed(&id, now, out)),
            OnFull::Relay(frame) => self.decide(|s, _, out| s.relay_full(&frame.source, &frame.target, &frame.id, out)),
        }
    }

    /// Hands callers their news. Under the lock, and so in the order they were decided: two connections may bring
    /// chunks of one call at the same time. It only puts them into the calls' channels: who is to be woken is woken later.
    pub(super) fn tell_callers(&self, state: &mut State, now: Now, actions: &mut Vec<Action>) -> Woken {
        let mut woken = Woken::default();
        // Once, as a rule: what is decided about those that are behind may be news again.
        while actions.iter().any(|action| matches!(action, Action::Call { .. })) {
            let mut behind = Vec::new();
            {
                let mut calls = lock(&self.calls);
                for action in actions.extract_if(.., |action| matches!(action, Action::Call { .. })) {
                    if let Action::Call { id, event } = action
                        && !tell_caller(&mut calls, &id, event, &mut woken)
                    {
                        behind.push(id);
                    }
                }
            }
            for id in behind {
                state.cancel_call(&id, now, actions);
            }
        }
        woken
    }

    /// What the node has in the DHT may have changed, or whom it could join it through.
    fn dht_may_change(&self) {
        if let Some(dht) = &self.dht {
            dht.changed().send_modify(|n| *n += 1);
        }
    }
}

/// `false`: the caller's channel is full. It holds a window and what surrounds it, so the responder overran that, and
/// the call can't go on.
fn tell_caller(calls: &mut HashMap<TaskId, Teller>, id: &TaskId, event: CallEvent, woken: &mut Woken) -> bool {
    if let CallEvent::Done(done) = event {
        if let Some(teller) = calls.remove(id) {
            let (waker, message) = teller.end(*done);
            woken.wakers.extend(waker);
            woken._messages.extend(message);
        }
        return true;
    }
    match calls.get(id).map(|teller| teller.tell(event, CHANNEL)) {
        Some(Ok(waker)) => woken.wakers.extend(waker),
        Some(Err(Full)) => return false,
        None => {}
    }
    true
}

/// Callers that have news, to be woken outside the lock: waking may have this thread wait for its turn. They are woken when it is
/// dropped.
#[derive(Default)]
pub(super) struct Woken {
    wakers: Vec<Waker>,
    /// Messages that nobody needs any more, to be freed outside the lock as well.
    _messages: Vec<Object>,
}

impl Drop for Woken {
    fn drop(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}
