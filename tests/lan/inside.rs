//! Nodes in this process. Run in the namespace by `Space::inside`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use elo::{DiscoveryState, Lan, Node};

async fn lan_node() -> Node {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Node::builder().listen(listen).lan(Lan::new().interface("lo")).start().await.unwrap()
}

async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), looking).await.is_ok(), "waited in vain: {what}");
}

/// The threads of mdns-sd, and the open files.
fn left_over() -> (usize, usize) {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
    (names.filter(|n| n.trim() == "mDNS_daemon").count(), std::fs::read_dir("/proc/self/fd").unwrap().count())
}

#[test]
#[ignore = "run by another test, in a namespace"]
fn nodes_come_and_go() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut files, mut slowest) = (Vec::new(), Duration::ZERO);
    for round in 0..12 {
        runtime.block_on(async {
            let (one, two) = (lan_node().await, lan_node().await);
            eventually("they meet", || one.peers().len() == 1 && two.peers().len() == 1).await;
            assert_eq!(left_over().0, 2, "one thread for each");
            let health = one.status().discovery.into_iter().find(|d| d.name == "lan").unwrap();
            assert_eq!(health.state, DiscoveryState::On, "{health:?}");
            let began = std::time::Instant::now();
            one.shutdown().await;
            slowest = slowest.max(began.elapsed());
            // The other ends without a word.
            drop(two);
            eventually("the threads have ended", || left_over().0 == 0).await;
        });
        if round >= 2 {
            files.push(left_over().1);
        }
    }
    println!("> {} rounds: open files {files:?}, slowest shutdown {slowest:.2?}", files.len());
    assert!(files.last().unwrap() <= &(files[0] + 4), "{files:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // A runtime that ends with a node in it.
    let node = runtime.block_on(lan_node());
    runtime.block_on(eventually("it began", || left_over().0 == 1));
    drop(runtime);
    drop(node);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while left_over().0 > 0 {
        assert!(std::time::Instant::now() < deadline, "a thread is left");
        std::thread::sleep(Duration::from_millis(5));
    }
}
