//! How a node's life ends, whoever ends it and wherever; and what its handles, handlers and streams see of it.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use elo::{Context, Delivery, Error, ErrorCode, Limits, Node, Task, TaskError, TaskResult};
use mesh::{addr_of, eventually, meets, node, peered, port_of};
use serde_json::{Value, json};
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Far longer than any end may take.
const SOON: Duration = Duration::from_secs(15);

async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

fn is_closed(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_err()
}

/// Tells when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn dropping_the_last_handle_ends_handlers_ports_and_streams() {
    let dropped = Arc::new(AtomicBool::new(false));
    let begun = Arc::new(Notify::new());
    let (d, b) = (Arc::clone(&dropped), Arc::clone(&begun));
    let hang = move |_: Task, _: Context| {
        let (flag, begun) = (Flag(Arc::clone(&d)), Arc::clone(&b));
        async move {
            begun.notify_one();
            pending::<()>().await;
            drop(flag);
            Ok(Value::Null)
        }
    };
    let provider = node("provider").agent("hang").handler("hang", hang).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let mut activity = provider.activity();
    let mut subscription = provider.subscribe("*").unwrap();
    let mut own = provider.call("nobody-has-this", Value::Null).start().await.unwrap();
    let call = caller.call("hang", Value::Null).start().await.unwrap();
    begun.notified().await;
    let port = port_of(&provider);
    drop(provider);
    soon("the port is closed", eventually("the port is closed", || is_closed(port))).await;
    soon("the handler is dropped", eventually("the handler is dropped", || dropped.load(Ordering::SeqCst))).await;
    soon("the activity ends", async { while activity.recv().await.is_some() {} }).await;
    assert!(soon("the subscription ends", subscription.recv()).await.is_none());
    assert!(soon("no more chunks", own.next_chunk()).await.is_none());
    assert_eq!(soon("its call ends", own.outcome()).await.unwrap_err().code, ErrorCode::Cancelled);
    let error = soon("the caller's call ends", call.outcome()).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Unconfirmed), "{error}");
    caller.shutdown().await;
}

#[test]
fn the_last_handle_may_be_dropped_outside_the_runtime() {
    let runtime = Runtime::new().unwrap();
    let (node, mut activity) = runtime.block_on(async {
        let node = node("n").start().await.unwrap();
        let activity = node.activity();
        (node, activity)
    });
    let port = port_of(&node);
    std::thread::spawn(move || drop(node)).join().unwrap();
    runtime.block_on(async {
        soon("the activity ends", async { while activity.recv().await.is_some() {} }).await;
        soon("the port is closed", eventually("the port is closed", || is_closed(port))).await;
    });
}

#[test]
fn a_call_made_outside_the_runtime_runs_on_the_nodes_own() {
    let runtime = Runtime::new().unwrap();
    let node = runtime.block_on(async { node("n").agent("echo").handler("echo", echo).start().await.unwrap() });
    // Starting a call waits for nothing, so any executor will do: here the poorest there is.
    let call = {
        let mut starting = std::pin::pin!(node.call("echo", json!(1)).allow_local().start());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match starting.as_mut().poll(&mut context) {
            std::task::Poll::Ready(call) => call.unwrap(),
            std::task::Poll::Pending => panic!("starting a call waits for something"),
        }
    };
    node.register(elo::Capability::agent("later")).unwrap();
    let outcome = runtime.block_on(soon("the answer", call.outcome())).unwrap();
    assert_eq!(outcome.payload, json!(1));
    runtime.block_on(soon("shutdown", node.shutdown()));
}

#[test]
fn a_runtime_may_go_before_its_nodes() {
    for threads in [1, 2] {
        let limits = Limits::default().with(|l| l.drain_timeout = Duration::from_millis(100));
        let runtime = match threads {
            1 => RuntimeBuilder::new_current_thread().enable_all().build().unwrap(),
            _ => RuntimeBuilder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap(),
        };
        let (provider, caller, mut call, mut activity, mut subscription) = runtime.block_on(async {
            let hang = |_: Task, _: Context| pending::<TaskResult>();
            let provider = node("provider").limits(limits).agent("hang").handler("hang", hang).start().await.unwrap();
            let caller = peered("caller", &[&provider]).await;
            let mut call = caller.call("hang", Value::Null).start().await.unwrap();
            assert!(call.accepted().await);
            (provider.clone(), caller.clone(), call, provider.activity(), provider.subscribe("*").unwrap())
        });
        drop(runtime);
        // They neither hang nor panic, and are of no use any more.
        assert!(is_closed(port_of(&provider)));
        drop(provider.call("hang", Value::Null));
        let other = RuntimeBuilder::new_current_thread().enable_all().build().unwrap();
        other.block_on(async {
            soon("shutdown elsewhere", async { tokio::join!(provider.shutdown(), provider.shutdown()) }).await;
            soon("stopped", provider.stopped()).await;
            assert!(matches!(provider.publish("x", Value::Null), Err(Error::Stopped)));
            drop(caller);
            assert!(soon("no chunk", call.next_chunk()).await.is_none());
            soon("activity", async { while activity.recv().await.is_some() {} }).await;
            assert!(soon("no event", subscription.recv()).await.is_none());
        });
    }
}

#[tokio::test]
async fn shutdown_by_many_at_once_and_given_up_by_the_first() {
    let begun = Arc::new(Notify::new());
    let gate = Arc::new(Notify::new());
    let (b, g) = (Arc::clone(&begun), Arc::clone(&gate));
    let slow = move |_: Task, _: Context| {
        let (begun, gate) = (Arc::clone(&b), Arc::clone(&g));
        async move {
            begun.notify_one();
            gate.notified().await;
            Ok(json!("finished"))
        }
    };
    let provider = node("provider").agent("slow").handler("slow", slow).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let call = caller.call("slow", Value::Null).start().await.unwrap();
    begun.notified().await;
    // The first to ask doesn't wait for it; it goes on all the same.
    assert!(timeout(Duration::from_millis(20), provider.shutdown()).await.is_err());
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.shutdown().await })
        })
        .collect();
    gate.notify_one();
    assert_eq!(soon("the answer", call.outcome()).await.unwrap().payload, json!("finished"));
    for one in waiting {
        soon("shutdown", one).await.unwrap();
    }
    soon("shutdown once more", provider.shutdown()).await;
    soon("stopped", provider.stopped()).await;
    assert!(matches!(provider.subscribe("*"), Err(Error::Stopped)));
    assert!(matches!(provider.find("x", None).await, Err(Error::Stopped)));
    assert!(!provider.connected(SOON).await);
    assert!(provider.activity().recv().await.is_none());
}

#[tokio::test]
async fn shutdown_while_peers_are_dialled_that_never_answer() {
    // It takes connections and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = mute.local_addr().unwrap().to_string();
    let node = node("n").peer(addr).peer("127.0.0.1:1").start().await.unwrap();
    let (accepted, _) = tokio::task::spawn_blocking(move || mute.accept().unwrap()).await.unwrap();
    let began = tokio::time::Instant::now();
    soon("shutdown", node.shutdown()).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop(accepted);
}

#[tokio::test]
async fn a_handler_may_shut_its_own_node_down() {
    let limits = Limits::default().with(|l| l.drain_timeout = Duration::from_millis(100));
    let stop = |_: Task, context: Context| async move {
        // It waits for what waits for it; that is bounded.
        context.node()?.shutdown().await;
        Ok(Value::Null)
    };
    let provider = node("provider").limits(limits).agent("stop").handler("stop", stop).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let call = caller.call("stop", Value::Null).start().await.unwrap();
    soon("stopped", provider.stopped()).await;
    assert!(is_closed(port_of(&provider)));
    drop(call);
}

#[tokio::test]
async fn a_handler_calls_others_through_its_context_and_keeps_nothing_alive() {
    let far = node("far").agent("double").handler("double", double).start().await.unwrap();
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::new(Flag(Arc::clone(&dropped)));
    let near = node("near").peer(addr_of(&far)).agent("twice").handler("twice", move |task: Task, context: Context| {
        let _flag = Arc::clone(&flag);
        async move {
            let once = context.node()?.call("double", task.payload).await?;
            let twice = context.node()?.call("double", once.payload).await?;
            Ok(twice.payload)
        }
    });
    let near = near.start().await.unwrap();
    let caller = peered("caller", &[&near]).await;
    eventually("they meet", || near.peers().len() == 2).await;
    assert_eq!(caller.call("twice", json!(3)).await.unwrap().payload, json!(12));
    let error = caller.call("twice", json!("x")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::HandlerError);
    assert!(error.message.contains("BAD_REQUEST"), "{error}");
    let port = port_of(&near);
    drop(near);
    eventually("the port is closed", || is_closed(port)).await;
    eventually("the handler is freed", || dropped.load(Ordering::SeqCst)).await;
}

async fn double(task: Task, _: Context) -> TaskResult {
    Ok(json!(task.parse::<i64>()? * 2))
}

#[tokio::test]
async fn a_handler_that_holds_its_node_is_freed_by_shutdown() {
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::new(Flag(Arc::clone(&dropped)));
    let node = node("n").start().await.unwrap();
    let own = node.clone();
    let handler = move |_: Task, _: Context| {
        let (_flag, own) = (Arc::clone(&flag), own.clone());
        async move { Ok::<_, TaskError>(json!(own.name())) }
    };
    node.handle("name", handler).unwrap();
    assert_eq!(node.call("name", Value::Null).allow_local().await.unwrap().payload, json!("n"));
    soon("shutdown", node.shutdown()).await;
    drop(node);
    eventually("the handler is freed", || dropped.load(Ordering::SeqCst)).await;
}

#[tokio::test]
async fn a_handler_may_panic_before_it_gives_its_future() {
    let hasty = |task: Task, _: Context| {
        assert!(task.payload.is_null(), "no such payload");
        async { Ok(Value::Null) }
    };
    let provider = node("provider").agent("hasty").handler("hasty", hasty).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let error = caller.call("hasty", json!(1)).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::HandlerError, Delivery::Answered), "{error}");
    assert_eq!(caller.call("hasty", Value::Null).await.unwrap().payload, Value::Null);
    assert_eq!(provider.metrics().tasks_running, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_does_not_hold_up_a_stop() {
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let block = move |_: Task, _: Context| {
        let blocked = Arc::clone(&blocked);
        async move {
            let _ = blocked.lock().unwrap().recv_timeout(SOON * 2);
            Ok(Value::Null)
        }
    };
    let limits = Limits::default().with(|l| l.drain_timeout = Duration::from_millis(100));
    let provider = node("provider").limits(limits).agent("block").handler("block", block);
    let provider = provider.agent("echo").handler("echo", echo).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let mut call = caller.call("block", Value::Null).start().await.unwrap();
    assert!(call.accepted().await);
    assert_eq!(caller.call("echo", json!(1)).await.unwrap().payload, json!(1), "others go on");
    soon("shutdown", provider.shutdown()).await;
    drop(release);
}

#[tokio::test]
async fn waiting_may_be_given_up_at_any_point_and_taken_up_again() {
    let count = |_: Task, context: Context| async move {
        for n in 0..200 {
            context.chunk(json!(n)).await?;
        }
        Ok(Value::Null)
    };
    let provider = node("provider").agent("count").handler("count", count).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let mut events = provider.subscribe("tick").unwrap();
    let mut call = caller.call("count", Value::Null).start().await.unwrap();
    assert!(call.accepted().await);
    let mut seen = 0;
    // Each wait is given up at its first pause: nothing may be lost, doubled or reordered by that.
    let ended = async {
        loop {
            tokio::select! {
                biased;
                chunk = call.next_chunk() => match chunk {
                    Some(chunk) => {
                        assert_eq!(chunk, json!(seen));
                        seen += 1;
                    }
                    None => return,
                },
                () = tokio::task::yield_now() => {}
            }
            let _ = timeout(Duration::ZERO, call.accepted()).await;
            let _ = timeout(Duration::ZERO, events.recv()).await;
            let _ = timeout(Duration::ZERO, caller.find("count", Some(Duration::from_secs(5)))).await;
            let _ = timeout(Duration::ZERO, caller.connected(SOON)).await;
        }
    };
    soon("all chunks", ended).await;
    assert_eq!(seen, 200);
    assert_eq!(call.outcome().await.unwrap().chunks, 200);
    eventually("nothing is left over", || caller.metrics().calls_running == 0).await;
}

#[tokio::test]
async fn a_call_may_hold_the_last_handle() {
    let call = node("n").agent("echo").handler("echo", echo).start().await.unwrap().call("echo", json!(1));
    assert_eq!(soon("the answer", call.allow_local().into_future()).await.unwrap().payload, json!(1));
}

#[tokio::test]
async fn limits_that_no_node_can_work_with_are_refused() {
    let cases: [fn(&mut Limits); 4] = [
        |l| l.heartbeat_interval = Duration::ZERO,
        |l| l.record_ttl = Duration::from_millis(10),
        |l| l.clock_skew = Duration::MAX,
        |l| l.redial_max = Duration::from_millis(1),
    ];
    for change in cases {
        let started = Node::builder().no_listen().limits(Limits::default().with(change)).start().await;
        assert!(matches!(started, Err(Error::Config(_))), "{started:?}");
    }
}

#[tokio::test]
async fn a_responder_that_goes_down_tells_those_who_wait_for_it() {
    let begun = Arc::new(tokio::sync::Notify::new());
    let starts = Arc::clone(&begun);
    let limits = Limits::default().with(|l| l.drain_timeout = Duration::from_millis(100));
    let provider = node("provider").limits(limits).agent("long").handler("long", move |_, _| {
        let starts = Arc::clone(&starts);
        async move {
            starts.notify_one();
            std::future::pending::<TaskResult>().await
        }
    });
    let provider = provider.start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let call = caller.call("long", Value::Null).start().await.unwrap();
    begun.notified().await;
    provider.shutdown().await;
    let error = call.outcome().await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Answered), "{error}");
    assert!(error.message.contains("went down"), "{error}");
}

/// What was decided on another thread a moment before the end goes out before the goodbye.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_given_up_at_the_very_end_is_still_taken_back() {
    let begun = Arc::new(Notify::new());
    let stopped = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (starts, ends) = (Arc::clone(&begun), Arc::clone(&stopped));
    let provider = node("provider").agent("hang").handler("hang", move |_, context: Context| {
        let (starts, ends) = (Arc::clone(&starts), Arc::clone(&ends));
        async move {
            starts.notify_one();
            context.cancelled().await;
            ends.fetch_add(1, Ordering::SeqCst);
            TaskResult::Err("stopped".into())
        }
    });
    let provider = provider.start().await.unwrap();
    for round in 1..=25 {
        let caller = peered("caller", &[&provider]).await;
        let call = caller.call("hang", Value::Null).start().await.unwrap();
        begun.notified().await;
        let dropped = tokio::task::spawn_blocking(move || drop(call));
        caller.shutdown().await;
        dropped.await.unwrap();
        eventually("the handler was told", || stopped.load(Ordering::SeqCst) == round).await;
    }
}

/// A file of remembered peers that can be read, and then not be written any more.
#[cfg(unix)]
#[tokio::test]
async fn a_memory_that_cannot_be_written_stops_nothing() {
    use elo::DiscoveryState;

    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone");
    let remembered = |node: &Node| node.status().discovery.into_iter().find(|d| d.name == "remembered").unwrap();
    let one = node("one").start().await.unwrap();
    assert_eq!(remembered(&one).state, DiscoveryState::Off, "nothing is found unless it is asked for");
    let two = node("two").remember(gone.join("peers.json")).peer(addr_of(&one)).start().await.unwrap();
    assert_eq!(remembered(&two).state, DiscoveryState::On);
    meets(&two, &[&one]).await;
    eventually("it is told", || remembered(&two).state == DiscoveryState::Failing).await;
    two.shutdown().await;
    // With the folder there, the next one remembers.
    std::fs::create_dir(&gone).unwrap();
    let two = node("two").remember(gone.join("peers.json")).peer(addr_of(&one)).start().await.unwrap();
    meets(&two, &[&one]).await;
    two.shutdown().await;
    let three = node("three").remember(gone.join("peers.json")).start().await.unwrap();
    meets(&three, &[&one]).await;
    assert_eq!(three.peers()[0].found, elo::Source::Remembered);
    three.shutdown().await;
}
