//! A process that has no file descriptors left.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::common::proc::descriptors;
use super::common::{Home, Serve};
use super::mesh::{eventually, node};
use super::{answered, until};

/// How many it may have: some more than it has when nobody is connected.
const MOST: usize = 48;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_descriptors_serves_its_peers_and_recovers() {
    let home = Home::new();
    // As a shell starts it; the shell becomes the node.
    let serve = home.command(["serve", "--json", "--bind", "127.0.0.1", "--port", "0", "--agent", "echo"]);
    let mut limited = std::process::Command::new("sh");
    limited
        .args(["-c", &format!("ulimit -n {MOST}; exec \"$0\" \"$@\"")])
        .arg(serve.get_program())
        .args(serve.get_args());
    limited.env_clear().envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let provider = Serve::start(limited);
    let (id, addr) = (provider.id(), provider.addr());
    let peer = node("peer").peer(addr.clone()).start().await.unwrap();
    eventually("they meet", || peer.peers().len() == 1).await;
    let used = || descriptors(provider.child.0.id());
    let connect = || TcpStream::connect(&addr).unwrap();
    let mut held: Vec<TcpStream> = Vec::new();
    for round in 0..5 {
        // Connections that say nothing are closed after 10 s: there are always new ones.
        held.extend((0..MOST).map(|_| connect()));
        until("its descriptors are used up", || used() >= MOST).await;
        let call = peer.call("echo", json!(round)).to(id.clone()).timeout(Duration::from_secs(30));
        assert_eq!(call.await.unwrap().payload, json!(round));
    }
    assert_eq!(peer.metrics().closed.values().sum::<u64>(), 0, "{:?}", peer.metrics().closed);
    drop(held);
    // Newcomers come in again, and so do commands.
    let other = node("other").peer(addr.clone()).start().await.unwrap();
    answered(&other, &id, json!("new")).await;
    let status = tokio::task::spawn_blocking(move || home.run(["status", "--json"]).json()).await.unwrap();
    assert_eq!(status["running"], json!(true));
    provider.signal(rustix::process::Signal::TERM);
    let (code, errors) = tokio::task::spawn_blocking(move || provider.ended()).await.unwrap();
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("can't accept connections"), "it did not tell: {errors}");
    assert!(errors.lines().count() < 200, "it told {} times", errors.lines().count());
}
