//! Strangers that connect to a node and call themselves trackers: the node did not choose them, and they decide nothing.

use std::net::SocketAddr;

use super::thousand::registered;
use crate::identity::Identity;
use crate::mesh::sim::node::ip;
use crate::mesh::sim::*;
use crate::wire::{RecordDraft, TrackerRole, draft};

/// With how many of the first three, the real trackers, a node is registered.
fn with_real_ones(w: &World, n: N) -> usize {
    (0..3).filter(|t| w.link(n, *t).is_some()).count()
}

fn real_trackers(w: &mut World) {
    for t in 0..3 {
        w.add(Spec::new(&format!("t{t}")).tracker());
        if t > 0 {
            w.join(t, 0);
        }
    }
}

#[test]
fn a_stranger_that_says_it_is_a_private_tracker_keeps_nobody_from_the_public_ones() {
    let mut w = World::new(50);
    real_trackers(&mut w);
    let n = w.add(Spec::new("n"));
    let id = w.id(n);
    let eve = w.add(Spec::new("eve").private(&[id]));
    w.join(eve, n);
    w.run(secs(2));
    assert!(w.link(eve, n).is_some());
    w.join(n, 0);
    w.run(secs(60));
    assert_eq!(with_real_ones(&w, n), 3);
}

#[test]
fn strangers_that_say_they_are_trackers_take_no_places_of_real_ones() {
    let mut w = World::new(51);
    real_trackers(&mut w);
    let n = w.add(Spec::new("n"));
    for i in 0..4 {
        let eve = w.add(Spec::new(&format!("eve{i}")).tracker().limits(|l| l.max_trackers = 0));
        w.join(eve, n);
    }
    w.run(secs(2));
    assert_eq!(registered(&w, n), 4);
    w.join(n, 0);
    w.run(secs(60));
    assert_eq!(with_real_ones(&w, n), 3);
    let record = w.nodes[n].state.record.clone().unwrap();
    for t in 0..3 {
        assert!(record.trackers.contains(&w.id(t)), "{t} is not named");
    }
}

#[test]
fn a_stranger_that_says_it_is_a_tracker_does_not_make_a_node_take_its_addresses_back() {
    let mut w = World::new(52);
    let friend = w.add(Spec::new("friend"));
    let n = w.add(Spec::new("n"));
    let eve = w.add(Spec::new("eve").tracker());
    w.blocked.insert((friend, n));
    w.join(n, friend);
    w.run(secs(2));
    let addr = SocketAddr::new(ip(n), 7000);
    let published = |w: &World| w.nodes[friend].state.table.get(&w.id(n)).map(|r| r.addrs.clone()).unwrap_or_default();
    assert_eq!(published(&w), [addr]);
    w.join(eve, n);
    w.until(secs(2), "the stranger is there", |w| w.link(eve, n).is_some());
    // It says that nobody can dial the node.
    w.blocked.insert((eve, n));
    w.run(secs(60));
    assert_eq!(published(&w), [addr]);
}

#[test]
fn a_made_up_tracker_that_moves_all_the_time_is_dialled_no_more_often_for_it() {
    let mut w = World::new(53);
    let n = w.add(Spec::new("n").hidden());
    let eve = w.add(Spec::new("eve"));
    w.join(n, eve);
    w.run(secs(1));
    let before = w.dials;
    for i in 0..600u64 {
        let unix_ms = w.nodes[n].now(w.now).unix_ms;
        let record = RecordDraft {
            name: String::new(),
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
        let record = record.sign(&Identity::from_seed([9; 32])).unwrap();
        let (link, side) = w.link(eve, n).unwrap();
        assert!(w.push(link, 1 - side, draft::announce(&record.object, 1).raw().clone()));
        w.run(ms(100));
    }
    assert!(w.dials - before <= 10, "{} dials in a minute", w.dials - before);
}

#[test]
fn made_up_trackers_by_the_hundred_are_dialled_a_few_times_a_minute() {
    let mut w = World::new(54);
    let n = w.add(Spec::new("n").hidden());
    let eve = w.add(Spec::new("eve"));
    w.join(n, eve);
    w.run(secs(1));
    let before = w.dials;
    for i in 0..1200u32 {
        let unix_ms = w.nodes[n].now(w.now).unix_ms;
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        let record = RecordDraft {
            name: String::new(),
            caps: Default::default(),
            interests: Vec::new(),
            addrs: vec![([10, 200, 0, 1], 7000 + (i % 999) as u16).into()],
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
        w.run(ms(100));
    }
    assert!(w.dials - before <= 50, "{} dials in two minutes", w.dials - before);
}

impl World {
    /// Says of a node, in its name and to that peer, that it is a tracker or that it is none.
    fn say_role(&mut self, of: N, to: N, tracker: TrackerRole) {
        self.say(of, to, |record| record.tracker = tracker);
    }

    /// Says something of a node, in its name and to that peer.
    fn say(&mut self, of: N, to: N, set: impl FnOnce(&mut RecordDraft)) {
        let mut record = RecordDraft {
            name: String::new(),
            caps: Default::default(),
            interests: Vec::new(),
            addrs: Vec::new(),
            trackers: Vec::new(),
            tracker: TrackerRole::None,
            features: Vec::new(),
            dht: None,
            seal: None,
            version: String::new(),
            instance: String::new(),
            seq: self.nodes[to].now(self.now).unix_ms,
            ttl_s: 300,
        };
        set(&mut record);
        let record = record.sign(&self.nodes[of].identity.clone()).unwrap();
        let (link, side) = self.link(of, to).unwrap();
        assert!(self.push(link, 1 - side, draft::announce(&record.object, 1).raw().clone()));
    }
}

#[test]
fn who_is_a_tracker_every_other_moment_gets_no_more_records_and_no_record_written_for_it() {
    let mut w = World::new(55);
    let t = w.add(Spec::new("t").tracker());
    let eve = w.add(Spec::new("eve"));
    let n = w.add(Spec::new("n").hidden());
    for i in 0..300 {
        let node = w.add(Spec::new(&format!("n{i}")).hidden().limits(|l| l.max_trackers = 1));
        w.join(node, t);
    }
    w.join(eve, t);
    w.join(n, eve);
    w.run(secs(20));
    let (records, mut seqs) = (w.received_by[eve], std::collections::BTreeSet::new());
    for i in 0..240 {
        let role = if i % 2 == 0 { TrackerRole::Public } else { TrackerRole::None };
        for to in [t, n] {
            w.say_role(eve, to, role);
        }
        w.run(ms(500));
        seqs.insert(w.nodes[n].state.record.as_ref().unwrap().seq);
    }
    // What any tracker gets in that time.
    let got = w.received_by[eve] - records;
    assert!(got <= 100 + 50 * 120 + 500, "{got} messages");
    assert!(seqs.len() <= 8 + 12 + 3, "{} records in two minutes", seqs.len());
}

#[test]
fn a_peer_from_elsewhere_names_no_dht_server_of_this_host_or_its_link() {
    let mut w = World::new(56);
    let (n, eve) = (w.add(Spec::new("n")), w.add(Spec::new("eve")));
    w.join(eve, n);
    w.run(secs(2));
    w.say(eve, n, |record| {
        let ips = [[127, 0, 0, 1], [169, 254, 169, 254], [10, 0, 0, 9]];
        record.addrs = ips.map(|ip| (ip, 7000).into()).to_vec();
        record.dht = Some(5353);
    });
    w.run(secs(1));
    assert_eq!(w.nodes[n].state.dht_contacts(), ["10.0.0.9:5353".parse().unwrap()]);
}

#[test]
fn no_record_makes_a_node_dial_its_own_host_or_link() {
    let mut w = World::new(57);
    let (n, eve) = (w.add(Spec::new("n")), w.add(Spec::new("eve")));
    w.join(n, eve);
    w.run(secs(2));
    let before = w.dials;
    for tracker in [TrackerRole::Public, TrackerRole::None] {
        let key = w.add(Spec::new("made up"));
        let mut record = None;
        w.say(eve, n, |r| record = Some(r.clone()));
        let mut record = record.unwrap();
        record.addrs = [[127, 0, 0, 1], [169, 254, 169, 254]].map(|ip| (ip, 6379).into()).to_vec();
        record.tracker = tracker;
        record.caps.insert(crate::wire::Capability::agent("bait"));
        let record = record.sign(&w.nodes[key].identity.clone()).unwrap();
        let (link, side) = w.link(eve, n).unwrap();
        assert!(w.push(link, 1 - side, draft::announce(&record.object, 1).raw().clone()));
    }
    w.run(secs(1));
    let call = w.call(n, Ask::new("bait").timeout(secs(5)));
    w.error(&call);
    w.run(secs(60));
    assert_eq!(w.dials, before);
}
