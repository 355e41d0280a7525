//! The world: a clock, a queue of what happens next, and what tests ask for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::ledger::Ledger;
use super::links::{Link, Why};
use super::node::{Configured, Node, OwnCall, Spec, ip};
use super::parting::Parting;
use super::punch::Hole;
use super::work::Plan;
use crate::error::CallError;
use crate::identity::NodeId;
use crate::mesh::redial::Redial;
use crate::mesh::{CallDone, CallSpec, ConnId, Purpose, TaskId, TaskKey};
use crate::wire::{Capability, Checked, ProbeNonce};

/// A node's number.
pub type N = usize;

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Something that happens.
#[derive(Debug)]
pub enum Ev {
    Tick {
        n: N,
        run: u32,
    },
    Connect {
        n: N,
        run: u32,
        addrs: Vec<SocketAddr>,
        why: Why,
    },
    Welcome {
        link: usize,
        records: Vec<Bytes>,
    },
    /// A side begins to punch.
    Punch {
        hole: usize,
    },
    /// A side gives it up.
    PunchOver {
        hole: usize,
    },
    DialOver {
        n: N,
        run: u32,
        why: Why,
        problem: &'static str,
    },
    DialledBack {
        n: N,
        run: u32,
        conn: ConnId,
        id: String,
        addr: SocketAddr,
        nonce: ProbeNonce,
    },
    Redial {
        n: N,
        run: u32,
        i: usize,
    },
    Deliver {
        link: usize,
        side: usize,
    },
    /// Bytes that come out of turn.
    Inject {
        link: usize,
        side: usize,
        bytes: Bytes,
    },
    Down {
        link: usize,
        side: usize,
    },
    Work {
        n: N,
        run: u32,
        key: TaskKey,
    },
    Cancel {
        n: N,
        run: u32,
        id: TaskId,
    },
    Revive {
        n: N,
        port: u16,
    },
    /// A connection whose network is cut says that it lives.
    Beat {
        link: usize,
        side: usize,
    },
    /// What a side sent is not acknowledged.
    Unacked {
        link: usize,
        side: usize,
    },
    /// What was lost in a cut is sent again.
    Resent {
        link: usize,
        side: usize,
    },
}

struct Next(Duration, u64, Ev);

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Next {}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    pub at: Duration,
    pub result: Result<CallDone, CallError>,
}

/// What trackers do to the frames they pass on, by chance.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Lost without a word.
    pub relay_loss: f64,
    /// Lost because an outbox is full.
    pub relay_full: f64,
    /// Passed on twice.
    pub relay_twice: f64,
    /// Overtaken by others.
    pub relay_late: f64,
}

pub struct World {
    pub seed: u64,
    pub now: Duration,
    pub rng: StdRng,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    queue: BinaryHeap<Reverse<Next>>,
    order: u64,
    /// How long messages take, at least; at most half as long again.
    pub delay: Duration,
    /// How long they take over each link, in milliseconds, if not all are alike.
    pub delays: Option<(u64, u64)>,
    pub faults: Faults,
    /// Who can't dial whom.
    pub blocked: HashSet<(N, N)>,
    /// Whose NAT gives every connection a port of its own.
    pub symmetric: HashSet<N>,
    pub holes: Vec<Hole>,
    pub parting: Parting,
    /// Who was connected to, and when.
    pub arrived: Vec<(Duration, N)>,
    /// What peers sent beyond their rate, by type.
    pub throttled: BTreeMap<String, u64>,
    pub ledger: Ledger,
    pub checked: HashMap<Bytes, Option<Checked>>,
    pub received: BTreeMap<String, u64>,
    /// Their bytes, line ends included.
    pub received_bytes: BTreeMap<String, u64>,
    pub received_by: Vec<u64>,
    pub rejected: u64,
    pub lost: u64,
    /// What was sent through trackers sealed, and what was not.
    pub sealed: u64,
    pub unsealed: u64,
    pub dials: u64,
    pub dials_back: u64,
    pub refusals: BTreeMap<&'static str, u64>,
    pub tasks_received: u64,
    asked: u64,
    /// How many things have happened.
    pub ticks: u64,
}

/// A call to be made.
#[derive(Clone, Debug)]
pub struct Ask {
    pub capability: String,
    pub plan: Plan,
    pub to: Option<String>,
    pub via: Option<String>,
    pub timeout: Duration,
    pub local: bool,
    pub takes: bool,
}

impl Ask {
    pub fn new(capability: &str) -> Self {
        let plan = Plan::default();
        let capability = capability.to_owned();
        Self { capability, plan, to: None, via: None, timeout: secs(60), local: false, takes: true }
    }

    pub fn plan(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    pub fn to(mut self, node: impl ToString) -> Self {
        self.to = Some(node.to_string());
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            now: secs(1),
            rng: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            links: Vec::new(),
            queue: BinaryHeap::new(),
            order: 0,
            delay: ms(10),
            delays: None,
            faults: Faults::default(),
            blocked: HashSet::new(),
            symmetric: HashSet::new(),
            holes: Vec::new(),
            parting: Parting::default(),
            arrived: Vec::new(),
            throttled: BTreeMap::new(),
            ledger: Ledger::default(),
            checked: HashMap::new(),
            received: BTreeMap::new(),
            received_bytes: BTreeMap::new(),
            received_by: Vec::new(),
            rejected: 0,
            lost: 0,
            sealed: 0,
            unsealed: 0,
            dials: 0,
            dials_back: 0,
            refusals: BTreeMap::new(),
            tasks_received: 0,
            asked: 0,
            ticks: 0,
        }
    }

    // ---- the clock -------------------------------------------------------------------------------------------

    pub fn at(&mut self, at: Duration, ev: Ev) {
        self.order += 1;
        self.queue.push(Reverse(Next(at.max(self.now), self.order, ev)));
    }

    pub fn after(&mut self, wait: Duration, ev: Ev) {
        self.at(self.now + wait, ev);
    }

    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && (self.rng.next_u64() as f64) < p * u64::MAX as f64
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() % n.max(1) as u64) as usize
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        self.run_while(until, |_| true);
        self.now = until;
    }

    /// Lets time pass until something holds; fails when it doesn't in time.
    pub fn until(&mut self, most: Duration, what: &str, holds: impl Fn(&Self) -> bool) {
        let until = self.now + most;
        self.run_while(until, |w| !holds(w));
        assert!(holds(self), "seed {}: not within {most:?}: {what}", self.seed);
    }

    fn run_while(&mut self, until: Duration, on: impl Fn(&Self) -> bool) {
        while on(self) && self.queue.peek().is_some_and(|Reverse(next)| next.0 <= until) {
            let Some(Reverse(Next(at, _, ev))) = self.queue.pop() else { return };
            self.now = at;
            self.ticks += 1;
            self.happen(ev);
        }
    }

    fn happen(&mut self, ev: Ev) {
        let live = |w: &Self, n: N, run: u32| w.nodes[n].up && w.nodes[n].run == run;
        match ev {
            Ev::Tick { n, run } if live(self, n, run) => {
                self.nodes[n].armed = None;
                self.with(n, |s, now, out| s.tick(now, out));
            }
            Ev::Connect { n, run, addrs, why } if live(self, n, run) => self.connect(n, run, addrs, why),
            Ev::Welcome { link, records } => {
                let (n, run) = self.links[link].ends[0];
                if live(self, n, run) {
                    self.welcome(link, records);
                }
            }
            Ev::DialOver { n, run, why, problem } if live(self, n, run) => self.dial_over(n, &why, Some(problem)),
            Ev::DialledBack { n, run, conn, id, addr, nonce } if live(self, n, run) => {
                self.dialled_back(n, conn, &id, addr, nonce);
            }
            Ev::Punch { hole } => self.punch_begins(hole),
            Ev::PunchOver { hole } => self.punch_over(hole),
            Ev::Redial { n, run, i } if live(self, n, run) => self.redial(n, i),
            Ev::Work { n, run, key } if live(self, n, run) => self.work(n, key),
            Ev::Cancel { n, run, id } if live(self, n, run) => {
                self.with(n, |s, now, out| s.cancel_call(&id, now, out));
            }
            Ev::Revive { n, port } => self.revive(n, port),
            Ev::Beat { link, side } => self.beat(link, side),
            Ev::Unacked { link, side } => self.unacked(link, side),
            Ev::Resent { link, side } => self.resent(link, side),
            Ev::Deliver { link, side } => self.deliver(link, side),
            Ev::Inject { link, side, bytes } if self.links[link].alive => self.receive(link, side, bytes),
            Ev::Down { link, side } => self.down(link, side, None),
            _ => {} // Of a run, or a connection, that is gone.
        }
    }

    // ---- what tests do ---------------------------------------------------------------------------------------

    pub fn add(&mut self, spec: Spec) -> N {
        let n = self.nodes.len();
        self.nodes.push(Node::new(n, spec, self.now));
        self.received_by.push(0);
        self.start(n);
        n
    }

    pub fn start(&mut self, n: N) {
        let spec = self.nodes[n].spec.clone();
        self.with(n, |s, now, out| {
            for cap in &spec.caps {
                assert!(s.register(Capability::agent(cap), now, out));
            }
            for interest in &spec.interests {
                assert!(s.add_interest(interest, now, out));
            }
            s.flush_record(now, out);
        });
        let run = self.nodes[n].run;
        for i in 0..self.nodes[n].configured.len() {
            self.nodes[n].configured[i].waiting = true;
            self.after(ms(0), Ev::Redial { n, run, i });
        }
    }

    /// Makes `b` a configured peer of `a`.
    pub fn join(&mut self, a: N, b: N) {
        let addr = SocketAddr::new(ip(b), self.nodes[b].port);
        let redial = Redial::new(&self.nodes[a].spec.limits);
        let peer = Configured { addr, known: None, redial, since: None, dialing: false, waiting: true };
        self.nodes[a].configured.push(peer);
        let (run, i) = (self.nodes[a].run, self.nodes[a].configured.len() - 1);
        self.after(ms(0), Ev::Redial { n: a, run, i });
    }

    pub fn id(&self, n: N) -> NodeId {
        self.nodes[n].id
    }

    pub fn register(&mut self, n: N, capability: &str) {
        assert!(self.with(n, |s, now, out| s.register(Capability::agent(capability), now, out)));
    }

    pub fn publish(&mut self, n: N, event_type: &str) {
        self.with(n, |s, now, out| {
            let id = s.new_id();
            s.publish(id, event_type, Bytes::from_static(b"1"), now, out);
        });
    }

    /// Asks the mesh who is there.
    pub fn find(&mut self, n: N, capability: &str, wait: Duration) -> String {
        self.with(n, |s, now, out| {
            let id = s.new_id();
            s.ask_mesh(id.clone(), Purpose::Find, capability, "", 64, now.mono + wait, now, out);
            id
        })
    }

    /// Starts a call.
    pub fn call(&mut self, n: N, mut ask: Ask) -> (N, TaskId) {
        self.asked += 1;
        ask.plan.n = self.asked;
        let now = self.nodes[n].now(self.now);
        let id = self.nodes[n].state.new_task_id(now);
        let own = OwnCall { n: ask.plan.n, deadline: self.now + ask.timeout, takes: ask.takes, ..OwnCall::default() };
        self.nodes[n].calls.insert(id.clone(), own);
        let spec = CallSpec {
            id: id.clone(),
            capability: ask.capability,
            payload: ask.plan.to_json(),
            target: ask.to,
            via: ask.via,
            timeout: ask.timeout,
            wait: Duration::ZERO,
            local: ask.local,
            once: false,
            except: None,
        };
        self.with(n, |s, now, out| s.start_call(spec, now, out));
        (n, id)
    }

    pub fn own(&self, call: &(N, TaskId)) -> &OwnCall {
        &self.nodes[call.0].calls[&call.1]
    }

    pub fn ended(&self, call: &(N, TaskId)) -> bool {
        self.own(call).ended.is_some()
    }

    pub fn result(&self, call: &(N, TaskId)) -> &Result<CallDone, CallError> {
        &self.own(call).ended.as_ref().unwrap_or_else(|| panic!("the call has not ended")).result
    }

    /// Waits for a call's success.
    pub fn success(&mut self, call: &(N, TaskId)) -> &CallDone {
        self.until(secs(100), "the call ends", |w| w.ended(call));
        self.check_calls();
        self.result(call).as_ref().unwrap_or_else(|e| panic!("seed {}: {e:?}", self.seed))
    }

    /// Waits for a call's error.
    pub fn error(&mut self, call: &(N, TaskId)) -> &CallError {
        self.until(secs(100), "the call ends", |w| w.ended(call));
        self.check_calls();
        self.result(call).as_ref().unwrap_err()
    }

    pub fn refused(&self, n: N, reason: &str) -> u64 {
        self.nodes[n].state.counters.refused.get(reason).copied().unwrap_or(0)
    }
}
