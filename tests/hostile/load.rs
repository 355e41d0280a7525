//! Too much: messages above the rate, peers that don't read, connections without end.

use std::time::{Duration, Instant};

use elo::Limits;
use tokio::net::TcpStream;

use crate::mesh::{addr_of, eventually};
use crate::raw::Raw;
use crate::target::{limited, target};

fn slow(limits: &mut Limits) {
    (limits.messages_per_second, limits.message_burst) = (100, 50);
}

#[tokio::test]
async fn tasks_above_the_rate_are_answered_rate_limited_and_others_are_slowed_not_lost() {
    let target = limited(slow).await;
    let mut raw = Raw::connect(&target.node).await;
    let tasks: Vec<_> = (0..120).map(|n| crate::raw::sign(raw.task(&n.to_string()), &raw.identity)).collect();
    let bytes: Vec<u8> = tasks.iter().flat_map(|t| [t.raw(), &b"\n"[..]].concat()).collect();
    raw.bytes(&bytes).await;
    let mut limited = 0;
    for n in 0..120 {
        let answer = raw.until("an answer", |m| m["type"] == "result").await;
        if answer["status"] == "error" {
            limited += 1;
            assert_eq!(answer["error"]["code"], "RATE_LIMITED", "{n}: {answer}");
            assert!(answer["error"]["retry_after_s"].as_u64().is_some_and(|s| (1..60).contains(&s)), "{answer}");
        }
    }
    // How many, depends on how fast they came.
    assert!((1..=80).contains(&limited), "{limited}");
    assert_eq!((target.refused("rate_limited"), target.runs()), (limited, 120 - limited as usize));
    // Whatever else there is takes its time, and arrives.
    let began = Instant::now();
    for _ in 0..100 {
        raw.send(&elo::wire::Builder::new("no_such_type").build()).await;
    }
    raw.heard().await;
    assert_eq!(target.refused("unknown_type"), 100);
    assert!(began.elapsed() > Duration::from_millis(400), "it was slowed: {:?}", began.elapsed());
    target.serves().await;
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answers_is_closed_and_others_are_served() {
    let target = limited(|l| (l.outbox_bytes, l.write_timeout) = (512 * 1024, Duration::from_millis(700))).await;
    let mut deaf = Raw::connect_narrow(&target.node).await;
    let payload = format!("\"{}\"", "x".repeat(500 * 1024));
    for n in 0..60 {
        if target.closed("TOO_SLOW") == 1 {
            break;
        }
        deaf.sends(deaf.task(&n.to_string()).raw("payload", payload.as_bytes())).await;
        if n % 5 == 0 {
            target.serves().await;
        }
    }
    target.closes("TOO_SLOW", 1).await;
    eventually("its place is free", || target.node.metrics().connections == 1).await;
    drop(deaf);
    target.unharmed().await;
}

#[tokio::test]
async fn a_caller_that_takes_no_chunks_holds_up_its_own_handler_only() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    raw.sends(raw.task("s").str("capability", "stream").raw("payload", b"1000").u64("window", 8).u64("ttl_s", 1)).await;
    raw.until("the window's end", |m| m["type"] == "chunk" && m["seq"] == 7).await;
    target.serves().await;
    // It ends at its deadline, whoever waits.
    assert_eq!(raw.error("s").await, "EXPIRED");
    eventually("its handler ended", || target.node.metrics().tasks_running == 0).await;
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn an_endless_answer_to_a_caller_that_left_uses_up_nobody_elses_time() {
    let target = target().await;
    let me = elo::Identity::generate();
    let mut raw = Raw::connect_as(&target.node, &me, "run").await;
    // Without a window nothing but the connection holds the handler up.
    let endless = crate::raw::sign(
        raw.task("s").str("capability", "stream").u64("payload", u64::MAX).u64("ttl_s", 2),
        &raw.identity,
    );
    raw.send(&endless).await;
    raw.until("it flows", |m| m["type"] == "chunk").await;
    drop(raw);
    eventually("it left", || target.node.peers().len() == 1).await;
    target.serves().await;
    // Back, and asking again, it gets more: in order, from where the last connection ended.
    let mut raw = Raw::connect_as(&target.node, &me, "run").await;
    raw.send(&endless).await;
    let first = raw.until("it flows again", |m| m["type"] == "chunk").await["seq"].as_u64().unwrap();
    let next = raw.until("and on", |m| m["type"] == "chunk").await["seq"].as_u64().unwrap();
    assert_eq!(next, first + 1);
    drop(raw);
    target.serves().await;
    eventually("its handler ended at the deadline", || target.node.metrics().tasks_running == 0).await;
    target.unharmed().await;
}

#[tokio::test]
async fn more_tasks_than_may_run_are_told_overloaded() {
    let target = limited(|l| l.max_tasks = 4).await;
    let mut raw = Raw::connect(&target.node).await;
    for n in 0..4 {
        raw.sends(raw.task(&n.to_string()).str("capability", "wait").u64("ttl_s", 1)).await;
    }
    raw.sends(raw.task("5").str("capability", "wait")).await;
    let answer = raw.result("5").await;
    assert_eq!((&answer["error"]["code"], &answer["error"]["retry_after_s"]), (&"OVERLOADED".into(), &1.into()));
    // A handler begins on a thread of its own, a moment after it was counted.
    eventually("the others run", || target.runs() == 4).await;
    drop(raw);
    eventually("they ended at their deadline", || target.node.metrics().tasks_running == 0).await;
    target.unharmed().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_full() {
    let target = limited(|l| l.max_connections = 3).await;
    let mut one = Raw::connect(&target.node).await;
    let two = Raw::connect(&target.node).await;
    eventually("three are there", || target.node.metrics().connections == 3).await;
    let mut third = Raw::dial(&target.node).await;
    third.bytes(b"{").await;
    assert_eq!(third.bye().await, "FULL");
    one.heard().await;
    target.serves().await;
    drop(two);
    eventually("its place is free", || target.node.metrics().connections == 2).await;
    Raw::connect(&target.node).await.heard().await;
    drop((one, third));
    target.unharmed().await;
}

#[tokio::test]
async fn two_thousand_connections_opened_and_dropped_leave_nothing() {
    // How many may come in a second is another matter.
    let target = limited(|l| l.handshake_burst_per_ip = 10_000).await;
    for round in 0..20 {
        let mut open = Vec::new();
        for n in 0..100 {
            let stream = TcpStream::connect(addr_of(&target.node)).await.unwrap();
            if n % 2 == 0 {
                stream.try_write(b"{\"type\":\"hello\",").unwrap();
            }
            open.push(stream);
        }
        drop(open);
        if round % 5 == 0 {
            target.serves().await;
        }
    }
    target.unharmed().await;
}

#[tokio::test]
async fn a_heartbeat_is_answered_and_a_silent_peer_is_closed() {
    let target =
        limited(|l| (l.heartbeat_interval, l.idle_timeout) = (Duration::from_millis(100), Duration::from_millis(600)))
            .await;
    let mut raw = Raw::connect(&target.node).await;
    raw.heard().await;
    // The node speaks though it has nothing to say; the raw client doesn't.
    raw.until("a heartbeat", |m| m["type"] == "heartbeat" && m.get("ask").is_none() && m.get("answer").is_none()).await;
    assert_eq!(raw.bye().await, "IDLE");
    target.closes("IDLE", 1).await;
    drop(raw);
    // The honest peer has the default heartbeat of 30 s here: it was closed too, and comes back.
    let honest = || target.node.peers().iter().any(|p| p.node_id == target.honest.id());
    eventually("the honest peer is back", honest).await;
}
