//! Joining the DHT, and staying in it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::{DhtPart, LOOK};
use crate::discovery::dht::{Engine, Join, own_ip_towards, public_bootstrap, resolve};
use crate::limits::MAX_DHT_CONTACTS;
use crate::node::builder::Dht;
use crate::node::driver::{Shared, lock};

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

/// How long the addresses of names are good for.
const RESOLVED: Duration = Duration::from_secs(60);

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
    /// Since when it knows nobody, and has heard of somebody.
    alone_since: Option<Instant>,
    /// The addresses of the nodes named to join through, and when they were looked up.
    resolved: Option<(Instant, Vec<SocketAddrV4>)>,
}

impl Keeper {
    /// Their addresses as of a while ago, or of now.
    async fn resolve(&mut self, nodes: &[String]) -> Vec<SocketAddrV4> {
        if let Some((at, found)) = &self.resolved
            && at.elapsed() < if found.is_empty() { REJOIN } else { RESOLVED }
        {
            return found.clone();
        }
        let found = resolve(nodes).await;
        self.resolved = Some((Instant::now(), found.clone()));
        found
    }
}

impl Shared {
    /// Joins it, and joins it anew when that is called for, for ever.
    pub(super) async fn keep_joined(&self, part: &DhtPart) {
        let mut keeper = Keeper {
            known: VecDeque::new(),
            joined: None,
            wait: REJOIN,
            refresh: (Instant::now(), REFRESH),
            refreshing: None,
            odd_since: None,
            alone_since: None,
            resolved: None,
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
                0 if engine.bootstrap.is_empty() => "no other node of it is known yet".to_owned(),
                0 => format!("none of {} nodes answers yet", engine.bootstrap.len()),
                1 => "1 node in its table".to_owned(),
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
        if !look.contacts.is_empty() || !news {
            keeper.alone_since = None;
        } else {
            keeper.alone_since.get_or_insert_with(Instant::now);
        }
        // Whoever it learned of may be about to ask it, and then it knows them.
        let alone = keeper.alone_since.is_some_and(|since| since.elapsed() >= ROLE);
        if alone || role {
            drop(engine);
            drop(lock(&part.engine).take());
            self.join_dht(part, keeper, &join).await;
        }
    }

    /// Whom the DHT would be joined through now, and as what. `None`: there is no way yet.
    async fn how_to_join(&self, part: &DhtPart, keeper: &mut Keeper) -> Option<Join> {
        let mut named: Vec<SocketAddrV4> = match &part.mode {
            Dht::Off => return None,
            Dht::Mesh => Vec::new(),
            Dht::Bootstrap(nodes) => keeper.resolve(nodes).await,
            Dht::Public => keeper.resolve(&public_bootstrap()).await,
        };
        let own = named.iter().position(|a| part.is_own(*a)).map(|at| named.drain(at..).next());
        let own = own.flatten();
        let mut bootstrap = named;
        if own.is_none() {
            bootstrap.extend(keeper.known.iter().filter(|a| !part.is_own(**a)));
        }
        // Else: one of those that all join through joins through those before it, the first through nobody. mainline takes
        // note of who asks it only while it has nobody to join through itself, and somebody has to.
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
            if let Some(ip) = own.map(|a| IpAddr::V4(*a.ip())).or(towards) {
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
        (keeper.odd_since, keeper.alone_since) = (None, None);
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
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn contacts_are_remembered_the_newest_staying() {
        let addr = |n: u16| SocketAddrV4::new(Ipv4Addr::LOCALHOST, n);
        let mut known = VecDeque::new();
        remember(&mut known, (1..=100).map(addr));
        remember(&mut known, [addr(50)]);
        assert_eq!((known.len(), known.front(), known.back()), (MAX_DHT_CONTACTS, Some(&addr(37)), Some(&addr(50))));
    }
}
