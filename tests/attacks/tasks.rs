//! Work that is to run twice, or elsewhere, or be answered or stopped by somebody else. The attacker is the tracker that
//! carries it, and so has all there is to have.

use elo::{ErrorCode, Node, Sealing};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::attacker::{Attacker, LAIR, PATIENCE, announce, relay};
use crate::canon::Key;
use crate::mesh::{addr_of, node};
use crate::stage::{Stage, eventually};

/// A tracker that does what the attacker wants. Real nodes dial it; it dials real nodes.
pub struct Tracker {
    pub key: Key,
    pub addr: String,
    listener: TcpListener,
}

impl Tracker {
    pub async fn new() -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::from(LAIR), 0)).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        Self { key: Key::fresh(), addr, listener }
    }

    pub fn id(&self) -> String {
        self.key.id()
    }

    /// A node that knows nobody but this tracker, and is told these records by it.
    pub async fn caller(&self, records: &[&Value]) -> (Node, Attacker) {
        self.caller_with(records, &[]).await
    }

    /// The same by a tracker with features.
    pub async fn caller_with(&self, records: &[&Value], features: &[&str]) -> (Node, Attacker) {
        self.caller_of(Node::builder(), records, features).await
    }

    /// The same, set as is wanted.
    pub async fn caller_of(&self, builder: elo::Builder, records: &[&Value], features: &[&str]) -> (Node, Attacker) {
        let caller = builder.name("behind").no_listen().peer(&self.addr).start().await.unwrap();
        let mut link = Attacker::admit(&self.listener, &self.key, features).await;
        for record in records {
            link.say(&announce(record, 1)).await;
        }
        link.heard().await;
        (caller, link)
    }

    /// A node that can be reached through this tracker only, its link and its record.
    pub async fn hidden(&self, builder: elo::Builder) -> (Node, Attacker, Value) {
        let node = builder.no_listen().peer(&self.addr).start().await.unwrap();
        let mut link = Attacker::admit(&self.listener, &self.key, &[]).await;
        let said = link.until("its record", |m| m["type"] == "announce").await;
        (node, link, said["record"].clone())
    }

    /// A link to a node, and the node's record.
    pub async fn connect(&self, addr: &str) -> (Attacker, Value) {
        let mut link = Attacker::connect_as_tracker(addr, &self.key).await;
        let peer = link.peer.clone();
        let said = link.until("its record", |m| m["type"] == "announce" && m["record"]["node_id"] == peer).await;
        (link, said["record"].clone())
    }
}

/// A relay of a frame about a task, whatever form the frame has.
pub fn is_relay(message: &Value) -> bool {
    message["type"] == "relay"
}

/// The same of a result, whether its frame can be read or not.
pub fn is_result(message: &Value) -> bool {
    is_relay(message) && [&message["frame"]["type"], &message["frame"]["kind"]].contains(&&json!("result"))
}

pub fn refused(node: &Node, reasons: &[&str]) -> u64 {
    let refused = node.metrics().refused;
    reasons.iter().map(|r| refused.get(*r).copied().unwrap_or(0)).sum()
}

#[tokio::test]
async fn a_task_runs_once_whoever_brings_it_again_and_to_whom() {
    let stage = Stage::plain().await;
    let tracker = Tracker::new().await;
    let (mut to_victim, record) = tracker.connect(&stage.addr()).await;
    let (caller, mut to_caller) = tracker.caller(&[&record]).await;
    let call = caller.call("work", json!("once")).to(stage.id()).via(tracker.id()).timeout(PATIENCE);
    let call = call.start().await.unwrap();
    let sent = to_caller.until("the task", is_relay).await;
    let (source, frame) = (caller.id().to_string(), &sent["frame"]);
    for _ in 0..10 {
        to_victim.say(&relay(&stage.id(), &source, 1, frame)).await;
    }
    let answer = to_victim.until("the answer", is_result).await;
    assert_eq!((stage.runs(), &answer["source"]), (1, &json!(stage.id())));
    // To another node that provides things too: relayed, in another's name, and as if it were its bringer's own.
    let mut third = Attacker::connect(&addr_of(&stage.provider)).await;
    let elsewhere = third.peer.clone();
    third.say(&relay(&elsewhere, &source, 1, frame)).await;
    third.say(&relay(&elsewhere, &third.id(), 1, frame)).await;
    third.say(frame).await;
    let heard = third.heard().await;
    assert!(heard.iter().all(|m| m["status"] != "success" && m["frame"]["status"] != "success"), "{heard:?}");
    assert_eq!(
        refused(&stage.provider, &["bad_task", "bad_signature", "malformed", "unknown_type", "not_as_sealed"]),
        3
    );
    drop(third);
    // By a third, to the right node.
    let mut third = Attacker::connect(&stage.addr()).await;
    third.say(frame).await;
    third.say(&relay(&stage.id(), &third.id(), 1, frame)).await;
    third.say(&relay(&stage.id(), &source, 1, frame)).await;
    third.heard().await;
    stage.answers().await;
    // The answer goes to the caller, as often as the tracker likes.
    for _ in 0..3 {
        to_caller.say(&relay(&source, &stage.id(), 1, &answer["frame"])).await;
    }
    assert_eq!(call.outcome().await.unwrap().payload, json!("once"));
    assert_eq!(stage.runs(), 1);
    caller.shutdown().await;
    drop((to_caller, to_victim, third, tracker));
    stage.unharmed().await;
}

#[tokio::test]
async fn a_task_for_an_earlier_run_is_not_run_after_a_restart() {
    let stage = Stage::plain().await;
    let tracker = Tracker::new().await;
    let (key, ran) = (Key::fresh(), crate::stage::Counter::default());
    let first = ran.count(node("worker").identity(key.identity()), "work").start().await.unwrap();
    let (mut to_worker, record) = tracker.connect(&addr_of(&first)).await;
    let (caller, mut to_caller) = tracker.caller(&[&record]).await;
    let call = caller.call("work", json!(1)).to(key.id()).via(tracker.id()).timeout(PATIENCE).start().await.unwrap();
    let frame = to_caller.until("the task", is_relay).await["frame"].clone();
    let source = caller.id().to_string();
    to_worker.say(&relay(&key.id(), &source, 1, &frame)).await;
    let answer = to_worker.until("the answer", is_result).await;
    assert_eq!(ran.now(), 1);
    first.shutdown().await;
    // The same key, another run.
    let second = ran.count(node("worker").identity(key.identity()), "work").start().await.unwrap();
    let (mut to_worker, _) = tracker.connect(&addr_of(&second)).await;
    for _ in 0..10 {
        to_worker.say(&relay(&key.id(), &source, 1, &frame)).await;
        to_worker.until("a refusal", is_relay).await;
    }
    assert_eq!(ran.now(), 1, "it ran again after the restart");
    to_caller.say(&relay(&source, &key.id(), 1, &answer["frame"])).await;
    assert_eq!(call.outcome().await.unwrap().payload, json!(1));
    caller.shutdown().await;
    second.shutdown().await;
    drop((to_caller, to_worker, tracker));
    stage.unharmed().await;
}

#[tokio::test]
async fn nobody_answers_in_a_responders_place() {
    let stage = Stage::plain().await;
    let tracker = Tracker::new().await;
    let (mut to_victim, record) = tracker.connect(&stage.addr()).await;
    let (caller, mut to_caller) = tracker.caller(&[&record]).await;
    let call = caller.call("work", json!("mine")).to(stage.id()).via(tracker.id()).timeout(PATIENCE);
    let call = call.start().await.unwrap();
    let sent = to_caller.until("the task", is_relay).await;
    let (me, source, id, victim) = (tracker.key.clone(), caller.id().to_string(), call.id().to_owned(), stage.id());
    // Before the real answer: results, refusals, chunks and signs of life of its own making.
    let body = |responder: &str| {
        let of = |kind: &str, more: Value| {
            let mut message = json!({"type": kind, "id": id, "responder": responder, "protocol": "elo.v1"});
            message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            message
        };
        let error = json!({"code": "OVERLOADED", "message": "no", "ran": false});
        [
            of("result", json!({"status": "success", "payload": "forged"})),
            of("result", json!({"status": "error", "error": error})),
            of("chunk", json!({"seq": 0, "data": "forged"})),
            of("accepted", json!({})),
        ]
    };
    let mut forged = 0;
    for responder in [&victim, &me.id()] {
        for message in body(responder) {
            for frame in [me.sign(message.clone()), message] {
                for source_said in [&victim, &me.id()] {
                    to_caller.say(&relay(&source, source_said, 1, &frame)).await;
                    forged += 1;
                }
                to_caller.say(&frame).await;
                forged += 1;
            }
        }
    }
    to_caller.heard().await;
    let counted =
        ["bad_signature", "unasked_result", "not_the_signer", "malformed", "unsealed_answer", "anothers_answer"];
    assert_eq!(refused(&caller, &counted), forged, "{:?}", caller.metrics().refused);
    // A peer of the caller's own choosing that was never asked has no better luck with a steady call of somebody else.
    let mut peer = Attacker::connect(&addr_of(&stage.caller)).await;
    for message in body(&peer.id()) {
        peer.sign_and_say(message).await;
    }
    peer.heard().await;
    assert_eq!(refused(&stage.caller, &["unasked_result"]), 4);
    stage.answers().await;
    // The real answer, changed on its way and as it was.
    to_victim.say(&relay(&victim, &source, 1, &sent["frame"])).await;
    let answer = to_victim.until("the answer", is_result).await;
    let before = refused(&caller, &counted);
    let members: Vec<String> = answer["frame"].as_object().unwrap().keys().cloned().collect();
    for member in &members {
        let mut frame = answer["frame"].clone();
        frame.as_object_mut().unwrap().remove(member);
        to_caller.say(&relay(&source, &victim, 1, &frame)).await;
        frame[member] = json!("other");
        to_caller.say(&relay(&source, &victim, 1, &frame)).await;
    }
    to_caller.heard().await;
    assert!(refused(&caller, &counted) >= before + members.len() as u64, "{:?}", caller.metrics().refused);
    to_caller.say(&relay(&source, &victim, 1, &answer["frame"])).await;
    let outcome = call.outcome().await.unwrap();
    assert_eq!(
        (outcome.payload.into_value(), outcome.responder.to_string(), outcome.verified),
        (json!("mine"), victim, true)
    );
    assert_eq!((outcome.chunks, stage.runs()), (0, 1));
    caller.shutdown().await;
    drop((to_caller, to_victim, peer, tracker));
    stage.unharmed().await;
}

#[tokio::test]
async fn nobody_stops_or_hurries_anothers_task() {
    let stage = Stage::plain().await;
    let tracker = Tracker::new().await;
    let (mut to_victim, record) = tracker.connect(&stage.addr()).await;
    let (caller, mut to_caller) = tracker.caller(&[&record]).await;
    let call = caller.call("wait", json!(1)).to(stage.id()).via(tracker.id()).timeout(PATIENCE).start().await.unwrap();
    let sent = to_caller.until("the task", is_relay).await;
    let (source, victim, id) = (caller.id().to_string(), stage.id(), call.id().to_owned());
    to_victim.say(&relay(&victim, &source, 1, &sent["frame"])).await;
    eventually("it runs", || stage.runs() == 1).await;
    let mut third = Attacker::connect(&stage.addr()).await;
    for kind in ["cancel", "chunk_ack"] {
        for name in [&source, &tracker.id(), &third.id()] {
            let message = json!({"type": kind, "id": id, "caller": name, "next": 1000});
            for frame in [tracker.key.sign(message.clone()), third.key.sign(message.clone()), message] {
                for link in [&mut to_victim, &mut third] {
                    link.say(&frame).await;
                    link.say(&relay(&victim, &source, 1, &frame)).await;
                    let own = link.id();
                    link.say(&relay(&victim, &own, 1, &frame)).await;
                }
            }
        }
    }
    to_victim.heard().await;
    third.heard().await;
    assert_eq!(stage.stops(), 0, "somebody stopped it");
    stage.answers().await;
    // The caller may.
    call.cancel();
    let sent = to_caller.until("the cancel", is_relay).await;
    to_victim.say(&relay(&victim, &source, 1, &sent["frame"])).await;
    eventually("it is stopped", || stage.stops() == 1).await;
    assert_eq!(call.outcome().await.unwrap_err().code, ErrorCode::Cancelled);
    caller.shutdown().await;
    drop((to_caller, to_victim, third, tracker));
    stage.unharmed().await;
}

/// Who passes a task on knows its id. It asks the responder something of its own under the same id, and has an answer that
/// is truly the responder's.
#[tokio::test]
async fn an_answer_to_one_caller_is_none_for_another() {
    for sealing in [Sealing::Off, Sealing::Preferred] {
        let stage = Stage::plain().await;
        let tracker = Tracker::new().await;
        let (mut to_victim, record) = tracker.connect(&stage.addr()).await;
        let builder = Node::builder().sealing(sealing);
        let (caller, mut to_caller) = tracker.caller_of(builder, &[&record], &[]).await;
        let call = caller.call("work", json!("mine")).to(stage.id()).via(tracker.id()).timeout(PATIENCE);
        let call = call.start().await.unwrap();
        let sent = to_caller.until("the task", is_relay).await;
        let (source, victim, id) = (caller.id().to_string(), stage.id(), call.id().to_owned());
        assert_eq!(sent["frame"]["type"], if sealing == Sealing::Off { "task" } else { "sealed" });
        // A refusal, one of its signature, a sign of life, and an answer: each signed by the responder, for that id.
        let mut task = to_victim.task(&id);
        task["capability"] = json!("nothing");
        to_victim.sign_and_say(task.clone()).await;
        let refusal = to_victim.result(&id).await;
        assert_eq!((&refusal["error"]["ran"], &refusal["responder"]), (&json!(false), &json!(victim)));
        task["capability"] = json!("work");
        to_victim.say(&task).await;
        let unsigned = to_victim.result(&id).await;
        task["payload"] = json!("theirs");
        to_victim.sign_and_say(task).await;
        let answer = to_victim.result(&id).await;
        assert_eq!((&answer["payload"], stage.runs()), (&json!("theirs"), 1));
        let mut third = Attacker::connect(&stage.addr()).await;
        let mut task = third.task(&id);
        task["capability"] = json!("wait");
        third.sign_and_say(task).await;
        let accepted = third.until("a sign of life", |m| m["type"] == "accepted" && m["id"] == id).await;
        let frames = [refusal, unsigned, answer, accepted];
        for frame in &frames {
            to_caller.say(&relay(&source, &victim, 1, frame)).await;
        }
        to_caller.heard().await;
        assert_eq!(refused(&caller, &["anothers_answer"]), frames.len() as u64, "{:?}", caller.metrics().refused);
        assert_eq!(caller.metrics().calls_running, 1);
        to_victim.say(&relay(&victim, &source, 1, &sent["frame"])).await;
        let answer = to_victim.until("the answer", is_result).await;
        to_caller.say(&relay(&source, &victim, 1, &answer["frame"])).await;
        assert_eq!(call.outcome().await.unwrap().payload, json!("mine"));
        third.sign_and_say(json!({"type": "cancel", "id": id, "caller": third.id()})).await;
        caller.shutdown().await;
        drop((to_caller, to_victim, third, tracker));
        stage.unharmed().await;
    }
}
