//! Nodes of the Python package: what they say means the same, but less of it is proven.

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::handshake::LegacyHello;
use super::queries::Purpose;
use super::state::{State, Timer};
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::MAX_CAPS;
use crate::node::TrackerRole;
use crate::wire::{Builder, Capability, Message, Object, Query};

/// The most nodes named to a Python node, which dials every one of them.
const MAX_KNOWN: usize = 8;

/// The most answers held back for one Python node until it reads again: what comes on top is dropped and counted.
const MAX_HELD: usize = 256;

impl State {
    pub(super) fn handle_legacy(
        &mut self,
        conn: ConnId,
        message: Message,
        signed: bool,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(conn) else { return };
        let claimed = peer.arrival.node;
        match message {
            Message::InterestUpdate(names) => {
                // The package registers after connecting and tells only this: the names it provides.
                if let Some(legacy) = &mut peer.legacy {
                    legacy.caps.extend(names.into_iter().take(MAX_CAPS));
                    while legacy.caps.len() > MAX_CAPS {
                        legacy.caps.pop_last();
                    }
                }
                self.calls_nudge(now, out);
            }
            Message::Task(task) => {
                if task.caller != claimed {
                    let why = "the task is signed by another node than the one that sent it".to_owned();
                    self.refuse("not_the_signer");
                    return self.refuse_task(conn, &task.id, ErrorCode::NotAllowed, why, None, out);
                }
                self.on_task(task, claimed, None, conn, now, out);
            }
            Message::Result(answer) => self.on_legacy_result(answer, claimed, signed, now, out),
            Message::Query(query) => self.on_legacy_query(&query, conn, now, out),
            Message::Event(event) => {
                self.deliver(
                    &event.id,
                    &event.event_type,
                    &event.data,
                    // Whatever origin it names, nobody signed that.
                    claimed,
                    event.timestamp,
                    false,
                    out,
                );
            }
            Message::Bye(reason, text) => peer.bye = Some((reason, text)),
            Message::Heartbeat(_) | Message::QueryResp(_) => {}
            _ => self.refuse("not_for_legacy"),
        }
    }

    fn on_legacy_query(&mut self, query: &Query, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        let known = query.capability.is_empty() || self.can_serve_legacy(&query.capability, conn);
        if known {
            return self.answer_legacy_query(conn, &query.id, now, out);
        }
        let id = self.new_id();
        let until = now.mono + self.config.limits.query_wait;
        let purpose = Purpose::Legacy(conn, query.id.clone());
        self.ask_mesh(id, purpose, &query.capability, "", 1, until, now, out);
    }

    /// Whether a task of that capability could be answered here, or by somebody we would pass it on to.
    fn can_serve_legacy(&self, capability: &str, asker: ConnId) -> bool {
        self.provides(capability)
            || self.table.providers(capability).next().is_some()
            || self
                .peers
                .legacy()
                .any(|(c, p)| c != asker && p.legacy.as_ref().is_some_and(|l| l.caps.contains(capability)))
    }

    /// Names ourselves as the node to send the task to, in the package's form: `first 12 characters of our id@host:port`
    /// as the Python node sees this connection. What we don't provide we pass on in our name.
    pub(super) fn answer_legacy_query(&mut self, conn: ConnId, id: &str, now: Now, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(conn) else { return };
        let short = self.me.short();
        let names: Vec<&str> = self.caps.names().collect();
        let node = Builder::untyped()
            .str("addr", &format!("{short}@{}", peer.arrival.local))
            .str("node_id", &short)
            .strings("caps", &names)
            .build();
        let resp = Builder::new("query_resp").str("id", id).objects("nodes", [&node]).build();
        self.send_legacy(conn, resp, now, out);
    }

    /// Sends an answer to a Python node, or holds it back until the node reads again.
    pub fn send_legacy(&mut self, conn: ConnId, message: Object, now: Now, out: &mut Vec<Action>) {
        let waiting = self.peers.get(conn).and_then(|p| p.legacy.as_ref()).is_some_and(|l| !l.held.is_empty());
        let wait = if waiting { Some(std::time::Duration::from_millis(1)) } else { self.legacy_budget(conn, now) };
        let Some(wait) = wait else {
            return out.push(Action::Send { to: conn, what: What::Ready(message), on_full: OnFull::Close });
        };
        let Some(legacy) = self.peers.get_mut(conn).and_then(|p| p.legacy.as_mut()) else { return };
        if legacy.held.len() >= MAX_HELD {
            return self.refuse("legacy_overflow");
        }
        legacy.held.push_back(message);
        if !waiting {
            self.timers.set(Timer::Legacy(conn), now.mono + wait);
        }
    }

    pub(super) fn legacy_due(&mut self, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        loop {
            let has_more = self.peers.get(conn).and_then(|p| p.legacy.as_ref()).is_some_and(|l| !l.held.is_empty());
            if !has_more {
                return;
            }
            if let Some(wait) = self.legacy_budget(conn, now) {
                return self.timers.set(Timer::Legacy(conn), now.mono + wait);
            }
            let legacy = self.peers.get_mut(conn).and_then(|p| p.legacy.as_mut());
            if let Some(message) = legacy.and_then(|l| l.held.pop_front()) {
                out.push(Action::Send { to: conn, what: What::Ready(message), on_full: OnFull::Close });
            }
        }
    }

    /// What this node says of itself in the package's handshake. A tracker answers `relay`, and says so there.
    pub fn legacy_hello(&self) -> LegacyHello {
        let mut caps = self.caps.clone();
        if self.config.tracker != TrackerRole::None {
            caps.insert(Capability::agent("relay"));
        }
        LegacyHello {
            caps,
            interests: self.interests.keys().cloned().collect(),
            tracker: self.config.tracker,
            version: self.config.version.clone(),
        }
    }

    /// Nodes that a Python node may dial: those that say they admit it.
    pub fn legacy_known_peers(&self) -> Vec<String> {
        let admits = |r: &&std::sync::Arc<crate::wire::Record>| r.features.iter().any(|f| f == "legacy");
        let addr =
            |r: &std::sync::Arc<crate::wire::Record>| r.addrs.iter().find(|a| a.is_ipv4()).map(ToString::to_string);
        self.table.iter().filter(admits).filter_map(addr).take(MAX_KNOWN).collect()
    }

    /// The Python nodes that provide a capability.
    pub(super) fn legacy_providers(&self, capability: &str) -> Vec<NodeId> {
        let provides = |p: &super::peers::Peer| p.legacy.as_ref().is_some_and(|l| l.caps.contains(capability));
        self.peers.legacy().filter(|(_, p)| provides(p)).map(|(_, p)| p.arrival.node).collect()
    }
}
