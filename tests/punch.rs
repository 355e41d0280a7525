//! Hole punching between real nodes behind real NATs: network namespaces with nftables, made and removed by the test.
//!
//! It needs root, `ip` and `nft`. Without them it says so and passes; with `ELO_NETNS=1` it fails.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod spaces;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Home, Serve, eventually, run};
use serde_json::Value;
use spaces::inside;

/// A NAT that keeps ports and lets only answers in: port-restricted.
const CONE: &str = "masquerade";
/// A NAT that takes a new port for each destination.
const SYMMETRIC: &str = "masquerade random,fully-random";

/// A NAT that keeps ports and lets in whatever comes for one: full cone, to the first host behind it.
const FULL_CONE: &str = "masquerade; }\nchain into { type nat hook prerouting priority dstnat; iifname \"wan\" tcp dport \
                         1024-65535 dnat to 192.168.1.2";

/// Where the tracker is.
const TRACKER: &str = "198.51.100.1";

static NETS: AtomicUsize = AtomicUsize::new(0);

/// A public network, and private ones behind NATs. Removed when it is dropped.
struct Net {
    prefix: String,
    spaces: Vec<String>,
    nats: usize,
}

/// Whether there can be one here.
fn able() -> bool {
    spaces::may_be_made(&["nft"])
}

impl Net {
    fn new() -> Self {
        let n = NETS.fetch_add(1, Ordering::Relaxed);
        let mut net = Self { prefix: format!("elo-punch-{}-{n}", std::process::id()), spaces: Vec::new(), nats: 0 };
        let public = net.space("public");
        net.ip(&public, "link add br0 type bridge");
        net.ip(&public, "link set br0 up");
        net.ip(&public, &format!("addr add {TRACKER}/24 dev br0"));
        net
    }

    fn space(&mut self, name: &str) -> String {
        let space = format!("{}-{name}", self.prefix);
        self.spaces.push(space.clone());
        spaces::add(&space);
        space
    }

    fn ip(&self, space: &str, args: &str) {
        let all: Vec<&str> = ["ip", "-n", space].into_iter().chain(args.split(' ')).collect();
        spaces::must(&all);
    }

    fn public(&self) -> String {
        format!("{}-public", self.prefix)
    }

    /// A NAT with so many hosts behind it; gives the hosts' namespaces.
    fn nat(&mut self, masquerade: &str, hosts: usize) -> Vec<String> {
        self.nats += 1;
        let (n, public) = (self.nats, self.public());
        let nat = self.space(&format!("nat{n}"));
        self.ip(&public, &format!("link add wan{n} type veth peer name wan netns {nat}"));
        self.ip(&public, &format!("link set wan{n} master br0 up"));
        self.ip(&nat, &format!("addr add 198.51.100.{}/24 dev wan", n + 1));
        self.ip(&nat, "link set wan up");
        self.ip(&nat, "link add lan type bridge");
        self.ip(&nat, &format!("addr add 192.168.{n}.1/24 dev lan"));
        self.ip(&nat, "link set lan up");
        spaces::must(&["ip", "netns", "exec", &nat, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        // What nobody behind it asked for is dropped without a word, as home routers do it.
        let rules = format!(
            "table ip nat {{\n\
             chain out {{ type nat hook postrouting priority srcnat; oifname \"wan\" {masquerade}; }}\n\
             chain own {{ type filter hook input priority 0; policy drop; ct state established,related accept; iifname \"lan\" accept; }}\n\
             chain through {{ type filter hook forward priority 0; policy drop; ct state established,related accept; ct status dnat accept; iifname \"lan\" accept; }}\n\
             }}\n"
        );
        spaces::nft(&nat, &rules);
        (0..hosts)
            .map(|h| {
                let host = self.space(&format!("host{n}-{h}"));
                self.ip(&nat, &format!("link add host{h} type veth peer name eth0 netns {host}"));
                self.ip(&nat, &format!("link set host{h} master lan up"));
                self.ip(&host, &format!("addr add 192.168.{n}.{}/24 dev eth0", h + 2));
                self.ip(&host, "link set eth0 up");
                self.ip(&host, &format!("route add default via 192.168.{n}.1"));
                host
            })
            .collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in &self.spaces {
            spaces::remove(space);
        }
    }
}

fn serve(home: &Home, space: &str, args: &[&str]) -> Serve {
    Serve::start(inside(space, &home.command(["serve", "--json"].iter().chain(args))))
}

/// A node at the public address.
fn tracker(home: &Home, net: &Net) -> Serve {
    serve(home, &net.public(), &["--tracker", "--name", "box", "--bind", TRACKER, "--port", "7878"])
}

/// A node behind a NAT.
fn hidden(home: &Home, space: &str, args: &[&str]) -> Serve {
    let all: Vec<&str> = ["--no-listen", "--peer", TRACKER].iter().chain(args).copied().collect();
    let node = serve(home, space, &all);
    node.event("peer_connected");
    node
}

fn call(home: &Home, space: &str, args: &[&str]) -> Value {
    run(inside(space, &home.command(["call", "--json"].iter().chain(args)))).json()
}

/// How a node is listed by another.
fn listed(home: &Home, node: &str) -> Option<Value> {
    home.run(["peers", "--json"]).json_lines().into_iter().find(|peer| peer["node_id"] == node)
}

fn way(home: &Home, node: &str) -> String {
    listed(home, node).map_or_else(String::new, |peer| peer["way"].as_str().unwrap().to_owned())
}

/// Two nodes; the second writes every task it runs into a file.
struct Two {
    caller: (Home, String),
    provider: (Home, String),
    log: std::path::PathBuf,
    caller_id: String,
    provider_id: String,
    _box: Home,
}

fn two(net: &Net, caller_space: &str, provider_space: &str) -> (Two, [Serve; 3]) {
    let (box_, caller, provider) = (Home::new(), Home::new(), Home::new());
    let log = provider.write("ran", "");
    let work = format!("read n; echo $n >> {}; sleep 0.3; echo $n", log.display());
    let tracker = tracker(&box_, net);
    let serving =
        hidden(&provider, provider_space, &["--agent", "work", "--exec", &work, "--exec-shell", "--name", "worker"]);
    let asking = hidden(&caller, caller_space, &["--name", "asker"]);
    let two = Two {
        caller_id: asking.id(),
        provider_id: serving.id(),
        caller: (caller, caller_space.to_owned()),
        provider: (provider, provider_space.to_owned()),
        log,
        _box: box_,
    };
    (two, [tracker, serving, asking])
}

impl Two {
    fn call(&self, n: usize) -> Value {
        let outcome = call(&self.caller.0, &self.caller.1, &["work", &format!("{{\"payload\":{n}}}")]);
        outcome["route"].clone()
    }

    fn ran(&self) -> usize {
        let text = std::fs::read_to_string(&self.log).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        let all = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), all, "a task ran twice");
        all
    }
}

#[test]
fn behind_two_port_restricted_nats_the_relay_gives_way_to_a_direct_connection() {
    if !able() {
        return;
    }
    let mut net = Net::new();
    let (a, b) = (net.nat(CONE, 1), net.nat(CONE, 1));
    let (two, _nodes) = two(&net, &a[0], &b[0]);
    // A stream of calls while it happens.
    let began = Instant::now();
    let (routes, punched) = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|t| {
                scope.spawn({
                    let two = &two;
                    move || (0..8).map(|n| (began.elapsed(), two.call(t * 100 + n))).collect::<Vec<_>>()
                })
            })
            .collect();
        eventually("it is punched", || way(&two.caller.0, &two.provider_id) == "punched");
        let punched = began.elapsed();
        eventually("the other end sees it too", || way(&two.provider.0, &two.caller_id) == "punched");
        let mut routes: Vec<(Duration, Value)> = callers.into_iter().flat_map(|c| c.join().unwrap()).collect();
        routes.sort_by_key(|(at, _)| *at);
        (routes, punched)
    });
    assert_eq!(routes[0].1, "relay", "the first call does not wait for it");
    assert_eq!(routes.last().unwrap().1, "direct");
    assert_eq!(two.ran(), routes.len(), "a call was lost, or ran twice");
    let relayed = routes.iter().filter(|(_, route)| route == "relay").count();
    println!("punched {punched:?} after the first call began; of {} calls {relayed} by relay, none lost", routes.len());
    let table = two.caller.0.run(["peers"]).ok();
    assert!(table.contains("punched"), "{table}");
}

#[test]
fn behind_two_symmetric_nats_the_relay_stays_and_the_listing_says_so() {
    if !able() {
        return;
    }
    let mut net = Net::new();
    let (a, b) = (net.nat(SYMMETRIC, 1), net.nat(SYMMETRIC, 1));
    let (two, _nodes) = two(&net, &a[0], &b[0]);
    assert_eq!(two.call(1), "relay");
    assert_eq!(way(&two.caller.0, &two.provider_id), "relay");
    for (home, other) in [(&two.caller.0, &two.provider_id), (&two.provider.0, &two.caller_id)] {
        eventually("it says that it failed", || {
            listed(home, other).is_some_and(|p| p["note"].as_str().is_some_and(|n| n.contains("punching failed")))
        });
    }
    assert_eq!(two.call(2), "relay");
    assert_eq!(two.ran(), 2);
    let table = two.caller.0.run(["peers"]).ok();
    assert!(table.contains("relay via box") && table.contains("punching failed"), "{table}");
    println!("{table}");
}

#[test]
fn behind_one_nat_two_nodes_meet_in_their_own_network() {
    if !able() {
        return;
    }
    let mut net = Net::new();
    let hosts = net.nat(CONE, 2);
    let (two, _nodes) = two(&net, &hosts[0], &hosts[1]);
    assert_eq!(two.call(1), "relay");
    eventually("it is punched", || way(&two.caller.0, &two.provider_id) == "punched");
    let peer = listed(&two.caller.0, &two.provider_id).unwrap();
    assert!(peer["addr"].as_str().unwrap().starts_with("192.168.1."), "{peer}");
    assert_eq!((two.call(2), two.ran()), (Value::from("direct"), 2));
}

#[test]
fn two_trackers_show_a_node_that_its_nat_is_symmetric() {
    if !able() {
        return;
    }
    const OTHER: &str = "198.51.100.200";
    let mut net = Net::new();
    net.ip(&net.public(), &format!("addr add {OTHER}/24 dev br0"));
    let (a, b) = (net.nat(SYMMETRIC, 1), net.nat(CONE, 1));
    let (boxes, caller, provider) = ([Home::new(), Home::new()], Home::new(), Home::new());
    let _one = tracker(&boxes[0], &net);
    let _two = serve(&boxes[1], &net.public(), &["--tracker", "--name", "two", "--bind", OTHER, "--port", "7878"]);
    let serving = hidden(&provider, &b[0], &["--peer", OTHER, "--agent", "echo"]);
    let asking = hidden(&caller, &a[0], &["--peer", OTHER]);
    for home in [&caller, &provider] {
        eventually("both trackers are there", || home.run(["peers", "--json"]).json_lines().len() == 2);
    }
    let seen = |home: &Home| -> Vec<String> {
        let peers = home.run(["peers", "--json"]).json_lines();
        peers.iter().map(|p| p["observed"].as_str().unwrap().to_owned()).collect()
    };
    let (symmetric, cone) = (seen(&caller), seen(&provider));
    assert_eq!(cone[0], cone[1], "one port for both, which the NAT keeps");
    assert_ne!(symmetric[0], symmetric[1]);
    // The record names the trackers as soon as both are known.
    eventually("it is known", || {
        let found = caller.run(["find", "echo", "--json"]).json_lines();
        found.iter().any(|node| node["trackers"].as_array().is_some_and(|t| t.len() == 2))
    });
    assert_eq!(call(&caller, &a[0], &["echo", "1"])["route"], "relay");
    let peer = listed(&caller, &serving.id()).unwrap();
    assert_eq!((&peer["way"], &peer["note"]), (&"relay".into(), &"punching failed: symmetric NAT".into()), "{peer}");
    println!("the NAT is seen as {symmetric:?}: it is not tried");
    drop((serving, asking));
}

#[test]
fn a_full_cone_lets_in_what_a_symmetric_nat_sends_from_another_port() {
    if !able() {
        return;
    }
    let mut net = Net::new();
    // The first NAT: its rules name the host.
    let (a, b) = (net.nat(FULL_CONE, 1), net.nat(SYMMETRIC, 1));
    let (two, _nodes) = two(&net, &a[0], &b[0]);
    assert_eq!(two.call(1), "relay");
    eventually("it is punched", || way(&two.caller.0, &two.provider_id) == "punched");
    assert_eq!((two.call(2), two.ran()), (Value::from("direct"), 2));
}
