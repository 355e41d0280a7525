//! Tools of an agent that serves others.

use std::collections::BTreeMap;

use serde_json::json;
use serde_json::value::RawValue;

use super::refusal::Refusal;
use super::server::{Session, handed_over, raw};
use super::tools::{MAX_TIME_S, MAX_WAIT_S, NextTask, OfferTool, ProgressTool, ReplyTool, millis, seconds};
use super::watch::Watch;
use crate::control::{NextTaskArgs, OfferArgs, Reply, ReplyArgs, ReplyError, TaskProgressArgs, WithdrawArgs, op};
use crate::limits::MAX_CAPS;
use crate::service::Offer;

/// How long a task is waited for: less than the minute that most clients wait for a tool.
const WAIT_S: f64 = 45.0;

/// How long a model has for a task: it thinks, and asks its user.
const LEASE_S: f64 = 300.0;

pub(super) async fn offer(session: &Session, args: OfferTool) -> Result<Box<RawValue>, Refusal> {
    if args.capabilities.is_empty() && args.withdraw.is_empty() {
        return Err(Refusal::bad_request("say in capabilities what is offered: [{\"name\": \"review\"}]"));
    }
    if args.capabilities.len() > MAX_CAPS || args.withdraw.len() > MAX_CAPS {
        return Err(Refusal::bad_request(format!("more than {MAX_CAPS} at once")));
    }
    for name in args.withdraw {
        session.offers().remove(&name);
        session.link.answer(op::WITHDRAW, &WithdrawArgs { name }).await?;
    }
    if !args.capabilities.is_empty() {
        session.link.answer(op::OFFER, &OfferArgs { offers: args.capabilities.clone() }).await?;
        let mut offers = session.offers();
        for offer in args.capabilities {
            if offers.len() < MAX_CAPS || offers.contains_key(&offer.name) {
                offers.insert(offer.name.clone(), offer);
            }
        }
    }
    let names: Vec<String> = session.offers().keys().cloned().collect();
    raw(&json!({ "offered": names, "next": "Call next_task to take the tasks, and reply to answer them." }))
}

pub(super) async fn next_task(session: &Session, args: NextTask, mut watch: Watch) -> Result<Box<RawValue>, Refusal> {
    let wait = seconds("wait_s", args.wait_s, WAIT_S, MAX_WAIT_S)?;
    let lease = seconds("lease_s", args.lease_s, LEASE_S, MAX_TIME_S)?;
    let wanted = NextTaskArgs { capabilities: args.capabilities, wait_ms: millis(wait), lease_ms: millis(lease) };
    match next(session, &wanted, &mut watch).await {
        // A node that was started anew doesn't know what this agent offers.
        Err(refusal) if refusal.code() == "NOT_FOUND" => {
            let offers: Vec<Offer> = session.offers().values().cloned().collect();
            if offers.is_empty() {
                return Err(refusal);
            }
            session.link.answer(op::OFFER, &OfferArgs { offers }).await?;
            next(session, &wanted, &mut watch).await
        }
        done => done,
    }
}

async fn next(session: &Session, wanted: &NextTaskArgs, watch: &mut Watch) -> Result<Box<RawValue>, Refusal> {
    let mut client = session.link.ask(op::NEXT_TASK, wanted).await?;
    let mut task = None;
    loop {
        match watch.reply(&mut client).await? {
            Reply::Item(leased) => {
                if watch.is_over() {
                    // Hanging up gives it back.
                    return Err(Refusal::cancelled());
                }
                client.has_it().await;
                task = Some(leased);
            }
            Reply::Done(_) => break,
            Reply::Error(error) => return Err(Refusal::from_reply(&error)),
            Reply::Progress(_) => {}
        }
    }
    match task {
        Some(task) => raw(&BTreeMap::from([("task", task)])),
        None => {
            raw(&json!({ "task": null, "note": "No task came in this time. Call next_task again to go on waiting." }))
        }
    }
}

pub(super) async fn reply(session: &Session, args: ReplyTool) -> Result<Box<RawValue>, Refusal> {
    let (result, error) = match (args.result, args.result_json, args.error) {
        (Some(result), None, None) => (Some(handed_over("result", &result, None)?), None),
        (None, Some(text), None) => (Some(handed_over("result", &serde_json::Value::Null, Some(text))?), None),
        (None, None, Some(message)) => (None, Some(ReplyError { code: None, message })),
        _ => return Err(Refusal::bad_request("give one of result, result_json and error")),
    };
    let reply = ReplyArgs { task_id: args.task_id, result, error };
    session.link.answer(op::REPLY, &reply).await?;
    raw(&json!({ "sent": true, "next": "Call next_task to take the next task." }))
}

pub(super) async fn progress(session: &Session, args: ProgressTool) -> Result<Box<RawValue>, Refusal> {
    let report = TaskProgressArgs { task_id: args.task_id, data: Some(raw(&args.text)?) };
    session.link.answer(op::TASK_PROGRESS, &report).await
}
