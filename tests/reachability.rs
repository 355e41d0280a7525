//! Whether a node can be dialled, found out with real processes: on loopback, and behind a firewall in a network namespace.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::process::{Command, Stdio};
use std::time::Instant;

use common::{Home, Serve, eventually};
use serde_json::{Value, json};

/// What the node says of itself.
fn status(home: &Home) -> Value {
    home.run(["status", "--json"]).json()["node"].take()
}

fn is(home: &Home, state: &str) -> bool {
    status(home)["reachability"]["state"] == state
}

#[test]
fn on_loopback_a_node_is_dialable_and_says_who_verified_it() {
    let (box_, agent, caller) = (Home::new(), Home::new(), Home::new());
    let tracker = box_.serve(&["--tracker", "--name", "box"]);
    let provider = agent.serve(&["--peer", &tracker.addr(), "--agent", "render"]);
    let began = Instant::now();
    eventually("it is verified", || is(&agent, "dialable"));
    println!("verified and shown after {:?}", began.elapsed());
    let told = status(&agent);
    assert_eq!(told["addrs"], json!([provider.addr()]));
    assert_eq!(
        told["reachability"]["addrs"],
        json!([{"addr": provider.addr(), "by": [{"node_id": tracker.id(), "name": "box"}]}])
    );
    let text = agent.run(["status"]).ok();
    assert!(text.contains(&format!("reachable  dialable at {} (verified by box)", provider.addr())), "{text}");
    let asker = Serve::start(caller.command(["serve", "--json", "--no-listen", "--peer", &tracker.addr()]));
    asker.event("peer_connected");
    let outcome = caller.run(["call", "render", "[7]", "--json"]).json();
    assert_eq!((&outcome["via"], &outcome["payload"]), (&json!(null), &json!([7])), "it was dialled: {outcome}");
    let text = caller.run(["status"]).ok();
    assert!(text.contains("reachable  not known: this node does not listen; reached via box"), "{text}");
    let tracker = status(&box_);
    assert_eq!(tracker["reachability"]["why"], "no other tracker that could test it is connected");
    assert_eq!((&tracker["metrics"]["dial_backs"], &tracker["addrs"]), (&json!(1), &tracker["listen"]));
}

/// A second machine: a network namespace behind a veth pair. It is taken down with everything in it.
struct Machine {
    name: String,
}

fn sh(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success()
}

/// Whether this machine lets the test make namespaces; when it has to, it fails instead.
fn may_make_machines() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "only root makes network namespaces"
    } else if !sh("ip netns list && nft list tables") {
        "the commands `ip` (iproute2) and `nft` (nftables) are needed"
    } else {
        return true;
    };
    assert!(std::env::var_os("ELO_NETNS").is_none_or(|v| v != "1"), "ELO_NETNS=1, and {why}");
    eprintln!("NOT RUN: {why}");
    false
}

impl Machine {
    fn new(number: u8) -> Self {
        let machine = Self { name: format!("elo-reach-{}-{number}", std::process::id()) };
        assert!(sh(&format!("ip netns add {}", machine.name)));
        machine.run("ip link set lo up");
        machine
    }

    fn run(&self, command: &str) {
        assert!(sh(&format!("ip netns exec {} {command}", self.name)), "{}: {command}", self.name);
    }

    /// Two machines with a cable between them.
    fn pair() -> [Self; 2] {
        let pair = [Self::new(1), Self::new(2)];
        let [a, b] = [&pair[0].name, &pair[1].name];
        assert!(sh(&format!("ip link add eth0 netns {a} type veth peer name eth0 netns {b}")));
        for (machine, ip) in pair.iter().zip(["10.77.0.1/24", "10.77.0.2/24"]) {
            machine.run(&format!("ip addr add {ip} dev eth0"));
            machine.run("ip link set eth0 up");
        }
        pair
    }

    /// Only what it asks for itself gets in from outside.
    fn firewall(&self) {
        self.run(
            "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }; \
             add rule inet f in ct state established,related accept; add rule inet f in iif eth0 drop'",
        );
    }

    fn open(&self) {
        self.run("nft delete table inet f");
    }

    fn serve(&self, home: &Home, args: &[&str]) -> Serve {
        let elo = env!("CARGO_BIN_EXE_elo");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, elo, "serve", "--json"]).args(args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("ELO_HOME", home.path());
        command.env("ELO_NO_LAN", "true").env("ELO_DHT", "off").stdin(Stdio::null());
        Serve::start(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.name));
    }
}

#[test]
fn behind_a_firewall_a_node_publishes_nothing_and_is_called_through_its_tracker() {
    if !may_make_machines() {
        return;
    }
    let [world, inside] = Machine::pair();
    inside.firewall();
    let (box_, agent, caller) = (Home::new(), Home::new(), Home::new());
    let tracker = world.serve(&box_, &["--tracker", "--name", "box", "--port", "7000"]);
    let provider = inside.serve(&agent, &["--peer", "10.77.0.1:7000", "--port", "7001", "--agent", "render"]);
    provider.event("peer_connected");
    let asker = world.serve(&caller, &["--peer", "10.77.0.1:7000", "--port", "7002"]);
    asker.event("peer_connected");
    // At once, while the tracker still waits for an answer that never comes.
    assert!(!is(&agent, "dialable"), "{}", status(&agent));
    let outcome = caller.run(["call", "render", "[1]", "--json"]).json();
    assert_eq!((&outcome["route"], &outcome["via"]), (&json!("relay"), &json!(tracker.id())), "{outcome}");
    eventually("it knows that it can't be dialled", || is(&agent, "nat"));
    let told = status(&agent);
    assert_eq!((&told["addrs"], &told["reachability"]["why"]), (&json!([]), &json!("nobody answered within 3 s")));
    let text = agent.run(["status"]).ok();
    assert!(text.contains("reachable  behind NAT, reached via box (nobody answered within 3 s)"), "{text}");
    // What nobody can dial it may dial itself: told to by the tracker, it connects to the caller.
    eventually("the two have a connection of their own", || {
        let outcome = caller.run(["call", "render", "[2]", "--json"]).json();
        assert_eq!(outcome["payload"], json!([2]), "{outcome}");
        outcome["route"] == "direct"
    });
    // The caller can be dialled where it stands, and listens everywhere: what was verified is published.
    eventually("the caller is verified", || status(&caller)["addrs"] == json!(["10.77.0.1:7002"]));
    // The firewall opens, and the node comes back.
    inside.open();
    provider.signal(rustix::process::Signal::TERM);
    assert_eq!(provider.ended().0, 0);
    let provider = inside.serve(&agent, &["--peer", "10.77.0.1:7000", "--port", "7001", "--agent", "render"]);
    provider.event("peer_connected");
    eventually("it is verified", || status(&agent)["addrs"] == json!(["10.77.0.2:7001"]));
    let text = agent.run(["status"]).ok();
    assert!(text.contains("reachable  dialable at 10.77.0.2:7001 (verified by box)"), "{text}");
}
