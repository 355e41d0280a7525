//! What a driver does with actions.

use bytes::Bytes;
use rand::Rng;

use super::links::Why;
use super::punch::Hole;
use super::world::{Ev, N, World, ms};
use crate::error::CloseReason;
use crate::info::Activity;
use crate::mesh::{Action, ConnId, Now, OnFull, State, What};
use crate::seal::Message;
use crate::wire::{Checked, Draft, Message as Wire, NotOpened, Object, Roots, Speaker, check, draft};

impl World {
    /// Lets a node decide something, and carries out what it wants done.
    pub fn with<R>(&mut self, n: N, decide: impl FnOnce(&mut State, Now, &mut Vec<Action>) -> R) -> R {
        let mut actions = Vec::new();
        let now = self.nodes[n].now(self.now);
        let result = decide(&mut self.nodes[n].state, now, &mut actions);
        for action in actions {
            self.carry_out(n, action);
        }
        self.arm(n);
        result
    }

    fn arm(&mut self, n: N) {
        let node = &mut self.nodes[n];
        let Some(due) = node.state.next_due() else { return };
        let due = (due + node.started).max(self.now);
        if node.armed.is_none_or(|armed| due < armed || armed < self.now) {
            node.armed = Some(due);
            let run = node.run;
            self.at(due, Ev::Tick { n, run });
        }
    }

    fn carry_out(&mut self, n: N, action: Action) {
        match action {
            Action::Send { to, what, on_full } => self.send(n, to, what, on_full),
            Action::SignLegacy { .. } => panic!("there are no Python nodes here"),
            Action::Close { conn, reason, message } => {
                let (link, side) = place(conn);
                self.close(link, side, reason, &message);
            }
            Action::Dial { node, addrs, how } => self.dial(n, addrs, Why::Call(node, how)),
            Action::DialBack { conn, id, addr, nonce } => self.dial_back(n, conn, id, addr, nonce),
            Action::Punch { node, local, addrs, wait, dialler } => {
                self.punch(Hole {
                    n,
                    run: self.nodes[n].run,
                    node,
                    from: local,
                    to: addrs,
                    at: self.now + wait,
                    dialler,
                });
            }
            Action::CheckKeys { from, news } => {
                let news = news.check();
                self.with(n, |s, now, out| s.keys_checked(from, news, now, out));
            }
            Action::SaveKeys => {}
            Action::SignRecord(draft) => {
                let record = draft.sign(&self.nodes[n].identity).unwrap();
                self.with(n, |s, _, out| s.record_signed(record, out));
            }
            Action::ReplaceSealKey { keep } => {
                let node = &mut self.nodes[n];
                let key = node.sealer.as_ref().unwrap().replace_key(keep, self.now, &mut node.dice);
                self.with(n, |s, now, out| s.set_seal_key(key, now, out));
            }
            Action::RunTask { key, task } => self.start_job(n, key, &task),
            Action::StopTask { key } => self.stop_job(n, &key),
            Action::Credit { key } => self.credit(n, &key),
            Action::Call { id, event } => {
                let taken = self.nodes[n].call_event(&id, event, self.now);
                if taken > 0 {
                    self.with(n, |s, _, out| s.chunks_taken(&id, taken, out));
                }
            }
            Action::Dht { .. } | Action::DhtStop { .. } | Action::DialUnknown { .. } => panic!("there is no DHT here"),
            Action::Found { id, record, hops, .. } => {
                self.nodes[n].found.entry(id).or_default().push((record.node_id, hops));
            }
            Action::FindNote { .. } => panic!("there is no DHT here"),
            Action::FindOver { id } => assert!(self.nodes[n].find_over.insert(id)),
            Action::Event(event) => self.nodes[n].events.push((event.event_type, event.id)),
            Action::Activity(activity) => {
                if let Activity::TaskReceived { .. } = activity {
                    self.tasks_received += 1;
                }
            }
        }
    }

    fn send(&mut self, n: N, to: ConnId, what: What, on_full: OnFull) {
        let (link, side) = place(to);
        if !self.links[link].open[side] {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[n];
        let object = match what {
            What::Ready(object) => object,
            What::Sign(draft) => draft.sign(&node.identity),
            What::Relay { target, source, hops, frame } => draft::relay(&target, &source, hops, &frame),
            What::SignRelay(draft, to) if to.1.is_none() => {
                self.unsealed += 1;
                draft::relay(&to.0, &node.id, 0, &draft.sign(&node.identity))
            }
            What::SignRelay(draft, to) => {
                let (target, key) = (to.0, to.1.unwrap());
                let inner = draft.sign(&node.identity);
                let (kind, id) = draft.sealed_kind().unwrap();
                let (instance, ttl_s) = match &draft {
                    Draft::Task(task) => (task.instance.as_deref(), Some(task.ttl_s)),
                    _ => (None, None),
                };
                let m = Message { kind, id, target: &target, key: &key, instance, ttl_s, text: inner.raw() };
                let sealer = node.sealer.as_ref().unwrap();
                let sealed = sealer.seal(&node.identity, &m, now, &mut node.dice).unwrap();
                self.sealed += 1;
                draft::relay(&target, &node.id, 0, &sealed)
            }
        };
        let bytes = object.raw().clone();
        if let OnFull::Relay(_) = on_full {
            if self.chance(self.faults.relay_loss) {
                self.lost += 1;
                return;
            }
            if self.chance(self.faults.relay_full) {
                return self.not_sent(n, link, side, on_full);
            }
            // On the last link only. A tracker that tells its caller that it did not pass a task on, and passes a copy on
            // later, breaks what callers have to believe it; TCP makes no copies by itself.
            let last = self.is_target(link, 1 - side, &on_full);
            if last && self.chance(self.faults.relay_twice) {
                let wait = ms(self.rng.next_u64() % 3000);
                self.after(wait, Ev::Inject { link, side: 1 - side, bytes: bytes.clone() });
            }
            if self.chance(self.faults.relay_late) {
                let wait = ms(self.rng.next_u64() % 1000);
                return self.after(wait, Ev::Inject { link, side: 1 - side, bytes });
            }
        }
        if !self.push(link, 1 - side, bytes) {
            self.not_sent(n, link, side, on_full);
        }
    }

    /// Whether a relayed frame is for the node at that end of a link.
    fn is_target(&self, link: usize, side: usize, on_full: &OnFull) -> bool {
        let (node, _) = self.links[link].ends[side];
        matches!(on_full, OnFull::Relay(frame) if frame.target == self.nodes[node].id)
    }

    fn not_sent(&mut self, n: N, link: usize, side: usize, on_full: OnFull) {
        match on_full {
            OnFull::Drop => self.with(n, |s, _, _| s.refuse("outbox_full")),
            OnFull::Close => self.close(link, side, CloseReason::TooSlow, "the outbox for this peer is full"),
            OnFull::FailCall(id) => self.with(n, |s, now, out| s.call_send_failed(&id, now, out)),
            OnFull::Relay(frame) => {
                self.with(n, |s, _, out| s.relay_full(&frame.source, &frame.target, &frame.id, out));
            }
        }
    }

    /// What a reader checks. The same bytes are checked once: a flood brings them to everybody.
    pub fn check(&mut self, bytes: &Bytes) -> Option<Checked> {
        if let Some(checked) = self.checked.get(bytes) {
            return checked.clone();
        }
        let object = Object::parse(bytes.clone()).ok();
        let message = object.and_then(|o| Wire::parse(&o).ok());
        let checked = message.and_then(|m| check(m, Speaker::Proven, &mut Roots::new()).ok());
        if self.checked.len() > 16_384 {
            self.checked.clear();
        }
        self.checked.insert(bytes.clone(), checked.clone());
        checked
    }
}

impl World {
    /// What a driver does with an envelope for its node, before the state has it.
    pub fn opened(&self, n: N, checked: Checked) -> Checked {
        let node = &self.nodes[n];
        let Some(sealed) = checked.sealed_for(&node.id) else { return checked };
        let opened = node.sealer.as_ref().map_or(Err(NotOpened::Off), |s| s.open(sealed, self.now));
        checked.opened(opened, &mut Roots::new())
    }
}

fn place(conn: ConnId) -> (usize, usize) {
    ((conn.0 / 2) as usize, (conn.0 % 2) as usize)
}
