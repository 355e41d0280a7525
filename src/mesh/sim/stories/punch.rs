//! Two nodes behind NATs, and the tracker that helps them to a connection of their own.

use std::net::SocketAddr;

use crate::error::{CloseReason, ErrorCode};
use crate::info::{PeerInfo, Route, Way};
use crate::mesh::access::Access;
use crate::mesh::sim::*;
use crate::wire::{Object, draft};

const TRACKER: N = 0;
const CALLER: N = 1;
const PROVIDER: N = 2;

/// A tracker, and two nodes behind it that can't be dialled, all of them able to punch.
fn behind_nats(seed: u64) -> World {
    let mut w = World::new(seed);
    let t = w.add(Spec::new("t").tracker().punches());
    let a = w.add(Spec::new("a").hidden().punches());
    let b = w.add(Spec::new("b").hidden().punches().provides("echo"));
    w.join(a, t);
    w.join(b, t);
    w.run(secs(2));
    w
}

fn peers(w: &World, n: N) -> Vec<PeerInfo> {
    let (node, now) = (&w.nodes[n], w.nodes[n].now(w.now));
    let (peers, contacts) = (node.state.peer_infos(now), node.state.contact_infos(now));
    peers.into_iter().chain(contacts).collect()
}

fn listed(w: &World, n: N, other: N) -> Option<PeerInfo> {
    peers(w, n).into_iter().find(|p| p.node_id == w.id(other))
}

fn says(w: &mut World, from: N, to: N, message: &Object) {
    let (link, side) = w.link(from, to).unwrap();
    assert!(w.push(link, 1 - side, message.raw().clone()));
    w.run(ms(100));
}

/// Where a tracker sees a node.
fn seen(w: &World, n: N) -> SocketAddr {
    let id = w.id(n);
    w.nodes[TRACKER].state.peers.proven(&id).unwrap().arrival.addr
}

#[test]
fn the_first_call_goes_through_the_tracker_and_the_next_ones_directly() {
    let mut w = behind_nats(1);
    let call = w.call(CALLER, Ask::new("echo"));
    assert_eq!(w.success(&call).route, Route::Relay);
    w.until(secs(1), "connected", |w| w.link(CALLER, PROVIDER).is_some());
    w.run(ms(100));
    for (n, other) in [(CALLER, PROVIDER), (PROVIDER, CALLER)] {
        let peer = listed(&w, n, other).unwrap();
        assert_eq!((peer.way, peer.note, peer.via), (Way::Punched, String::new(), None));
    }
    let call = w.call(CALLER, Ask::new("echo"));
    assert_eq!((w.success(&call).route, w.received["punch_start"]), (Route::Direct, 2));
    // The other way round, over the same connection.
    w.register(CALLER, "back");
    w.run(secs(1));
    let call = w.call(PROVIDER, Ask::new("back"));
    assert_eq!(w.success(&call).route, Route::Direct);
    w.run(secs(60));
    assert_eq!(w.nodes[CALLER].state.punches.len() + w.nodes[PROVIDER].state.punches.len(), 0);
}

#[test]
fn both_begin_at_once_however_far_they_are_from_the_tracker() {
    let mut w = behind_nats(2);
    let call = w.call(CALLER, Ask::new("echo"));
    w.success(&call);
    w.run(secs(1));
    let [a, b] = &w.holes[..] else { panic!("{:?}", w.holes) };
    assert!(a.at.abs_diff(b.at) <= ms(15), "{:?} apart", a.at.abs_diff(b.at));
    assert_eq!((&a.to, &b.to), (&vec![seen(&w, b.n)], &vec![seen(&w, a.n)]));
}

#[test]
fn through_nats_with_changing_ports_the_relay_stays_and_the_listing_says_so() {
    for symmetric in [vec![CALLER], vec![PROVIDER], vec![CALLER, PROVIDER]] {
        let mut w = behind_nats(3);
        w.symmetric.extend(symmetric);
        let call = w.call(CALLER, Ask::new("echo").plan(|p| p.ms = 2000));
        w.run(ms(500));
        assert_eq!(listed(&w, CALLER, PROVIDER).unwrap().note, "punching");
        assert_eq!(w.success(&call).route, Route::Relay);
        w.run(secs(6));
        for (n, other) in [(CALLER, PROVIDER), (PROVIDER, CALLER)] {
            let peer = listed(&w, n, other).unwrap();
            assert_eq!((peer.way, peer.via, &*peer.via_name), (Way::Relay, Some(w.id(TRACKER)), "t"));
            assert_eq!(peer.note, "punching failed: no answer");
        }
        // It is not tried again at once, and after a while it is.
        let call = w.call(CALLER, Ask::new("echo"));
        assert_eq!((w.success(&call).route, w.punched(CALLER)), (Route::Relay, 1));
        w.run(secs(300));
        let call = w.call(CALLER, Ask::new("echo"));
        w.success(&call);
        w.run(secs(1));
        assert_eq!((w.punched(CALLER), w.punched(PROVIDER)), (2, 2));
        // With whom there was nothing for ten minutes is listed no more.
        w.run(secs(620));
        assert!(listed(&w, CALLER, PROVIDER).is_none());
    }
}

#[test]
fn a_stream_of_calls_across_the_moment_loses_none_and_runs_none_twice() {
    for seed in 0..20 {
        let mut w = behind_nats(seed);
        let mut calls = Vec::new();
        for n in 0..40 {
            if n == 1 {
                // Not from the first: a node is told to punch only for one whose task has come.
                w.run(ms(50));
                w.faults = world::Faults { relay_twice: 0.2, relay_late: 0.2, ..world::Faults::default() };
            }
            let plan = |p: &mut Plan| (p.chunks, p.ms) = (n % 5, 40 * n % 700);
            calls.push(w.call(CALLER, Ask::new("echo").plan(plan)));
            w.run(ms(7));
        }
        w.until(secs(60), "all end", |w| calls.iter().all(|c| w.ended(c)));
        w.check_calls();
        let routes: Vec<Route> = calls.iter().map(|c| w.result(c).as_ref().unwrap().route).collect();
        assert_eq!(w.ledger.runs(), 40, "seed {seed}");
        assert!(routes.starts_with(&[Route::Relay]) && routes.ends_with(&[Route::Direct]), "seed {seed}: {routes:?}");
    }
}

#[test]
fn calls_on_the_relay_move_to_the_direct_connection_when_the_tracker_is_lost() {
    let mut w = behind_nats(4);
    let calls: Vec<_> =
        (0..5).map(|_| w.call(CALLER, Ask::new("echo").plan(|p| (p.chunks, p.ms) = (10, 3000)))).collect();
    w.until(secs(2), "connected", |w| w.link(CALLER, PROVIDER).is_some());
    w.kill(TRACKER, true);
    for call in &calls {
        assert_ne!(w.success(call).route, Route::Relay);
    }
    assert_eq!(w.ledger.runs(), 5);
}

#[test]
fn a_call_that_names_its_tracker_stays_there() {
    let mut w = behind_nats(5);
    let call = w.call(CALLER, Ask { via: Some("t".into()), ..Ask::new("echo") });
    assert_eq!(w.success(&call).route, Route::Relay);
    w.run(secs(2));
    assert_eq!(w.holes.len(), 0);
}

#[test]
fn whoever_does_not_list_the_feature_is_left_alone() {
    for able in [[false, true, true], [true, false, true], [true, true, false]] {
        let mut w = World::new(6);
        let with = |spec: Spec, able: bool| if able { spec.punches() } else { spec };
        let t = w.add(with(Spec::new("t").tracker(), able[0]));
        let a = w.add(with(Spec::new("a").hidden(), able[1]));
        let b = w.add(with(Spec::new("b").hidden().provides("echo"), able[2]));
        w.join(a, t);
        w.join(b, t);
        w.run(secs(2));
        let call = w.call(a, Ask::new("echo"));
        w.success(&call);
        w.run(secs(1));
        let asked = w.received.get("punch_start").copied().unwrap_or(0) as usize;
        assert_eq!((asked, w.holes.len(), w.refused(t, "punch_refused")), (0, 0, 0), "{able:?}");
    }
}

#[test]
fn nobody_but_a_tracker_makes_a_node_punch_and_a_tracker_only_for_whom_it_knows() {
    let mut w = behind_nats(7);
    let (a, b) = (w.id(CALLER), w.id(PROVIDER));
    let to: SocketAddr = seen(&w, CALLER);
    let start = |id: &str, peer| draft::punch_start(id, &peer, &[to], 0);
    // Nobody has sent this node a task.
    says(&mut w, TRACKER, PROVIDER, &start("1", a));
    assert_eq!((w.refused(PROVIDER, "unasked_punch"), w.holes.len()), (1, 0));
    w.symmetric.insert(CALLER);
    let call = w.call(CALLER, Ask::new("echo"));
    w.success(&call);
    w.run(secs(6));
    // Over another connection than a tracker's, though the other is known now.
    let eve = w.add(Spec::new("eve").punches());
    w.join(PROVIDER, eve);
    w.run(secs(1));
    says(&mut w, eve, PROVIDER, &start("2", a));
    assert_eq!(w.refused(PROVIDER, "unasked_punch"), 2);
    // And for itself, for a stranger, or for one that is connected.
    says(&mut w, TRACKER, PROVIDER, &start("3", b));
    let stranger = crate::identity::NodeId::from_bytes([3; 32]);
    says(&mut w, TRACKER, PROVIDER, &start("4", stranger));
    let eve_id = w.id(eve);
    says(&mut w, TRACKER, PROVIDER, &start("5", eve_id));
    assert_eq!((w.refused(PROVIDER, "unasked_punch"), w.punched(PROVIDER)), (3, 1));
    // Errors that nobody asked for change nothing.
    let error = crate::wire::WireError::new(crate::error::ErrorCode::NoPeer, "no");
    says(&mut w, TRACKER, PROVIDER, &draft::punch_error("6", &a, &error));
    assert_eq!(w.refused(PROVIDER, "unasked_punch"), 4);
    assert_eq!(listed(&w, PROVIDER, CALLER).unwrap().note, "punching failed: no answer");
}

#[test]
fn a_tracker_that_keeps_telling_a_node_to_punch_is_held_to_a_few_a_minute() {
    let mut w = behind_nats(8);
    let a = w.id(CALLER);
    w.symmetric.insert(CALLER);
    let call = w.call(CALLER, Ask::new("echo"));
    w.success(&call);
    w.run(secs(10));
    let (victim, began) = ("203.0.113.9:80".parse().unwrap(), w.punched(PROVIDER));
    for n in 0..600 {
        says(&mut w, TRACKER, PROVIDER, &draft::punch_start(&n.to_string(), &a, &[victim; 5], u64::MAX));
    }
    // A minute, with 4 on top; and never two at once for one node.
    let begun = w.punched(PROVIDER) - began;
    assert!((4..=10).contains(&begun), "{begun}");
    assert!(w.holes[began + 1..].iter().all(|h| h.to == [victim]), "each address once");
    assert!(w.refused(PROVIDER, "punch_rate") + w.refused(PROVIDER, "unasked_punch") >= 580);
}

#[test]
fn a_node_is_not_made_to_knock_where_it_must_not() {
    let mut w = behind_nats(9);
    let a = w.id(CALLER);
    w.symmetric.insert(CALLER);
    let call = w.call(CALLER, Ask::new("echo"));
    w.success(&call);
    w.run(secs(6));
    let began = w.punched(PROVIDER);
    let bad = ["127.0.0.1:9000", "0.0.0.0:1", "224.0.0.1:5", "203.0.113.1:0", "[::1]:9"];
    let bad: Vec<SocketAddr> = bad.iter().map(|a| a.parse().unwrap()).collect();
    says(&mut w, TRACKER, PROVIDER, &draft::punch_start("1", &a, &bad, 0));
    assert_eq!((w.punched(PROVIDER), w.refused(PROVIDER, "punch_address")), (began, 5));
    // Six are not even read.
    says(&mut w, TRACKER, PROVIDER, &draft::punch_start("2", &a, &[bad[0]; 6], 0));
    assert_eq!((w.punched(PROVIDER), w.rejected), (began, 1));
}

#[test]
fn a_private_node_refuses_to_punch_for_whom_it_does_not_admit() {
    let mut w = behind_nats(10);
    let t = w.id(TRACKER);
    w.with(PROVIDER, |s, now, out| s.set_access(Access::private().allow(t), now, out));
    let call = w.call(CALLER, Ask::new("echo"));
    assert_eq!(w.error(&call).code, ErrorCode::NotAllowed, "nor does it run what comes through the tracker");
    w.run(secs(6));
    assert_eq!((w.punched(PROVIDER), w.refused(PROVIDER, "punch_not_allowed")), (0, 1));
}

#[test]
fn a_tracker_helps_only_whom_it_can_and_not_too_often() {
    let mut w = behind_nats(11);
    let (a, b) = (w.id(CALLER), w.id(PROVIDER));
    let stranger = crate::identity::NodeId::from_bytes([3; 32]);
    let listening = w.add(Spec::new("l").punches());
    w.join(TRACKER, listening);
    w.run(secs(1));
    let dialled = w.id(listening);
    for target in [a, stranger, dialled] {
        says(&mut w, CALLER, TRACKER, &draft::punch("1", Some(&target), &[]));
    }
    assert_eq!((w.refused(TRACKER, "punch_refused"), w.received["punch_error"]), (3, 3));
    // Asked a hundred times a tracker helps once.
    let before = w.received.get("punch_start").copied().unwrap_or(0);
    for n in 0..100 {
        says(&mut w, CALLER, TRACKER, &draft::punch(&n.to_string(), Some(&b), &[]));
    }
    assert_eq!((w.received["punch_start"] - before, w.refused(TRACKER, "punch_refused")), (2, 102));
    // The other did not begin: nobody it knows is behind it.
    assert_eq!(w.holes.len(), 0);
    // And who is no tracker helps nobody.
    says(&mut w, TRACKER, CALLER, &draft::punch("1", Some(&b), &[]));
    assert_eq!(w.refused(CALLER, "punch_refused"), 1);
}

#[test]
fn a_target_that_is_not_at_the_tracker_is_told_of_and_backed_off_from() {
    let mut w = behind_nats(12);
    // Its record says it is there; it has just left.
    let provider = w.id(PROVIDER);
    let call = w.call(CALLER, Ask { via: Some("t".into()), ..Ask::new("echo") });
    w.success(&call);
    let (link, side) = w.link(PROVIDER, TRACKER).unwrap();
    w.close(link, side, CloseReason::Shutdown, "");
    w.run(ms(20));
    let call = w.call(CALLER, Ask::new("echo").plan(|p| p.ms = 1000));
    w.run(ms(50));
    let note = w.nodes[CALLER].state.punches.note(&provider);
    assert!(note.starts_with("punching failed") && note.contains("not connected to this tracker"), "{note}");
    w.until(secs(60), "it ends", |w| w.ended(&call));
}

#[test]
fn contacts_and_attempts_are_bounded() {
    let mut w = behind_nats(13);
    let (t, now) = (w.id(TRACKER), w.nodes[CALLER].now(w.now));
    for n in 0..2000u32 {
        let mut id = [7; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        let node = crate::identity::NodeId::from_bytes(id);
        let state = &mut w.nodes[CALLER].state;
        state.note_contact(node, t, now);
        state.punches.set(node, crate::mesh::punch::Phase::Failed { why: "no".into() }, now.mono);
    }
    let state = &w.nodes[CALLER].state;
    assert_eq!(state.contact_infos(now).len(), crate::limits::MAX_CONTACTS);
    assert_eq!(state.punches.len(), crate::limits::MAX_PUNCHES);
}

#[test]
fn only_so_many_are_under_way_at_once() {
    let mut w = behind_nats(14);
    let most = crate::limits::MAX_PUNCHING;
    let others: Vec<N> = (0..most + 9)
        .map(|i| {
            let n = w.add(Spec::new(&format!("p{i}")).hidden().punches());
            w.join(n, TRACKER);
            n
        })
        .collect();
    w.symmetric.insert(CALLER);
    w.run(secs(2));
    let before = w.received["punch"];
    let calls: Vec<_> = others.iter().map(|n| w.call(CALLER, Ask::new("ping").to(w.id(*n)))).collect();
    w.run(secs(4));
    assert_eq!(w.received["punch"] - before, most as u64);
    assert!(calls.iter().all(|c| w.result(c).is_ok()));
}

#[test]
fn what_two_trackers_see_of_one_port_tells_a_symmetric_nat() {
    const LOCAL: &str = "192.168.1.5:40000";
    let cases = [
        (LOCAL, "203.0.113.5:40000", "203.0.113.5:40000", false),
        (LOCAL, "203.0.113.5:40000", "203.0.113.5:40001", true),
        // From another port, or at another address: that says nothing.
        ("192.168.1.5:40009", "203.0.113.5:40000", "203.0.113.5:40009", false),
        (LOCAL, "192.168.1.5:40000", "203.0.113.5:40001", false),
    ];
    for (local, one, two, symmetric) in cases {
        let mut w = World::new(15);
        let n = w.add(Spec::new("n").hidden().punches());
        let (now, state) = (w.nodes[n].now(w.now), &mut w.nodes[n].state);
        for (i, (tracker, local, observed)) in
            [("198.51.100.1:7878", LOCAL, one), ("198.51.100.2:7878", local, two)].into_iter().enumerate()
        {
            let mut arrival = crate::mesh::punch::tests::arrival(tracker, local);
            arrival.node = crate::identity::NodeId::from_bytes([i as u8 + 50; 32]);
            arrival.observed = Some(observed.parse().unwrap());
            assert!(!state.is_symmetric());
            state.connected(crate::mesh::ConnId(900 + i as u64), arrival, now, &mut Vec::new()).unwrap();
        }
        assert_eq!(state.is_symmetric(), symmetric, "{local} {one} {two}");
    }
}
