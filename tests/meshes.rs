//! Meshes of real nodes over real sockets: finding over several hops, trackers, relays, restarts, events.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elo::{Activity, Capability, Context, Delivery, ErrorCode, Identity, Node, Route, Task, TaskResult, Tracker};
use mesh::{addr_of, eventually, found_when, meets, node, peered};
use serde_json::{Value, json};
use tokio::sync::Notify;

async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

/// A tracker, for everybody.
async fn tracker() -> Node {
    node("tracker").tracker(Tracker::Public).start().await.unwrap()
}

/// A node that can't be dialled, registered with a tracker.
async fn behind(tracker: &Node, name: &str, capability: Option<&str>) -> Node {
    let mut builder = Node::builder().name(name).no_listen().peer(addr_of(tracker)).default_handler(echo);
    if let Some(capability) = capability {
        builder = builder.agent(capability);
    }
    let node = builder.start().await.unwrap();
    meets(&node, &[tracker]).await;
    node
}

#[tokio::test]
async fn a_provider_three_hops_away_is_found_connected_to_and_called() {
    let provider = node("provider").agent("rare").default_handler(echo).start().await.unwrap();
    let second = peered("second", &[&provider]).await;
    let first = peered("first", &[&second]).await;
    let caller = peered("caller", &[&first]).await;
    assert!(caller.find("rare", None).await.unwrap().is_empty(), "nobody has told the caller");
    let outcome = caller.call("rare", json!("hello")).await.unwrap();
    assert_eq!(outcome.payload, json!("hello"));
    assert_eq!((outcome.route, outcome.responder), (Route::Flood, provider.id()));
    assert!(outcome.tried.iter().any(|t| t.step == "flood"), "{:?}", outcome.tried);
    assert!(caller.peers().iter().any(|p| p.node_id == provider.id()), "the caller connected to it");
    // The second time it is a known peer.
    assert_eq!(caller.call("rare", json!(2)).await.unwrap().payload, json!(2));
}

#[tokio::test]
async fn a_query_that_nobody_can_answer_ends_with_the_steps_tried() {
    let other = node("other").start().await.unwrap();
    let caller = peered("caller", &[&other]).await;
    let error = caller.call("nowhere", Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    assert!(error.tried.iter().any(|t| t.step == "flood"), "{:?}", error.tried);
    let alone = node("alone").start().await.unwrap();
    let error = alone.call("nowhere", Value::Null).await.unwrap_err();
    assert!(error.message.contains("no peer is connected"), "{}", error.message);
}

#[tokio::test]
async fn what_is_registered_after_connecting_becomes_known_where_it_is_wanted() {
    let provider = node("provider").default_handler(echo).start().await.unwrap();
    let middle = peered("middle", &[&provider]).await;
    let wants = node("wants").interest("late*").peer(addr_of(&middle)).start().await.unwrap();
    let other = peered("other", &[&middle]).await;
    meets(&wants, &[&middle]).await;
    provider.register(Capability::tool("late-tool").detail("version", "2")).unwrap();
    let known = found_when(&wants, "late-tool", "the record came over the middle", |known| known.len() == 1).await;
    assert_eq!(known[0].capabilities[0].details["version"], json!("2"));
    assert!(other.find("late-tool", None).await.unwrap().is_empty(), "who isn't interested isn't told");
    assert_eq!(wants.call("late-tool", json!(1)).await.unwrap().payload, json!(1));
    assert!(provider.unregister("late-tool").unwrap());
    found_when(&wants, "late-tool", "that it is gone is told as well", <[_]>::is_empty).await;
}

#[tokio::test]
async fn two_nodes_that_cannot_dial_each_other_work_through_a_tracker() {
    let tracker = tracker().await;
    let provider = Node::builder()
        .name("hidden")
        .no_listen()
        .peer(addr_of(&tracker))
        .agent("stream")
        .handler("stream", |task: Task, context: Context| async move {
            for n in 0..task.payload.as_u64().unwrap_or(0) {
                context.chunk(json!(n)).await.map_err(|e| e.to_string())?;
            }
            Ok(json!("streamed"))
        })
        .start()
        .await
        .unwrap();
    meets(&provider, &[&tracker]).await;
    let caller = behind(&tracker, "caller", None).await;
    let mut call = caller.call("stream", json!(300)).start().await.unwrap();
    for n in 0..300 {
        assert_eq!(call.next_chunk().await, Some(json!(n)));
    }
    let outcome = call.outcome().await.unwrap();
    assert_eq!(outcome.payload, json!("streamed"));
    assert_eq!((outcome.route, outcome.via, outcome.hops), (Route::Relay, Some(tracker.id()), 2));
    assert_eq!(outcome.responder, provider.id());
    assert!(tracker.metrics().relayed > 300);
    // By name, and explicitly through the tracker.
    let outcome = caller.call("stream", json!(0)).to("hidden").via("tracker").await.unwrap();
    assert_eq!(outcome.route, Route::Relay);
}

#[tokio::test]
async fn cancel_accepted_and_errors_pass_the_relay() {
    let tracker = tracker().await;
    let stopped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&stopped);
    let provider = Node::builder()
        .name("hidden")
        .no_listen()
        .peer(addr_of(&tracker))
        .agent("long")
        .agent("err")
        .handler("long", move |_, context: Context| {
            let counter = Arc::clone(&counter);
            async move {
                context.cancelled().await;
                counter.fetch_add(1, Ordering::SeqCst);
                Ok(Value::Null)
            }
        })
        .handler("err", |_, _| async { TaskResult::Err("told".into()) })
        .start()
        .await
        .unwrap();
    meets(&provider, &[&tracker]).await;
    let caller = behind(&tracker, "caller", None).await;
    let mut call = caller.call("long", Value::Null).start().await.unwrap();
    assert!(call.accepted().await);
    call.cancel();
    assert_eq!(call.outcome().await.unwrap_err().code, ErrorCode::Cancelled);
    eventually("the cancel arrived", || stopped.load(Ordering::SeqCst) == 1).await;
    let error = caller.call("err", Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::HandlerError, "told"));
}

#[tokio::test]
async fn a_call_through_a_tracker_to_somebody_it_does_not_know_says_so() {
    let tracker = tracker().await;
    let caller = behind(&tracker, "caller", None).await;
    let stranger = Identity::generate().id().to_string();
    let error = caller.call("x", Value::Null).to(stranger).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    // Without its record nobody can tell whether, and to which key, a task for it must be sealed: so none is relayed.
    assert!(error.tried.iter().any(|t| t.result.contains("its record is not known here")), "{:?}", error.tried);
}

#[tokio::test]
async fn a_tracker_lists_its_nodes_and_forgets_who_left() {
    let tracker = tracker().await;
    let a = behind(&tracker, "a", Some("one")).await;
    let b = behind(&tracker, "b", Some("two")).await;
    let found = b.find("one", Some(Duration::from_millis(300))).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].node_id, &found[0].trackers[..]), (a.id(), &[tracker.id()][..]));
    let all = b.find("", Some(Duration::from_millis(300))).await.unwrap();
    assert!(all.iter().any(|n| n.name == "a") && all.iter().any(|n| n.name == "tracker"), "{all:?}");
    a.shutdown().await;
    eventually("the tracker forgot it", || tracker.metrics().records == 1).await;
    assert!(tracker.find("one", None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_private_tracker_keeps_strangers_out() {
    let friend = Identity::generate();
    let tracker = node("private").tracker(Tracker::Private { allow: vec![friend.id()] }).start().await.unwrap();
    let mut refusals = tracker.activity();
    let stranger = Node::builder().name("stranger").no_listen().peer(addr_of(&tracker)).start().await.unwrap();
    let mut seen = stranger.activity();
    let admitted =
        Node::builder().name("friend").identity(friend).no_listen().peer(addr_of(&tracker)).start().await.unwrap();
    meets(&admitted, &[&tracker]).await;
    loop {
        match refusals.recv().await.unwrap() {
            Activity::Refused { reason, message, .. } => {
                assert_eq!(reason.as_str(), "NOT_ALLOWED");
                assert!(message.contains("must allow"), "{message}");
                break;
            }
            _ => continue,
        }
    }
    loop {
        if let Activity::DialFailed { message, .. } = seen.recv().await.unwrap() {
            assert!(message.contains("NOT_ALLOWED") || message.contains("private"), "{message}");
            break;
        }
    }
    assert!(stranger.peers().is_empty());
    assert_eq!(tracker.peers().len(), 1);
}

#[tokio::test]
async fn a_node_that_restarts_elsewhere_replaces_its_old_self_at_once() {
    let tracker = tracker().await;
    let identity = Identity::generate();
    let start = |tag: &'static str| {
        let builder = node("phoenix").identity(identity.clone()).agent("which").peer(addr_of(&tracker));
        builder.handler("which", move |_, _| async move { Ok(json!(tag)) }).start()
    };
    let first = start("first").await.unwrap();
    let caller = peered("caller", &[&tracker]).await;
    meets(&first, &[&tracker]).await;
    assert_eq!(caller.call("which", Value::Null).await.unwrap().payload, json!("first"));
    // The same key on another port, while the first still stands: as after a crash that nobody has noticed yet.
    let second = start("second").await.unwrap();
    let new_port = mesh::port_of(&second);
    eventually("the new run took the old one's place", || {
        tracker.peers().iter().any(|p| p.node_id == second.id()) && second.peers().len() == 1
    })
    .await;
    let port = format!(":{new_port}");
    found_when(&tracker, "which", "one entry, with the new port alone", |known| {
        known.len() == 1 && !known[0].addrs.is_empty() && known[0].addrs.iter().all(|a| a.ends_with(&port))
    })
    .await;
    let fresh = peered("fresh", &[&tracker]).await;
    assert_eq!(fresh.call("which", Value::Null).await.unwrap().payload, json!("second"));
}

#[tokio::test]
async fn nodes_that_dial_each_other_keep_one_connection_and_lose_no_call() {
    for round in 0..5 {
        // Each needs the other's port before it starts: taken from listeners that are closed again.
        let free = || std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let (a_addr, b_addr) = (free(), free());
        let build = |name: &str, at: SocketAddr, to: SocketAddr| {
            Node::builder().name(name).listen(at).peer(to.to_string()).agent("echo").default_handler(echo).start()
        };
        let (a, b) = tokio::join!(build("a", a_addr, b_addr), build("b", b_addr, a_addr));
        let (a, b) = (a.unwrap(), b.unwrap());
        meets(&a, &[&b]).await;
        let mut calls = Vec::new();
        for n in 0..50 {
            let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
            let call = from.call("echo", json!(n)).to(to.id().to_string());
            calls.push(tokio::spawn(async move { call.await.map(|o| o.payload) }));
        }
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), json!(n), "round {round}");
        }
        eventually("one connection stays", || a.metrics().connections == 1 && b.metrics().connections == 1).await;
        assert_eq!((a.peers().len(), b.peers().len()), (1, 1));
        a.shutdown().await;
        b.shutdown().await;
    }
}

#[tokio::test]
async fn a_node_that_is_told_to_dial_itself_does_not() {
    let addr = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let node = Node::builder().listen(addr).peer(addr.to_string()).start().await.unwrap();
    eventually("it noticed", || node.metrics().closed.contains_key("SELF")).await;
    assert!(node.peers().is_empty());
}

#[tokio::test]
async fn a_configured_peer_is_dialled_again_when_it_comes_back() {
    let identity = Identity::generate();
    let addr = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let start = || Node::builder().listen(addr).identity(identity.clone()).agent("echo").default_handler(echo).start();
    let caller = node("caller").peer(format!("{}@{addr}", identity.id())).start().await.unwrap();
    let mut seen = caller.activity();
    loop {
        if let Activity::DialFailed { retry_in_ms, .. } = seen.recv().await.unwrap() {
            assert!((500..=1000).contains(&retry_in_ms), "the first wait is 1 s with jitter, not {retry_in_ms} ms");
            break;
        }
    }
    let provider = start().await.unwrap();
    meets(&caller, &[&provider]).await;
    provider.shutdown().await;
    eventually("it is gone", || caller.peers().is_empty()).await;
    let provider = start().await.unwrap();
    meets(&caller, &[&provider]).await;
    assert_eq!(caller.call("echo", json!(1)).await.unwrap().payload, json!(1));
}

#[tokio::test]
async fn a_peer_that_is_somebody_else_than_pinned_is_not_accepted() {
    let other = node("other").start().await.unwrap();
    let pinned = Identity::generate().id();
    let caller = node("caller").peer(format!("{pinned}@{}", addr_of(&other))).start().await.unwrap();
    let mut seen = caller.activity();
    loop {
        if let Activity::DialFailed { message, .. } = seen.recv().await.unwrap() {
            assert!(message.contains(&other.id().short()) || message.contains("another"), "{message}");
            break;
        }
    }
    assert!(caller.peers().is_empty());
}

#[tokio::test]
async fn a_lost_responder_is_an_error_and_never_silence() {
    let begun = Arc::new(Notify::new());
    let starts = Arc::clone(&begun);
    let tracker = tracker().await;
    let provider = Node::builder()
        .name("hidden")
        .no_listen()
        .peer(addr_of(&tracker))
        .agent("long")
        .handler("long", move |_, _| {
            let starts = Arc::clone(&starts);
            async move {
                starts.notify_one();
                std::future::pending::<TaskResult>().await
            }
        })
        .start()
        .await
        .unwrap();
    meets(&provider, &[&tracker]).await;
    let caller = behind(&tracker, "caller", None).await;
    let call = caller.call("long", Value::Null).timeout(Duration::from_secs(60)).start().await.unwrap();
    begun.notified().await;
    // Dropped, not shut down: nobody says goodbye.
    drop(provider);
    let error = call.outcome().await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PeerGone, "{error}");
    assert!(matches!(error.delivery, Delivery::Unconfirmed | Delivery::Accepted));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn events_reach_those_who_subscribed_over_a_tracker_and_only_once() {
    let tracker = tracker().await;
    let a = behind(&tracker, "a", None).await;
    let b = behind(&tracker, "b", None).await;
    let mut tasks = b.subscribe("task.*").unwrap();
    let mut all = b.subscribe("*").unwrap();
    let mut exact = a.subscribe("task.done").unwrap();
    eventually("the tracker knows of it", || {
        // The subscription travels as an interest in b's record.
        b.status().interests == ["*", "task.*"]
    })
    .await;
    let mut got = None;
    for n in 0..200 {
        a.publish("task.done", json!({ "n": n })).unwrap();
        if let Ok(event) = tokio::time::timeout(Duration::from_millis(50), tasks.recv()).await {
            got = event;
            break;
        }
    }
    let event = got.expect("the event arrived");
    assert_eq!((event.event_type.as_str(), event.origin, event.proven), ("task.done", a.id(), true));
    assert!(exact.recv().await.is_some(), "a hears what it publishes itself");
    a.publish("other.thing", json!(1)).unwrap();
    loop {
        let event = all.recv().await.unwrap();
        if event.event_type == "other.thing" {
            break;
        }
    }
    a.publish("task.last", Value::Null).unwrap();
    let mut ids = Vec::new();
    loop {
        let event = tasks.recv().await.unwrap();
        assert!(event.event_type.starts_with("task."));
        assert!(!ids.contains(&event.id), "an event came twice");
        ids.push(event.id);
        if event.event_type == "task.last" {
            break;
        }
    }
    drop(tasks);
    assert_eq!(b.status().interests, ["*"]);
}

#[tokio::test]
async fn a_node_on_every_interface_publishes_addresses_that_work() {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let provider = Node::builder().name("p").listen(everywhere).agent("echo").default_handler(echo);
    let provider = provider.start().await.unwrap();
    let middle = peered("middle", &[&provider]).await;
    eventually("it learned its address", || !provider.status().addrs.is_empty()).await;
    let caller = peered("caller", &[&middle]).await;
    let outcome = caller.call("echo", json!(1)).await.unwrap();
    assert_eq!(outcome.route, Route::Flood);
}

#[tokio::test]
async fn connections_made_for_calls_are_capped_and_the_tracker_helps_out() {
    let tracker = tracker().await;
    let mut providers = Vec::new();
    for n in 0..2 {
        let provider = node(&format!("p{n}")).peer(addr_of(&tracker)).agent("echo").handler("echo", echo);
        providers.push(provider.start().await.unwrap());
    }
    for provider in &providers {
        meets(provider, &[&tracker]).await;
    }
    let limits = elo::Limits::default().with(|l| l.max_connections = 1);
    let caller = node("caller").limits(limits).peer(addr_of(&tracker)).start().await.unwrap();
    meets(&caller, &[&tracker]).await;
    let mut routes = Vec::new();
    for provider in &providers {
        let outcome = caller.call("echo", json!(1)).to(provider.id().to_string()).await.unwrap();
        assert_eq!(outcome.responder, provider.id());
        routes.push(outcome.route);
    }
    assert_eq!(routes[1], Route::Relay, "{routes:?}");
    assert_ne!(routes[0], Route::Relay, "{routes:?}");
    assert_eq!(caller.metrics().connections, 2);
}
