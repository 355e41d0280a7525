//! The node behind every handle: it brings [`crate::mesh`] its inputs, and has done what that decides.
//!
//! The state is locked for a decision only: no await, no signature and no socket happens under the lock. What the
//! decision asks for is carried out by whoever brought the input: a connection's reader, a handler, the caller.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Inner;
use super::access::AccessPart;
use super::dht::DhtPart;
use super::dials::Dials;
use super::keeper::Discovery;
use super::kept::Kept;
use super::news::Teller;
use super::run::RunningTask;
use super::search::SearchNews;
use super::subscriptions::Subscribers;
use super::task::BoxHandler;
use crate::identity::{Identity, NodeId};
use crate::info::{Activity, PortMapping};
use crate::memory::Memory;
use crate::mesh::{Action, ConnId, Now, State, TaskId, TaskKey};
use crate::net::{self, Connection, NetConfig, Places};
use crate::seal::Sealer;

/// How many things that happened wait for an owner who doesn't look. Their places are there from the start, so they hold
/// pointers.
const ACTIVITY: usize = 1024;

/// Handlers by capability.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) by_capability: HashMap<String, BoxHandler>,
    pub(crate) default: Option<BoxHandler>,
}

/// What the connections have carried, those that ended included.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) closed: Mutex<std::collections::BTreeMap<String, u64>>,
}

/// A place among the connections that may be; given back when it is dropped.
#[derive(Debug)]
pub(crate) enum Place {
    /// Of one that the other side made.
    Taken(net::Place),
    /// Of one that this node made for its calls.
    Made(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
}

/// A live connection, and its place among those that may be.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Arc<Connection>,
    /// Given back when the connection is gone. Configured peers need none.
    pub(crate) _place: Option<Place>,
}

/// Counts a decision from before it is made until it is carried out.
struct Carrying<'a>(&'a AtomicUsize);

impl<'a> Carrying<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Everything the node's tasks and handles share.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) me: NodeId,
    pub(crate) name: String,
    pub(crate) net: Arc<NetConfig>,
    pub(crate) start: Instant,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) state: Mutex<State>,
    pub(crate) conns: Mutex<HashMap<ConnId, Link>>,
    next_conn: AtomicU64,
    pub(crate) handlers: RwLock<Handlers>,
    pub(crate) calls: Mutex<HashMap<TaskId, Teller>>,
    pub(crate) finds: Mutex<HashMap<String, mpsc::Sender<SearchNews>>>,
    pub(crate) tasks: Mutex<HashMap<TaskKey, RunningTask>>,
    /// Rings when there is a first task that runs.
    pub(crate) tasks_begin: Notify,
    pub(crate) subscribers: Subscribers,
    pub(crate) activity: broadcast::Sender<Arc<Activity>>,
    pub(crate) peers_changed: watch::Sender<u64>,
    /// Who is let in.
    pub(crate) access: AccessPart,
    /// Counts the changes of that.
    pub(crate) access_changed: watch::Sender<u64>,
    /// How the configured peers are doing.
    pub(crate) kept: Kept,
    /// Places for those who dial this node.
    pub(crate) entrance: Arc<Places>,
    /// How much memory peers make it hold.
    pub(crate) memory: Arc<Memory>,
    /// What this node dials for its calls.
    pub(super) dials: Dials,
    /// How many places there are for what this node dials for its calls.
    pub(crate) places: usize,
    alarm: Notify,
    /// Rings when the statements about keys are to be saved.
    pub(crate) keys_changed: Notify,
    armed: AtomicU64,
    /// How many decisions are not carried out yet.
    carrying: AtomicUsize,
    /// Cancelled when no new work is taken any more.
    pub(crate) closing: CancellationToken,
    /// Cancelled when everything is to end.
    pub(crate) stop: CancellationToken,
    /// Cancelled when everything has ended.
    pub(crate) stopped: CancellationToken,
    /// Whether somebody has asked for a graceful stop.
    pub(crate) stopping: AtomicBool,
    /// Whether handlers run on threads of their own.
    pub(crate) apart: bool,
    /// Where the node's tasks run, also those that are wanted by somebody outside of it.
    pub(crate) runtime: Handle,
    pub(crate) spawned: TaskTracker,
    pub(crate) traffic: Traffic,
    /// The port on the gateway, if one was asked for.
    pub(crate) port_map: Mutex<Option<PortMapping>>,
    /// Whom it may find by itself.
    pub(crate) discovery: Discovery,
    /// Seals and opens what goes through trackers, unless that is switched off.
    pub(crate) sealer: Option<Sealer>,
    /// The part in the DHT, if the node takes any.
    pub(crate) dht: Option<DhtPart>,
    /// Why it takes none.
    pub(crate) dht_note: String,
    /// What the owner's handles share.
    pub(crate) owner: OnceLock<Weak<Inner>>,
    me_weak: Weak<Shared>,
}

/// What a node is put together from.
pub(crate) struct Parts {
    pub(crate) identity: Identity,
    pub(crate) name: String,
    pub(crate) net: Arc<NetConfig>,
    pub(crate) start: Instant,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) state: State,
    pub(crate) handlers: Handlers,
    pub(crate) discovery: Discovery,
    pub(crate) sealer: Option<Sealer>,
    pub(crate) dht: Option<DhtPart>,
    pub(crate) dht_note: String,
    pub(crate) apart: bool,
    pub(crate) access: AccessPart,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.me).field("name", &self.name).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic under one of these locks would be a fault of ours; the others' work goes on with what is there.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A moment of the state's clock, for comparison; `u64::MAX` is never.
fn micros(due: Option<Duration>) -> u64 {
    due.map_or(u64::MAX, |d| d.as_micros() as u64)
}

/// UNIX time in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            identity,
            name,
            net,
            start,
            listen,
            state,
            handlers,
            discovery,
            sealer,
            dht,
            dht_note,
            apart,
            access,
        } = parts;
        let places = net.limits.max_connections.min(Semaphore::MAX_PERMITS);
        let memory = Arc::clone(&net.memory);
        Arc::new_cyclic(|weak| Self {
            me: identity.id(),
            identity,
            name,
            start,
            listen,
            state: Mutex::new(state),
            conns: Mutex::default(),
            next_conn: AtomicU64::new(1),
            handlers: RwLock::new(handlers),
            calls: Mutex::default(),
            finds: Mutex::default(),
            tasks: Mutex::default(),
            tasks_begin: Notify::new(),
            subscribers: Subscribers::default(),
            activity: broadcast::channel(ACTIVITY).0,
            peers_changed: watch::channel(0).0,
            access,
            access_changed: watch::channel(0).0,
            kept: Kept::default(),
            entrance: Places::new(&net.limits, Arc::clone(&memory)),
            memory,
            net,
            dials: Dials::new(places),
            places,
            alarm: Notify::new(),
            keys_changed: Notify::new(),
            armed: AtomicU64::new(u64::MAX),
            carrying: AtomicUsize::new(0),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
            stopping: AtomicBool::new(false),
            apart,
            runtime: Handle::current(),
            spawned: TaskTracker::new(),
            traffic: Traffic::default(),
            port_map: Mutex::default(),
            dht,
            dht_note,
            discovery,
            sealer,
            owner: OnceLock::new(),
            me_weak: weak.clone(),
        })
    }

    /// This moment, on both clocks.
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.start.elapsed(), unix_ms: unix_ms() }
    }

    /// A moment of the state's clock on the runtime's.
    pub(crate) fn instant(&self, mono: Duration) -> Instant {
        self.start + mono
    }

    /// Lets the state decide something, and carries out what it wants done.
    pub(crate) fn with<R>(&self, decide: impl FnOnce(&mut State, Now, &mut Vec<Action>) -> R) -> R {
        let _carrying = Carrying::new(&self.carrying);
        let mut actions = Vec::new();
        let now = self.now();
        let (result, due, woken) = {
            let mut state = lock(&self.state);
            let result = decide(&mut state, now, &mut actions);
            let woken = self.tell_callers(&mut state, now, &mut actions);
            state.count_memory();
            (result, state.next_due(), woken)
        };
        drop(woken);
        self.carry_out(actions);
        self.arm(due);
        result
    }

    /// Whether everything that was decided is carried out: what the state counts as done may still wait for its
    /// signature, on another thread.
    pub(crate) fn has_carried_out(&self) -> bool {
        self.carrying.load(Ordering::Acquire) == 0
    }

    /// Reads the state.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&State, Now) -> R) -> R {
        let now = self.now();
        look(&lock(&self.state), now)
    }

    /// Runs something on the node's runtime. When that is gone, as at the end of a process, it is dropped.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // One kind of future for all: what tokio makes of each kind is 5 kB of program.
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
        self.spawned.spawn_on(task, &self.runtime);
    }

    /// Wakes the alarms' task if it sleeps for longer than until `due`, which was read under the lock.
    ///
    /// None is missed: `armed` is written under the lock too. Whoever reads `due` before that write is seen by it; who
    /// reads `due` after it sees the time armed here, or that of a later look, which has seen it.
    fn arm(&self, due: Option<Duration>) {
        let due = micros(due);
        if due < self.armed.load(Ordering::Acquire) {
            self.alarm.notify_one();
        }
    }

    /// Rings when the state's alarms are due.
    pub(crate) async fn run_alarms(self: Arc<Self>) {
        loop {
            let due = self.read(|state, _| {
                let due = state.next_due();
                self.armed.store(micros(due), Ordering::Release);
                due
            });
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.instant(due)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.alarm.notified() => continue,
                () = sleep => {}
            }
            self.with(|state, now, out| state.tick(now, out));
            if let Some(sealer) = &self.sealer {
                sealer.sweep(self.start.elapsed());
            }
        }
    }

    /// Lets the state decide something, for whoever carries out what it wants done.
    pub(crate) fn decide(&self, decide: impl FnOnce(&mut State, Now, &mut Vec<Action>)) -> Vec<Action> {
        let mut out = Vec::new();
        let now = self.now();
        let mut state = lock(&self.state);
        decide(&mut state, now, &mut out);
        let woken = self.tell_callers(&mut state, now, &mut out);
        state.count_memory();
        let due = state.next_due();
        drop(state);
        drop(woken);
        self.arm(due);
        out
    }

    /// Tells the owner, if anybody listens.
    pub(crate) fn tell(&self, activity: Activity) {
        let of_task = matches!(activity, Activity::TaskReceived { .. } | Activity::TaskFinished { .. });
        if self.activity.send(Arc::new(activity)).is_err() && of_task {
            // Looked at under the lock: who begins to listen says so there, having begun.
            lock(&self.state).watch(self.activity.receiver_count() > 0);
        }
    }

    pub(crate) fn connection(&self, conn: ConnId) -> Option<Arc<Connection>> {
        lock(&self.conns).get(&conn).map(|link| Arc::clone(&link.connection))
    }

    /// The next connection's number.
    pub(crate) fn next_conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    /// An owning handle to itself.
    pub(crate) fn strong(&self) -> Option<Arc<Self>> {
        self.me_weak.upgrade()
    }
}
