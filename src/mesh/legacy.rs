//! Nodes of the Python package: what they say means the same, but less of it is proven.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::action::{Action, OnFull, What};
use super::budget::Budget;
use super::clock::Now;
use super::conn_id::ConnId;
use super::handshake::{LegacyHello, legacy_hello_ack};
use super::peers::{Arrival, Legacy};
use super::queries::Purpose;
use super::sealing::Seal;
use super::state::{State, Timer};
use super::trail::Trail;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::MAX_CAPS;
use crate::wire::{Builder, Capability, Caps, Message, Object, Query, TrackerRole};

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
                self.on_task(task, claimed, Trail { via: None, seal: Seal::Plain }, conn, now, out);
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
        let mut budget = Budget::new(self.config.limits.heartbeat_interval);
        let _ = budget.take(None, now.mono);
        Legacy {
            caps: arrival.caps.names().map(str::to_owned).collect(),
            budget,
            told: self.legacy_caps().names().map(str::to_owned).collect(),
            held: VecDeque::new(),
        }
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
            let addr = r.addrs.first().map(|a| short_at(&r.node_id, *a));
            listed(&r.node_id, addr.as_deref().unwrap_or_default(), r.caps.names())
        });
        let others = self.peers.legacy().filter(|(_, p)| p.arrival.node != asker);
        let python = others.map(|(_, p)| {
            let addr = short_at(&p.arrival.node, p.arrival.addr);
            let caps = p.legacy.iter().flat_map(|l| &l.caps).map(String::as_str);
            listed(&p.arrival.node, &addr, caps)
        });
        let nodes: Vec<Object> = std::iter::once(us).chain(native).chain(python).take(MAX_LISTED).collect();
        self.send_legacy(conn, Builder::new("query_resp").str("id", id).objects("nodes", &nodes).build(), now, out);
    }

    /// This node in the package's form: `addr` is how the Python node knows this connection.
    fn us_for_legacy(&self, arrival: &Arrival) -> Object {
        listed(&self.me, &short_at(&self.me, arrival.local), self.caps.names())
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

    /// Nodes that a Python node may dial: those that say they admit it. Written as the package writes the peers it has:
    /// without the id it would dial those again at every `hello_ack`, and be told of us by them, for ever.
    pub fn legacy_known_peers(&self) -> Vec<String> {
        let admits = |r: &&std::sync::Arc<crate::wire::Record>| r.features.iter().any(|f| f == "legacy");
        let addr = |r: &std::sync::Arc<crate::wire::Record>| r.addrs.first().map(|a| short_at(&r.node_id, *a));
        self.table.iter().filter(admits).filter_map(addr).take(MAX_KNOWN).collect()
    }

    /// The Python nodes that provide a capability.
    pub(super) fn legacy_providers(&self, capability: &str) -> impl Iterator<Item = NodeId> {
        let provides = move |p: &super::peers::Peer| p.legacy.as_ref().is_some_and(|l| l.caps.contains(capability));
        self.peers.legacy().filter(move |(_, p)| provides(p)).map(|(_, p)| p.arrival.node)
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

/// How the package names a connection. It puts no brackets around an IPv6 address.
fn short_at(node: &NodeId, addr: SocketAddr) -> String {
    format!("{}@{}:{}", node.short(), addr.ip(), addr.port())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits::Limits;
    use crate::mesh::state::Config;
    use crate::wire::{Speaker, draft};

    const CONN: ConnId = ConnId(1);

    fn at(seconds: u64) -> Now {
        Now { mono: Duration::from_secs(seconds), unix_ms: 1_700_000_000_000 + seconds * 1000 }
    }

    /// A node with a Python node for its only peer.
    fn connected(tracker: TrackerRole) -> State {
        let config = Config {
            name: "ours".into(),
            version: "1".into(),
            instance: "a".into(),
            features: Vec::new(),
            tracker,
            access: crate::mesh::access::Access::default(),
            serve_only: None,
            policies: Vec::new(),
            port: None,
            bound: None,
            advertise: Vec::new(),
            dht: false,
            sealing: crate::info::Sealing::Off,
            limits: Limits::default(),
        };
        let mut state = State::new(NodeId::from_bytes([1; 32]), config, [0; 32], at(0));
        let node = NodeId::from_bytes([2; 32]);
        let arrival = Arrival {
            node,
            speaker: Speaker::Legacy(node),
            addr: "[::1]:5".parse().unwrap(),
            local: "[::1]:7878".parse().unwrap(),
            inbound: true,
            encrypted: false,
            how: crate::mesh::How::default(),
            instance: None,
            version: String::new(),
            features: Vec::new(),
            tracker: TrackerRole::None,
            observed: None,
            caps: Caps::default(),
        };
        state.connected(CONN, arrival, at(0), &mut Vec::new()).unwrap();
        state
    }

    /// The messages among the actions.
    fn sent(actions: Vec<Action>) -> Vec<Object> {
        let message = |action| match action {
            Action::Send { to: CONN, what: What::Ready(message), .. } => Some(message),
            _ => None,
        };
        actions.into_iter().filter_map(message).collect()
    }

    #[test]
    fn what_the_node_does_not_read_now_is_held_back_in_its_order() {
        let mut state = connected(TrackerRole::None);
        let mut out = Vec::new();
        for n in 0..300 {
            state.send_legacy(CONN, draft::heartbeat(&state.me, 0, Some(n), None), at(1), &mut out);
        }
        let mut got = vec![(1, sent(out))];
        for second in 2..300 {
            let mut out = Vec::new();
            state.tick(at(second), &mut out);
            got.push((second, sent(out)));
        }
        let times: Vec<(u64, usize)> = got.iter().map(|(at, sent)| (*at, sent.len())).filter(|(_, n)| *n > 0).collect();
        // The hello_ack at the start took the first place.
        assert_eq!(times, [(1, 94), (61, 1), (62, 94), (122, 1), (123, 94), (183, 1), (184, 15)]);
        let numbers: Vec<u64> = got.iter().flat_map(|(_, s)| s).map(|m| m.u64("ask").unwrap().unwrap()).collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_held_back_is_bounded_and_goes_with_the_connection() {
        let mut state = connected(TrackerRole::None);
        let mut out = Vec::new();
        for _ in 0..94 + MAX_HELD + 3 {
            state.send_legacy(CONN, draft::heartbeat(&state.me, 0, None, None), at(1), &mut out);
        }
        assert_eq!(state.refused()["legacy_overflow"], 3);
        state.disconnected(CONN, None, at(2), &mut out);
        out.clear();
        state.tick(at(200), &mut out);
        assert!(sent(out).is_empty());
    }

    #[test]
    fn a_capability_is_told_once_and_with_those_passed_on() {
        let mut state = connected(TrackerRole::Public);
        let mut out = Vec::new();
        state.register(Capability::tool("t"), at(1), &mut out);
        state.register(Capability::tool("t"), at(1), &mut out);
        let told = sent(std::mem::take(&mut out));
        assert_eq!(told.len(), 1);
        let caps = |m: &Object| String::from_utf8(m.get("caps").unwrap().to_vec()).unwrap();
        assert_eq!(caps(&told[0]), r#"{"agents":[{"name":"relay"}],"models":[],"tools":[{"name":"t"}]}"#);
        for _ in 0..2 {
            state.answer_legacy_query(CONN, "q", "elsewhere", at(2), &mut out);
        }
        let told = sent(out);
        assert_eq!(told.len(), 3, "the news once, and two answers");
        assert!(caps(&told[0]).contains(r#"{"name":"elsewhere"}"#), "{}", caps(&told[0]));
        let short = state.me.short();
        let nodes = String::from_utf8(told[1].get("nodes").unwrap().to_vec()).unwrap();
        assert!(nodes.contains(&format!(r#""addr":"{short}@::1:7878""#)), "{nodes}");
        // Taken back and provided anew, it is not told again: the package never forgot it.
        let mut out = Vec::new();
        state.unregister("t", at(3), &mut out);
        state.register(Capability::tool("t"), at(3), &mut out);
        assert!(sent(out).is_empty());
    }
}
