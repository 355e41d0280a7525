//! Many trackers over real sockets: registering with those one hears of, calls over several of them, and the loss of one
//! while calls run.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use elo::{Builder, Context, Limits, Node, Route, Task, Tracker, TrackerRole};
use mesh::{addr_of, eventually, meets, node};
use serde_json::json;

/// A node that can't be dialled, and knows one tracker.
fn hidden(name: &str, tracker: &Node) -> Builder {
    Node::builder().name(name).no_listen().peer(addr_of(tracker))
}

/// A public tracker that knows these.
async fn tracker(name: &str, others: &[&Node]) -> Node {
    let mut builder = node(name).tracker(Tracker::Public);
    for other in others {
        builder = builder.peer(addr_of(other));
    }
    let tracker = builder.start().await.unwrap();
    meets(&tracker, others).await;
    tracker
}

/// With how many trackers a node is registered.
fn registered(node: &Node) -> usize {
    node.peers().iter().filter(|p| p.tracker != TrackerRole::None).count()
}

#[tokio::test]
async fn a_node_registers_with_trackers_it_hears_of_until_it_has_enough() {
    let first = tracker("t0", &[]).await;
    let mut others = Vec::new();
    for n in 1..5 {
        others.push(tracker(&format!("t{n}"), &[&first]).await);
    }
    let limits = Limits::default().with(|l| l.max_trackers = 3);
    let three = hidden("three", &first).limits(limits).start().await.unwrap();
    let limits = Limits::default().with(|l| l.max_trackers = 0);
    let one = hidden("one", &first).limits(limits).start().await.unwrap();
    eventually("it is registered with three", || registered(&three) == 3).await;
    eventually("the trackers know it by name", || {
        let all = || others.iter().chain([&first]);
        all().filter(|t| t.peers().iter().any(|p| p.name == "three")).count() == 3
    })
    .await;
    let learned = three.peers().iter().filter(|p| p.found == elo::Source::Tracker).count();
    assert_eq!((learned, registered(&one)), (2, 1));
}

#[tokio::test]
async fn a_call_goes_over_three_trackers() {
    // They look for no others: each knows its neighbour only.
    let alone = || Limits::default().with(|l| l.max_trackers = 0);
    let first = node("first").tracker(Tracker::Public).limits(alone()).start().await.unwrap();
    let middle = node("middle").tracker(Tracker::Public).limits(alone()).peer(addr_of(&first)).start().await.unwrap();
    meets(&middle, &[&first]).await;
    let last = node("last").tracker(Tracker::Public).limits(alone()).peer(addr_of(&middle)).start().await.unwrap();
    meets(&last, &[&middle]).await;
    let stream = |_: Task, context: Context| async move {
        for n in 0..200 {
            context.chunk(json!(n)).await.map_err(|e| e.to_string())?;
        }
        Ok(json!("done"))
    };
    let provider = hidden("provider", &last).limits(alone()).agent("stream").handler("stream", stream);
    let provider = provider.start().await.unwrap();
    meets(&provider, &[&last]).await;
    let caller = hidden("caller", &first).limits(alone()).start().await.unwrap();
    meets(&caller, &[&first]).await;
    let mut call = caller.call("stream", json!(null)).start().await.unwrap();
    for n in 0..200 {
        assert_eq!(call.next_chunk().await, Some(json!(n)));
    }
    let outcome = call.outcome().await.unwrap();
    assert_eq!((outcome.route, outcome.hops, outcome.via), (Route::Relay, 4, Some(first.id())));
    assert!(middle.metrics().relayed > 200);
    // The target leaves, and word of it comes back the same way.
    let id = provider.id().to_string();
    provider.shutdown().await;
    let error = caller.call("ping", json!(1)).to(id).timeout(Duration::from_secs(15)).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

/// 50 calls a second for 6 s, and the tracker that all of them go through dies after 2 s: nobody says goodbye. The nodes know
/// only that one; they have heard of the other from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tracker_dies_under_fifty_calls_a_second() {
    let second = tracker("second", &[]).await;
    let first = tracker("first", &[&second]).await;
    let runs: Arc<Mutex<HashMap<u64, u32>>> = Arc::default();
    let counted = Arc::clone(&runs);
    let work = move |task: Task, _: Context| {
        let counted = Arc::clone(&counted);
        async move {
            let n = task.payload["n"].as_u64().unwrap();
            *counted.lock().unwrap().entry(n).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(task.payload["ms"].as_u64().unwrap())).await;
            Ok(json!(n))
        }
    };
    let mut nodes = Vec::new();
    for n in 0..3 {
        let provider = hidden(&format!("provider{n}"), &first).agent("work").handler("work", work.clone());
        nodes.push(provider.start().await.unwrap());
    }
    let caller = hidden("caller", &first).start().await.unwrap();
    for node in nodes.iter().chain([&caller]) {
        meets(node, &[&first]).await;
    }
    let mut calls = Vec::new();
    let mut first = Some(first);
    let mut died = None;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for n in 0..300u64 {
        ticks.tick().await;
        if n == 100 {
            // Aborted: whoever is connected sees the connection break.
            drop(first.take());
            died = Some(Instant::now());
        }
        let ms = [0, 50, 1500][(n % 3) as usize];
        let call = caller.call("work", json!({ "n": n, "ms": ms }));
        let call = call.timeout(Duration::from_secs(30));
        let began = Instant::now();
        calls.push((n, tokio::spawn(async move { (call.await, began, Instant::now()) })));
    }
    let died = died.unwrap();
    let (mut good, mut errors) = (0, Vec::new());
    let (mut back, mut longest) = (Vec::new(), Duration::ZERO);
    for (n, call) in calls {
        // Every one ends, long before its time is over.
        let (result, began, ended) = tokio::time::timeout(Duration::from_secs(25), call).await.unwrap().unwrap();
        longest = longest.max(ended - began);
        match result {
            Ok(outcome) => {
                assert_eq!(outcome.payload, json!(n));
                good += 1;
                if began > died {
                    assert_eq!(outcome.via, Some(second.id()));
                    back.push(ended - died);
                }
            }
            Err(error) => {
                assert!(error.is_retryable(), "{n}: {error}");
                errors.push((n, error.to_string()));
            }
        }
    }
    let back = back.into_iter().min().expect("calls go on over the second tracker");
    println!(
        "{good} of 300 calls good, {} retryable errors; the first call through the other tracker was answered {back:?} after the \
         loss; the longest call took {longest:?}",
        errors.len()
    );
    assert!(back < Duration::from_secs(5), "{back:?}");
    let twice: Vec<_> = runs.lock().unwrap().iter().filter(|(_, runs)| **runs > 1).map(|(n, _)| *n).collect();
    assert!(twice.is_empty(), "ran twice: {twice:?}");
    // Those that were made when the dust had settled all went well.
    assert!(errors.iter().all(|(n, _)| *n < 250), "{errors:?}");
    assert!(good >= 250, "{good}: {errors:?}");
}
