//! Before the handshake is done: floods of connections, from one address and from several.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::mesh::{addr_of, eventually};
use crate::raw::{Raw, stream_from};
use crate::target::limited;
use crate::{ELSEWHERE, elsewhere_is_served};

#[tokio::test]
async fn half_open_connections_of_one_address_leave_room_for_another() {
    let target = limited(|l| (l.max_half_open, l.handshake_timeout) = (16, Duration::from_secs(60))).await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.push(TcpStream::connect(addr_of(&target.node)).await.unwrap());
    }
    eventually("what is too much is refused", || target.refused("half_open_full") == 32).await;
    assert_eq!(target.node.metrics().half_open, 8, "an address leaves as many places free as it takes");
    // 32 at once are told why; the others are closed.
    let told = async {
        while Raw::dial(&target.node).await.line().await.is_none_or(|m| m["code"] != "FULL") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is told");
    elsewhere_is_served(&target).await;
    target.serves().await;
    // A second address that floods takes its part of what is left, and a third one gets in still.
    for _ in 0..20 {
        flood.push(stream_from(&addr_of(&target.node), [127, 0, 0, 3]).await);
    }
    eventually("the second flood is bounded", || target.node.metrics().half_open == 12).await;
    elsewhere_is_served(&target).await;
    // None of them has taken a place of those who prove who they are.
    assert_eq!(target.refused("connections_full"), 0);
    drop(flood);
    eventually("they are gone", || target.node.metrics().half_open == 0).await;
    Raw::connect(&target.node).await.heard().await;
    target.unharmed().await;
}

#[tokio::test]
async fn one_address_has_its_share_of_the_connections() {
    let target = limited(|l| l.max_connections_per_ip = 6).await;
    let mut flood = Vec::new();
    // The honest peer is there already.
    for _ in 0..5 {
        flood.push(Raw::connect(&target.node).await);
    }
    for _ in 0..10 {
        assert_eq!(Raw::dial(&target.node).await.bye().await, "FULL");
    }
    assert_eq!(target.refused("connections_per_ip"), 10);
    elsewhere_is_served(&target).await;
    target.serves().await;
    flood.pop();
    eventually("a place is free", || target.node.peers().len() == 5).await;
    Raw::connect(&target.node).await.heard().await;
    drop(flood);
    target.unharmed().await;
}

#[tokio::test]
async fn one_address_may_begin_so_many_handshakes_a_second() {
    let slow = |l: &mut elo::Limits| (l.handshakes_per_second_per_ip, l.handshake_burst_per_ip) = (1, 8);
    let target = limited(slow).await;
    let mut limited = 0;
    for _ in 0..40 {
        let mut raw = Raw::dial(&target.node).await;
        raw.bytes(b"x").await;
        match raw.bye().await.as_str() {
            "RATE_LIMITED" => limited += 1,
            "BAD_HANDSHAKE" => {}
            other => panic!("{other}"),
        }
    }
    assert!(limited >= 20, "{limited}");
    assert_eq!(target.refused("handshakes_per_ip"), limited);
    elsewhere_is_served(&target).await;
    target.serves().await;
    target.unharmed().await;
}

#[tokio::test]
async fn many_nodes_at_one_address_that_come_back_at_once_all_get_in() {
    // A twentieth of what the defaults are made for: the same proportions.
    let target = limited(|l| {
        (l.handshakes_per_second_per_ip, l.handshake_burst_per_ip) = (10, 12);
        (l.max_half_open, l.max_connections_per_ip) = (13, 51);
    })
    .await;
    let mut nodes = Vec::new();
    let quick = elo::Limits::default()
        .with(|l| (l.redial_min, l.redial_max) = (Duration::from_millis(200), Duration::from_secs(1)));
    for n in 0..40 {
        let node = crate::mesh::node(&format!("n{n}")).limits(quick.clone()).peer(addr_of(&target.node));
        nodes.push(node.start().await.unwrap());
    }
    eventually("all are in", || target.node.peers().len() == 41).await;
    assert!(target.refused("handshakes_per_ip") > 0, "there were too many for one moment");
    elsewhere_is_served(&target).await;
    for node in nodes {
        node.shutdown().await;
    }
    target.unharmed().await;
}

#[tokio::test]
async fn who_says_its_hello_byte_by_byte_is_closed_in_time() {
    let target = limited(|l| l.handshake_timeout = Duration::from_secs(1)).await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(TcpStream::connect(addr_of(&target.node)).await.unwrap());
    }
    let hello = br#"{"type":"hello","node_id":""#;
    // Nothing is awaited of them: they write for as long as they can.
    let drip = async {
        for byte in hello.iter().cycle() {
            for stream in &mut slow {
                let _ = stream.write_all(&[*byte]).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = async {
        eventually("they hold places", || target.node.metrics().half_open == 20).await;
        elsewhere_is_served(&target).await;
        target.serves().await;
        target.closes("BAD_HANDSHAKE", 20).await;
    };
    tokio::select! {
        () = drip => unreachable!(),
        () = closed => {}
    }
    Raw::connect_from(&target.node, ELSEWHERE).await.heard().await;
    drop(slow);
    target.unharmed().await;
}
