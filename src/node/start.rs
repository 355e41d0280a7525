//! Bringing a node up, and down again.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rand::Rng;
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::access::AccessPart;
use super::builder::{Builder, Tracker, check_name};
use super::dht::DhtPart;
use super::driver::{Handlers, Parts, Shared, lock, unix_ms};
use super::keeper::{self, Discovery};
use super::keys::Saved;
use super::links::PeerAddr;
use super::{Inner, Node};
use crate::error::{CloseReason, Error};
use crate::identity::Identity;
use crate::info::{Metrics, Sealing};
use crate::limits::{MAX_ADDRS, MAX_RECORD};
use crate::mesh::access::Access;
use crate::mesh::handshake::Tls;
use crate::mesh::{Config, Now, State};
use crate::net::{NetConfig, TlsKeys};
use crate::seal::Sealer;
use crate::wire::{BATCH, SEALED, TrackerRole};

/// The default port.
pub(crate) const DEFAULT_PORT: u16 = 7878;

/// How long connections get to flush and say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// How often a graceful stop looks whether it can go on.
const LOOK: Duration = Duration::from_millis(5);

/// Which features this node lists.
fn features(legacy: bool, role: TrackerRole, sealing: Sealing, tls: Tls) -> Vec<String> {
    let mut features = vec![BATCH.to_owned()];
    if sealing != Sealing::Off {
        features.push(SEALED.to_owned());
    }
    if tls != Tls::Off {
        features.push(crate::mesh::handshake::TLS.to_owned());
    }
    if legacy {
        features.push("legacy".to_owned());
    }
    if role != TrackerRole::None {
        features.push(crate::mesh::DIALBACK.to_owned());
    }
    // Several sockets at one port mean something else on Windows.
    if cfg!(unix) {
        features.push(crate::mesh::PUNCH.to_owned());
    }
    features
}

pub(crate) async fn start(builder: Builder) -> Result<Node, Error> {
    let identity = builder.identity.unwrap_or_else(Identity::generate);
    let me = identity.id();
    let name = builder.name.unwrap_or_else(|| me.short());
    check_name("the node's name", &name)?;
    builder.limits.check()?;
    if builder.legacy && builder.tls == Tls::Required {
        let message = "nodes of the Python package can't encrypt: `legacy` does not go with required TLS";
        return Err(Error::Config(message.to_owned()));
    }
    crate::mesh::policy::check(builder.serve_only.as_ref(), &builder.policies)?;
    let peers: Vec<PeerAddr> = builder.peers.iter().map(|p| p.parse()).collect::<Result<_, _>>()?;
    if builder.advertise.len() > MAX_ADDRS {
        return Err(Error::Config(format!("a node advertises at most {MAX_ADDRS} addresses")));
    }
    if let Some(unusable) = builder.advertise.iter().find(|a| a.ip().is_unspecified() || a.port() == 0) {
        return Err(Error::Config(format!("{unusable} can't be dialled: advertise an address of this machine")));
    }
    let default_addr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT));
    let listener = match builder.listen.unwrap_or(Some(default_addr)) {
        Some(addr) => Some(TcpListener::bind(addr).await.map_err(|source| Error::Listen { addr, source })?),
        None => None,
    };
    let listen: Vec<SocketAddr> = listener.iter().filter_map(|l| l.local_addr().ok()).collect();

    let (dht, dht_note) = DhtPart::new(builder.dht, builder.dht_port, listen.first().copied())?;

    let mut seed = [0u8; 32];
    rand::rng().fill_bytes(&mut seed);
    let mut run = [0u8; 8];
    rand::rng().fill_bytes(&mut run);
    let instance: String = run.iter().map(|b| format!("{b:02x}")).collect();
    let (role, allow) = match builder.tracker {
        Tracker::Off => (TrackerRole::None, Vec::new()),
        Tracker::Public => (TrackerRole::Public, Vec::new()),
        Tracker::Private { allow } => (TrackerRole::Private, allow),
    };
    let allow = Access::of(false, allow.into_iter().collect(), BTreeSet::new());
    let base = builder.access.and(&allow);
    super::access::check(&base)?;
    let (lists, watch) = AccessPart::new(base, role == TrackerRole::Private, builder.access_file).await?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let config = Config {
        name: name.clone(),
        version: version.clone(),
        instance: instance.clone(),
        features: features(builder.legacy, role, builder.sealing, builder.tls),
        tracker: role,
        access: lists.effective(),
        serve_only: builder.serve_only,
        policies: builder.policies,
        port: listen.first().map(SocketAddr::port),
        bound: listen.first().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()),
        advertise: builder.advertise,
        dht: dht.is_some(),
        sealing: builder.sealing,
        limits: builder.limits.clone(),
    };
    let start = Instant::now();
    let now = Now { mono: Duration::ZERO, unix_ms: unix_ms() };
    let mut state = State::new(me, config, seed, now);
    state.name_ids(peers.iter().filter_map(|peer| peer.node));
    state.own_succession(identity.rotations());
    if let Some(path) = &builder.statements {
        Saved::read(path).restore(&mut state);
    }
    if let Some(message) = state.standing(&me).refusal(&me) {
        return Err(Error::Config(format!("{message}: nobody will talk to this node; it needs a new key")));
    }
    let mut discarded = Vec::new();
    let sealer = (builder.sealing != Sealing::Off).then(|| Sealer::new(me, &mut rand::rng()));
    if let Some(sealer) = &sealer {
        state.set_seal_key(sealer.key(), now, &mut discarded);
    }
    for cap in builder.caps {
        check_name("a capability", &cap.name)?;
        if !state.fits(&cap) {
            return Err(Error::TooLarge {
                what: "this node's record with its capabilities",
                size: state.record_size_with(&cap),
                limit: MAX_RECORD,
            });
        }
        let cap_name = cap.name.clone();
        if !state.register(cap, now, &mut discarded) {
            return Err(Error::Config(format!("no room for {cap_name:?}: a node has at most 256 capabilities")));
        }
    }
    for interest in &builder.interests {
        check_name("an interest", interest)?;
        if !state.add_interest(interest, now, &mut discarded) {
            return Err(Error::Config("a node has at most 256 interests".to_owned()));
        }
    }
    let mut handlers = Handlers { default: builder.default_handler, ..Handlers::default() };
    for (capability, handler) in builder.handlers {
        check_name("a capability", &capability)?;
        state.handles(&capability);
        handlers.by_capability.insert(capability, handler);
    }
    // The hello to a Python node tells what is provided at that moment; the state that knows it comes later.
    let own: Arc<OnceLock<Weak<Shared>>> = Arc::default();
    let later = Arc::clone(&own);
    let legacy_hello = move || {
        let shared = later.get().and_then(Weak::upgrade);
        shared.map(|s| s.read(|state, _| state.legacy_hello())).unwrap_or_default()
    };
    let net = Arc::new(NetConfig {
        tls: builder.tls,
        tls_keys: TlsKeys::new(&identity),
        identity: identity.clone(),
        version,
        features: features(builder.legacy, role, builder.sealing, builder.tls),
        instance,
        legacy: builder.legacy,
        limits: builder.limits,
        memory: state.memory(),
        legacy_hello: Arc::new(legacy_hello),
        port: Arc::default(),
        unix_now: Arc::new(|| (unix_ms() / 1000) as i64),
    });
    let mut dice = [0u8; 32];
    rand::rng().fill_bytes(&mut dice);
    let discovery = Discovery::new(me, dice);
    let shared = Shared::new(Parts {
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
        apart: !builder.handlers_here,
        access: lists,
    });
    let _ = own.set(Arc::downgrade(&shared));
    // The changes made so far asked for signatures one by one; one is enough.
    shared.with(|state, now, out| state.publish_record(now, out));
    shared.spawn(Arc::clone(&shared).run_alarms());
    shared.spawn(Arc::clone(&shared).watch_tasks());
    shared.keep_memory();
    // From here on its end is the node's end, also when nobody waits for the start any more.
    let inner = Arc::new(Inner { shared });
    let shared = &inner.shared;
    let _ = shared.owner.set(Arc::downgrade(&inner));
    if let Some(path) = builder.statements {
        shared.spawn(Arc::clone(shared).keep_statements(path));
    }
    // Before anybody is met: that would not be remembered.
    keeper::start(
        shared,
        !peers.is_empty(),
        builder.remember,
        #[cfg(feature = "lan")]
        builder.lan,
    )
    .await;
    if let Some(listener) = listener {
        shared.spawn(Arc::clone(shared).run_listener(listener));
    }
    if shared.dht.is_some() {
        shared.spawn(Arc::clone(shared).run_dht());
    }
    if builder.port_map {
        shared.keep_port_mapped();
    }
    if let Some(watch) = watch {
        shared.spawn(Arc::clone(shared).run_access(watch));
    }
    for peer in peers {
        let kept = shared.kept.add(&peer);
        shared.spawn(Arc::clone(shared).keep_connected(peer, kept));
    }
    Ok(Node { inner })
}

impl Shared {
    /// Stops gracefully, and waits for it.
    pub(crate) async fn shutdown(self: &Arc<Self>) {
        if !self.stopping.swap(true, Ordering::AcqRel) {
            let ends = EndOnDrop(Arc::clone(self));
            // On a task of its own: who waits for it may stop waiting, and the others' wait must come to an end.
            self.runtime.spawn(async move { ends.0.stop_gracefully().await });
        }
        self.stopped.cancelled().await;
    }

    /// What runs may finish, peers are told, everything is closed.
    async fn stop_gracefully(&self) {
        self.closing.cancel();
        self.with(|state, _, _| state.drain());
        let limit = self.net.limits.drain_timeout;
        let drained = tokio::time::timeout(limit, async {
            // Tasks and calls end in many places; a look every few milliseconds is simpler than a signal from each.
            while !self.read(|state, _| state.is_idle()) {
                tokio::time::sleep(LOOK).await;
            }
        });
        if drained.await.is_err() {
            tracing::warn!("tasks or calls were still running after {} s; they are given up", limit.as_secs_f64());
        }
        self.with(|state, now, out| {
            state.abandon_calls(now, out);
            // Before the goodbye, so that whoever waits hears why.
            state.abandon_tasks(now, out);
        });
        // A cancel or a result decided on another thread a moment ago must be in its outbox before the outbox closes. A
        // node that is busy for others may never be seen at rest: it goes on after a while.
        let _ = tokio::time::timeout(GOODBYE / 4, async {
            while !self.has_carried_out() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let gone = tokio::time::timeout(GOODBYE, async {
            loop {
                // Again and again: a handshake that was under way may come through meanwhile.
                let connections: Vec<_> = lock(&self.conns).values().map(|l| Arc::clone(&l.connection)).collect();
                if connections.is_empty() {
                    return;
                }
                for connection in connections {
                    connection.close(CloseReason::Shutdown, "the node is going down");
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        let _ = gone.await;
        self.end();
        // Handlers that don't listen are dropped where they await: 2 s of grace, and a little for the rest.
        let _ = tokio::time::timeout(GOODBYE + Duration::from_secs(1), self.spawned.wait()).await;
        self.stopped.cancel();
    }

    /// Ends everything at once; doing it again does nothing. Works without a runtime too.
    pub(crate) fn end(&self) {
        self.closing.cancel();
        self.stop.cancel();
        self.spawned.close();
        // Who had the lock before has put in what is taken out below; who gets it later sees that the node has ended.
        self.with(|state, _, _| state.drain());
        let connections: Vec<_> = lock(&self.conns).drain().collect();
        for (_, link) in connections {
            link.connection.abort();
        }
        if let (Some(dht), Some(shared)) = (&self.dht, self.strong()) {
            let port = dht.bound_port();
            dht.end();
            self.spawn(async move {
                if let Some(dht) = &shared.dht {
                    dht.ended(port).await;
                }
            });
        }
        lock(&self.calls).clear();
        let running: Vec<_> = lock(&self.tasks).values().map(|task| Arc::clone(&task.running)).collect();
        for running in running {
            running.cancel();
        }
        lock(&self.finds).clear();
        self.subscribers.clear();
        // A handler may hold a handle to its own node: nothing would ever free the two.
        let handlers = std::mem::take(&mut *self.handlers.write().unwrap_or_else(PoisonError::into_inner));
        drop(handlers);
        // Also when that task can't run any more, because the runtime is gone.
        let stopped = self.stopped.clone().drop_guard();
        let spawned = self.spawned.clone();
        self.runtime.spawn(async move {
            spawned.wait().await;
            drop(stopped);
        });
    }

    /// Counters and gauges.
    pub(crate) fn metrics(&self) -> Metrics {
        let (view, refused) = self.read(|state, _| (state.view(), state.refused()));
        let traffic = &self.traffic;
        let mut metrics = Metrics {
            peers: view.peers,
            unproven_peers: view.unproven_peers,
            encrypted_peers: view.encrypted_peers,
            records: view.records,
            tasks_running: view.tasks_running,
            tasks_done: view.counters.tasks_done,
            tasks_failed: view.counters.tasks_failed,
            calls_running: view.calls_running,
            calls_done: view.counters.calls_done,
            calls_failed: view.counters.calls_failed,
            messages_in: traffic.messages_in.load(Ordering::Relaxed),
            messages_out: traffic.messages_out.load(Ordering::Relaxed),
            bytes_in: traffic.bytes_in.load(Ordering::Relaxed),
            bytes_out: traffic.bytes_out.load(Ordering::Relaxed),
            relayed: view.counters.relayed,
            flooded: view.counters.flooded,
            dial_backs: view.counters.dial_backs,
            refused,
            closed: lock(&traffic.closed).clone(),
            memory: self.memory_info(),
            ..Metrics::default()
        };
        let unproven = self.entrance.half_open();
        let connections: Vec<_> = {
            let conns = lock(&self.conns);
            conns.values().map(|l| Arc::clone(&l.connection)).collect()
        };
        metrics.half_open = unproven;
        metrics.connections = unproven + connections.len();
        for (reason, n) in self.entrance.refused() {
            *metrics.refused.entry(reason.to_owned()).or_default() += n;
        }
        for connection in connections {
            metrics.messages_in += connection.messages_in();
            metrics.messages_out += connection.messages_out();
            metrics.bytes_in += connection.bytes_in();
            metrics.bytes_out += connection.bytes_out();
        }
        metrics
    }
}

/// A graceful stop that can't go on, because the runtime is gone, is an end all the same.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}
