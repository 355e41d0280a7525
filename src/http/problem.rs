//! How a request is refused: problem details, RFC 9457.

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::error::{CallError, Error};
use crate::service::Fault;

/// The media type of problem details.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(title = "Problem", as = Problem)]
pub(crate) struct Details {
    /// `about:blank`: the status and the code say which problem it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Service Unavailable")]
    title: &'static str,
    /// The status.
    #[schema(minimum = 400, maximum = 599, example = 503)]
    status: u16,
    /// What happened, and what to do about it.
    detail: String,
    /// What happened, for a program: a code of the mesh, or one of this API.
    #[schema(example = "AGENT_AWAY")]
    code: String,
    /// When trying again makes sense, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<f64>,
    /// Of a call: how far the task is known to have come: `not_sent`, `unconfirmed`, `accepted` or `answered`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "not_sent")]
    delivery: Option<Value>,
    /// Of a call: who answered or was to answer, if somebody was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    responder: Option<Value>,
    /// Of a call: what was tried, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<super::schemas::Attempt>>)]
    tried: Option<Value>,
}

/// A request that is refused, or failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem(Box<Details>);

impl Problem {
    /// With a status that is not that of the code.
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Details {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code: code.to_owned(),
            retry_after_s: None,
            delivery: None,
            responder: None,
            tried: None,
        }))
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", detail)
    }

    /// The body was read and makes no sense here.
    pub(crate) fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "BAD_REQUEST", detail)
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// As an object, for a stream or a call that is looked up.
    pub(crate) fn details(self) -> Details {
        *self.0
    }
}

/// The status that goes with a code. This is documented in docs/http-api.md.
pub(crate) fn status_of(code: &str) -> StatusCode {
    match code {
        "BAD_REQUEST" => StatusCode::BAD_REQUEST,
        "NOT_ALLOWED" => StatusCode::FORBIDDEN,
        "NOT_FOUND" | "UNKNOWN_CAPABILITY" => StatusCode::NOT_FOUND,
        "CONFLICT" | "DUPLICATE" | "CANCELLED" => StatusCode::CONFLICT,
        "GONE" => StatusCode::GONE,
        "TOO_LARGE" => StatusCode::PAYLOAD_TOO_LARGE,
        "RATE_LIMITED" => StatusCode::TOO_MANY_REQUESTS,
        "HANDLER_ERROR" | "PEER_GONE" | "BAD_SIGNATURE" => StatusCode::BAD_GATEWAY,
        "NO_PEER" | "NO_TRACKER" | "AGENT_AWAY" | "OVERLOADED" | "STOPPED" => StatusCode::SERVICE_UNAVAILABLE,
        "TIMEOUT" | "EXPIRED" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let mut problem = Self::new(status_of(&fault.code), &fault.code, fault.message);
        problem.0.retry_after_s = fault.retry_after_s;
        if let Some(Value::Object(mut call)) = fault.call.map(|call| *call) {
            problem.0.delivery = call.remove("delivery");
            problem.0.responder = call.remove("responder").filter(|responder| !responder.is_null());
            problem.0.tried = call.remove("tried");
            if problem.status() == StatusCode::INTERNAL_SERVER_ERROR && problem.0.delivery == Some("answered".into()) {
                // The fault of whoever answered, not of this node.
                problem.0.status = StatusCode::BAD_GATEWAY.as_u16();
                problem.0.title = "Bad Gateway";
            }
        }
        problem
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Fault::from(error).into()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Fault::from(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"elo\""));
        }
        if let Some(wait) = self.0.retry_after_s {
            // Whole seconds, and what a clock can bear.
            let whole = wait.ceil().clamp(0.0, 86_400.0) as u64;
            headers.insert(RETRY_AFTER, HeaderValue::from(whole));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn every_code_of_the_mesh_has_its_status() {
        for code in ErrorCode::ALL {
            let status = status_of(code.as_str());
            let own = status == StatusCode::INTERNAL_SERVER_ERROR;
            assert_eq!(own, *code == ErrorCode::Internal, "{code} has {status}");
        }
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds() {
        let mut fault = Fault::overloaded("full");
        fault.retry_after_s = Some(0.2);
        let response = Problem::from(fault).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[CONTENT_TYPE], MEDIA_TYPE);
    }
}
