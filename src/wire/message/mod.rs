//! Messages after the handshake: their members, checked, with the bytes they came in.

mod parse;

use std::net::SocketAddr;

use bytes::Bytes;

use super::dialback::{DialBack, DialBackResult};
use super::json::Object;
use super::keylife::Revoked;
use super::record::Record;
use super::sealed::{Opening, SealKey, Sealed};
use crate::error::CloseReason;
use crate::identity::NodeId;

/// A message that can't be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {why}")]
pub struct Malformed {
    /// The message's type, as far as it was understood.
    pub kind: String,
    /// The message's id, when it has a usable one, so that its sender can be told.
    pub id: Option<String>,
    /// What is wrong with which member.
    pub why: String,
}

/// A signed request to do something.
#[derive(Clone, Debug)]
pub struct Task {
    /// Chosen by the caller; unique together with `caller`.
    pub id: String,
    /// Who is to do it; `None` when the caller left it open (the Python package does).
    pub target: Option<NodeId>,
    /// A target that is not an id: the Python package also writes its beginning, or `beginning@host:port`.
    pub target_name: Option<String>,
    /// Who asks and signs.
    pub caller: NodeId,
    /// What is asked for.
    pub capability: String,
    /// With what: JSON text.
    pub payload: Bytes,
    /// When, in UNIX seconds by the caller's clock.
    pub timestamp: i64,
    /// For how long, in seconds.
    pub ttl_s: u64,
    /// How long it may wait for an agent that is away, in seconds; 0: not at all.
    pub wait_s: u64,
    /// How many chunks may be on the way unacknowledged; `None`: the caller doesn't acknowledge chunks.
    pub window: Option<u64>,
    /// The run of the target that the task is meant for.
    pub instance: Option<String>,
    /// As it came.
    pub object: Object,
}

/// "I have it and am working on it."
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The task.
    pub id: String,
    /// Who has it, and signs.
    pub responder: NodeId,
    /// Whose task it is; other programs may leave it out.
    pub caller: Option<NodeId>,
    /// As it came.
    pub object: Object,
}

/// A part of an answer.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// The task.
    pub id: String,
    /// Which part, from 0.
    pub seq: u64,
    /// JSON text.
    pub data: Bytes,
    /// Who answers, and signs.
    pub responder: NodeId,
    /// Whose task it is; other programs may leave it out.
    pub caller: Option<NodeId>,
    /// As it came.
    pub object: Object,
}

/// "I have taken every chunk before `next`."
#[derive(Clone, Debug)]
pub struct ChunkAck {
    /// The task.
    pub id: String,
    /// The first chunk not taken yet.
    pub next: u64,
    /// Who asked, and signs.
    pub caller: NodeId,
    /// As it came.
    pub object: Object,
}

/// An error as it stands in a result.
#[derive(Clone, Debug, PartialEq)]
pub struct WireError {
    /// The code as written; codes of other programs are kept.
    pub code: String,
    /// In words.
    pub message: String,
    /// When to come back, in seconds: what came over the wire is checked to be none that a [`Duration`] can't hold.
    ///
    /// [`Duration`]: std::time::Duration
    pub retry_after_s: Option<f64>,
    /// The responder says that it did nothing for the task: `"ran": false`. Somebody else may be asked.
    pub not_run: bool,
    /// The run of the responder, when it refused a task that was meant for an earlier one.
    pub instance: Option<String>,
    /// The responder's seal key, when it could not open what was sealed to another.
    /// Boxed: it is rare, and errors are handed about.
    pub seal: Option<Box<SealKey>>,
}

/// The answer to a task.
#[derive(Clone, Debug)]
pub struct TaskAnswer {
    /// The task.
    pub id: String,
    /// The payload's JSON text, or the error.
    pub body: Result<Bytes, WireError>,
    /// How many chunks belong to the answer; `None` when the responder doesn't say.
    pub chunks: Option<u64>,
    /// Who answers, and signs; `None` from the Python package.
    pub responder: Option<NodeId>,
    /// Whose task it is; other programs may leave it out.
    pub caller: Option<NodeId>,
    /// As it came.
    pub object: Object,
}

/// "Stop working on it."
#[derive(Clone, Debug)]
pub struct Cancel {
    /// The task.
    pub id: String,
    /// Who asked, and signs.
    pub caller: NodeId,
    /// As it came.
    pub object: Object,
}

/// "Who provides this?"
#[derive(Clone, Debug)]
pub struct Query {
    /// Unique together with `origin`.
    pub id: String,
    /// The capability asked for; empty: any.
    pub capability: String,
    /// The node asked for (id, beginning of an id, or name); empty: any.
    pub node: String,
    /// How many links it may still travel.
    pub ttl: u8,
    /// Who asks, and signs; `None` from the Python package.
    pub origin: Option<NodeId>,
    /// When, in UNIX seconds.
    pub timestamp: i64,
    /// How many answers are wanted.
    pub limit: u64,
    /// As it came.
    pub object: Object,
}

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct QueryResp {
    /// The query's id.
    pub id: String,
    /// Who asked.
    pub origin: Option<NodeId>,
    /// How many links away the answering node is from the receiver.
    pub hops: u32,
    /// Who was found; each record's signature was checked.
    pub nodes: Vec<Record>,
    /// Why there is no answer.
    pub error: Option<WireError>,
}

/// Something published.
#[derive(Clone, Debug)]
pub struct Event {
    /// Unique together with `origin`.
    pub id: String,
    /// Its type.
    pub event_type: String,
    /// JSON text.
    pub data: Bytes,
    /// Who published and signs it; `None` from the Python package.
    pub origin: Option<NodeId>,
    /// When, in UNIX seconds.
    pub timestamp: i64,
    /// How many links it may still travel.
    pub ttl: u8,
    /// As it came.
    pub object: Object,
}

/// A signed message on its way through a tracker.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Whom it is for.
    pub target: NodeId,
    /// Who signed the frame.
    pub source: NodeId,
    /// How many trackers it has passed.
    pub hops: u8,
    /// The message; its signature was checked against `source`.
    pub frame: Box<Message>,
    /// The frame as it came.
    pub frame_object: Object,
    /// Whether the frame came sealed, and was opened.
    pub opening: Opening,
}

/// "I could not pass it on."
#[derive(Clone, Debug)]
pub struct RelayError {
    /// Whom it was for.
    pub target: NodeId,
    /// Whose frame it was; `None`: the receiver's.
    pub source: Option<NodeId>,
    /// The id of the frame's task.
    pub id: String,
    /// Why.
    pub error: WireError,
}

/// To a tracker: "these are my addresses in my own network", and with a target: "help us to a connection of our own".
#[derive(Clone, Debug)]
pub struct Punch {
    /// Chosen by the asker.
    pub id: String,
    /// To whom; `None`: only the addresses are told.
    pub target: Option<NodeId>,
    /// Where the asker's end of this connection is in its own network.
    pub addrs: Vec<SocketAddr>,
}

/// From a tracker to both ends: "connect to each other, at the same moment".
#[derive(Clone, Debug)]
pub struct PunchStart {
    /// The id of the [`Punch`] that asked for it.
    pub id: String,
    /// The other end.
    pub peer: NodeId,
    /// Where the other end may be reached.
    pub addrs: Vec<SocketAddr>,
    /// How long to wait, in milliseconds.
    pub wait_ms: u64,
}

/// From a tracker: "I can't help you there".
#[derive(Clone, Debug)]
pub struct PunchError {
    /// The id of the [`Punch`].
    pub id: String,
    /// To whom it was.
    pub target: NodeId,
    /// Why.
    pub error: WireError,
}

/// "I am here."
#[derive(Clone, Debug)]
pub struct Heartbeat {
    /// An answer with this number is wanted at once.
    pub ask: Option<u64>,
    /// The number that was asked with.
    pub answer: Option<u64>,
}

/// A message after the handshake.
#[derive(Clone, Debug)]
pub enum Message {
    /// A record changed; how many links the news may still travel.
    Announce(Record, u8),
    /// The short form of the Python package: the names it provides.
    InterestUpdate(Vec<String>),
    /// See [`Query`].
    Query(Query),
    /// See [`QueryResp`].
    QueryResp(QueryResp),
    /// See [`Task`].
    Task(Task),
    /// See [`Accepted`].
    Accepted(Accepted),
    /// See [`Chunk`].
    Chunk(Chunk),
    /// See [`ChunkAck`].
    ChunkAck(ChunkAck),
    /// See [`TaskAnswer`].
    Result(TaskAnswer),
    /// See [`Cancel`].
    Cancel(Cancel),
    /// See [`Event`].
    Event(Event),
    /// See [`Sealed`]. Only inside a relay.
    Sealed(Sealed),
    /// See [`Relay`].
    Relay(Relay),
    /// See [`RelayError`].
    RelayError(RelayError),
    /// See [`Punch`].
    Punch(Punch),
    /// See [`PunchStart`].
    PunchStart(PunchStart),
    /// See [`PunchError`].
    PunchError(PunchError),
    /// See [`Heartbeat`].
    Heartbeat(Heartbeat),
    /// See [`DialBack`].
    DialBack(DialBack),
    /// See [`DialBackResult`].
    DialBackResult(DialBackResult),
    /// See [`Revoked`].
    Revoked(Revoked),
    /// The other side closes, and why; `None` when it gave no code we know.
    Bye(Option<CloseReason>, String),
    /// A type this version doesn't know.
    Unknown(String),
}

impl Message {
    /// The type as it stands on the wire.
    pub fn kind(&self) -> &str {
        match self {
            Self::Announce(..) => "announce",
            Self::InterestUpdate(_) => "interest_update",
            Self::Query(_) => "query",
            Self::QueryResp(_) => "query_resp",
            Self::Task(_) => "task",
            Self::Accepted(_) => "accepted",
            Self::Chunk(_) => "chunk",
            Self::ChunkAck(_) => "chunk_ack",
            Self::Result(_) => "result",
            Self::Cancel(_) => "cancel",
            Self::Event(_) => "event",
            Self::Sealed(_) => "sealed",
            Self::Relay(_) => "relay",
            Self::RelayError(_) => "relay_error",
            Self::Punch(_) => "punch",
            Self::PunchStart(_) => "punch_start",
            Self::PunchError(_) => "punch_error",
            Self::Heartbeat(_) => "heartbeat",
            Self::DialBack(_) => "dial_back",
            Self::DialBackResult(_) => "dial_back_result",
            Self::Revoked(_) => "revoked",
            Self::Bye(..) => "bye",
            Self::Unknown(kind) => kind,
        }
    }

    /// The id of the task that the message is about, if it is about one.
    pub fn task_id(&self) -> Option<&str> {
        match self {
            Self::Task(m) => Some(&m.id),
            Self::Accepted(m) => Some(&m.id),
            Self::Chunk(m) => Some(&m.id),
            Self::ChunkAck(m) => Some(&m.id),
            Self::Result(m) => Some(&m.id),
            Self::Cancel(m) => Some(&m.id),
            Self::Sealed(m) => Some(&m.id),
            _ => None,
        }
    }
}
