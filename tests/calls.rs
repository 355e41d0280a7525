//! Calls between real nodes over real sockets: results, chunks, cancellation, deadlines, errors.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elo::{Context, Delivery, ErrorCode, Node, Route, Task, TaskError, TaskResult};
use mesh::{eventually, node, peered, port_of};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[tokio::test]
async fn a_call_by_capability_goes_straight_to_a_connected_provider() {
    let provider = node("provider").agent("double").handler("double", double).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let outcome = caller.call("double", json!(21)).await.unwrap();
    assert_eq!(outcome.payload, json!(42));
    assert_eq!(outcome.route, Route::Direct);
    assert_eq!(outcome.hops, 1);
    assert_eq!(outcome.responder, provider.id());
    assert_eq!(outcome.responder_name, "provider");
    assert!(outcome.verified);
    assert_eq!(provider.metrics().tasks_done, 1);
    caller.shutdown().await;
    provider.shutdown().await;
}

async fn double(task: Task, _: Context) -> TaskResult {
    Ok(json!(task.payload.as_i64().ok_or("a number")? * 2))
}

#[tokio::test]
async fn the_same_node_is_called_by_id_by_the_beginning_of_it_and_by_name() {
    let provider = node("rose").agent("double").handler("double", double).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let id = provider.id().to_string();
    for target in [id.as_str(), &id[..8], "rose"] {
        let outcome = caller.call("double", json!(1)).to(target).await.unwrap();
        assert_eq!(outcome.responder, provider.id(), "{target}");
    }
    let error = caller.call("double", json!(1)).to("nobody").timeout(Duration::from_secs(10)).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn concurrent_calls_on_one_connection_do_not_wait_for_each_other() {
    let gate = Arc::new(Notify::new());
    let waits = Arc::clone(&gate);
    let provider = node("provider")
        .agent("slow")
        .agent("double")
        .handler("slow", move |_, _| {
            let gate = Arc::clone(&waits);
            async move {
                gate.notified().await;
                Ok(json!("at last"))
            }
        })
        .handler("double", double)
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;
    let slow = caller.call("slow", Value::Null).start().await.unwrap();
    for n in 0..50 {
        assert_eq!(caller.call("double", json!(n)).await.unwrap().payload, json!(n * 2));
    }
    gate.notify_one();
    assert_eq!(slow.outcome().await.unwrap().payload, json!("at last"));
}

#[tokio::test]
async fn accepted_tells_that_a_slow_task_arrived() {
    let gate = Arc::new(Notify::new());
    let waits = Arc::clone(&gate);
    let provider = node("provider")
        .agent("slow")
        .handler("slow", move |_, _| {
            let gate = Arc::clone(&waits);
            async move {
                gate.notified().await;
                Ok(json!(1))
            }
        })
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;
    let mut call = caller.call("slow", Value::Null).start().await.unwrap();
    assert!(call.accepted().await);
    gate.notify_one();
    let outcome = call.outcome().await.unwrap();
    assert!(outcome.timings.first_sign_ms >= 90.0, "accepted came after {} ms", outcome.timings.first_sign_ms);
}

#[tokio::test]
async fn chunks_arrive_in_order_and_the_handler_waits_for_a_slow_caller() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let provider = node("provider")
        .agent("count")
        .handler("count", move |task: Task, context: Context| {
            let counter = Arc::clone(&counter);
            async move {
                for n in 0..task.payload.as_u64().unwrap() {
                    context.chunk(json!(n)).await.map_err(|e| e.to_string())?;
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                Ok(json!("done"))
            }
        })
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;
    let mut call = caller.call("count", json!(500)).start().await.unwrap();
    assert_eq!(call.next_chunk().await, Some(json!(0)));
    eventually("the window is used", || sent.load(Ordering::SeqCst) >= 32).await;
    // Nothing is taken, so nothing more may come: a whole call in between gives it every chance to.
    caller.call("ping", Value::Null).await.unwrap();
    assert!(sent.load(Ordering::SeqCst) <= 34, "{} chunks were sent unasked", sent.load(Ordering::SeqCst));
    for n in 1..500 {
        assert_eq!(call.next_chunk().await, Some(json!(n)));
    }
    assert_eq!(call.next_chunk().await, None);
    let outcome = call.outcome().await.unwrap();
    assert_eq!((outcome.payload.into_value(), outcome.chunks), (json!("done"), 500));
}

#[tokio::test]
async fn chunks_that_nobody_reads_do_not_hold_the_result_up() {
    let provider = node("provider")
        .agent("count")
        .handler("count", |_, context: Context| async move {
            for n in 0..200 {
                context.chunk(json!(n)).await.map_err(|e| e.to_string())?;
            }
            Ok(json!("done"))
        })
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;
    let outcome = caller.call("count", Value::Null).await.unwrap();
    assert_eq!((outcome.payload.into_value(), outcome.chunks), (json!("done"), 200));
}

#[tokio::test]
async fn cancelling_and_dropping_a_call_stop_the_handler() {
    let stopped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&stopped);
    let provider = node("provider")
        .agent("long")
        .handler("long", move |_, context: Context| {
            let counter = Arc::clone(&counter);
            async move {
                context.cancelled().await;
                counter.fetch_add(1, Ordering::SeqCst);
                Ok(json!("nobody sees this"))
            }
        })
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;

    let mut call = caller.call("long", Value::Null).start().await.unwrap();
    call.accepted().await;
    call.cancel();
    let error = call.outcome().await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::Cancelled, Delivery::Accepted));
    eventually("the handler saw it", || stopped.load(Ordering::SeqCst) == 1).await;

    let mut call = caller.call("long", Value::Null).start().await.unwrap();
    call.accepted().await;
    drop(call);
    eventually("the handler saw it", || stopped.load(Ordering::SeqCst) == 2).await;
    eventually("nothing is left", || provider.metrics().tasks_running == 0).await;
    assert_eq!(caller.metrics().calls_running, 0);
}

#[tokio::test]
async fn a_deadline_ends_both_sides() {
    let provider = node("provider")
        .agent("never")
        .handler("never", |_, context: Context| async move {
            context.cancelled().await;
            TaskResult::Err("too late".into())
        })
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;
    let error = caller.call("never", Value::Null).timeout(Duration::from_millis(500)).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::Timeout, Delivery::Accepted));
    assert_eq!(error.responder, Some(provider.id()));
    eventually("the handler ended", || provider.metrics().tasks_running == 0).await;
}

#[tokio::test]
async fn a_handler_that_errs_or_panics_is_an_answer_and_the_node_lives_on() {
    let provider = node("provider")
        .agent("err")
        .agent("panic")
        .agent("busy")
        .agent("huge")
        .handler("err", |_, _| async { TaskResult::Err(TaskError::new("no such file: /secret")) })
        .handler("panic", |task: Task, _| async move {
            if task.payload.is_null() {
                panic!("a fault of the handler");
            }
            Ok(json!(1))
        })
        .handler("busy", |_, _| async { TaskResult::Err(TaskError::overloaded("full", Duration::from_millis(2500))) })
        .handler("huge", |_, _| async { Ok(json!("x".repeat(2 << 20))) })
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;
    let error = caller.call("err", Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::HandlerError, "no such file: /secret"));
    assert_eq!(error.delivery, Delivery::Answered);
    let error = caller.call("panic", Value::Null).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::HandlerError);
    assert!(!error.message.contains("a fault of"), "the panic's text stays here: {}", error.message);
    let error = caller.call("busy", Value::Null).await.unwrap_err();
    assert_eq!((error.code, error.retry_after), (ErrorCode::Overloaded, Some(Duration::from_secs(3))));
    let error = caller.call("huge", Value::Null).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::TooLarge);
    let error = caller.call("unknown", Value::Null).to("provider").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownCapability);
    caller.call("ping", Value::Null).await.unwrap();
    assert_eq!(provider.metrics().tasks_failed, 5);
}

#[tokio::test]
async fn another_provider_is_asked_only_when_the_first_did_not_run_it() {
    let runs = Arc::new(AtomicUsize::new(0));
    let full = |runs: Arc<AtomicUsize>| {
        move |_: Task, _: Context| {
            runs.fetch_add(1, Ordering::SeqCst);
            async { TaskResult::Err(TaskError::overloaded("full", Duration::from_secs(1))) }
        }
    };
    let a = node("a").agent("work").handler("work", full(Arc::clone(&runs))).start().await.unwrap();
    let b = node("b").agent("work").handler("work", |_, _| async { Ok(json!("b did it")) }).start().await.unwrap();
    let caller = peered("caller", &[&a, &b]).await;
    for _ in 0..4 {
        assert_eq!(caller.call("work", Value::Null).await.unwrap().payload, json!("b did it"));
    }
    b.unregister("work").unwrap();
    eventually("the change is known", || caller.peers().iter().all(|p| p.name != "b" || p.capabilities.is_empty()))
        .await;
    let error = caller.call("work", Value::Null).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded);

    // An error of the handler's own is an answer: nobody else is asked.
    let failing = node("c").agent("work2").handler("work2", |_, _| async { TaskResult::Err("no".into()) });
    let failing = failing.start().await.unwrap();
    let spare = node("d").agent("work2").handler("work2", |_, _| async { Ok(json!("spare")) }).start().await.unwrap();
    let caller = peered("caller2", &[&failing]).await;
    assert_eq!(caller.call("work2", Value::Null).await.unwrap_err().code, ErrorCode::HandlerError);
    assert_eq!(spare.metrics().tasks_done, 0);
}

#[tokio::test]
async fn a_node_calls_itself_only_when_allowed() {
    let alone = node("alone")
        .agent("stream")
        .handler("stream", |_, context: Context| async move {
            for n in 0..100 {
                context.chunk(json!(n)).await.map_err(|e| e.to_string())?;
            }
            Ok(json!("mine"))
        })
        .start()
        .await
        .unwrap();
    let error = alone.call("stream", Value::Null).timeout(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoPeer);
    let mut call = alone.call("stream", Value::Null).allow_local().start().await.unwrap();
    for n in 0..100 {
        assert_eq!(call.next_chunk().await, Some(json!(n)));
    }
    let outcome = call.outcome().await.unwrap();
    assert_eq!((outcome.route, outcome.hops, outcome.responder), (Route::Local, 0, alone.id()));
}

#[tokio::test]
async fn payloads_keep_their_unicode_floats_and_big_integers() {
    let provider = node("provider")
        .agent("echo")
        .handler("echo", |task: Task, _| async move { Ok(elo::Payload::json(task.payload_json())) });
    let provider = provider.start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let text = r#"{"big":123456789012345678901234567890,"ë":"😀\u0000","f":[0.1,1e+22,-0.0,5e-324]}"#;
    let outcome = caller.call_json("echo", text).await.unwrap();
    assert_eq!(outcome.payload["ë"], json!("😀\u{0}"));
    assert!(outcome.payload_json().contains(":123456789012345678901234567890"), "{}", outcome.payload_json());
    assert!(outcome.payload_json().contains("[0.1,1e+22,-0.0,5e-324]"), "{}", outcome.payload_json());
    let large = "x".repeat(elo::limits::MAX_PAYLOAD - 2);
    assert_eq!(caller.call("echo", json!(large)).await.unwrap().payload, json!(large));
    let error = caller.call("echo", json!("x".repeat(1 << 20))).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::TooLarge, Delivery::NotSent));
}

#[tokio::test]
async fn after_shutdown_every_handle_says_so() {
    let provider = node("provider").agent("double").handler("double", double).start().await.unwrap();
    let other = provider.clone();
    let caller = peered("caller", &[&provider]).await;
    provider.shutdown().await;
    assert!(matches!(other.register(elo::Capability::agent("x")), Err(elo::Error::Stopped)));
    assert!(matches!(other.publish("x", Value::Null), Err(elo::Error::Stopped)));
    assert_eq!(other.call("double", json!(1)).await.unwrap_err().code, ErrorCode::Cancelled);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port_of(&provider))).is_err(), "the port is closed");
    eventually("the peer knows", || caller.peers().is_empty()).await;
}

#[tokio::test]
async fn shutdown_lets_running_tasks_finish() {
    let begun = Arc::new(Notify::new());
    let gate = Arc::new(Notify::new());
    let (b, g) = (Arc::clone(&begun), Arc::clone(&gate));
    let provider = node("provider")
        .agent("slow")
        .handler("slow", move |_, _| {
            let (begun, gate) = (Arc::clone(&b), Arc::clone(&g));
            async move {
                begun.notify_one();
                gate.notified().await;
                Ok(json!("finished"))
            }
        })
        .start()
        .await
        .unwrap();
    let caller = peered("caller", &[&provider]).await;
    let call = caller.call("slow", Value::Null).start().await.unwrap();
    begun.notified().await;
    let stopping = tokio::spawn(async move { provider.shutdown().await });
    gate.notify_one();
    assert_eq!(call.outcome().await.unwrap().payload, json!("finished"));
    stopping.await.unwrap();
}

#[tokio::test]
async fn several_nodes_in_one_process_do_not_disturb_each_other() {
    let provider = node("provider").agent("double").handler("double", double).start().await.unwrap();
    let callers: Vec<Node> = {
        let mut callers = Vec::new();
        for n in 0..8 {
            callers.push(peered(&format!("caller{n}"), &[&provider]).await);
        }
        callers
    };
    callers[0].shutdown().await;
    let mut running = Vec::new();
    for (n, caller) in callers.iter().enumerate().skip(1) {
        for i in 0..20 {
            let caller = caller.clone();
            running.push(tokio::spawn(async move {
                let n = n * 100 + i;
                assert_eq!(caller.call("double", json!(n)).await.unwrap().payload, json!(n * 2));
            }));
        }
    }
    for call in running {
        call.await.unwrap();
    }
}
