//! Finding each other on a local network, with real processes in a network namespace of the test's own: multicast stays
//! in there. It takes root and `ip`; where they are missing the tests say that they are not run, and with `ELO_NETNS=1`
//! they fail.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

#[path = "../common/mod.rs"]
mod common;
mod flood;
mod inside;
mod space;
#[path = "../spaces/mod.rs"]
mod spaces;

use std::time::{Duration, Instant};

use common::{Home, PATIENCE, Serve, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};
use space::{Space, most_rss_kb, rss_kb};

/// What two nodes without any peer may take from the start of the second to the answer of its first call.
const TARGET: Duration = Duration::from_secs(3);

/// A node on the namespace's loopback that finds others there.
fn serve(space: &Space, home: &Home, args: &[&str]) -> Serve {
    let mut all = vec!["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--lan-interface", "lo"];
    all.extend(args);
    Serve::start(space.command(home, &all))
}

/// How a node's discovery on the local network is doing.
fn lan(home: &Home) -> Value {
    let status = home.run(["status", "--json"]).json();
    let all = status["node"]["discovery"].as_array().unwrap().clone();
    all.into_iter().find(|one| one["name"] == "lan").unwrap()
}

fn peer_ids(home: &Home) -> Vec<String> {
    home.run(["peers", "--json"]).json_lines().iter().map(|p| p["node_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_nodes_without_any_peer_call_each_other_within_3_s() {
    let Some(space) = Space::new() else { return };
    let (one, two) = (Home::new(), Home::new());
    let provider = serve(&space, &one, &["--agent", "echo"]);
    for round in ["both new", "the second again"] {
        let start = Instant::now();
        let caller = serve(&space, &two, &[]);
        caller.event("peer_connected");
        let met = start.elapsed();
        let outcome = two.run(["call", "echo", "[1]", "--json"]).json();
        let took = start.elapsed();
        println!("LAN, {round}: connected after {met:.2?}, first call answered {took:.2?} after the start");
        assert_eq!((&outcome["payload"], &outcome["responder"]), (&json!([1]), &json!(provider.id())));
        assert!(took <= TARGET, "{took:?}");
        // And the other way round, whoever dialled.
        assert_eq!(one.run(["call", "ping", "1", "--to", &caller.id()]).code, 0);
        let found = [&one, &two].map(|home| home.run(["peers", "--json"]).json()["found"].clone());
        assert!(found.contains(&json!("lan")) && found.contains(&json!("inbound")), "{found:?}");
        let table = if found[0] == "lan" { &one } else { &two }.run(["peers"]).ok();
        assert!(table.contains("FOUND") && table.contains(" lan ") && table.contains(" direct "), "{table}");
        caller.signal(Signal::TERM);
        caller.ended();
        // It said goodbye: nobody goes on dialling it.
        eventually("it is forgotten", || lan(&one)["candidates"] == 0);
        assert_eq!(lan(&one)["state"], "on");
    }
}

#[test]
fn two_machines_on_a_cable_meet_with_the_default_settings() {
    for (case, bind) in [("IPv4", "0.0.0.0"), ("IPv6 link-local", "::")] {
        let Some([left, right]) = Space::two() else { return };
        if bind == "::" {
            left.without_ipv4();
            right.without_ipv4();
        }
        let (one, two) = (Home::new(), Home::new());
        let args = ["serve", "--json", "--bind", bind, "--port", "0", "--agent", "echo"];
        let provider = Serve::start(left.command(&one, &args));
        let start = Instant::now();
        let caller = Serve::start(right.command(&two, &args[..6]));
        caller.event("peer_connected");
        let outcome = two.run(["call", "echo", "[1]", "--json"]).json();
        let took = start.elapsed();
        println!("two machines, {case}: first call answered {took:.2?} after the start of the second");
        assert_eq!(outcome["responder"], json!(provider.id()));
        assert!(took <= TARGET, "{took:?}");
        assert_eq!(lan(&two)["detail"], "eth0");
        let addr = two.run(["peers", "--json"]).json()["addr"].as_str().unwrap().to_owned();
        assert!(addr.starts_with(if bind == "::" { "[fe80::" } else { "10.99.0." }), "{addr}");
    }
}

#[test]
fn a_cable_plugged_in_later_is_used() {
    let Some([left, right]) = Space::two() else { return };
    left.unplug();
    let (one, two) = (Home::new(), Home::new());
    let args = ["serve", "--json", "--port", "0"];
    let (a, b) = (Serve::start(left.command(&one, &args)), Serve::start(right.command(&two, &args)));
    eventually("both say that there is no interface", || [&one, &two].iter().all(|h| lan(h)["state"] == "waiting"));
    left.plug_in();
    let start = Instant::now();
    assert_eq!(b.event("peer_connected")["node_id"], a.id());
    println!("a cable plugged in later: connected after {:.2?}", start.elapsed());
    eventually("both use it", || [&one, &two].iter().all(|h| lan(h)["detail"] == "eth0"));
    a.signal(Signal::TERM);
    let (code, log) = a.ended();
    assert!(code == 0 && !log.contains("WARN"), "a machine without a network is nothing to warn of: {code} {log}");
}

#[test]
fn a_node_that_does_not_listen_finds_and_is_not_found() {
    let Some(space) = Space::new() else { return };
    let (one, two, three) = (Home::new(), Home::new(), Home::new());
    let provider = serve(&space, &one, &["--agent", "echo"]);
    let hidden =
        |home: &Home| Serve::start(space.command(home, &["serve", "--json", "--no-listen", "--lan-interface", "lo"]));
    let (a, b) = (hidden(&two), hidden(&three));
    assert_eq!(a.event("peer_connected")["node_id"], provider.id());
    assert_eq!(b.event("peer_connected")["node_id"], provider.id());
    assert_eq!(two.run(["call", "echo", "1"]).ok(), "1\n");
    assert!(lan(&two)["detail"].as_str().unwrap().contains("not announced"), "{}", lan(&two));
    assert_eq!((lan(&one)["candidates"].clone(), lan(&two)["candidates"].clone()), (json!(0), json!(1)));
}

#[test]
fn with_no_lan_or_on_loopback_unasked_nothing_is_sent_or_heard() {
    let Some(space) = Space::new() else { return };
    let home = Home::new();
    for args in [&["--no-lan"][..], &[]] {
        let mut all = vec!["serve", "--json", "--bind", "127.0.0.1", "--port", "0"];
        all.extend(args);
        let node = Serve::start(space.command(&home, &all));
        let status = lan(&home);
        assert_eq!((&status["state"], &status["dialled"]), (&json!("off"), &json!(0)), "{status}");
        assert!(!space.listens_on_mdns(), "a socket on port 5353");
        assert_eq!(status["detail"].as_str().unwrap().contains("loopback"), args.is_empty(), "{status}");
        node.signal(Signal::TERM);
        node.ended();
    }
    let node = serve(&space, &home, &[]);
    eventually("the same look finds the socket when there is one", || space.listens_on_mdns());
    node.signal(Signal::TERM);
    node.ended();
    assert!(!space.listens_on_mdns(), "left over");
}

#[test]
fn a_node_that_listens_on_one_address_is_announced_with_that_one() {
    let Some([left, right]) = Space::two() else { return };
    let (one, two) = (Home::new(), Home::new());
    let args = ["serve", "--json", "--port", "0", "--bind", "10.99.0.1"];
    let a = Serve::start(left.command(&one, &args));
    let b = Serve::start(right.command(&two, &args[..4]));
    assert_eq!(b.event("peer_connected")["node_id"], a.id());
    assert_eq!((&lan(&one)["detail"], &lan(&one)["state"]), (&json!("eth0"), &json!("on")));
    // Where it has no such address it says so.
    drop(a);
    let args = ["serve", "--json", "--port", "0", "--bind", "127.0.0.1", "--lan-interface", "eth0"];
    let _a = Serve::start(left.command(&one, &args));
    eventually("it is told", || lan(&one)["detail"].as_str().unwrap().contains("127.0.0.1, is not"));
    assert_eq!(lan(&one)["state"], "failing");
}

#[test]
fn a_private_tracker_meets_those_it_allows() {
    let Some(space) = Space::new() else { return };
    let (box_, friend, stranger) = (Home::new(), Home::new(), Home::new());
    friend.run(["init"]).ok();
    let id = friend.run(["id"]).ok().trim().to_owned();
    let tracker = serve(&space, &box_, &["--tracker", "--private", "--allow", &id]);
    let other = serve(&space, &stranger, &[]);
    let allowed = serve(&space, &friend, &[]);
    let mut met =
        vec![allowed.event("peer_connected")["node_id"].clone(), allowed.event("peer_connected")["node_id"].clone()];
    met.sort_by_key(Value::to_string);
    let mut both = vec![json!(tracker.id()), json!(other.id())];
    both.sort_by_key(Value::to_string);
    assert_eq!(met, both);
    assert_eq!(peer_ids(&box_), [id], "nobody else");
    let now = lan(&box_);
    assert!(now["dialled"].as_u64() <= Some(1) && now["candidates"] == 1, "the stranger is not even dialled: {now}");
}

#[test]
fn where_the_port_is_taken_it_is_told_and_tried_again() {
    let Some(space) = Space::new() else { return };
    let home = Home::new();
    std::thread::scope(|scope| {
        scope.spawn(|| space.flood(&["hold", "12"]));
        eventually("the port is taken", || space.listens_on_mdns());
        let node = serve(&space, &home, &["--agent", "echo"]);
        eventually("it is failing", || lan(&home)["state"] == "failing");
        assert!(lan(&home)["detail"].as_str().unwrap().contains("5353"), "{}", lan(&home));
        assert_eq!(home.run(["call", "echo", "1"]).ok(), "1\n");
        eventually("it is free again, and used", || lan(&home)["state"] == "on" && lan(&home)["detail"] == "lo");
        drop(node);
    });
}

#[test]
fn an_interface_that_is_not_there_is_told_and_stops_nothing() {
    let Some(space) = Space::new() else { return };
    let home = Home::new();
    let args = ["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--lan-interface", "eth77", "--agent", "echo"];
    let node = Serve::start(space.command(&home, &args));
    eventually("it is failing", || lan(&home)["state"] == "failing");
    assert!(lan(&home)["detail"].as_str().unwrap().contains("eth77"), "{}", lan(&home));
    let text = home.run(["status"]).ok();
    assert!(text.contains("lan failing: there is no interface eth77"), "{text}");
    assert_eq!(home.run(["call", "echo", "1"]).ok(), "1\n");
    node.signal(Signal::TERM);
    let (code, log) = node.ended();
    assert!(code == 0 && log.contains("eth77"), "{code} {log}");
}

#[test]
fn an_announcement_with_a_wrong_id_is_not_believed() {
    let Some(space) = Space::new() else { return };
    let (one, two) = (Home::new(), Home::new());
    let honest = serve(&space, &one, &["--agent", "echo"]);
    let victim = serve(&space, &two, &[]);
    victim.event("peer_connected");
    let before = lan(&two)["dialled"].as_u64().unwrap();
    let port = honest.addr().rsplit_once(':').unwrap().1.to_owned();
    // Somebody else's id where the honest node is; the honest node's id where nobody is.
    let wrong = "A".repeat(43);
    space.flood(&["one", &wrong, "127.0.0.1", &port]);
    space.flood(&["one", &honest.id(), "127.0.0.1", "1"]);
    eventually("it was tried", || lan(&two)["dialled"].as_u64().unwrap() > before);
    eventually("it is over", || two.run(["peers"]).code == 0);
    assert_eq!(peer_ids(&two), [honest.id()], "nobody came to be a peer by that");
    assert_eq!(two.run(["call", "echo", "1"]).ok(), "1\n");
    let refused = two.run(["call", "ping", "1", "--to", &wrong, "--timeout", "2s"]);
    assert_eq!(refused.code, 3, "{refused:?}");
}

#[test]
fn ten_thousand_bogus_announcements_cost_bounded_memory_and_dials() {
    let Some(space) = Space::new() else { return };
    let (one, two, three) = (Home::new(), Home::new(), Home::new());
    let provider = serve(&space, &one, &["--agent", "echo"]);
    let victim = serve(&space, &two, &[]);
    victim.event("peer_connected");
    let before = (rss_kb(&victim), lan(&two)["dialled"].as_u64().unwrap());
    let start = Instant::now();
    space.flood(&["many", "10000"]);
    let sent = start.elapsed();
    // Through all that, it works.
    assert_eq!(two.run(["call", "echo", "1"]).ok(), "1\n");
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let now = lan(&two);
        let (dialled, seconds) = (now["dialled"].as_u64().unwrap() - before.1, start.elapsed().as_secs());
        // A burst of 8, and 2 a second after that.
        assert!(dialled <= 8 + 2 * (seconds + 1), "{dialled} dials in {seconds} s");
        assert!(now["candidates"].as_u64().unwrap() <= 128, "{now}");
        std::thread::sleep(Duration::from_millis(250));
    }
    let (after, most) = (lan(&two), most_rss_kb(&victim));
    println!(
        "10000 bogus announcements, sent in {sent:.2?}: RSS {} kB before, {most} kB at most; {} dials in {:.0?}; {after}",
        before.0,
        after["dialled"].as_u64().unwrap() - before.1,
        start.elapsed()
    );
    assert!(most < before.0 + 32 * 1024, "from {} to {most} kB", before.0);
    assert_eq!(two.run(["call", "echo", "2"]).ok(), "2\n");
    assert_eq!(peer_ids(&two), [provider.id()]);
    // Fewer, which are not taken for a flood, fill their share, and are dialled one after the other.
    let (start, before) = (Instant::now(), lan(&two)["dialled"].as_u64().unwrap());
    space.flood(&["many", "300"]);
    eventually("the share is full", || lan(&two)["candidates"] == 128);
    eventually("some are dialled", || lan(&two)["dialled"].as_u64().unwrap() > before + 12);
    let (now, seconds) = (lan(&two), start.elapsed().as_secs());
    let dials = now["dialled"].as_u64().unwrap() - before;
    println!("300 more: {dials} dials in {seconds} s; {now}");
    assert!(dials <= 8 + 2 * (seconds + 1), "{dials} dials in {seconds} s");
    // Who comes after that is found, and finds.
    let late = serve(&space, &three, &[]);
    eventually("the late one is met", || peer_ids(&two).contains(&late.id()));
    victim.signal(Signal::TERM);
    let (code, _) = victim.ended();
    assert_eq!(code, 0);
}

#[test]
fn what_is_said_by_ten_thousand_responses_that_nobody_asked_for_is_not_kept() {
    let Some(space) = Space::new() else { return };
    let home = Home::new();
    let node = serve(&space, &home, &[]);
    let before = rss_kb(&node);
    // Large ones about other names: mdns-sd keeps them too.
    // It is told while it goes on: a slow sender may still be at it when the node has recovered.
    std::thread::scope(|scope| {
        scope.spawn(|| space.flood(&["stray", "10000"]));
        eventually("it is told", || lan(&home)["state"] == "failing");
    });
    let after = most_rss_kb(&node);
    println!("10000 stray responses of 8 kB: RSS {before} kB before, {after} kB at most");
    let most = most_rss_kb(&node);
    assert!(most < before + 64 * 1024, "from {before} to {most} kB");
    eventually("it comes back", || lan(&home)["state"] == "on");
}

#[test]
fn a_flood_at_full_speed_costs_bounded_memory() {
    let Some(space) = Space::new() else { return };
    let home = Home::new();
    let node = serve(&space, &home, &["--agent", "echo"]);
    let before = rss_kb(&node);
    space.flood(&["full-speed", "8"]);
    let most = most_rss_kb(&node);
    println!("a flood at full speed for 8 s: RSS {before} kB before, {most} kB at most");
    assert!(most < before + 256 * 1024, "from {before} to {most} kB");
    assert_eq!(home.run(["call", "echo", "1"]).ok(), "1\n");
}

#[test]
fn nodes_that_come_and_go_leave_no_thread_and_no_handle() {
    let Some(space) = Space::new() else { return };
    space.inside("inside::nodes_come_and_go");
}

#[test]
fn a_lan_of_twelve_is_whole_and_nobody_dials_everybody() {
    let Some(space) = Space::new() else { return };
    let homes: Vec<Home> = (0..12).map(|_| Home::new()).collect();
    let start = Instant::now();
    let nodes: Vec<Serve> =
        homes.iter().enumerate().map(|(n, home)| serve(&space, home, &["--agent", &format!("a{n}")])).collect();
    let deadline = Instant::now() + PATIENCE;
    for home in &homes {
        // The last one's capability is found by everybody, over however many hops.
        while home.run(["call", "a11", "1"]).code != 0 {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}");
        }
    }
    let took = start.elapsed();
    let peers: Vec<usize> = homes.iter().map(|home| peer_ids(home).len()).collect();
    let dialled: Vec<u64> = homes.iter().map(|home| lan(home)["dialled"].as_u64().unwrap()).collect();
    println!("a LAN of 12: every node has called the last one after {took:.2?}; peers {peers:?}, dials {dialled:?}");
    assert!(dialled.iter().all(|n| *n <= 11 + 2 * took.as_secs()), "{dialled:?}");
    drop(nodes);
}
