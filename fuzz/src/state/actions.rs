//! What the state wants done, done as the driver does it, and checked against the harness's books.

use std::net::SocketAddr;
use std::time::Duration;

use elo::fuzzing::{Action, CallEvent, ConnId, OnFull, TaskId, TaskKey, What, relay};
use elo::limits::{MAX_ADDRS, MAX_LOOKUP_DIALS, MAX_LOOKUPS, MAX_MESSAGE, MAX_PUNCH_CANDIDATES, MAX_PUNCHING};
use elo::wire::{Draft, Message, Object, Roots, Speaker, check};

use super::super::keys::{id, key};
use super::{Job, ME, World, keep};

/// A window of chunks that the owner has not taken yet.
const WINDOW: u64 = 32;

impl World {
    pub(super) fn carry_out(&mut self, actions: Vec<Action>) {
        // Callers hear their news under the lock, before anything else is done.
        let (news, rest): (Vec<_>, Vec<_>) = actions.into_iter().partition(|a| matches!(a, Action::Call { .. }));
        for action in news.into_iter().chain(rest) {
            self.carry_out_one(action);
        }
    }

    fn carry_out_one(&mut self, action: Action) {
        #[allow(unreachable_patterns, reason = "what is new needs no books until it has some here")]
        match action {
            Action::Send { to, what, on_full } => self.send(to, what, on_full),
            Action::SignLegacy { conn, draft } => {
                // The Python node may have left meanwhile; the state looks for it once more.
                let message = draft.sign(key(ME));
                self.decide(|s, now, out| s.send_legacy(conn, message, now, out));
            }
            Action::Close { conn, .. } => {
                // It may have been in the way of a message a moment before, whose peer was too slow.
                let Some(open) = self.conns.get_mut(&conn) else {
                    assert!(self.too_slow.contains(&conn), "a connection that is gone is closed");
                    return;
                };
                open.open = false;
            }
            Action::Dial { node, addrs, .. } => {
                assert_ne!(node, id(ME), "the node dials itself");
                dialable(&addrs, MAX_ADDRS);
                // A dial that the driver forgot is made again after its time; it never forgets one, the harness may.
                if !self.dialling.contains(&node) {
                    self.dialling.push(node);
                }
            }
            Action::DialBack { conn, id, addr, .. } => {
                assert!(self.conns.contains_key(&conn));
                assert_eq!(addr.ip(), self.peer_addr(conn).ip(), "a peer has another host dialled");
                self.dialling_back.push((conn, id, addr));
            }
            Action::Dht { lookup, what } => {
                self.asking.insert((lookup, what));
                let lookups: std::collections::BTreeSet<_> = self.asking.iter().map(|(lookup, _)| lookup).collect();
                assert!(lookups.len() <= MAX_LOOKUPS);
            }
            Action::DhtStop { lookup } => {
                self.asking.retain(|(id, _)| *id != lookup);
                self.unknown.retain(|(id, _)| *id != lookup);
            }
            Action::DialUnknown { lookup, addr, .. } => {
                dialable(&[addr], 1);
                self.unknown.push((lookup, addr));
                let under_way = self.unknown.iter().filter(|(id, _)| *id == lookup).count();
                assert!(under_way <= MAX_LOOKUP_DIALS, "{under_way} dials for one lookup");
            }
            Action::Punch { node, addrs, .. } => {
                assert_ne!(node, id(ME));
                dialable(&addrs, MAX_PUNCH_CANDIDATES + 1);
                self.punching.push(node);
                assert!(self.punching.len() <= MAX_PUNCHING, "{} holes at once", self.punching.len());
            }
            Action::SignRecord(draft) => {
                let record = draft.sign(key(ME)).expect("the node's own record fits");
                self.decide(|s, _, out| s.record_signed(record, out));
            }
            Action::RunTask { key, task } => {
                assert_eq!((&key.0, &key.1), (&task.caller, &TaskId::from(&task.id)));
                assert!(
                    task.deadline >= self.now.mono && task.deadline <= self.now.mono + Duration::from_secs(task.ttl_s)
                );
                serde_json::from_slice::<&serde_json::value::RawValue>(&task.payload).expect("a payload is JSON");
                self.run(key, task.timestamp, task.ttl_s);
            }
            Action::StopTask { key } => {
                self.jobs.get_mut(&key).expect("a handler that came back is stopped").stopped = true;
            }
            Action::Credit { .. } => {}
            Action::Call { id, event } => self.call_news(&id, event),
            Action::Found { id, .. } | Action::FindNote { id, .. } => {
                // A lookup in the DHT may outlast the search: the driver has no listener for it then.
                assert!(self.finds.contains_key(&id), "news of a search that was never begun");
            }
            Action::FindOver { id } => {
                assert_eq!(self.finds.insert(id, true), Some(false), "a search ended twice, or was never begun");
            }
            Action::Event(_) | Action::Activity(_) => {}
            _ => {}
        }
    }

    /// No task runs twice: the very same never, and one of the same name not before the first one's time is over.
    fn run(&mut self, key: TaskKey, timestamp: i64, ttl_s: u64) {
        let local = key.0 == id(ME);
        let fresh = self.ran.insert((key.clone(), timestamp, ttl_s));
        assert!(fresh || self.set_back, "{key:?} ran before");
        assert!(!self.jobs.contains_key(&key), "{key:?} is running");
        let until = timestamp.saturating_add(ttl_s as i64 + 1).saturating_mul(1000);
        let left = until.saturating_sub(self.now.unix_ms as i64).max(1) as u64;
        let until = self.now.mono + Duration::from_millis(left);
        if !local && let Some(busy) = self.busy_until.insert(key.clone(), until) {
            assert!(busy <= self.now.mono, "{key:?} ran, and its time is not over");
        }
        self.jobs.insert(key, Job { local, chunks: 0, stopped: false });
    }

    fn call_news(&mut self, id: &TaskId, event: CallEvent) {
        let call = self.calls.get_mut(id).expect("news of a call that nobody made");
        assert!(!call.done, "{id} ended before: {event:?}");
        match event {
            CallEvent::Accepted => {}
            CallEvent::Chunk(data) => {
                // Who sends chunks here writes their numbers into them.
                assert_eq!(data, call.next_chunk.to_string(), "{id}: a chunk out of turn");
                call.next_chunk += 1;
                call.untaken += 1;
                assert!(call.untaken <= WINDOW, "{id}: more chunks than its owner has room for");
            }
            CallEvent::Done(result) => {
                call.done = true;
                if let Ok(done) = *result {
                    assert_eq!(done.chunks, call.next_chunk, "{id} ended before its chunks had come");
                    serde_json::from_slice::<&serde_json::value::RawValue>(&done.payload).expect("an answer is JSON");
                }
            }
        }
    }

    fn send(&mut self, to: ConnId, what: What, on_full: OnFull) {
        // A dial-back's answer may come after its asker left: the driver looks before it sends.
        let Some(conn) = self.conns.get(&to) else { return };
        let speaker = conn.speaker;
        if self.full.contains(&to) {
            return match on_full {
                OnFull::Drop => self.decide(|s, _, _| s.refuse("outbox_full")),
                OnFull::Close => {
                    self.too_slow.insert(to);
                    self.disconnect(to, Some(elo::CloseReason::TooSlow));
                }
                OnFull::FailCall(id) => self.decide(|s, now, out| s.call_send_failed(&id, now, out)),
                OnFull::Relay(frame) => {
                    self.decide(|s, _, out| s.relay_full(&frame.source, &frame.target, &frame.id, out));
                }
            };
        }
        let object = match what {
            What::Ready(object) => object,
            What::Sign(draft) => self.signed(&draft),
            What::SignRelay(draft, to) => relay(&to.0, &id(ME), 0, &self.signed(&draft)),
            What::Relay { target, source, hops, frame } => relay(&target, &source, hops, &frame),
        };
        assert!(object.raw().len() <= MAX_MESSAGE, "{} bytes", object.raw().len());
        if speaker == Speaker::Proven {
            self.understood(&object);
        }
    }

    /// Signed is what a peer would take. The signature itself is not looked at again: that costs more than the rest.
    fn signed(&mut self, draft: &Draft) -> Object {
        match draft {
            Draft::Query { id, .. } | Draft::Cancel { id } | Draft::ChunkAck { id, .. } => {
                keep(&mut self.ids, id.clone())
            }
            Draft::Task(task) => keep(&mut self.ids, task.id.clone()),
            _ => {}
        }
        let own = self.own.entry(format!("{draft:?}")).or_insert_with(|| draft.sign(key(ME)));
        own.clone()
    }

    /// What goes to a peer is a message that a peer understands.
    fn understood(&mut self, object: &Object) {
        let message = match Message::parse(object) {
            Ok(message) => message,
            Err(error) => panic!("a peer would refuse it: {error}: {}", String::from_utf8_lossy(object.raw())),
        };
        match &message {
            Message::Heartbeat(beat) => self.asks.extend(beat.ask),
            Message::DialBack(ask) => {
                keep(&mut self.ids, ask.id.clone());
                keep(&mut self.nonces, ask.nonce);
            }
            Message::Punch(punch) => keep(&mut self.ids, punch.id.clone()),
            Message::Unknown(kind) => panic!("the node sends a message of no known type: {kind}"),
            _ => {}
        }
        while self.asks.len() > 24 {
            self.asks.pop_front();
        }
        if self.seq.is_multiple_of(8) {
            check(message, Speaker::Proven, &mut Roots::new()).expect("what the node sends is signed by whom it names");
        }
    }

    fn peer_addr(&self, conn: ConnId) -> SocketAddr {
        super::addr(self.conns[&conn].peer)
    }
}

fn dialable(addrs: &[SocketAddr], most: usize) {
    assert!(!addrs.is_empty() && addrs.len() <= most, "{addrs:?}");
    assert!(addrs.iter().all(|a| a.port() != 0 && !a.ip().is_unspecified()), "{addrs:?}");
}
