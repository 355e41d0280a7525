//! Events: published, and heard of as they come or later.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::extract::{Input, Params, seconds};
use super::problem::Problem;
use super::{Api, problems, schemas, sse};
use crate::identity::NodeId;
use crate::node::NotSent;
use crate::service::{Cursor, Kept};

/// The longest that an event can be waited for in one go.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// An event.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"type": "build.done", "data": {"ok": true}}))]
pub(super) struct NewEvent {
    /// Its type, such as `build.done`.
    #[serde(rename = "type")]
    #[schema(value_type = schemas::Name)]
    kind: String,
    /// What it carries: any JSON of at most 64 KiB. Default: `null`.
    #[serde(default)]
    data: Value,
    /// For these nodes alone, by their ids. Default: for whoever is interested.
    #[serde(default)]
    #[schema(max_items = 256, value_type = Vec<schemas::NodeId>)]
    to: Vec<String>,
}

/// An event that was published. Nobody says whether it arrived.
#[derive(Serialize, ToSchema)]
pub(super) struct PublishedEvent {
    /// Its id.
    id: String,
    /// Its type.
    #[serde(rename = "type")]
    kind: String,
    /// Of one for named nodes: to whom it was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    sent: Option<Vec<NodeId>>,
    /// Of one for named nodes: to whom it could not be sent, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schemas::NotSent>>)]
    not_sent: Option<Vec<NotSent>>,
}

/// Publishes an event.
#[utoipa::path(
    post, path = "/v1/events", tag = "events",
    request_body = NewEvent,
    responses((status = 200, description = "It was published.", body = PublishedEvent), problems::BodyProblems)
)]
pub(super) async fn publish(
    State(api): State<Api>,
    Input(event): Input<NewEvent>,
) -> Result<Json<PublishedEvent>, Problem> {
    let node = api.service().node();
    let NewEvent { kind, data, to } = event;
    if to.is_empty() {
        let id = node.publish(&kind, data)?;
        return Ok(Json(PublishedEvent { id, kind, sent: None, not_sent: None }));
    }
    let ids: Result<Vec<NodeId>, Problem> = to
        .iter()
        .map(|text| text.parse().map_err(|_| Problem::unprocessable(format!("{text:?} in `to` is not a node's id"))))
        .collect();
    let published = node.publish_to(&ids?, &kind, data).await?;
    let (sent, not_sent) = (Some(published.sent), Some(published.not_sent));
    Ok(Json(PublishedEvent { id: published.id, kind, sent, not_sent }))
}

/// Which events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Their types: one, or the beginning of several with `*` at the end. Default: `*`, all.
    #[param(value_type = schemas::Name, required = false, inline, example = "build.*")]
    pattern: Option<String>,
    /// The place after which they are wanted: `next` of the time before. Default: now.
    #[param(value_type = schemas::Place, required = false, inline)]
    after: Option<String>,
    /// How long to wait for the first one, in seconds. Default: 0. Not for streams.
    #[param(value_type = f64, required = false, minimum = 0, maximum = 600)]
    wait_s: Option<f64>,
}

/// Where a stream goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "for the description; the header is read by itself")]
pub(super) struct LastPlace {
    /// Of a stream: the place after which it goes on.
    #[param(rename = "Last-Event-ID", value_type = String, required = false)]
    last_event_id: Option<String>,
}

/// Events after a place.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    /// The events, in the order they came.
    #[schema(value_type = Vec<schemas::Event>)]
    events: Vec<Kept>,
    /// The place after them: to be given as `after`.
    next: String,
    /// How many are missing before them because nobody asked in time, as far as is known.
    lost: u64,
    /// Whether `after` was of an earlier run: how many are missing since is not known.
    restarted: bool,
}

/// Events of a pattern, from the first request for that pattern on. With `Accept: text/event-stream` a stream: each event as a
/// message whose id is its place, which goes on after `Last-Event-ID`; `open` at the beginning, and `gap` where events are
/// missing. What nobody asks for is kept for 5 minutes.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(Wanted, LastPlace),
    responses(
        (status = 200, description = "Events.", content(
            (Events = "application/json"),
            (schemas::StreamEvent = "text/event-stream"),
        )),
        problems::LookProblems,
    )
)]
pub(super) async fn listen(
    State(api): State<Api>,
    headers: HeaderMap,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let feeds = api.service().feeds();
    let pattern = wanted.pattern.as_deref().unwrap_or("*");
    let wait = seconds("wait_s", wanted.wait_s, Duration::ZERO, MAX_WAIT)?;
    let stream = sse::is_wanted(&headers);
    let after: Option<Cursor> = match sse::last_id(&headers)? {
        // What comes back by itself would do so for ever: for a place of something else it is told of a gap.
        Some(last) => Some(last.parse().unwrap_or(Cursor::UNKNOWN)),
        None => wanted.after.as_deref().map(str::parse).transpose()?,
    };
    if stream {
        let now = feeds.open(pattern)?;
        return Ok(sse::events(&api, Arc::clone(feeds), pattern.to_owned(), after.unwrap_or(now)));
    }
    let batch = feeds.next(pattern, after, wait).await?;
    let (next, lost, restarted) = (batch.next.to_string(), batch.lost, batch.restarted);
    Ok(Json(Events { events: batch.events, next, lost, restarted }).into_response())
}
