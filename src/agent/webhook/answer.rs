//! What a response comes to.

use std::time::Duration;

use reqwest::StatusCode;

use super::post::Response;
use crate::error::ErrorCode;
use crate::limits::MAX_PAYLOAD;
use crate::node::{Payload, TaskError};

/// Most characters of a body that are told to the caller.
const MAX_TOLD: usize = 300;

/// What a response says.
#[derive(Debug)]
pub(super) enum Said {
    /// The result, or an error that stands.
    Answer(Box<Result<Payload, TaskError>>),
    /// The answer comes later.
    Later,
    /// It is to be asked again.
    Again(Again),
}

/// Why to ask again.
#[derive(Debug)]
pub(super) struct Again {
    /// In words.
    pub(super) why: String,
    /// Not before that time.
    pub(super) after: Option<Duration>,
    /// Whether it did nothing for the task.
    pub(super) not_run: bool,
    /// Whether it is said by what stands before the agent, or about its load: that passes.
    pub(super) passing: bool,
}

/// Reads a response.
pub(super) fn read(response: Response) -> Said {
    let status = response.status;
    if status == StatusCode::ACCEPTED {
        return Said::Later;
    }
    if status.is_success() {
        return Said::Answer(Box::new(result(&response)));
    }
    let why = format!("the agent's web hook answered {status}{}", quoted(&response.body, response.cut));
    let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    if busy || status.is_server_error() {
        let gateway = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        let after = response.retry_after.filter(|_| busy);
        return Said::Again(Again { why, after, not_run: busy, passing: busy || gateway });
    }
    let hint = if status.is_redirection() { "; redirects are not followed" } else { "" };
    Said::Answer(Box::new(Err(TaskError::new(format!("{why}{hint}")))))
}

/// JSON if it parses, else text; nothing is `null`. What says that it is JSON must be, and what says that it is plain text
/// is text.
fn result(response: &Response) -> Result<Payload, TaskError> {
    if response.cut {
        let message = format!("the agent's web hook answered with more than {MAX_PAYLOAD} bytes");
        return Err(TaskError::with_code(ErrorCode::TooLarge, message));
    }
    let content_type = response.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
    let content_type = content_type.trim().to_ascii_lowercase();
    let Ok(text) = std::str::from_utf8(&response.body) else {
        return Err(TaskError::new("the agent's web hook answered with what is neither JSON nor text (in UTF-8)"));
    };
    if text.trim().is_empty() {
        return Ok(serde_json::Value::Null.into());
    }
    // Kept as the text it is, since a value would lose the digits of long integers.
    let checked = || serde_json::from_str::<serde_json::Value>(text);
    if content_type == "application/json" || content_type.ends_with("+json") {
        let message = |e| format!("the agent's web hook answered {content_type} that is not JSON: {e}");
        return checked().map(|_| Payload::json(text)).map_err(|e| TaskError::new(message(e)));
    }
    if content_type != "text/plain" && checked().is_ok() {
        return Ok(Payload::json(text));
    }
    Ok(serde_json::Value::from(text).into())
}

/// The beginning of what is no result, fit to be shown; with what stands before it, or nothing.
pub(crate) fn quoted(body: &[u8], cut: bool) -> String {
    let text = String::from_utf8_lossy(body);
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let text = words.join(" ");
    let mut told: String = text.chars().filter(|c| !is_invisible(*c)).take(MAX_TOLD).collect();
    if told.is_empty() {
        return String::new();
    }
    if cut || text.chars().nth(MAX_TOLD).is_some() {
        told.push('…');
    }
    format!(": {told}")
}

/// What changes how the text around it is shown: marks of direction, and of nothing at all.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}
