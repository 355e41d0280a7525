//! Processes that are suspended, as a laptop's are when it is closed: its peers notice, and when it wakes all is as before.

use std::time::Duration;

use elo::{ErrorCode, Limits, Node};
use rustix::process::Signal;
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

use super::common::Home;
use super::mesh::{addr_of, eventually, node};
use super::{answered, until};

/// Asks a node for a sign of life all the time, for as long as the task lives: it says something by itself only every 30 s,
/// which is too rare for an idle timeout that a test can wait for.
fn keep_talking(node: &Node, id: String) -> AbortOnDropHandle<()> {
    let node = node.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            drop(node.call("ping", json!(0)).to(id.clone()).timeout(Duration::from_secs(1)).await);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }))
}

fn limits() -> Limits {
    Limits::default().with(|l| {
        l.heartbeat_interval = Duration::from_millis(500);
        l.idle_timeout = Duration::from_secs(8);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_suspended_is_noticed_and_comes_back() {
    let home = Home::new();
    let caller = node("caller").limits(limits()).start().await.unwrap();
    let provider = home.serve(&["--agent", "echo", "--peer", &addr_of(&caller)]);
    let id = provider.id();
    answered(&caller, &id, json!(1)).await;
    let _talk = keep_talking(&caller, id.clone());
    provider.signal(Signal::STOP);
    let call = caller.call("echo", json!(2)).to(id.clone()).timeout(Duration::from_secs(120));
    let error = call.await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PeerGone, "{error}");
    until("it is noticed", || caller.peers().is_empty()).await;
    provider.signal(Signal::CONT);
    answered(&caller, &id, json!(3)).await;
    let own = home.run(["call", "echo", "4", "--json"]).json();
    assert_eq!(own["payload"], json!(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_caller_that_was_suspended_end_when_it_wakes() {
    let home = Home::new();
    let hang = |_: elo::Task, context: elo::Context| async move {
        context.cancelled().await;
        Err::<serde_json::Value, _>("cancelled".into())
    };
    let limits = limits().with(|l| l.caller_timeout = Duration::from_secs(2));
    let provider = node("provider").limits(limits).agent("hang").handler("hang", hang);
    let provider = provider.agent("echo").handler("echo", |task: elo::Task, _| async move { Ok(task.payload) });
    let provider = provider.start().await.unwrap();
    let caller = home.serve(&["--peer", &addr_of(&provider)]);
    eventually("they meet", || provider.peers().len() == 1).await;
    let _talk = keep_talking(&provider, caller.id());
    let call = home.command(["call", "hang", "--timeout", "600", "--json"]);
    let call = tokio::task::spawn_blocking(move || super::common::run_for(call, super::PATIENCE * 3));
    until("the task runs", || provider.metrics().tasks_running == 1).await;
    caller.signal(Signal::STOP);
    until("it is noticed", || provider.peers().is_empty()).await;
    until("nobody works for it any more", || provider.metrics().tasks_running == 0).await;
    caller.signal(Signal::CONT);
    // It may have found out by itself that it was away, or be told so when it asks again.
    let ran = call.await.unwrap();
    assert!([1, 4].contains(&ran.code) && ran.stderr.contains("PEER_GONE"), "{ran:?}");
    let again = tokio::task::spawn_blocking(move || home.run(["call", "echo", "1", "--json"]).json()).await.unwrap();
    assert_eq!(again["payload"], json!(1));
}
