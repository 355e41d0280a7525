//! A command that did not succeed: what is said about it, and the exit code.

use serde_json::{Map, Value, json};

use crate::error::{CallError, Error};
use crate::identity::IdentityError;

/// Success.
pub(super) const OK: u8 = 0;
/// The task failed, or anything else went wrong.
pub(super) const FAILED: u8 = 1;
/// The command was put wrongly.
pub(super) const USAGE: u8 = 2;
/// The task was not delivered, as far as is known.
pub(super) const NOT_DELIVERED: u8 = 3;
/// The task was delivered, and not answered in time.
pub(super) const UNANSWERED: u8 = 4;
/// The key is under a passphrase, and that was wrong or not to be had.
pub(super) const LOCKED: u8 = 5;
/// Ctrl-C: 128 + SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Why a command ends without success.
#[derive(Debug)]
pub(super) struct Failure {
    /// The exit code.
    pub(super) exit: u8,
    /// One line for people.
    pub(super) message: String,
    /// What to do about it, on a line of its own.
    pub(super) hint: Option<String>,
    /// More members of the JSON object: a call's error has its code, delivery and what was tried.
    pub(super) detail: Map<String, Value>,
    /// Nothing is to be said: the reader of our output went away, or the matter was said already.
    pub(super) silent: bool,
}

impl Failure {
    /// Something went wrong.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { exit: FAILED, message: message.into(), hint: None, detail: Map::new(), silent: false }
    }

    /// The command was put wrongly.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: USAGE, ..Self::new(message) }
    }

    /// Ctrl-C.
    pub(super) fn interrupted() -> Self {
        Self { exit: INTERRUPTED, ..Self::new("interrupted") }
    }

    /// The output's reader went away (`elo peers | head -1`): not a fault, so the exit code is 0.
    pub(super) fn closed_output() -> Self {
        Self { exit: OK, silent: true, ..Self::new("the output was closed") }
    }

    /// With another exit code.
    pub(super) fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// With a line that says what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With an error code of the protocol.
    pub(super) fn code(mut self, code: &str) -> Self {
        self.detail.insert("code".to_owned(), Value::from(code));
        self
    }

    /// No node runs in this home.
    pub(super) fn not_running(home: &std::path::Path) -> Self {
        Self::new(format!("no node is running in {}", home.display()))
            .code("NOT_RUNNING")
            .hint("start one with `elo serve`, or name the home of a running one with --home")
    }

    /// An error as the control socket gives it: a call's error, or `code` and `message` alone.
    pub(super) fn from_reply(error: Value) -> Self {
        let Value::Object(mut detail) = error else {
            return Self::new("the node answered with something that is not an error object");
        };
        let message = match detail.remove("message") {
            Some(Value::String(message)) => message,
            _ => "the node gave no reason".to_owned(),
        };
        let code = detail.get("code").and_then(Value::as_str).unwrap_or("INTERNAL").to_owned();
        let exit = match detail.get("delivery").and_then(Value::as_str) {
            Some("not_sent" | "unconfirmed") => NOT_DELIVERED,
            Some("accepted") => UNANSWERED,
            // The responder gave up at the deadline, and said so a moment before we did.
            Some("answered") if code == "TIMEOUT" => UNANSWERED,
            // The node is there, and nobody who would do it.
            Some("answered") if code == "AGENT_AWAY" => NOT_DELIVERED,
            Some(_) => FAILED,
            None if code == "BAD_REQUEST" => USAGE,
            None => FAILED,
        };
        let hint = if message.contains("no peer is connected") {
            Some("`elo peers` shows why, and when they are dialled next; `elo status` how others are found".to_owned())
        } else if code == "NOT_ALLOWED" && message.contains("only when they are sealed") {
            Some("leave --no-sealed (ELO_SEALED, `sealed` in elo.toml) out where you call from".to_owned())
        } else {
            Self::advice(&code, &detail)
        };
        Self { exit, message: format!("{code}: {message}"), hint, detail, silent: false }
    }

    fn advice(code: &str, detail: &Map<String, Value>) -> Option<String> {
        if let Some(seconds) = detail.get("retry_after_s").and_then(Value::as_f64) {
            return Some(format!("try again in {seconds} s"));
        }
        let delivery = detail.get("delivery").and_then(Value::as_str)?;
        Some(
            match (delivery, code) {
                ("accepted", "TIMEOUT") => "the task arrived and may still run; a longer --timeout waits longer",
                ("unconfirmed", _) => "whether the task ran is not known; calling again may run it twice",
                ("answered", "AGENT_AWAY") => "`elo find` shows when each agent was seen last",
                ("not_sent", "NO_PEER") => "`elo find` shows who is there; --trace shows what was tried",
                _ => return None,
            }
            .to_owned(),
        )
    }

    /// The whole as one JSON object.
    pub(super) fn to_json(&self) -> Value {
        let mut error = self.detail.clone();
        let code = match self.exit {
            USAGE => "USAGE",
            INTERRUPTED => "INTERRUPTED",
            _ => "FAILED",
        };
        error.entry("code").or_insert_with(|| Value::from(code));
        error.insert("message".to_owned(), Value::from(self.message.as_str()));
        error.insert("exit".to_owned(), Value::from(self.exit));
        if let Some(hint) = &self.hint {
            error.insert("hint".to_owned(), Value::from(hint.as_str()));
        }
        json!({ "error": error })
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        Self::from_reply(serde_json::to_value(&error).unwrap_or_default())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Config(_) | Error::Invalid(_) => USAGE,
            _ => FAILED,
        };
        let failure = Self::new(error.to_string()).exit(exit);
        match failure.message.ends_with("it needs a new key") {
            true => failure.hint("`elo init --force` makes one and keeps a backup; others must be told the new id"),
            false => failure,
        }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            IdentityError::Locked { .. } | IdentityError::WrongPassphrase { .. } => failure.code("LOCKED").exit(LOCKED),
            IdentityError::UnfitPassphrase => failure.code("USAGE").exit(USAGE),
            _ => failure.code("IDENTITY"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivery_decides_the_exit_code() {
        for (delivery, exit) in [("not_sent", 3), ("unconfirmed", 3), ("accepted", 4), ("answered", 1)] {
            let failure = Failure::from_reply(json!({"code": "PEER_GONE", "message": "it left", "delivery": delivery}));
            assert_eq!(failure.exit, exit, "{delivery}");
            assert_eq!(failure.message, "PEER_GONE: it left");
        }
        let late = json!({"code": "TIMEOUT", "message": "late", "delivery": "answered"});
        assert_eq!(Failure::from_reply(late).exit, UNANSWERED);
        assert_eq!(Failure::from_reply(json!({"code": "BAD_REQUEST", "message": "no"})).exit, USAGE);
        assert_eq!(Failure::from_reply(json!({"code": "INTERNAL", "message": "no"})).exit, FAILED);
        assert_eq!(Failure::from_reply(json!(7)).exit, FAILED);
    }

    #[test]
    fn who_is_refused_is_told_where_to_look() {
        let hint = |message| {
            let error = json!({"code": "NOT_ALLOWED", "message": message, "delivery": "not_sent"});
            Failure::from_reply(error).hint.unwrap_or_default()
        };
        assert!(hint("nobody was found (no peer is connected: wait)").contains("elo peers"));
        assert!(hint("this node takes tasks through trackers only when they are sealed").contains("--no-sealed"));
        assert!(hint("something else").is_empty());
        let revoked = Error::Config("x was revoked: nobody will talk to this node; it needs a new key".to_owned());
        assert!(Failure::from(revoked).hint.unwrap().contains("elo init --force"));
    }

    #[test]
    fn the_json_form_keeps_what_was_tried() {
        let failure = Failure::from_reply(
            json!({"code": "NO_PEER", "message": "nobody", "delivery": "not_sent", "tried": [{"step": "table"}]}),
        );
        let error = &failure.to_json()["error"];
        assert_eq!(error["code"], "NO_PEER");
        assert_eq!(error["exit"], 3);
        assert_eq!(error["tried"][0]["step"], "table");
        assert!(error["hint"].is_string());
    }
}
