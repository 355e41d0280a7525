//! Calls and events that are kept, and wakes, between two real nodes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{CallState, Current, Cursor, Service, StartCall};
use crate::agent::reach::{By, Reaches};
use crate::node::{Context, Node, Task, TaskResult};

const LONG: Duration = Duration::from_secs(30);

struct Stage {
    far: Node,
    near: Node,
    service: Arc<Service>,
}

impl Stage {
    async fn new() -> Self {
        let far = Node::builder()
            .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .name("far")
            .agent("count")
            .handler("count", |task: Task, context: Context| async move { count(task, context).await })
            .agent("stuck")
            .handler("stuck", |_, context: Context| async move {
                context.cancelled().await;
                TaskResult::Ok(Value::Null)
            })
            .start()
            .await
            .unwrap();
        let near = Node::builder().no_listen().peer(far.listen_addrs()[0].to_string()).start().await.unwrap();
        assert!(near.connected(LONG).await);
        let service = Service::new(Current::new(near.clone()), Arc::default());
        Self { far, near, service }
    }

    fn ask(capability: &str, payload: &str) -> StartCall {
        StartCall {
            capability: capability.to_owned(),
            payload: RawValue::from_string(payload.to_owned()).unwrap(),
            to: None,
            via: None,
            once: false,
            local: false,
            timeout: Duration::from_secs(60),
            wait: Duration::ZERO,
        }
    }
}

/// As many parts as it is asked for, then the payload.
async fn count(task: Task, context: Context) -> TaskResult {
    for n in 0..task.payload["parts"].as_u64().unwrap_or_default() {
        context.chunk(json!(n)).await?;
    }
    Ok(json!("done"))
}

#[tokio::test]
async fn a_call_goes_on_while_its_caller_is_elsewhere() {
    let stage = Stage::new().await;
    let calls = stage.service.calls();
    let id = calls.start(&stage.near, Stage::ask("count", r#"{"parts":3}"#)).await.unwrap();
    let done = calls.end_of(&id, LONG).await.unwrap();
    assert_eq!((done.state, done.next, done.lost, done.capability.as_str()), (CallState::Done, 3, 0, "count"));
    let outcome: Value = serde_json::from_str(done.outcome.unwrap().get()).unwrap();
    assert_eq!(outcome["payload"], json!("done"));
    assert_eq!(outcome["responder"], json!(stage.far.id()));
    // Whoever read the first part asks for those after it.
    let rest = calls.check(&id, 1, Duration::ZERO).await.unwrap();
    let texts: Vec<&str> = rest.chunks.iter().map(|chunk| chunk.get()).collect();
    assert_eq!(texts, ["1", "2"]);
    assert_eq!(calls.counts(), (0, 1));
    assert_eq!(calls.check("no-such-call", 0, Duration::ZERO).await.unwrap_err().code, "NOT_FOUND");
}

#[tokio::test]
async fn parts_that_nobody_reads_make_room_and_are_counted() {
    let stage = Stage::new().await;
    let calls = stage.service.calls();
    let id = calls.start(&stage.near, Stage::ask("count", r#"{"parts":1500}"#)).await.unwrap();
    let done = calls.end_of(&id, LONG).await.unwrap();
    assert_eq!((done.state, done.next, done.lost, done.chunks.len()), (CallState::Done, 1500, 476, 1024));
    assert_eq!(done.chunks[0].get(), "476");
}

#[tokio::test]
async fn a_call_can_be_taken_back_and_its_end_says_so() {
    let stage = Stage::new().await;
    let calls = stage.service.calls();
    let id = calls.start(&stage.near, Stage::ask("stuck", "null")).await.unwrap();
    while calls.check(&id, 0, Duration::ZERO).await.unwrap().state != CallState::Accepted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = calls.cancel(&id).await.unwrap();
    assert_eq!((ended.state, ended.error.unwrap().code.as_str()), (CallState::Failed, "CANCELLED"));
    // The other side hears of it.
    while stage.far.metrics().tasks_running > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let id = calls.start(&stage.near, Stage::ask("nobody-has-this", "null")).await.unwrap();
    let failed = calls.end_of(&id, LONG).await.unwrap();
    let error = failed.error.unwrap();
    assert_eq!((failed.state, error.code.as_str()), (CallState::Failed, "NO_PEER"));
    assert_eq!(error.call.unwrap()["delivery"], json!("not_sent"));
}

#[tokio::test]
async fn events_are_kept_for_who_comes_back() {
    let stage = Stage::new().await;
    let feeds = stage.service.feeds();
    let start = feeds.open("work.*").unwrap();
    let heard = || stage.far.peers().iter().any(|peer| peer.node_id == stage.near.id());
    while !heard() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The interest may still be on its way.
    let publish = |n: u64| stage.far.publish("work.done", json!({ "n": n })).unwrap();
    let first = loop {
        publish(0);
        let batch = feeds.next("work.*", Some(start), Duration::from_millis(100)).await.unwrap();
        if !batch.events.is_empty() {
            break batch;
        }
    };
    publish(1);
    publish(2);
    let mut seen = Vec::new();
    let mut place = first.next;
    while seen.len() < 2 {
        let batch = feeds.next("work.*", Some(place), LONG).await.unwrap();
        assert_eq!((batch.lost, batch.restarted), (0, false));
        seen.extend(batch.events.iter().filter_map(|kept| kept.event.data["n"].as_u64()).filter(|n| *n > 0));
        place = batch.next;
    }
    assert_eq!(seen, [1, 2]);
    // The same place gives the same events again, and its text is read as it was written.
    let again = feeds.next("work.*", Some(first.next.to_string().parse().unwrap()), Duration::ZERO).await.unwrap();
    assert_eq!(again.events.len(), seen.len());
    // Of another run of the feed it is not known what was lost.
    let other: Cursor = "1-7".parse().unwrap();
    assert!(feeds.next("work.*", Some(other), Duration::ZERO).await.unwrap().restarted);
    for wrong in ["", "7", "x-1", "1-x", "-"] {
        assert_eq!(wrong.parse::<Cursor>().unwrap_err().code, "BAD_REQUEST", "{wrong:?}");
    }
    assert_eq!(feeds.next("", None, Duration::ZERO).await.unwrap_err().code, "BAD_REQUEST");
    assert_eq!(feeds.count(), 1);
    assert!(feeds.recent(10).len() >= 3);
}

#[tokio::test]
async fn a_wake_goes_all_the_way_and_says_how_the_agent_is_reached() {
    let stage = Stage::new().await;
    let far = stage.far.id().to_string();
    let woken = stage.service.wake(&far, "count", LONG).await.unwrap();
    assert_eq!((woken.answer.reach.by, woken.answer.reach.ok), (By::Process, Some(true)));
    assert_eq!(woken.outcome.responder, stage.far.id());
    let unknown = stage.service.wake(&far, "nothing", LONG).await.unwrap_err();
    assert_eq!(unknown.code, "UNKNOWN_CAPABILITY");

    // A node with agents of its own knows more.
    let reaches: Arc<Reaches> = Arc::default();
    let probe_fails: crate::agent::reach::Probe = Arc::new(|| Box::pin(async { Err("connection refused".to_owned()) }));
    reaches.observed("count", By::Webhook, None, "");
    reaches.probe_with("count", probe_fails);
    let _service = Service::new(Current::new(stage.far.clone()), reaches);
    let woken = stage.service.wake(&far, "count", LONG).await.unwrap();
    let reach = woken.answer.reach;
    assert_eq!((reach.by, reach.ok, reach.note.as_str()), (By::Webhook, Some(false), "connection refused"));
    // And tells it to everybody, without the reason.
    let told = || {
        let infos = stage.near.peers().into_iter().flat_map(|peer| peer.capabilities);
        infos.filter(|cap| cap.name == "count").find_map(|cap| cap.details.get("reach").cloned())
    };
    let reach = loop {
        match told() {
            Some(reach) if reach["ok"] == json!(false) => break reach,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!((reach["by"].as_str(), reach.get("note")), (Some("webhook"), None));
}
