//! Handlers that block their threads, panic, or never come back.

use std::future::pending;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elo::{Context, ErrorCode, Limits, Node, Task, TaskResult};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::mesh::{addr_of, node, peered};
use super::until;

/// Tests whose handlers block take turns: the threads for handlers belong to the whole process.
static BLOCKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

/// A provider on a thread of its own with a runtime that has no other, and handlers that block until something is sent.
fn on_one_thread(limits: Limits) -> (Node, Vec<Sender<()>>, impl FnOnce()) {
    let (releases, blocked): (Vec<_>, Vec<_>) = (0..64).map(|_| channel::<()>()).unzip();
    let blocked = Arc::new(Mutex::new(blocked));
    let (started, node_of) = std::sync::mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let block = move |_: Task, _: Context| {
                let held = blocked.lock().unwrap().pop();
                async move {
                    let _ = held.map(|held| held.recv());
                    Ok(Value::Null)
                }
            };
            let node = node("provider").limits(limits).agent("block").handler("block", block);
            let node = node.agent("echo").handler("echo", echo).start().await.unwrap();
            started.send(node.clone()).unwrap();
            let _ = ended.await;
            node.shutdown().await;
        });
    });
    let node = node_of.recv().unwrap();
    let end = move || {
        let _ = end.send(());
        thread.join().unwrap();
    };
    (node, releases, end)
}

fn short() -> Limits {
    Limits::default().with(|l| {
        l.heartbeat_interval = Duration::from_millis(200);
        l.idle_timeout = Duration::from_secs(2);
        l.drain_timeout = Duration::from_millis(100);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_blocks_its_thread_holds_up_nobody_else() {
    let _turn = BLOCKING.lock().await;
    let (provider, releases, end) = on_one_thread(short());
    let caller = node("caller").limits(short()).peer(addr_of(&provider)).start().await.unwrap();
    super::mesh::meets(&caller, &[&provider]).await;
    let since = || caller.peers()[0].connected_s;
    let mut call = caller.call("block", Value::Null).timeout(Duration::from_secs(4)).start().await.unwrap();
    assert!(call.accepted().await, "its acceptance comes though it blocks");
    // Longer than silence is borne: heartbeats go on, and so do other tasks, of which one comes now and then only.
    until("they are connected for long", || since() >= 5).await;
    assert_eq!(caller.call("echo", json!(1)).await.unwrap().payload, json!(1));
    assert_eq!(caller.call("ping", json!(2)).to(provider.id().to_string()).await.unwrap().payload["pong"], json!(2));
    // Its deadline is kept, and its place given back, while the thread is still held.
    let error = call.outcome().await.unwrap_err();
    assert!(matches!(error.code, ErrorCode::Timeout | ErrorCode::Expired), "{error}");
    until("the place is given back", || provider.metrics().tasks_running == 0).await;
    assert_eq!(caller.metrics().closed.values().sum::<u64>(), 0, "{:?}", caller.metrics().closed);
    drop(releases);
    end();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_thread_is_held_tasks_are_refused_and_the_node_lives_on() {
    let _turn = BLOCKING.lock().await;
    let (provider, releases, end) = on_one_thread(short());
    let caller = peered("caller", &[&provider]).await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(caller.call("block", Value::Null).timeout(Duration::from_secs(300)).start().await.unwrap());
    }
    // More of them than there are threads: the rest never began, and says so.
    let error = caller.call("echo", json!(1)).timeout(Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Overloaded, "{error}");
    assert!(error.message.contains("not begun") && error.retry_after.is_some(), "{error}");
    assert_eq!(caller.call("ping", json!(2)).to(provider.id().to_string()).await.unwrap().payload["pong"], json!(2));
    drop(releases);
    super::answered(&caller, &provider.id().to_string(), json!("again")).await;
    drop(held);
    until("nothing is at work", || provider.metrics().tasks_running == 0).await;
    end();
}

#[tokio::test]
async fn handlers_that_panic_at_any_point_are_answers() {
    let panics = |task: Task, context: Context| async move {
        for n in 0..3 {
            context.chunk(json!(n)).await?;
            assert_ne!(task.payload, json!(n), "as wanted");
            tokio::task::yield_now().await;
        }
        Ok(Value::Null)
    };
    let limits = Limits::default().with(|l| l.max_tasks = 1);
    let provider = node("provider").limits(limits).agent("panics").handler("panics", panics).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    for n in 0..20 {
        let result = caller.call("panics", json!(n % 4)).await;
        match n % 4 {
            3 => assert_eq!(result.unwrap().chunks, 3),
            _ => assert_eq!(result.unwrap_err().code, ErrorCode::HandlerError),
        }
        until("the only place is given back", || provider.metrics().tasks_running == 0).await;
    }
}

#[tokio::test]
async fn a_handler_that_never_ends_is_ended_by_its_deadline_and_gives_its_place_back() {
    // It does not listen to its cancellation either.
    let never = |_: Task, _: Context| pending::<TaskResult>();
    let limits = Limits::default().with(|l| l.max_tasks = 1);
    let provider = node("provider").limits(limits).agent("never").handler("never", never);
    let provider = provider.agent("echo").handler("echo", echo).start().await.unwrap();
    let caller = peered("caller", &[&provider]).await;
    let error = caller.call("never", Value::Null).timeout(Duration::from_secs(1)).await.unwrap_err();
    assert!(matches!(error.code, ErrorCode::Timeout | ErrorCode::Expired), "{error}");
    until("the only place is given back", || provider.metrics().tasks_running == 0).await;
    assert_eq!(caller.call("echo", json!(1)).await.unwrap().payload, json!(1));
}
