//! Tools that have others do something.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;

use super::look;
use super::refusal::Refusal;
use super::server::{Session, handed_over, raw};
use super::tools::{CallAgent, CancelCall, CheckCall, MAX_TIME_S, MAX_WAIT_S, millis, seconds};
use super::watch::Watch;
use crate::control::{CallArgs, CancelCallArgs, CheckCallArgs, Reply, Stage, op};

/// How long an answer may take, and how much of it an agent that was waited for has at least, in seconds.
const TIMEOUT_S: f64 = 60.0;

/// The most bytes of parts of an answer that are given with it; the client was told of each as it came.
const MAX_PARTS: usize = 1024 * 1024;

/// Of an outcome, what a model can use.
const TOLD: &[&str] = &["id", "payload", "responder", "responder_name", "route", "timings"];

pub(super) async fn call_agent(session: &Session, args: CallAgent, watch: Watch) -> Result<Box<RawValue>, Refusal> {
    let payload = handed_over("payload", &args.payload, args.payload_json)?;
    let wait = seconds("wait_for_agent_s", args.wait_for_agent_s, 0.0, MAX_TIME_S)?;
    let usual = if wait.is_zero() { TIMEOUT_S } else { (wait.as_secs_f64() + TIMEOUT_S).min(MAX_TIME_S) };
    let timeout = seconds("timeout_s", args.timeout_s, usual, MAX_TIME_S)?;
    if timeout.is_zero() || wait >= timeout {
        return Err(Refusal::bad_request(
            "timeout_s leaves no time for the work: it is to be more than wait_for_agent_s",
        ));
    }
    let capability = match (args.capability, &args.node) {
        (Some(capability), _) => capability,
        (None, Some(node)) => look::only_capability(session, node).await?,
        (None, None) => return Err(Refusal::bad_request("name a capability, or a node, or both")),
    };
    let wanted = args.wait.unwrap_or(true);
    let call = CallArgs {
        capability,
        payload,
        to: args.node,
        via: None,
        once: false,
        timeout_ms: millis(timeout),
        stream: wanted,
        // Other agents of this home come through the same node.
        local: true,
        progress: wanted && watch.is_seen(),
        wait_ms: millis(wait),
    };
    match wanted {
        true => answer(session, &call, watch).await,
        false => session.link.answer(op::START_CALL, &call).await,
    }
}

/// Waits for the answer. The call ends with the connection, should the client take its request back.
async fn answer(session: &Session, call: &CallArgs, mut watch: Watch) -> Result<Box<RawValue>, Refusal> {
    let mut client = session.link.ask(op::CALL, call).await?;
    let mut parts: Vec<Box<RawValue>> = Vec::new();
    let (mut kept, mut left_out) = (0, 0u64);
    loop {
        match watch.reply(&mut client).await? {
            Reply::Progress(progress) => {
                let with = progress.with.map(|with| format!(" ({with})")).unwrap_or_default();
                let stage = match progress.stage {
                    Stage::Looking => "looking for somebody",
                    Stage::Sent => "sent",
                    Stage::Accepted => "accepted: it is being worked on",
                };
                watch.tell(&format!("{stage}{with}")).await;
            }
            Reply::Item(part) => {
                watch.tell(&said(&part)).await;
                kept += part.get().len();
                if kept <= MAX_PARTS {
                    parts.push(part);
                } else {
                    left_out += 1;
                }
            }
            Reply::Error(error) => return Err(Refusal::from_reply(&error)),
            Reply::Done(outcome) => {
                let mut members = outcome_of(&outcome)?;
                if !parts.is_empty() {
                    members.insert("parts".to_owned(), raw(&parts)?);
                }
                if left_out > 0 {
                    members.insert("parts_left_out".to_owned(), raw(&left_out)?);
                }
                return raw(&members);
            }
        }
    }
}

/// A part of an answer for a person: text as text.
fn said(part: &RawValue) -> String {
    serde_json::from_str::<String>(part.get()).unwrap_or_else(|_| part.get().to_owned())
}

fn outcome_of(outcome: &RawValue) -> Result<BTreeMap<String, Box<RawValue>>, Refusal> {
    let mut members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(outcome.get()).map_err(Refusal::unreadable)?;
    members.retain(|name, _| TOLD.contains(&name.as_str()));
    Ok(members)
}

pub(super) async fn check_call(session: &Session, args: CheckCall, mut watch: Watch) -> Result<Box<RawValue>, Refusal> {
    let wait = seconds("wait_s", args.wait_s, 0.0, MAX_WAIT_S)?;
    let check = CheckCallArgs { id: args.id, after: args.after.unwrap_or(0), wait_ms: millis(wait) };
    let mut client = session.link.ask(op::CHECK_CALL, &check).await?;
    loop {
        match watch.reply(&mut client).await? {
            Reply::Done(progress) => return state(&progress),
            Reply::Error(error) => return Err(Refusal::from_reply(&error)),
            Reply::Item(_) | Reply::Progress(_) => {}
        }
    }
}

pub(super) async fn cancel_call(session: &Session, args: CancelCall) -> Result<Box<RawValue>, Refusal> {
    // It answers within seconds, whatever the responder does.
    let args = CancelCallArgs { id: args.id };
    let cancel = session.link.answer(op::CANCEL_CALL, &args);
    match tokio::time::timeout(Duration::from_secs(30), cancel).await {
        Ok(progress) => state(&progress?),
        Err(_) => Err(Refusal::new("TIMEOUT", "the node did not answer")),
    }
}

/// What is known of a call, for a model. A call that failed was checked well: it is no error of the check.
fn state(progress: &RawValue) -> Result<Box<RawValue>, Refusal> {
    let mut members: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(progress.get()).map_err(Refusal::unreadable)?;
    if let Some(outcome) = members.remove("outcome") {
        members.insert("outcome".to_owned(), raw(&outcome_of(&outcome)?)?);
    }
    if let Some(error) = members.remove("error") {
        let error: serde_json::Value = serde_json::from_str(error.get()).map_err(Refusal::unreadable)?;
        let told = json!({
            "code": error["code"], "message": error["message"], "delivery": error["call"]["delivery"],
            "retry_after_s": error["retry_after_s"],
        });
        members.insert("error".to_owned(), raw(&told)?);
    }
    raw(&members)
}
