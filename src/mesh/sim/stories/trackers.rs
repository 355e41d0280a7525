//! Many trackers: registering with those one hears of, what they tell each other, and what becomes of it all when one is lost.

use std::time::Duration;

use super::thousand::{is_whole, registered};
use crate::error::{Delivery, ErrorCode};
use crate::identity::Identity;
use crate::info::Route;
use crate::mesh::sim::*;
use crate::wire::{RecordDraft, TrackerRole, draft};

/// Trackers that know the first of them.
fn trackers(w: &mut World, n: usize) {
    for t in 0..n {
        w.add(Spec::new(&format!("t{t}")).tracker());
        if t > 0 {
            w.join(t, 0);
        }
    }
}

fn knows(w: &World, n: N, of: N) -> bool {
    w.nodes[n].state.table.get(&w.nodes[of].id).is_some()
}

#[test]
fn a_node_registers_with_trackers_it_hears_of_until_it_has_enough() {
    let mut w = World::new(30);
    trackers(&mut w, 6);
    for (name, most) in [("four", 4), ("two", 2), ("none", 0)] {
        let n = w.add(Spec::new(name).hidden().limits(|l| l.max_trackers = most));
        w.join(n, 1);
    }
    w.run(secs(60));
    assert_eq!([6, 7, 8].map(|n| registered(&w, n)), [4, 2, 1]);
    assert_eq!(w.nodes[6].state.record.as_ref().unwrap().trackers.len(), 4);
    // The trackers have all found each other.
    assert!((0..6).all(|t| (0..6).filter(|o| w.link(t, *o).is_some()).count() == 5));
    // It stays so when nothing is called through them.
    w.run(secs(1500));
    assert_eq!([6, 7, 8].map(|n| registered(&w, n)), [4, 2, 1]);
    assert!(w.dials < 40, "{}", w.dials);
}

#[test]
fn a_tracker_that_comes_later_is_told_of_and_one_that_is_too_many_is_left_again() {
    let mut w = World::new(31);
    trackers(&mut w, 2);
    let n = w.add(Spec::new("n").hidden());
    w.join(n, 0);
    w.run(secs(30));
    assert_eq!(registered(&w, n), 2);
    let late: Vec<N> = (0..3).map(|i| w.add(Spec::new(&format!("late{i}")).tracker())).collect();
    for t in &late {
        w.join(*t, 0);
    }
    w.run(secs(60));
    assert_eq!(registered(&w, n), 4);
    // The configured one goes, another one takes its place, and it comes back.
    w.kill(0, true);
    w.run(secs(30));
    assert_eq!(registered(&w, n), 4);
    w.revive(0, 7000);
    w.run(secs(60));
    assert_eq!(registered(&w, n), 5);
    w.run(secs(700));
    assert_eq!(registered(&w, n), 4, "what is too many and not used is left");
    assert!(w.link(n, 0).is_some(), "the configured one stays");
}

#[test]
fn made_up_trackers_cost_little_and_do_not_crowd_out_real_ones() {
    let mut w = World::new(32);
    trackers(&mut w, 3);
    let n = w.add(Spec::new("n").hidden());
    let eve = w.add(Spec::new("eve"));
    w.join(n, eve);
    w.run(secs(1));
    let unix_ms = w.nodes[n].now(w.now).unix_ms;
    for i in 0..300u32 {
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        let record = RecordDraft {
            name: format!("made up {i}"),
            caps: Default::default(),
            interests: Vec::new(),
            addrs: vec![([10, 200, (i >> 8) as u8, i as u8], 7000).into()],
            trackers: Vec::new(),
            tracker: TrackerRole::Public,
            features: Vec::new(),
            dht: None,
            seal: None,
            version: String::new(),
            instance: String::new(),
            seq: unix_ms,
            ttl_s: 300,
        };
        let record = record.sign(&Identity::from_seed(seed)).unwrap();
        let (link, side) = w.link(eve, n).unwrap();
        assert!(w.push(link, 1 - side, draft::announce(&record.object, 1).raw().clone()));
        w.run(ms(20));
    }
    assert_eq!(w.nodes[n].state.known_trackers.len(), 8);
    let before = w.dials;
    w.run(secs(60));
    assert!(w.dials - before < 60, "{} dials in a minute", w.dials - before);
    w.join(n, 0);
    // Those that are made up are dialled in between: that takes its time.
    w.until(secs(180), "the real ones are found", |w| registered(w, n) == 3);
}

#[test]
fn two_trackers_that_know_nothing_of_each_other_meet_through_a_node() {
    let mut w = World::new(33);
    let (s, t) = (w.add(Spec::new("s").tracker()), w.add(Spec::new("t").tracker()));
    let n = w.add(Spec::new("n").hidden());
    w.join(n, s);
    w.join(n, t);
    w.run(secs(30));
    assert!(w.link(s, t).is_some());
}

#[test]
fn federated_trackers_know_each_others_nodes_those_from_before_as_well() {
    let mut w = World::new(34);
    let (s, t) = (w.add(Spec::new("s").tracker()), w.add(Spec::new("t").tracker()));
    let spec = |i| Spec::new(&format!("n{i}")).hidden().provides(&format!("cap.{i}")).limits(|l| l.max_trackers = 1);
    let nodes: Vec<N> = (0..400).map(|i| w.add(spec(i))).collect();
    for n in &nodes {
        w.join(*n, s);
    }
    w.run(secs(5));
    w.join(t, s);
    // The first hundred at once, then fifty a second.
    w.until(secs(7), "everybody is known to the other tracker", |w| nodes.iter().all(|n| knows(w, t, *n)));
    assert!(w.throttled.is_empty(), "{:?}", w.throttled);
    // What changes later is told at once, once.
    let before = w.received["announce"];
    w.register(nodes[7], "new");
    w.run(secs(1));
    assert!(w.nodes[t].state.table.providers("new").next().is_some());
    assert_eq!(w.received["announce"] - before, 2);
    assert_eq!(w.nodes[s].state.shares.waiting() + w.nodes[t].state.shares.waiting(), 0);
}

/// A public tracker (0) and another one (1) that knows it, a private one (2) that admits the first and a node (3), and a
/// node of the second one (4).
fn with_a_private_tracker(w: &mut World) -> [N; 5] {
    let id = |n: u64| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(n + 1).to_le_bytes());
        Identity::from_seed(seed).id()
    };
    let public = w.add(Spec::new("public").tracker());
    let other = w.add(Spec::new("other").tracker());
    let private = w.add(Spec::new("private").private(&[id(0), id(3)]));
    let member = w.add(Spec::new("member").hidden().provides("secret"));
    let stranger = w.add(Spec::new("stranger").hidden().limits(|l| l.max_trackers = 0));
    w.join(other, public);
    w.join(stranger, other);
    [public, other, private, member, stranger]
}

#[test]
fn a_private_trackers_nodes_are_known_to_whom_it_admits_and_to_no_further_tracker() {
    // Whatever comes first.
    for order in 0..3 {
        let mut w = World::new(35);
        let [public, other, private, member, stranger] = with_a_private_tracker(&mut w);
        let guest = w.add(Spec::new("guest").hidden().limits(|l| l.max_trackers = 0));
        w.join(guest, public);
        let joins = [(private, public), (member, private)];
        w.run(secs(if order == 2 { 20 } else { 0 }));
        for i in 0..2 {
            let (a, b) = joins[(i + order) % 2];
            w.join(a, b);
            w.run(secs(2));
        }
        w.run(secs(200));
        assert!(knows(&w, public, member), "{order}: the tracker that it admits");
        for n in [other, stranger] {
            assert!(!knows(&w, n, member) && !knows(&w, n, private), "{order}: {n}");
            for (capability, from) in [("secret", n), ("", n)] {
                let id = w.find(from, capability, secs(2));
                w.run(secs(3));
                let found = w.nodes[n].found.remove(&id).unwrap_or_default();
                let member = w.id(member);
                assert!(!found.iter().any(|(f, _)| *f == member), "{order}: {n} found it");
            }
        }
        assert_eq!(registered(&w, member), 1, "{order}: who belongs to a private tracker registers nowhere else");
        // Those of the tracker it admits may call it.
        let call = w.call(guest, Ask::new("secret"));
        assert_eq!(w.success(&call).hops, 3);
    }
}

#[test]
fn who_relays_to_a_private_trackers_node_does_not_tell_another_tracker_where_it_is() {
    let mut w = World::new(38);
    let [public, other, private, member, _] = with_a_private_tracker(&mut w);
    w.nodes[member].spec.listens = true;
    w.kill(member, true);
    w.revive(member, 7000);
    w.join(private, public);
    w.join(member, private);
    w.run(secs(20));
    let known = w.nodes[public].state.table.get(&w.id(member)).unwrap();
    assert!(!known.addrs.is_empty() && !knows(&w, other, member));
    // It knows the id from elsewhere.
    let id = w.id(member);
    let call = w.call(other, Ask::new("secret").to(id));
    w.success(&call);
    w.run(secs(2));
    assert!(!knows(&w, other, member));
}

/// Three trackers in a row, which don't look for each other; a caller behind the first (3), a provider behind the last (4).
fn row() -> World {
    let mut w = World::new(36);
    for t in 0..3 {
        w.add(Spec::new(&format!("t{t}")).tracker().limits(|l| l.max_trackers = 0));
        if t > 0 {
            w.join(t, t - 1);
        }
    }
    w.add(Spec::new("caller").hidden().limits(|l| l.max_trackers = 0));
    w.add(Spec::new("provider").hidden().provides("echo").limits(|l| l.max_trackers = 0));
    w.join(3, 0);
    w.join(4, 2);
    w.run(secs(2));
    w
}

fn carried(w: &World) -> usize {
    (0..3).map(|t| w.nodes[t].state.relays.len()).sum()
}

#[test]
fn a_call_passes_three_trackers_with_all_that_belongs_to_it() {
    let mut w = row();
    let call = w.call(3, Ask { takes: false, ..Ask::new("echo").plan(|p| (p.chunks, p.ms) = (100, 1000)) });
    w.run(secs(5));
    assert_eq!(w.own(&call).chunks.len(), 32, "a window full");
    let own = w.nodes[3].calls.get_mut(&call.1).unwrap();
    own.takes = true;
    let untaken = std::mem::take(&mut own.untaken);
    w.with(3, |s, _, out| s.chunks_taken(&call.1, untaken, out));
    let (first, provider) = (w.id(0), w.id(4));
    let done = w.success(&call);
    assert_eq!((done.responder, done.route, done.hops, done.via), (provider, Route::Relay, 4, Some(first)));
    assert_eq!((done.chunks, carried(&w)), (100, 0));
    let call = w.call(3, Ask::new("echo").plan(|p| p.error = Some(ErrorCode::HandlerError)));
    assert_eq!(w.error(&call).code, ErrorCode::HandlerError);
    let call = w.call(3, Ask::new("echo").plan(|p| p.ms = 30_000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    assert_eq!(carried(&w), 3);
    w.with(3, |s, now, out| s.cancel_call(&call.1, now, out));
    assert_eq!(w.error(&call).code, ErrorCode::Cancelled);
    w.run(secs(1));
    assert_eq!((w.nodes[4].jobs.len(), carried(&w)), (0, 0));
}

#[test]
fn word_of_a_lost_target_comes_back_over_three_trackers() {
    let mut w = row();
    let call = w.call(3, Ask::new("echo").plan(|p| p.ms = 30_000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    let before = w.now;
    w.kill(4, true);
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Accepted));
    assert!(error.tried.iter().any(|t| t.step == "relay" && t.result.contains("PEER_GONE")), "{:?}", error.tried);
    assert!(w.now - before < secs(12));
    assert_eq!(carried(&w), 0);
    // What was never passed on to it says so.
    let provider = w.id(4);
    let call = w.call(3, Ask::new("echo").to(provider).timeout(secs(20)));
    assert_eq!((w.error(&call).code, w.error(&call).delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    assert_eq!(carried(&w), 0);
}

#[test]
fn the_tracker_in_the_middle_is_lost_and_another_way_is_found() {
    let mut w = row();
    let call = w.call(3, Ask::new("echo").plan(|p| p.ms = 6000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    w.kill(1, true);
    // The outer ones come to know each other.
    w.run(secs(1));
    w.join(2, 0);
    assert_eq!(w.success(&call).hops, 3);
    assert_eq!(w.ledger.runs(), 1);
}

#[test]
fn frames_do_not_run_in_circles_between_trackers_that_are_wrong_about_each_other() {
    let mut w = row();
    w.join(2, 0);
    w.run(secs(2));
    // The provider is gone, and its record stays with the two that were not connected with it.
    w.kill(4, true);
    w.run(secs(1));
    let before = w.received.get("relay").copied().unwrap_or(0);
    let provider = w.id(4);
    let call = w.call(3, Ask::new("ping").to(provider).timeout(secs(20)));
    w.error(&call);
    let relays = w.received["relay"] - before;
    assert!(relays <= 3, "{relays} frames for one task");
    assert_eq!(carried(&w), 0);
}

#[test]
fn a_node_whose_only_tracker_dies_is_reachable_through_another_within_five_seconds() {
    for seed in 0..5 {
        let mut w = World::new(seed);
        trackers(&mut w, 3);
        // One tracker each: there is none to fall back on.
        let spec = |name: &str| Spec::new(name).hidden().limits(|l| l.max_trackers = 1);
        let caller = w.add(spec("caller"));
        w.join(caller, 1);
        let nodes: Vec<N> = (0..30).map(|i| w.add(spec(&format!("n{i}")).provides("echo"))).collect();
        for n in &nodes {
            w.join(*n, 2);
        }
        w.run(secs(10));
        assert!(nodes.iter().all(|n| registered(&w, *n) == 1));
        w.kill(2, true);
        w.run(secs(4));
        let calls: Vec<_> = nodes
            .iter()
            .map(|n| {
                let id = w.id(*n);
                w.call(caller, Ask::new("ping").to(id).timeout(secs(10)))
            })
            .collect();
        w.run(secs(1));
        for call in &calls {
            assert!(w.ended(call) && w.result(call).is_ok(), "seed {seed}: {:?}", w.own(call).ended);
        }
    }
}

#[test]
fn a_tracker_that_says_nothing_any_more_is_gone_around_before_it_is_known_to_be_lost() {
    let mut went_around = 0;
    for hung in [0, 1] {
        let mut w = World::new(37);
        trackers(&mut w, 2);
        let nodes = [w.add(Spec::new("caller").hidden()), w.add(Spec::new("n").hidden().provides("echo"))];
        for n in nodes {
            w.join(n, 0);
        }
        w.run(secs(20));
        assert!(nodes.iter().all(|n| registered(&w, *n) == 2));
        let call = w.call(nodes[0], Ask::new("echo"));
        w.run(secs(1));
        let used = w.success(&call).via;
        let (began, other) = (w.now, w.id(1 - hung));
        for n in nodes {
            let (link, _) = w.link(n, hung).unwrap();
            w.cut(link, [secs(90), secs(90)]);
        }
        let call = w.call(nodes[0], Ask::new("echo"));
        w.until(secs(3), "it is answered", |w| w.ended(&call));
        assert_eq!(w.success(&call).via, Some(other));
        if used == Some(w.id(hung)) {
            went_around += 1;
            assert!(w.now - began >= secs(2), "that tracker was the one to go through");
        }
        // The next ones don't wait for it again.
        let call = w.call(nodes[0], Ask::new("echo"));
        w.until(ms(500), "the next one is answered", |w| w.ended(&call));
        assert_eq!(w.success(&call).via, Some(other));
    }
    assert_eq!(went_around, 1);
}

#[test]
fn calls_under_way_through_a_tracker_that_dies_end_and_nothing_runs_twice() {
    let mut longest = Duration::ZERO;
    for seed in 0..5 {
        let mut w = World::new(seed);
        trackers(&mut w, 2);
        let callers: Vec<N> = (0..5).map(|i| w.add(Spec::new(&format!("c{i}")).hidden())).collect();
        let providers: Vec<N> = (0..5).map(|i| w.add(Spec::new(&format!("p{i}")).hidden().provides("work"))).collect();
        for n in callers.iter().chain(&providers) {
            w.join(*n, 1);
        }
        w.run(secs(30));
        let mut calls = Vec::new();
        let mut after = Vec::new();
        for i in 0..500 {
            if i == 200 {
                // By the time somebody notices, some tasks are lost with it.
                w.kill(1, true);
            }
            let plan = |p: &mut Plan| (p.ms, p.chunks) = ([10, 300, 3000][i % 3], (i % 5) as u64);
            let ask = Ask { via: (i % 7 == 0 && i < 200).then(|| "t1".into()), ..Ask::new("work").plan(plan) };
            let call = w.call(callers[i % 5], ask.timeout(secs(30)));
            if i >= 205 {
                after.push(call.clone());
            }
            calls.push(call);
            w.run(ms(20));
        }
        w.until(secs(31), "all calls end", |w| calls.iter().all(|c| w.ended(c)));
        w.check_calls();
        for call in &calls {
            if let Err(error) = w.result(call) {
                assert!(error.is_retryable(), "seed {seed}: {error:?}");
            }
        }
        for call in &after {
            let result = w.result(call);
            assert!(result.is_ok(), "seed {seed}: made after the loss: {result:?}");
        }
        let good = calls.iter().filter(|c| w.result(c).is_ok()).count();
        let took = calls.iter().filter_map(|c| w.result(c).as_ref().ok().map(|d| d.timings[2]));
        longest = longest.max(took.max().unwrap());
        eprintln!("seed {seed}: {good} of {} calls good, {} tasks ran", calls.len(), w.ledger.runs());
        assert!(good >= 490, "seed {seed}: {good}");
    }
    eprintln!("the longest took {longest:?}");
}

#[test]
fn a_cut_of_thirty_seconds_heals_within_ten() {
    for seed in 0..10 {
        let mut w = World::new(seed);
        trackers(&mut w, 4);
        for i in 0..30 {
            let mut spec = Spec::new(&format!("n{i}")).provides(&format!("cap.{}", i % 6));
            spec.listens = i % 3 == 0;
            let n = w.add(spec);
            let tracker = w.below(4);
            w.join(n, tracker);
            if i % 4 == 1 && i > 3 {
                // Those before it that can be dialled.
                let other = 4 + 3 * w.below(i / 3);
                w.join(n, other);
            }
        }
        w.run(secs(60));
        assert!(is_whole(&w, 4), "seed {seed}");
        let halves = w.halves();
        w.part(halves);
        w.run(secs(30));
        assert!(!is_whole(&w, 4), "seed {seed}: it was cut");
        w.heal();
        w.until(secs(10), "the mesh is whole again", |w| is_whole(w, 4));
        // And works: everybody calls somebody on the other side.
        let calls: Vec<_> = (4..34)
            .map(|n| {
                let to = w.id(4 + (n - 4 + 15) % 30);
                w.call(n, Ask::new("ping").to(to).timeout(secs(10)))
            })
            .collect();
        w.run(secs(10));
        for call in &calls {
            assert!(w.result(call).is_ok(), "seed {seed}: {:?}", w.result(call));
        }
    }
}

#[test]
fn those_who_all_know_the_same_tracker_come_back_to_it_over_seconds() {
    let mut w = World::new(37);
    trackers(&mut w, 2);
    let nodes: Vec<N> = (0..300).map(|i| w.add(Spec::new(&format!("n{i}")).hidden())).collect();
    for n in &nodes {
        w.join(*n, 0);
    }
    w.run(secs(30));
    for away in [5, 60, 300] {
        w.kill(0, true);
        w.run(secs(away));
        let back = w.now;
        w.revive(0, 7000);
        w.until(secs(60), "everybody is back", |w| nodes.iter().all(|n| w.link(*n, 0).is_some()));
        let (took, peak) = (w.now - back, w.peak_of_arrivals(0, back));
        eprintln!("away for {away} s: 300 nodes came back in {took:?}, {peak} in the busiest second");
        assert!(peak <= 200, "{peak} of 300 in a second");
        w.run(secs(30));
    }
}
