//! The node's connections: those that come, those it keeps, and how they enter the mesh.

use std::str::FromStr;
use std::sync::Arc;

use rand::RngExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::driver::{Link, Place, Shared, lock};
use super::start::DEFAULT_PORT;
use crate::error::{CloseReason, Error};
use crate::identity::NodeId;
use crate::info::{Activity, Source};
use crate::mesh::redial::Redial;
use crate::mesh::{Arrival, ConnId, How, State};
use crate::net::{Established, HandshakeError};
use crate::wire::{Object, Speaker, TrackerRole};

/// A peer to keep connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAddr {
    /// Who must answer there, if that was said.
    pub(crate) node: Option<NodeId>,
    /// `host:port`.
    pub(crate) addr: String,
}

impl FromStr for PeerAddr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Config(format!("peer {text:?}: {why}; expected [NODE_ID@]HOST[:PORT]"));
        let (node, addr) = match text.rsplit_once('@') {
            Some((id, addr)) => (Some(id.parse().map_err(|e| wrong(format!("{e}")))?), addr),
            None => (None, text),
        };
        let has_port = match addr.rsplit_once(':') {
            // An IPv6 address without brackets has no port.
            Some((host, _)) if host.contains(':') && !host.ends_with(']') => None,
            Some((host, port)) => Some((host, port)),
            None => None,
        };
        let addr = match has_port {
            Some(("", _)) => return Err(wrong("no host".into())),
            Some((host, port)) => {
                let port: u16 = port.parse().map_err(|_| wrong(format!("{port:?} is not a port")))?;
                if port == 0 {
                    return Err(wrong("port 0 can't be dialled".into()));
                }
                format!("{host}:{port}")
            }
            None if addr.is_empty() => return Err(wrong("no host".into())),
            None if addr.contains(':') && !addr.ends_with(']') => format!("[{addr}]:{DEFAULT_PORT}"),
            None => format!("{addr}:{DEFAULT_PORT}"),
        };
        if addr.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong("a host has no white space".into()));
        }
        Ok(Self { node, addr })
    }
}

impl std::fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.node {
            Some(node) => write!(f, "{node}@{}", self.addr),
            None => f.write_str(&self.addr),
        }
    }
}

impl Shared {
    /// A connection came through the handshake: it enters the mesh, or is refused.
    pub(crate) fn established(
        &self,
        established: Established,
        mut place: Option<Place>,
        how: How,
    ) -> Result<ConnId, (CloseReason, String)> {
        let conn = self.next_conn();
        let proven = &established.proven;
        let tracker = established.welcome.as_ref().map(|w| w.tracker).unwrap_or_default();
        let arrival = Arrival {
            node: proven.node,
            speaker: proven.speaker,
            addr: established.addr,
            local: established.local,
            inbound: established.inbound,
            encrypted: established.encrypted(),
            how,
            instance: proven.instance.clone(),
            version: proven.version.clone(),
            features: proven.features.clone(),
            tracker,
            observed: established.welcome.as_ref().and_then(|w| w.observed),
            caps: proven.hello.as_ref().map(|h| h.caps.clone()).unwrap_or_default(),
        };
        let known: Vec<_> = established.welcome.as_ref().map(|w| w.peers.clone()).unwrap_or_default();
        let (addr, inbound, legacy) = (arrival.addr, arrival.inbound, matches!(arrival.speaker, Speaker::Legacy(_)));
        let (from, hooks) = (arrival.node, self.hooks());
        let (chain, pinned) = (Arc::clone(&proven.rotations), established.pinned);
        if !inbound && !legacy && from != self.me {
            // Before anybody hears that it is connected: who stops the node then finds it remembered.
            self.discovery.met(from, addr, tracker != TrackerRole::None);
        }
        let mut established = Some(established);
        let mut tasks = None;
        let result = self.with(|state, now, out| {
            // Looked at under the lock: whoever ends the node takes it after that, and finds this connection.
            if self.stop.is_cancelled() {
                return Err((CloseReason::Shutdown, "the node is going down".to_owned()));
            }
            if !legacy {
                state.introduced(from, &chain, pinned, now, out)?;
            }
            if let Some(Place::Taken(place)) = &mut place {
                place.prove().map_err(|why| (why.reason(), why.message()))?;
            }
            let records = state.connected(conn, arrival, now, out)?;
            let first = match (inbound, legacy) {
                (false, _) => None,
                (true, true) => Some(self.hello_ack(state)),
                (true, false) => {
                    Some(crate::mesh::handshake::welcome(&self.me, addr, state.tracker_role(), records.iter()))
                }
            };
            // Under the lock, so that nobody finds the peer in the state and no connection to it.
            if let Some(established) = established.take() {
                let (connection, both) = established.prepare(conn, first, hooks, &self.net);
                tasks = Some(both);
                let link = Link { connection: Arc::new(connection), _place: place.take() };
                lock(&self.conns).insert(conn, link);
            }
            for record in known {
                state.learned_from_welcome(record, conn, from, now, out);
            }
            Ok(())
        });
        // Outside of it: a runtime that is shutting down drops them here and now, and their end wants the lock.
        if let Some(tasks) = tasks {
            tasks.run();
        }
        match result {
            Ok(()) => Ok(conn),
            Err((reason, message)) => {
                self.count_closed(Some(reason));
                if let Some(established) = established {
                    if reason != CloseReason::Duplicate {
                        self.tell(Activity::Refused { addr, reason, message: message.clone() });
                    }
                    let text = message.clone();
                    self.spawn(async move {
                        established.refuse(reason, &text).await;
                        // Until it is gone it takes up a place: who is refused does not get around the cap.
                        drop(place);
                    });
                }
                Err((reason, message))
            }
        }
    }

    /// Our side of the Python package's handshake.
    fn hello_ack(&self, state: &State) -> Object {
        let hello = state.legacy_hello();
        let known = state.legacy_known_peers();
        crate::mesh::handshake::legacy_hello_ack(
            &self.me,
            &self.net.version,
            &hello.caps,
            &hello.interests,
            hello.tracker,
            &known,
        )
    }

    /// Takes connections until the node closes.
    pub(crate) async fn run_listener(self: Arc<Self>, listener: TcpListener) {
        let shared = Arc::clone(&self);
        crate::net::accept_loop(
            listener,
            Arc::clone(&self.entrance),
            self.closing.clone(),
            move |stream, addr, place| {
                let shared = Arc::clone(&shared);
                let task = Arc::clone(&shared);
                shared.spawn(async move {
                    let handshake = crate::net::handshake_inbound(stream, &task.net);
                    let result = tokio::select! {
                        () = task.stop.cancelled() => return,
                        result = handshake => result,
                    };
                    match result {
                        Ok(established) => {
                            drop(task.established(established, Some(Place::Taken(place)), How::INBOUND));
                        }
                        Err(HandshakeError::Probe(nonce)) => task.with(|s, now, out| s.probed(nonce, now, out)),
                        Err(error) => {
                            let Some(reason) = error.reason() else { return task.count_closed(None) };
                            task.count_closed(Some(reason));
                            tracing::debug!(%addr, %reason, %error, "a connection was refused");
                            task.tell(Activity::Refused { addr, reason, message: error.to_string() });
                        }
                    }
                });
            },
        )
        .await;
    }

    /// Keeps connected to a peer: dials it, waits until it is lost, dials again with backoff and jitter, for ever.
    pub(crate) async fn keep_connected(self: Arc<Self>, peer: PeerAddr, kept: usize) {
        let closing = self.closing.clone();
        tokio::select! {
            () = closing.cancelled() => {}
            () = self.redial(peer, kept) => {}
        }
    }

    async fn redial(&self, peer: PeerAddr, kept: usize) {
        let mut access = self.access_changed.subscribe();
        let limits = &self.net.limits;
        let mut redial = Redial::new(limits);
        let mut node = peer.node;
        loop {
            if let Some(node) = node {
                let began = tokio::time::Instant::now();
                self.until_lost(node).await;
                // It may be the other side that dialled.
                redial.lost(began.elapsed(), self.now().mono, limits);
            }
            self.kept.busy(kept);
            access.borrow_and_update();
            let failure = match self.dial_peer(&peer).await {
                Ok(found) => {
                    self.kept.met(kept, found);
                    node = peer.node.or(Some(found));
                    let began = tokio::time::Instant::now();
                    self.until_lost(found).await;
                    redial.lost(began.elapsed(), self.now().mono, limits);
                    None
                }
                Err(Failure::Itself) => {
                    tracing::warn!(%peer, "that peer is this node itself; it is not dialled again");
                    self.kept.failed(kept, Some(CloseReason::SelfConnection), "it is this node itself");
                    return;
                }
                Err(Failure::Other(reason, message)) => {
                    self.kept.failed(kept, reason, &message);
                    Some(message)
                }
            };
            let wait = redial.next(self.now().mono, limits, rand::rng().random_range(0.0..=1.0));
            if let Some(message) = failure {
                let retry_in_ms = wait.as_millis() as u64;
                tracing::debug!(%peer, %message, retry_in_ms, "dial failed");
                self.tell(Activity::DialFailed { peer: peer.to_string(), message, retry_in_ms });
                // What answers there now may be somebody else.
                node = peer.node;
            }
            self.kept.waits(kept, self.now().mono.saturating_add(wait));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Whom it would not let in a moment ago it may let in now.
                () = self.let_in_again(&peer, &mut access) => {}
            }
        }
    }

    /// Completes when a peer that this node did not let in is let in.
    async fn let_in_again(&self, peer: &PeerAddr, access: &mut watch::Receiver<u64>) {
        let barred = |shared: &Self| peer.node.is_some_and(|node| !shared.read(|state, _| state.admits(&node)));
        if !barred(self) {
            return std::future::pending().await;
        }
        while access.changed().await.is_ok() {
            if !barred(self) {
                return;
            }
        }
        std::future::pending().await
    }

    async fn dial_peer(&self, peer: &PeerAddr) -> Result<NodeId, Failure> {
        // Whoever was pinned may have another id by now.
        let expected = peer.node.map(|node| self.read(|state, _| state.current_id(&node)));
        if let Some(node) = expected
            && let Some(why) = self.read(|state, _| state.not_dialled(&node))
        {
            return Err(Failure::Other(Some(CloseReason::NotAllowed), why));
        }
        match crate::net::dial(&peer.addr, expected, &self.net).await {
            Ok(established) => {
                let node = established.proven.node;
                match self.established(established, None, How::kept(Source::Peer)) {
                    Ok(_) | Err((CloseReason::Duplicate, _)) => Ok(node),
                    Err((CloseReason::SelfConnection, _)) => Err(Failure::Itself),
                    Err((reason, message)) => Err(Failure::Other(Some(reason), format!("{reason}: {message}"))),
                }
            }
            // Who answers there has another connection to this node, which is as good.
            Err(HandshakeError::Duplicate(node)) => Ok(node),
            Err(error) => Err(match error.reason() {
                Some(CloseReason::SelfConnection) => Failure::Itself,
                reason => Failure::Other(reason, error.to_string()),
            }),
        }
    }

    /// Waits while a node is connected, over whatever connection; that stays also when it was made for a call.
    async fn until_lost(&self, node: NodeId) {
        let mut changed = self.peers_changed.subscribe();
        while self.with(|state, _, _| state.keep_peer(&node)) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

enum Failure {
    Itself,
    Other(Option<CloseReason>, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_host_and_port_with_or_without_an_id() {
        let id = NodeId::from_bytes([7; 32]);
        let of = |text: &str| text.parse::<PeerAddr>().map(|p| (p.node, p.addr)).map_err(|e| e.to_string());
        assert_eq!(of("box:7000"), Ok((None, "box:7000".into())));
        assert_eq!(of("box"), Ok((None, "box:7878".into())));
        assert_eq!(of(&format!("{id}@10.0.0.1:1")), Ok((Some(id), "10.0.0.1:1".into())));
        assert_eq!(of("::1"), Ok((None, "[::1]:7878".into())));
        assert_eq!(of("[::1]:5"), Ok((None, "[::1]:5".into())));
        assert_eq!(of("[::1]"), Ok((None, "[::1]:7878".into())));
        for wrong in ["", ":1", "box:", "box:0", "box:70000", "box:x", "abc@box:1", "a b:1", "@box:1"] {
            assert!(of(wrong).is_err(), "{wrong:?} was taken");
        }
    }
}
