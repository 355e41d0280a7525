//! The node's part in the DHT: joining it, putting there what belongs there, and carrying out what lookups want.

mod join;
mod lookups;
mod publish;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::builder::Dht;
use super::driver::{Shared, lock};
use crate::discovery::dht::Engine;
use crate::error::Error;
use crate::info::DhtHealth;
use crate::mesh::LookupId;

/// How often the DHT node is looked at while nothing happens: its table may have become empty.
const LOOK: Duration = Duration::from_secs(1);

/// How long the end waits for the port to be free again: the thread looks every 50 ms whether it is wanted.
const PORT_FREE: Duration = Duration::from_secs(1);

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
                let note = "the DHT is IPv4 only, and this node is bound to an IPv6 address".to_owned();
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

#[cfg(test)]
mod tests {
    use super::*;

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
