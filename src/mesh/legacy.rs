//! Nodes of the Python package: what they say means the same, but less of it is proven.

use std::net::SocketAddr;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::handshake::{LegacyHello, legacy_hello_ack};
use super::peers::{Arrival, Legacy};
use super::queries::Purpose;
use super::state::{State, Timer};
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::MAX_CAPS;
use crate::node::TrackerRole;
use crate::wire::{Builder, Capability, Caps, Message, Object, Query};

/// The most nodes named to a Python node in `hello_ack`: it dials every one of them.
const MAX_KNOWN: usize = 8;

/// The most nodes named to a Python node that asks for everybody.
const MAX_LISTED: usize = 64;

/// The most answers held back for one Python node until it reads again: what comes on top is dropped and counted.
const MAX_HELD: usize = 256;

/// How much of an id the package goes by.
const SHORT: usize = 12;

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
            Message::Result(answer) => {
                if let Some(legacy) = &mut peer.legacy {
                    legacy.budget.answered(&answer.id, now.mono);
                }
                self.on_legacy_result(answer, claimed, signed, now, out);
            }
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

    /// What is kept for a Python node that has just come. The `hello` or `hello_ack` it is sent counts.
    pub(super) fn legacy_arrived(&self, arrival: &Arrival, now: Now) -> Legacy {
        let mut legacy = Legacy { caps: arrival.caps.names().map(str::to_owned).collect(), ..Legacy::default() };
        legacy.told = self.legacy_caps().names().map(str::to_owned).collect();
        let _ = legacy.budget.take(None, now.mono);
        legacy
    }

    /// Whether a Python node that writes this means us: it knows no more than the first 12 characters of an id, and
    /// writes what it has, up to `first 12 characters@host:port`.
    pub(super) fn is_legacy_name(&self, name: &str) -> bool {
        let id = name.split_once('@').map_or(name, |(id, _)| id);
        id.len() >= SHORT && self.me.to_string().starts_with(id)
    }

    fn on_legacy_query(&mut self, query: &Query, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        if query.capability.is_empty() {
            return self.list_for_legacy(conn, &query.id, now, out);
        }
        if self.can_serve_legacy(&query.capability, conn) {
            return self.answer_legacy_query(conn, &query.id, &query.capability, now, out);
        }
        let id = self.new_id();
        let until = now.mono + self.config.limits.query_wait;
        let purpose = Purpose::Legacy(conn, query.id.clone());
        self.ask_mesh(id, purpose, &query.capability, "", 1, until, now, out);
    }

    /// Whether a task of that capability could be answered here, or by somebody we would pass it on to.
    fn can_serve_legacy(&self, capability: &str, asker: ConnId) -> bool {
        self.provides(capability)
            || (capability == "relay" && self.config.tracker != TrackerRole::None)
            || self.table.providers(capability).next().is_some()
            || self
                .peers
                .legacy()
                .any(|(c, p)| c != asker && p.legacy.as_ref().is_some_and(|l| l.caps.contains(capability)))
    }

    /// Names ourselves as the node to send the task to. What we don't provide we pass on in our name.
    pub(super) fn answer_legacy_query(
        &mut self,
        conn: ConnId,
        id: &str,
        capability: &str,
        now: Now,
        out: &mut Vec<Action>,
    ) {
        // The package forgets the answer to its query at once; what a `hello_ack` says it keeps. It also works when the
        // node knows this connection by a host name, or through an address translation, which we can't see from here.
        self.tell_legacy(conn, Some(capability), now, out);
        let Some(peer) = self.peers.get(conn) else { return };
        let us = self.us_for_legacy(&peer.arrival);
        self.send_legacy(conn, Builder::new("query_resp").str("id", id).objects("nodes", [&us]).build(), now, out);
    }

    /// Everybody we know, ourselves first. The package shows it to its owner, who may name the ids to our relay.
    fn list_for_legacy(&mut self, conn: ConnId, id: &str, now: Now, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(conn) else { return };
        let asker = peer.arrival.node;
        let us = self.us_for_legacy(&peer.arrival);
        let native = self.table.iter().map(|r| {
            let addr = r.addrs.first().map(|a| format!("{}@{}", r.node_id.short(), host_port(*a)));
            listed(&r.node_id, addr.as_deref().unwrap_or_default(), r.caps.names())
        });
        let others = self.peers.legacy().filter(|(_, p)| p.arrival.node != asker);
        let python = others.map(|(_, p)| {
            let addr = format!("{}@{}", p.arrival.node.short(), host_port(p.arrival.addr));
            let caps = p.legacy.iter().flat_map(|l| &l.caps).map(String::as_str);
            listed(&p.arrival.node, &addr, caps)
        });
        let nodes: Vec<Object> = std::iter::once(us).chain(native).chain(python).take(MAX_LISTED).collect();
        self.send_legacy(conn, Builder::new("query_resp").str("id", id).objects("nodes", &nodes).build(), now, out);
    }

    /// This node in the package's form: `addr` is how the Python node knows this connection.
    fn us_for_legacy(&self, arrival: &Arrival) -> Object {
        let addr = format!("{}@{}", self.me.short(), host_port(arrival.local));
        listed(&self.me, &addr, self.caps.names())
    }

    /// Tells every Python node what has come to be provided here.
    pub(super) fn tell_legacy_all(&mut self, now: Now, out: &mut Vec<Action>) {
        let conns: Vec<ConnId> = self.peers.legacy().map(|(c, _)| c).collect();
        for conn in conns {
            self.tell_legacy(conn, None, now, out);
        }
    }

    /// Tells a Python node what we provide, and what we would pass on for it, unless it knows. To the package any
    /// `hello_ack` is news of its sender; it takes capabilities in, and never out.
    fn tell_legacy(&mut self, conn: ConnId, wanted: Option<&str>, now: Now, out: &mut Vec<Action>) {
        let hello = self.legacy_hello();
        let Some(legacy) = self.peers.get_mut(conn).and_then(|p| p.legacy.as_mut()) else { return };
        let mut caps = hello.caps;
        let names: Vec<&str> = wanted.into_iter().chain(caps.names()).collect();
        if names.iter().all(|name| legacy.told.contains(*name)) {
            return;
        }
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        legacy.told.extend(names);
        while legacy.told.len() > MAX_CAPS {
            legacy.told.pop_last();
        }
        for name in legacy.told.iter().filter(|n| !self.caps.provides(n)) {
            caps.insert(Capability::agent(name));
        }
        let ack = legacy_hello_ack(&self.me, &hello.version, &caps, &hello.interests, hello.tracker, &[]);
        self.send_legacy(conn, ack, now, out);
    }

    /// Sends a message to a Python node, or holds it back until the node reads again.
    pub fn send_legacy(&mut self, conn: ConnId, message: Object, now: Now, out: &mut Vec<Action>) {
        let Some(legacy) = self.peers.get_mut(conn).and_then(|p| p.legacy.as_mut()) else { return };
        if legacy.held.is_empty() {
            match legacy.budget.take(None, now.mono) {
                Ok(()) => return out.push(to_legacy(conn, message)),
                Err(wait) => self.timers.set(Timer::Legacy(conn), now.mono + wait),
            }
        }
        if legacy.held.len() < MAX_HELD {
            legacy.held.push_back(message);
        } else {
            self.refuse("legacy_overflow");
        }
    }

    pub(super) fn legacy_due(&mut self, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        let Some(legacy) = self.peers.get_mut(conn).and_then(|p| p.legacy.as_mut()) else { return };
        while !legacy.held.is_empty() {
            if let Err(wait) = legacy.budget.take(None, now.mono) {
                return self.timers.set(Timer::Legacy(conn), now.mono + wait);
            }
            out.extend(legacy.held.pop_front().map(|message| to_legacy(conn, message)));
        }
    }

    /// What this node says of itself in the package's handshake. A tracker answers `relay`, and says so there.
    pub fn legacy_hello(&self) -> LegacyHello {
        LegacyHello {
            caps: self.legacy_caps(),
            interests: self.interests.keys().cloned().collect(),
            tracker: self.config.tracker,
            version: self.config.version.clone(),
        }
    }

    fn legacy_caps(&self) -> Caps {
        let mut caps = self.caps.clone();
        if self.config.tracker != TrackerRole::None {
            caps.insert(Capability::agent("relay"));
        }
        caps
    }

    /// Nodes that a Python node may dial: those that say they admit it.
    pub fn legacy_known_peers(&self) -> Vec<String> {
        let admits = |r: &&std::sync::Arc<crate::wire::Record>| r.features.iter().any(|f| f == "legacy");
        let addr = |r: &std::sync::Arc<crate::wire::Record>| r.addrs.first().map(|a| host_port(*a));
        self.table.iter().filter(admits).filter_map(addr).take(MAX_KNOWN).collect()
    }

    /// The Python nodes that provide a capability.
    pub(super) fn legacy_providers(&self, capability: &str) -> Vec<NodeId> {
        let provides = |p: &super::peers::Peer| p.legacy.as_ref().is_some_and(|l| l.caps.contains(capability));
        self.peers.legacy().filter(|(_, p)| provides(p)).map(|(_, p)| p.arrival.node).collect()
    }
}

fn to_legacy(conn: ConnId, message: Object) -> Action {
    Action::Send { to: conn, what: What::Ready(message), on_full: OnFull::Close }
}

/// A node in a list for the package.
fn listed<'a>(node: &NodeId, addr: &str, caps: impl Iterator<Item = &'a str>) -> Object {
    let caps: Vec<&str> = caps.collect();
    Builder::untyped().str("addr", addr).str("node_id", &node.short()).strings("caps", &caps).build()
}

/// As the package writes it: no brackets around an IPv6 address.
fn host_port(addr: SocketAddr) -> String {
    format!("{}:{}", addr.ip(), addr.port())
}
