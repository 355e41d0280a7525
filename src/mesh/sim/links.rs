//! Connections: ordered pipes that delay, fill up, break, and are noticed to be broken sooner or later.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use super::node::{ephemeral, ip};
use super::world::{Ev, N, World, ms, secs};
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::mesh::{Arrival, ConnId, How};
use crate::node::TrackerRole;
use crate::wire::{Caps, Message, Object, ProbeNonce, Speaker, draft};

/// What a dial is for, and who is expected.
#[derive(Clone, Debug)]
pub enum Why {
    /// Calls wait for this node.
    Call(NodeId, How),
    /// It is a configured peer.
    Configured(usize),
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
    /// The sides that don't read.
    pub stalled: [bool; 2],
    /// When the last thing on its way to each side arrives: nothing overtakes it.
    last: [Duration; 2],
    why: Why,
    rest: Vec<SocketAddr>,
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
        let at = (self.now + self.delay()).max(self.links[link].last[side]);
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
        let m = (0..self.nodes.len()).find(|m| self.nodes[*m].addr(*m) == Some(addr));
        let m = m.filter(|m| *m != n && !self.blocked.contains(&(n, *m)));
        let Some(m) = m else { return self.connect(n, run, addrs, why) };
        match &why {
            Why::Call(node, _) if *node != self.nodes[m].id => return self.connect(n, run, addrs, why),
            Why::Configured(i) => {
                let known = self.nodes[m].id;
                self.nodes[n].configured[*i].known = Some(known);
            }
            Why::Call(..) => {}
        }
        let link = self.links.len();
        self.links.push(Link {
            ends: [(n, run), (m, self.nodes[m].run)],
            open: [false, true],
            alive: true,
            queues: Default::default(),
            stalled: [false; 2],
            last: [self.now; 2],
            why,
            rest: addrs,
        });
        let arrival = self.arrival(link, 1);
        match self.with(m, |s, now, out| s.connected(conn(link, 1), arrival, now, out)) {
            Ok(records) => {
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
                    let record = Object::parse(record).unwrap();
                    self.receive(link, 0, draft::announce(&record, 1).raw().clone());
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
            (Why::Call(..), None) => {}
            (Why::Configured(i), problem) => {
                let (least, most) = (self.nodes[n].spec.limits.redial_min, self.nodes[n].spec.limits.redial_max);
                let peer = &mut self.nodes[n].configured[*i];
                peer.dialing = false;
                if problem.is_none() {
                    peer.backoff = least;
                    return;
                }
                peer.backoff = (peer.backoff * 2).min(most);
                self.redial_later(n, *i);
            }
        }
    }

    fn redial_later(&mut self, n: N, i: usize) {
        let backoff = self.nodes[n].configured[i].backoff.as_millis() as u64;
        let wait = backoff / 2 + self.rng.next_u64() % (backoff / 2 + 1);
        let run = self.nodes[n].run;
        self.after(ms(wait), Ev::Redial { n, run, i });
    }

    pub fn redial(&mut self, n: N, i: usize) {
        let node = &mut self.nodes[n];
        let known = node.configured[i].known;
        if node.configured[i].dialing || known.is_some_and(|k| node.state.keep_peer(&k)) {
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
            how: match (inbound, &self.links[link].why) {
                (true, _) => How::INBOUND,
                (false, Why::Call(_, how)) => *how,
                (false, Why::Configured(_)) => How::kept(crate::node::Source::Peer),
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

    // ---- sending ---------------------------------------------------------------------------------------------

    /// Puts bytes on their way to the other side; `false` when there is no room.
    pub fn push(&mut self, link: usize, to: usize, bytes: Bytes) -> bool {
        let limit = self.nodes[self.links[link].ends[1 - to].0].spec.limits.outbox_messages;
        if self.links[link].queues[to].len() >= limit {
            return false;
        }
        if !self.links[link].alive {
            return true; // It looks sent.
        }
        let at = self.in_order(link, to);
        self.links[link].queues[to].push_back(bytes);
        self.at(at, Ev::Deliver { link, side: to });
        true
    }

    pub fn deliver(&mut self, link: usize, side: usize) {
        let l = &mut self.links[link];
        if l.stalled[side] || !l.alive {
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
        let kind = checked.message().kind().to_owned();
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
        for i in 0..self.nodes[n].configured.len() {
            self.redial_later(n, i);
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
