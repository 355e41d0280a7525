//! What is asked, believed and forgotten.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::views::{AGAIN, Ask, Asked, BACKOFF, DOUBT, KEPT, Reach, WAIT};
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::{Limits, MAX_VIEWS};
use crate::mesh::{Action, Arrival, Config, ConnId, DIALBACK, How, Now, State, What};
use crate::wire::{Caps, DialBackResult, Message, ProbeNonce, Speaker, TrackerRole, WireError};

const PORT: u16 = 7878;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tracker(n: u8, observed: &str) -> Asked {
    let node = NodeId::from_bytes([n; 32]);
    Asked { conn: ConnId(n.into()), node, observed: Some(ip(observed)), loopback: false }
}

/// A node and its clock.
struct Node {
    reach: Reach,
    now: Duration,
    rng: StdRng,
}

impl Node {
    fn new(trackers: &[Asked]) -> Self {
        let mut reach = Reach::default();
        reach.look(trackers, Duration::ZERO);
        Self { reach, now: Duration::ZERO, rng: StdRng::seed_from_u64(1) }
    }

    fn due(&mut self) -> Vec<Ask> {
        self.reach.due(PORT, self.now, &mut self.rng)
    }

    /// Lets time pass up to the next questions.
    fn next(&mut self) -> Vec<Ask> {
        loop {
            let asks = self.due();
            if !asks.is_empty() {
                return asks;
            }
            self.now = self.reach.next_due().expect("something is due").max(self.now);
        }
    }

    fn arrived(&mut self, nonce: ProbeNonce) -> bool {
        self.reach.arrived(nonce, self.now, &mut self.rng)
    }

    fn answer(&mut self, ask: &Ask, addr: &str, outcome: Result<(), WireError>) -> bool {
        let answer = DialBackResult { id: ask.id.clone(), addr: at(addr), outcome };
        self.reach.answered(ask.conn, answer, self.now, &mut self.rng)
    }

    fn refuse(&mut self, ask: &Ask) -> bool {
        let port = ask.port;
        self.answer(ask, &format!("192.0.2.1:{port}"), Err(WireError::new(ErrorCode::NoPeer, "refused")))
    }

    fn verify(&mut self, ask: &Ask, addr: &str) {
        assert!(self.arrived(ask.nonce) && self.answer(ask, addr, Ok(())));
    }

    fn verified(&self) -> Vec<SocketAddr> {
        self.reach.verified().into_keys().collect()
    }
}

#[test]
fn an_address_is_believed_when_the_nonce_came_and_the_tracker_names_it_in_either_order() {
    for nonce_first in [true, false] {
        let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
        let [ask] = &node.due()[..] else { panic!() };
        assert_eq!((ask.conn, ask.port), (ConnId(1), PORT));
        if nonce_first {
            assert!(node.arrived(ask.nonce));
            assert!(node.verified().is_empty(), "nobody has said where it was dialled");
            assert!(node.answer(ask, "192.0.2.1:7878", Ok(())));
        } else {
            assert!(node.answer(ask, "192.0.2.1:7878", Ok(())));
            assert!(node.verified().is_empty(), "anybody can say so");
            assert!(node.arrived(ask.nonce));
        }
        assert_eq!(node.verified(), [at("192.0.2.1:7878")]);
        assert!(!node.arrived(ask.nonce), "a nonce counts once");
        assert!(!node.answer(ask, "192.0.2.1:7878", Ok(())), "and so does an answer");
    }
}

#[test]
fn nothing_is_believed_after_ten_seconds_and_nobody_is_told_twice() {
    for (nonce, answer, why) in
        [(false, true, "nothing came from there"), (true, false, "did not answer"), (false, false, "did not answer")]
    {
        let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
        let [ask] = &node.due()[..] else { panic!() };
        assert!(!nonce || node.arrived(ask.nonce));
        assert!(!answer || node.answer(ask, "192.0.2.1:7878", Ok(())));
        node.now = WAIT;
        assert!(!node.arrived(ask.nonce), "too late");
        assert!(!node.answer(ask, "192.0.2.1:7878", Ok(())), "too late");
        assert!(node.due().is_empty(), "not asked again at once");
        let failed = node.reach.views.values().next().and_then(|v| v.failed.clone()).unwrap();
        assert!(failed.contains(why), "{failed}");
    }
}

#[test]
fn a_tracker_can_name_no_address_but_that_of_this_nodes_connection_and_the_port_asked_for() {
    let wrong = ["192.0.2.1:80", "192.0.2.9:7878", "127.0.0.1:7878", "0.0.0.0:7878", "255.255.255.255:7878"];
    for addr in wrong.into_iter().chain(["224.0.0.1:7878", "[::1]:7878", "[ff02::1]:7878", "[::]:7878"]) {
        for observed in [Some(ip("192.0.2.1")), None] {
            if observed.is_none() && addr == "192.0.2.9:7878" {
                continue; // A tracker that dialled this node hasn't said before how it sees it.
            }
            let mut node = Node::new(&[Asked { observed, ..tracker(1, "192.0.2.1") }]);
            let [ask] = &node.due()[..] else { panic!() };
            assert!(node.arrived(ask.nonce));
            node.answer(ask, addr, Ok(()));
            assert!(node.verified().is_empty(), "{addr} was believed");
        }
    }
    // Also not with another's answer, or for another's question.
    let mut node = Node::new(&[tracker(1, "192.0.2.1"), tracker(2, "192.0.2.1")]);
    let asks = node.due();
    let [a, b] = &asks[..] else { panic!() };
    assert!(node.arrived(a.nonce));
    let crossed = Ask { conn: b.conn, id: a.id.clone(), port: a.port, nonce: a.nonce };
    assert!(!node.answer(&crossed, "192.0.2.1:7878", Ok(())));
    assert!(node.verified().is_empty());
}

#[test]
fn an_address_as_ipv4_in_ipv6_is_the_ipv4_address() {
    let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
    let [ask] = &node.due()[..] else { panic!() };
    node.verify(ask, "[::ffff:192.0.2.1]:7878");
    assert_eq!(node.verified(), [at("192.0.2.1:7878")]);
}

#[test]
fn a_verified_address_is_asked_for_again_every_ten_minutes_and_outlives_one_failure() {
    let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
    let [ask] = &node.next()[..] else { panic!() };
    node.verify(ask, "192.0.2.1:7878");
    for _ in 0..5 {
        let before = node.now;
        let [ask] = &node.next()[..] else { panic!() };
        let waited = node.now - before;
        assert!((AGAIN * 3 / 4..=AGAIN * 5 / 4).contains(&waited), "{waited:?}");
        node.verify(ask, "192.0.2.1:7878");
    }
    let [ask] = &node.next()[..] else { panic!() };
    let before = node.now;
    assert!(node.refuse(ask));
    assert_eq!(node.verified().len(), 1, "one failure may be a lost packet");
    let [ask] = &node.next()[..] else { panic!() };
    assert!(node.now - before <= DOUBT * 5 / 4);
    assert!(node.refuse(ask));
    assert!(node.verified().is_empty());
    // It comes back as it was lost.
    let [ask] = &node.next()[..] else { panic!() };
    node.verify(ask, "192.0.2.1:7878");
    assert_eq!(node.verified().len(), 1);
}

#[test]
fn failing_is_asked_about_ever_less_often() {
    let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
    let mut wait = BACKOFF;
    for _ in 0..20 {
        let [ask] = &node.next()[..] else { panic!() };
        assert!(node.refuse(ask));
        let before = node.now;
        node.now = node.reach.next_due().unwrap();
        assert!((wait * 3 / 4..=wait * 5 / 4).contains(&(node.now - before)), "{wait:?}");
        wait = (wait * 2).min(AGAIN);
    }
}

#[test]
fn a_tracker_that_has_no_time_is_asked_later_and_changes_nothing() {
    let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
    let [ask] = &node.next()[..] else { panic!() };
    node.verify(ask, "192.0.2.1:7878");
    for (retry, least) in [(1, DOUBT), (60, Duration::from_secs(60)), (80_000, AGAIN)] {
        for code in [ErrorCode::RateLimited, ErrorCode::Overloaded] {
            let [ask] = &node.next()[..] else { panic!() };
            let refusal = WireError::new(code, "later").retry_after_s(retry);
            assert!(node.answer(ask, "192.0.2.1:7878", Err(refusal)));
            let before = node.now;
            let wait = node.reach.next_due().unwrap() - before;
            assert!((least * 3 / 4..=least * 5 / 4).contains(&wait), "{wait:?}");
            assert_eq!(node.verified().len(), 1);
            // Within what is kept: it has to be verified now and then.
            let [ask] = &node.next()[..] else { panic!() };
            node.verify(ask, "192.0.2.1:7878");
        }
    }
}

#[test]
fn what_one_of_several_trackers_verified_counts() {
    let mut node = Node::new(&[tracker(1, "10.0.0.5"), tracker(2, "192.0.2.1")]);
    let asks = node.due();
    let [lan, public] = &asks[..] else { panic!() };
    assert!(node.answer(public, "192.0.2.1:7878", Err(WireError::new(ErrorCode::NoPeer, "nobody answered"))));
    node.verify(lan, "10.0.0.5:7878");
    assert_eq!(node.verified(), [at("10.0.0.5:7878")]);
}

#[test]
fn an_address_outlives_the_tracker_that_verified_it_for_a_while() {
    let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
    let [ask] = &node.next()[..] else { panic!() };
    node.verify(ask, "192.0.2.1:7878");
    node.reach.look(&[], node.now);
    assert!(node.due().is_empty());
    assert_eq!(node.verified().len(), 1);
    node.now = KEPT;
    node.due();
    assert!(node.verified().is_empty() && node.reach.views.is_empty() && node.reach.next_due().is_none());
}

#[test]
fn another_observed_address_ends_what_was_verified_at_once() {
    let mut node = Node::new(&[tracker(1, "192.0.2.1")]);
    let [ask] = &node.next()[..] else { panic!() };
    node.verify(ask, "192.0.2.1:7878");
    // The same again: it is asked again, and believed meanwhile.
    node.reach.look(&[Asked { conn: ConnId(8), ..tracker(1, "192.0.2.1") }], node.now);
    assert_eq!((node.verified().len(), node.due().len()), (1, 1));
    node.reach.look(&[Asked { conn: ConnId(9), ..tracker(1, "192.0.2.77") }], node.now);
    assert!(node.verified().is_empty());
    let [ask] = &node.due()[..] else { panic!() };
    assert_eq!(ask.conn, ConnId(9));
    node.verify(ask, "192.0.2.77:7878");
    assert_eq!(node.verified(), [at("192.0.2.77:7878")]);
}

#[test]
fn the_mapped_port_is_asked_for_where_the_tracker_sees_the_gateway() {
    let mut node = Node::new(&[tracker(1, "10.0.0.5"), tracker(2, "192.0.2.1")]);
    let asks = node.due();
    for ask in &asks {
        let observed = if ask.conn == ConnId(1) { "10.0.0.5:7878" } else { "192.0.2.1:7878" };
        if ask.conn == ConnId(1) { node.verify(ask, observed) } else { assert!(node.refuse(ask)) }
    }
    assert!(node.reach.set_mapped(Some(at("192.0.2.1:4000")), node.now));
    assert!(!node.reach.set_mapped(Some(at("192.0.2.1:4000")), node.now), "no news");
    let [ask] = &node.due()[..] else { panic!("only the tracker outside is asked") };
    assert_eq!((ask.conn, ask.port), (ConnId(2), 4000));
    node.verify(ask, "192.0.2.1:4000");
    assert_eq!(node.verified(), [at("10.0.0.5:7878"), at("192.0.2.1:4000")]);
    // The gateway forgets it: nobody is sent there any more.
    assert!(node.reach.set_mapped(None, node.now));
    assert_eq!(node.verified(), [at("10.0.0.5:7878")]);
    let [ask] = &node.due()[..] else { panic!() };
    assert_eq!(ask.port, PORT);
}

#[test]
fn however_many_trackers_there_are_a_few_are_asked() {
    let trackers: Vec<Asked> = (1..=100).map(|n| tracker(n, "192.0.2.1")).collect();
    let mut node = Node::new(&trackers);
    assert_eq!(node.due().len(), MAX_VIEWS);
    node.reach.look(&trackers, node.now);
    assert!(node.due().is_empty());
    // Those that come when others have gone have their places, verified or not.
    for ask in node.next() {
        node.verify(&ask, "192.0.2.1:7878");
    }
    node.reach.look(&trackers[50..], node.now);
    assert_eq!((node.due().len(), node.reach.views.len()), (MAX_VIEWS, MAX_VIEWS));
}

// ---- what is published ---------------------------------------------------------------------------------------

/// A node that listens everywhere, unless it is told otherwise, and what it publishes as connections come.
struct Published {
    state: State,
    conns: u64,
}

impl Published {
    fn new(set: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            name: "n".into(),
            version: String::new(),
            instance: "1".into(),
            features: Vec::new(),
            tracker: TrackerRole::None,
            access: crate::mesh::access::Access::default(),
            serve_only: None,
            policies: Vec::new(),
            port: Some(PORT),
            bound: None,
            advertise: Vec::new(),
            dht: false,
            sealing: crate::info::Sealing::Off,
            limits: Limits::default(),
        };
        set(&mut config);
        Self { state: State::new(NodeId::from_bytes([99; 32]), config, [1; 32], NOW), conns: 0 }
    }

    /// A peer that this node dialled from that address; gives the question it was asked, if it is a tracker.
    fn meets(&mut self, local: &str, addr: &str, tracker: TrackerRole) -> (ConnId, Option<(String, ProbeNonce)>) {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let arrival = Arrival {
            node: NodeId::from_bytes([self.conns as u8; 32]),
            speaker: Speaker::Proven,
            addr: SocketAddr::new(ip(addr), 7000),
            local: SocketAddr::new(ip(local), 40_000),
            inbound: false,
            encrypted: false,
            how: How::default(),
            instance: None,
            version: String::new(),
            features: if tracker == TrackerRole::None { Vec::new() } else { vec![DIALBACK.to_owned()] },
            tracker,
            observed: Some(SocketAddr::new(ip(local), 40_000)),
            caps: Caps::default(),
        };
        let mut out = Vec::new();
        self.state.connected(conn, arrival, NOW, &mut out).unwrap();
        let asked = out.iter().find_map(|action| match action {
            Action::Send { what: What::Ready(message), .. } => match Message::parse(message) {
                Ok(Message::DialBack(ask)) => Some((ask.id, ask.nonce)),
                _ => None,
            },
            _ => None,
        });
        (conn, asked)
    }

    fn verify(&mut self, (conn, asked): (ConnId, Option<(String, ProbeNonce)>), addr: &str) {
        let (id, nonce) = asked.expect("it was asked");
        self.state.probed(nonce, NOW, &mut Vec::new());
        let answer = DialBackResult { id, addr: at(addr), outcome: Ok(()) };
        self.state.on_dial_back_result(answer, conn, NOW, &mut Vec::new());
    }

    fn addrs(&self) -> Vec<String> {
        self.state.addrs().iter().map(ToString::to_string).collect()
    }
}

const NOW: Now = Now { mono: Duration::ZERO, unix_ms: 1_700_000_000_000 };

#[test]
fn without_a_tracker_the_local_addresses_are_published_and_with_one_what_it_verified() {
    let mut node = Published::new(|_| {});
    node.meets("192.168.1.5", "192.168.1.1", TrackerRole::None);
    assert_eq!(node.addrs(), ["192.168.1.5:7878"]);
    let asked = node.meets("10.0.0.5", "10.0.0.1", TrackerRole::Public);
    assert!(node.addrs().is_empty(), "not verified yet");
    node.verify(asked, "10.0.0.5:7878");
    assert_eq!(node.addrs(), ["10.0.0.5:7878"]);
}

#[test]
fn a_tracker_on_this_machine_tells_nothing_of_the_world() {
    let mut node = Published::new(|_| {});
    node.meets("192.168.1.5", "192.168.1.1", TrackerRole::None);
    let asked = node.meets("127.0.0.1", "127.0.0.1", TrackerRole::Public);
    node.verify(asked, "127.0.0.1:7878");
    assert_eq!(node.addrs(), ["192.168.1.5:7878"], "others can't dial loopback");
    node.meets("192.168.1.5", "203.0.113.1", TrackerRole::Public);
    assert!(node.addrs().is_empty(), "now there is one that can tell");
    // Where there is nothing but loopback, loopback is worth verifying and publishing.
    for bound in [None, Some(ip("127.0.0.1"))] {
        let mut node = Published::new(|config| config.bound = bound);
        let asked = node.meets("127.0.0.1", "127.0.0.1", TrackerRole::Public);
        assert!(node.addrs().is_empty());
        node.verify(asked, "127.0.0.1:7878");
        assert_eq!(node.addrs(), ["127.0.0.1:7878"]);
    }
}

#[test]
fn what_the_owner_names_and_what_a_tracker_is_found_at_stand_whatever_others_say() {
    let mut node = Published::new(|config| config.advertise = vec![at("198.51.100.1:443")]);
    let (_, asked) = node.meets("192.168.1.5", "203.0.113.1", TrackerRole::Public);
    assert!(asked.is_some(), "it is still good to know");
    assert_eq!(node.addrs(), ["198.51.100.1:443"]);
    let mut tracker = Published::new(|config| config.tracker = TrackerRole::Public);
    let (_, asked) = tracker.meets("192.168.1.5", "203.0.113.1", TrackerRole::Public);
    assert!(asked.is_some());
    assert_eq!(tracker.addrs(), ["192.168.1.5:7878"]);
    let mut silent = Published::new(|config| config.port = None);
    let (_, asked) = silent.meets("192.168.1.5", "203.0.113.1", TrackerRole::Public);
    assert!(asked.is_none() && silent.addrs().is_empty(), "who doesn't listen asks nobody");
}

#[test]
fn without_a_tracker_the_routers_address_is_published_if_it_is_of_the_internet() {
    for (mapped, published) in [
        ("93.184.216.34:4000", vec!["93.184.216.34:4000", "192.168.1.5:7878"]),
        ("[2606:4700::1111]:4000", vec!["[2606:4700::1111]:4000", "192.168.1.5:7878"]),
        ("192.168.0.2:4000", vec!["192.168.1.5:7878"]),
        ("100.64.3.4:4000", vec!["192.168.1.5:7878"]),
        ("127.0.0.1:4000", vec!["192.168.1.5:7878"]),
        ("224.0.0.1:4000", vec!["192.168.1.5:7878"]),
        ("[fd00::1]:4000", vec!["192.168.1.5:7878"]),
    ] {
        let mut node = Published::new(|_| {});
        node.meets("192.168.1.5", "192.168.1.1", TrackerRole::None);
        let mut out = Vec::new();
        node.state.mapped(Some(at(mapped)), NOW, &mut out);
        assert_eq!(node.addrs(), published);
        let news = out.iter().filter(|action| matches!(action, Action::SignRecord(_))).count();
        assert_eq!(news, usize::from(published.len() == 2), "the record is written anew when they change: {mapped}");
        // With one it has to be verified like any other.
        node.meets("192.168.1.5", "203.0.113.1", TrackerRole::Public);
        assert!(node.addrs().is_empty());
    }
}
