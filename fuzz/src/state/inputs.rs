//! Events: what peers, the network, the clock and the owner may do next.

use std::net::SocketAddr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use elo::fuzzing::{Arrival, CallSpec, ChunkRefused, ConnId, How, Purpose, ROLES, Scope, Source, TaskId};
use elo::wire::{Caps, Compact, Message, Object, Roots, Speaker, WireError, check};
use elo::{Capability, CloseReason, ErrorCode};

use super::super::keys::{KEYS, id, key};
use super::{CONNS, Call, Conn, ME, World, addr, keep};

/// What is asked for and provided.
pub(super) const NAMES: [&str; 6] = ["echo", "quiet", "other", "ping", "relay", "e*"];

const REASONS: [CloseReason; 5] =
    [CloseReason::Shutdown, CloseReason::Idle, CloseReason::Duplicate, CloseReason::TooSlow, CloseReason::NotAllowed];

impl World {
    pub(super) fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        self.seq += 1;
        // Messages are half of what happens, and the message is what there is most to choose of.
        match u.int_in_range(0..=31)? {
            0..=10 => self.message_comes(u),
            11 => self.whole_task(u),
            12 | 13 => self.replayed(u),
            14..=16 => self.connect(u),
            17 => self.someone_leaves(u),
            18 | 19 => self.time(u),
            20 | 21 => self.call(u),
            22 => self.finish(u),
            23 => self.chunk(u),
            24 => self.take_chunks(u),
            25 => self.dial_ends(u),
            26 | 27 => self.dht_says(u),
            28 => self.owner(u),
            29 => self.reached(u),
            30 => self.garbage(u),
            _ => {
                let conn = self.a_conn(u)?;
                if !self.full.remove(&conn) {
                    self.full.insert(conn);
                }
                Ok(())
            }
        }
    }

    pub(super) fn a_conn(&self, u: &mut Unstructured<'_>) -> Result<ConnId> {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        u.choose(&conns).copied()
    }

    pub(super) fn an_id(&self, u: &mut Unstructured<'_>) -> Result<String> {
        const IDS: [&str; 4] = ["t0", "t1", "t2", "t3"];
        let n = usize::from(u.arbitrary::<u8>()?);
        let known = &self.ids;
        Ok(if n % 2 == 0 || known.is_empty() { IDS[n / 2 % 4].into() } else { known[n / 2 % known.len()].clone() })
    }

    // ---- the network -----------------------------------------------------------------------------------------

    fn connect(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.conns.len() >= CONNS {
            return Ok(());
        }
        let (peer, bits): (u8, u8) = u.arbitrary()?;
        let dialled = self.dialling.get(usize::from(peer) % (self.dialling.len() + 1)).copied();
        let dialled = dialled.and_then(|node| (1..KEYS).find(|n| id(*n) == node));
        let legacy = dialled.is_none() && bits & 7 == 0;
        let peer = dialled.unwrap_or(usize::from(peer) % KEYS);
        let inbound = dialled.is_none() && bits & 8 == 0;
        let how = match (dialled, inbound) {
            (Some(_), _) => How::for_calls(Source::Tracker),
            (None, true) => How::INBOUND,
            (None, false) if bits & 128 == 0 => How::kept(Source::Peer),
            (None, false) => How::PUNCHED,
        };
        let arrival = Arrival {
            node: id(peer),
            speaker: if legacy { Speaker::Legacy(id(peer)) } else { Speaker::Proven },
            addr: if bits & 16 == 0 { addr(peer) } else { SocketAddr::new(addr(peer).ip(), 40_000) },
            local: addr(ME),
            inbound,
            how,
            instance: (bits & 32 == 0).then(|| format!("run{}", bits >> 6)),
            version: "fuzz".into(),
            features: if bits & 64 == 0 { vec!["punch".into(), "dialback".into()] } else { Vec::new() },
            tracker: ROLES[usize::from(bits >> 4) % 3],
            encrypted: bits & 3 == 3,
            observed: (!inbound).then(|| addr(ME)),
            caps: Caps::default(),
        };
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        // Its driver's entry is there before the state hears of it.
        self.conns.insert(conn, Conn { peer, speaker: arrival.speaker, open: true });
        let unknown = self.unknown.iter().position(|(_, a)| !inbound && *a == arrival.addr);
        let node = arrival.node;
        let taken = self.decide(|s, now, out| s.connected(conn, arrival, now, out)).is_ok();
        self.dialling.retain(|n| inbound || *n != node);
        self.punching.retain(|n| *n != node || !matches!(how, How { punched: true, .. }));
        if !taken {
            self.conns.remove(&conn);
            if dialled.is_some() {
                self.decide(|s, now, out| s.dial_failed(&node, "refused", now, out));
            }
        }
        if let Some(at) = unknown {
            let (lookup, addr) = self.unknown.remove(at);
            self.decide(|s, now, out| s.candidate_over(lookup, addr, taken, now, out));
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, conn: ConnId, reason: Option<CloseReason>) {
        self.decide(|s, now, out| s.disconnected(conn, reason, now, out));
        self.conns.remove(&conn);
        self.full.remove(&conn);
    }

    fn someone_leaves(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let conn = self.a_conn(u)?;
        let reason = if u.arbitrary()? { Some(*u.choose(&REASONS)?) } else { None };
        self.disconnect(conn, reason);
        Ok(())
    }

    fn message_comes(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let conn = self.a_conn(u)?;
        let bits: u8 = u.arbitrary()?;
        // As a rule a peer speaks for itself.
        let author = if bits & 7 == 7 { u.int_in_range(1..=KEYS - 1)? } else { self.conns[&conn].peer };
        let mut object = self.message(author, u)?;
        let is_signed = object.get("signature").is_some();
        keep(&mut self.wire, (author, object.clone()));
        if bits & 0xf8 == 0xf8 && is_signed {
            // Somebody changed something. The signature says so.
            let member =
                *u.choose(&["id", "caller", "target", "payload", "timestamp", "responder", "origin", "data"])?;
            let value: &[u8] = if u.arbitrary()? { b"\"changed\"" } else { b"1" };
            let was = object.get(member).map(<[u8]>::to_vec);
            object = object.with_member(member, value);
            if was.as_deref() != Some(value)
                && let Ok(message) = Message::parse(&object)
            {
                assert!(check(message, Speaker::Proven, &mut Roots::new()).is_err(), "changed, and believed");
            }
        }
        self.brought(conn, &object);
        Ok(())
    }

    /// A task comes, is answered (with much, so that the answer is soon forgotten, or little), and comes again.
    fn whole_task(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let conn = self.a_conn(u)?;
        let (author, bits) = (self.conns[&conn].peer, u.arbitrary::<u8>()?);
        let task = self.good_task(["t0", "t1", "t2", "t3"][usize::from(bits & 3)]).sign(key(author));
        keep(&mut self.wire, (author, task.clone()));
        self.brought(conn, &task);
        let name = (id(author), TaskId::from(["t0", "t1", "t2", "t3"][usize::from(bits & 3)]));
        if bits & 4 == 0 && self.jobs.remove(&name).is_some() {
            let body = format!("\"{}\"", "x".repeat(usize::from(bits)));
            self.decide(|s, now, out| s.finish_task(&name, Ok(body.into()), now, out));
        }
        if bits & 8 == 0 {
            self.brought(conn, &task);
        }
        Ok(())
    }

    /// What was on the wire before comes again, from whomever.
    fn replayed(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let at = usize::from(u.arbitrary::<u8>()?) % self.wire.len().max(1);
        let Some((author, object)) = self.wire.get(at).cloned() else { return Ok(()) };
        // As a rule from its author, who may have it sent again.
        let own = self.conns.iter().find(|(_, conn)| conn.peer == author).map(|(conn, _)| *conn);
        let conn = match own {
            Some(conn) if u.int_in_range(0..=3)? > 0 => conn,
            _ => self.a_conn(u)?,
        };
        self.brought(conn, &object);
        Ok(())
    }

    fn garbage(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let conn = self.a_conn(u)?;
        let length = usize::from(u.arbitrary::<u8>()?).min(u.len());
        if let Ok(object) = Object::parse(bytes::Bytes::copy_from_slice(u.bytes(length)?)) {
            self.brought(conn, &object);
        }
        Ok(())
    }

    /// What a connection's reader does with a line.
    fn brought(&mut self, conn: ConnId, object: &Object) {
        let Some(Conn { speaker, open, .. }) = self.conns.get(&conn) else { return };
        let (speaker, open) = (*speaker, *open);
        let message = match Message::parse(object) {
            Ok(message) => message,
            Err(error) => {
                if let (Some(id), true) = (error.id, open) {
                    self.decide(|s, _, out| s.refuse_task(conn, &id, ErrorCode::BadRequest, error.why, None, out));
                }
                return;
            }
        };
        let bye = matches!(message, Message::Bye(..));
        let Ok(checked) = check(message, speaker, &mut Roots::new()) else { return };
        self.decide(|s, now, out| s.handle(conn, checked, now, out));
        if bye {
            self.disconnect(conn, None);
        }
    }

    fn dial_ends(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n = usize::from(u.arbitrary::<u8>()?);
        match n % 4 {
            0 if !self.dialling.is_empty() => {
                let node = self.dialling.remove(n / 4 % self.dialling.len());
                self.decide(|s, now, out| s.dial_failed(&node, "nobody listens there", now, out));
            }
            1 if !self.punching.is_empty() => {
                let node = self.punching.remove(n / 4 % self.punching.len());
                self.decide(|s, now, _| s.punch_failed(&node, "no luck", now));
            }
            2 if !self.dialling_back.is_empty() => {
                let (conn, id, addr) = self.dialling_back.remove(n / 4 % self.dialling_back.len());
                let done = if n & 128 == 0 { Ok(()) } else { Err("nobody answered") };
                self.decide(|s, _, out| s.dialled_back(conn, &id, addr, done, out));
            }
            3 if !self.unknown.is_empty() => {
                let (lookup, addr) = self.unknown.remove(n / 4 % self.unknown.len());
                self.decide(|s, now, out| s.candidate_over(lookup, addr, n & 128 == 0, now, out));
            }
            _ => {}
        }
        Ok(())
    }

    fn dht_says(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n = usize::from(u.arbitrary::<u8>()?);
        let Some((lookup, what)) = self.asking.iter().nth(n / 8 % self.asking.len().max(1)).cloned() else {
            return Ok(());
        };
        let scope = [Scope::Host, Scope::Network, Scope::Public][n % 3];
        match n % 4 {
            0 => {
                self.asking.remove(&(lookup, what.clone()));
                self.decide(|s, now, out| s.dht_over(lookup, &what, Some("nothing".into()), now, out));
            }
            1 | 2 => {
                let addrs: Vec<SocketAddr> = (0..u.int_in_range(0..=5)?).map(|_| an_addr(u)).collect::<Result<_>>()?;
                self.decide(|s, now, out| s.dht_addrs(lookup, &addrs, scope, now, out));
            }
            _ => {
                let node = id(u.int_in_range(1..=KEYS - 1)?);
                let seq = self.now.unix_ms.saturating_add_signed(i64::from(u.arbitrary::<i16>()?) * 100);
                let record = Compact {
                    name: "dht".into(),
                    addrs: vec![an_addr(u)?],
                    trackers: vec![(id(u.int_in_range(0..=KEYS - 1)?), Some(an_addr(u)?))],
                    tracker: ROLES[n / 8 % 3],
                    seq,
                    ttl_s: u.int_in_range(1..=3600)?,
                };
                self.decide(|s, now, out| s.dht_record(lookup, node, record, scope, now, out));
            }
        }
        Ok(())
    }

    /// What is known of how this node can be reached.
    fn reached(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n = usize::from(u.arbitrary::<u8>()?);
        match n % 4 {
            0 | 1 => {
                if let Some(nonce) = self.nonces.get(n / 4 % self.nonces.len().max(1)).copied() {
                    self.decide(|s, now, out| s.probed(nonce, now, out));
                }
            }
            2 => {
                let mapped = if n & 4 == 0 { Some(an_addr(u)?) } else { None };
                self.decide(|s, now, out| s.mapped(mapped, now, out));
            }
            _ => {
                let port = (n & 4 == 0).then_some(6881);
                self.decide(|s, now, out| s.set_dht_port(port, now, out));
                let ip = an_addr(u)?.ip();
                self.decide(|s, now, out| s.learn_local_ip(ip, now, out));
            }
        }
        let _ = (self.state.publication(), self.state.dht_contacts(), self.state.reachability());
        Ok(())
    }

    // ---- time ------------------------------------------------------------------------------------------------

    fn time(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n: u8 = u.arbitrary()?;
        let amount = u64::from(n >> 3);
        match n % 8 {
            0 | 1 => self.pass(Duration::from_millis(amount * 20)),
            2 | 3 => self.pass(Duration::from_millis(amount * 997)),
            4 => self.pass(Duration::from_secs(amount * 30)),
            5 => {
                // A suspended machine: everything that was due is due at once.
                self.set_mono(self.now.mono + Duration::from_secs(amount * 600));
                self.pass(Duration::ZERO);
            }
            6 => self.now.unix_ms += amount * amount * 10_000,
            _ => {
                self.now.unix_ms = self.now.unix_ms.saturating_sub(amount * amount * 10_000);
                self.set_back = true;
            }
        }
        // An alarm may ring early, or for nothing.
        self.decide(|s, now, out| s.tick(now, out));
        Ok(())
    }

    // ---- the owner -------------------------------------------------------------------------------------------

    fn call(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let [what, whom, how]: [u8; 3] = u.arbitrary()?;
        let target = match whom % 4 {
            0 | 1 => None,
            2 => Some(id(usize::from(whom / 4)).to_string()),
            _ => Some(id(usize::from(whom / 4)).to_string()[..usize::from(how % 8)].to_owned()),
        };
        let call = self.state.new_id();
        let timeout = Duration::from_millis([1, 50, 3000, 60_000][usize::from(how % 4)]);
        let spec = CallSpec {
            id: TaskId::from(&call),
            capability: NAMES[usize::from(what) % NAMES.len()].into(),
            payload: "1".into(),
            target,
            via: (how & 16 != 0).then(|| id(usize::from(how >> 5)).to_string()),
            timeout,
            wait: Duration::ZERO,
            local: how & 8 != 0,
            once: how & 4 != 0,
            except: (what & 128 != 0).then(|| id(usize::from(what >> 3))),
        };
        let deadline = self.now.mono + timeout;
        self.calls.retain(|_, call| !call.done);
        self.calls.insert(TaskId::from(&call), Call { deadline, next_chunk: 0, untaken: 0, done: false });
        keep(&mut self.ids, call);
        self.decide(|s, now, out| s.start_call(spec, now, out));
        Ok(())
    }

    fn take_chunks(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n = usize::from(u.arbitrary::<u8>()?);
        let live: Vec<TaskId> = self.calls.iter().filter(|(_, c)| !c.done).map(|(id, _)| id.clone()).collect();
        let Some(call) = live.get(n / 4 % live.len().max(1)).cloned() else { return Ok(()) };
        if n % 4 == 0 {
            self.decide(|s, now, out| s.cancel_call(&call, now, out));
            return Ok(());
        }
        let taken = self.calls.get_mut(&call).map_or(0, |c| std::mem::take(&mut c.untaken));
        if taken > 0 {
            self.decide(|s, _, out| s.chunks_taken(&call, taken, out));
        }
        Ok(())
    }

    fn finish(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n = usize::from(u.arbitrary::<u8>()?);
        let Some(key) = self.jobs.keys().nth(n / 4 % self.jobs.len().max(1)).cloned() else { return Ok(()) };
        self.jobs.remove(&key);
        let body = match n % 4 {
            0 => Err(WireError::new(ErrorCode::HandlerError, "it failed")),
            1 => Err(WireError::new(ErrorCode::Overloaded, "not now").not_run().retry_after_s(1)),
            _ => Ok(format!("\"{}\"", "x".repeat(n)).into()),
        };
        self.decide(|s, now, out| s.finish_task(&key, body, now, out));
        Ok(())
    }

    fn chunk(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n = usize::from(u.arbitrary::<u8>()?);
        let Some(key) = self.jobs.keys().nth(n / 2 % self.jobs.len().max(1)).cloned() else { return Ok(()) };
        for _ in 0..=n % 40 {
            let Some(job) = self.jobs.get_mut(&key) else { return Ok(()) };
            let data = job.chunks.to_string();
            let (local, stopped) = (job.local, job.stopped);
            match self.decide(|s, now, out| s.chunk(&key, data.into(), now, out)) {
                Ok(()) => {
                    if let Some(job) = self.jobs.get_mut(&key) {
                        job.chunks += 1;
                    }
                }
                Err(ChunkRefused::Full) => return Ok(()),
                Err(ChunkRefused::Over) => {
                    assert!(stopped || local, "a task that nobody ended is over");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn owner(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let [what, which]: [u8; 2] = u.arbitrary()?;
        let name = NAMES[usize::from(which) % NAMES.len()];
        match what % 10 {
            0 => drop(self.decide(|s, now, out| s.register(Capability::tool(name), now, out))),
            1 => drop(self.decide(|s, now, out| s.unregister(name, now, out))),
            2 => drop(self.decide(|s, now, out| s.add_interest(name, now, out))),
            3 => drop(self.decide(|s, now, out| s.remove_interest(name, now, out))),
            4 => {
                let event = self.state.new_id();
                self.decide(|s, now, out| s.publish(event, name, "1".into(), now, out));
            }
            5 | 6 => {
                let find = self.state.new_id();
                self.finds.insert(find.clone(), false);
                keep(&mut self.ids, find.clone());
                let wait = Duration::from_secs(2);
                self.decide(|s, now, out| {
                    s.ask_mesh(find.clone(), Purpose::Find, name, "", 8, now.mono + wait, now, out);
                });
                if what & 16 == 0 && self.finds.get(&find) == Some(&false) {
                    self.decide(|s, now, out| s.find_in_dht(&find, name, now, out));
                }
            }
            7 => {
                // Whoever searched has enough.
                let live = self.finds.iter().find(|(_, over)| !**over).map(|(find, _)| find.clone());
                if let Some(find) = live {
                    self.decide(|s, _, out| s.stop_find(&find, out));
                    self.state.stop_query(&find);
                    self.finds.insert(find, true);
                }
            }
            8 => {
                let _ = self.state.keep_peer(&id(usize::from(which)));
                self.decide(|s, now, out| s.publish_record(now, out));
            }
            _ if what & 0xf0 == 0xf0 => self.decide(|s, now, out| s.abandon_tasks(now, out)),
            _ => self.decide(|s, now, out| s.flush_record(now, out)),
        }
        Ok(())
    }
}

/// An address of one of the peers, or of nobody, or one that must not be dialled.
pub(super) fn an_addr(u: &mut Unstructured<'_>) -> Result<SocketAddr> {
    let n = usize::from(u.arbitrary::<u8>()?);
    Ok(match n {
        0..=239 => addr(n % (2 * KEYS)),
        240..=243 => SocketAddr::from(([127, 0, 0, 1], 7000)),
        244..=247 => SocketAddr::from(([169, 254, 169, 254], 80)),
        248..=251 => SocketAddr::from(([0, 0, 0, 0], 0)),
        _ => SocketAddr::from(([0xfe80, 0, 0, 0, 0, 0, 0, 1], 1)),
    })
}
