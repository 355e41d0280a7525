//! How a tool says no: what went wrong, and what a model can do about it.

use std::path::Path;

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Why a tool did not do what it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    code: String,
    message: String,
    /// What else is known: of a call how far it came, and who answered.
    detail: Map<String, Value>,
}

impl Refusal {
    pub(super) fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), detail: Map::new() }
    }

    /// The arguments can't be used.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new("BAD_REQUEST", message)
    }

    /// No node runs in the home.
    pub(super) fn not_running(home: &Path) -> Self {
        Self::new("NOT_RUNNING", format!("no node is running in {}", home.display()))
    }

    /// The client took its request back: nobody reads this.
    pub(super) fn cancelled() -> Self {
        Self::new("CANCELLED", "the request was cancelled")
    }

    /// The node's answer is not what it should be.
    pub(super) fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::new("INTERNAL", format!("the node's answer can't be read: {error}"))
    }

    /// As the node says it.
    pub(super) fn from_reply(error: &RawValue) -> Self {
        let Ok(Value::Object(mut detail)) = serde_json::from_str(error.get()) else {
            return Self::unreadable("its error is no object");
        };
        let mut text = |member: &str| match detail.remove(member) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let code = text("code").unwrap_or_else(|| "INTERNAL".to_owned());
        let message = text("message").unwrap_or_else(|| "the node gave no reason".to_owned());
        // What was tried is for a person at a terminal.
        detail.remove("tried");
        Self { code, message, detail }
    }

    /// What went wrong, for a program.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// What to do next.
    fn advice(&self) -> String {
        let delivery = self.detail.get("delivery").and_then(Value::as_str).unwrap_or_default();
        let advice = match self.code.as_str() {
            "NOT_RUNNING" => {
                "Ask the user to start one with `elo serve` (or to restart this MCP server, which starts one where none runs), \
                 then call this tool again."
            }
            "NODE_GONE" => {
                "The node was stopped while it worked on this. Try again once; if no node runs, tell the user."
            }
            "AGENT_AWAY" => {
                "Call again with wait_for_agent_s (such as 600) to wait for that agent, or find_agents for another one."
            }
            "NO_PEER" | "UNKNOWN_CAPABILITY" => "find_agents shows who is there and what each offers.",
            "TIMEOUT" if delivery == "accepted" => {
                "The task arrived and may still run. For long work give a larger timeout_s, or wait=false and check_call."
            }
            "TIMEOUT" => "Call again with a larger timeout_s if the work takes long.",
            "BAD_REQUEST" => "Correct the arguments and call this tool again.",
            "TOO_LARGE" => "Send less: a payload may have 1 MiB as JSON.",
            "GONE" => "Don't answer it again. Take the next task with next_task.",
            "NOT_FOUND" => "Check the id or name; what is offered is set with offer.",
            "OVERLOADED" => "Wait a moment, then try again.",
            "HANDLER_ERROR" => "The agent itself failed: read its reason before you call it again.",
            _ if delivery == "unconfirmed" => "Whether the task ran is not known: calling again may run it twice.",
            _ => "",
        };
        match self.detail.get("retry_after_s").and_then(Value::as_f64) {
            Some(seconds) => format!("Try again in {seconds} s."),
            None => advice.to_owned(),
        }
    }

    /// As a tool's result.
    pub(super) fn into_result(self) -> CallToolResult {
        let advice = self.advice();
        let mut text = format!("{}: {}", self.code, self.message);
        let mut members = self.detail;
        members.insert("code".to_owned(), Value::from(self.code));
        members.insert("message".to_owned(), Value::from(self.message));
        if !advice.is_empty() {
            text.push('\n');
            text.push_str(&advice);
            members.insert("next".to_owned(), Value::from(advice));
        }
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        result.structured_content = Some(Value::Object(members));
        result
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_what_to_do_next() {
        let raw = |value: Value| serde_json::value::to_raw_value(&value).unwrap();
        let away = Refusal::from_reply(&raw(json!({
            "code": "AGENT_AWAY", "message": "it is away", "delivery": "answered", "tried": [1, 2, 3],
        })));
        let result = away.into_result();
        let told = result.structured_content.unwrap();
        assert_eq!(result.is_error, Some(true));
        assert_eq!((&told["code"], &told["delivery"]), (&json!("AGENT_AWAY"), &json!("answered")));
        assert!(told["next"].as_str().unwrap().contains("wait_for_agent_s"));
        assert!(told.get("tried").is_none());
        for odd in [json!(7), json!({}), json!({"code": 1, "message": []})] {
            assert_eq!(Refusal::from_reply(&raw(odd)).code(), "INTERNAL");
        }
        let soon = Refusal::from_reply(&raw(json!({"code": "OVERLOADED", "message": "full", "retry_after_s": 2.5})));
        assert_eq!(soon.advice(), "Try again in 2.5 s.");
    }
}
