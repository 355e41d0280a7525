//! Nobody's address is known, or one was known once: one LAN, one machine, a host and its containers, an overlay.

use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{SLOW, figure, internet, seconds, until};
use super::net::Host;
use super::nodes::Elo;
use super::router::Nat;

const PROMISED: Duration = Duration::from_secs(3);

const PATIENCE: Duration = Duration::from_secs(30);

/// LAN discovery is on, as it is for anybody who starts `elo serve`.
const LAN: [(&str, &str); 1] = [("ELO_DHT", "off")];

/// Two nodes without any peer call each other; the first was found on the LAN.
fn meet(row: &str, hosts: [&Host; 2], args: &[&str]) {
    let start = Instant::now();
    let [one, two] = ["one", "two"];
    let one = Elo::start_with(hosts[0], one, &[&["--agent", "first"], args].concat(), &LAN);
    let two = Elo::start_with(hosts[1], two, &[&["--agent", "second"], args].concat(), &LAN);
    let (there, _) = until("the LAN's first call", PROMISED * SLOW, || one.elo_call("second", "hi"));
    let took = start.elapsed();
    assert_eq!((&there["payload"], &there["responder"]), (&json!("hi"), &json!(two.id())));
    let (back, _) = until("the call back", PROMISED * SLOW, || two.elo_call("first", "ho"));
    assert_eq!((&back["payload"], &back["responder"]), (&json!("ho"), &json!(one.id())));
    let both = start.elapsed();
    // One of the two dialled the other; how it found it is told.
    let found = [one.peer(&two.id()), two.peer(&one.id())].map(|peer| peer.unwrap()["found"].clone());
    assert!(found.contains(&json!("lan")), "found: {found:?}");
    figure(row, &format!("start to first call {} (promised 3 s), both ways {}", seconds(took), seconds(both)));
}

#[test]
fn two_nodes_on_one_lan_call_each_other() {
    let row = "LAN only, no peer given";
    let Some(net) = internet() else { return };
    let lan = net.lan();
    meet(row, [&net.host(&lan, "one"), &net.host(&lan, "two")], &[]);
}

#[test]
fn two_nodes_on_one_machine_without_a_network_call_each_other() {
    let row = "same host, loopback only";
    let Some(net) = internet() else { return };
    let host = net.alone("host");
    meet(row, [&host, &host], &["--port", "0", "--lan-interface", "lo"]);
}

#[test]
fn a_container_and_its_host_call_each_other() {
    let row = "Docker bridge, host and container";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let bridge = net.home(&world, Nat::Cone);
    meet(row, [&net.router_of(&bridge), &net.host(&bridge, "container")], &[]);
}

/// Where multicast doesn't go, one address is enough: each hears of the others through whom it knows.
#[test]
fn on_an_overlay_one_known_address_is_enough() {
    let row = "overlay (VPN) without multicast";
    let Some(net) = internet() else { return };
    let overlay = net.overlay();
    let [known, other, caller] = ["known", "other", "caller"].map(|name| net.host(&overlay, name));
    let (start, peer) = (Instant::now(), known.addr());
    let _known = Elo::start_with(&known, "known", &[], &LAN);
    let other = Elo::start_with(&other, "other", &["--peer", &peer, "--agent", "work"], &LAN);
    let caller = Elo::start_with(&caller, "caller", &["--peer", &peer], &LAN);
    until("a first call", PATIENCE, || caller.call("work", &json!(1)));
    let took = start.elapsed();
    let (outcome, _) = until("a direct call", PATIENCE, || {
        let outcome = caller.call("work", &json!(1))?;
        if outcome["route"] == "direct" { Ok(outcome) } else { Err(outcome.to_string()) }
    });
    assert_eq!(outcome["responder"], other.id());
    let found = caller.peer(&other.id()).unwrap()["found"].clone();
    assert_ne!(found, "lan", "multicast came through");
    figure(row, &format!("start to first call {}, then direct; found by {found}", seconds(took)));
}

#[test]
fn ipv6_only_works_without_ipv4() {
    let row = "IPv6 only, a tracker given";
    let Some(net) = internet() else { return };
    let lan = net.ipv6_only();
    let [tracker, provider, caller] = ["tracker", "provider", "caller"].map(|name| net.host(&lan, name));
    let (start, peer) = (Instant::now(), tracker.addr6());
    let _tracker = Elo::start(&tracker, "tracker", &["--bind", "::", "--tracker"]);
    let provider = Elo::start(&provider, "provider", &["--bind", "::", "--peer", &peer, "--agent", "work"]);
    let caller = Elo::start(&caller, "caller", &["--bind", "::", "--peer", &peer]);
    let (first, _) = until("a first call", PATIENCE, || caller.call("work", &json!(1)));
    let took = start.elapsed();
    assert_eq!(first["responder"], provider.id());
    let addr = provider.status()["addrs"].to_string();
    assert!(addr.contains("[fd00:"), "no IPv6 address is published: {addr}");
    figure(row, &format!("start to first call {}, route {}", seconds(took), first["route"]));
}

/// Who knew somebody once needs no introduction.
#[test]
fn a_peer_is_remembered_over_a_restart() {
    let row = "restarted without a peer, on an address remembered";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let [server, laptop] = ["server", "laptop"].map(|name| net.host(&world, name));
    let known = Elo::start(&server, "server", &["--agent", "work"]);
    let mut node = Elo::start(&laptop, "laptop", &["--peer", &server.addr()]);
    until("a first call", PATIENCE, || node.call("work", &json!(1)));
    let start = Instant::now();
    node.restart_with(&[]);
    until("a call after the restart", PATIENCE, || node.call("work", &json!(2)));
    let took = start.elapsed();
    assert_eq!(node.peer(&known.id()).unwrap()["found"], "remembered");
    figure(row, &format!("stopped, started, and its first call answered in {}", seconds(took)));
}
