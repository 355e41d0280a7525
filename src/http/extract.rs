//! What a request carries, read within bounds; what can't be read is refused with a problem that says why.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::service::Fault;

/// The most bytes of a body: a payload at its longest with every character escaped, and its members.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(30);

/// The most bytes of bodies that have arrived in part, all together: 64 MiB. Whoever has the token may send many at once, and slowly.
const MAX_BODIES: usize = 64 * 1024 * 1024;

/// Room for bodies that are arriving; every request carries it.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BODIES)))
    }
}

/// A body of JSON.
pub(super) struct Input<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_type(request.headers())?;
        Ok(Self(parse(&read(request).await?)?))
    }
}

/// A body of JSON, or none: then what is assumed.
pub(super) struct OptionalInput<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalInput<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let typed = check_type(request.headers());
        let body = read(request).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        typed?;
        Ok(Self(parse::<Option<T>>(&body)?.unwrap_or_default()))
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    let detail = match given {
        "" => "the body's type is missing: send `Content-Type: application/json`".to_owned(),
        other => format!("the body is {other:?}: send JSON, with `Content-Type: application/json`"),
    };
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "BAD_REQUEST", detail))
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", format!("a body may have at most {MAX_BODY} bytes"))
}

/// The whole body, if it is not too long and does not take too long.
pub(crate) async fn read(request: Request) -> Result<Vec<u8>, Problem> {
    let said = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // What is said is not believed, and no memory is taken for it.
    if said.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    let room = request.extensions().get::<Room>().cloned();
    let whole = async {
        let (mut body, mut places) = (Vec::new(), Vec::new());
        let mut parts = request.into_body().into_data_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|e| Problem::bad_request(format!("the body ended early: {e}")))?;
            if body.len() + part.len() > MAX_BODY {
                return Err(too_large());
            }
            if let Some(room) = &room {
                let place = u32::try_from(part.len()).ok().and_then(|n| room.0.try_acquire_many(n).ok());
                places.push(place.ok_or_else(|| Fault::overloaded("too many large bodies are arriving"))?);
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    };
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "TIMEOUT", "the body did not arrive within 30 s");
    tokio::time::timeout(BODY, whole).await.map_err(|_| late())?
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde takes an array for a struct's members in their order; nobody means that.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::unprocessable("the body is a JSON array: an object is wanted"));
    }
    serde_json::from_slice(body).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => Problem::unprocessable(format!("the body does not fit: {e}")),
        _ => Problem::bad_request(format!("the body is not JSON: {e}")),
    })
}

/// What stands behind the `?`.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read: Result<Query<T>, QueryRejection> = Query::try_from_uri(&parts.uri);
        read.map(|query| Self(query.0))
            .map_err(|e| Problem::bad_request(format!("what is behind the `?` can't be read: {}", e.body_text())))
    }
}

/// What stands in the path.
pub(super) struct InPath<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = Path::from_request_parts(parts, state).await;
        read.map(|Path(value)| Self(value))
            .map_err(|e| Problem::bad_request(format!("the path can't be read: {}", e.body_text())))
    }
}

/// Seconds as they were given: not negative, and not more than that.
pub(super) fn seconds(name: &str, given: Option<f64>, default: Duration, most: Duration) -> Result<Duration, Problem> {
    let Some(given) = given else { return Ok(default) };
    let fits = (0.0..=most.as_secs_f64()).contains(&given);
    let wrong = || Problem::unprocessable(format!("{name} is {given}: 0 to {} seconds may be given", most.as_secs()));
    if fits { Duration::try_from_secs_f64(given).map_err(|_| wrong()) } else { Err(wrong()) }
}

/// Seconds that something may take: above 0, and not more than that.
pub(super) fn timeout(name: &str, given: Option<f64>, default: Duration, most: Duration) -> Result<Duration, Problem> {
    if given.is_some_and(|given| given <= 0.0) {
        return Err(Problem::unprocessable(format!("{name} is to be above 0 seconds")));
    }
    Ok(seconds(name, given, default, most)?.max(Duration::from_millis(1)))
}
