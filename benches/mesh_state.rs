//! What the state of two nodes costs for each call, without sockets, signatures and JSON: from the caller's wish over
//! the task, its handler and the result to the caller's news. With few and many calls in flight, and with a million
//! tasks remembered.
//!
//! `cargo bench --bench mesh_state`; `ELO_CALLS=2000 valgrind --tool=callgrind --toggle-collect='*mesh_state::calls*'`
//! counts the instructions instead.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group};
use elo::benching::{
    Action, Arrival, CallEvent, CallSpec, Config, ConnId, How, Now, Source, State, TaskKey, TrackerRole, What,
};
use elo::wire::{Checked, Message, Object, Roots, Speaker, check};
use elo::{Access, Identity, Limits, Sealing};

/// Of how many calls the messages are signed once, and used again and again.
const RECORDED: usize = 4096;

/// Between two calls: as at 100,000 a second.
const STEP: Duration = Duration::from_micros(10);

/// Where messages come from: signed and checked once, and then as they were then.
#[derive(Clone, Default)]
struct Wire {
    recorded: VecDeque<Checked>,
    replayed: bool,
}

impl Wire {
    fn carry(&mut self, what: What, author: &Identity) -> Checked {
        if self.replayed {
            return self.recorded.pop_front().expect("the same calls lead to the same messages");
        }
        let object = match what {
            What::Sign(draft) => draft.sign(author),
            What::Ready(object) => object,
            other => panic!("{other:?}"),
        };
        let checked = checked(object);
        self.recorded.push_back(checked.clone());
        checked
    }
}

fn checked(object: Object) -> Checked {
    check(Message::parse(&object).expect("ours"), Speaker::Proven, &mut Roots::new()).expect("signed")
}

struct Pair {
    caller: State,
    provider: State,
    identities: [Identity; 2],
    wire: Wire,
    mono: Duration,
    running: VecDeque<TaskKey>,
    out: Vec<Action>,
    done: usize,
}

const CONN: ConnId = ConnId(1);

fn state(identity: &Identity, name: &str, now: Now) -> State {
    let limits = Limits::default().with(|l| {
        (l.max_calls, l.max_tasks, l.max_tasks_per_caller) = (1 << 20, 1 << 20, 1 << 20);
        l.max_remembered_tasks = 1 << 30;
    });
    let config = Config {
        name: name.into(),
        version: "bench".into(),
        instance: name.into(),
        features: Vec::new(),
        tracker: TrackerRole::None,
        access: Access::public(),
        serve_only: None,
        policies: Vec::new(),
        port: None,
        bound: None,
        advertise: Vec::new(),
        dht: false,
        sealing: Sealing::Off,
        limits,
    };
    State::new(identity.id(), config, [7; 32], now)
}

fn arrival(node: &Identity, name: &str) -> Arrival {
    let addr = SocketAddr::from(([127, 0, 0, 1], 7000));
    Arrival {
        node: node.id(),
        speaker: Speaker::Proven,
        addr,
        local: addr,
        inbound: false,
        encrypted: true,
        how: How::kept(Source::default()),
        instance: Some(name.into()),
        version: "bench".into(),
        features: Vec::new(),
        tracker: TrackerRole::None,
        observed: None,
        caps: Default::default(),
    }
}

impl Pair {
    fn new(in_flight: usize, remembered: usize, wire: Wire) -> Self {
        let identities = [Identity::from_seed([1; 32]), Identity::from_seed([2; 32])];
        let mono = Duration::from_secs(1);
        let mut pair = Self {
            caller: state(&identities[0], "caller", now(mono)),
            provider: state(&identities[1], "provider", now(mono)),
            identities,
            wire,
            mono,
            running: VecDeque::new(),
            out: Vec::new(),
            done: 0,
        };
        let mut out = Vec::new();
        // Every node answers `ping`: no record is needed to find it.
        pair.caller.connected(CONN, arrival(&pair.identities[1], "provider"), now(mono), &mut out).expect("let in");
        pair.provider.connected(CONN, arrival(&pair.identities[0], "caller"), now(mono), &mut out).expect("let in");
        let caller = pair.identities[0].id();
        for _ in 0..remembered {
            let id = pair.caller.new_task_id(now(mono));
            pair.provider.has_run(&(caller, id), Duration::from_secs(3600));
        }
        for _ in 0..in_flight {
            pair.begin();
        }
        pair
    }

    /// A call that waits for its answer.
    fn begin(&mut self) {
        self.mono += STEP;
        let now = now(self.mono);
        let id = self.caller.new_task_id(now);
        let spec = CallSpec {
            id,
            capability: "ping".into(),
            payload: "{\"n\":1}".into(),
            target: None,
            via: None,
            timeout: Duration::from_secs(60),
            wait: Duration::ZERO,
            local: false,
            once: false,
            except: None,
        };
        self.caller.start_call(spec, now, &mut self.out);
        self.caller.count_memory();
        black_box(self.caller.next_due());
        self.pump(now);
    }

    /// Carries out what both want done.
    fn pump(&mut self, now: Now) {
        // Of the caller's alone: the provider's are carried out where it has the task.
        let mut actions = std::mem::take(&mut self.out);
        let mut more = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Send { what, .. } => {
                    let message = self.wire.carry(what, &self.identities[0]);
                    self.provider.handle(CONN, message, now, &mut more);
                    self.provider.count_memory();
                    black_box(self.provider.next_due());
                }
                Action::Call { event: CallEvent::Done(done), .. } => {
                    assert!(done.is_ok(), "{done:?}");
                    self.done += 1;
                }
                _ => {}
            }
        }
        for action in more {
            match action {
                Action::RunTask { key, .. } => self.running.push_back(key),
                Action::Send { what, .. } => panic!("{what:?}"),
                _ => {}
            }
        }
        self.out = actions;
    }

    /// The oldest task's handler comes back, and its caller hears of it.
    fn finish(&mut self) {
        let now = now(self.mono);
        let key = self.running.pop_front().expect("one runs");
        let mut out = std::mem::take(&mut self.out);
        self.provider.finish_task(&key, Ok("{\"n\":1}".into()), now, &mut out);
        self.provider.count_memory();
        black_box(self.provider.next_due());
        let answer = out.drain(..).find_map(|a| if let Action::Send { what, .. } = a { Some(what) } else { None });
        self.out = out;
        let message = self.wire.carry(answer.expect("an answer"), &self.identities[1]);
        self.caller.handle(CONN, message, now, &mut self.out);
        self.caller.count_memory();
        black_box(self.caller.next_due());
        self.pump(now);
    }
}

fn now(mono: Duration) -> Now {
    Now { mono, unix_ms: 1_700_000_000_000 + mono.as_millis() as u64 }
}

/// What is measured.
#[inline(never)]
fn calls(pair: &mut Pair, n: usize) {
    for _ in 0..n {
        pair.begin();
        pair.finish();
    }
}

fn cases() -> [(&'static str, usize, usize); 4] {
    [
        ("1 in flight", 0, 0),
        ("64 in flight", 63, 0),
        ("4096 in flight", 4095, 0),
        ("64 in flight, 1,000,000 remembered", 63, 1_000_000),
    ]
}

fn recorded(in_flight: usize, remembered: usize, n: usize) -> Wire {
    let mut pair = Pair::new(in_flight, remembered, Wire::default());
    calls(&mut pair, n);
    assert_eq!(pair.done, n);
    pair.wire.replayed = true;
    pair.wire
}

fn mesh_state(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state, each call");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    for (name, in_flight, remembered) in cases() {
        let wire = recorded(in_flight, remembered, RECORDED);
        group.bench_function(name, |b| {
            b.iter_custom(|mut left| {
                let mut took = Duration::ZERO;
                while left > 0 {
                    let mut pair = Pair::new(in_flight, remembered, wire.clone());
                    let n = left.min(RECORDED as u64);
                    let begun = Instant::now();
                    calls(&mut pair, n as usize);
                    took += begun.elapsed();
                    left -= n;
                }
                took
            });
        });
    }
    group.finish();
}

criterion_group!(benches, mesh_state);

fn main() {
    let Some(n) = std::env::var("ELO_CALLS").ok().and_then(|n| n.parse().ok()) else {
        benches();
        return Criterion::default().configure_from_args().final_summary();
    };
    let case: usize = std::env::var("ELO_CASE").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (name, in_flight, remembered) = cases()[case];
    let wire = recorded_outside(in_flight, remembered, n);
    let mut pair = Pair::new(in_flight, remembered, wire);
    let begun = Instant::now();
    calls(&mut pair, n);
    println!("{name}: {:?} for each of {n} calls", begun.elapsed() / n as u32);
}

/// The same as [`recorded`], under another name: instructions are counted in [`calls`] alone.
fn recorded_outside(in_flight: usize, remembered: usize, n: usize) -> Wire {
    let mut pair = Pair::new(in_flight, remembered, Wire::default());
    for _ in 0..n {
        pair.begin();
        pair.finish();
    }
    pair.wire.replayed = true;
    pair.wire
}
