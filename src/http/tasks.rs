//! What agents offer, and the tasks they come for.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::extract::{InPath, Input, OptionalInput, seconds};
use super::problem::{Problem, status_of};
use super::{Api, problems, schemas};
use crate::agent::reach::Reach;
use crate::error::ErrorCode;
use crate::node::{Payload, TaskError};
use crate::service::{Desk, Fault, Leased, Offer, Told, Wanted};
use crate::wire::CapabilityKind;

/// How long a task is waited for, unless said otherwise.
const WAIT: Duration = Duration::from_secs(30);

/// The longest that a task can be waited for in one go.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// The longest lease.
const MAX_LEASE: Duration = Duration::from_secs(crate::limits::MAX_TTL_S);

/// The most capabilities in one request.
const MAX_CAPS: usize = crate::limits::MAX_CAPS;

/// The most characters of a description: it is in the node's record, with all the others.
const MAX_DESCRIPTION: usize = 1000;

/// What an agent offers.
#[derive(Serialize, ToSchema)]
pub(super) struct Offered {
    /// The name it is found and called by.
    name: String,
    /// What it is.
    #[schema(value_type = schemas::Kind)]
    kind: CapabilityKind,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// How its agent is reached, as it was seen last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schemas::Reach>)]
    reach: Option<Reach>,
}

impl Offered {
    fn new(api: &Api, offer: Offer) -> Self {
        let reach = api.service().reaches().of(&offer.name);
        Self { name: offer.name, kind: offer.kind, description: offer.description, reach }
    }
}

/// What agents offer.
#[derive(Serialize, ToSchema)]
pub(super) struct Offers {
    /// By name.
    offers: Vec<Offered>,
}

/// What agents offer on this node.
#[utoipa::path(
    get, path = "/v1/offers", tag = "tasks",
    responses((status = 200, description = "What is offered.", body = Offers))
)]
pub(super) async fn offers(State(api): State<Api>) -> Json<Offers> {
    let offers = api.service().desk().offers();
    Json(Offers { offers: offers.into_iter().map(|offer| Offered::new(&api, offer)).collect() })
}

/// How something is offered.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"kind": "agent", "description": "Summarizes texts."}))]
pub(super) struct NewOffer {
    /// What it is: `agent`, `model` or `tool`. Default: `agent`.
    #[schema(value_type = Option<schemas::Kind>)]
    kind: Option<CapabilityKind>,
    /// What it does, in a sentence for whoever looks for somebody.
    #[schema(max_length = 1000)]
    description: Option<String>,
}

/// Offers a capability from now on, until it is withdrawn or the node stops. Offering it again changes what is said of it.
#[utoipa::path(
    put, path = "/v1/offers/{name}", tag = "tasks",
    params(("name" = inline(schemas::Name), Path, description = "The name it is found and called by.")),
    request_body(content = Option<NewOffer>),
    responses((status = 200, description = "It is offered.", body = Offered), problems::OfferProblems)
)]
pub(super) async fn offer(
    State(api): State<Api>,
    InPath(name): InPath<String>,
    OptionalInput(offer): OptionalInput<NewOffer>,
) -> Result<Json<Offered>, Problem> {
    if offer.description.as_ref().is_some_and(|text| text.chars().count() > MAX_DESCRIPTION) {
        return Err(Problem::unprocessable(format!("the description has more than {MAX_DESCRIPTION} characters")));
    }
    let offer = Offer { name, kind: offer.kind.unwrap_or(CapabilityKind::Agent), description: offer.description };
    api.service().desk().offer(std::slice::from_ref(&offer))?;
    Ok(Json(Offered::new(&api, offer)))
}

/// Offers it no longer. Tasks that wait for it are answered `AGENT_AWAY`; those that agents have go on.
#[utoipa::path(
    delete, path = "/v1/offers/{name}", tag = "tasks",
    params(("name" = inline(schemas::Name), Path, description = "The name it is offered by.")),
    responses((status = 204, description = "It is offered no longer."), problems::LookProblems)
)]
pub(super) async fn withdraw(State(api): State<Api>, InPath(name): InPath<String>) -> Result<StatusCode, Problem> {
    match api.service().desk().withdraw(&name)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Fault::not_found(format!("{name:?} is not offered")).into()),
    }
}

/// Which task is wanted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"capabilities": ["summarize"], "wait_s": 30, "lease_s": 60}))]
pub(super) struct Next {
    /// Of these capabilities, which must be offered. Default: of all that are.
    #[serde(default)]
    #[schema(max_items = 256)]
    capabilities: Vec<String>,
    /// How long to wait for one, in seconds. Default: 30.
    #[schema(minimum = 0, maximum = 600, default = 30)]
    wait_s: Option<f64>,
    /// How long the agent has for it without a sign, in seconds; at least 1. Default: 60.
    #[schema(minimum = 0, maximum = 86_400, default = 60)]
    lease_s: Option<f64>,
}

/// The next task, when one comes in time: it is this agent's for the time of its lease. Each task goes to one agent; who does
/// not answer it, nor reports progress, within the lease is taken to be gone, and the task goes to the next one.
#[utoipa::path(
    post, path = "/v1/tasks/next", tag = "tasks",
    request_body(content = Option<Next>),
    responses(
        (status = 200, description = "A task.", body = Leased),
        (status = 204, description = "None came in time."),
        problems::OfferProblems,
    )
)]
pub(super) async fn next(
    State(api): State<Api>,
    OptionalInput(next): OptionalInput<Next>,
) -> Result<Response, Problem> {
    if next.capabilities.len() > MAX_CAPS {
        return Err(Problem::unprocessable(format!("more than {MAX_CAPS} capabilities")));
    }
    let wait = seconds("wait_s", next.wait_s, WAIT, MAX_WAIT)?;
    let lease = seconds("lease_s", next.lease_s, Wanted::default().lease, MAX_LEASE)?;
    let wanted = Wanted { capabilities: next.capabilities, wait, lease };
    match api.service().desk().next(wanted).await? {
        Some(leased) => Ok(Json(leased).into_response()),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// That something stands there, `null` too.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(d).map(Some)
}

/// The answer to a task: `result` or `error`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    error: Option<ReplyError>,
}

/// Why there is no result.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyError {
    /// A code of the mesh. Default: `HANDLER_ERROR`.
    #[schema(value_type = Option<schemas::Code>, example = "BAD_REQUEST")]
    code: Option<String>,
    /// What happened, for the caller to read.
    #[schema(example = "the text is missing")]
    message: String,
    /// When trying again makes sense, in seconds.
    #[schema(minimum = 0, maximum = 86_400)]
    retry_after_s: Option<f64>,
}

impl ReplyError {
    fn task_error(self) -> Result<TaskError, Problem> {
        let code = match self.code.as_deref() {
            None => ErrorCode::HandlerError,
            Some(text) => ErrorCode::from_wire(text).ok_or_else(|| {
                Problem::unprocessable(format!("{text:?} is no code of the mesh, such as HANDLER_ERROR"))
            })?,
        };
        let mut error = TaskError::with_code(code, self.message);
        if self.retry_after_s.is_some() {
            error.retry_after = Some(seconds("retry_after_s", self.retry_after_s, Duration::ZERO, MAX_LEASE)?);
        }
        Ok(error)
    }
}

/// What fits into a message; what doesn't is told to the agent, which still has the task then.
fn fitting(json: &RawValue) -> Result<Payload, Problem> {
    let fits = Payload::json(json.get()).into_bytes();
    fits.map(Payload::raw).map_err(|e| {
        let code = e.code().as_str();
        Problem::new(status_of(code), code, format!("it can't be sent: {e}"))
    })
}

/// Answers a task. The first answer counts.
#[utoipa::path(
    post, path = "/v1/tasks/{task_id}/reply", tag = "tasks",
    params(("task_id" = String, Path, description = "The task, by the id it was handed out with.")),
    request_body = schemas::Reply,
    responses((status = 204, description = "It is on its way to the caller."), problems::TaskProblems)
)]
pub(super) async fn reply(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    Input(reply): Input<Reply>,
) -> Result<StatusCode, Problem> {
    let answer = match (reply.result, reply.error) {
        (Some(result), None) => Ok(fitting(&result)?),
        (None, Some(error)) => Err(error.task_error()?),
        _ => return Err(Problem::unprocessable("either `result` or `error` is to be given")),
    };
    api.service().desk().reply(&id, answer)?;
    Ok(StatusCode::NO_CONTENT)
}

/// How far a task is.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    /// A part of the answer, or a word on how far it is: any JSON, sent to the caller as a chunk. Default: nothing is sent.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Value>)]
    data: Option<Box<RawValue>>,
}

/// Says that the agent is at it: its lease begins anew. `data` goes to the caller.
#[utoipa::path(
    post, path = "/v1/tasks/{task_id}/progress", tag = "tasks",
    params(("task_id" = String, Path, description = "The task, by the id it was handed out with.")),
    request_body(content = Option<Report>),
    responses((status = 200, description = "How long there is time.", body = Told), problems::TaskProblems)
)]
pub(super) async fn progress(
    State(api): State<Api>,
    InPath(id): InPath<String>,
    OptionalInput(report): OptionalInput<Report>,
) -> Result<Json<Told>, Problem> {
    let data = report.data.map(|data| fitting(&data)).transpose()?;
    let desk: &Desk = api.service().desk();
    Ok(Json(desk.progress(&id, data).await?))
}
