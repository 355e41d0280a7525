//! What a person may do about a failure under load.

use crate::error::{Delivery, ErrorCode};
use crate::limits::Limits;

/// What bounds it, and what raises the bound, as far as the error tells.
pub(super) fn on(code: ErrorCode, delivery: Delivery, message: &str) -> Option<String> {
    let limits = Limits::default();
    Some(match code {
        ErrorCode::RateLimited if message.contains("Python") => {
            "a node of the Python package takes no more; nothing raises that".to_owned()
        }
        ErrorCode::RateLimited if message.contains("bytes") => format!(
            "the tracker relays {} MiB a second from one node to another unless its owner says otherwise: relay_bytes_per_second \
             and relay_byte_burst under [limits] in its elo.toml",
            limits.relay_bytes_per_second >> 20
        ),
        ErrorCode::RateLimited if message.contains("messages") => format!(
            "the other side limits you to so many messages a second ({} unless its owner says otherwise): raise its [limits] \
             messages_per_second and message_burst, or use less --in-flight",
            limits.messages_per_second
        ),
        ErrorCode::RateLimited => {
            "the other side's owner has a rule for this capability: rate or max-in-flight in [[policy]] in its \
                                   elo.toml; or it is [limits] messages_per_second"
                .to_owned()
        }
        ErrorCode::Overloaded if delivery == Delivery::NotSent && message.contains("outbox") => {
            "what waits to be sent is more than the connection takes: less --in-flight or a smaller --size; or raise \
             outbox_bytes and outbox_messages under [limits] of the node that sends"
                .to_owned()
        }
        ErrorCode::Overloaded if delivery == Delivery::NotSent => format!(
            "the node here makes {} calls at once unless its owner says otherwise: raise its [limits] max_calls",
            limits.max_calls
        ),
        ErrorCode::Overloaded if message.contains("remembered") => {
            "it remembers tasks until their deadlines: a shorter --timeout lets \
                                                                    it forget them sooner, or raise its [limits] \
                                                                    max_remembered_tasks"
                .to_owned()
        }
        ErrorCode::Overloaded if message.contains("memory") => {
            "raise its [limits] memory_budget, or send less".to_owned()
        }
        ErrorCode::Overloaded => format!(
            "the other side runs {} tasks of one caller at once ({} in all) unless its owner says otherwise: less --in-flight, or \
             raise its [limits] max_tasks_per_caller; a program behind --exec has --max-tasks",
            limits.max_tasks_per_caller, limits.max_tasks
        ),
        ErrorCode::Timeout => "it was not answered within --timeout; less --in-flight shortens the queue".to_owned(),
        ErrorCode::UnknownCapability => "`elo find` shows what it provides".to_owned(),
        ErrorCode::NotAllowed => {
            "the other side's owner decides who may ask for what: `elo allow`, [[policy]]".to_owned()
        }
        ErrorCode::TooLarge => {
            "an answer is bounded as a task is, and `ping` sends the payload back: a smaller --size".to_owned()
        }
        ErrorCode::NoPeer | ErrorCode::NoTracker | ErrorCode::PeerGone => {
            "it was away, or the way to it: `elo peers` shows who is connected".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told apart by its words is told apart by the words that are used.
    #[test]
    fn each_bound_is_named() {
        for (code, delivery, message, named) in [
            (ErrorCode::RateLimited, Delivery::Answered, "too many messages on this connection", "messages_per_second"),
            (
                ErrorCode::RateLimited,
                Delivery::NotSent,
                "too many bytes from this node to that one",
                "relay_byte_burst",
            ),
            (ErrorCode::RateLimited, Delivery::Answered, "\"x\" may be asked for 5/s by one caller", "[[policy]]"),
            (ErrorCode::Overloaded, Delivery::NotSent, "4096 calls are in flight already", "max_calls"),
            (ErrorCode::Overloaded, Delivery::NotSent, "its outbox is full", "outbox_bytes"),
            (ErrorCode::Overloaded, Delivery::Answered, "256 tasks of this caller are running", "max_tasks_per_caller"),
            (ErrorCode::Overloaded, Delivery::Answered, "tasks of this caller are remembered", "max_remembered_tasks"),
            (ErrorCode::Overloaded, Delivery::Answered, "this node is short of memory", "memory_budget"),
            (ErrorCode::Timeout, Delivery::Accepted, "no answer", "--timeout"),
        ] {
            let advice = on(code, delivery, message).unwrap_or_default();
            assert!(advice.contains(named), "{code} {message:?}: {advice}");
        }
        assert_eq!(on(ErrorCode::HandlerError, Delivery::Answered, "the program says no"), None);
    }
}
