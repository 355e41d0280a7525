//! Answers that come later, and bounds, with a real node and a real server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::receiver::{Act, Receiver, Request};
use super::{Hold, Later, Poster, Secrets, Webhook};
use crate::agent::reach::{By, Reaches};
use crate::error::{CallError, Delivery, ErrorCode};
use crate::node::{Call, Node, Outcome, TaskError};
use crate::service::{Current, Service};

const MINUTE: Duration = Duration::from_secs(60);

struct Stage {
    node: Node,
    service: Arc<Service>,
    reaches: Arc<Reaches>,
}

impl Stage {
    async fn new(url: &str, with_api: bool) -> Self {
        let (reaches, later): (Arc<Reaches>, Arc<Later>) = Default::default();
        let poster = Poster::new(url, Secrets::default()).unwrap();
        let hook = Arc::new(Webhook::new(poster, Arc::clone(&reaches), Arc::clone(&later)));
        let node = Node::builder().no_listen().agent("sum").default_handler(move |task, context| {
            let hook = Arc::clone(&hook);
            async move { hook.run(task, context).await }
        });
        let node = node.limits(crate::Limits::default().with(|l| l.max_tasks_per_caller = 1024)).start().await.unwrap();
        let service = Service::new(Current::new(node.clone()), Arc::clone(&reaches));
        if with_api {
            let desk = Arc::clone(service.desk());
            let hold: Hold = Arc::new(move |task, context, id| {
                let desk = Arc::clone(&desk);
                Box::pin(async move { desk.hold(&task, &context, &id).await })
            });
            later.at("http://127.0.0.1:7880/", hold);
        }
        Self { node, service, reaches }
    }

    fn call(&self, timeout: Duration) -> Call {
        self.node.call("sum", json!([1])).timeout(timeout).allow_local()
    }

    fn calling(&self, timeout: Duration) -> tokio::task::JoinHandle<Result<Outcome, CallError>> {
        let call = self.call(timeout);
        tokio::spawn(async move { call.await })
    }
}

/// Waits for requests without holding up what is to make them.
async fn requests(receiver: &Arc<Receiver>, least: usize) -> Vec<Request> {
    let receiver = Arc::clone(receiver);
    tokio::task::spawn_blocking(move || receiver.requests(least)).await.unwrap()
}

fn acting(acts: Vec<Act>) -> Arc<Receiver> {
    Arc::new(Receiver::acting(acts))
}

#[tokio::test]
async fn an_answer_that_comes_later_is_the_result() {
    let receiver = acting(vec![Act::text(202, "in a while")]);
    let stage = Stage::new(&receiver.url(), true).await;
    let mut call = stage.call(MINUTE).start().await.unwrap();
    let request = &requests(&receiver, 1).await[0];
    let id = request.id();
    assert_eq!(request.json()["data"]["reply_url"], format!("http://127.0.0.1:7880/v1/tasks/{id}/reply"));
    // Parts of it first; they are no reason to give the task to anybody else.
    let told = stage.service.desk().progress(&id, Some(json!("half").into())).await.unwrap();
    assert!(told.remaining_ms <= 60_000 && told.lease_ms <= 60_000, "{told:?}");
    assert_eq!(call.next_chunk().await, Some(json!("half")));
    assert_eq!(stage.service.desk().counts(), (0, 1, 0));
    stage.service.desk().reply(&id, Ok(json!({ "sum": 1 }).into())).unwrap();
    assert_eq!(call.outcome().await.unwrap().payload, json!({ "sum": 1 }));
    assert_eq!(stage.service.desk().reply(&id, Ok(json!(2).into())).unwrap_err().code, "GONE");
    assert_eq!(stage.service.desk().counts(), (0, 0, 0));
    assert_eq!(stage.reaches.of("sum").unwrap().by, By::Webhook, "it is no agent that comes for its tasks");
}

#[tokio::test]
async fn an_answer_may_overtake_the_response_that_announces_it() {
    let receiver = acting(vec![Act::Hang]);
    let stage = Stage::new(&receiver.url(), true).await;
    let call = stage.calling(MINUTE);
    let id = requests(&receiver, 1).await[0].id();
    let error = TaskError::with_code(ErrorCode::BadRequest, "two numbers are needed");
    stage.service.desk().reply(&id, Err(error)).unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code, ErrorCode::BadRequest);
    tokio::task::spawn_blocking(move || receiver.left(1)).await.unwrap();
}

#[tokio::test]
async fn an_answer_that_never_comes_is_told_at_the_deadline() {
    let receiver = acting(vec![Act::status(202)]);
    let stage = Stage::new(&receiver.url(), true).await;
    let error = stage.call(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Timeout);
    assert!(error.message.contains("202") && error.message.contains("did not in its time"), "{error}");
    let id = receiver.so_far()[0].id();
    assert_eq!(stage.service.desk().reply(&id, Ok(Value::Null.into())).unwrap_err().code, "GONE");
    assert_eq!(stage.service.desk().counts(), (0, 0, 0));
    // A caller that leaves ends it as well.
    let call = stage.call(MINUTE).start().await.unwrap();
    let id = requests(&receiver, 2).await[1].id();
    drop(call);
    tokio::time::timeout(MINUTE, async {
        while stage.service.desk().progress(&id, None).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_an_api_to_answer_to_later_is_never() {
    let receiver = acting(vec![Act::status(202)]);
    let stage = Stage::new(&receiver.url(), false).await;
    let error = stage.call(MINUTE).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::HandlerError);
    assert!(error.message.contains("--http"), "{error}");
    assert!(receiver.so_far()[0].json()["data"].get("reply_url").is_none());
}

#[tokio::test]
async fn who_waits_for_an_agent_that_is_away_is_served_when_it_is_back() {
    let addr = Receiver::acting(vec![Act::Close]).addr;
    let stage = Stage::new(&format!("http://{addr}/"), true).await;
    let call = stage.call(MINUTE).wait(MINUTE);
    let call = tokio::spawn(async move { call.await });
    tokio::time::timeout(MINUTE, async {
        while stage.reaches.of("sum").is_none_or(|reach| reach.ok != Some(false)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let receiver = Receiver::at(addr, None, |_, _| Act::json(&json!(1)));
    assert_eq!(call.await.unwrap().unwrap().payload, json!(1));
    assert_eq!(stage.reaches.of("sum").unwrap().ok, Some(true));
    assert!(receiver.so_far()[0].json()["data"]["attempt"].as_u64().unwrap() > 1);
    drop(receiver);
    // A wait that is over ends so, long before the deadline.
    let error = stage.call(MINUTE * 10).wait(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::AgentAway, Delivery::Answered));
    assert!(error.message.contains("refused") && !error.message.contains("--wait"), "{error}");
    // It has been away for longer than a restart takes by now, or soon: then it is tried once.
    loop {
        let error = stage.call(MINUTE * 10).await.unwrap_err();
        assert!(error.code == ErrorCode::AgentAway && error.message.contains("--wait"), "{error}");
        if error.message.contains("(1 attempt)") {
            break;
        }
    }
}

#[tokio::test]
async fn more_than_may_be_with_the_agent_wait_and_more_than_may_wait_are_refused() {
    let receiver = acting(vec![Act::Hang]);
    let stage = Stage::new(&receiver.url(), false).await;
    let calls: Vec<_> = (0..64 + 256).map(|_| stage.calling(MINUTE)).collect();
    requests(&receiver, 64).await;
    // Those behind them are in line once the node has all of them.
    tokio::time::timeout(MINUTE, async {
        while stage.node.metrics().tasks_running < 320 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let error = loop {
        // The last of them may still be on its way there; then this one has its place.
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(500), stage.call(MINUTE)).await {
            break outcome.unwrap_err();
        }
    };
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert!(error.retry_after.is_some() && error.message.contains("256 wait"), "{error}");
    assert_eq!(receiver.so_far().len(), 64, "no more than 64 at once");
    for call in calls {
        call.abort();
    }
    tokio::task::spawn_blocking(move || receiver.left(64)).await.unwrap();
}

#[test]
fn pauses_grow_and_have_an_end() {
    for attempts in [0, 1, 2, 5, 20, u32::MAX] {
        let pause = super::attempts::jittered(attempts);
        assert!(pause >= Duration::from_millis(50) && pause <= Duration::from_secs(5), "{attempts}: {pause:?}");
    }
}
