//! Connections: ordered pipes that delay, fill up, break, and are noticed to be broken sooner or later.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::node::{ephemeral, ip, number};
use super::world::{Ev, N, World, ms, secs};
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::mesh::throttle::Bucket;
use crate::mesh::{Arrival, ConnId, How};
use crate::wire::{Caps, Message, Object, ProbeNonce, Record, Speaker, TrackerRole, draft};

/// What a dial is for, and who is expected.
#[derive(Clone, Debug)]
pub enum Why {
    /// Calls wait for this node.
    Call(NodeId, How),
    /// It is a configured peer.
    Configured(usize),
    /// Both dialled at once.
    Punched,
}

/// A connection: side 0 dialled, side 1 listened.
#[derive(Debug)]
pub struct Link {
    pub ends: [(N, u32); 2],
    /// Which sides have it in their states.
    pub open: [bool; 2],
    /// Whether anything still arrives.
    pub alive: bool,
    /// What is on its way to each side.
    queues: [VecDeque<Bytes>; 2],
    /// How long messages take, if not as long as on others.
    pub delay: Option<Duration>,
    /// Whether one side has given it up without telling the other.
    pub half: bool,
    /// How much each side may send to many.
    floods: [Bucket; 2],
    /// The sides that don't read.
    pub stalled: [bool; 2],
    /// When the last thing on its way to each side arrives: nothing overtakes it.
    last: [Duration; 2],
    why: Why,
    rest: Vec<SocketAddr>,
}

impl Link {
    /// How much is on its way to a side.
    pub fn waiting(&self, side: usize) -> usize {
        self.queues[side].len()
    }
}

/// The number of a side's end of a link.
pub fn conn(link: usize, side: usize) -> ConnId {
    ConnId((link * 2 + side) as u64)
}

impl World {
    fn delay(&mut self) -> Duration {
        let base = self.delay.as_micros() as u64;
        Duration::from_micros(base + self.rng.next_u64() % (base / 2 + 1))
    }

    fn in_order(&mut self, link: usize, side: usize) -> Duration {
        let delay = self.links[link].delay.unwrap_or(Duration::ZERO);
        let delay = if delay.is_zero() { self.delay() } else { delay + delay.mul_f64(self.below(100) as f64 / 1000.0) };
        let at = (self.now + delay).max(self.links[link].last[side]);
        self.links[link].last[side] = at;
        at
    }

    // ---- connecting ------------------------------------------------------------------------------------------

    pub fn dial(&mut self, n: N, addrs: Vec<SocketAddr>, why: Why) {
        self.dials += 1;
        let run = self.nodes[n].run;
        let wait = self.delay();
        self.after(wait, Ev::Connect { n, run, addrs, why });
    }

    /// The dialler's hello reaches the listener, if there is one.
    pub fn connect(&mut self, n: N, run: u32, mut addrs: Vec<SocketAddr>, why: Why) {
        if addrs.is_empty() {
            return self.dial_over(n, &why, Some("nobody listens there"));
        }
        let addr = addrs.remove(0);
        let m = number(addr.ip()).filter(|m| *m < self.nodes.len() && self.nodes[*m].addr(*m) == Some(addr));
        let m = m.filter(|m| *m != n && !self.blocked.contains(&(n, *m)));
        let Some(m) = m else { return self.connect(n, run, addrs, why) };
        if self.are_apart(n, m) {
            // Nobody answers, and nobody refuses.
            let wait = self.nodes[n].spec.limits.connect_timeout;
            return self.after(wait, Ev::Connect { n, run, addrs, why });
        }
        match &why {
            Why::Call(node, _) if *node != self.nodes[m].id => return self.connect(n, run, addrs, why),
            Why::Configured(i) => {
                let known = self.nodes[m].id;
                self.nodes[n].configured[*i].known = Some(known);
            }
            Why::Call(..) | Why::Punched => {}
        }
        self.meet((n, run), m, why, addrs);
    }

    /// Two ends of a stream: the listener lets the dialler in, or not.
    pub fn meet(&mut self, dialler: (N, u32), m: N, why: Why, rest: Vec<SocketAddr>) {
        let link = self.links.len();
        let delay = self.delays.map(|(least, most)| ms(least + self.below((most - least) as usize + 1) as u64));
        let limits = &self.nodes[m].spec.limits;
        self.links.push(Link {
            ends: [dialler, (m, self.nodes[m].run)],
            open: [false, true],
            alive: true,
            half: false,
            delay,
            floods: [0, 1].map(|_| Bucket::new(limits.floods_per_second, limits.flood_burst)),
            queues: Default::default(),
            stalled: [false; 2],
            last: [self.now; 2],
            why,
            rest,
        });
        let arrival = self.arrival(link, 1);
        match self.with(m, |s, now, out| s.connected(conn(link, 1), arrival, now, out)) {
            Ok(records) => {
                self.arrived.push((self.now, m));
                let records = records.iter().map(|o| o.raw().clone()).collect();
                // Nothing sent since overtakes the welcome.
                self.after(self.delay.saturating_sub(Duration::from_micros(1)), Ev::Welcome { link, records });
            }
            Err((reason, _)) => {
                self.links[link].open[1] = false;
                self.dial_refused(link, reason);
            }
        }
    }

    /// The listener's welcome reaches the dialler.
    pub fn welcome(&mut self, link: usize, records: Vec<Bytes>) {
        let (n, _) = self.links[link].ends[0];
        if self.is_apart(link) {
            self.links[link].alive = false;
            self.after(secs(10), Ev::Down { link, side: 1 });
        }
        if !self.links[link].alive {
            let why = self.links[link].why.clone();
            return self.dial_over(n, &why, Some("cut during the handshake"));
        }
        self.links[link].open[0] = true;
        let arrival = self.arrival(link, 0);
        match self.with(n, |s, now, out| s.connected(conn(link, 0), arrival, now, out)) {
            Ok(_) => {
                let why = self.links[link].why.clone();
                self.dial_over(n, &why, None);
                for record in records {
                    let record = Record::parse(&Object::parse(record).unwrap()).unwrap();
                    let from = self.nodes[self.links[link].ends[1].0].id;
                    self.with(n, |s, now, out| s.learned_from_welcome(record, conn(link, 0), from, now, out));
                }
            }
            Err((reason, _)) => {
                self.links[link].open[0] = false;
                self.links[link].alive = false;
                let wait = self.delay();
                self.after(wait, Ev::Down { link, side: 1 });
                self.dial_refused(link, reason);
            }
        }
    }

    /// A tracker brings a nonce to an address: it takes a way there, and as long back.
    pub fn dial_back(&mut self, n: N, conn: ConnId, id: String, addr: SocketAddr, nonce: ProbeNonce) {
        self.dials_back += 1;
        let (wait, run) = (self.delay() * 2, self.nodes[n].run);
        self.after(wait, Ev::DialledBack { n, run, conn, id, addr, nonce });
    }

    pub fn dialled_back(&mut self, n: N, conn: ConnId, id: &str, addr: SocketAddr, nonce: ProbeNonce) {
        let m = (0..self.nodes.len()).find(|m| self.nodes[*m].addr(*m) == Some(addr));
        let done = match m.filter(|m| !self.blocked.contains(&(n, *m))) {
            Some(m) => {
                self.with(m, |s, now, out| s.probed(nonce, now, out));
                Ok(())
            }
            None => Err("nobody answered"),
        };
        self.with(n, |s, _, out| s.dialled_back(conn, id, addr, done, out));
    }

    fn dial_refused(&mut self, link: usize, reason: CloseReason) {
        self.links[link].alive = false;
        let (n, run) = self.links[link].ends[0];
        let (why, rest) = (self.links[link].why.clone(), std::mem::take(&mut self.links[link].rest));
        *self.refusals.entry(reason.as_str()).or_default() += 1;
        if rest.is_empty() || reason == CloseReason::Duplicate {
            let wait = self.delay();
            self.after(wait, Ev::DialOver { n, run, why, problem: reason.as_str() });
        } else {
            self.connect(n, run, rest, why);
        }
    }

    pub fn dial_over(&mut self, n: N, why: &Why, problem: Option<&str>) {
        match (why, problem) {
            (Why::Call(node, _), Some(problem)) => self.with(n, |s, now, out| s.dial_failed(node, problem, now, out)),
            (Why::Call(..), None) | (Why::Punched, _) => {}
            (Why::Configured(i), problem) => {
                let peer = &mut self.nodes[n].configured[*i];
                peer.dialing = false;
                if problem.is_some() {
                    return self.redial_later(n, *i);
                }
                peer.since = Some(self.now);
            }
        }
    }

    fn redial_later(&mut self, n: N, i: usize) {
        let chance = self.rng.next_u64() as f64 / u64::MAX as f64;
        let (now, run) = (self.now, self.nodes[n].run);
        let node = &mut self.nodes[n];
        let peer = &mut node.configured[i];
        if std::mem::replace(&mut peer.waiting, true) {
            return;
        }
        let wait = peer.redial.next(now, &node.spec.limits, chance);
        self.after(wait, Ev::Redial { n, run, i });
    }

    pub fn redial(&mut self, n: N, i: usize) {
        let node = &mut self.nodes[n];
        let known = node.configured[i].known;
        node.configured[i].waiting = false;
        if node.configured[i].dialing {
            return;
        }
        if known.is_some_and(|k| node.state.keep_peer(&k)) {
            node.configured[i].since.get_or_insert(self.now);
            return;
        }
        node.configured[i].dialing = true;
        let addr = node.configured[i].addr;
        self.dial(n, vec![addr], Why::Configured(i));
    }

    fn arrival(&self, link: usize, side: usize) -> Arrival {
        let (me, other) = (self.links[link].ends[side], self.links[link].ends[1 - side]);
        let peer = &self.nodes[other.0];
        let inbound = side == 1;
        let listener = if inbound { me.0 } else { other.0 };
        let listener = std::net::SocketAddr::new(ip(listener), self.nodes[listener].port);
        let dialler = ephemeral(self.links[link].ends[0].0, conn(link, 0));
        let (addr, local) = if inbound { (dialler, listener) } else { (listener, dialler) };
        Arrival {
            node: peer.id,
            speaker: Speaker::Proven,
            addr,
            local,
            inbound,
            encrypted: false,
            how: match (inbound, &self.links[link].why) {
                (_, Why::Punched) => How::PUNCHED,
                (true, _) => How::INBOUND,
                (false, Why::Call(_, how)) => *how,
                (false, Why::Configured(_)) => How::kept(crate::info::Source::Peer),
            },
            instance: Some(format!("{}-{}", other.0, other.1)),
            version: "sim".into(),
            features: peer.spec.features(),
            // The dialler's role is known from its record only.
            tracker: if inbound { TrackerRole::None } else { peer.spec.tracker },
            observed: (!inbound).then_some(local),
            caps: Caps::default(),
        }
    }

    /// A link that anything may arrive over.
    pub fn is_live(&self, link: usize) -> bool {
        self.links[link].alive && self.links[link].open == [true; 2]
    }

    // ---- sending ---------------------------------------------------------------------------------------------

    /// Puts bytes on their way to the other side; `false` when there is no room.
    pub fn push(&mut self, link: usize, to: usize, bytes: Bytes) -> bool {
        let limit = self.nodes[self.links[link].ends[1 - to].0].spec.limits.outbox_messages;
        if self.links[link].queues[to].len() >= limit {
            return false;
        }
        if self.is_apart(link) {
            self.sent_into_cut(link, 1 - to);
            if self.links[link].alive {
                self.links[link].queues[to].push_back(bytes);
            }
            return true;
        }
        if !self.links[link].alive {
            if self.links[link].half {
                let wait = self.delay();
                self.after(wait * 2, Ev::Down { link, side: 1 - to });
            }
            return true; // It looks sent.
        }
        let at = self.in_order(link, to);
        self.links[link].queues[to].push_back(bytes);
        self.at(at, Ev::Deliver { link, side: to });
        true
    }

    pub fn deliver(&mut self, link: usize, side: usize) {
        let apart = self.is_apart(link);
        let l = &mut self.links[link];
        if apart || l.stalled[side] || !l.alive {
            return;
        }
        let Some(bytes) = l.queues[side].pop_front() else { return };
        self.receive(link, side, bytes);
    }

    /// What a reader does with a line.
    pub fn receive(&mut self, link: usize, side: usize, bytes: Bytes) {
        let (n, run) = self.links[link].ends[side];
        if !self.links[link].open[side] || !self.nodes[n].up || self.nodes[n].run != run {
            return;
        }
        let Some(checked) = self.check(&bytes) else {
            self.rejected += 1;
            return;
        };
        let checked = self.opened(n, checked);
        let kind = checked.message().kind().to_owned();
        let flood = matches!(checked.message(), Message::Query(_) | Message::Event(_) | Message::Announce(..));
        if flood && self.links[link].floods[side].take(self.now).is_err() {
            *self.throttled.entry(kind).or_default() += 1;
            return;
        }
        *self.received_bytes.entry(kind.clone()).or_default() += bytes.len() as u64 + 1;
        *self.received.entry(kind).or_default() += 1;
        self.received_by[n] += 1;
        let bye = matches!(checked.message(), Message::Bye(..));
        self.with(n, |s, now, out| s.handle(conn(link, side), checked, now, out));
        if bye {
            self.down(link, side, None);
        }
    }

    // ---- ending ----------------------------------------------------------------------------------------------

    /// One side closes: what it sent before arrives, and why.
    pub fn close(&mut self, link: usize, side: usize, reason: CloseReason, message: &str) {
        if !self.links[link].open[side] {
            return;
        }
        if self.is_apart(link) {
            (self.links[link].alive, self.links[link].half) = (false, true);
            return self.down(link, side, Some(reason));
        }
        self.push(link, 1 - side, draft::bye(reason, message).raw().clone());
        let at = self.in_order(link, 1 - side);
        self.at(at, Ev::Down { link, side: 1 - side });
        self.down(link, side, Some(reason));
    }

    /// One side notices that the connection is over.
    pub fn down(&mut self, link: usize, side: usize, reason: Option<CloseReason>) {
        let (n, run) = self.links[link].ends[side];
        if !std::mem::take(&mut self.links[link].open[side]) || !self.nodes[n].up || self.nodes[n].run != run {
            return;
        }
        self.with(n, |s, now, out| s.disconnected(conn(link, side), reason, now, out));
        let now = self.now;
        for i in 0..self.nodes[n].configured.len() {
            let node = &mut self.nodes[n];
            let peer = &mut node.configured[i];
            if peer.known.is_some_and(|k| node.state.is_connected(&k)) {
                continue;
            }
            if let Some(since) = peer.since.take() {
                peer.redial.lost(now - since, now, &node.spec.limits);
            }
            if !peer.dialing {
                self.redial_later(n, i);
            }
        }
    }

    /// Breaks a connection: what is on its way is lost. Each side notices after its time.
    pub fn cut(&mut self, link: usize, notice: [Duration; 2]) {
        self.links[link].alive = false;
        for (side, wait) in notice.into_iter().enumerate() {
            self.after(wait, Ev::Down { link, side });
        }
    }

    /// A side reads no more, or reads again.
    pub fn stall(&mut self, link: usize, side: usize, stalled: bool) {
        self.links[link].stalled[side] = stalled;
        if !stalled {
            for _ in 0..self.links[link].queues[side].len() {
                self.at(self.now, Ev::Deliver { link, side });
            }
        }
    }

    /// The live link between two nodes, and the first one's side of it.
    pub fn link(&self, a: N, b: N) -> Option<(usize, usize)> {
        let between =
            |l: &Link, x: usize, y: usize| l.alive && l.open == [true; 2] && (l.ends[x].0, l.ends[y].0) == (a, b);
        self.links.iter().enumerate().rev().find_map(|(i, l)| match () {
            () if between(l, 0, 1) => Some((i, 0)),
            () if between(l, 1, 0) => Some((i, 1)),
            () => None,
        })
    }

    /// How many live connections there are between two nodes.
    pub fn links_between(&self, a: N, b: N) -> usize {
        let ends = |l: &Link| [l.ends[0].0, l.ends[1].0];
        let between = |l: &&Link| l.alive && l.open == [true; 2] && (ends(l) == [a, b] || ends(l) == [b, a]);
        self.links.iter().filter(between).count()
    }

    // ---- restarting ------------------------------------------------------------------------------------------

    /// The process dies; its peers notice at once or, like after a power cut, late.
    pub fn kill(&mut self, n: N, noticed: bool) {
        self.nodes[n].up = false;
        self.nodes[n].calls.clear();
        for link in 0..self.links.len() {
            let run = self.nodes[n].run;
            let Some(side) = self.links[link].ends.iter().position(|e| *e == (n, run)) else { continue };
            if self.links[link].alive || self.links[link].open[1 - side] {
                self.links[link].alive = false;
                let wait = if noticed { self.delay() } else { secs(90) };
                self.after(wait, Ev::Down { link, side: 1 - side });
            }
        }
    }

    /// It comes up again with the same key.
    pub fn revive(&mut self, n: N, port: u16) {
        self.nodes[n].restart(n, port, self.now);
        self.start(n);
    }
}
