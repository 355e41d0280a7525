//! Getting in as somebody else, or not getting in and staying all the same.

use std::time::Duration;

use elo::wire::Builder;
use elo::{Identity, Tracker};
use serde_json::Value;

use crate::mesh::eventually;
use crate::raw::{Raw, auth, hello, nonce, record, sign, unix_s};
use crate::target::{Target, limited, target};

#[tokio::test]
async fn a_hello_over_16_kib_is_refused() {
    let target = target().await;
    let mut raw = Raw::dial(&target.node).await;
    raw.sends(hello(&raw.identity, &nonce(), "run").str("x", &"x".repeat(16 * 1024))).await;
    assert_eq!(raw.bye().await, "TOO_LARGE");
    let mut endless = Raw::dial(&target.node).await;
    endless.bytes(&vec![b'{'; 17 * 1024]).await;
    assert_eq!(endless.bye().await, "TOO_LARGE");
    target.unharmed().await;
}

#[tokio::test]
async fn a_hello_that_is_not_in_order_is_refused() {
    let target = target().await;
    let me = Identity::generate();
    let id = me.id().to_string();
    let good = || hello(&me, &nonce(), "run");
    let other = Identity::generate();
    let padded = format!("{}=", nonce());
    let signed = sign(good(), &me);
    let rows = [
        ("no signature", good().build()),
        ("a claimed id, signed by another", sign(good(), &other)),
        ("a changed member", signed.with_member("version", b"\"2\"")),
        ("no node_id", sign(good().null("node_id"), &me)),
        ("a padded node_id", sign(good().str("node_id", &format!("{id}=")), &me)),
        ("a short node_id", sign(good().str("node_id", &id[..42]), &me)),
        ("a node_id of another alphabet", sign(good().str("node_id", &format!("+{}", &id[1..])), &me)),
        // The 43rd character has two bits that must be zero.
        ("a node_id with trailing bits", sign(good().str("node_id", &format!("{}B", &id[..42])), &me)),
        ("a node_id that is no key", sign(good().str("node_id", &"_".repeat(43)), &me)),
        ("a number as node_id", sign(good().u64("node_id", 7), &me)),
        ("no nonce", sign(good().null("nonce"), &me)),
        ("a padded nonce", sign(good().str("nonce", &padded), &me)),
        ("a short nonce", sign(good().str("nonce", "AAAA"), &me)),
        ("a clock 302 s ahead", sign(good().i64("timestamp", unix_s() + 302), &me)),
        ("a clock 302 s behind", sign(good().i64("timestamp", unix_s() - 302), &me)),
        ("a clock at the end of time", sign(good().i64("timestamp", i64::MIN), &me)),
        ("no clock", sign(good().null("timestamp"), &me)),
        ("features that are not texts", sign(good().raw("features", b"[1]"), &me)),
        ("a run with control characters", sign(good().str("instance", "a\nb"), &me)),
        ("another message", sign(Builder::new("task").str("id", "1"), &me)),
    ];
    let count = rows.len() as u64;
    for (what, hello) in rows {
        let mut raw = Raw::dial(&target.node).await;
        raw.send(&hello).await;
        assert_eq!(raw.bye().await, "BAD_HANDSHAKE", "{what}");
    }
    target.closes("BAD_HANDSHAKE", count).await;
    for seconds in [298, -298] {
        let mut raw = Raw::dial(&target.node).await;
        raw.send(&sign(good().i64("timestamp", unix_s() + seconds), &me)).await;
        assert_eq!(raw.line().await.unwrap()["type"], "hello_ack", "a clock {seconds} s off");
    }
    target.unharmed().await;
}

#[tokio::test]
async fn bytes_that_are_no_hello_are_refused() {
    let target = target().await;
    let rows: [(&[u8], &str); 5] = [
        (b"{\"type\":\"hello\",\"type\":\"hello\"}\n", "BAD_MESSAGE"),
        (b"{\"type\":\"hello\",\"t\\u0079pe\":\"hello\"}\n", "BAD_MESSAGE"),
        (b"{\"type\":\"\xff\"}\n", "BAD_MESSAGE"),
        (b"{}\n", "BAD_HANDSHAKE"),
        (b"{\"type\":7}\n", "BAD_HANDSHAKE"),
    ];
    for (bytes, code) in rows {
        let mut raw = Raw::dial(&target.node).await;
        raw.bytes(bytes).await;
        assert_eq!(raw.bye().await, code, "{}", String::from_utf8_lossy(bytes));
    }
    target.unharmed().await;
}

/// Says hello as `identity`; gives the connection, the nonce and the answer.
async fn greet(target: &Target, identity: &Identity) -> (Raw, String, Value) {
    let mut raw = Raw::dial(&target.node).await;
    raw.identity = identity.clone();
    let nonce = nonce();
    raw.send(&sign(hello(identity, &nonce, "run"), identity)).await;
    let ack = raw.line().await.unwrap();
    assert_eq!(ack["type"], "hello_ack");
    assert!(ack.get("caps").is_none() && ack.get("peers").is_none(), "nothing private before auth: {ack}");
    (raw, nonce, ack)
}

#[tokio::test]
async fn a_proof_for_anything_but_this_connection_is_refused() {
    let target = target().await;
    let me = Identity::generate();
    let elsewhere = Identity::generate();
    for what in ["another listener", "another nonce", "another ack", "another signer", "another id", "no signature"] {
        let (mut raw, nonce, ack) = greet(&target, &me).await;
        let good = auth(&me, &raw.peer, &nonce, &ack);
        let proof = match what {
            "another listener" => sign(good.str("peer", &elsewhere.id().to_string()), &me),
            "another nonce" => sign(good.str("hello_nonce", &crate::raw::nonce()), &me),
            "another ack" => sign(good.str("ack_nonce", &crate::raw::nonce()), &me),
            "another signer" => sign(good, &elsewhere),
            "another id" => sign(good.str("node_id", &elsewhere.id().to_string()), &elsewhere),
            _ => good.build(),
        };
        raw.send(&proof).await;
        assert_eq!(raw.bye().await, "BAD_HANDSHAKE", "{what}");
    }
    target.closes("BAD_HANDSHAKE", 6).await;
    assert_eq!(target.node.peers().len(), 1, "nobody got in");
    target.unharmed().await;
}

#[tokio::test]
async fn a_recorded_handshake_does_not_work_again() {
    let target = target().await;
    let me = Identity::generate();
    let (mut first, nonce, ack) = greet(&target, &me).await;
    let proof = sign(auth(&me, &first.peer, &nonce, &ack), &me);
    first.send(&proof).await;
    first.until("welcome", |m| m["type"] == "welcome").await;
    first.heard().await;
    // Byte for byte the same, by somebody without the key.
    let mut thief = Raw::dial(&target.node).await;
    thief.send(&sign(hello(&me, &nonce, "run"), &me)).await;
    thief.until("hello_ack", |m| m["type"] == "hello_ack").await;
    thief.send(&proof).await;
    assert_eq!(thief.bye().await, "BAD_HANDSHAKE");
    first.heard().await;
    drop(first);
    target.unharmed().await;
}

#[tokio::test]
async fn handshake_messages_after_the_handshake_close_the_connection() {
    let target = target().await;
    for kind in ["hello", "hello_ack", "auth", "welcome"] {
        let mut raw = Raw::connect(&target.node).await;
        raw.sends(hello(&raw.identity, &nonce(), "run").str("type", kind)).await;
        assert_eq!(raw.bye().await, "BAD_MESSAGE", "{kind}");
    }
    target.unharmed().await;
}

#[tokio::test]
async fn the_node_itself_is_not_its_own_peer() {
    let target = target().await;
    let mut raw = Raw::dial(&target.node).await;
    let own = hello(&raw.identity, &nonce(), "run").str("node_id", &raw.peer.to_string());
    raw.sends(own).await;
    assert_eq!(raw.bye().await, "SELF");
    target.closes("SELF", 1).await;
    target.unharmed().await;
}

#[tokio::test]
async fn tasks_sent_before_the_welcome_wait_for_it_and_those_before_auth_are_refused() {
    let target = target().await;
    let me = Identity::generate();
    let (mut raw, nonce, ack) = greet(&target, &me).await;
    let proof = sign(auth(&me, &raw.peer, &nonce, &ack), &me);
    let task = sign(raw.task("early"), &me);
    raw.bytes(&[proof.raw(), &b"\n"[..], task.raw(), b"\n"].concat()).await;
    assert_eq!(raw.line().await.unwrap()["type"], "welcome", "nothing comes before it");
    assert_eq!(raw.result("early").await["status"], "success");
    drop(raw);
    let (mut raw, ..) = greet(&target, &me).await;
    raw.sends(raw.task("too early")).await;
    assert_eq!(raw.bye().await, "BAD_HANDSHAKE");
    assert_eq!(target.runs(), 1);
    target.unharmed().await;
}

#[tokio::test]
async fn of_two_connections_with_one_key_the_newest_is_kept() {
    let target = target().await;
    let me = Identity::generate();
    for runs in [["a", "a"], ["a", "b"]] {
        let mut old = Raw::connect_as(&target.node, &me, runs[0]).await;
        old.heard().await;
        let mut new = Raw::connect_as(&target.node, &me, runs[1]).await;
        assert_eq!(old.bye().await, "DUPLICATE", "{runs:?}");
        new.sends(new.task(runs[1])).await;
        assert_eq!(new.result(runs[1]).await["status"], "success");
        assert_eq!(target.node.peers().len(), 2);
        drop(new);
        eventually("it is gone", || target.node.peers().len() == 1).await;
    }
    target.unharmed().await;
}

#[tokio::test]
async fn a_half_open_handshake_times_out_wherever_it_stops() {
    let target = limited(|l| l.handshake_timeout = Duration::from_millis(300)).await;
    let me = Identity::generate();
    let mut silent = Raw::dial(&target.node).await;
    let mut trickling = Raw::dial(&target.node).await;
    trickling.bytes(b"{\"type\":").await;
    let (mut unproven, ..) = greet(&target, &me).await;
    // Bytes that keep coming don't buy time.
    for _ in 0..5 {
        trickling.bytes(b" ").await;
    }
    for raw in [&mut silent, &mut trickling, &mut unproven] {
        assert_eq!(raw.bye().await, "BAD_HANDSHAKE");
    }
    target.closes("BAD_HANDSHAKE", 3).await;
    target.unharmed().await;
}

#[tokio::test]
async fn a_private_tracker_tells_a_stranger_nothing_but_no() {
    let friend = Identity::generate();
    let allow = vec![friend.id()];
    let private = crate::mesh::node("private").tracker(Tracker::Private { allow }).start().await.unwrap();
    let mut stranger = Raw::dial(&private).await;
    let nonce = nonce();
    stranger.sends(hello(&stranger.identity, &nonce, "run")).await;
    let ack = stranger.line().await.unwrap();
    stranger.sends(auth(&stranger.identity, &stranger.peer, &nonce, &ack)).await;
    stranger.sends(stranger.task("ping").str("capability", "ping")).await;
    let bye = stranger.line().await.unwrap();
    assert_eq!((&bye["type"], &bye["code"]), (&"bye".into(), &"NOT_ALLOWED".into()), "{bye}");
    assert_eq!(stranger.line().await, None);
    let mut raw = Raw::connect_as(&private, &friend, "run").await;
    raw.send(&crate::raw::announce(&sign(record(&friend, "x"), &friend))).await;
    raw.heard().await;
    assert_eq!(private.metrics().records, 1);
    drop(raw);
    eventually("the friend left nothing", || private.metrics().records + private.metrics().connections == 0).await;
}
