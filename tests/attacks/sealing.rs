//! A tracker that lies of keys, to have something sealed for itself or not at all. What it may do to envelopes on their way
//! is in `tests/sealed/`.

use elo::{Delivery, ErrorCode, Node, Sealing};
use serde_json::{Value, json};

use crate::attacker::{Attacker, PATIENCE, announce, relay, unix_ms};
use crate::canon::{Key, encode};
use crate::mesh::{addr_of, node};
use crate::stage::{Counter, Stage};
use crate::tasks::{Tracker, is_relay, is_result, refused};

/// What nobody on the way may read.
const MARKER: &str = "the-crown-jewels";

/// An X25519 public key of the attacker's.
fn own_seal_key() -> String {
    encode(&[9; 32])
}

/// Records of a node as the attacker would have them: of a node that takes nothing sealed, that has no key, or the
/// attacker's. With the true signature, one of the attacker's, and none; as old as the true one, and newer.
fn forged(record: &Value, liar: &Key) -> Vec<Value> {
    let mut open = record.clone();
    let features = open["features"].as_array_mut().unwrap();
    assert!(features.contains(&json!("sealed")));
    features.retain(|f| f != "sealed");
    let (mut keyless, mut other) = (record.clone(), record.clone());
    keyless.as_object_mut().unwrap().remove("seal").unwrap();
    other["seal"] = json!(own_seal_key());
    let mut all = Vec::new();
    for record in [open, keyless, other] {
        let mut newer = record.clone();
        newer["seq"] = json!(unix_ms() + 1000);
        for record in [record, newer] {
            let mut bare = record.clone();
            bare.as_object_mut().unwrap().remove("signature");
            all.extend([liar.sign(record.clone()), record, bare]);
        }
    }
    all
}

#[tokio::test]
async fn a_tracker_that_lies_of_seal_keys_has_nothing_sealed_for_itself() {
    let stage = Stage::plain().await;
    let tracker = Tracker::new().await;
    let (mut to_victim, record) = tracker.connect(&stage.addr()).await;
    let lies = forged(&record, &tracker.key);
    // Who has heard nothing but lies sends nothing.
    let (caller, mut to_caller) = tracker.caller(&lies.iter().collect::<Vec<_>>()).await;
    let call = caller.call("work", json!(MARKER)).to(stage.id()).via(tracker.id());
    let call = tokio::spawn(async move { call.timeout(std::time::Duration::from_secs(3)).await });
    while !call.is_finished() {
        let heard = to_caller.heard().await;
        assert!(!heard.iter().any(is_relay) && !format!("{heard:?}").contains(MARKER), "{heard:?}");
    }
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.delivery, Delivery::NotSent, "{error}");
    // Who has heard the truth as well, before or after, seals to the true key.
    to_caller.say(&announce(&record, 1)).await;
    for lie in &lies {
        to_caller.say(&announce(lie, 1)).await;
    }
    to_caller.heard().await;
    assert!(refused(&caller, &["bad_signature", "malformed"]) > 0, "{:?}", caller.metrics().refused);
    stage.answers().await;
    let call = caller.call("work", json!(MARKER)).to(stage.id()).via(tracker.id()).timeout(PATIENCE);
    let call = call.start().await.unwrap();
    let sent = to_caller.until("the task", is_relay).await;
    assert!(sent["frame"]["type"] == "sealed" && !sent.to_string().contains(MARKER), "{sent}");
    let (source, victim, id) = (caller.id().to_string(), stage.id(), call.id().to_owned());

    // "Seal it to this key": in the target's name and in its own, and what the target truly says to somebody else.
    let error = json!({
        "code": "PEER_GONE", "message": "no", "ran": false, "seal": own_seal_key(), "instance": record["instance"]
    });
    let envelope = json!({
        "type": "sealed", "kind": "task", "id": id, "source": tracker.id(), "target": victim, "ttl_s": 60,
        "key": own_seal_key(), "enc": own_seal_key(), "n": 0, "box": "A".repeat(64)
    });
    let said_to = async |link: &mut Attacker, envelope: Value| {
        let (source, envelope) = (link.id(), link.key.sign(envelope));
        link.say(&relay(&victim, &source, 1, &envelope)).await;
        link.until("what it says to that", is_result).await["frame"].clone()
    };
    let true_one = said_to(&mut to_victim, envelope).await;
    assert_eq!((&true_one["error"]["code"], &true_one["error"]["seal"]), (&json!("PEER_GONE"), &record["seal"]));
    let mut changed = true_one.clone();
    changed["error"]["seal"] = json!(own_seal_key());
    let mut frames = vec![true_one, changed];
    for responder in [&victim, &tracker.id()] {
        let answer = json!({
            "type": "result", "id": id, "caller": source, "responder": responder, "protocol": "elo.v1",
            "status": "error", "error": error
        });
        frames.extend([tracker.key.sign(answer.clone()), answer]);
    }
    let counted = ["bad_signature", "malformed", "anothers_answer", "unasked_result"];
    let before = refused(&caller, &counted);
    for frame in &frames {
        to_caller.say(&relay(&source, &victim, 1, frame)).await;
    }
    let heard = to_caller.heard().await;
    assert_eq!(refused(&caller, &counted) - before, frames.len() as u64, "{:?}", caller.metrics().refused);
    assert!(!format!("{heard:?}").contains(MARKER));

    // The envelope as another's: re-signed, under another name, and at another node.
    let mut own = sent["frame"].clone();
    own["source"] = json!(tracker.id());
    let refusal = said_to(&mut to_victim, own.clone()).await;
    assert_eq!(refusal["error"]["code"], "PEER_GONE");
    own["key"] = json!(own_seal_key());
    assert_eq!(said_to(&mut to_victim, own).await["error"]["code"], "PEER_GONE");
    assert_eq!(stage.refused("not_opened"), 3);
    to_victim.say(&relay(&victim, &tracker.id(), 1, &sent["frame"])).await;
    to_victim.heard().await;
    let mut elsewhere = Attacker::connect_as(&addr_of(&stage.provider), &tracker.key).await;
    let other = elsewhere.peer.clone();
    elsewhere.say(&relay(&other, &source, 1, &sent["frame"])).await;
    elsewhere.heard().await;
    assert_eq!((stage.runs(), stage.provider.metrics().tasks_done), (0, stage.provider.metrics().tasks_done));

    // After all that: the task arrives, is answered, and was read by nobody.
    to_victim.say(&relay(&victim, &source, 1, &sent["frame"])).await;
    let answer = to_victim.until("the answer", is_result).await;
    assert!(answer["frame"]["type"] == "sealed" && !answer.to_string().contains(MARKER), "{answer}");
    to_caller.say(&relay(&source, &victim, 1, &answer["frame"])).await;
    let outcome = call.outcome().await.unwrap();
    assert_eq!((outcome.payload.into_value(), outcome.sealed, stage.runs()), (json!(MARKER), true, 1));
    caller.shutdown().await;
    drop((to_caller, to_victim, elsewhere, tracker));
    stage.unharmed().await;
}

/// The node sealed nothing when it ran before. The tracker kept that record.
#[tokio::test]
async fn a_record_from_before_a_node_sealed_is_of_no_use_to_who_knows_better_or_insists() {
    let stage = Stage::plain().await;
    let tracker = Tracker::new().await;
    let (key, ran) = (Key::fresh(), Counter::default());
    let run = async |sealing| {
        let builder = ran.count(node("worker").identity(key.identity()), "work").sealing(sealing);
        let worker = builder.start().await.unwrap();
        let (link, record) = tracker.connect(&addr_of(&worker)).await;
        (worker, link, record)
    };
    let (before, link, old) = run(Sealing::Off).await;
    before.shutdown().await;
    drop(link);
    let (worker, link, new) = run(Sealing::Preferred).await;
    assert!(old["seal"].is_null() && !new["seal"].is_null());
    // What remains: who was told nothing else, and doesn't insist, is as open as the node was then.
    let rows = [(Sealing::Preferred, [&new, &old], "sealed"), (Sealing::Preferred, [&old, &old], "task")];
    for (sealing, records, kind) in rows {
        let (caller, mut to_caller) = tracker.caller_of(Node::builder().sealing(sealing), &records, &[]).await;
        let call = caller.call("work", json!(MARKER)).to(key.id()).via(tracker.id()).start().await.unwrap();
        let sent = to_caller.until("the task", is_relay).await;
        assert_eq!(sent["frame"]["type"], kind);
        call.cancel();
        caller.shutdown().await;
    }
    let builder = Node::builder().sealing(Sealing::Required);
    let (caller, mut to_caller) = tracker.caller_of(builder, &[&old, &old], &[]).await;
    let error = caller.call("work", json!(MARKER)).to(key.id()).via(tracker.id()).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent), "{error}");
    let heard = to_caller.heard().await;
    assert!(!heard.iter().any(is_relay), "{heard:?}");
    assert_eq!(ran.now(), 0);
    for node in [caller, worker] {
        node.shutdown().await;
    }
    drop((to_caller, link, tracker));
    stage.unharmed().await;
}
