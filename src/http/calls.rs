//! Calls: asked for and waited for, or asked for and looked after here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::extract::{InPath, Input, Params, seconds, timeout};
use super::problem::{Details, Problem};
use super::{Api, problems, schemas, sse};
use crate::limits::MAX_TTL_S;
use crate::service::{CallProgress, CallState, Fault, StartCall, outcome_with_digits};

/// How long an answer may take, unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest that news of a call can be waited for in one go.
const MAX_WAIT: Duration = Duration::from_secs(600);

const MAX_TTL: Duration = Duration::from_secs(MAX_TTL_S);

/// A call.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"capability": "summarize", "payload": {"text": "It was the best of times."}, "timeout_s": 30}))]
pub(super) struct NewCall {
    /// What is asked for.
    #[schema(value_type = schemas::Name)]
    capability: String,
    /// With what: any JSON, which keeps its digits. Default: `null`.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    payload: Option<Box<RawValue>>,
    /// Whom to ask: a node's id, the beginning of its id, or its name. Default: whoever can.
    #[schema(value_type = Option<schemas::Name>)]
    to: Option<String>,
    /// The tracker to go through.
    #[schema(value_type = Option<schemas::Name>)]
    via: Option<String>,
    /// Rather fail than go to somebody else when it is unknown whether the task ran. Default: `false`.
    #[serde(default)]
    once: bool,
    /// Whether an agent of this node itself may answer. Default: `true`.
    #[serde(default = "yes")]
    #[schema(default = true)]
    local: bool,
    /// How long the answer may take in all, in seconds. Default: 60.
    #[schema(exclusive_minimum = 0, maximum = 86_400, default = 60)]
    timeout_s: Option<f64>,
    /// How much of that an agent that is away may be waited for, in seconds. Default: 0, it fails with `AGENT_AWAY` at once.
    #[schema(minimum = 0, maximum = 86_400, default = 0)]
    wait_for_agent_s: Option<f64>,
    /// Answer at once with an id, by which the outcome can be asked for. Default: `false`.
    #[serde(default, rename = "async")]
    later: bool,
}

fn yes() -> bool {
    true
}

impl NewCall {
    fn start(self) -> Result<StartCall, Problem> {
        Ok(StartCall {
            capability: self.capability,
            payload: self.payload.unwrap_or_else(|| RawValue::NULL.to_owned()),
            to: self.to,
            via: self.via,
            once: self.once,
            local: self.local,
            timeout: timeout("timeout_s", self.timeout_s, TIMEOUT, MAX_TTL)?,
            wait: seconds("wait_for_agent_s", self.wait_for_agent_s, Duration::ZERO, MAX_TTL)?,
        })
    }
}

/// A call that is under way.
#[derive(Serialize, ToSchema)]
pub(super) struct Started {
    /// What it is asked for by.
    id: String,
}

/// What is known of a call.
#[derive(Serialize, ToSchema)]
pub(super) struct Call {
    /// What it is asked for by.
    id: String,
    /// What was asked for.
    capability: String,
    /// How far it is.
    state: CallState,
    /// Parts of the answer that came before it, from number `after` on.
    #[schema(value_type = Vec<Value>)]
    chunks: Vec<Box<RawValue>>,
    /// The number of the next part: to be given as `after`.
    next: u64,
    /// How many parts were lost because nobody asked for them in time.
    lost: u64,
    /// The outcome, when it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schemas::Outcome>)]
    outcome: Option<Box<RawValue>>,
    /// What went wrong, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Details>,
}

impl From<CallProgress> for Call {
    fn from(progress: CallProgress) -> Self {
        Self {
            id: progress.id,
            capability: progress.capability,
            state: progress.state,
            chunks: progress.chunks,
            next: progress.next,
            lost: progress.lost,
            outcome: progress.outcome,
            error: progress.error.map(|fault| Problem::from(fault).details()),
        }
    }
}

/// Calls a capability. The answer is the outcome; with `"async": true` it is an id at once; with `Accept:
/// text/event-stream` it is a stream of `sent`, `accepted`, each `chunk`, and `outcome` or `error`. Whoever hangs up takes the
/// call back, unless it was `async`.
#[utoipa::path(
    post, path = "/v1/calls", tag = "calls",
    request_body = NewCall,
    responses(
        (status = 200, description = "The outcome.", content(
            (schemas::Outcome = "application/json"),
            (schemas::StreamEvent = "text/event-stream"),
        )),
        (status = 202, description = "It is under way.", body = Started,
            headers(("Location" = String, description = "Where it can be asked for."))),
        problems::CallProblems,
    )
)]
pub(super) async fn start(
    State(api): State<Api>,
    headers: HeaderMap,
    Input(call): Input<NewCall>,
) -> Result<Response, Problem> {
    let node = api.service().node();
    let later = call.later;
    let call = call.start()?;
    if later {
        let id = api.service().calls().start(&node, call).await?;
        let place = HeaderValue::from_str(&format!("/v1/calls/{id}"));
        let place = place.map_err(|_| Problem::from(Fault::new("INTERNAL", "the call's id is no header")))?;
        return Ok((StatusCode::ACCEPTED, [(header::LOCATION, place)], Json(Started { id })).into_response());
    }
    // Dropped with this request when whoever asked hangs up: that takes the call back.
    let handle = call.on(&node).start().await?;
    if sse::is_wanted(&headers) {
        return Ok(sse::call(&api, handle));
    }
    let outcome = handle.outcome().await?;
    let members = outcome_with_digits(&outcome);
    let members = members.ok_or_else(|| Fault::new("INTERNAL", "the outcome can't be written as JSON"))?;
    Ok(Json(members).into_response())
}

/// What is wanted of a call.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Look {
    /// The number of the first part of the answer that was not seen: `next` of the time before.
    #[serde(default)]
    #[param(required = false)]
    after: u64,
    /// How long to wait for the end, or for more parts, in seconds. Default: 0.
    #[param(value_type = f64, required = false, minimum = 0, maximum = 600)]
    wait_s: Option<f64>,
}

/// What is known of a call that was made with `async`. It is forgotten 10 minutes after its end.
#[utoipa::path(
    get, path = "/v1/calls/{id}", tag = "calls",
    params(("id" = String, Path, description = "The call's id."), Look),
    responses((status = 200, description = "How far it is.", body = Call), problems::LookProblems)
)]
pub(super) async fn look(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    Params(look): Params<Look>,
) -> Result<Json<Call>, Problem> {
    let wait = seconds("wait_s", look.wait_s, Duration::ZERO, MAX_WAIT)?;
    Ok(Json(api.service().calls().check(&id, look.after, wait).await?.into()))
}

/// Where a stream goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "for the description; the header is read by itself")]
pub(super) struct LastPart {
    /// The last part that was seen.
    #[param(rename = "Last-Event-ID", value_type = schemas::PartNumber, required = false, inline)]
    last_event_id: Option<String>,
}

/// Follows a call that was made with `async`: each `chunk`, whose id is its number, and `outcome` or `error`; `gap` says how many
/// parts were lost. `Last-Event-ID` goes on after that part.
#[utoipa::path(
    get, path = "/v1/calls/{id}/events", tag = "calls",
    params(("id" = String, Path, description = "The call's id."), LastPart),
    responses(
        (status = 200, description = "What comes of it.", body = schemas::StreamEvent, content_type = "text/event-stream"),
        problems::LookProblems,
    )
)]
pub(super) async fn follow(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let calls = Arc::clone(api.service().calls());
    // That there is none is no stream.
    calls.check(&id, 0, Duration::ZERO).await?;
    let after = match sse::last_id(&headers)? {
        None => 0,
        Some(text) => text
            .parse::<u64>()
            .ok()
            .and_then(|last| last.checked_add(1))
            .ok_or_else(|| Problem::bad_request(format!("Last-Event-ID {text:?} is no number of a part")))?,
    };
    Ok(sse::kept_call(&api, calls, id, after))
}

/// Takes a call back. One that has ended stays as it ended.
#[utoipa::path(
    delete, path = "/v1/calls/{id}", tag = "calls",
    params(("id" = String, Path, description = "The call's id.")),
    responses((status = 200, description = "How it ended.", body = Call), problems::LookProblems)
)]
pub(super) async fn cancel(State(api): State<Api>, InPath(id): InPath<String>) -> Result<Json<Call>, Problem> {
    Ok(Json(api.service().calls().cancel(&id).await?.into()))
}
