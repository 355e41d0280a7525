//! Choosing whom to send a task to, and which way.

use std::net::SocketAddr;
use std::time::Duration;

use super::dht::Dht;
use super::{Call, Flood, Path, Phase};
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::mesh::action::Action;
use crate::mesh::clock::Now;
use crate::mesh::sealing::Seal;
use crate::mesh::state::{State, Timer};
use crate::mesh::task_id::TaskId;

/// What to do next for a call.
enum Step {
    Send(NodeId, Path),
    Dial(NodeId, Vec<SocketAddr>),
    Ask,
    AskDht,
    Wait,
    Fail(ErrorCode, String),
}

/// How a node can be reached.
pub(super) enum Reach {
    Now(Path),
    Dial(NodeId, Vec<SocketAddr>),
    Not(&'static str),
}

impl Call {
    /// Whether a node may be there: an address that was not tried yet.
    fn may_dial(&self, node: &NodeId, addrs: &[SocketAddr]) -> bool {
        let tried = self.undialable.get(node);
        addrs.iter().any(|a| tried.is_none_or(|tried| !tried.contains(a)))
    }
}

impl State {
    /// Takes a searching call one step further.
    pub(super) fn advance(&mut self, id: &TaskId, now: Now, out: &mut Vec<Action>) {
        if let Some(call) = self.calls.entries.remove(id) {
            self.advance_call(call, now, out);
        }
    }

    /// The same for a call that is not among the others: it is when this is done, unless it has ended.
    pub(super) fn advance_call(&mut self, mut call: Box<Call>, now: Now, out: &mut Vec<Action>) {
        let step = match self.next_step(&mut call, now) {
            // A machine that slept finds several alarms due at once, and the one of the deadline need not ring first.
            Step::Send(..) | Step::Dial(..) if call.deadline <= now.mono => Step::Wait,
            step => step,
        };
        if let Step::Send(node, Path::Direct) = step
            && let Some(conn) = self.peers.conn_of(&node)
            && call.is_quiet()
        {
            return self.send_straight(call, node, conn, now, out);
        }
        let id = &call.spec.id.clone();
        self.calls.entries.insert(id.clone(), call);
        match step {
            Step::Send(node, path) => {
                if let Some(error) = self.legacy_refusal(id, &node, path, now) {
                    return self.not_run(id, node, error, crate::error::Delivery::NotSent, now, out);
                }
                let is_sealed = || self.seal_for(&node, Seal::ByRecord).is_ok_and(|key| key.is_some());
                let sealed = matches!(path, Path::Relay(_)) && is_sealed();
                if let Some(call) = self.calls.entries.get_mut(id) {
                    let (step, result) = match path {
                        Path::Local => ("local", "this node answers itself"),
                        Path::Direct => ("table", "connected"),
                        Path::Relay(_) if sealed => ("relay", "sent through a tracker, sealed"),
                        Path::Relay(_) => ("relay", "sent through a tracker, which can read it"),
                    };
                    call.tried(step, Some(node), result, now);
                }
                self.dispatch(id, node, path, now, out);
            }
            Step::Dial(node, addrs) => {
                if let Some(call) = self.calls.entries.get_mut(id) {
                    call.phase = Phase::Dialing(node);
                }
                self.dial_for(id, node, addrs, now, out);
                self.set_call_timer(id);
            }
            Step::Ask => {
                self.start_flood(id, now, out);
                if self.plan_dht(id, now) {
                    return self.advance(id, now, out);
                }
                self.set_call_timer(id);
            }
            Step::AskDht => self.ask_dht(id, now, out),
            Step::Wait => self.set_call_timer(id),
            Step::Fail(code, message) => self.give_up(id, code, message, now, out),
        }
    }

    /// Nobody is left: the last refusal says why, if there was one.
    fn give_up(&mut self, id: &TaskId, code: ErrorCode, message: String, now: Now, out: &mut Vec<Action>) {
        let Some(call) = self.calls.entries.get_mut(id) else { return };
        match call.refusal.take() {
            Some(refusal) => {
                let (_, error, delivery) = &*refusal;
                call.delivery = *delivery;
                let error = error.clone();
                call.refusal = Some(refusal);
                let retry = error.retry_after();
                let code = ErrorCode::from_wire(&error.code).unwrap_or(ErrorCode::HandlerError);
                self.end(id, Err((code, error.message, retry)), now, out);
            }
            None => self.fail(id, code, message, now, out),
        }
    }

    fn next_step(&self, call: &mut Call, now: Now) -> Step {
        if call.spec.local && call.spec.target.is_none() && self.provides(&call.spec.capability) {
            return Step::Send(self.me, Path::Local);
        }
        if let Some(target) = call.spec.target.clone() {
            self.step_to_node(call, &target, now)
        } else {
            self.step_to_provider(call, now)
        }
    }

    fn step_to_node(&self, call: &mut Call, target: &str, now: Now) -> Step {
        let is_self = super::super::table::names(target, &self.me, &self.config.name);
        let full: Option<NodeId> = target.parse().ok();
        let mut nodes: Vec<NodeId> = match full {
            // Whoever names an id that was replaced means its node.
            Some(node) => vec![self.keys.current(&node)],
            None => {
                let mut nodes = self.peers_named(target);
                nodes.extend(self.table.named(target).map(|r| r.node_id));
                if is_self {
                    nodes.push(self.me);
                }
                nodes
            }
        };
        nodes.sort();
        nodes.dedup();
        match nodes[..] {
            [node] if node == self.me => {
                if call.spec.local {
                    return Step::Send(self.me, Path::Local);
                }
                Step::Fail(ErrorCode::BadRequest, "that is this node itself: allow local calls to reach it".into())
            }
            [node] if self.is_denied(&node) => {
                Step::Fail(ErrorCode::NotAllowed, format!("this node's own owner denied {node}: take that back first"))
            }
            [node] => {
                if call.failed.contains(&node) {
                    return self.nobody(call);
                }
                // A node that nothing is known of is asked for before a tracker is asked to relay blindly.
                let unknown = self.peers.conn_of(&node).is_none()
                    && self.peers.legacy_conn_of(&node).is_none()
                    && self.table.get(&node).is_none();
                if unknown && call.spec.via.is_none() && call.dht_tracker.is_none() && self.may_search(call) {
                    return self.search_on(call, now);
                }
                match self.reach(call, &node) {
                    Reach::Now(path) => Step::Send(node, path),
                    Reach::Dial(node, addrs) => Step::Dial(node, addrs),
                    Reach::Not(why) => {
                        if call.unreachable.insert(node) {
                            call.tried("connect", Some(node), why, now);
                        }
                        self.search_on(call, now)
                    }
                }
            }
            [] => self.search_on(call, now),
            _ => {
                let names: Vec<String> = nodes.iter().take(4).map(NodeId::short).collect();
                let message =
                    format!("{target:?} names {} nodes ({}): give more of the id", nodes.len(), names.join(", "));
                Step::Fail(ErrorCode::BadRequest, message)
            }
        }
    }

    fn step_to_provider(&self, call: &mut Call, now: Now) -> Step {
        // The usual case: whoever comes first can be reached, and nobody else has to be put in order.
        match self.best_candidate(call).map(|node| (self.reach(call, &node), node)) {
            None => return self.search_on(call, now),
            Some((Reach::Now(path), node)) => return Step::Send(node, path),
            Some((Reach::Dial(node, addrs), _)) => return Step::Dial(node, addrs),
            Some((Reach::Not(_), _)) => {}
        }
        for node in self.candidates(call) {
            match self.reach(call, &node) {
                Reach::Now(path) => return Step::Send(node, path),
                Reach::Dial(node, addrs) => return Step::Dial(node, addrs),
                Reach::Not(why) => {
                    // Another connection may change that: it is looked at again then, and told of once.
                    if call.unreachable.insert(node) {
                        call.tried("connect", Some(node), why, now);
                    }
                }
            }
        }
        self.search_on(call, now)
    }

    /// Whether there is anybody left to be asked, or an answer to be waited for.
    fn may_search(&self, call: &Call) -> bool {
        call.flood != Flood::Over || call.dht != Dht::Over
    }

    fn search_on(&self, call: &Call, now: Now) -> Step {
        match (call.flood, call.dht) {
            (Flood::NotYet, _) => Step::Ask,
            _ if call.is_dht_due(now) => Step::AskDht,
            (Flood::Over, Dht::Over) => self.nobody(call),
            _ => Step::Wait,
        }
    }

    fn nobody(&self, call: &Call) -> Step {
        let what = match &call.spec.target {
            Some(target) => format!("no node {target:?}"),
            None => format!("nobody that provides {:?}", call.spec.capability),
        };
        let peers = self.peers.all_proven().count();
        let hint = match peers {
            0 => "no peer is connected: connect to one, or wait for it".to_owned(),
            1 => "1 peer was asked".to_owned(),
            n => format!("{n} peers were asked"),
        };
        // Who is known by its whole id, and can't be sealed for, is not there for want of that alone.
        let node = call.spec.target.as_deref().and_then(|target| target.parse().ok());
        let why = node.and_then(|node| self.sealable(call, &node).err());
        let why = why.filter(|_| peers > 0).map(|why| format!("; {why}")).unwrap_or_default();
        Step::Fail(ErrorCode::NoPeer, format!("{what} was found and reached ({hint}{why})"))
    }

    /// Shows who could take the task, in no order, some perhaps twice.
    fn look_at_candidates(&self, call: &Call, mut look: impl FnMut(NodeId)) {
        let capability = &call.spec.capability;
        let mut look = |node: NodeId| {
            if node != self.me && !call.failed.contains(&node) && !self.is_denied(&node) {
                look(node);
            }
        };
        if crate::limits::BUILT_IN.contains(&capability.as_str()) {
            // Every node answers these.
            self.peers.all_proven().for_each(|(_, p)| look(p.arrival.node));
        } else {
            self.table.provider_ids(capability).for_each(|n| look(*n));
        }
        self.legacy_providers(capability).for_each(look);
    }

    /// The order of those who could take a task: connected ones before others, then the least busy, then the nearest.
    fn rank(&self, node: NodeId) -> (bool, usize, Duration, NodeId) {
        let peer = self.peers.proven(&node);
        let connected = peer.is_some() || self.peers.legacy_conn_of(&node).is_some();
        let rtt = peer.and_then(|p| p.rtt).unwrap_or(Duration::MAX);
        (!connected, self.in_flight.get(&node).copied().unwrap_or(0), rtt, node)
    }

    /// Who could take the task, the best first.
    fn candidates(&self, call: &Call) -> Vec<NodeId> {
        let mut ranks = Vec::new();
        self.look_at_candidates(call, |node| ranks.push(self.rank(node)));
        ranks.sort_unstable();
        ranks.dedup();
        ranks.into_iter().map(|(.., node)| node).collect()
    }

    /// The first of them.
    fn best_candidate(&self, call: &Call) -> Option<NodeId> {
        let mut best = None;
        self.look_at_candidates(call, |node| {
            let rank = self.rank(node);
            if best.is_none_or(|best| rank < best) {
                best = Some(rank);
            }
        });
        best.map(|(.., node)| node)
    }

    pub(super) fn reach(&self, call: &Call, node: &NodeId) -> Reach {
        if let Some(via) = &call.spec.via {
            return self.reach_via(call, node, via);
        }
        if self.peers.conn_of(node).is_some() || self.peers.legacy_conn_of(node).is_some() {
            return Reach::Now(Path::Direct);
        }
        let record = self.table.get(node);
        let sealable = self.sealable(call, node);
        let addrs = record.map(|record| self.dialable(&record.addrs)).unwrap_or_default();
        // Whom it would not let in it reaches through a tracker, if at all.
        if self.admits(node) && call.may_dial(node, &addrs) {
            return Reach::Dial(*node, addrs);
        }
        if let Err(why) = sealable {
            return Reach::Not(why);
        }
        let relays = |t: &&NodeId| self.peers.conn_of(t).is_some() && !call.unrelayable.contains(&(*node, **t));
        let named = record.into_iter().flat_map(|r| &r.trackers);
        // Whoever told us may be a tracker that knows it; so may any other.
        let told = call.found.get(node).and_then(|(_, via)| *via).or(call.dht_tracker);
        let told = told.filter(|t| self.peers.trackers().any(|(_, p)| p.arrival.node == *t));
        let others = self.peers.trackers().map(|(_, p)| &p.arrival.node);
        let mut ways: Vec<&NodeId> = named.chain(&told).chain(others).filter(relays).collect();
        // One that says nothing comes last.
        ways.sort_by_key(|t| !self.speaks(t));
        if let Some(tracker) = ways.first() {
            return Reach::Now(Path::Relay(**tracker));
        }
        // A tracker that the node names, and that we know but are not connected to.
        let named = record.into_iter().flat_map(|r| &r.trackers);
        for tracker in named.filter(|t| **t != self.me && !call.unrelayable.contains(&(*node, **t))) {
            let addrs = self.table.get(tracker).map(|record| self.dialable(&record.addrs)).unwrap_or_default();
            if self.admits(tracker) && call.may_dial(tracker, &addrs) && self.peers.conn_of(tracker).is_none() {
                return Reach::Dial(*tracker, addrs);
            }
        }
        Reach::Not(match record {
            Some(r) if r.addrs.is_empty() => "it can't be dialled, and no tracker of its own is connected to us",
            Some(_) => "it can't be dialled now, and no tracker relays to it",
            None => "nothing is known of it, and no tracker relays to it",
        })
    }

    /// Whether a call may go to a node through a tracker: as sealed as both want it.
    fn sealable(&self, call: &Call, node: &NodeId) -> Result<(), &'static str> {
        let known = call.seal.filter(|_| call.responder() == Some(*node));
        self.seal_for(node, known.map_or(Seal::ByRecord, Seal::To)).map(drop)
    }

    /// Whether a text names a node that is a peer.
    fn is_named(&self, text: &str, node: &NodeId) -> bool {
        super::super::table::names(text, node, self.table.get(node).map_or("", |r| r.name.as_str()))
    }

    /// Whether a call may go through that tracker, or straight (`None`): one that was to go through a certain one goes
    /// through no other.
    pub(super) fn may_go_through(&self, id: &TaskId, tracker: Option<&NodeId>) -> bool {
        let named = self.calls.entries.get(id).and_then(|call| call.spec.via.as_deref());
        named.is_none_or(|named| tracker.is_some_and(|tracker| self.is_named(named, tracker)))
    }

    fn reach_via(&self, call: &Call, node: &NodeId, via: &str) -> Reach {
        let mut named = self.peers.trackers().map(|(_, p)| p.arrival.node).filter(|n| self.is_named(via, n));
        match named.find(|t| !call.unrelayable.contains(&(*node, *t))) {
            Some(tracker) if tracker == *node => Reach::Now(Path::Direct),
            Some(tracker) => match self.sealable(call, node) {
                Ok(()) => Reach::Now(Path::Relay(tracker)),
                Err(why) => Reach::Not(why),
            },
            None => Reach::Not("no connected tracker of that name relays to it"),
        }
    }

    /// A Python node reads no more than 100 messages a minute; a task beyond that would be lost without a word.
    fn legacy_refusal(&mut self, id: &TaskId, node: &NodeId, path: Path, now: Now) -> Option<crate::wire::WireError> {
        if path != Path::Direct || self.peers.conn_of(node).is_some() {
            return None;
        }
        let conn = self.peers.legacy_conn_of(node)?;
        let legacy = self.peers.get_mut(conn)?.legacy.as_mut()?;
        // Answers that wait already come first.
        let wait = match legacy.held.is_empty() {
            true => legacy.budget.take(Some(&id.to_text()), now.mono).err()?,
            false => self.timers.due_in(&Timer::Legacy(conn), now.mono),
        };
        let seconds = wait.as_secs() + 1;
        let message = format!("a Python node reads 100 messages a minute; room again in {seconds} s");
        Some(crate::wire::WireError::new(ErrorCode::RateLimited, message).retry_after_s(seconds))
    }
}
