//! The local HTTP API of a served node: agents in any language call, serve and listen through it.
//!
//! `docs/http-api.md` describes it for those who use it, `/openapi.json` for programs. One file for each group of
//! endpoints; [`guard`] says who may ask, [`problem`] how a request is refused, [`server`] what a connection may cost.

mod agents;
mod calls;
mod counts;
mod events;
mod extract;
mod guard;
mod metrics;
mod node;
mod openapi;
mod problem;
mod problems;
mod schemas;
mod server;
mod sse;
mod tasks;
mod token;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tokio_util::sync::CancellationToken;

use crate::service::{Fault, Service};
use counts::Counts;

#[cfg(feature = "a2a")]
pub(crate) use extract::read as read_body;
pub(crate) use guard::Guard;
pub(crate) use problem::Problem;
#[allow(unused_imports, reason = "the features decide who serves beside it")]
pub(crate) use server::ServeError;
pub(crate) use server::{Server, Settings};
pub(crate) use token::{Token, TokenError};

/// What every endpoint has at hand.
#[derive(Clone, Debug)]
pub(crate) struct Api(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    service: Arc<Service>,
    counts: Counts,
    room: extract::Room,
    stopping: CancellationToken,
}

impl Api {
    pub(crate) fn new(service: Arc<Service>, stopping: CancellationToken) -> Self {
        Self(Arc::new(Inner { service, counts: Counts::default(), room: extract::Room::new(), stopping }))
    }

    /// What the doors have in common.
    pub(crate) fn service(&self) -> &Arc<Service> {
        &self.0.service
    }

    fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Cancelled when the API is about to end: a stream of events ends then.
    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
}

/// What is behind the rules on who may ask, all of it: for what is served beside the API.
#[cfg(feature = "mcp")]
pub(crate) fn guarded(router: Router, guard: Guard) -> Router {
    let guard = Arc::new(guard);
    router
        .layer(middleware::from_fn_with_state(Arc::clone(&guard), with_token))
        .layer(middleware::from_fn_with_state(guard, by_name))
}

/// All endpoints, behind the rules on who may ask. `base_url` is where others find it.
pub(crate) fn router(api: Api, guard: Guard, base_url: &str) -> Router {
    let guard = Arc::new(guard);
    let (open, closed) = openapi::routes(&api, base_url);
    #[cfg(feature = "a2a")]
    let (open, closed) = {
        let (public, private) = crate::a2a::routes(api.service(), &guard, base_url, api.stopping());
        (open.merge(public), closed.merge(private))
    };
    let closed = closed
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&guard), with_token));
    open.method_not_allowed_fallback(wrong_method)
        .merge(closed)
        .fallback(no_such_path)
        .layer(middleware::from_fn_with_state(guard, by_name))
        .layer(middleware::from_fn_with_state(api, counted))
}

async fn with_token(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Result<Response, Problem> {
    guard.check_token(request.headers())?;
    Ok(next.run(request).await)
}

async fn by_name(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Result<Response, Problem> {
    guard.check_names(&request)?;
    Ok(next.run(request).await)
}

/// Counts a request, and ends it when the node stops. What one node says now is nothing to be kept by whoever is in between.
async fn counted(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(api.0.room.clone());
    let running = api.counts().begin();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = tokio::select! {
        biased;
        response = next.run(request) => response,
        () = api.stopping().cancelled() => Problem::from(Fault::new("STOPPED", "the node is stopping")).into_response(),
    };
    drop(running);
    api.counts().answered(route.as_ref().map(MatchedPath::as_str), &method, response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn no_such_path(request: Request) -> Problem {
    let detail = format!("there is nothing at {:?}: /openapi.json says what there is", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", detail)
}

async fn wrong_method(request: Request) -> Problem {
    let detail = format!("{} is not for {:?}: the header Allow says what is", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}
