//! Why a door says no.

use serde::Serialize;

use crate::error::{CallError, Error};

/// What went wrong, for a program by its code and for who reads it in words.
#[derive(Clone, Debug, PartialEq, Serialize, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct Fault {
    /// The code: those of calls ([`ErrorCode`](crate::ErrorCode)), and `NOT_FOUND`, `GONE`, `CONFLICT`, `STOPPED`, `INTERNAL`.
    pub(crate) code: String,
    /// What happened, and what to do.
    pub(crate) message: String,
    /// When trying again makes sense, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_s: Option<f64>,
    /// All that is known of a call that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) call: Option<Box<serde_json::Value>>,
}

impl Fault {
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), retry_after_s: None, call: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new("BAD_REQUEST", message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new("NOT_FOUND", message)
    }

    /// It was there, and is no more.
    pub(crate) fn gone(message: impl Into<String>) -> Self {
        Self::new("GONE", message)
    }

    pub(crate) fn overloaded(message: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1.0), ..Self::new("OVERLOADED", message) }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Invalid(_) | Error::Config(_) => "BAD_REQUEST",
            Error::TooLarge { .. } => "TOO_LARGE",
            Error::Stopped => "STOPPED",
            _ => "INTERNAL",
        };
        Self::new(code, error.to_string())
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        Self {
            retry_after_s: error.retry_after.map(|wait| wait.as_secs_f64()),
            call: serde_json::to_value(&error).ok().map(Box::new),
            ..Self::new(error.code.as_str(), error.message)
        }
    }
}
