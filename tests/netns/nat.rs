//! Behind routers, with one tracker.

use std::time::Duration;

use serde_json::json;

use super::harness::{figure, internet, seconds, until};
use super::net::Net;
use super::nodes::Elo;
use super::router::Nat;

const PATIENCE: Duration = Duration::from_secs(30);

/// A tracker on the internet, and a caller and a provider, each behind a router of its own (or none).
struct Pair {
    tracker: Elo,
    caller: Elo,
    provider: Elo,
    // Last: the nodes end first.
    _net: Net,
}

impl Pair {
    fn new(net: Net, caller: Option<Nat>, provider: Option<Nat>) -> Self {
        let world = net.internet();
        let at = |nat: Option<Nat>, name: &str| match nat {
            Some(nat) => net.host(&net.home(&world, nat), name),
            None => net.host(&world, name),
        };
        let tracker = net.host(&world, "tracker");
        let (calls, provides) = (at(caller, "caller"), at(provider, "provider"));
        let peer = format!("{}:7878", tracker.ip);
        let tracker = Elo::start(&tracker, "tracker", &["--tracker"]);
        let provider = Elo::start(&provides, "provider", &["--peer", &peer, "--agent", "work"]);
        let caller = Elo::start(&calls, "caller", &["--peer", &peer]);
        Self { tracker, caller, provider, _net: net }
    }

    /// The route of a call that succeeds, `None` while there is no way at all.
    fn route(&self) -> Result<String, String> {
        let outcome = self.caller.call("work", &json!({"n": 1}))?;
        assert_eq!(outcome["responder"], self.provider.id(), "{outcome}");
        Ok(outcome["route"].as_str().unwrap().to_owned())
    }

    /// Calls until one doesn't go through the tracker, and all calls on the way must succeed: the first route and the
    /// time until then.
    fn until_direct(&self) -> (String, Duration) {
        let (first, _) = until("a first call", PATIENCE, || self.route());
        let (_, took) = until("a call that isn't relayed", PATIENCE, || match self.route() {
            Ok(route) if route == "relay" => Err("still relayed".to_owned()),
            Ok(route) => Ok(route),
            Err(why) => panic!("a call failed while a better way was looked for: {why}"),
        });
        (first, took)
    }

    /// How the caller sees the provider in `elo peers`.
    fn way(&self) -> String {
        let peer = self.caller.peer(&self.provider.id()).unwrap_or_default();
        peer["way"].as_str().unwrap_or("not listed").to_owned()
    }
}

/// Two nodes behind NATs that let a hole be punched: relayed first, and then punched.
fn punched(row: &str, caller: Nat, provider: Nat) {
    let Some(net) = internet(row) else { return };
    let pair = Pair::new(net, Some(caller), Some(provider));
    let (first, took) = pair.until_direct();
    assert_eq!((first.as_str(), pair.way().as_str()), ("relay", "punched"));
    let relayed = pair.tracker.status()["metrics"]["relayed"].as_u64().unwrap();
    for _ in 0..20 {
        assert_eq!(pair.route().unwrap(), "direct");
    }
    let still = pair.tracker.status()["metrics"]["relayed"].as_u64().unwrap();
    assert!(relayed > 0 && still == relayed, "relayed: {relayed}, and {still} after 20 direct calls");
    figure(row, &format!("first call relayed, punched after {}; 20 more calls direct", seconds(took)));
}

#[test]
fn cone_to_cone_is_punched() {
    punched("cone to cone NAT", Nat::Cone, Nat::Cone);
}

/// Who lets everybody in can be dialled: a tracker's dial-back proves it, and no hole is needed.
#[test]
fn full_cone_is_dialable() {
    let row = "full cone NAT";
    let Some(net) = internet(row) else { return };
    let pair = Pair::new(net, Some(Nat::FullCone), Some(Nat::FullCone));
    let (_, proven) = until("the dial-back", PATIENCE, || {
        let status = pair.provider.status();
        match status["reachability"]["state"].as_str() {
            Some("dialable") => Ok(()),
            _ => Err(status["reachability"].to_string()),
        }
    });
    let (first, took) = pair.until_direct();
    assert!(["direct", "inbound"].contains(&pair.way().as_str()), "{}", pair.way());
    let figures = format!("dialable after {}; first call {first}, direct after {}", seconds(proven), seconds(took));
    figure(row, &figures);
}

/// Nodes for which no way but the relay exists: it stays so, every call succeeds, and `elo peers` says so.
fn relayed(row: &str, caller: Nat, provider: Nat) {
    let Some(net) = internet(row) else { return };
    let pair = Pair::new(net, Some(caller), Some(provider));
    let (first, took) = until("a first call", PATIENCE, || pair.route());
    assert_eq!(first, "relay");
    // Long enough for a hole to be tried, and given up.
    let start = std::time::Instant::now();
    let mut calls = 0;
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(pair.route().unwrap(), "relay");
        calls += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let listed = pair.caller.run(&["peers"]).ok();
    assert!(listed.contains("relay via tracker"), "{listed}");
    figure(row, &format!("first call after {}, {calls} calls in 8 s, all relayed; `elo peers` says so", seconds(took)));
}

#[test]
fn symmetric_to_symmetric_stays_on_the_relay() {
    relayed("symmetric to symmetric NAT", Nat::Symmetric, Nat::Symmetric);
}

#[test]
fn cone_to_symmetric_stays_on_the_relay() {
    relayed("cone to symmetric NAT", Nat::Cone, Nat::Symmetric);
}

/// From a home to a server: dialled at its public address, found through the tracker.
#[test]
fn a_server_is_dialled_from_a_home() {
    let row = "home NAT to a server";
    let Some(net) = internet(row) else { return };
    let pair = Pair::new(net, Some(Nat::Symmetric), None);
    let (first, took) = pair.until_direct();
    assert_eq!(pair.way(), "direct");
    figure(row, &format!("first call {first}, direct after {}", seconds(took)));
}
