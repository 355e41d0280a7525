//! After the handshake: who sends slowly, who sends as fast as it can, who says the same again.

use std::time::{Duration, Instant};

use crate::mesh::eventually;
use crate::raw::{Raw, sign, sign_flood};
use crate::target::limited;
use crate::{ELSEWHERE, ballast, elsewhere_is_served, is_served};

#[tokio::test]
async fn a_message_that_was_begun_must_come_to_its_end() {
    let target = limited(|l| l.message_timeout = Duration::from_secs(1)).await;
    let mut other = Raw::connect_from(&target.node, ELSEWHERE).await;
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::connect(&target.node).await;
        raw.bytes(b"{\"type\":\"").await;
        slow.push(raw);
    }
    let drip = async {
        loop {
            for raw in &mut slow {
                raw.bytes(b"x").await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = async {
        is_served(&mut other).await;
        target.serves().await;
        target.closes("TOO_SLOW", 10).await;
    };
    tokio::select! {
        () = drip => {}
        () = closed => {}
    }
    assert_eq!(slow[0].bye().await, "TOO_SLOW");
    // Who says whole messages may take its time between them.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    is_served(&mut other).await;
    elsewhere_is_served(&target).await;
    drop((slow, other));
    target.unharmed().await;
}

#[tokio::test]
async fn bytes_at_full_speed_are_paced_and_nobody_waits_for_them() {
    const MIB: u32 = 1024 * 1024;
    let target = limited(|l| {
        (l.bytes_per_second, l.byte_burst) = (2 * MIB, 2 * MIB);
        // Shorter than the pacing takes: that is not the peer's fault.
        l.message_timeout = Duration::from_millis(400);
    })
    .await;
    let mut other = Raw::connect_from(&target.node, ELSEWHERE).await;
    let mut fast = Raw::connect(&target.node).await;
    let began = Instant::now();
    let flood = async {
        let line = ballast(1000 * 1000);
        for _ in 0..6 {
            fast.bytes(&line).await;
        }
        fast.heard().await;
    };
    let others = async {
        for _ in 0..10 {
            is_served(&mut other).await;
            target.serves().await;
        }
    };
    tokio::join!(flood, others);
    assert_eq!(target.refused("unknown_type"), 6, "nothing is lost");
    assert!(began.elapsed() > Duration::from_millis(1500), "it was slowed: {:?}", began.elapsed());
    drop((fast, other));
    target.unharmed().await;
}

#[tokio::test]
async fn signatures_at_full_speed_are_paced_and_nobody_waits_for_them() {
    let target = limited(|l| (l.signatures_per_second, l.signature_burst) = (100, 20)).await;
    let mut other = Raw::connect_from(&target.node, ELSEWHERE).await;
    let mut fast = Raw::connect(&target.node).await;
    let stranger = elo::Identity::generate();
    let forged: Vec<_> = (0..170).map(|n| sign(fast.task(&n.to_string()), &stranger)).collect();
    let began = Instant::now();
    let flood = async {
        for task in &forged {
            fast.send(task).await;
        }
        fast.heard().await;
    };
    let others = async {
        // Fewer than its own rate lets through: it waits for nobody's signatures but its own.
        for _ in 0..10 {
            is_served(&mut other).await;
        }
    };
    tokio::join!(flood, others);
    assert_eq!(target.refused("bad_signature"), 170, "nothing is lost, and nothing is believed");
    assert!(began.elapsed() > Duration::from_millis(1400), "it was slowed: {:?}", began.elapsed());
    drop((fast, other));
    target.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_ids_does_not_make_a_node_forget_anothers() {
    let target = limited(|l| {
        l.max_seen = 64;
        (l.floods_per_second, l.flood_burst) = (100_000, 100_000);
    })
    .await;
    let mut news = target.node.subscribe("news").unwrap();
    let mut victim = Raw::connect_from(&target.node, ELSEWHERE).await;
    let event = sign_flood(victim.event("once"), &victim.identity);
    let query = sign_flood(victim.query("asked", "echo"), &victim.identity);
    victim.send(&event).await;
    victim.send(&query).await;
    victim.heard().await;
    let told = tokio::time::timeout(Duration::from_secs(20), news.recv()).await;
    assert_eq!(told.unwrap_or_else(|_| panic!("{:?}", target.node.metrics())).unwrap().id, "once");
    let (events, queries) = (target.refused("duplicate_event"), target.refused("duplicate_query"));

    let mut flooder = Raw::connect(&target.node).await;
    for n in 0..500 {
        for flood in [flooder.event(&n.to_string()), flooder.query(&n.to_string(), "nothing")] {
            flooder.send(&sign_flood(flood, &flooder.identity)).await;
        }
    }
    flooder.heard().await;
    // What it overheard it says again.
    flooder.send(&event).await;
    flooder.send(&query).await;
    flooder.heard().await;
    assert_eq!(target.refused("duplicate_event"), events + 1);
    assert_eq!(target.refused("duplicate_query"), queries + 1);
    let mut once = 0;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(200), news.recv()).await {
        once += usize::from(event.id == "once");
    }
    assert_eq!(once, 0, "it was told once");
    target.serves().await;
    drop((victim, flooder));
    target.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_records_pushes_out_nobody_elses() {
    let target = limited(|l| {
        (l.max_records, l.max_records_per_peer) = (40, 30);
        (l.floods_per_second, l.flood_burst) = (100_000, 100_000);
    })
    .await;
    let mut honest = Raw::connect_from(&target.node, ELSEWHERE).await;
    let others: Vec<_> = (0..5).map(|_| elo::Identity::generate()).collect();
    for other in &others {
        let record = sign(crate::raw::record(other, "kept").u64("x", 1), other);
        honest.send(&crate::raw::announce(&record)).await;
    }
    honest.heard().await;
    let mut flooder = Raw::connect(&target.node).await;
    for _ in 0..200 {
        let stranger = elo::Identity::generate();
        let record = sign(crate::raw::record(&stranger, "flood"), &stranger);
        flooder.send(&crate::raw::announce(&record)).await;
    }
    flooder.heard().await;
    let kept = target.node.find("kept", None).await.unwrap();
    assert_eq!(kept.len(), 5, "{kept:?}");
    let flood = target.node.find("flood", None).await.unwrap().len();
    assert!(flood <= 30, "{flood}");
    target.serves().await;
    elsewhere_is_served(&target).await;
    drop((honest, flooder));
    eventually("they left", || target.node.peers().len() == 1).await;
    target.serves().await;
}
