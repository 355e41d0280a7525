//! Whom a node dials on the DHT's word, whom it believes, and when it stops.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Scope, Wanted};
use crate::error::{CloseReason, ErrorCode};
use crate::identity::{Identity, NodeId};
use crate::info::Source;
use crate::limits::{DHT_DEAD_ADDR, DHT_DIAL_BURST, LOOKUP_DIALS_AT_ONCE, Limits, MAX_LOOKUP_DIALS, MAX_LOOKUPS};
use crate::mesh::peers::{Arrival, How};
use crate::mesh::{Action, CallEvent, CallSpec, Config, ConnId, LookupId, Now, Purpose, State};
use crate::wire::{Capability, Caps, Compact, Message, RecordDraft, Speaker, TrackerRole};

const START_MS: u64 = 1_767_225_600_000;

fn id(n: u8) -> NodeId {
    Identity::from_seed([n; 32]).id()
}

fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 7878))
}

/// A node that has asked the DHT for something.
struct Node {
    state: State,
    now: Duration,
    out: Vec<Action>,
    conns: u64,
}

impl Node {
    fn new() -> Self {
        let config = Config {
            name: "me".into(),
            version: "1".into(),
            instance: "run".into(),
            features: Vec::new(),
            tracker: TrackerRole::None,
            access: crate::mesh::access::Access::default(),
            serve_only: None,
            policies: Vec::new(),
            port: Some(7878),
            bound: Some([10, 9, 9, 9].into()),
            advertise: Vec::new(),
            dht: true,
            sealing: crate::info::Sealing::Off,
            limits: Limits::default(),
        };
        let now = Now { mono: Duration::ZERO, unix_ms: START_MS };
        Self { state: State::new(id(200), config, [1; 32], now), now: Duration::ZERO, out: Vec::new(), conns: 0 }
    }

    fn at(&self) -> Now {
        Now { mono: self.now, unix_ms: START_MS + self.now.as_millis() as u64 }
    }

    fn call(&mut self, id: &str, capability: &str, target: Option<String>) {
        let spec = CallSpec {
            id: id.into(),
            capability: capability.into(),
            payload: "null".into(),
            target,
            via: None,
            timeout: Duration::from_secs(60),
            wait: Duration::ZERO,
            local: false,
            once: false,
            except: None,
        };
        let now = self.at();
        self.state.start_call(spec, now, &mut self.out);
    }

    /// What the DHT has been asked since the last look.
    fn asked(&mut self) -> Vec<(LookupId, Wanted)> {
        let asked = |a: &mut Action| matches!(a, Action::Dht { .. });
        let asked: Vec<_> = self.out.extract_if(.., asked).collect();
        let parts = asked.into_iter().map(|a| match a {
            Action::Dht { lookup, what } => (lookup, what),
            _ => unreachable!(),
        });
        parts.collect()
    }

    /// Who has been dialled since the last look.
    fn dialled(&mut self) -> Vec<(SocketAddr, Option<NodeId>)> {
        let dials: Vec<_> = self.out.extract_if(.., |a| matches!(a, Action::DialUnknown { .. })).collect();
        let parts = dials.into_iter().map(|a| match a {
            Action::DialUnknown { addr, node, .. } => (addr, node),
            _ => unreachable!(),
        });
        parts.collect()
    }

    fn stopped(&mut self) -> bool {
        self.out.extract_if(.., |a| matches!(a, Action::DhtStop { .. })).count() > 0
    }

    fn named(&mut self, lookup: LookupId, addrs: impl IntoIterator<Item = u16>) {
        let addrs: Vec<_> = addrs.into_iter().map(addr).collect();
        let now = self.at();
        self.state.dht_addrs(lookup, &addrs, Scope::Network, now, &mut self.out);
    }

    fn over(&mut self, lookup: LookupId, what: &Wanted) {
        let now = self.at();
        self.state.dht_over(lookup, what, None, now, &mut self.out);
    }

    fn failed(&mut self, lookup: LookupId, addr: SocketAddr) {
        let now = self.at();
        self.state.candidate_over(lookup, addr, false, now, &mut self.out);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.at();
        self.state.tick(now, &mut self.out);
    }

    /// Somebody answers at an address.
    fn connects(&mut self, n: u8, at: SocketAddr, tracker: TrackerRole) -> ConnId {
        self.conns += 1;
        let (conn, now) = (ConnId(self.conns), self.at());
        let arrival = Arrival {
            node: id(n),
            speaker: Speaker::Proven,
            addr: at,
            local: addr(9999),
            inbound: false,
            encrypted: false,
            how: How::for_calls(Source::Dht),
            instance: Some("run".into()),
            version: String::new(),
            features: Vec::new(),
            tracker,
            observed: None,
            caps: Caps::default(),
        };
        self.state.connected(conn, arrival, now, &mut self.out).unwrap();
        conn
    }

    /// A node's record comes over a connection.
    fn announces(&mut self, conn: ConnId, n: u8, caps: &[&str], trackers: &[u8]) {
        let mut provided = Caps::default();
        for cap in caps {
            provided.insert(Capability::agent(*cap));
        }
        let draft = RecordDraft {
            name: format!("n{n}"),
            caps: provided,
            interests: Vec::new(),
            addrs: Vec::new(),
            trackers: trackers.iter().map(|t| id(*t)).collect(),
            tracker: TrackerRole::None,
            features: Vec::new(),
            version: String::new(),
            instance: "run".into(),
            dht: None,
            seal: None,
            seq: self.at().unix_ms,
            ttl_s: 300,
        };
        let record = draft.sign(&Identity::from_seed([n; 32])).unwrap();
        let text = crate::wire::draft::announce(&record.object, 1);
        let object = crate::wire::Object::parse(text.raw().clone()).unwrap();
        let checked =
            crate::wire::check(Message::parse(&object).unwrap(), Speaker::Proven, &mut crate::wire::Roots::new())
                .unwrap();
        let now = self.at();
        self.state.handle(conn, checked, now, &mut self.out);
    }

    /// The task that went out, if one did.
    fn sent_to(&self) -> Vec<ConnId> {
        let sent = self.out.iter().filter_map(|a| match a {
            Action::Send { to, what: crate::mesh::What::Sign(crate::wire::Draft::Task(_)), .. } => Some(*to),
            Action::Send { to, what: crate::mesh::What::SignRelay(crate::wire::Draft::Task(_), ..), .. } => Some(*to),
            _ => None,
        });
        sent.collect()
    }

    fn ended(&mut self) -> Option<crate::error::CallError> {
        let ends = |a: &mut Action| matches!(a, Action::Call { event: CallEvent::Done(_), .. });
        match self.out.extract_if(.., ends).next()? {
            Action::Call { event: CallEvent::Done(done), .. } => done.err(),
            _ => None,
        }
    }
}

fn capability(name: &str) -> Wanted {
    Wanted::Capability(name.into())
}

#[test]
fn with_nobody_connected_the_dht_is_asked_at_once_and_else_after_a_moment() {
    let mut node = Node::new();
    node.call("c", "work", None);
    assert_eq!(node.asked(), [(1, capability("work"))]);

    let mut node = Node::new();
    node.connects(1, addr(1), TrackerRole::None);
    node.call("c", "work", None);
    assert_eq!(node.asked(), []);
    node.pass(Duration::from_millis(299));
    assert_eq!(node.asked(), []);
    node.pass(Duration::from_millis(1));
    assert_eq!(node.asked(), [(1, capability("work"))]);
    // Found by the flood meanwhile: the DHT is not needed any more.
    node.announces(ConnId(1), 1, &["work"], &[]);
    assert_eq!(node.sent_to(), [ConnId(1)]);
    assert!(node.stopped());
}

#[test]
fn calls_for_the_same_share_a_lookup_and_there_is_a_bound_to_the_others() {
    let mut node = Node::new();
    node.call("a", "work", None);
    node.call("b", "work", None);
    assert_eq!(node.asked().len(), 1);
    for n in 1..MAX_LOOKUPS + 5 {
        node.call(&format!("c{n}"), &format!("cap{n}"), None);
    }
    assert_eq!(node.asked().len(), MAX_LOOKUPS - 1);
    assert_eq!(node.state.refused()["too_many_lookups"], 5);
    assert_eq!(node.state.lookup_counts().0, MAX_LOOKUPS);
    // One that gives up leaves the other its lookup.
    let now = node.at();
    node.state.cancel_call(&"a".into(), now, &mut node.out);
    assert!(!node.stopped());
    node.state.cancel_call(&"b".into(), now, &mut node.out);
    assert!(node.stopped());
}

#[test]
fn few_are_dialled_at_a_time_few_in_all_and_every_answer_has_its_turn() {
    let mut node = Node::new();
    node.call("c", "work", None);
    node.asked();
    // A server that lies names a thousand; another names one.
    node.named(1, 100..1100);
    let first = node.dialled();
    assert_eq!(first.len(), LOOKUP_DIALS_AT_ONCE);
    assert!(first.iter().all(|(_, node)| node.is_none()));
    node.named(1, [7]);
    let mut dialled = first.clone();
    let mut under_way = first;
    while let Some((at, _)) = under_way.pop() {
        node.failed(1, at);
        let more = node.dialled();
        assert!(more.len() <= 1);
        dialled.extend(more.clone());
        under_way.extend(more);
        assert!(under_way.len() <= LOOKUP_DIALS_AT_ONCE);
    }
    assert_eq!(dialled.len(), MAX_LOOKUP_DIALS);
    let honest = dialled.iter().position(|(a, _)| *a == addr(7)).unwrap();
    assert!(honest <= LOOKUP_DIALS_AT_ONCE + 2, "after {honest} others");
    // Nothing more is dialled, and when the DHT has said all, nothing is waited for.
    node.over(1, &capability("work"));
    assert!(node.stopped());
    node.pass(Duration::from_secs(2));
    let error = node.ended().unwrap();
    assert_eq!(error.code, ErrorCode::NoPeer);
    let said = &error.tried.iter().find(|t| t.step == "dht").unwrap().result;
    assert_eq!(said, "33 addresses named, 16 dialled, 0 connected, and none of them is it");
}

#[test]
fn the_dht_can_not_turn_a_node_into_a_scanner() {
    let mut node = Node::new();
    let mut dials = 0;
    for n in 0..40u16 {
        node.call(&format!("c{n}"), &format!("cap{n}"), None);
        let lookup = node.asked()[0].0;
        node.named(lookup, n * 100..n * 100 + 90);
        loop {
            let more = node.dialled();
            if more.is_empty() {
                break;
            }
            dials += more.len();
            for (at, _) in more {
                node.failed(lookup, at);
            }
        }
    }
    assert_eq!(dials, DHT_DIAL_BURST as usize);
    assert!(node.state.refused()["dht_dials"] > 0);
}

#[test]
fn what_led_nowhere_is_not_dialled_again_for_a_while() {
    let mut node = Node::new();
    for round in 0..3 {
        node.call(&format!("c{round}"), "work", None);
        let lookup = node.asked()[0].0;
        node.named(lookup, [1]);
        let dials = node.dialled().len();
        assert_eq!(dials, usize::from(round != 1), "round {round}");
        if dials > 0 {
            node.failed(lookup, addr(1));
        }
        node.over(lookup, &capability("work"));
        node.pass(if round == 1 { DHT_DEAD_ADDR } else { Duration::from_secs(3) });
    }
}

#[test]
fn nobody_knocks_where_the_dht_can_not_know_of_anybody() {
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    for (text, host, network, public) in [
        ("127.0.0.1:80", true, false, false),
        ("[::1]:80", true, false, false),
        ("[::ffff:127.0.0.1]:80", true, false, false),
        ("192.168.1.1:80", true, true, false),
        ("10.0.0.1:80", true, true, false),
        ("169.254.169.254:80", true, false, false),
        ("100.64.0.1:80", true, true, false),
        ("[fd00::1]:80", true, true, false),
        ("[fe80::1]:80", true, false, false),
        ("8.8.8.8:80", true, true, true),
        ("[2600::1]:80", true, true, true),
        ("8.8.8.8:0", false, false, false),
        ("0.0.0.0:80", false, false, false),
        ("0.1.2.3:80", false, false, false),
        ("224.0.0.1:80", false, false, false),
        ("240.0.0.1:80", false, false, false),
        ("255.255.255.255:80", false, false, false),
        ("[::]:80", false, false, false),
        ("[ff02::1]:80", false, false, false),
    ] {
        let admits = [Scope::Host, Scope::Network, Scope::Public].map(|s| s.admits(at(text)));
        assert_eq!(admits, [host, network, public], "{text}");
    }
    // Nor at this node's own door, or where it is connected.
    let mut node = Node::new();
    node.connects(1, addr(1), TrackerRole::None);
    node.call("c", "work", None);
    node.pass(Duration::from_millis(300));
    let own = at("10.9.9.9:7878");
    let now = node.at();
    node.state.dht_addrs(1, &[own, addr(1), addr(2), addr(2)], Scope::Network, now, &mut node.out);
    assert_eq!(node.dialled(), [(addr(2), None)]);
}

#[test]
fn a_candidate_is_used_when_its_record_says_so_and_the_rest_is_not_waited_for() {
    let mut node = Node::new();
    node.call("c", "work", None);
    node.asked();
    node.named(1, [1, 2, 3]);
    assert_eq!(node.dialled().len(), 3);
    let wrong = node.connects(1, addr(1), TrackerRole::None);
    node.announces(wrong, 1, &["play"], &[]);
    assert!(node.sent_to().is_empty());
    let right = node.connects(2, addr(2), TrackerRole::None);
    // Being there is not enough.
    assert!(node.sent_to().is_empty());
    node.announces(right, 2, &["work"], &[]);
    assert_eq!(node.sent_to(), [right]);
    assert!(node.stopped());
    assert_eq!(node.state.lookup_counts(), (0, 1, 0));
    // The wrong one is let go soon, the one that works stays.
    node.out.clear();
    for _ in 0..3 {
        node.pass(Duration::from_secs(5));
    }
    let closed = node.out.iter().filter_map(|a| match a {
        Action::Close { conn, reason, .. } => Some((*conn, *reason)),
        _ => None,
    });
    assert_eq!(closed.collect::<Vec<_>>(), [(wrong, CloseReason::Unused)]);
}

#[test]
fn a_tracker_that_was_named_is_asked_whom_it_stands_for() {
    let mut node = Node::new();
    node.call("c", "work", None);
    node.asked();
    node.named(1, [1]);
    node.dialled();
    let tracker = node.connects(1, addr(1), TrackerRole::Public);
    let queries = node.out.iter().filter(|a| {
        matches!(a, Action::Send { to, what: crate::mesh::What::Sign(crate::wire::Draft::Query { ttl: 1, .. }), .. } if *to == tracker)
    });
    assert_eq!(queries.count(), 1);
    // It may take its time: it is not at its end because the DHT is.
    node.over(1, &capability("work"));
    node.announces(tracker, 1, &[], &[]);
    assert!(!node.stopped());
    node.announces(tracker, 9, &["work"], &[1]);
    assert_eq!(node.sent_to(), [tracker]);
}

fn compact(addrs: &[u16], trackers: &[(u8, Option<u16>)], seq: u64) -> Compact {
    Compact {
        name: "n".into(),
        addrs: addrs.iter().map(|n| addr(*n)).collect(),
        trackers: trackers.iter().map(|(t, at)| (id(*t), at.map(addr))).collect(),
        tracker: TrackerRole::None,
        seq,
        ttl_s: 1800,
    }
}

impl Node {
    fn says(&mut self, lookup: LookupId, n: u8, compact: Compact) {
        let now = self.at();
        self.state.dht_record(lookup, id(n), compact, Scope::Network, now, &mut self.out);
    }
}

#[test]
fn a_node_is_dialled_where_it_says_and_nobody_else_is_taken_for_it() {
    let mut node = Node::new();
    node.call("c", "work", Some(id(5).to_string()));
    assert_eq!(node.asked(), [(1, Wanted::Node(id(5)))]);
    // What is old, or of the future, is not what it says now.
    node.says(1, 5, compact(&[1], &[], START_MS - 1_800_000 - 300_001));
    node.says(1, 5, compact(&[2], &[], START_MS + 300_001));
    assert_eq!((node.dialled(), node.state.refused()["stale_dht_item"]), (vec![], 2));
    node.says(1, 5, compact(&[3], &[], START_MS));
    node.says(1, 5, compact(&[4], &[], START_MS - 1));
    assert_eq!(node.dialled(), [(addr(3), Some(id(5)))]);
    let conn = node.connects(5, addr(3), TrackerRole::None);
    assert_eq!(node.sent_to(), [conn]);
    assert!(node.stopped());
}

#[test]
fn a_node_behind_a_nat_is_reached_through_the_tracker_it_names() {
    let mut node = Node::new();
    node.call("c", "work", Some(id(5).to_string()));
    node.asked();
    // One with an address in the item, one to be asked for, and this node itself.
    node.says(1, 5, compact(&[], &[(6, None), (7, Some(70)), (200, None)], START_MS));
    assert_eq!(node.dialled(), [(addr(70), Some(id(7)))]);
    assert_eq!(node.asked(), [(1, Wanted::Node(id(6)))]);
    node.failed(1, addr(70));
    node.over(1, &Wanted::Node(id(5)));
    node.says(1, 6, compact(&[60], &[(8, Some(80))], START_MS));
    // The tracker's trackers are nobody's business.
    assert_eq!(node.dialled(), [(addr(60), Some(id(6)))]);
    let tracker = node.connects(6, addr(60), TrackerRole::Public);
    assert_eq!(node.sent_to(), [tracker]);
}

#[test]
fn a_lookup_ends_in_time_whatever_the_dht_does() {
    let mut node = Node::new();
    node.call("c", "work", None);
    node.asked();
    node.named(1, [1, 2]);
    assert_eq!(node.dialled().len(), 2);
    node.connects(1, addr(1), TrackerRole::Public);
    node.pass(Duration::from_millis(2999));
    assert!(!node.stopped() && node.ended().is_none());
    node.pass(Duration::from_millis(1));
    assert!(node.stopped());
    let error = node.ended().unwrap();
    assert_eq!(error.code, ErrorCode::NoPeer);
    // What comes late changes nothing.
    node.named(1, [3]);
    node.failed(1, addr(2));
    node.over(1, &capability("work"));
    assert_eq!(node.dialled(), []);
}

#[test]
fn a_search_hears_whom_the_dht_named_and_who_is_right() {
    let mut node = Node::new();
    let now = node.at();
    let until = Duration::from_secs(2);
    node.state.ask_mesh("f".into(), Purpose::Find, "work", "", 64, until, now, &mut node.out);
    node.state.find_in_dht("f", "work", now, &mut node.out);
    assert_eq!(node.asked().len(), 1);
    node.named(1, [1, 2]);
    let wrong = node.connects(1, addr(1), TrackerRole::None);
    let right = node.connects(2, addr(2), TrackerRole::None);
    node.announces(wrong, 1, &["play"], &[]);
    node.announces(right, 2, &["work"], &[]);
    let found = node.out.iter().filter_map(|a| match a {
        Action::Found { record, how, hops, .. } => Some((record.node_id, *how, *hops)),
        _ => None,
    });
    assert_eq!(found.collect::<Vec<_>>(), [(id(2), "dht", 1)]);
    node.state.stop_find("f", &mut node.out);
    assert!(node.stopped());
}
