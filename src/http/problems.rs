//! Which problems an endpoint may answer with, for the description of the API.

use std::collections::BTreeMap;

use utoipa::IntoResponses;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::problem::MEDIA_TYPE;

/// One of them.
pub(super) fn described(text: &str) -> RefOr<Response> {
    let schema = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(text).content(MEDIA_TYPE, content).build().into()
}

fn of(statuses: &[u16]) -> BTreeMap<String, RefOr<Response>> {
    statuses.iter().map(|status| (status.to_string(), described(meaning(*status)))).collect()
}

/// What a status means here.
pub(super) fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed: BAD_REQUEST.",
        401 => "The token is missing or wrong: UNAUTHORIZED.",
        403 => {
            "Called by a name or from a page that is not allowed (FORBIDDEN_HOST, FORBIDDEN_ORIGIN), or refused by the mesh (NOT_ALLOWED)."
        }
        404 => "There is none: NOT_FOUND, UNKNOWN_CAPABILITY.",
        408 => "The body did not arrive in time: TIMEOUT.",
        409 => "It does not go together with what is: CONFLICT, DUPLICATE, CANCELLED.",
        410 => "It was there, and is no more: GONE.",
        413 => "More than fits: TOO_LARGE.",
        415 => "The body is not JSON by its type: BAD_REQUEST.",
        422 => "The JSON, or a value behind the `?`, does not fit: BAD_REQUEST.",
        429 => "Too much was asked: RATE_LIMITED.",
        502 => "The other side failed: HANDLER_ERROR, PEER_GONE, BAD_SIGNATURE.",
        503 => "Nobody there, or no room now: NO_PEER, NO_TRACKER, AGENT_AWAY, OVERLOADED, STOPPED.",
        504 => "No answer in time: TIMEOUT, EXPIRED.",
        _ => "Refused.",
    }
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = [$($status:literal),+];)+) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                of(&[$($status),+])
            }
        }
    )+};
}

problems! {
    /// Of a request with something behind the `?`.
    QueryProblems = [413, 422];
    /// Of looking for something that may not be there.
    LookProblems = [404, 410, 413, 422];
    /// Of a request with a body.
    BodyProblems = [408, 413, 415, 422];
    /// Of offering something, and of what is offered.
    OfferProblems = [404, 408, 409, 410, 413, 415, 422];
    /// Of a task that an agent has.
    TaskProblems = [408, 409, 410, 413, 415, 422];
    /// Of a call.
    CallProblems = [404, 408, 409, 413, 415, 422, 429, 502, 504];
    /// Of a wake.
    WakeProblems = [404, 409, 413, 422, 429, 502, 504];
}
