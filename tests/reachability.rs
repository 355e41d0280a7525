//! Whether a node can be dialled, found out with real processes: on loopback, and behind a firewall in a network namespace.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;
mod spaces;

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

/// Whether there can be one here.
fn may_make_machines() -> bool {
    spaces::may_be_made(&["nft"])
}

impl Machine {
    fn new(number: u8) -> Self {
        let machine = Self { name: format!("elo-reach-{}-{number}", std::process::id()) };
        spaces::add(&machine.name);
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
            machine.address("eth0", ip);
        }
        pair
    }

    fn address(&self, interface: &str, ip: &str) {
        self.run(&format!("ip addr add {ip} dev {interface}"));
        self.run(&format!("ip link set {interface} up"));
    }

    /// The world, a router that lets in only what belongs to what went out or to a mapping, and a machine behind it.
    fn behind_a_router() -> [Self; 3] {
        let three = [Self::new(3), Self::new(4), Self::new(5)];
        let [world, router, home] = &three;
        let (w, r, h) = (&world.name, &router.name, &home.name);
        assert!(sh(&format!("ip link add eth0 netns {w} type veth peer name wan netns {r}")));
        assert!(sh(&format!("ip link add lan netns {r} type veth peer name eth0 netns {h}")));
        world.address("eth0", "203.0.113.1/24");
        router.address("wan", "203.0.113.2/24");
        router.address("lan", "192.168.77.1/24");
        home.address("eth0", "192.168.77.2/24");
        home.run("ip route add default via 192.168.77.1");
        router.run("sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'");
        router.run(
            "nft 'add table ip n; add chain ip n pre { type nat hook prerouting priority -100; }; \
             add chain ip n post { type nat hook postrouting priority 100; }; add rule ip n post oif wan masquerade; \
             add table ip f; add chain ip f through { type filter hook forward priority 0; }; \
             add rule ip f through ct state established,related accept; add rule ip f through ct status dnat accept; \
             add rule ip f through iif wan drop'",
        );
        three
    }

    /// Whether the router has a mapping.
    fn maps(&self) -> bool {
        spaces::must(&["ip", "netns", "exec", &self.name, "nft", "list chain ip n pre"]).contains("dnat to")
    }

    /// Only what it asks for itself gets in from outside, and it asks nothing but its tracker: both sides dialling at once
    /// don't meet either.
    fn firewall(&self) {
        self.run(
            "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }; \
             add rule inet f in ct state established,related accept; add rule inet f in iif eth0 drop; \
             add chain inet f out { type filter hook output priority 0; }; \
             add rule inet f out oif eth0 tcp dport != 7000 drop'",
        );
    }

    fn open(&self) {
        self.run("nft delete table inet f");
    }

    fn serve(&self, home: &Home, args: &[&str]) -> Serve {
        Serve::start(spaces::inside(&self.name, &home.command(["serve", "--json"].iter().chain(args))))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        spaces::remove(&self.name);
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
    let asker = world.serve(&caller, &["--peer", "10.77.0.1:7000", "--no-listen"]);
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
    let began = Instant::now();
    let outcome = caller.run(["call", "render", "[2]", "--json"]).json();
    assert_eq!((&outcome["route"], &outcome["payload"]), (&json!("relay"), &json!([2])), "{outcome}");
    println!("a call to a node that can't be dialled, through its tracker: {:?}", began.elapsed());
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

/// The part of a router that hands out ports by NAT-PMP (RFC 6886): run by the test below, inside the router.
#[test]
#[ignore = "a part of another test"]
fn router_with_nat_pmp() {
    let Some(outside) = std::env::var("ELO_TEST_ROUTER").ok().and_then(|port| port.parse::<u16>().ok()) else { return };
    let socket = std::net::UdpSocket::bind("192.168.77.1:5351").unwrap();
    let mut ask = [0; 64];
    loop {
        let (n, from) = socket.recv_from(&mut ask).unwrap();
        let answer = match &ask[..n] {
            [0, 0] => [&[0, 128, 0, 0, 0, 0, 0, 1], &[203, 0, 113, 2][..]].concat(),
            [0, 2, _, _, a, b, _, _, lifetime @ ..] if n == 12 => {
                let inside = u16::from_be_bytes([*a, *b]);
                assert!(sh("nft flush chain ip n pre"));
                let kept = lifetime != [0; 4];
                if kept {
                    let to = format!("{}:{inside}", from.ip());
                    assert!(sh(&format!("nft add rule ip n pre iif wan tcp dport {outside} dnat to {to}")));
                }
                let outside = if kept { outside } else { 0 };
                [&[0, 130, 0, 0, 0, 0, 0, 1, *a, *b][..], &outside.to_be_bytes(), lifetime].concat()
            }
            _ => vec![0, 128, 0, 1, 0, 0, 0, 1],
        };
        socket.send_to(&answer, from).unwrap();
    }
}

#[test]
fn behind_a_router_that_hands_out_a_port_a_node_is_dialled_at_it_once_a_tracker_has_verified_it() {
    if !may_make_machines() {
        return;
    }
    let [world, router, inside] = Machine::behind_a_router();
    let (box_, agent, caller) = (Home::new(), Home::new(), Home::new());
    let mut command = spaces::enter(&router.name, std::env::current_exe().unwrap());
    command.args(["--exact", "router_with_nat_pmp", "--ignored"]).env("ELO_TEST_ROUTER", "4000");
    let _router = common::Reaped(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap());
    let _tracker = world.serve(&box_, &["--tracker", "--name", "box", "--port", "7000"]);
    let began = Instant::now();
    let provider =
        inside.serve(&agent, &["--peer", "203.0.113.1:7000", "--port", "7001", "--agent", "render", "--port-map"]);
    provider.event("peer_connected");
    eventually("the mapped port is verified and published", || status(&agent)["addrs"] == json!(["203.0.113.2:4000"]));
    println!("mapped, verified and published after {:?}", began.elapsed());
    let text = agent.run(["status"]).ok();
    assert!(text.contains("router     203.0.113.2:4000 leads here, by NAT-PMP"), "{text}");
    assert!(text.contains("reachable  dialable at 203.0.113.2:4000 (verified by box)"), "{text}");
    let asker = world.serve(&caller, &["--peer", "203.0.113.1:7000", "--no-listen"]);
    asker.event("peer_connected");
    let outcome = caller.run(["call", "render", "[7]", "--json"]).json();
    assert_eq!((&outcome["via"], &outcome["payload"]), (&json!(null), &json!([7])), "{outcome}");
    // At its end it gives the port back.
    assert!(router.maps());
    provider.signal(rustix::process::Signal::TERM);
    assert_eq!(provider.ended().0, 0);
    assert!(!router.maps());
}
