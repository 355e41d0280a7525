//! The desk, with a real node whose own calls go over it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Desk, Leased, MAX_WAIT, Offer, Wanted};
use crate::agent::reach::{By, Reaches};
use crate::error::{CallError, Delivery, ErrorCode};
use crate::node::{Node, Outcome, Payload, TaskError};
use crate::service::{Current, Fault};

struct Stage {
    node: Node,
    desk: Arc<Desk>,
    reaches: Arc<Reaches>,
}

impl Stage {
    async fn new() -> Self {
        let node = Node::builder().no_listen().start().await.unwrap();
        let reaches: Arc<Reaches> = Arc::default();
        let desk = Arc::new(Desk::new(Current::new(node.clone()), Arc::clone(&reaches)));
        Self { node, desk, reaches }
    }

    async fn offering(names: &[&str]) -> Self {
        let stage = Self::new().await;
        stage.desk.offer(&names.iter().map(|name| offer(name)).collect::<Vec<_>>()).unwrap();
        stage
    }

    /// A call that runs on its own.
    fn call(&self, capability: &str, payload: Value, timeout: Duration, wait: Duration) -> Calling {
        let call = self.node.call(capability, payload).timeout(timeout).wait(wait).allow_local();
        tokio::spawn(async move { call.await })
    }

    async fn next(&self, wait: Duration, lease: Duration) -> Option<Leased> {
        self.desk.next(Wanted { wait, lease, ..Wanted::default() }).await.unwrap()
    }

    /// Until as many tasks wait, and are with agents.
    async fn until(&self, waiting: usize, leased: usize) {
        let counts = || (self.desk.counts().0, self.desk.counts().1);
        tokio::time::timeout(Duration::from_secs(20), async {
            while counts() != (waiting, leased) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{:?} instead of {:?}", counts(), (waiting, leased)));
    }
}

type Calling = tokio::task::JoinHandle<Result<Outcome, CallError>>;

const LONG: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

fn offer(name: &str) -> Offer {
    serde_json::from_value(json!({ "name": name })).unwrap()
}

fn answer(value: Value) -> Result<Payload, TaskError> {
    Ok(value.into())
}

#[tokio::test]
async fn a_task_goes_to_who_waits_and_its_answer_back() {
    let stage = Stage::offering(&["sum"]).await;
    let waiting = tokio::spawn({
        let desk = Arc::clone(&stage.desk);
        async move { desk.next(Wanted { wait: LONG, ..Wanted::default() }).await }
    });
    let payload = r#"{"n":18446744073709551617,"f":1.10}"#;
    let call = stage.node.call_json("sum", payload).timeout(MINUTE).allow_local();
    let call = tokio::spawn(async move { call.await });
    let leased = waiting.await.unwrap().unwrap().unwrap();
    assert_eq!((leased.capability.as_str(), leased.attempt, leased.caller), ("sum", 1, stage.node.id()));
    assert!(leased.payload.get().contains("18446744073709551617"), "{}", leased.payload);
    assert!(leased.remaining_ms <= 60_000 && leased.remaining_ms > 30_000, "{}", leased.remaining_ms);
    stage.desk.reply(&leased.task_id, answer(json!({ "sum": 3 }))).unwrap();
    assert_eq!(call.await.unwrap().unwrap().payload, json!({ "sum": 3 }));
    // Answered is answered.
    let again = stage.desk.reply(&leased.task_id, answer(json!(4))).unwrap_err();
    assert_eq!(again.code, "GONE");
    assert_eq!(stage.desk.counts(), (0, 0, 0));
}

#[tokio::test]
async fn an_error_of_the_agent_reaches_the_caller_with_its_code() {
    let stage = Stage::offering(&["sum"]).await;
    let call = stage.call("sum", json!(1), MINUTE, Duration::ZERO);
    let leased = stage.next(LONG, MINUTE).await.unwrap();
    let error = TaskError::with_code(ErrorCode::BadRequest, "a number is not enough");
    stage.desk.reply(&leased.task_id, Err(error)).unwrap();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::BadRequest, "a number is not enough"));
}

#[tokio::test]
async fn a_task_that_is_not_answered_within_its_lease_is_offered_again() {
    let stage = Stage::offering(&["sum"]).await;
    let call = stage.call("sum", json!(1), MINUTE, Duration::ZERO);
    let first = stage.next(LONG, Duration::from_secs(1)).await.unwrap();
    let second = stage.next(LONG, MINUTE).await.unwrap();
    assert_eq!((second.task_id.as_str(), second.attempt), (first.task_id.as_str(), 2));
    // Whoever was slow may still answer first; then the other one is told.
    stage.desk.reply(&first.task_id, answer(json!("slow"))).unwrap();
    assert_eq!(stage.desk.reply(&second.task_id, answer(json!("late"))).unwrap_err().code, "GONE");
    assert_eq!(call.await.unwrap().unwrap().payload, json!("slow"));
}

#[tokio::test]
async fn a_sign_of_life_keeps_the_lease_and_its_parts_reach_the_caller() {
    let stage = Stage::offering(&["sum"]).await;
    let call = stage.node.call("sum", json!(1)).timeout(MINUTE).allow_local();
    let mut call = call.start().await.unwrap();
    let leased = stage.next(LONG, Duration::from_secs(1)).await.unwrap();
    for n in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let told = stage.desk.progress(&leased.task_id, Some(json!({ "part": n }).into())).await.unwrap();
        assert_eq!(told.lease_ms, 1000);
    }
    // After 1.6 s of a lease of 1 s it is nobody else's.
    assert!(stage.next(Duration::ZERO, MINUTE).await.is_none());
    for n in 0..4 {
        assert_eq!(call.next_chunk().await, Some(json!({ "part": n })));
    }
    stage.desk.reply(&leased.task_id, answer(json!("done"))).unwrap();
    let outcome = call.outcome().await.unwrap();
    assert_eq!((outcome.payload.value(), outcome.chunks), (&json!("done"), 4));
    assert_eq!(stage.desk.progress(&leased.task_id, None).await.unwrap_err().code, "GONE");
}

#[tokio::test]
async fn nobody_is_there_and_the_caller_hears_so_at_once_unless_it_waits() {
    let stage = Stage::new().await;
    stage.desk.expect(&[offer("sum")]).unwrap();
    assert_eq!(stage.reaches.of("sum").unwrap().by, By::Nobody);
    let error = stage.call("sum", json!(1), MINUTE, Duration::ZERO).await.unwrap().unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::AgentAway, Delivery::Answered));
    assert!(error.message.contains("has not come yet") && error.message.contains("--wait"), "{error}");

    let waits = stage.call("sum", json!(2), MINUTE, LONG);
    stage.until(1, 0).await;
    let leased = stage.next(Duration::ZERO, MINUTE).await.unwrap();
    assert_eq!(stage.reaches.of("sum").unwrap().by, By::Poll, "who comes is there");
    stage.desk.reply(&leased.task_id, answer(json!(2))).unwrap();
    assert_eq!(waits.await.unwrap().unwrap().payload, json!(2));

    // It was here a moment ago, so it is expected back.
    let soon = stage.call("sum", json!(3), MINUTE, Duration::ZERO);
    let leased = stage.next(LONG, MINUTE).await.unwrap();
    stage.desk.reply(&leased.task_id, answer(json!(3))).unwrap();
    assert_eq!(soon.await.unwrap().unwrap().payload, json!(3));
}

#[tokio::test]
async fn who_hangs_up_while_it_waits_is_away_soon() {
    let stage = Stage::offering(&["sum"]).await;
    let waits = || {
        let desk = Arc::clone(&stage.desk);
        tokio::spawn(async move { desk.next(Wanted { wait: LONG, ..Wanted::default() }).await })
    };
    let (first, second) = (waits(), waits());
    while stage.desk.counts().2 < 2 {
        tokio::task::yield_now().await;
    }
    // Another one is there still.
    first.abort();
    drop(first.await);
    let call = stage.call("sum", json!(1), MINUTE, Duration::ZERO);
    let leased = second.await.unwrap().unwrap().unwrap();
    stage.desk.reply(&leased.task_id, answer(json!(1))).unwrap();
    call.await.unwrap().unwrap();
    // Now there is nobody, and a task that came a moment before does not wait for half a minute.
    let last = waits();
    while stage.desk.counts().2 < 1 {
        tokio::task::yield_now().await;
    }
    last.abort();
    drop(last.await);
    let soon = std::time::Instant::now() + super::LEFT_AFTER;
    assert!(!stage.desk.inner().is_there("sum", soon), "it is not expected back for as long as others are");
    let error = stage.call("sum", json!(2), MINUTE, Duration::ZERO).await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::AgentAway, "{error}");
    stage.desk.look_around();
    assert_eq!(stage.reaches.of("sum").unwrap().by, By::Nobody);
}

#[tokio::test]
async fn a_wait_that_is_over_ends_with_agent_away() {
    let stage = Stage::new().await;
    stage.desk.expect(&[offer("sum")]).unwrap();
    let error = stage.call("sum", json!(1), MINUTE, Duration::from_secs(1)).await.unwrap().unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::AgentAway, Delivery::Answered));
    assert_eq!(stage.desk.counts(), (0, 0, 0));
}

#[tokio::test]
async fn at_its_deadline_a_task_ends_with_what_is_known_of_it() {
    let stage = Stage::offering(&["sum"]).await;
    let taken = stage.call("sum", json!(1), Duration::from_secs(2), Duration::ZERO);
    let leased = stage.next(LONG, MINUTE).await.unwrap();
    let error = taken.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout);
    assert!(error.message.contains("an agent took it"), "{error}");
    assert_eq!(stage.desk.reply(&leased.task_id, answer(json!(1))).unwrap_err().code, "GONE");
    // Somebody was here a moment ago, but comes for nothing more.
    let error = stage.call("sum", json!(1), Duration::from_secs(1), Duration::ZERO).await.unwrap().unwrap_err();
    assert!(error.message.contains("no agent came for it"), "{error}");
    assert_eq!(stage.desk.counts(), (0, 0, 0));
}

#[tokio::test]
async fn who_stops_waiting_loses_no_task() {
    let stage = Stage::offering(&["sum"]).await;
    for n in 0..50 {
        // One that is dropped around the moment in which a task comes.
        let desk = Arc::clone(&stage.desk);
        let dropped = tokio::spawn(async move { desk.next(Wanted { wait: LONG, ..Wanted::default() }).await });
        tokio::task::yield_now().await;
        let call = stage.call("sum", json!(n), MINUTE, Duration::ZERO);
        if n % 2 == 0 {
            tokio::task::yield_now().await;
        }
        dropped.abort();
        let leased = match dropped.await {
            Ok(leased) => leased.unwrap().unwrap(),
            Err(_) => stage.next(LONG, MINUTE).await.unwrap(),
        };
        assert_eq!(leased.attempt, 1, "it was never had");
        stage.desk.reply(&leased.task_id, answer(json!(n))).unwrap();
        assert_eq!(call.await.unwrap().unwrap().payload, json!(n));
    }
}

#[tokio::test]
async fn a_thousand_wait_and_each_task_goes_to_one_of_them_in_their_order() {
    let stage = Stage::offering(&["sum", "other"]).await;
    let waiting: Vec<_> = (0..1000)
        .map(|_| {
            let desk = Arc::clone(&stage.desk);
            let wanted = Wanted { capabilities: vec!["sum".into()], wait: MAX_WAIT, lease: MINUTE };
            tokio::spawn(async move { desk.next(wanted).await })
        })
        .collect();
    while stage.desk.counts().2 < 1000 {
        tokio::task::yield_now().await;
    }
    let calls: Vec<_> = (0..100).map(|n| stage.call("sum", json!(n), MINUTE, Duration::ZERO)).collect();
    let mut waiting = waiting.into_iter();
    let mut seen = std::collections::BTreeSet::new();
    for waiter in waiting.by_ref().take(100) {
        let leased = waiter.await.unwrap().unwrap().unwrap();
        assert!(seen.insert(leased.task_id.clone()), "two have the same task");
        let n: Value = serde_json::from_str(leased.payload.get()).unwrap();
        stage.desk.reply(&leased.task_id, answer(n)).unwrap();
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(call.await.unwrap().unwrap().payload, json!(n));
    }
    assert_eq!(stage.desk.counts(), (0, 0, 900));
    // What is withdrawn is waited for by nobody.
    assert!(stage.desk.withdraw("sum").unwrap());
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap().unwrap_err().code, "GONE");
    }
    assert_eq!(stage.desk.counts(), (0, 0, 0));
    let error = stage.call("sum", json!(1), MINUTE, Duration::ZERO).await.unwrap().unwrap_err();
    assert!(matches!(error.code, ErrorCode::NoPeer | ErrorCode::UnknownCapability), "{error}");
}

#[tokio::test]
async fn what_makes_no_sense_is_said_so() {
    let stage = Stage::new().await;
    let code = |fault: Fault| fault.code;
    assert_eq!(code(stage.desk.next(Wanted::default()).await.unwrap_err()), "NOT_FOUND");
    assert_eq!(code(stage.desk.reply("t_nothing", answer(json!(1))).unwrap_err()), "GONE");
    assert_eq!(code(stage.desk.progress("", None).await.unwrap_err()), "GONE");
    assert_eq!(code(stage.desk.offer(&[offer("")]).unwrap_err()), "BAD_REQUEST");
    assert_eq!(code(stage.desk.offer(&[offer(&"x".repeat(200))]).unwrap_err()), "BAD_REQUEST");
    assert!(!stage.desk.withdraw("sum").unwrap());
    assert!(stage.desk.offers().is_empty(), "what failed is not offered");
    stage.node.register(crate::wire::Capability::tool("taken")).unwrap();
    assert_eq!(code(stage.desk.offer(&[offer("taken")]).unwrap_err()), "CONFLICT");
    stage.desk.offer(&[offer("sum")]).unwrap();
    let other = Wanted { capabilities: vec!["other".into()], ..Wanted::default() };
    assert_eq!(code(stage.desk.next(other).await.unwrap_err()), "NOT_FOUND");
    stage.node.shutdown().await;
    assert_eq!(code(stage.desk.offer(&[offer("sum")]).unwrap_err()), "STOPPED");
}

#[tokio::test]
async fn a_task_whose_caller_left_is_nobodys() {
    let stage = Stage::offering(&["sum"]).await;
    let call = stage.node.call("sum", json!(1)).timeout(MINUTE).allow_local().start().await.unwrap();
    let leased = stage.next(LONG, MINUTE).await.unwrap();
    drop(call);
    stage.until(0, 0).await;
    assert_eq!(stage.desk.progress(&leased.task_id, None).await.unwrap_err().code, "GONE");
}
