//! The node's part in the DHT: joining it, putting there what belongs there, and carrying out what lookups want.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::builder::Dht;
use super::driver::{Shared, lock};
use super::info::{DhtHealth, Source};
use crate::discovery::dht::{Engine, Gone, Join, Kept, Named, own_ip_towards, public_bootstrap, resolve, scope};
use crate::error::{CloseReason, Error};
use crate::identity::NodeId;
use crate::limits::{DHT_ANNOUNCE, LOOKUP_DIAL, MAX_DHT_CONTACTS};
use crate::mesh::{Action, How, LookupId, Publication, Wanted};
use crate::wire::Compact;

/// How often the DHT node is looked at while nothing happens: its table may have become empty.
const LOOK: Duration = Duration::from_secs(1);

/// The least wait before the DHT is joined anew; doubled each time it comes to nothing, up to [`REJOIN_MAX`]. What a
/// server keeps for others is lost with it.
const REJOIN: Duration = Duration::from_secs(5);

/// The longest wait before the DHT is joined anew.
const REJOIN_MAX: Duration = Duration::from_secs(300);

/// When the table is filled up after the DHT was joined, and how often later on: `mainline` does so every 15 minutes.
/// Whoever joined first knows nobody, and a DHT server doesn't remember who asks it; in a small mesh the one that
/// introduced the others may be gone by then.
const REFRESH: Duration = Duration::from_secs(2);

/// See [`REFRESH`]; doubled each time up to this.
const REFRESH_MAX: Duration = Duration::from_secs(60);

/// How long a node must have been dialable, or not, before it becomes a server, or is none any more: trackers that come
/// and go ask anew whether it can be dialled.
const ROLE: Duration = Duration::from_secs(3);

/// How many announces are under way at once: each asks some dozens of servers.
const ANNOUNCES: usize = 4;

/// The longest wait of a first announce: many nodes that start together don't ask all at once.
const JITTER_MS: u64 = 200;

/// The wait before something that nobody took is put into the DHT again; doubled up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(2);

/// The longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// How long the end waits for the port to be free again: the thread looks every 50 ms whether it is wanted.
const PORT_FREE: Duration = Duration::from_millis(500);

/// What the node keeps of it.
pub(crate) struct DhtPart {
    mode: Dht,
    bind: Ipv4Addr,
    /// The UDP port, and whether it must be this one.
    port: (u16, bool),
    listens: bool,
    engine: Mutex<Option<Engine>>,
    /// What is under way for each lookup.
    lookups: Mutex<HashMap<LookupId, CancellationToken>>,
    /// Counts up when what is announced may have changed, or the DHT was joined.
    changed: watch::Sender<u64>,
    seen: Mutex<Seen>,
}

/// What was last seen of it.
#[derive(Debug, Default)]
struct Seen {
    state: &'static str,
    detail: String,
    /// Whom it knows, and whom it joined through.
    contacts: Vec<SocketAddr>,
    /// Nodes in its table.
    nodes: usize,
    announced: usize,
    kept_here: usize,
    last_announce: Option<Instant>,
}

impl DhtPart {
    /// By the builder's settings and where the node listens. `None` as the part: it takes part in none, and why.
    pub(crate) fn new(
        mode: Dht,
        port: Option<u16>,
        listen: Option<SocketAddr>,
    ) -> Result<(Option<Self>, String), Error> {
        if mode == Dht::Off {
            return Ok((None, String::new()));
        }
        if let Dht::Bootstrap(nodes) = &mode
            && let Some(wrong) = nodes.iter().find(|n| !is_host_port(n))
        {
            return Err(Error::Config(format!("DHT node {wrong:?}: expected HOST:PORT")));
        }
        let bind = match listen.map(|a| a.ip()) {
            Some(IpAddr::V4(ip)) => ip,
            None => Ipv4Addr::UNSPECIFIED,
            Some(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv4Addr::UNSPECIFIED,
            Some(IpAddr::V6(_)) => {
                let note = "off: the DHT is IPv4 only, and this node is bound to an IPv6 address".to_owned();
                tracing::info!("{note}");
                return Ok((None, note));
            }
        };
        let fixed = port.is_some_and(|p| p != 0);
        let port = port.unwrap_or_else(|| listen.map_or(0, |a| a.port()));
        let seen = Seen { state: "starting", detail: "no contact known yet".to_owned(), ..Seen::default() };
        let part = Self {
            mode,
            bind,
            port: (port, fixed),
            listens: listen.is_some(),
            engine: Mutex::default(),
            lookups: Mutex::default(),
            changed: watch::channel(0).0,
            seen: Mutex::new(seen),
        };
        Ok((Some(part), String::new()))
    }

    fn engine(&self) -> Option<Engine> {
        lock(&self.engine).clone()
    }

    /// Counts up when what is announced may have changed.
    pub(crate) fn changed(&self) -> &watch::Sender<u64> {
        &self.changed
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// The DHT, once it is joined.
    async fn joined(&self) -> Engine {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(engine) = self.engine() {
                return engine;
            }
            // It lives as long as this part.
            let _ = changed.changed().await;
        }
    }

    fn note(&self, state: &'static str, detail: impl Into<String>) {
        let mut seen = lock(&self.seen);
        (seen.state, seen.detail) = (state, detail.into());
    }

    /// The thread has died: whoever can make `mainline` fail its own assertions has done so.
    fn lost(&self, engine: &Engine) {
        let mut slot = lock(&self.engine);
        if slot.as_ref().is_some_and(|e| e.id() == engine.id()) {
            tracing::warn!("the DHT's thread has ended unexpectedly; it is started again");
            *slot = None;
            self.note("starting", "its thread ended unexpectedly; it is started again");
        }
    }

    /// Ends what is under way, and the thread with it.
    pub(crate) fn end(&self) {
        for (_, token) in lock(&self.lookups).drain() {
            token.cancel();
        }
        drop(lock(&self.engine).take());
    }

    /// Waits until the thread has given its port back.
    pub(crate) async fn ended(&self, port: Option<u16>) {
        let Some(port) = port else { return };
        let free = async {
            while UdpSocket::bind((self.bind, port)).is_err() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(PORT_FREE, free).await;
    }

    /// The UDP port in use.
    pub(crate) fn bound_port(&self) -> Option<u16> {
        self.engine().map(|e| e.port)
    }

    /// Whether an address is that of this node's own DHT socket.
    fn is_own(&self, addr: SocketAddrV4) -> bool {
        addr.port() == self.port.0 && UdpSocket::bind((*addr.ip(), 0)).is_ok()
    }
}

/// Whether a text is HOST:PORT.
pub(crate) fn is_host_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_fits = !host.is_empty() && !host.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/');
        host_fits && port.parse::<u16>().is_ok_and(|p| p != 0)
    })
}

/// Those that were learned, the newest staying.
fn remember(known: &mut VecDeque<SocketAddrV4>, fresh: impl IntoIterator<Item = SocketAddrV4>) {
    for addr in fresh {
        known.retain(|k| *k != addr);
        known.push_back(addr);
    }
    while known.len() > MAX_DHT_CONTACTS {
        known.pop_front();
    }
}

/// How the DHT is joined and kept.
struct Keeper {
    known: VecDeque<SocketAddrV4>,
    joined: Option<Instant>,
    wait: Duration,
    refresh: (Instant, Duration),
    refreshing: Option<AbortOnDropHandle<()>>,
    /// Since when it serves and should not, or should and doesn't.
    odd_since: Option<Instant>,
}

impl Shared {
    /// Takes part in the DHT until the node closes.
    pub(crate) async fn run_dht(self: Arc<Self>) {
        let Some(part) = &self.dht else { return };
        let closing = self.closing.clone();
        let work = async {
            tokio::join!(self.keep_joined(part), self.keep_published(part));
        };
        tokio::select! {
            () = closing.cancelled() => {}
            () = work => {}
        }
    }

    // ---- joining ---------------------------------------------------------------------------------------------

    async fn keep_joined(&self, part: &DhtPart) {
        let mut keeper = Keeper {
            known: VecDeque::new(),
            joined: None,
            wait: REJOIN,
            refresh: (Instant::now(), REFRESH),
            refreshing: None,
            odd_since: None,
        };
        let mut changed = part.changed.subscribe();
        loop {
            self.keep_once(part, &mut keeper).await;
            tokio::select! {
                () = sleep(LOOK) => {}
                _ = changed.changed() => {}
            }
        }
    }

    async fn keep_once(&self, part: &DhtPart, keeper: &mut Keeper) {
        remember(&mut keeper.known, self.read(|state, _| state.dht_contacts()));
        let Some(engine) = part.engine() else {
            if let Some(join) = self.how_to_join(part, keeper).await {
                self.join_dht(part, keeper, &join).await;
            }
            return;
        };
        let rested = keeper.joined.is_none_or(|at| at.elapsed() >= keeper.wait);
        let Ok(look) = engine.look().await else {
            part.lost(&engine);
            return;
        };
        remember(&mut keeper.known, look.contacts.iter().copied());
        let met = {
            let mut seen = lock(&part.seen);
            let met = seen.nodes == 0 && !look.contacts.is_empty();
            seen.nodes = look.contacts.len();
            seen.contacts = look.contacts.iter().chain(&engine.bootstrap).map(|c| SocketAddr::V4(*c)).collect();
            seen.state = if look.server { "server" } else { "client" };
            seen.detail = match look.contacts.len() {
                0 if engine.bootstrap.is_empty() => "the first: no other node is known".to_owned(),
                0 => format!("none of {} nodes answers yet", engine.bootstrap.len()),
                n => format!("{n} nodes in its table"),
            };
            met
        };
        if met {
            // Now there is somebody to keep what this node announces.
            part.bump();
        }
        if !look.contacts.is_empty() {
            keeper.wait = REJOIN;
        }
        let (at, wait) = keeper.refresh;
        if at <= Instant::now() {
            keeper.refresh = (Instant::now() + wait, (wait * 2).min(REFRESH_MAX));
            keeper.refreshing = Some(engine.refresh());
        }
        if !rested {
            return;
        }
        let Some(join) = self.how_to_join(part, keeper).await else { return };
        // mainline takes no contacts later on: who has nobody, and learns of somebody, starts anew. So does who can be
        // dialled only now, or no longer.
        let news = join.bootstrap.iter().any(|b| !engine.bootstrap.contains(b));
        if part.mode == Dht::Public || join.server == engine.server {
            keeper.odd_since = None;
        } else {
            keeper.odd_since.get_or_insert_with(Instant::now);
        }
        let role = keeper.odd_since.is_some_and(|since| since.elapsed() >= ROLE);
        if (look.contacts.is_empty() && news) || role {
            drop(engine);
            drop(lock(&part.engine).take());
            self.join_dht(part, keeper, &join).await;
        }
    }

    /// Whom the DHT would be joined through now, and as what. `None`: there is no way yet.
    async fn how_to_join(&self, part: &DhtPart, keeper: &Keeper) -> Option<Join> {
        let known = keeper.known.iter().copied();
        let mut bootstrap: Vec<SocketAddrV4> = match &part.mode {
            Dht::Off => return None,
            Dht::Mesh => known.collect(),
            Dht::Bootstrap(nodes) => resolve(nodes).await.into_iter().chain(known).collect(),
            Dht::Public => resolve(&public_bootstrap()).await.into_iter().chain(known).collect(),
        };
        let own: Vec<SocketAddrV4> = bootstrap.extract_if(.., |a| part.is_own(*a)).collect();
        let mut unique = Vec::new();
        bootstrap.retain(|a| {
            !unique.contains(a) && {
                unique.push(*a);
                true
            }
        });
        bootstrap.truncate(MAX_DHT_CONTACTS);
        if part.listens && part.bind.is_unspecified() && part.mode != Dht::Mesh {
            // Without a connection a node that listens everywhere knows no address of its own yet.
            let towards = bootstrap.first().and_then(|a| own_ip_towards(*a));
            if let Some(ip) = own.first().map(|a| IpAddr::V4(*a.ip())).or(towards) {
                self.with(|state, now, out| state.learn_local_ip(ip, now, out));
            }
        }
        let dialable = part.listens && self.read(|state, _| state.addrs().iter().any(SocketAddr::is_ipv4));
        let (server, ready) = match &part.mode {
            Dht::Mesh => (dialable, dialable || !bootstrap.is_empty()),
            // The first of all, whoever it hears of later.
            Dht::Bootstrap(nodes) if nodes.is_empty() => (part.listens, part.listens || !bootstrap.is_empty()),
            Dht::Bootstrap(_) => (dialable, dialable || !bootstrap.is_empty()),
            // mainline itself finds out whether it can be reached, and serves then.
            _ => (false, !bootstrap.is_empty()),
        };
        if !ready {
            part.note(
                "starting",
                match part.mode {
                    Dht::Mesh => "no connected peer runs a DHT server yet",
                    _ => "none of the nodes to join through has an IPv4 address that can be found",
                },
            );
            return None;
        }
        Some(Join { bootstrap, server, bind: part.bind, port: part.port.0 })
    }

    async fn join_dht(&self, part: &DhtPart, keeper: &mut Keeper, join: &Join) {
        if keeper.joined.is_some_and(|at| at.elapsed() < keeper.wait) {
            return;
        }
        keeper.odd_since = None;
        if keeper.joined.replace(Instant::now()).is_some() {
            keeper.wait = (keeper.wait * 2).min(REJOIN_MAX);
        }
        let mut started = Engine::start(join).await;
        if matches!(&started, Err(e) if e.kind() == std::io::ErrorKind::AddrInUse) && !part.port.1 {
            // That the TCP port's number is free is likely, and no more: any other will do.
            started = Engine::start(&Join { port: 0, ..join.clone() }).await;
        }
        match started {
            Ok(engine) => {
                tracing::debug!(
                    port = engine.port,
                    server = engine.server,
                    through = join.bootstrap.len(),
                    "in the DHT"
                );
                let port = engine.server.then_some(engine.port);
                {
                    let mut slot = lock(&part.engine);
                    // Looked at under the lock: whoever ends the node takes the engine after that.
                    if self.closing.is_cancelled() {
                        return;
                    }
                    *slot = Some(engine);
                }
                lock(&part.seen).contacts = join.bootstrap.iter().map(|c| SocketAddr::V4(*c)).collect();
                lock(&part.seen).nodes = 0;
                part.note(if join.server { "server" } else { "client" }, "joining");
                self.with(|state, now, out| state.set_dht_port(port, now, out));
                part.bump();
            }
            Err(error) => {
                tracing::warn!(%error, "the DHT can't be joined; calls do without it");
                part.note("starting", format!("UDP port {} of {}: {error}", join.port, join.bind));
                self.with(|state, now, out| state.set_dht_port(None, now, out));
            }
        }
    }

    // ---- publishing ------------------------------------------------------------------------------------------

    async fn keep_published(&self, part: &DhtPart) {
        let mut changed = part.changed.subscribe();
        let mut plan = Plan::default();
        loop {
            changed.mark_unchanged();
            let publication = self.read(|state, _| state.publication());
            if let (Some(engine), Some(publication)) = (part.engine(), publication) {
                let alone = lock(&part.seen).nodes == 0;
                plan.company(!alone, Instant::now());
                let due = plan.due(&publication, engine.id(), Instant::now());
                self.publish(part, &mut plan, &engine, publication, due).await;
                let mut seen = lock(&part.seen);
                seen.announced = plan.kept.values().filter(|k| k.there).count();
                seen.kept_here = plan.kept.values().filter(|k| k.here).count();
                seen.last_announce = plan.last;
            }
            let next = plan.next().unwrap_or_else(|| Instant::now() + DHT_ANNOUNCE);
            tokio::select! {
                // Who is registered here may change without a word to this task.
                () = tokio::time::sleep_until(next.min(Instant::now() + 5 * LOOK)) => {}
                _ = changed.changed() => {}
            }
        }
    }

    async fn publish(
        &self,
        part: &DhtPart,
        plan: &mut Plan,
        engine: &Engine,
        publication: Publication,
        due: Vec<Entry>,
    ) {
        let own_ip = publication.compact.addrs.iter().find_map(|a| match a.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let mut under_way: JoinSet<(Entry, Result<Kept, Gone>)> = JoinSet::new();
        let mut due = due.into_iter();
        loop {
            while under_way.len() < ANNOUNCES
                && let Some(entry) = due.next()
            {
                let (engine, identity) = (engine.clone(), self.identity.clone());
                let (compact, port) = (publication.compact.clone(), publication.port);
                under_way.spawn(async move {
                    let result = match (&entry, port) {
                        (Entry::Item, _) => engine.put(&identity, compact, own_ip).await,
                        (Entry::Capability(name), Some(port)) => engine.announce(name, port, own_ip).await,
                        (Entry::Capability(_), None) => Ok(Kept::default()),
                    };
                    (entry, result)
                });
            }
            let Some(joined) = under_way.join_next().await else { return };
            let Ok((entry, result)) = joined else { continue };
            let Ok(kept) = result else { return part.lost(engine) };
            plan.done(&entry, kept, Instant::now());
        }
    }

    // ---- lookups ---------------------------------------------------------------------------------------------

    /// Asks the DHT for a lookup.
    pub(crate) fn ask_dht(&self, lookup: LookupId, what: Wanted) -> Vec<Action> {
        let (Some(part), Some(shared)) = (&self.dht, self.strong()) else {
            return self.decide(|s, now, out| s.dht_over(lookup, &what, None, now, out));
        };
        let token = lock(&part.lookups).entry(lookup).or_insert_with(|| self.stop.child_token()).clone();
        self.spawn(async move {
            let work = async {
                let Some(part) = &shared.dht else { return };
                // It may be about to be joined: the node, or whoever it learns of the DHT from, has just come up.
                let joined = timeout(shared.net.limits.query_wait, part.joined()).await;
                let Ok(engine) = joined else {
                    let note = format!("it is not joined: {}", lock(&part.seen).detail);
                    return shared.with(|s, now, out| s.dht_over(lookup, &what, Some(note), now, out));
                };
                let bound_here = part.bind.is_loopback();
                let scope = scope(part.mode == Dht::Public, bound_here, &lock(&part.seen).contacts);
                let mut asking = engine.ask(what.clone());
                drop(engine);
                while let Some(named) = asking.next().await {
                    shared.with(|s, now, out| match named {
                        Named::Addrs(addrs) => s.dht_addrs(lookup, &addrs, scope, now, out),
                        Named::Node(node, compact) => s.dht_record(lookup, node, compact, scope, now, out),
                    });
                }
                let note = asking.ended().await.err().map(|gone| gone.to_string());
                shared.with(|s, now, out| s.dht_over(lookup, &what, note, now, out));
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = work => {}
            }
            shared.tidy_lookup(lookup);
        });
        Vec::new()
    }

    /// A lookup that was stopped on another thread before its task began leaves nothing behind.
    fn tidy_lookup(&self, lookup: LookupId) {
        if !self.read(|state, _| state.looks_up(lookup)) {
            self.stop_dht(lookup);
        }
    }

    /// Ends what is under way for a lookup.
    pub(crate) fn stop_dht(&self, lookup: LookupId) {
        if let Some(part) = &self.dht
            && let Some(token) = lock(&part.lookups).remove(&lookup)
        {
            token.cancel();
        }
    }

    /// Connects to whoever is at an address that the DHT named.
    pub(crate) fn dial_unknown(&self, lookup: LookupId, addr: SocketAddr, node: Option<NodeId>) {
        let (Some(part), Some(shared)) = (&self.dht, self.strong()) else { return };
        let token = lock(&part.lookups).entry(lookup).or_insert_with(|| self.stop.child_token()).clone();
        self.spawn(async move {
            let dial = async {
                let worked = timeout(LOOKUP_DIAL, shared.connect_candidate(addr, node)).await.unwrap_or(false);
                shared.with(|s, now, out| s.candidate_over(lookup, addr, worked, now, out));
            };
            tokio::select! {
                () = token.cancelled() => {}
                () = dial => {}
            }
            shared.tidy_lookup(lookup);
        });
    }

    async fn connect_candidate(&self, addr: SocketAddr, node: Option<NodeId>) -> bool {
        let Some((_permit, place)) = self.place_for_dial().await else { return false };
        match crate::net::dial_candidate(addr, node, &self.net).await {
            Ok(established) => match self.established(established, Some(place), How::for_calls(Source::Dht)) {
                Ok(_) | Err((CloseReason::Duplicate, _)) => true,
                Err(_) => false,
            },
            Err(error) => {
                tracing::debug!(%addr, %error, "what the DHT named is not there");
                false
            }
        }
    }

    /// How the part in the DHT is.
    pub(crate) fn dht_health(&self) -> DhtHealth {
        let (lookups, lookups_found, lookups_failed) = self.read(|state, _| state.lookup_counts());
        let mut health = DhtHealth { lookups, lookups_found, lookups_failed, ..DhtHealth::off(&self.dht_note) };
        if let Some(part) = &self.dht {
            let engine = part.engine();
            let seen = lock(&part.seen);
            health.state = seen.state;
            health.detail.clone_from(&seen.detail);
            health.port = engine.as_ref().map(|e| e.port);
            health.nodes = seen.nodes;
            health.announced = seen.announced;
            health.kept_here = seen.kept_here;
            health.last_announce_s = seen.last_announce.map(|at| at.elapsed().as_secs());
        }
        health
    }
}

/// One thing that stands in the DHT.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Item,
    Capability(String),
}

/// What stands there, and when it is to be put there again.
#[derive(Debug, Default)]
struct Plan {
    entries: BTreeMap<Entry, (Instant, Duration)>,
    /// What the item said last, its `seq` aside.
    item: Option<Compact>,
    port: Option<u16>,
    company: bool,
    /// Which run of the DHT it was put through.
    engine: Option<[u8; 20]>,
    /// When somebody else last took something.
    last: Option<Instant>,
    /// Who keeps what.
    kept: BTreeMap<Entry, Kept>,
}

impl Plan {
    /// What is due now. What is wanted no longer is forgotten: it fades in the DHT.
    fn due(&mut self, wanted: &Publication, engine: [u8; 20], now: Instant) -> Vec<Entry> {
        let said = Compact { seq: 0, ..wanted.compact.clone() };
        if self.engine != Some(engine) || self.port != wanted.port {
            self.entries.clear();
            self.kept.clear();
            (self.engine, self.port) = (Some(engine), wanted.port);
        }
        if self.item.as_ref() != Some(&said) {
            self.entries.remove(&Entry::Item);
            self.item = Some(said);
        }
        self.entries.retain(|entry, _| match entry {
            Entry::Item => true,
            Entry::Capability(name) => wanted.capabilities.contains(name),
        });
        self.kept.retain(|entry, _| self.entries.contains_key(entry));
        let all = wanted.capabilities.iter().cloned().map(Entry::Capability).chain([Entry::Item]);
        for entry in all {
            let jitter = Duration::from_millis(rand::rng().random_range(0..JITTER_MS));
            self.entries.entry(entry).or_insert((now + jitter, AGAIN));
        }
        self.entries.iter().filter(|(_, (at, _))| *at <= now).map(|(entry, _)| entry.clone()).collect()
    }

    /// Whether there is anybody to keep it. What nobody kept is put there at once when somebody comes.
    fn company(&mut self, company: bool, now: Instant) {
        if company && !std::mem::replace(&mut self.company, true) {
            for (entry, due) in &mut self.entries {
                if !self.kept.get(entry).is_some_and(|k| k.there) {
                    *due = (now, AGAIN);
                }
            }
        }
        self.company = company;
    }

    /// One was put there. Own servers are few: it is put there again soon when nobody else keeps it.
    fn done(&mut self, entry: &Entry, kept: Kept, now: Instant) {
        let Some((at, wait)) = self.entries.get_mut(entry) else { return };
        self.kept.insert(entry.clone(), kept);
        if kept.there {
            *wait = AGAIN;
            *at = now + DHT_ANNOUNCE.mul_f64(rand::rng().random_range(0.8..1.0));
            self.last = Some(now);
        } else {
            *at = now + *wait;
            *wait = (*wait * 2).min(AGAIN_MAX);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.entries.values().map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::TrackerRole;

    fn publication(capabilities: &[&str], port: u16, seq: u64) -> Publication {
        Publication {
            capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
            port: Some(port),
            compact: Compact {
                name: String::new(),
                addrs: Vec::new(),
                trackers: Vec::new(),
                tracker: TrackerRole::None,
                seq,
                ttl_s: 1800,
            },
        }
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|e| if let Entry::Capability(name) = e { name } else { "" }).collect()
    }

    #[tokio::test]
    async fn what_changes_is_put_there_at_once_and_the_rest_when_its_time_comes() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        let soon = start + Duration::from_secs(1);
        let kept = Kept { here: false, there: true };
        assert!(plan.due(&publication(&["a", "b"], 1, 1), [0; 20], start).len() <= 3);
        let due = plan.due(&publication(&["a", "b"], 1, 1), [0; 20], soon);
        assert_eq!(names(&due), ["", "a", "b"]);
        for entry in &due {
            plan.done(entry, kept, soon);
        }
        // Another seq alone is no change.
        assert!(plan.due(&publication(&["a", "b"], 1, 2), [0; 20], soon).is_empty());
        // Nobody is told that `b` is gone; it is not renewed.
        plan.due(&publication(&["a", "c"], 1, 2), [0; 20], soon);
        let later = soon + Duration::from_secs(1);
        assert_eq!(names(&plan.due(&publication(&["a", "c"], 1, 2), [0; 20], later)), ["c"]);
        plan.done(&Entry::Capability("c".into()), Kept::default(), later);
        assert_eq!(plan.next(), Some(later + AGAIN));
        // Another address, and another run of the DHT: everything anew.
        plan.due(&publication(&["a", "c"], 2, 2), [0; 20], later);
        let much_later = later + Duration::from_secs(1);
        assert_eq!(names(&plan.due(&publication(&["a", "c"], 2, 2), [0; 20], much_later)), ["", "a", "c"]);
        let due = plan.due(&publication(&["a", "c"], 2, 2), [1; 20], much_later + Duration::from_secs(1));
        assert!(due.len() <= 3 && plan.entries.len() == 3);
        for entry in [Entry::Item, Entry::Capability("a".into()), Entry::Capability("c".into())] {
            plan.done(&entry, kept, much_later);
        }
        let due = plan.due(&publication(&["a", "c"], 2, 2), [1; 20], much_later + DHT_ANNOUNCE);
        assert_eq!(names(&due), ["", "a", "c"]);
    }

    #[test]
    fn contacts_are_remembered_the_newest_staying() {
        let addr = |n: u16| SocketAddrV4::new(Ipv4Addr::LOCALHOST, n);
        let mut known = VecDeque::new();
        remember(&mut known, (1..=100).map(addr));
        remember(&mut known, [addr(50)]);
        assert_eq!((known.len(), known.front(), known.back()), (MAX_DHT_CONTACTS, Some(&addr(37)), Some(&addr(50))));
    }

    #[test]
    fn nodes_to_join_through_are_host_and_port() {
        for text in ["10.0.0.1:7878", "box.lan:1"] {
            assert!(is_host_port(text), "{text}");
        }
        for text in ["", "box", ":1", "box:", "box:0", "box:70000", "http://box:1", "a b:1"] {
            assert!(!is_host_port(text), "{text}");
        }
    }
}
