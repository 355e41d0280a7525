//! A provider, or somebody who would like to be taken for it, answers the node's calls wrongly.

use std::time::Duration;

use elo::wire::Builder;
use elo::{CallError, CallHandle, Delivery, ErrorCode, Outcome};
use serde_json::{Value, json};

use crate::raw::{Raw, relay, sign};
use crate::target::{Target, target};

/// The node calls what `provider` provides; gives the call, and its task's id.
async fn call(target: &Target, provider: &mut Raw) -> (CallHandle, String) {
    let call = target.node.call("rare", json!(1)).timeout(Duration::from_secs(20)).start().await.unwrap();
    let task = provider.until("the task", |m| m["type"] == "task").await;
    assert_eq!(task["target"], provider.id().to_string());
    let id = task["id"].as_str().unwrap().to_owned();
    (call, id)
}

/// How the call ended: it must, in good time.
async fn outcome(call: CallHandle) -> Result<Outcome, CallError> {
    tokio::time::timeout(Duration::from_secs(30), call.outcome()).await.expect("the call ends")
}

async fn provider(target: &Target) -> Raw {
    let mut provider = Raw::connect(&target.node).await;
    provider.provide("rare").await;
    provider
}

fn chunk(of: &Raw, id: &str, seq: u64) -> Builder {
    Builder::new("chunk").str("id", id).u64("seq", seq).raw("data", b"0").str("responder", &of.id().to_string())
}

fn accepted(of: &Raw, id: &str) -> Builder {
    Builder::new("accepted").str("id", id).str("responder", &of.id().to_string())
}

#[tokio::test]
async fn answers_that_nobody_asked_for_are_counted_and_nothing_more() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    raw.sends(raw.result_of("never")).await;
    raw.sends(accepted(&raw, "never")).await;
    raw.sends(chunk(&raw, "never", 0)).await;
    raw.heard().await;
    assert_eq!(target.refused("unasked_result"), 3);
    raw.send(&Builder::new("query_resp").str("id", "never").str("origin", &raw.peer.to_string()).build()).await;
    raw.send(&Builder::new("query_resp").str("id", "never").str("origin", &raw.id().to_string()).build()).await;
    raw.heard().await;
    assert_eq!((target.refused("late_answer"), target.refused("unasked_answer")), (1, 1));
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn only_the_node_that_was_asked_can_answer() {
    let target = target().await;
    let mut provider = provider(&target).await;
    let mut thief = Raw::connect(&target.node).await;
    let (call, id) = call(&target, &mut provider).await;
    // In its own name, directly and as if relayed; in the provider's name without its key; without a signature.
    thief.sends(thief.result_of(&id)).await;
    thief.sends(chunk(&thief, &id, 0)).await;
    let own = sign(thief.result_of(&id), &thief.identity);
    thief.send(&relay(&thief.peer, &thief.id(), &own).build()).await;
    thief.heard().await;
    // What comes through a tracker must name its caller, too.
    assert_eq!((target.refused("unasked_result"), target.refused("anothers_answer")), (2, 1));
    thief.sends(provider.result_of(&id)).await;
    thief.send(&provider.result_of(&id).build()).await;
    thief.send(&relay(&thief.peer, &provider.id(), &sign(provider.result_of(&id), &thief.identity)).build()).await;
    thief.heard().await;
    assert_eq!(target.refused("bad_signature"), 3);
    // What the provider signed, for another call, brought by another.
    thief.send(&sign(provider.result_of(&id), &provider.identity)).await;
    thief.heard().await;
    assert_eq!(target.refused("not_the_signer"), 1);
    provider.sends(provider.result_of(&id)).await;
    let outcome = outcome(call).await.unwrap();
    assert_eq!((outcome.payload.into_value(), outcome.responder), (json!("mine"), provider.id()));
    drop((provider, thief));
    target.unharmed().await;
}

#[tokio::test]
async fn a_result_with_a_wrong_signature_is_ignored_and_the_real_one_is_taken_once() {
    let target = target().await;
    let mut provider = provider(&target).await;
    let (call, id) = call(&target, &mut provider).await;
    let real = sign(provider.result_of(&id), &provider.identity);
    provider.send(&real.with_member("payload", b"\"changed\"")).await;
    provider.send(&provider.result_of(&id).build()).await;
    provider.send(&sign(provider.result_of(&id).null("responder"), &provider.identity)).await;
    provider.heard().await;
    assert_eq!((target.refused("bad_signature"), target.node.metrics().calls_running), (3, 1));
    provider.send(&real).await;
    assert_eq!(outcome(call).await.unwrap().payload, json!("mine"));
    provider.send(&real).await;
    provider.heard().await;
    assert_eq!((target.refused("unasked_result"), target.node.metrics().calls_done), (1, 1));
    drop(provider);
    target.unharmed().await;
}

#[tokio::test]
async fn a_chunk_beyond_the_window_ends_the_call_with_an_error() {
    let target = target().await;
    let mut provider = provider(&target).await;
    for seq in [32, u64::MAX] {
        let (call, id) = call(&target, &mut provider).await;
        provider.sends(chunk(&provider, &id, seq)).await;
        let error = outcome(call).await.unwrap_err();
        assert_eq!((error.code, error.delivery), (ErrorCode::Internal, Delivery::Accepted), "{error}");
        assert!(error.message.contains("more chunks"), "{error}");
        provider.until("it is told to stop", |m| m["type"] == "cancel" && m["id"] == id).await;
    }
    drop(provider);
    target.unharmed().await;
}

#[tokio::test]
async fn chunks_out_of_order_and_twice_are_delivered_in_order_and_once() {
    let target = target().await;
    let mut provider = provider(&target).await;
    let (mut call, id) = call(&target, &mut provider).await;
    for seq in [31, 2, 0, 0, 1, 2, 1] {
        provider.sends(chunk(&provider, &id, seq).u64("data", seq)).await;
    }
    provider.sends(provider.result_of(&id).u64("chunks", 3)).await;
    let mut chunks = Vec::new();
    while let Some(chunk) = call.next_chunk().await {
        chunks.push(chunk);
    }
    assert_eq!(chunks, [json!(0), json!(1), json!(2)]);
    assert_eq!(outcome(call).await.unwrap().payload, json!("mine"));
    drop(provider);
    target.unharmed().await;
}

#[tokio::test]
async fn whatever_a_refusal_says_of_when_to_come_back_the_call_ends_with_it() {
    let target = target().await;
    let mut provider = provider(&target).await;
    for (code, expected) in [("RATE_LIMITED", ErrorCode::RateLimited), ("HANDLER_ERROR", ErrorCode::HandlerError)] {
        for (after, taken) in [("-1", None), ("1e300", None), ("-0.0", None), ("0.5", Some(0.5)), ("99999999999", None)]
        {
            let (call, id) = call(&target, &mut provider).await;
            let error = format!(r#"{{"code":"{code}","message":"no","retry_after_s":{after}}}"#);
            let answer = provider.result_of(&id).str("status", "error");
            // Canonical only if the number is: the node checks what it is given either way.
            let answer = match elo::wire::canonicalize_json(error.as_bytes()) {
                Ok(canonical) => answer.raw("error", &canonical),
                Err(_) => continue,
            };
            provider.sends(answer).await;
            let error = outcome(call).await.unwrap_err();
            assert_eq!(error.code, expected, "{after}: {error}");
            let given = error.retry_after.map(|d| d.as_secs_f64()).filter(|s| *s > 0.0);
            assert_eq!(given, taken, "{after}");
        }
    }
    drop(provider);
    target.unharmed().await;
}

#[tokio::test]
async fn an_error_of_another_program_is_told_in_its_words() {
    let target = target().await;
    let mut provider = provider(&target).await;
    let rows =
        [(r#"{"code":"QUOTA","message":"none left"}"#, "QUOTA: none left"), (r#"{"message":"x"}"#, "x"), ("{}", "")];
    for (error, message) in rows {
        let (call, id) = call(&target, &mut provider).await;
        provider.sends(provider.result_of(&id).str("status", "error").raw("error", error.as_bytes())).await;
        assert_eq!(outcome(call).await.unwrap_err().message, message);
    }
    drop(provider);
    target.unharmed().await;
}

#[tokio::test]
async fn a_provider_that_comes_back_as_another_run_is_not_asked_twice() {
    let target = target().await;
    let mut provider = provider(&target).await;
    let (call, id) = call(&target, &mut provider).await;
    provider.sends(accepted(&provider, &id)).await;
    provider.heard().await;
    let mut next = Raw::connect_as(&target.node, &provider.identity, "another run").await;
    assert_eq!(provider.bye().await, "DUPLICATE");
    let error = outcome(call).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Accepted), "{error}");
    let heard: Vec<Value> = next.heard().await;
    assert!(heard.iter().all(|m| m["type"] != "task"), "{heard:?}");
    drop(next);
    target.unharmed().await;
}

#[tokio::test]
async fn a_relay_error_counts_only_from_the_tracker_that_was_asked() {
    let target = target().await;
    let mut provider = provider(&target).await;
    let mut thief = Raw::connect(&target.node).await;
    let (call, id) = call(&target, &mut provider).await;
    for source in [None, Some(thief.peer.to_string()), Some(thief.id().to_string())] {
        let error = Builder::new("relay_error").str("id", &id).str("target", &provider.id().to_string());
        let error = error.str("code", "PEER_GONE").str("message", "gone").opt_str("source", source.as_deref());
        thief.send(&error.build()).await;
    }
    thief.heard().await;
    provider.sends(provider.result_of(&id)).await;
    assert_eq!(outcome(call).await.unwrap().payload, json!("mine"));
    drop((provider, thief));
    target.unharmed().await;
}
