//! The mesh that is attacked, and the caller that must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use elo::{Builder, Context, Limits, Node, Task, TaskResult, Tracker};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::attacker::PATIENCE;
use crate::canon::Key;
use crate::mesh::{addr_of, eventually_within, meets, node};

/// Waits for a condition; panics with its name when it doesn't come.
pub async fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, condition).await;
}

pub async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

/// Counts how often a handler ran, in however many nodes.
#[derive(Clone, Default)]
pub struct Counter(Arc<AtomicUsize>);

impl Counter {
    /// The node answers that capability with its payload.
    pub fn count(&self, builder: Builder, capability: &str) -> Builder {
        let runs = Arc::clone(&self.0);
        builder.agent(capability).handler(capability, move |task: Task, _: Context| {
            runs.fetch_add(1, Ordering::SeqCst);
            async move { Ok(task.payload) }
        })
    }

    pub fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A caller that asks on and on, each way in turn. Every one of its calls must be answered, by the right node.
pub struct Steady {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
    ways: usize,
}

/// Whom it asks, and through which tracker.
pub type Way = (String, Option<String>);

impl Steady {
    pub fn begin(caller: &Node, ways: Vec<Way>) -> Self {
        let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped, caller, count) = (Arc::clone(&answered), Arc::clone(&stop), caller.clone(), ways.len());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::SeqCst) {
                for (to, via) in &ways {
                    let n = counter.load(Ordering::SeqCst);
                    let mut call = caller.call("steady", json!(n)).to(to).timeout(PATIENCE);
                    if let Some(via) = via {
                        call = call.via(via);
                    }
                    let outcome = call.await.unwrap_or_else(|e| panic!("steady call {n} to {to} via {via:?}: {e:?}"));
                    assert_eq!((outcome.payload.into_value(), outcome.responder.to_string()), (json!(n), to.clone()));
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                // Its pace: the attack is to have the machine most of the time.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { answered, stop, task, ways: count }
    }

    /// Each way is answered twice more from now on.
    pub async fn goes_on(&self) {
        let from = self.answered.load(Ordering::SeqCst);
        let more = || self.answered.load(Ordering::SeqCst) >= from + 2 * self.ways;
        eventually("the steady caller is answered", || more() || self.task.is_finished()).await;
        assert!(!self.task.is_finished(), "a steady call failed");
    }

    /// Ends it; gives how many calls were answered, which is all that were made.
    pub async fn over(self) -> usize {
        self.goes_on().await;
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap();
        self.answered.load(Ordering::SeqCst)
    }
}

/// What a node holds at a moment.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Held {
    connections: usize,
    peers: usize,
    unproven: usize,
    records: usize,
    tasks: usize,
    calls: usize,
}

fn held(node: &Node) -> Held {
    let m = node.metrics();
    Held {
        connections: m.connections,
        peers: m.peers,
        unproven: m.unproven_peers,
        records: m.records,
        tasks: m.tasks_running,
        calls: m.calls_running,
    }
}

/// The async tasks alive in this test's runtime.
fn alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// The victim, with a steady caller and a provider at it that have nothing to do with the attacker.
pub struct Stage {
    pub victim: Node,
    pub provider: Node,
    pub caller: Node,
    pub steady: Steady,
    runs: Arc<AtomicUsize>,
    stops: Arc<AtomicUsize>,
    before: Held,
    alive: usize,
}

impl Stage {
    pub async fn plain() -> Self {
        Self::of(|b| b).await
    }

    /// The victim is a public tracker.
    pub async fn tracker() -> Self {
        Self::of(|b| b.tracker(Tracker::Public)).await
    }

    pub async fn limited(set: impl FnOnce(&mut Limits)) -> Self {
        Self::of(|b| b.limits(Limits::default().with(set))).await
    }

    /// The victim is a private tracker for the caller, the provider and these.
    pub async fn private(allow: &[&Key]) -> Self {
        let keys = [Key::fresh(), Key::fresh()];
        let allow = keys.iter().chain(allow.iter().copied()).map(|k| k.identity().id()).collect();
        Self::build(|b| b.tracker(Tracker::Private { allow }), keys).await
    }

    /// The victim provides `work` (counted, answers its payload) and `wait` (counted, waits until it is stopped).
    pub async fn of(set: impl FnOnce(Builder) -> Builder) -> Self {
        Self::build(set, [Key::fresh(), Key::fresh()]).await
    }

    async fn build(set: impl FnOnce(Builder) -> Builder, [provider, caller]: [Key; 2]) -> Self {
        let runs = Arc::new(AtomicUsize::new(0));
        let (works, waits, stops) = (Arc::clone(&runs), Arc::clone(&runs), Arc::new(AtomicUsize::new(0)));
        let stopped = Arc::clone(&stops);
        let builder = node("victim").agent("work").handler("steady", echo);
        let builder = builder
            .handler("work", move |task: Task, _: Context| {
                works.fetch_add(1, Ordering::SeqCst);
                async move { Ok(task.payload) }
            })
            .handler("wait", move |_: Task, context: Context| {
                waits.fetch_add(1, Ordering::SeqCst);
                let stopped = Arc::clone(&stopped);
                async move {
                    context.cancelled().await;
                    stopped.fetch_add(1, Ordering::SeqCst);
                    Ok(json!("stopped"))
                }
            });
        let victim = set(builder).start().await.unwrap();
        let builder = node("provider").identity(provider.identity()).agent("steady").handler("steady", echo);
        let provider = builder.peer(addr_of(&victim)).start().await.unwrap();
        meets(&provider, &[&victim]).await;
        let builder = node("caller").identity(caller.identity()).peer(addr_of(&victim)).peer(addr_of(&provider));
        let caller = builder.start().await.unwrap();
        meets(&caller, &[&victim, &provider]).await;
        Self::begin(victim, provider, caller, [runs, stops]).await
    }

    async fn begin(victim: Node, provider: Node, caller: Node, [runs, stops]: [Arc<AtomicUsize>; 2]) -> Self {
        let name = |node: &Node| node.id().to_string();
        let mut ways = vec![(name(&victim), None), (name(&provider), None)];
        if victim.status().tracker != elo::TrackerRole::None {
            ways.push((name(&provider), Some(name(&victim))));
        }
        let mut before = None;
        // Addresses are being found out for a moment, with records, dials and tasks of their own.
        eventually("the mesh is quiet", || {
            let now = (held(&victim), alive());
            before.replace(now) == Some(now) && now.0.records == 2 && now.0.connections == 2
        })
        .await;
        let (before, alive) = before.unwrap();
        let steady = Steady::begin(&caller, ways);
        let stage = Self { victim, provider, caller, steady, runs, stops, before, alive };
        stage.steady.goes_on().await;
        stage
    }

    /// Where the victim is dialled.
    pub fn addr(&self) -> String {
        addr_of(&self.victim)
    }

    pub fn id(&self) -> String {
        self.victim.id().to_string()
    }

    /// How often the victim's handlers ran for attackers.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// How many of them were stopped.
    pub fn stops(&self) -> usize {
        self.stops.load(Ordering::SeqCst)
    }

    pub fn refused(&self, reason: &str) -> u64 {
        self.victim.metrics().refused.get(reason).copied().unwrap_or(0)
    }

    /// The steady caller is answered, now.
    pub async fn answers(&self) {
        self.steady.goes_on().await;
    }

    /// The attackers are gone. The steady caller was answered all the while, and of them nothing is left.
    pub async fn unharmed(self) {
        let Self { victim, provider, caller, steady, before, alive: tasks, .. } = self;
        let answered = steady.over().await;
        assert!(answered >= 8, "only {answered} steady calls were made");
        assert_eq!((caller.metrics().calls_failed, caller.metrics().calls_done), (0, answered as u64));
        let mut last = None;
        let looking = async {
            while last != Some((before, true)) {
                last = Some((held(&victim), alive() <= tasks));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let clean = tokio::time::timeout(PATIENCE, looking).await.is_ok();
        assert!(
            clean,
            "left over: {:?} instead of {before:?}, {} async tasks instead of {tasks}",
            held(&victim),
            alive()
        );
        for node in [caller, provider, victim] {
            node.shutdown().await;
        }
    }
}
