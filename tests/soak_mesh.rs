//! Two hundred nodes in one tracker's care, for a while: nodes join and leave, call each other directly and through the
//! tracker, find each other, and publish. Afterwards neither the tracker, a process of its own, nor the nodes have grown.
//!
//! About a minute; with `ELO_LONG=1` twenty, with `ELO_SOAK_S` as many seconds as that says. What happens is drawn by
//! `ELO_SEED`, which is printed. By itself in its process, as memory and descriptors are counted for the whole of it.
#![cfg(target_os = "linux")]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;
mod mesh;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use common::proc::{descriptors, memory_kib};
use common::{Home, Serve};
use elo::{Context, Limits, Node, Task, TaskResult};
use mesh::{eventually, node};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// How many nodes there are beside the tracker.
const NODES: usize = 200;

/// Of how many kinds their capabilities are.
const KINDS: usize = 20;

/// How many of them call at a time, and how long each pauses after a call.
const CALLERS: u64 = 16;
const PAUSE: Duration = Duration::from_millis(200);

/// How often a node leaves and another one joins.
const CHURN: Duration = Duration::from_millis(700);

/// How much more memory than after the warm-up may be in use, in kB: what is remembered for a time that is longer than the
/// warm-up (ids of events and queries, for 660 s), and what malloc does not give back.
const GROWTH: u64 = 12 * 1024;

/// A node has met others, and has its buffers, after some ten calls. A run that is too short for that, or on too slow a machine,
/// may end while all still fill up: then this much more, in kB for each node.
const WARM_CALLS: u64 = 10;
const FILLS: u64 = 300;

async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

async fn count(task: Task, context: Context) -> TaskResult {
    for n in 0..task.parse::<u64>()? {
        context.chunk(json!(n)).await?;
    }
    Ok(Value::Null)
}

fn limits() -> Limits {
    // Little is kept by design, so that it is full before the warm-up is over, and what is not needed is closed.
    Limits::default().with(|l| {
        l.max_answers = 64;
        l.remembered_bytes = 64 * 1024;
        l.max_seen = 256;
        l.max_records = 64;
        l.unused_timeout = Duration::from_secs(5);
        l.drain_timeout = Duration::from_secs(1);
    })
}

fn builder(kind: usize, tracker: &str) -> elo::Builder {
    let own = format!("kind-{kind}");
    let builder = node(&own).limits(limits()).peer(tracker).handler("echo", echo).handler("count", count);
    builder.agent(&own).handler(own, echo).interest("soak.*")
}

/// What has happened.
#[derive(Default)]
struct Counts {
    calls: AtomicU64,
    events: AtomicU64,
    heard: Arc<AtomicU64>,
    joined: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

struct Mesh {
    nodes: RwLock<Vec<Node>>,
    tracker: String,
    tracker_id: String,
    counts: Counts,
}

impl Mesh {
    fn any(&self, dice: &mut StdRng) -> Node {
        self.nodes.read().unwrap()[dice.random_range(0..NODES)].clone()
    }

    async fn call(&self, dice: &mut StdRng) {
        let (from, to) = (self.any(dice), self.any(dice));
        if from.id() == to.id() {
            return;
        }
        let text = "x".repeat(dice.random_range(0..4000));
        let kind = dice.random_range(0..10);
        if kind == 9 {
            if from.publish("soak.tick", json!(text.len())).is_ok() {
                self.counts.events.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let (capability, payload) = match kind {
            0 | 1 => (format!("kind-{}", dice.random_range(0..KINDS)), json!(text)),
            2 => ("count".to_owned(), json!(50)),
            _ => ("echo".to_owned(), json!(text)),
        };
        let mut call = from.call(capability.clone(), payload.clone()).timeout(Duration::from_secs(15));
        if kind > 1 {
            call = call.to(to.id().to_string());
        }
        if kind > 6 {
            call = call.via(self.tracker_id.clone());
        }
        self.counts.calls.fetch_add(1, Ordering::Relaxed);
        match call.await {
            Ok(outcome) if capability == "count" => assert_eq!(outcome.chunks, 50),
            Ok(outcome) => assert_eq!(outcome.payload, payload),
            Err(error) => *self.counts.errors.lock().unwrap().entry(error.code.to_string()).or_default() += 1,
        }
    }

    async fn join(&self, kind: usize) -> Node {
        let node = builder(kind, &self.tracker).start().await.unwrap();
        let mut events = node.subscribe("soak.*").unwrap();
        let heard = Arc::clone(&self.counts.heard);
        tokio::spawn(async move {
            while events.recv().await.is_some() {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        });
        self.counts.joined.fetch_add(1, Ordering::Relaxed);
        node
    }

    fn errors(&self) -> BTreeMap<String, u64> {
        self.counts.errors.lock().unwrap().clone()
    }
}

/// What is in use at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    tracker_kb: u64,
    tracker_fds: usize,
    nodes_kb: u64,
    nodes_fds: usize,
    tasks: usize,
    calls: u64,
}

impl Sample {
    fn take(at: Duration, tracker: &Serve, counts: &Counts) -> Self {
        let (pid, own) = (tracker.child.0.id(), std::process::id());
        Self {
            at,
            tracker_kb: memory_kib(pid, "VmRSS"),
            tracker_fds: descriptors(pid),
            nodes_kb: memory_kib(own, "VmRSS"),
            nodes_fds: descriptors(own),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            calls: counts.calls.load(Ordering::Relaxed),
        }
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { at, tracker_kb, tracker_fds, nodes_kb, nodes_fds, tasks, .. } = self;
        let at = at.as_secs();
        let tracker = format!("tracker {tracker_kb} kB, {tracker_fds} descriptors");
        write!(f, "soak: {at} s: {tracker}; {NODES} nodes {nodes_kb} kB, {nodes_fds} descriptors, {tasks} tasks")
    }
}

fn duration() -> Duration {
    let seconds = std::env::var("ELO_SOAK_S").ok().and_then(|s| s.parse().ok());
    let long = std::env::var("ELO_LONG").is_ok_and(|v| v == "1");
    Duration::from_secs(seconds.unwrap_or(if long { 20 * 60 } else { 56 }))
}

fn seed() -> u64 {
    std::env::var("ELO_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(rand::random)
}

/// Every node has two ends of each connection in this process.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_nodes_and_their_tracker_do_not_grow() {
    raise_descriptors();
    let (lasts, seed) = (duration(), seed());
    println!("soak: ELO_SEED={seed}, {} s", lasts.as_secs());
    let home = Home::new();
    let tracker = home.serve(&["--tracker", "--name", "tracker"]);
    let (addr, id) = (tracker.addr(), tracker.id());
    let mesh = Arc::new(Mesh { nodes: RwLock::default(), tracker: addr, tracker_id: id, counts: Counts::default() });
    let begun = Instant::now();
    for n in 0..NODES {
        let node = mesh.join(n % KINDS).await;
        mesh.nodes.write().unwrap().push(node);
    }
    let all = |mesh: &Mesh| mesh.nodes.read().unwrap().iter().all(|n| !n.peers().is_empty());
    while !all(&mesh) {
        assert!(begun.elapsed() < Duration::from_secs(120), "not all nodes are connected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("soak: all are there after {:.1} s", begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let mut working = tokio::task::JoinSet::new();
    for n in 0..CALLERS {
        let (mesh, mut dice) = (Arc::clone(&mesh), StdRng::seed_from_u64(seed ^ n));
        working.spawn(async move {
            while begun.elapsed() < lasts {
                mesh.call(&mut dice).await;
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
    let churn = (Arc::clone(&mesh), StdRng::seed_from_u64(!seed));
    working.spawn(async move {
        let (mesh, mut dice) = churn;
        while begun.elapsed() < lasts {
            tokio::time::sleep(CHURN).await;
            let place = dice.random_range(0..NODES);
            let new = mesh.join(place % KINDS).await;
            let old = std::mem::replace(&mut mesh.nodes.write().unwrap()[place], new);
            // Half of them with a word, half without.
            if dice.random() {
                old.shutdown().await;
            }
        }
    });
    // Every node has met a few others by then.
    let warm = (lasts / 4).max(Duration::from_secs(28)).min(lasts / 2);
    let mut samples: Vec<Sample> = Vec::new();
    for quarter in 1..=8 {
        tokio::time::sleep((lasts / 8 * quarter).saturating_sub(begun.elapsed())).await;
        samples.push(Sample::take(begun.elapsed(), &tracker, &mesh.counts));
        println!("{}", samples[samples.len() - 1]);
    }
    while let Some(one) = working.join_next().await {
        one.unwrap();
    }
    let counts = &mesh.counts;
    let [calls, events, heard, joined] =
        [&counts.calls, &counts.events, &counts.heard, &counts.joined].map(|c| c.load(Ordering::Relaxed));
    println!("soak: {calls} calls, {events} events heard {heard} times, {joined} nodes; errors {:?}", mesh.errors());
    assert!(heard > events, "nobody hears events");
    // Who calls a node that leaves at that moment can't be answered.
    let errors: u64 = mesh.errors().values().sum();
    assert!(errors * 20 <= calls, "{errors} of {calls} calls failed: {:?}", mesh.errors());

    let after: Vec<_> = samples.iter().filter(|s| s.at >= warm).collect();
    let (first, last) = (after[0], after[after.len() - 1]);
    assert!(last.tracker_kb <= first.tracker_kb + GROWTH, "the tracker grew: {first} … {last}");
    let fills = if first.calls < WARM_CALLS * NODES as u64 { FILLS * NODES as u64 } else { 0 };
    assert!(last.nodes_kb <= first.nodes_kb + GROWTH + fills, "the nodes grew: {first} … {last}");
    for sample in &after {
        // One for each node, those that come and go, and a few of its own.
        assert!(sample.tracker_fds <= NODES + 64, "{sample}");
    }

    let own: Vec<Node> = std::mem::take(&mut *mesh.nodes.write().unwrap());
    for node in &own {
        eventually("a node is at rest", || {
            let now = node.metrics();
            (now.calls_running, now.tasks_running) == (0, 0)
        })
        .await;
    }
    for node in own {
        node.shutdown().await;
    }
    let runtime = tokio::runtime::Handle::current();
    eventually("no task is left", || runtime.metrics().num_alive_tasks() <= 1).await;
    let pid = tracker.child.0.id();
    eventually("the tracker has closed its connections", || descriptors(pid) <= 32).await;
    println!("{}", Sample::take(begun.elapsed(), &tracker, &mesh.counts));
}
