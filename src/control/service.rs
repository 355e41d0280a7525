//! The requests of agents that come through a program of their own, such as `elo mcp`: what the doors have in common.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::AsyncWrite;
use tokio_util::sync::CancellationToken;

use super::protocol::{
    CallArgs, CancelCallArgs, CheckCallArgs, NextEventsArgs, NextTaskArgs, OfferArgs, RecentEventsArgs, ReplyArgs,
    ReplyError, Request, TaskProgressArgs, WakeArgs, WithdrawArgs, op,
};
use super::session::{Gone, Replies, args};
use crate::error::ErrorCode;
use crate::limits::MAX_CAPS;
use crate::node::{Payload, TaskError};
use crate::service::{Desk, Fault, Service, StartCall, Wanted, outcome_with_digits};

/// How long a client may take to say that it has the task it was handed.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Answers such a request.
pub(super) async fn handle<W: AsyncWrite + Unpin>(
    request: &Request,
    service: &Arc<Service>,
    enough: &CancellationToken,
    replies: &mut Replies<W>,
) -> Result<(), Gone> {
    let answered = match request.op.as_str() {
        op::NEXT_TASK => return next_task(&request.args, service, enough, replies).await,
        op::RECENT_EVENTS => return recent_events(&request.args, service, replies).await,
        op::OFFER => offer(&request.args, service),
        op::WITHDRAW => withdraw(&request.args, service),
        op::OFFERS => Ok(offered(service)),
        op::REPLY => reply(&request.args, service),
        op::TASK_PROGRESS => progress(&request.args, service).await,
        op::START_CALL => start_call(&request.args, service).await,
        op::CHECK_CALL => check_call(&request.args, service).await,
        op::CANCEL_CALL => cancel_call(&request.args, service).await,
        op::NEXT_EVENTS => next_events(&request.args, service).await,
        op::WAKE => wake(&request.args, service).await,
        other => Err(Fault::bad_request(format!("unknown operation {other:?}"))),
    };
    match answered {
        Ok(answer) => replies.done(&answer).await,
        Err(fault) => replies.refused(&fault).await,
    }
}

/// An answer, ready to be sent.
type Answer = Result<Box<RawValue>, Fault>;

fn json_of(what: &impl Serialize) -> Answer {
    serde_json::value::to_raw_value(what)
        .map_err(|e| Fault::new("INTERNAL", format!("it can't be written as JSON: {e}")))
}

fn read<T: serde::de::DeserializeOwned>(raw: &RawValue) -> Result<T, Fault> {
    args(raw).map_err(Fault::bad_request)
}

fn offered(service: &Service) -> Box<RawValue> {
    let desk = service.desk();
    let offers: Vec<_> = desk
        .offers()
        .into_iter()
        .map(|offer| {
            let reach = service.reaches().of(&offer.name);
            json!({ "name": offer.name, "kind": offer.kind, "description": offer.description, "reach": reach })
        })
        .collect();
    let (waiting, leased, agents) = desk.counts();
    let told = json!({ "offers": offers, "tasks_waiting": waiting, "tasks_leased": leased, "agents_waiting": agents });
    json_of(&told).unwrap_or_default()
}

fn offer(raw: &RawValue, service: &Service) -> Answer {
    let args: OfferArgs = read(raw)?;
    if args.offers.is_empty() {
        return Err(Fault::bad_request("no capability is named: at least one is to be offered"));
    }
    if args.offers.len() > MAX_CAPS {
        return Err(Fault::bad_request(format!("more than {MAX_CAPS} capabilities")));
    }
    service.desk().offer(&args.offers)?;
    Ok(offered(service))
}

fn withdraw(raw: &RawValue, service: &Service) -> Answer {
    let args: WithdrawArgs = read(raw)?;
    json_of(&json!({ "withdrawn": service.desk().withdraw(&args.name)? }))
}

/// A task on its way to a client: given back, unless the client said that it has it.
struct OnItsWay<'a> {
    desk: &'a Desk,
    task_id: String,
    arrived: bool,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if !self.arrived {
            self.desk.give_back(&self.task_id);
        }
    }
}

async fn next_task<W: AsyncWrite + Unpin>(
    raw: &RawValue,
    service: &Service,
    enough: &CancellationToken,
    replies: &mut Replies<W>,
) -> Result<(), Gone> {
    let wanted = read::<NextTaskArgs>(raw).and_then(|args| match args.capabilities.len() > MAX_CAPS {
        true => Err(Fault::bad_request(format!("more than {MAX_CAPS} capabilities"))),
        false => Ok(Wanted {
            capabilities: args.capabilities,
            wait: Duration::from_millis(args.wait_ms),
            lease: Duration::from_millis(args.lease_ms),
        }),
    });
    let desk = service.desk();
    let next = match wanted {
        Ok(wanted) => desk.next(wanted).await,
        Err(fault) => Err(fault),
    };
    let leased = match next {
        Ok(Some(leased)) => leased,
        Ok(None) => return replies.done(&json!({ "task": false })).await,
        Err(fault) => return replies.refused(&fault).await,
    };
    // Dropped with this future when the client hangs up before it has said so.
    let mut task = OnItsWay { desk, task_id: leased.task_id.clone(), arrived: false };
    replies.item(&leased).await?;
    task.arrived = tokio::time::timeout(HAND_OVER, enough.cancelled()).await.is_ok();
    let arrived = task.arrived;
    drop(task);
    replies.done(&json!({ "task": arrived })).await
}

fn reply(raw: &RawValue, service: &Service) -> Answer {
    let args: ReplyArgs = read(raw)?;
    let answer = match (args.result, args.error) {
        (Some(result), None) => Ok(fitting(&result)?),
        (None, Some(error)) => Err(task_error(error)?),
        _ => return Err(Fault::bad_request("either `result` or `error` is to be given")),
    };
    service.desk().reply(&args.task_id, answer)?;
    json_of(&json!({ "sent": true }))
}

fn task_error(error: ReplyError) -> Result<TaskError, Fault> {
    let code = match error.code.as_deref() {
        None => ErrorCode::HandlerError,
        Some(text) => ErrorCode::from_wire(text)
            .ok_or_else(|| Fault::bad_request(format!("{text:?} is no code of the mesh, such as HANDLER_ERROR")))?,
    };
    Ok(TaskError::with_code(code, error.message))
}

/// What fits into a message; what doesn't is told to the agent, which still has the task then.
fn fitting(json: &RawValue) -> Result<Payload, Fault> {
    let fits = Payload::json(json.get()).into_bytes();
    fits.map(Payload::raw).map_err(|e| Fault::new(e.code().as_str(), format!("it can't be sent: {e}")))
}

async fn progress(raw: &RawValue, service: &Service) -> Answer {
    let args: TaskProgressArgs = read(raw)?;
    let data = args.data.map(|data| fitting(&data)).transpose()?;
    json_of(&service.desk().progress(&args.task_id, data).await?)
}

async fn start_call(raw: &RawValue, service: &Service) -> Answer {
    let args: CallArgs = read(raw)?;
    let call = StartCall {
        capability: args.capability,
        payload: args.payload,
        to: args.to,
        via: args.via,
        once: args.once,
        local: args.local,
        timeout: Duration::from_millis(args.timeout_ms),
        wait: Duration::from_millis(args.wait_ms),
    };
    let id = service.calls().start(&service.node(), call).await?;
    json_of(&json!({ "id": id }))
}

async fn check_call(raw: &RawValue, service: &Service) -> Answer {
    let args: CheckCallArgs = read(raw)?;
    json_of(&service.calls().check(&args.id, args.after, Duration::from_millis(args.wait_ms)).await?)
}

async fn cancel_call(raw: &RawValue, service: &Service) -> Answer {
    let args: CancelCallArgs = read(raw)?;
    json_of(&service.calls().cancel(&args.id).await?)
}

async fn next_events(raw: &RawValue, service: &Service) -> Answer {
    let args: NextEventsArgs = read(raw)?;
    let after = args.after.as_deref().map(str::parse).transpose()?;
    let batch = service.feeds().next(&args.pattern, after, Duration::from_millis(args.wait_ms)).await?;
    json_of(&json!({
        "events": batch.events,
        "lost": batch.lost,
        "restarted": batch.restarted,
        "next": batch.next.to_string(),
    }))
}

async fn recent_events<W: AsyncWrite + Unpin>(
    raw: &RawValue,
    service: &Service,
    replies: &mut Replies<W>,
) -> Result<(), Gone> {
    let args: RecentEventsArgs = match read(raw) {
        Ok(args) => args,
        Err(fault) => return replies.refused(&fault).await,
    };
    for event in service.feeds().recent(args.most) {
        replies.item(&event).await?;
    }
    replies.done(&()).await
}

async fn wake(raw: &RawValue, service: &Service) -> Answer {
    let args: WakeArgs = read(raw)?;
    let woken = service.wake(&args.node, &args.capability, Duration::from_millis(args.timeout_ms.max(1))).await?;
    let mut members = outcome_with_digits(&woken.outcome)
        .ok_or_else(|| Fault::new("INTERNAL", "the outcome can't be written as JSON"))?;
    members.remove("payload");
    members.insert("agent".to_owned(), json_of(&woken.answer)?);
    json_of(&members)
}
