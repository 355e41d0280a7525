//! Behind routers, with one tracker.

use std::time::{Duration, Instant};

use serde_json::json;

use super::harness::{figure, internet, seconds, until};
use super::net::{Net, Switch};
use super::nodes::Elo;
use super::router::{Nat, block_udp, port_mapping};
use super::wire::Worse;

const PATIENCE: Duration = Duration::from_secs(30);

/// A tracker on the internet, and a caller and a provider, each behind a router of its own (or none).
struct Pair {
    tracker: Elo,
    caller: Elo,
    provider: Elo,
    started: Instant,
    // Last: the nodes end first.
    _net: Net,
}

impl Pair {
    fn new(net: Net, caller: Option<Nat>, provider: Option<Nat>) -> Self {
        let world = net.internet();
        let home = |nat| net.home(&world, nat);
        let (caller, provider) = (caller.map(home), provider.map(home));
        Self::at(net, &world, caller.as_ref(), provider.as_ref())
    }

    /// In these homes, or on the internet.
    fn at(net: Net, world: &Switch, caller: Option<&Switch>, provider: Option<&Switch>) -> Self {
        Self::at_with(net, world, caller, provider, &[])
    }

    /// The same, and the provider has further arguments.
    fn at_with(net: Net, world: &Switch, caller: Option<&Switch>, provider: Option<&Switch>, args: &[&str]) -> Self {
        let calls = net.host(caller.unwrap_or(world), "caller");
        let provides = net.host(provider.unwrap_or(world), "provider");
        let tracker = net.host(world, "tracker");
        let peer = tracker.addr();
        let started = Instant::now();
        let tracker = Elo::start(&tracker, "tracker", &["--tracker"]);
        let provider = Elo::start(&provides, "provider", &[&["--peer", &peer, "--agent", "work"], args].concat());
        let caller = Elo::start(&calls, "caller", &["--peer", &peer]);
        Self { tracker, caller, provider, started, _net: net }
    }

    /// The route of a call that succeeds, `None` while there is no way at all.
    fn route(&self) -> Result<String, String> {
        let outcome = self.caller.call("work", &json!({"n": 1}))?;
        assert_eq!(outcome["responder"], self.provider.id(), "{outcome}");
        Ok(outcome["route"].as_str().unwrap().to_owned())
    }

    /// Calls until one doesn't go through the tracker; all on the way must succeed. The first call's route and time from
    /// the start of the nodes, as text, and the route; and how much later a better way was in use.
    fn until_direct(&self) -> (String, String, Duration) {
        let (first, _) = until("a first call", PATIENCE, || self.route());
        let shown = format!("start to first call {} ({first})", seconds(self.started.elapsed()));
        let (_, took) = until("a call that isn't relayed", PATIENCE, || match self.route() {
            Ok(route) if route == "relay" => Err("still relayed".to_owned()),
            Ok(route) => Ok(route),
            Err(why) => panic!("a call failed while a better way was looked for: {why}"),
        });
        (shown, first, took)
    }

    /// Waits until a tracker has dialled the provider back; the time from the start.
    fn dialable(&self) -> Duration {
        until("the dial-back", PATIENCE, || {
            let status = self.provider.status();
            match status["reachability"]["state"].as_str() {
                Some("dialable") => Ok(()),
                _ => Err(status["reachability"].to_string()),
            }
        });
        self.started.elapsed()
    }

    /// How the caller sees the provider in `elo peers`.
    fn way(&self) -> String {
        let peer = self.caller.peer(&self.provider.id()).unwrap_or_default();
        peer["way"].as_str().unwrap_or("not listed").to_owned()
    }
}

/// Two nodes behind NATs that let a hole be punched: relayed first, and then punched.
fn punched(row: &str, pair: &Pair) {
    let (shown, first, took) = pair.until_direct();
    assert_eq!((first.as_str(), pair.way().as_str()), ("relay", "punched"));
    let relayed = pair.tracker.status()["metrics"]["relayed"].as_u64().unwrap();
    for _ in 0..20 {
        assert_eq!(pair.route().unwrap(), "direct");
    }
    let still = pair.tracker.status()["metrics"]["relayed"].as_u64().unwrap();
    assert!(relayed > 0 && still == relayed, "relayed: {relayed}, and {still} after 20 direct calls");
    figure(row, &format!("{shown}, punched {} later; 20 more calls direct", seconds(took)));
}

#[test]
fn cone_to_cone_is_punched() {
    let row = "cone to cone NAT";
    let Some(net) = internet() else { return };
    punched(row, &Pair::new(net, Some(Nat::Cone), Some(Nat::Cone)));
}

#[test]
fn where_udp_is_blocked_cone_to_cone_is_punched() {
    let row = "cone to cone NAT, UDP blocked";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let homes = [(); 2].map(|()| net.home(&world, Nat::Cone));
    homes.iter().for_each(block_udp);
    punched(row, &Pair::at(net, &world, Some(&homes[0]), Some(&homes[1])));
}

#[test]
fn far_apart_cone_to_cone_is_punched() {
    let row = "cone to cone NAT, 20 ms ± 5 ms and 1 % loss at each";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let worse = Worse { delay_ms: 20, jitter_ms: 5, loss_percent: 1, reorders: false, seed: 20 };
    let homes = [(); 2].map(|()| net.home_far_away(&world, Nat::Cone, worse));
    punched(row, &Pair::at(net, &world, Some(&homes[0]), Some(&homes[1])));
}

/// Who lets everybody in can be dialled: a tracker's dial-back proves it, and no hole is needed.
#[test]
fn full_cone_is_dialable() {
    let row = "full cone NAT";
    let Some(net) = internet() else { return };
    let pair = Pair::new(net, Some(Nat::FullCone), Some(Nat::FullCone));
    let proven = pair.dialable();
    let (shown, _, took) = pair.until_direct();
    assert!(["direct", "inbound"].contains(&pair.way().as_str()), "{}", pair.way());
    figure(row, &format!("dialable after {}; {shown}, direct {} later", seconds(proven), seconds(took)));
}

/// A router that opens ports to who asks: the node is dialled from where no hole could be punched.
#[test]
fn a_mapped_port_is_dialled() {
    let row = "cone NAT with port mapping (NAT-PMP), called from a symmetric one";
    let Some(net) = internet() else { return };
    let world = net.internet();
    let (caller, provider) = (net.home(&world, Nat::Symmetric), net.home(&world, Nat::Cone));
    let _mapping = port_mapping(&provider);
    let pair = Pair::at_with(net, &world, Some(&caller), Some(&provider), &["--port-map"]);
    let proven = pair.dialable();
    let (shown, _, took) = pair.until_direct();
    assert_eq!(pair.way(), "direct");
    figure(row, &format!("dialable after {}; {shown}, direct {} later", seconds(proven), seconds(took)));
}

/// Nodes for which no way but the relay exists: it stays so, every call succeeds, and `elo peers` says so.
fn relayed(row: &str, caller: Nat, provider: Nat) {
    let Some(net) = internet() else { return };
    let pair = Pair::new(net, Some(caller), Some(provider));
    let (first, _) = until("a first call", PATIENCE, || pair.route());
    let took = pair.started.elapsed();
    assert_eq!(first, "relay");
    // Long enough for a hole to be tried, and given up.
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(pair.route().unwrap(), "relay");
        calls += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let listed = pair.caller.run(&["peers"]).ok();
    assert!(listed.contains("relay via tracker"), "{listed}");
    figure(
        row,
        &format!("start to first call {}, {calls} calls in 8 s, all relayed; `elo peers` says so", seconds(took)),
    );
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
    let Some(net) = internet() else { return };
    let pair = Pair::new(net, Some(Nat::Symmetric), None);
    let (shown, _, took) = pair.until_direct();
    assert_eq!(pair.way(), "direct");
    figure(row, &format!("{shown}, direct {} later", seconds(took)));
}
