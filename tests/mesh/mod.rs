//! Helpers for tests that run nodes in this process, on loopback.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses some of them, and stops where one fails")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use elo::{Builder, FoundNode, Node};

/// A node to be, on a free port of loopback.
pub fn node(name: &str) -> Builder {
    Node::builder().name(name).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// The port it listens on.
pub fn port_of(node: &Node) -> u16 {
    node.listen_addrs()[0].port()
}

/// Where it is dialled.
pub fn addr_of(node: &Node) -> String {
    format!("127.0.0.1:{}", port_of(node))
}

/// A running node that is connected to these, and knows what they provide.
pub async fn peered(name: &str, to: &[&Node]) -> Node {
    let mut builder = node(name);
    for peer in to {
        builder = builder.peer(addr_of(peer));
    }
    let node = builder.start().await.unwrap();
    meets(&node, to).await;
    node
}

/// Waits until a node has the records of these, and they have its.
pub async fn meets(node: &Node, others: &[&Node]) {
    eventually("the nodes meet", || {
        others.iter().all(|o| {
            node.peers().iter().any(|p| p.node_id == o.id() && !p.name.is_empty())
                && o.peers().iter().any(|p| p.node_id == node.id() && !p.name.is_empty())
        })
    })
    .await;
}

/// Waits for a condition; panics with its name after 20 s.
pub async fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(Duration::from_secs(20), what, condition).await;
}

/// The same with another patience.
pub async fn eventually_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(patience, looking).await.is_ok(), "waited in vain: {what}");
}

/// Waits until what a node knows of a capability's providers is as wanted, and gives it.
pub async fn found_when(
    node: &Node,
    capability: &str,
    what: &str,
    wanted: impl Fn(&[FoundNode]) -> bool,
) -> Vec<FoundNode> {
    let looking = async {
        loop {
            let known = node.find(capability, None).await.unwrap();
            if wanted(&known) {
                return known;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}
