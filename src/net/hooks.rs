//! What a connection tells the node.

use std::time::Duration;

use crate::error::{CloseReason, ErrorCode};
use crate::identity::NodeId;
use crate::mesh::ConnId;
use crate::wire::{Checked, Malformed, Message, Roots};

/// Whoever a connection's news are for. Called on the connection's own tasks: slow answers hold up that connection's
/// reading, and nothing else. They must not block.
pub trait Hooks: Send + Sync + 'static {
    /// A message came, and its signatures were checked: opened, if it is an envelope for this node. `roots` are for what is
    /// inside of it. Of a long message on another thread.
    fn opened(&self, message: Checked, roots: &mut Roots) -> Checked;

    /// Messages came, in this order: those that had come together, as far as that may be waited for.
    fn heard(&self, conn: ConnId, news: Vec<Heard>);

    /// The connection is over: called once, after the last message. `reason` is the one this node gave, or else the
    /// one the peer gave; `None` when the stream just ended. It may come while the runtime goes down: don't spawn.
    fn closed(&self, conn: ConnId, reason: Option<CloseReason>, message: String);
}

/// What became of a message that came.
#[derive(Debug)]
pub enum Heard {
    /// Its signatures were checked.
    Message(Checked),
    /// It was not used. Whether its sender is told is up to the node.
    Refused(Refused),
}

/// A message that was not used, and why.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "handed on once and never stored; a box would be the greater cost")]
pub enum Refused {
    /// A member is missing or wrong.
    Malformed(Malformed),
    /// It is not signed by whom it names.
    BadSignature {
        /// The message's type.
        kind: String,
        /// Its id, if it has a usable one.
        id: Option<String>,
        /// The `caller` it names, which is not proven.
        caller: Option<NodeId>,
    },
    /// A relay whose frame can't be used, or is not signed by the source it names.
    BadRelay {
        /// Whom it is for.
        target: NodeId,
        /// Who is to have signed the frame; not proven.
        source: NodeId,
        /// The frame's id.
        id: String,
        /// `BAD_REQUEST` or `BAD_SIGNATURE`.
        code: ErrorCode,
        /// What is wrong.
        why: String,
    },
    /// A task or query above the peer's rate. Its signature was not looked at.
    RateLimited {
        /// The message.
        message: Message,
        /// When there is room again.
        retry_after: Duration,
    },
    /// Gossip above the peer's rate.
    Dropped {
        /// The message's type.
        kind: String,
    },
    /// A type this version doesn't know.
    Unknown {
        /// The message's type.
        kind: String,
    },
}
