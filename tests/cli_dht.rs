//! `elo serve` in a DHT: processes that have no peer in common.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test stops where one fails")]

mod common;

use common::{Home, eventually};

/// A UDP port that is free now.
fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn processes_find_each_other_through_the_dht_alone() {
    let (first, second, third) = (Home::new(), Home::new(), Home::new());
    let port = free_port();
    let (through, own_port) = (format!("127.0.0.1:{port}"), port.to_string());
    // All have the same list; the first finds itself in it.
    let a = first.serve(&["--agent", "work", "--dht", &through, "--dht-port", &own_port]);
    let b = second.serve(&["--dht", &through, "--name", "b"]);

    let _c = third.serve(&["--dht", &through]);
    eventually("others keep what the first provides", || {
        let status = first.run(["status", "--json"]).json();
        status["node"]["dht"]["announced"] == 2
    });
    let answer = second.run(["call", "work", "\"hello\"", "--json"]).json();
    assert_eq!(answer["payload"], "hello", "{answer}");
    assert_eq!(answer["responder"], a.id().as_str(), "{answer}");
    let ping = third.run(["call", "ping", "--to", &b.id(), "--json"]).json();
    assert_eq!(ping["responder"], b.id().as_str(), "{ping}");
    let shown = second.run(["status"]).ok();
    assert!(shown.contains("server on UDP port"), "{shown}");
    let found = third.run(["find", "work", "--timeout", "1s", "--json"]).json_lines();
    assert!(found.iter().any(|f| f["node_id"] == a.id().as_str() && f["found"] == "dht"), "{found:?}");
    let peers = second.run(["peers", "--json"]).json_lines();
    assert!(peers.iter().any(|p| p["node_id"] == a.id().as_str() && p["found"] == "dht"), "{peers:?}");
}

#[test]
fn what_dht_can_be_is_said() {
    let home = Home::new();
    home.run(["serve", "--dht", "http://x"]).failed(2, "none of mesh, off, public and HOST:PORT");
    home.run(["serve", "--dht", "[::1]:5"]).failed(2, "the DHT is IPv4 only");
    home.run(["serve", "--dht", "off", "--dht-port", "5"]).failed(2, "--dht-port doesn't go with --dht off");
    home.write("elo.toml", "dht-port = 70000\n");
    home.run(["serve"]).failed(2, "dht-port");
}
