//! One node's `mesh::State` under arbitrary events: connections, messages of every type with signatures that are right
//! or wrong, time that passes and clocks that jump, what its owner asks for, and how it ends.
//!
//! The harness plays the driver, and keeps its own books of what may happen: [`actions`] checks every action against them.
//! [`inputs`] makes the events up, [`messages`] the messages.

mod actions;
mod inputs;
mod messages;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use elo::fuzzing::{Action, Config, ConnId, LookupId, Now, ProbeNonce, ROLES, State, TaskId, TaskKey, Wanted};
use elo::wire::{Object, Speaker};
use elo::{Access, Limits, NodeId};

use super::keys::{KEYS, id};

/// The node under test has this key; the others are its peers'.
const ME: usize = 0;

/// 2026-01-01, in milliseconds.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// The most events of one input.
const STEPS: usize = 160;

/// The most connections at once.
const CONNS: usize = 12;

/// A connection as the driver knows it.
struct Conn {
    peer: usize,
    speaker: Speaker,
    /// The state was not told yet that it ended.
    open: bool,
}

/// A call of the owner.
struct Call {
    deadline: Duration,
    next_chunk: u64,
    untaken: u64,
    done: bool,
}

/// A task that was handed to a handler.
struct Job {
    local: bool,
    chunks: u64,
    stopped: bool,
}

/// Which very task it was that ran: its id alone may be used again when its time is over.
type Issue = (TaskKey, i64, u64);

struct World {
    state: State,
    now: Now,
    /// The wall clock was set back: what was over may be valid again, and nobody could know.
    set_back: bool,
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    calls: BTreeMap<TaskId, Call>,
    finds: BTreeMap<String, bool>,
    jobs: BTreeMap<TaskKey, Job>,
    ran: BTreeSet<Issue>,
    /// Until when the latest task of that name can't run again.
    busy_until: HashMap<TaskKey, Duration>,
    dialling: Vec<NodeId>,
    punching: Vec<NodeId>,
    dialling_back: Vec<(ConnId, String, SocketAddr)>,
    /// What is asked of the DHT, and whom it named is being dialled.
    asking: BTreeSet<(LookupId, Wanted)>,
    unknown: Vec<(LookupId, SocketAddr)>,
    /// Ids, numbers and nonces seen in what the node sent: answers that fit are made of them.
    ids: VecDeque<String>,
    asks: VecDeque<u64>,
    nonces: VecDeque<ProbeNonce>,
    /// Signed messages that were on the wire: they come again.
    wire: VecDeque<(usize, Object)>,
    /// Which outboxes have no room.
    full: BTreeSet<ConnId>,
    /// Which connections ended for that.
    too_slow: BTreeSet<ConnId>,
    /// What the node signed: the same draft gives the same bytes, and a flood goes out over every connection.
    own: HashMap<String, Object>,
    seq: u64,
}

pub(super) fn play(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(mut world) = World::new(&mut u) else { return };
    for _ in 0..STEPS {
        if u.is_empty() || world.step(&mut u).is_err() {
            break;
        }
        world.check();
    }
    world.end();
}

/// Where a node is: some at private addresses, some at public ones.
fn host(n: usize) -> IpAddr {
    let n8 = n as u8;
    IpAddr::V4(if n.is_multiple_of(2) { Ipv4Addr::new(10, 0, 0, n8) } else { Ipv4Addr::new(93, 184, 216, n8) })
}

fn addr(n: usize) -> SocketAddr {
    SocketAddr::new(host(n), 7000 + n as u16)
}

fn keep<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == 24 {
        queue.pop_front();
    }
    queue.push_back(item);
}

impl World {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let [kind, more]: [u8; 2] = u.arbitrary()?;
        let bit = |n: u8| more & (1 << n) != 0;
        let limits = Limits::default().with(|l| {
            (l.max_records, l.max_seen, l.max_calls) = (4, 12, 4);
            (l.max_tasks, l.max_tasks_per_caller, l.max_remembered_tasks) = (4, 3, 12);
            (l.max_answers, l.remembered_bytes) = (3, 200);
        });
        let private = || (1..KEYS - 1).map(id).fold(Access::private(), Access::allow);
        let access = if bit(0) { private() } else { Access::public() };
        let config = Config {
            name: "fuzzed".into(),
            version: "fuzz".into(),
            instance: "run".into(),
            features: if bit(1) { vec!["punch".into(), "dialback".into()] } else { Vec::new() },
            tracker: ROLES[usize::from(kind) % 3],
            access,
            serve_only: None,
            sealing: elo::Sealing::Off,
            policies: Vec::new(),
            port: bit(2).then_some(7000),
            bound: bit(3).then(|| host(ME)),
            advertise: if bit(4) { vec![addr(ME)] } else { Vec::new() },
            dht: bit(5),
            limits,
        };
        let now = Now { mono: Duration::from_secs(1), unix_ms: EPOCH_MS };
        let mut world = Self {
            state: State::new(id(ME), config, [7; 32], now),
            now,
            set_back: false,
            conns: BTreeMap::new(),
            next_conn: 0,
            calls: BTreeMap::new(),
            finds: BTreeMap::new(),
            jobs: BTreeMap::new(),
            ran: BTreeSet::new(),
            busy_until: HashMap::new(),
            dialling: Vec::new(),
            punching: Vec::new(),
            dialling_back: Vec::new(),
            asking: BTreeSet::new(),
            unknown: Vec::new(),
            ids: VecDeque::new(),
            asks: VecDeque::new(),
            nonces: VecDeque::new(),
            wire: VecDeque::new(),
            full: BTreeSet::new(),
            too_slow: BTreeSet::new(),
            own: HashMap::new(),
            seq: 0,
        };
        world.decide(|s, now, out| {
            s.register(elo::Capability::agent("echo"), now, out);
            s.handles("quiet");
            s.flush_record(now, out);
        });
        Ok(world)
    }

    /// An input of the state, and everything that comes of it.
    fn decide<T>(&mut self, input: impl FnOnce(&mut State, Now, &mut Vec<Action>) -> T) -> T {
        let mut out = Vec::new();
        let answer = input(&mut self.state, self.now, &mut out);
        self.carry_out(out);
        answer
    }

    /// Lets time pass: every alarm rings when it is due.
    fn pass(&mut self, time: Duration) {
        let until = self.now.mono + time;
        // A bound for the test's own time: alarms that are due at once again and again would never let it go on.
        for _ in 0..20_000 {
            let due = self.state.next_due().filter(|due| *due <= until).unwrap_or(until).max(self.now.mono);
            self.set_mono(due);
            self.decide(|s, now, out| s.tick(now, out));
            let next = self.state.next_due();
            assert!(next.is_none_or(|next| next > self.now.mono), "an alarm that rang is due still");
            if self.now.mono >= until {
                return;
            }
            self.check();
        }
        panic!("alarms ring for ever: {:?} to {until:?}", self.now.mono);
    }

    fn set_mono(&mut self, mono: Duration) {
        let passed = mono.saturating_sub(self.now.mono).as_millis() as u64;
        // Whole milliseconds on both clocks, so that they don't drift apart.
        let rest = mono.saturating_sub(self.now.mono).subsec_nanos() % 1_000_000;
        self.now.mono = mono;
        self.now.unix_ms = self.now.unix_ms.saturating_add(passed + u64::from(rest > 0));
    }

    /// What must hold after every event.
    fn check(&self) {
        assert_eq!(self.state.broken_bound(), None);
        for (id, call) in &self.calls {
            let late = self.now.mono > call.deadline + Duration::from_secs(1);
            assert!(call.done || !late, "the call {id} is past its deadline and has not ended");
        }
        for lookup in self.asking.iter().map(|(lookup, _)| lookup).chain(self.unknown.iter().map(|(lookup, _)| lookup))
        {
            assert!(self.state.looks_up(*lookup), "nobody waits any more for what is under way");
        }
        if !self.seq.is_multiple_of(8) {
            return;
        }
        // What the owner is shown is not cheap.
        let _ = (self.state.view(), self.state.peer_infos(self.now), self.state.known("", self.now));
    }

    /// Everything ends: what is under way comes to its end, and nothing is left.
    fn end(&mut self) {
        self.decide(|s, _, _| s.drain());
        while let Some((key, _)) = self.jobs.pop_first() {
            self.decide(|s, now, out| s.finish_task(&key, Ok("1".into()), now, out));
        }
        // The longest call takes a minute.
        self.pass(Duration::from_secs(70));
        assert!(self.calls.values().all(|c| c.done), "a call did not end");
        while let Some((key, _)) = self.jobs.pop_first() {
            self.decide(|s, now, out| s.finish_task(&key, Ok("1".into()), now, out));
        }
        assert!(self.state.is_idle());
        let open: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in open {
            self.disconnect(conn, None);
        }
        for (conn, id, addr) in std::mem::take(&mut self.dialling_back) {
            self.decide(|s, _, out| s.dialled_back(conn, &id, addr, Err("late"), out));
        }
        for (lookup, what) in std::mem::take(&mut self.asking) {
            self.decide(|s, now, out| s.dht_over(lookup, &what, None, now, out));
        }
        // Two days: the longest task lives for one.
        for _ in 0..6 {
            for node in std::mem::take(&mut self.dialling) {
                self.decide(|s, now, out| s.dial_failed(&node, "nobody", now, out));
            }
            for node in std::mem::take(&mut self.punching) {
                self.decide(|s, now, _| s.punch_failed(&node, "nobody", now));
            }
            // A suspended machine: the alarms of eight hours ring at once.
            self.set_mono(self.now.mono + Duration::from_secs(8 * 3600));
            self.pass(Duration::ZERO);
        }
        self.pass(Duration::from_secs(30));
        for node in std::mem::take(&mut self.dialling) {
            self.decide(|s, now, out| s.dial_failed(&node, "nobody", now, out));
        }
        assert_eq!(self.state.left_over(), None);
    }
}
