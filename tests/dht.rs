//! Finding through the Kademlia DHT: nodes of this process, on loopback, each with a DHT node of its own.
#![cfg(feature = "dht")]
#![allow(clippy::unwrap_used, reason = "a test stops where one fails")]

mod mesh;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use elo::{Builder, Dht, Node, Task};
use mesh::{addr_of, eventually, node};
use serde_json::json;

/// A node that others join the DHT through.
fn first(name: &str) -> Builder {
    node(name).dht(Dht::Bootstrap(Vec::new()))
}

/// A node that joins through these.
fn joined(name: &str, through: &[&Node]) -> Builder {
    node(name).dht(Dht::Bootstrap(through.iter().map(|n| dht_addr(n)).collect()))
}

fn answering(builder: Builder, capability: &str) -> Builder {
    builder.agent(capability).default_handler(|_: Task, context: elo::Context| async move {
        let name = context.node().map(|n| n.name()).unwrap_or_default();
        Ok(json!(name))
    })
}

/// Where a node's DHT server is.
fn dht_addr(node: &Node) -> String {
    format!("127.0.0.1:{}", node.status().dht.port.unwrap())
}

/// Waits until a node has joined the DHT, and somebody has what it announces.
async fn published(node: &Node) {
    eventually(&format!("{} is in the DHT: {:?}", node.name(), node.status().dht), || {
        let health = node.status().dht;
        health.announced > 0 && health.last_announce_s.is_some()
    })
    .await;
}

async fn serving(node: &Node) {
    eventually("the DHT runs", || node.status().dht.port.is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_nodes_without_a_common_peer_find_each_other() {
    let mut nodes = vec![answering(first("n0"), "cap0").start().await.unwrap()];
    serving(&nodes[0]).await;
    for n in 1..20 {
        // One or two to join through, and not the same for all.
        let through: Vec<&Node> = if n < 3 { vec![&nodes[0]] } else { vec![&nodes[n / 2], &nodes[n - 1]] };
        let builder = joined(&format!("n{n}"), &through);
        let builder = answering(builder, &format!("cap{n}"));
        let node = builder.start().await.unwrap();
        serving(&node).await;
        nodes.push(node);
    }
    for node in &nodes {
        published(node).await;
        assert!(node.peers().is_empty(), "nobody is connected");
    }
    let mut slowest = Duration::ZERO;
    for (from, to) in [(19, 7), (3, 18), (11, 0), (8, 15), (0, 12)] {
        // A node that has asked nothing yet has everything to learn.
        let began = Instant::now();
        let outcome = nodes[from].call(format!("cap{to}"), json!(null)).await.unwrap();
        let took = began.elapsed();
        assert_eq!(outcome.responder, nodes[to].id());
        assert_eq!(outcome.route, elo::Route::Direct);
        assert!(outcome.tried.iter().any(|a| a.step == "dht" && a.node == Some(nodes[to].id())), "{:?}", outcome.tried);
        println!("cold lookup by capability, 20 nodes: first answer in {took:?}");
        slowest = slowest.max(took);
    }
    for (from, to) in [(1, 9), (14, 2), (6, 17)] {
        let began = Instant::now();
        let outcome = nodes[from].call("ping", json!(null)).to(nodes[to].id().to_string()).await.unwrap();
        println!("cold lookup by id, 20 nodes: first answer in {:?}", began.elapsed());
        assert_eq!(outcome.responder, nodes[to].id());
        let found = nodes[from].peers().into_iter().find(|p| p.node_id == nodes[to].id()).unwrap();
        assert_eq!(found.found, elo::Source::Dht);
        slowest = slowest.max(began.elapsed());
    }
    println!("slowest of all: {slowest:?}");
    for node in nodes {
        node.shutdown().await;
    }
}
