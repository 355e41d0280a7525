//! Long messages that short ones may pass: they are parsed and checked apart, and the reader goes on meanwhile. A message of
//! 500 kB takes milliseconds, and on its connection others wait for answers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::hooks::{Heard, Hooks, Refused};
use super::reader::{bad_relay, bad_signature};
use crate::error::ErrorCode;
use crate::limits::LONG_MESSAGE;
use crate::memory::Share;
use crate::wire::{Malformed, Message, Object, Roots, Speaker, check};

/// What is said of a message's type stands within its last bytes: in canonical form little sorts behind it.
const TAIL: usize = 64;

/// The types whose messages carry their order in numbers, or have none: what the other side sends in whatever order, too.
const PASSABLE: [&[u8]; 4] =
    [b"\"type\":\"task\"", b"\"type\":\"result\"", b"\"type\":\"chunk\"", b"\"type\":\"relay\""];

/// Whether a message is long, and short ones may pass it, as far as can be told at a glance. Who is told wrongly, by whoever
/// wrote it so, is told again when it was parsed.
pub(super) fn is_passable(raw: &Bytes) -> bool {
    let tail = &raw[raw.len().saturating_sub(TAIL)..];
    raw.len() >= LONG_MESSAGE && PASSABLE.iter().any(|kind| tail.windows(kind.len()).any(|part| part == *kind))
}

/// A message that was looked at.
pub(super) enum Looked {
    /// It can be handed on; and how many signatures were checked for that.
    Heard(Box<Heard>, u64),
    /// It is another one than it seemed: nothing was done for it.
    Other(Object, Box<Result<Message, Malformed>>),
    /// It is no message at all.
    Wrong(String),
}

/// One that is being looked at. There is one for each connection at most.
pub(super) type Looking = JoinHandle<Looked>;

/// Looks at a message on a thread that may be busy for a while. `held` is what it takes in memory.
pub(super) fn look(raw: Bytes, speaker: Speaker, hooks: &Arc<dyn Hooks>, held: Share) -> Looking {
    let hooks = Arc::clone(hooks);
    spawn_blocking(move || {
        let _held = held;
        let object = match Object::parse(raw) {
            Ok(object) => object,
            Err(error) => return Looked::Wrong(error.to_string()),
        };
        match Message::parse(&object) {
            Ok(message @ (Message::Task(_) | Message::Result(_) | Message::Chunk(_) | Message::Relay(_))) => {
                // What it was signed with is in no other message.
                let mut roots = Roots::new();
                let heard = checked(message, &object, speaker, &*hooks, &mut roots);
                Looked::Heard(Box::new(heard), roots.checks())
            }
            other => Looked::Other(object, Box::new(other)),
        }
    })
}

/// A message with its signatures checked, those inside an envelope as well.
pub(super) fn checked(
    message: Message,
    object: &Object,
    speaker: Speaker,
    hooks: &dyn Hooks,
    roots: &mut Roots,
) -> Heard {
    match check(message, speaker, roots) {
        Ok(checked) => Heard::Message(hooks.opened(checked, roots)),
        Err(_) => {
            let why = "the frame's signature is missing, or is not its source's";
            let relay = bad_relay(object, ErrorCode::BadSignature, why);
            let refused: Refused = relay.unwrap_or_else(|| bad_signature(object));
            Heard::Refused(refused)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::{Builder, Draft};

    #[test]
    fn what_may_be_passed_is_told_by_its_end() {
        let identity = Identity::from_seed([1; 32]);
        let event = |data: &str| Draft::Event {
            id: "e".into(),
            event_type: "x".into(),
            data: Bytes::from(format!("\"{data}\"")),
            timestamp: 0,
            ttl: 1,
        };
        let long = "x".repeat(LONG_MESSAGE);
        let task = |payload: &str| {
            Builder::new("task").str("payload", payload).u64("window", 32).sign(&identity, &[]).raw().clone()
        };
        assert!(is_passable(&task(&long)));
        assert!(!is_passable(&task("short")));
        assert!(!is_passable(event(&long).sign(&identity).raw()));
        // Quotes inside of a text are escaped.
        assert!(!is_passable(event(&(long + r#"\"type\":\"task\""#)).sign(&identity).raw()));
    }
}
