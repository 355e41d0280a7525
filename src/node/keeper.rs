//! Finding peers without being told of any: who was met before, who is on the local network. One task dials the
//! candidates, one writes down who was met, one listens to the local network.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::driver::{Shared, lock, unix_ms};
use crate::discovery::candidates::{Candidates, Next, Outcome, Present, Sighting, Ticket};
use crate::discovery::remembered::{self, Remembered, Unusable};
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::info::{DiscoveryHealth, DiscoveryState, Source};
use crate::limits::{ENOUGH_PEERS, REMEMBERED_CANDIDATES};
use crate::mesh::How;
use crate::net::HandshakeError;

/// How long changes wait to be written down: those of a start or of a lost tracker come together.
const SAVE_DELAY: Duration = Duration::from_secs(2);

/// How long a node with configured peers waits before it dials others: most likely they are the same, and two connections
/// to one node would replace each other.
const GRACE: Duration = Duration::from_secs(1);

/// How often a node that has too few peers is reminded of more of those it met before.
const RECALL: Duration = Duration::from_secs(20);

/// What a node knows of others that it has not met in this run, and how it came to know.
#[derive(Debug)]
pub(crate) struct Discovery {
    candidates: Mutex<Candidates>,
    /// Rung when there is somebody new to dial.
    news: Notify,
    remembered: Mutex<Remembered>,
    /// Whether anybody is remembered at all.
    remembers: AtomicBool,
    /// Rung when there is something to write down.
    met: Notify,
    health: Mutex<BTreeMap<&'static str, (Source, DiscoveryState, String)>>,
}

impl Discovery {
    pub(crate) fn new(me: NodeId, seed: [u8; 32]) -> Self {
        let off = |name, source| (name, (source, DiscoveryState::Off, String::new()));
        Self {
            candidates: Mutex::new(Candidates::new(me, seed)),
            news: Notify::new(),
            remembered: Mutex::default(),
            remembers: false.into(),
            met: Notify::new(),
            health: Mutex::new([off("lan", Source::Lan), off("remembered", Source::Remembered)].into()),
        }
    }

    /// Says how a way of finding nodes is doing; its counts are those of `source`.
    pub(crate) fn set_health(&self, name: &'static str, source: Source, state: DiscoveryState, detail: String) {
        lock(&self.health).insert(name, (source, state, detail));
    }

    /// How each way of finding nodes is doing, by name.
    pub(crate) fn health(&self) -> Vec<DiscoveryHealth> {
        let candidates = lock(&self.candidates);
        let health = lock(&self.health);
        let one = |(name, (source, state, detail)): (&&'static str, &(Source, DiscoveryState, String))| {
            let counts = candidates.counts(*source);
            DiscoveryHealth {
                name,
                state: *state,
                detail: detail.clone(),
                candidates: counts.candidates,
                dialled: counts.dialled,
                proven: counts.proven,
            }
        };
        health.iter().map(one).collect()
    }

    /// A dial of this node has ended with a proof of who is there.
    pub(crate) fn met(&self, node: NodeId, addr: SocketAddr, tracker: bool) {
        if self.remembers.load(Ordering::Acquire) {
            lock(&self.remembered).worked(node, addr, tracker, unix_ms() / 1000);
            self.met.notify_one();
        }
    }
}

/// Starts what was asked for.
pub(crate) async fn start(
    shared: &Arc<Shared>,
    has_peers: bool,
    remember: Option<PathBuf>,
    #[cfg(feature = "lan")] lan: Option<super::Lan>,
) {
    let mut keeps = false;
    if let Some(path) = remember {
        shared.start_remembering(path).await;
        keeps = true;
    }
    #[cfg(feature = "lan")]
    if let Some(lan) = lan {
        keeps |= shared.start_lan(lan);
    }
    if keeps {
        let grace = if has_peers { GRACE } else { Duration::ZERO };
        shared.spawn(Arc::clone(shared).run_keeper(grace));
    }
}

impl Shared {
    /// Somebody says that a node is at an address: it is dialled when more peers are wanted. `false`: it isn't taken.
    pub(crate) fn sighted(&self, said: Sighting) -> bool {
        if said.node.is_some_and(|node| !self.read(|state, _| state.admits(&node))) {
            return false;
        }
        let taken = lock(&self.discovery.candidates).seen(said, self.start.elapsed());
        if taken {
            self.discovery.news.notify_one();
        }
        taken
    }

    /// Dials candidates while more peers are wanted, until the node closes.
    async fn run_keeper(self: Arc<Self>, grace: Duration) {
        tokio::select! {
            () = self.closing.cancelled() => return,
            () = tokio::time::sleep(grace) => {}
        }
        let mut dials: JoinSet<(Ticket, Sighting, Outcome)> = JoinSet::new();
        let mut changed = self.peers_changed.subscribe();
        let mut before = HashSet::new();
        let mut recall = Recall::default();
        loop {
            let present = self.present();
            if !before.is_subset(&present.peers) {
                recall = Recall::default();
            }
            let recall_in = recall.look(&self, &present);
            let now = self.start.elapsed();
            let mut wait = recall_in.map(|wait| now + wait);
            {
                let mut candidates = lock(&self.discovery.candidates);
                for lost in before.difference(&present.peers) {
                    candidates.lost(lost, now);
                }
                loop {
                    match candidates.next(now, &present) {
                        Next::Dial(ticket, said) => {
                            let shared = Arc::clone(&self);
                            dials.spawn(async move {
                                let outcome = shared.dial_candidate(&said).await;
                                (ticket, said, outcome)
                            });
                        }
                        Next::Wait(until) => {
                            wait = [wait, until].into_iter().flatten().min();
                            break;
                        }
                    }
                }
            }
            before = present.peers;
            let sleep = async {
                match wait {
                    Some(at) => tokio::time::sleep_until(self.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.closing.cancelled() => return,
                done = dials.join_next(), if !dials.is_empty() => {
                    if let Some(Ok((ticket, said, outcome))) = done {
                        self.candidate_ended(ticket, &said, outcome);
                    }
                }
                changed = changed.changed() => if changed.is_err() { return },
                () = self.discovery.news.notified() => {}
                () = sleep => {}
            }
        }
    }

    fn present(&self) -> Present {
        self.read(|state, _| {
            let mut present = Present::default();
            for (node, found) in state.connected_nodes() {
                present.lan += usize::from(found == Source::Lan);
                present.peers.insert(node);
            }
            present
        })
    }

    async fn dial_candidate(&self, said: &Sighting) -> Outcome {
        let outcome = match crate::net::dial(&said.addr.to_string(), said.node, &self.net).await {
            Ok(established) => match self.established(established, None, How::kept(said.source)) {
                Ok(_) | Err((CloseReason::Duplicate, _)) => Outcome::Proven,
                Err((CloseReason::SelfConnection, _)) => Outcome::Itself,
                Err(_) => Outcome::Refused,
            },
            // Who is there has proven it, and has another connection to this node.
            Err(HandshakeError::Duplicate(_)) => Outcome::Proven,
            Err(error) => {
                tracing::debug!(addr = %said.addr, source = %said.source, %error, "a candidate is not there");
                match error.reason() {
                    Some(CloseReason::SelfConnection) => Outcome::Itself,
                    // It is there, and will be again.
                    None | Some(CloseReason::Full | CloseReason::Shutdown) => Outcome::Failed,
                    Some(_) => Outcome::Refused,
                }
            }
        };
        tracing::debug!(addr = %said.addr, source = %said.source, ?outcome, "a candidate was dialled");
        outcome
    }

    fn candidate_ended(&self, ticket: Ticket, said: &Sighting, outcome: Outcome) {
        lock(&self.discovery.candidates).ended(ticket, outcome, self.start.elapsed());
        if let (Source::Remembered, Some(node), Outcome::Failed | Outcome::Refused) = (said.source, said.node, outcome)
        {
            lock(&self.discovery.remembered).failed(&node, &said.addr);
            self.discovery.met.notify_one();
        }
    }

    /// Reads who was met in earlier runs, and begins to write down who is met in this one.
    async fn start_remembering(self: &Arc<Self>, path: PathBuf) {
        let (me, from) = (self.me, path.clone());
        let read = tokio::task::spawn_blocking(move || {
            let known = Remembered::read(&from, &me, unix_ms() / 1000);
            let aside = matches!(known, Err(Unusable::Damaged(_))).then(|| remembered::put_aside(&from));
            (known, aside)
        });
        let mut writable = true;
        let shown = path.display();
        let known = match read.await {
            Ok((Ok(known), _)) => known,
            Ok((Err(why), Some(Ok(aside)))) => {
                let aside = aside.display();
                tracing::warn!("the remembered peers in {shown} are not used: {why}; the file is now {aside}");
                Remembered::default()
            }
            Ok((Err(why), aside)) => {
                // What can't be read is not written over.
                writable = false;
                let aside = aside.and_then(Result::err).map(|e| format!(", and can't be put aside: {e}"));
                let aside = aside.unwrap_or_default();
                tracing::warn!("peers are not remembered in {shown}: {why}{aside}");
                self.remembering(DiscoveryState::Failing, format!("{shown}: {why}"));
                Remembered::default()
            }
            Err(_) => return,
        };
        if writable {
            self.remembering(DiscoveryState::On, format!("{} nodes in {shown}", known.len()));
        }
        *lock(&self.discovery.remembered) = known;
        self.discovery.remembers.store(true, Ordering::Release);
        if writable {
            self.spawn(Arc::clone(self).run_memory(path));
        }
    }

    fn remembering(&self, state: DiscoveryState, detail: String) {
        self.discovery.set_health("remembered", Source::Remembered, state, detail);
    }

    /// Writes down who was met: a moment after something changed, and at the end.
    async fn run_memory(self: Arc<Self>, path: PathBuf) {
        let mut told = false;
        loop {
            let closing = tokio::select! {
                () = self.closing.cancelled() => true,
                () = self.discovery.met.notified() => tokio::select! {
                    () = self.closing.cancelled() => true,
                    () = tokio::time::sleep(SAVE_DELAY) => false,
                },
            };
            let (content, count) = {
                let mut remembered = lock(&self.discovery.remembered);
                (remembered.unsaved(), remembered.len())
            };
            if let Some(content) = content {
                let to = path.clone();
                let saved = tokio::task::spawn_blocking(move || remembered::save(&to, &content)).await;
                match saved {
                    Ok(Ok(())) => self.remembering(DiscoveryState::On, format!("{count} nodes in {}", path.display())),
                    Ok(Err(e)) => {
                        let why = format!("{} can't be written: {e}", path.display());
                        if !told {
                            tracing::warn!("peers are remembered for this run only: {why}");
                        }
                        told = true;
                        self.remembering(DiscoveryState::Failing, why);
                    }
                    Err(_) => return,
                }
            }
            if closing {
                return;
            }
        }
    }

    /// Announces this node on the local network and listens to others. `false`: nobody could use it.
    #[cfg(feature = "lan")]
    fn start_lan(self: &Arc<Self>, lan: super::Lan) -> bool {
        use crate::discovery::lan;

        let settings = lan::Settings { me: self.me, listen: self.listen.first().copied(), interfaces: lan.interfaces };
        if settings.is_senseless() {
            let detail =
                "this node listens on loopback only; to be found there, name the loopback interface".to_owned();
            self.discovery.set_health("lan", Source::Lan, DiscoveryState::Off, detail);
            return false;
        }
        self.discovery.set_health("lan", Source::Lan, DiscoveryState::On, "starting".to_owned());
        self.spawn(Arc::clone(self).run_lan(lan::Lan::new(settings)));
        true
    }

    #[cfg(feature = "lan")]
    async fn run_lan(self: Arc<Self>, mut lan: crate::discovery::lan::Lan) {
        loop {
            let event = tokio::select! {
                () = self.closing.cancelled() => break,
                event = lan.next() => event,
            };
            self.on_lan(event);
        }
        lan.close().await;
    }

    #[cfg(feature = "lan")]
    fn on_lan(&self, event: crate::discovery::lan::Event) {
        use crate::discovery::lan::Event;

        match event {
            Event::Seen(node, addrs) => {
                for addr in addrs {
                    self.sighted(Sighting { node: Some(node), addr, source: Source::Lan, tracker: false });
                }
            }
            Event::Gone(node) => lock(&self.discovery.candidates).gone(&node, Source::Lan),
            Event::Restarted => lock(&self.discovery.candidates).restarted(Source::Lan),
            Event::Health(works, detail) => {
                let state = if works { DiscoveryState::On } else { DiscoveryState::Failing };
                if !works {
                    tracing::warn!("discovery on the local network: {detail}");
                }
                self.discovery.set_health("lan", Source::Lan, state, detail);
            }
            Event::NoNetwork(detail) => {
                tracing::info!("discovery on the local network: {detail}");
                self.discovery.set_health("lan", Source::Lan, DiscoveryState::Waiting, detail);
            }
        }
    }
}

/// Brings those met before back to mind, a few at a time, best first.
#[derive(Default)]
struct Recall {
    /// Where in the order it goes on.
    at: usize,
    /// When it is due.
    due: Duration,
}

impl Recall {
    /// Gives when to look again; `None`: when somebody is lost.
    fn look(&mut self, shared: &Shared, present: &Present) -> Option<Duration> {
        if present.peers.len() >= ENOUGH_PEERS {
            return None;
        }
        let now = shared.start.elapsed();
        if now >= self.due {
            self.due = now + RECALL;
            let known: Vec<Sighting> = {
                let remembered = lock(&shared.discovery.remembered);
                // A change of the order may bring somebody twice or not at all; the next time it will be otherwise.
                let from = if self.at < remembered.len() { self.at } else { 0 };
                let some = remembered.iter().skip(from).take(REMEMBERED_CANDIDATES / 2);
                let some: Vec<_> = some.collect();
                self.at = from + some.len();
                let sighting =
                    |node, addr, tracker| Sighting { node: Some(node), addr, source: Source::Remembered, tracker };
                some.into_iter().flat_map(|m| m.addrs.iter().map(move |a| sighting(m.id, *a, m.tracker))).collect()
            };
            if known.is_empty() {
                return None;
            }
            for said in known {
                if said.node.is_none_or(|node| !present.peers.contains(&node)) {
                    shared.sighted(said);
                }
            }
        }
        Some(self.due.saturating_sub(now))
    }
}
