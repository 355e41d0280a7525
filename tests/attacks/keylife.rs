//! Keys that ended, and statements that nobody made. What successions and revocations do is in `tests/keylife.rs`.

use serde_json::{Value, json};

use crate::attacker::{Attacker, PATIENCE, relay, unix_s};
use crate::canon::Key;
use crate::stage::{Stage, eventually};
use crate::tasks::{Tracker, is_relay, is_result};

fn revocation(of: &str, by: &Key) -> Value {
    by.sign(json!({"type": "revocation", "node_id": of, "timestamp": unix_s(), "reason": "x"}))
}

/// The thief has a tracker of its own, which takes no notice of revocations.
#[tokio::test]
async fn a_stolen_key_that_was_revoked_has_nothing_run_also_sealed_and_through_the_thiefs_own_tracker() {
    let stage = Stage::plain().await;
    let (tracker, stolen) = (Tracker::new().await, Key::fresh());
    let (mut to_victim, record) = tracker.connect(&stage.addr()).await;
    let builder = elo::Node::builder().identity(stolen.identity());
    let (thief, mut to_thief) = tracker.caller_of(builder, &[&record], &[]).await;
    let (source, victim) = (stolen.id(), stage.id());
    let ask = async |capability: &str| {
        // Longer than anything here is waited for: no deadline is to stop it.
        let call = thief.call(capability, json!(1)).to(&victim).via(tracker.id()).timeout(PATIENCE * 10);
        call.start().await.unwrap()
    };
    // One is at work when the revocation comes, and is stopped.
    let running = ask("wait").await;
    let sent = to_thief.until("the task", is_relay).await;
    assert_eq!(sent["frame"]["type"], "sealed");
    to_victim.say(&relay(&victim, &source, 1, &sent["frame"])).await;
    eventually("it runs", || stage.runs() == 1).await;
    // Another was sealed before, and comes after.
    let kept = ask("work").await;
    let late = to_thief.until("the other", |m| is_relay(m) && m["frame"]["id"] == kept.id()).await;
    stage.victim.revoke(&stolen.identity().revocation("stolen")).unwrap();
    eventually("it is stopped", || stage.stops() == 1).await;
    to_victim.until("its answer", is_result).await;
    for _ in 0..3 {
        for frame in [&sent["frame"], &late["frame"]] {
            to_victim.say(&relay(&victim, &source, 1, frame)).await;
            to_victim.until("a refusal", is_result).await;
        }
    }
    // One that can't be opened is told nothing of keys and runs.
    let mut scrambled = late["frame"].clone();
    scrambled["box"] = json!("A".repeat(64));
    to_victim.say(&relay(&victim, &source, 1, &stolen.sign(scrambled))).await;
    let refusal = to_victim.until("a refusal", is_result).await;
    assert_eq!(refusal["frame"]["error"]["code"], "NOT_ALLOWED", "{refusal}");
    assert!(refusal["frame"]["error"].get("seal").is_none(), "{refusal}");
    assert_eq!(stage.runs(), 1, "only what began before");
    // Nor by the front door, with its own succession or without.
    for _ in 0..2 {
        let mut door = Attacker::dial_as(&stage.addr(), &stolen).await;
        let hello = crate::attacker::hello(&stolen, &[]);
        door.say(&hello).await;
        let ack = door.until("hello_ack", |m| m["type"] == "hello_ack").await;
        let peer = ack["node_id"].as_str().unwrap().to_owned();
        door.say(&crate::attacker::auth(&stolen, &peer, &hello["nonce"], &ack["nonce"])).await;
        assert_eq!(door.closed().await, "NOT_ALLOWED");
    }
    stage.answers().await;
    for call in [running, kept] {
        call.cancel();
    }
    thief.shutdown().await;
    drop((to_thief, to_victim, tracker));
    stage.unharmed().await;
}

/// Thousands of statements about keys that nobody has, and some about those who are there that they did not sign.
#[tokio::test]
async fn a_flood_of_revocations_takes_nobody_out_and_holds_nobody_up() {
    let stage = Stage::plain().await;
    let ids = [stage.id(), stage.caller.id().to_string(), stage.provider.id().to_string()];
    let mut attackers = Vec::new();
    for _ in 0..4 {
        attackers.push(Attacker::connect(&stage.addr()).await);
    }
    for round in 0..30 {
        for attacker in &mut attackers {
            let mut statements: Vec<Value> = (0..13)
                .map(|_| {
                    let key = Key::fresh();
                    revocation(&key.id(), &key)
                })
                .collect();
            statements.extend(ids.iter().map(|id| revocation(id, &attacker.key)));
            attacker.say(&json!({"type": "revoked", "statements": statements, "ttl": 5})).await;
        }
        if round % 10 == 0 {
            stage.answers().await;
        }
    }
    for attacker in &mut attackers {
        attacker.heard().await;
    }
    assert!(stage.refused("statements_rate") > 100, "{:?}", stage.victim.metrics().refused);
    let peers: Vec<String> = stage.victim.peers().iter().map(|p| p.node_id.to_string()).collect();
    assert!(ids[1..].iter().all(|id| peers.contains(id)), "somebody was put out");
    stage.answers().await;
    drop(attackers);
    stage.unharmed().await;
}
