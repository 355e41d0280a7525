//! What the state wants done: the driver carries it out, outside the lock.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::conn_id::ConnId;
use super::keylife::KeyNews;
use super::lookups::{LookupId, Wanted};
use super::peers::How;
use super::task_id::TaskId;
use crate::error::{Attempt, CallError, CloseReason};
use crate::identity::NodeId;
use crate::info::{Activity, Event, Route};
use crate::wire::{Draft, Object, ProbeNonce, Record, RecordDraft, SealKey, Task};

/// A task, anywhere in the mesh: who asks, and the id it chose.
pub type TaskKey = (NodeId, TaskId);

/// Something to be done. What is large and seldom is in boxes: four of these fit what allocators have at hand.
#[derive(Debug)]
pub enum Action {
    /// Put a message into a connection's outbox.
    Send {
        /// Which connection.
        to: ConnId,
        /// The message.
        what: What,
        /// What happens when there is no room.
        on_full: OnFull,
    },
    /// Sign an answer for a Python node and give it to [`super::State::send_legacy`], which counts what it may be sent.
    SignLegacy {
        /// Which connection.
        conn: ConnId,
        /// The answer.
        draft: Draft,
    },
    /// Close a connection: flush, say why, stop.
    Close {
        /// Which connection.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
        /// Details in words.
        message: String,
    },
    /// Connect to a node at one of these addresses; [`super::State::dial_failed`] tells when none worked.
    Dial {
        /// Who must answer there.
        node: NodeId,
        /// Where.
        addrs: Vec<SocketAddr>,
        /// What for.
        how: How,
    },
    /// Bring a peer's nonce to a port of its own address, one line and nothing else, and tell
    /// [`super::State::dialled_back`] whether it was taken.
    DialBack {
        /// Who asked.
        conn: ConnId,
        /// The question's id.
        id: String,
        /// Where.
        addr: SocketAddr,
        /// What to bring.
        nonce: ProbeNonce,
    },
    /// Ask the DHT; [`super::State::dht_addrs`], [`dht_record`](super::State::dht_record) and at the end
    /// [`dht_over`](super::State::dht_over) tell what it says.
    Dht {
        /// For which lookup.
        lookup: LookupId,
        /// What it is asked for.
        what: Wanted,
    },
    /// Nobody waits for a lookup any more: end what is under way for it, dials included.
    DhtStop {
        /// Which.
        lookup: LookupId,
    },
    /// Connect to whoever is at an address that the DHT named; [`super::State::candidate_over`] tells how it went.
    DialUnknown {
        /// For which lookup.
        lookup: LookupId,
        /// Where.
        addr: SocketAddr,
        /// Who must answer there, if that is known.
        node: Option<NodeId>,
    },
    /// Connect to a node at one of these addresses at the moment when it connects to us, through both NATs;
    /// [`super::State::punch_failed`] tells when none worked.
    Punch {
        /// Who must be there.
        node: NodeId,
        /// Where from: this end of the connection to the tracker that helps.
        local: SocketAddr,
        /// Where to.
        addrs: Vec<SocketAddr>,
        /// When to begin.
        wait: Duration,
        /// Whether this side plays the dialler in the handshake.
        dialler: bool,
    },
    /// Check the signatures of statements about keys, and give them to [`super::State::keys_checked`].
    CheckKeys {
        /// Who brought them.
        from: NodeId,
        /// The statements.
        news: KeyNews,
    },
    /// What is kept of such statements has changed: [`super::State::statements`] are to be saved.
    SaveKeys,
    /// Sign this node's record, and give it to [`super::State::record_signed`].
    SignRecord(Box<RecordDraft>),
    /// Make another seal key, and give it to [`super::State::set_seal_key`].
    ReplaceSealKey {
        /// How long the one before still opens what is sealed to it.
        keep: Duration,
    },
    /// Hand a task to its handler.
    RunTask {
        /// Which.
        key: TaskKey,
        /// The task.
        task: Box<TaskToRun>,
    },
    /// Nobody waits for this task any more: tell its handler, and end it when it doesn't listen.
    StopTask {
        /// Which.
        key: TaskKey,
    },
    /// This task's handler may send chunks again.
    Credit {
        /// Which.
        key: TaskKey,
    },
    /// News of a call.
    Call {
        /// The call's id.
        id: TaskId,
        /// The news.
        event: CallEvent,
    },
    /// A query of ours, or the DHT, found somebody.
    Found {
        /// The query's id.
        id: String,
        /// Who.
        record: Arc<Record>,
        /// How: see [`crate::FoundNode::found`].
        how: &'static str,
        /// How many links away.
        hops: u32,
    },
    /// What came of asking the DHT for a query of ours.
    FindNote {
        /// The query's id.
        id: String,
        /// In words.
        result: String,
    },
    /// A query of ours is over.
    FindOver {
        /// The query's id.
        id: String,
    },
    /// An event for this node's subscribers.
    Event(Event),
    /// Something for the owner to see.
    Activity(Activity),
}

/// A message to be sent.
#[derive(Debug)]
pub enum What {
    /// As it is.
    Ready(Object),
    /// To be signed first.
    Sign(Draft),
    /// To be signed first, sealed to the target's key if there is one, and wrapped for a tracker to pass on to the target.
    SignRelay(Draft, Box<(NodeId, Option<SealKey>)>),
    /// To be wrapped for its target once more: a tracker passes it on. It may be as large as a message gets, so nobody
    /// waits for the copy.
    Relay {
        /// Whom it is for.
        target: NodeId,
        /// Who signed it.
        source: NodeId,
        /// How many trackers it has passed, this one included.
        hops: u8,
        /// The signed message.
        frame: Object,
    },
}

/// What happens when an outbox has no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnFull {
    /// It is dropped and counted: gossip.
    Drop,
    /// The peer is closed as too slow: it would wait for this in vain.
    Close,
    /// The call with this id fails with `OVERLOADED`.
    FailCall(TaskId),
    /// The frame's source is told that the tracker could not pass it on.
    Relay(Box<Relayed>),
}

/// A frame that a tracker passes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Whose frame.
    pub source: NodeId,
    /// Whom it is for.
    pub target: NodeId,
    /// The task's id.
    pub id: String,
}

/// A task for a handler.
#[derive(Debug)]
pub struct TaskToRun {
    /// As signed by the caller; for a local call, as it would have been sent.
    pub id: String,
    /// Who asks.
    pub caller: NodeId,
    /// What is asked for.
    pub capability: String,
    /// JSON text.
    pub payload: Bytes,
    /// UNIX seconds by the caller's clock.
    pub timestamp: i64,
    /// Seconds.
    pub ttl_s: u64,
    /// How long it may wait for an agent that is away, in seconds; 0: not at all.
    pub wait_s: u64,
    /// When it must be done, on this node's monotonic clock.
    pub deadline: Duration,
    /// Through which tracker it came.
    pub via: Option<NodeId>,
    /// Whether that tracker could not read it.
    pub sealed: bool,
    /// Over which connection it came, for back-pressure; `None` for a local call.
    pub conn: Option<ConnId>,
    /// Whether the caller's connection is bound to its key.
    pub proven: bool,
    /// To be passed on into the mesh in this node's name: a Python node asked for what we don't provide ourselves.
    pub gateway: bool,
    /// The message, if it was one. Nobody reads it any more; it is freed by whoever runs the task, outside the lock.
    pub message: Option<Object>,
}

impl TaskToRun {
    /// Of a task that came over the wire.
    pub fn of(task: Task, deadline: Duration, via: Option<NodeId>, conn: ConnId) -> Self {
        Self {
            id: task.id,
            caller: task.caller,
            capability: task.capability,
            payload: task.payload,
            timestamp: task.timestamp,
            ttl_s: task.ttl_s,
            wait_s: task.wait_s,
            deadline,
            via,
            sealed: false,
            conn: Some(conn),
            proven: true,
            gateway: false,
            message: Some(task.object),
        }
    }
}

/// News of a call.
#[derive(Debug)]
pub enum CallEvent {
    /// The responder has the task.
    Accepted,
    /// The next chunk, in order: JSON text.
    Chunk(Bytes),
    /// It is over.
    Done(Box<Result<CallDone, CallError>>),
}

/// A call that succeeded.
#[derive(Debug)]
pub struct CallDone {
    /// JSON text.
    pub payload: Bytes,
    /// Who answered.
    pub responder: NodeId,
    /// The responder's name.
    pub responder_name: String,
    /// Which way.
    pub route: Route,
    /// See [`crate::Outcome::hops`].
    pub hops: u32,
    /// The tracker it came through.
    pub via: Option<NodeId>,
    /// Whether that tracker could not read it.
    pub sealed: bool,
    /// How many chunks came.
    pub chunks: u64,
    /// When the task was sent, when the first sign came, when the result was here: since the call's start.
    pub timings: [Duration; 3],
    /// What was tried.
    pub tried: Vec<Tried>,
    /// The message, if it was one. Nobody reads it any more; it is freed outside the lock.
    pub message: Option<Object>,
}

/// An [`Attempt`], as it is kept while the call is under way: what all calls say alike is not written down for each.
#[derive(Clone, Debug)]
pub struct Tried {
    /// See [`Attempt`].
    pub step: &'static str,
    /// The node it concerned.
    pub node: Option<NodeId>,
    /// What came of it.
    pub result: Cow<'static, str>,
    /// When it ended, counted from the start of the call.
    pub at: Duration,
}

impl From<Tried> for Attempt {
    fn from(tried: Tried) -> Self {
        let Tried { step, node, result, at } = tried;
        Self { step, node, result: result.into_owned(), at }
    }
}
