//! Server-sent events: calls and events as they come.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Serialize;
use serde_json::json;

use super::Api;
use super::problem::Problem;
use crate::node::CallHandle;
use crate::service::{Batch, Calls, Cursor, Feeds, outcome_with_digits};

/// After this time without news a comment shows that the stream is alive, and finds out whether somebody reads it.
const ALIVE: Duration = Duration::from_secs(15);

/// How long one look waits for news.
const LOOK: Duration = Duration::from_secs(300);

/// Whether a stream is asked for.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut types = accepted.flat_map(|value| value.split(','));
    types.any(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream"))
}

/// The place that somebody comes back to.
pub(super) fn last_id(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::bad_request("the header Last-Event-ID can't be read"))?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

fn event(name: &str, data: &impl Serialize) -> Event {
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}

fn error(problem: impl Into<Problem>) -> Event {
    event("error", &problem.into().details())
}

fn respond(api: &Api, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let until = api.stopping().clone().cancelled_owned();
    let events = Box::pin(events).take_until(Box::pin(until)).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response()
}

enum Stage {
    Sent(CallHandle),
    Chunks(CallHandle),
    Over,
}

/// A call of whoever reads this: dropping it takes the call back.
pub(super) fn call(api: &Api, handle: CallHandle) -> Response {
    let sent = event("sent", &json!({ "id": handle.id() }));
    let rest = stream::unfold(Stage::Sent(handle), |stage| async move {
        let mut handle = match stage {
            Stage::Sent(mut handle) => match handle.accepted().await {
                true => return Some((event("accepted", &json!({ "id": handle.id() })), Stage::Chunks(handle))),
                false => handle,
            },
            Stage::Chunks(handle) => handle,
            Stage::Over => return None,
        };
        if let Some(chunk) = handle.next_chunk_json().await {
            return Some((Event::default().event("chunk").data(chunk), Stage::Chunks(handle)));
        }
        let end = match handle.outcome().await {
            Ok(outcome) => event("outcome", &outcome_with_digits(&outcome)),
            Err(failed) => error(failed),
        };
        Some((end, Stage::Over))
    });
    respond(api, stream::once(async { sent }).chain(rest))
}

struct Following {
    calls: Arc<Calls>,
    id: String,
    after: u64,
    ready: VecDeque<Event>,
    over: bool,
}

/// A call that is looked after here.
pub(super) fn kept_call(api: &Api, calls: Arc<Calls>, id: String, after: u64) -> Response {
    let following = Following { calls, id, after, ready: VecDeque::new(), over: false };
    let events = stream::unfold(following, |mut following| async move {
        loop {
            if let Some(event) = following.ready.pop_front() {
                return Some((event, following));
            }
            if following.over {
                return None;
            }
            match following.calls.check(&following.id, following.after, LOOK).await {
                Ok(progress) => {
                    if progress.lost > 0 {
                        following.ready.push_back(event("gap", &json!({ "lost": progress.lost })));
                    }
                    let first = progress.next - progress.chunks.len() as u64;
                    for (number, chunk) in (first..).zip(&progress.chunks) {
                        let event = Event::default().event("chunk").id(number.to_string()).data(chunk.get());
                        following.ready.push_back(event);
                    }
                    following.after = progress.next.max(following.after);
                    following.over = progress.state.is_over();
                    following.ready.extend(progress.outcome.map(|outcome| event("outcome", &outcome)));
                    following.ready.extend(progress.error.map(error));
                }
                Err(fault) => {
                    following.ready.push_back(error(fault));
                    following.over = true;
                }
            }
        }
    });
    respond(api, events)
}

struct Reading {
    feeds: Arc<Feeds>,
    pattern: String,
    after: Cursor,
    ready: VecDeque<Event>,
    over: bool,
}

/// Events after a place.
pub(super) fn events(api: &Api, feeds: Arc<Feeds>, pattern: String, after: Cursor) -> Response {
    // Whoever is cut off before the first event comes back to this place.
    let opened = event("open", &json!({ "pattern": pattern })).id(after.to_string());
    let reading = Reading { feeds, pattern, after, ready: VecDeque::from([opened]), over: false };
    let events = stream::unfold(reading, |mut reading| async move {
        loop {
            if let Some(event) = reading.ready.pop_front() {
                return Some((event, reading));
            }
            if reading.over {
                return None;
            }
            match reading.feeds.next(&reading.pattern, Some(reading.after), LOOK).await {
                Ok(batch) => {
                    reading.after = batch.next;
                    reading.take(&batch);
                }
                Err(fault) => {
                    reading.ready.push_back(error(fault));
                    reading.over = true;
                }
            }
        }
    });
    respond(api, events)
}

impl Reading {
    fn take(&mut self, batch: &Batch) {
        if batch.restarted || batch.lost > 0 {
            // How many is not known after a restart.
            let lost = (!batch.restarted).then_some(batch.lost);
            let gap = event("gap", &json!({ "lost": lost, "restarted": batch.restarted }));
            self.ready.push_back(if batch.events.is_empty() { gap.id(batch.next.to_string()) } else { gap });
        }
        self.ready.extend(batch.events.iter().map(|kept| {
            // Without a name it is what a browser calls a message.
            Event::default().id(kept.place.to_string()).data(serde_json::to_string(kept).unwrap_or_default())
        }));
    }
}
