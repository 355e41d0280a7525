//! Everything that can be said of a task, sealed, over one tracker and over two.

use std::time::Duration;

use elo::{Builder, Context, ErrorCode, Limits, Node, Route, Sealing, Task, TaskError, Tracker};
use serde_json::{Value, json};

use crate::mesh::{addr_of, eventually, meets, node};

fn alone() -> Limits {
    Limits::default().with(|l| l.max_trackers = 0)
}

/// A node that can't be dialled, and takes and sends nothing open.
fn hidden(name: &str, tracker: &Node) -> Builder {
    Node::builder().name(name).no_listen().peer(addr_of(tracker)).limits(alone()).sealing(Sealing::Required)
}

async fn tracker(name: &str, other: Option<&Node>) -> Node {
    let mut builder = node(name).tracker(Tracker::Public).limits(alone()).sealing(Sealing::Off);
    if let Some(other) = other {
        builder = builder.peer(addr_of(other));
    }
    let tracker = builder.start().await.unwrap();
    if let Some(other) = other {
        meets(&tracker, &[other]).await;
    }
    tracker
}

fn provider(name: &str, tracker: &Node) -> Builder {
    hidden(name, tracker)
        .agent("echo")
        .handler("echo", |task: Task, _| async move { Ok(task.payload) })
        .agent("stream")
        .handler("stream", |task: Task, context: Context| async move {
            for n in 0..task.payload.as_u64().unwrap_or(0) {
                context.chunk(json!(n)).await.map_err(|e| e.to_string())?;
            }
            Ok(json!(task.sealed))
        })
        .agent("fail")
        .handler("fail", |_: Task, _| async move { Err::<Value, _>(TaskError::new("as it should")) })
        .agent("wait")
        .handler("wait", |_: Task, context: Context| async move {
            context.cancelled().await;
            Ok(json!(null))
        })
}

/// All of it, between two nodes that reach each other through trackers alone.
async fn all_kinds(caller: &Node, provider: &Node, links: u32) {
    let to = provider.id().to_string();
    let outcome = caller.call("echo", json!({"n": 1.5})).to(&to).await.unwrap();
    assert_eq!((outcome.payload.value(), outcome.route, outcome.sealed), (&json!({"n": 1.5}), Route::Relay, true));
    assert_eq!(outcome.hops, links);
    // Several windows full.
    let mut call = caller.call("stream", json!(150)).to(&to).start().await.unwrap();
    for n in 0..150 {
        assert_eq!(call.next_chunk().await, Some(json!(n)));
    }
    let outcome = call.outcome().await.unwrap();
    assert_eq!((outcome.chunks, outcome.payload.value()), (150, &json!(true)));
    let error = caller.call("fail", json!(null)).to(&to).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::HandlerError, "as it should"));
    let error = caller.call("nothing", json!(null)).to(&to).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownCapability);
    let mut call = caller.call("wait", json!(null)).to(&to).start().await.unwrap();
    assert!(call.accepted().await);
    call.cancel();
    assert_eq!(call.outcome().await.unwrap_err().code, ErrorCode::Cancelled);
    eventually("the handler was stopped", || provider.metrics().tasks_running == 0).await;
    // As large as it may be, there and back, and in the spelling that takes the most room around it.
    let largest = json!("x".repeat(elo::limits::MAX_PAYLOAD - 2));
    let outcome = caller.call("echo", largest.clone()).to(&to).await.unwrap();
    assert!(outcome.payload == largest && outcome.sealed);
    let error = caller.call("echo", json!("x".repeat(elo::limits::MAX_PAYLOAD - 1))).to(&to).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
}

#[tokio::test]
async fn over_one_tracker() {
    let tracker = tracker("tracker", None).await;
    let provider = provider("provider", &tracker).start().await.unwrap();
    let caller = hidden("caller", &tracker).start().await.unwrap();
    meets(&tracker, &[&provider, &caller]).await;
    all_kinds(&caller, &provider, 2).await;
    assert!(tracker.metrics().relayed > 150);
}

#[tokio::test]
async fn over_two_trackers() {
    let first = tracker("first", None).await;
    let second = tracker("second", Some(&first)).await;
    let provider = provider("provider", &second).start().await.unwrap();
    let caller = hidden("caller", &first).start().await.unwrap();
    meets(&second, &[&provider]).await;
    meets(&first, &[&caller]).await;
    all_kinds(&caller, &provider, 3).await;
    assert!(first.metrics().relayed > 150 && second.metrics().relayed > 150);
}

#[tokio::test]
async fn who_seals_nothing_is_served_unless_sealing_is_required() {
    let tracker = tracker("tracker", None).await;
    let open = hidden("open", &tracker).sealing(Sealing::Off).start().await.unwrap();
    for (sealing, served) in [(Sealing::Preferred, true), (Sealing::Required, false)] {
        let provider = provider("provider", &tracker).sealing(sealing).start().await.unwrap();
        meets(&tracker, &[&provider, &open]).await;
        let asked = open.call("stream", json!(1)).to(provider.id().to_string()).await;
        if served {
            let outcome = asked.unwrap();
            assert_eq!((outcome.sealed, outcome.payload.into_value()), (false, json!(false)));
        } else {
            let error = asked.unwrap_err();
            assert_eq!(error.code, ErrorCode::NotAllowed);
            assert!(error.message.contains("only when they are sealed"), "{error}");
        }
        provider.shutdown().await;
    }
}

#[tokio::test]
async fn a_provider_that_restarted_is_sealed_to_anew() {
    let tracker = tracker("tracker", None).await;
    let identity = elo::Identity::generate();
    let first = provider("provider", &tracker).identity(identity.clone()).start().await.unwrap();
    let caller = hidden("caller", &tracker).start().await.unwrap();
    meets(&tracker, &[&first, &caller]).await;
    let to = first.id().to_string();
    caller.call("echo", json!(1)).to(&to).await.unwrap();
    first.shutdown().await;
    let second = provider("provider", &tracker).identity(identity).start().await.unwrap();
    eventually("the tracker has the second run", || {
        tracker.peers().iter().any(|p| p.node_id == second.id() && !p.capabilities.is_empty())
    })
    .await;
    // The caller knows the first run's record, key and name.
    let outcome = caller.call("echo", json!(2)).to(&to).await.unwrap();
    assert_eq!((outcome.payload.into_value(), outcome.sealed), (json!(2), true));
    assert!(outcome.tried.iter().any(|a| a.result.contains("asking its new run")), "{:?}", outcome.tried);
    assert_eq!(second.metrics().refused.get("not_opened"), Some(&1));
}

#[tokio::test]
async fn keys_are_replaced_while_calls_go_on() {
    let tracker = tracker("tracker", None).await;
    let fast = |l: &mut Limits| {
        (l.max_trackers, l.seal_key_lifetime) = (0, Duration::from_millis(200));
    };
    let limits = Limits::default().with(fast);
    let provider = provider("provider", &tracker).limits(limits.clone()).start().await.unwrap();
    let caller = hidden("caller", &tracker).limits(limits).start().await.unwrap();
    meets(&tracker, &[&provider, &caller]).await;
    let to = provider.id().to_string();
    // Until a key that the caller's record names is past the few that are kept: then it is told the new one.
    let mut calls = 0;
    while !provider.metrics().refused.contains_key("not_opened") {
        let outcome = caller.call("stream", json!(3)).to(&to).await.unwrap();
        assert_eq!((outcome.chunks, outcome.sealed), (3, true));
        calls += 1;
        assert!(calls < 10_000, "no key was replaced");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let outcome = caller.call("echo", json!(1)).to(&to).await.unwrap();
    assert!(outcome.sealed);
}

#[tokio::test]
async fn an_event_for_named_nodes_reaches_them_alone() {
    let tracker = tracker("tracker", None).await;
    let from = hidden("from", &tracker).start().await.unwrap();
    let to = hidden("to", &tracker).start().await.unwrap();
    let other = hidden("other", &tracker).start().await.unwrap();
    meets(&tracker, &[&from, &to, &other]).await;
    let mut heard = to.subscribe("secret.*").unwrap();
    let mut others = other.subscribe("*").unwrap();
    let nobody = elo::Identity::generate().id();
    let published = from.publish_to(&[to.id(), nobody, from.id()], "secret.word", json!("psst")).await.unwrap();
    assert_eq!(published.not_sent.len(), 1);
    assert_eq!(published.not_sent[0].node_id, nobody);
    let event = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
    assert_eq!((event.id, event.data, event.origin), (published.id, json!("psst"), from.id()));
    // A peer is told over its connection; whoever is interested too hears nothing of it.
    let direct = node("direct").start().await.unwrap();
    let peer = crate::mesh::peered("peer", &[&direct]).await;
    let mut told = peer.subscribe("note").unwrap();
    direct.publish_to(&[peer.id()], "note", json!(1)).await.unwrap();
    assert_eq!(tokio::time::timeout(Duration::from_secs(20), told.recv()).await.unwrap().unwrap().data, json!(1));
    // What is for everybody comes after, and is the first that the other node hears.
    from.publish("secret.open", json!("all")).unwrap();
    let event = tokio::time::timeout(Duration::from_secs(20), others.recv()).await.unwrap().unwrap();
    assert_eq!(event.event_type, "secret.open");
    assert!(from.publish_to(&[], "x", json!(1)).await.is_err());
}
