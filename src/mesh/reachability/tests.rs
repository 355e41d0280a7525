//! What is asked, believed and forgotten.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::views::{AGAIN, Ask, Asked, BACKOFF, DOUBT, KEPT, Reach, WAIT};
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::MAX_VIEWS;
use crate::mesh::conn_id::ConnId;
use crate::wire::{DialBackResult, ProbeNonce, WireError};

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
