//! A tracker that lies about what it did with a task, to have it done twice.

use std::time::Duration;

use elo::{CallError, Delivery, ErrorCode, Limits, Node, Outcome};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::attacker::{Attacker, PATIENCE, relay};
use crate::canon::Key;
use crate::stage::{Counter, Stage};
use crate::tasks::{Tracker, is_relay, is_result};

/// Two providers of one capability, and a caller that knows them through the attacker alone.
struct Scene {
    stage: Stage,
    tracker: Tracker,
    ran: Counter,
    providers: Vec<Provider>,
    caller: Node,
    link: Attacker,
}

struct Provider {
    key: Key,
    node: Node,
    link: Attacker,
}

fn provider(ran: &Counter, key: &Key) -> elo::Builder {
    ran.count(Node::builder().identity(key.identity()), "pay")
}

impl Scene {
    async fn set() -> Self {
        Self::set_with(Limits::default()).await
    }

    /// With these limits of the providers'.
    async fn set_with(limits: Limits) -> Self {
        let (stage, tracker, ran) = (Stage::plain().await, Tracker::new().await, Counter::default());
        let (mut providers, mut records) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let key = Key::fresh();
            let (node, link, record) = tracker.hidden(provider(&ran, &key).limits(limits.clone())).await;
            records.push(record);
            providers.push(Provider { key, node, link });
        }
        let (caller, link) = tracker.caller(&records.iter().collect::<Vec<_>>()).await;
        Self { stage, tracker, ran, providers, caller, link }
    }

    fn pay(&self, once: bool) -> JoinHandle<Result<Outcome, CallError>> {
        let call = self.caller.call("pay", json!(1)).timeout(PATIENCE);
        let call = if once { call.once() } else { call };
        tokio::spawn(async move { call.await })
    }

    /// The task that the caller gives the tracker: its frame, and the place of who is to have it.
    async fn given(&mut self) -> (Value, usize) {
        let given = self.link.until("a task", is_relay).await;
        let place = self.providers.iter().position(|p| p.key.id() == given["target"]).unwrap();
        (given["frame"].clone(), place)
    }

    /// The same, or nothing when the call ends before.
    async fn given_before_the_end<T>(&mut self, call: &JoinHandle<T>) -> Option<(Value, usize)> {
        let ended = async {
            while !call.is_finished() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            given = self.given() => Some(given),
            () = ended => None,
        }
    }

    /// Brings a task to a provider; its answer's frame.
    async fn bring(&mut self, frame: &Value, place: usize) -> Value {
        let (source, to) = (self.caller.id().to_string(), &mut self.providers[place]);
        to.link.say(&relay(&to.key.id(), &source, 1, frame)).await;
        to.link.until("the answer", is_result).await["frame"].clone()
    }

    /// Passes a provider's answer on to the caller.
    async fn answer(&mut self, frame: &Value, place: usize) {
        let source = self.caller.id().to_string();
        self.link.say(&relay(&source, &self.providers[place].key.id(), 1, frame)).await;
    }

    async fn claim(&mut self, code: &str, frame: &Value, place: usize) {
        let (source, target) = (self.caller.id().to_string(), self.providers[place].key.id());
        let claim = json!({
            "type": "relay_error", "target": target, "source": source, "id": frame["id"], "code": code, "message": "no"
        });
        self.link.say(&claim).await;
        self.link.heard().await;
    }

    async fn over(self) {
        let Self { stage, tracker, providers, caller, link, .. } = self;
        caller.shutdown().await;
        for provider in providers {
            provider.node.shutdown().await;
        }
        drop((link, tracker));
        stage.unharmed().await;
    }
}

/// It passed the task on, and says that it did not.
#[tokio::test]
async fn a_tracker_that_denies_what_it_passed_on_has_the_work_done_twice_unless_the_caller_forbids_it() {
    let mut scene = Scene::set().await;
    for code in ["NO_PEER", "OVERLOADED", "RATE_LIMITED", "NOT_ALLOWED", "BAD_REQUEST", "whatever"] {
        let before = scene.ran.now();
        let call = scene.pay(true);
        let (frame, first) = scene.given().await;
        let answer = scene.bring(&frame, first).await;
        scene.claim(code, &frame, first).await;
        assert!(!call.is_finished());
        scene.stage.answers().await;
        // Whatever else it is given is for the same node.
        scene.answer(&answer, first).await;
        let outcome = call.await.unwrap().unwrap();
        assert_eq!(outcome.responder.to_string(), scene.providers[first].key.id(), "{code}");
        assert_eq!(scene.ran.now(), before + 1, "{code}");
    }
    // It keeps the answer as well: the caller is told that nobody knows, and no other has done the work.
    let before = scene.ran.now();
    let call = scene.pay(true);
    let (frame, first) = scene.given().await;
    scene.bring(&frame, first).await;
    scene.claim("NO_PEER", &frame, first).await;
    while let Some((frame, place)) = scene.given_before_the_end(&call).await {
        assert_eq!(place, first, "another node was asked");
        scene.claim("NO_PEER", &frame, first).await;
    }
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Unconfirmed), "{error}");
    assert_eq!(scene.ran.now(), before + 1);
    // Without that the tracker is believed: this is what remains.
    let call = scene.pay(false);
    let (frame, first) = scene.given().await;
    scene.bring(&frame, first).await;
    scene.claim("NO_PEER", &frame, first).await;
    let (frame, second) = scene.given().await;
    let answer = scene.bring(&frame, second).await;
    scene.answer(&answer, second).await;
    assert_ne!(first, second);
    call.await.unwrap().unwrap();
    assert_eq!(scene.ran.now(), before + 3);
    scene.over().await;
}

/// It brings the task to one run of the node, and then to the next, which refuses it truthfully.
#[tokio::test]
async fn a_refusal_by_a_later_run_is_no_licence_for_a_caller_that_wants_it_once() {
    for once in [true, false] {
        let mut scene = Scene::set().await;
        // The later runs are there already: the caller has not heard of them.
        let mut later = Vec::new();
        for earlier in &scene.providers {
            let (node, link, _) = scene.tracker.hidden(provider(&scene.ran, &earlier.key)).await;
            later.push(Provider { key: earlier.key.clone(), node, link });
        }
        let call = scene.pay(once);
        let (frame, first) = scene.given().await;
        scene.bring(&frame, first).await;
        let earlier = std::mem::replace(&mut scene.providers, later);
        let refusal = scene.bring(&frame, first).await;
        scene.answer(&refusal, first).await;
        if once {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Unconfirmed), "{error}");
            assert_eq!(scene.ran.now(), 1);
        } else {
            let (frame, place) = scene.given().await;
            let answer = scene.bring(&frame, place).await;
            scene.answer(&answer, place).await;
            call.await.unwrap().unwrap();
            assert_eq!(scene.ran.now(), 2, "what remains");
        }
        for provider in earlier {
            provider.node.shutdown().await;
        }
        scene.over().await;
    }
}

/// The node refuses the task truly, and would run it later. The tracker brings it once more, then.
#[tokio::test]
async fn a_refusal_is_no_licence_while_the_tracker_can_bring_the_task_again() {
    let mut scene = Scene::set().await;
    let deny = |scene: &Scene, place: usize| {
        let access = elo::Access::public().deny(scene.caller.id());
        scene.providers[place].node.set_access(access).unwrap();
    };
    for once in [true, false] {
        let before = scene.ran.now();
        let call = scene.pay(once);
        let (frame, first) = scene.given().await;
        deny(&scene, first);
        let refusal = scene.bring(&frame, first).await;
        assert_eq!(scene.ran.now(), before);
        scene.providers[first].node.set_access(elo::Access::public()).unwrap();
        scene.answer(&refusal, first).await;
        if once {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Unconfirmed), "{error}");
            scene.bring(&frame, first).await;
            assert_eq!(scene.ran.now(), before + 1);
        } else {
            let (second_frame, second) = scene.given().await;
            assert_ne!(first, second);
            scene.bring(&frame, first).await;
            let answer = scene.bring(&second_frame, second).await;
            scene.answer(&answer, second).await;
            call.await.unwrap().unwrap();
            assert_eq!(scene.ran.now(), before + 2, "what remains");
        }
    }
    scene.over().await;
}

/// It asks the node for something else under the same id, and brings that refusal to the caller.
#[tokio::test]
async fn a_refusal_of_a_task_of_the_trackers_own_is_none_of_the_callers() {
    let mut scene = Scene::set().await;
    for once in [true, false] {
        let before = scene.ran.now();
        let call = scene.pay(once);
        let (frame, first) = scene.given().await;
        let answer = scene.bring(&frame, first).await;
        let (id, link) = (frame["id"].as_str().unwrap().to_owned(), &mut scene.providers[first].link);
        let mut task = link.task(&id);
        task["capability"] = json!("nothing");
        link.sign_and_say(task).await;
        let refusal = link.result(&id).await;
        assert_eq!(refusal["error"]["ran"], false);
        scene.answer(&refusal, first).await;
        scene.link.heard().await;
        assert_eq!(scene.caller.metrics().refused["anothers_answer"], if once { 1 } else { 2 });
        scene.answer(&answer, first).await;
        assert_eq!(call.await.unwrap().unwrap().responder.to_string(), scene.providers[first].key.id());
        assert_eq!(scene.ran.now(), before + 1);
    }
    scene.over().await;
}

/// The caller's record is an old one: the node has another key for what is sealed, and says so. It is the same run, which knows
/// what it ran; so it is asked again, and nobody else, whether the task is to run once or not.
#[tokio::test]
async fn a_refusal_for_an_old_seal_key_leads_to_the_same_run_and_to_nobody_else() {
    let mut scene = Scene::set_with(Limits::default().with(|l| l.seal_key_lifetime = Duration::from_millis(500))).await;
    for provider in &mut scene.providers {
        for _ in 0..elo::limits::MAX_SEAL_KEYS + 2 {
            provider.link.until("another key", |m| m["type"] == "announce").await;
        }
    }
    for once in [true, false] {
        let before = scene.ran.now();
        let call = scene.pay(once);
        let (mut frame, first) = scene.given().await;
        let mut answer = scene.bring(&frame, first).await;
        assert_eq!((&answer["error"]["code"], &answer["error"]["ran"]), (&json!("PEER_GONE"), &json!(false)));
        while answer["type"] == "result" {
            // Brought twice: the second says nothing new.
            scene.answer(&answer, first).await;
            scene.answer(&answer, first).await;
            let key = frame["enc"].clone();
            while frame["enc"] == key {
                let (copy, place) = scene.given().await;
                assert_eq!(place, first, "another node was asked");
                frame = copy;
            }
            assert_eq!(frame["type"], "sealed");
            answer = scene.bring(&frame, first).await;
        }
        scene.answer(&answer, first).await;
        let outcome = call.await.unwrap().unwrap();
        assert_eq!((outcome.responder.to_string(), outcome.sealed), (scene.providers[first].key.id(), true));
        assert_eq!(scene.ran.now(), before + 1);
    }
    scene.over().await;
}
