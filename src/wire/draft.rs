//! Messages that this node writes, before they are signed.

use std::net::SocketAddr;

use bytes::Bytes;

use super::json::{Builder, Object, Unsigned, canonicalize_value};
use super::message::WireError;
use super::sealed::SealedKind;
use crate::error::{CloseReason, ErrorCode};
use crate::identity::{Identity, NodeId};

/// A message to be signed and sent. Signing the same draft twice gives the same bytes.
#[derive(Clone, Debug)]
pub enum Draft {
    /// A task.
    Task(TaskDraft),
    /// "I have it."
    Accepted {
        /// The task.
        id: String,
        /// Who asked.
        caller: NodeId,
    },
    /// A part of an answer.
    Chunk {
        /// The task.
        id: String,
        /// Who asked.
        caller: NodeId,
        /// Which part, from 0.
        seq: u64,
        /// Canonical JSON.
        data: Bytes,
    },
    /// "I have taken every chunk before `next`."
    ChunkAck {
        /// The task.
        id: String,
        /// The first chunk not taken yet.
        next: u64,
    },
    /// The answer.
    Result(ResultDraft),
    /// "Stop."
    Cancel {
        /// The task.
        id: String,
    },
    /// "Who provides this?"
    Query {
        /// Its id.
        id: String,
        /// The capability; empty: any.
        capability: String,
        /// The node; empty: any.
        node: String,
        /// How many links it may travel.
        ttl: u8,
        /// UNIX seconds.
        timestamp: i64,
        /// How many answers are wanted.
        limit: u64,
    },
    /// Something published.
    Event {
        /// Its id.
        id: String,
        /// Its type.
        event_type: String,
        /// Canonical JSON.
        data: Bytes,
        /// UNIX seconds.
        timestamp: i64,
        /// How many links it may travel.
        ttl: u8,
    },
}

/// A task before it is signed.
#[derive(Clone, Debug)]
pub struct TaskDraft {
    /// Its id.
    pub id: String,
    /// Who is to do it.
    pub target: NodeId,
    /// What is asked for.
    pub capability: String,
    /// Canonical JSON.
    pub payload: Bytes,
    /// UNIX seconds.
    pub timestamp: i64,
    /// Seconds.
    pub ttl_s: u64,
    /// How long it may wait for an agent that is away, in seconds; `None`: not at all.
    pub wait_s: Option<u64>,
    /// How many chunks may be on the way; `None` for the Python package.
    pub window: Option<u64>,
    /// The run of the target it is meant for, if known.
    pub instance: Option<String>,
}

/// A result before it is signed.
#[derive(Clone, Debug)]
pub struct ResultDraft {
    /// The task's id.
    pub id: String,
    /// Who asked.
    pub caller: NodeId,
    /// Canonical JSON, or the error.
    pub body: Result<Bytes, WireError>,
    /// How many chunks belong to it.
    pub chunks: u64,
}

impl WireError {
    /// An error of one of our codes.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code: code.as_str().to_owned(),
            message: message.into(),
            retry_after_s: None,
            not_run: false,
            instance: None,
            seal: None,
        }
    }

    /// When to come back, if that was said and makes sense.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        self.retry_after_s.and_then(|s| std::time::Duration::try_from_secs_f64(s).ok())
    }

    /// Says when to come back, in whole seconds.
    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1) as f64);
        self
    }

    /// Says that nothing was done for the task.
    pub fn not_run(mut self) -> Self {
        self.not_run = true;
        self
    }

    /// The JSON object of it.
    pub fn to_json(&self) -> Vec<u8> {
        let mut value = serde_json::json!({ "code": self.code, "message": self.message });
        if let (true, Some(object)) = (self.not_run, value.as_object_mut()) {
            object.insert("ran".to_owned(), false.into());
        }
        if let (Some(instance), Some(object)) = (&self.instance, value.as_object_mut()) {
            object.insert("instance".to_owned(), instance.as_str().into());
        }
        if let (Some(seal), Some(object)) = (&self.seal, value.as_object_mut()) {
            object.insert("seal".to_owned(), seal.to_string().into());
        }
        if let (Some(seconds), Some(object)) = (self.retry_after_s, value.as_object_mut()) {
            // Whole seconds are written as an integer, so that every language prints them the same way.
            let number = if seconds.fract() == 0.0 && (0.0..1e15).contains(&seconds) {
                serde_json::Value::from(seconds as u64)
            } else {
                serde_json::Value::from(seconds)
            };
            object.insert("retry_after_s".to_owned(), number);
        }
        canonicalize_value(&value).unwrap_or_else(|_| b"{}".to_vec())
    }
}

impl Draft {
    /// Which kind of envelope it goes into, and under which id; `None` for what is never sealed.
    pub fn sealed_kind(&self) -> Option<(SealedKind, &str)> {
        Some(match self {
            Self::Task(t) => (SealedKind::Task, &t.id),
            Self::Accepted { id, .. } => (SealedKind::Accepted, id),
            Self::Chunk { id, .. } => (SealedKind::Chunk, id),
            Self::ChunkAck { id, .. } => (SealedKind::ChunkAck, id),
            Self::Result(r) => (SealedKind::Result, &r.id),
            Self::Cancel { id } => (SealedKind::Cancel, id),
            Self::Event { id, .. } => (SealedKind::Event, id),
            Self::Query { .. } => return None,
        })
    }

    /// Signs it with the node's key.
    pub fn sign(&self, identity: &Identity) -> Object {
        self.unsigned(&identity.id()).sign(identity)
    }

    /// The message as node `me` signs it: by itself, or with others in a [batch](super::batch::sign).
    pub fn unsigned(&self, me: &NodeId) -> Unsigned {
        // The names in their order: then each is written once.
        let b = Builder::untyped();
        match self {
            Self::Task(t) => {
                let b = b
                    .node("caller", me)
                    .str("capability", &t.capability)
                    .str("id", &t.id)
                    .opt_str("instance", t.instance.as_deref())
                    .raw("payload", &t.payload)
                    .str("protocol", "elo.v1")
                    .node("target", &t.target)
                    .i64("timestamp", t.timestamp)
                    .u64("ttl_s", t.ttl_s)
                    .str("type", "task");
                let b = match t.wait_s {
                    Some(wait_s) => b.u64("wait_s", wait_s),
                    None => b,
                };
                let b = match t.window {
                    Some(window) => b.u64("window", window),
                    None => b,
                };
                b.unsigned(&[])
            }
            Self::Accepted { id, caller } => {
                b.node("caller", caller).str("id", id).node("responder", me).str("type", "accepted").unsigned(&[])
            }
            Self::Chunk { id, caller, seq, data } => b
                .node("caller", caller)
                .raw("data", data)
                .str("id", id)
                .node("responder", me)
                .u64("seq", *seq)
                .str("type", "chunk")
                .unsigned(&[]),
            Self::ChunkAck { id, next } => {
                b.node("caller", me).str("id", id).u64("next", *next).str("type", "chunk_ack").unsigned(&[])
            }
            Self::Result(r) => {
                let b = b.node("caller", &r.caller);
                let b = if r.chunks > 0 { b.u64("chunks", r.chunks) } else { b };
                let (b, status) = match &r.body {
                    Ok(payload) => (b.str("id", &r.id).raw("payload", payload), "success"),
                    Err(error) => (b.raw("error", &error.to_json()).str("id", &r.id), "error"),
                };
                let b = b.str("protocol", "elo.v1").node("responder", me);
                b.str("status", status).str("type", "result").unsigned(&[])
            }
            Self::Cancel { id } => b.node("caller", me).str("id", id).str("type", "cancel").unsigned(&[]),
            Self::Query { id, capability, node, ttl, timestamp, limit } => b
                .str("capability", capability)
                .str("id", id)
                .u64("limit", *limit)
                .str("node", node)
                .node("origin", me)
                .i64("timestamp", *timestamp)
                .u64("ttl", (*ttl).into())
                .str("type", "query")
                .unsigned(&["ttl"]),
            Self::Event { id, event_type, data, timestamp, ttl } => b
                .raw("data", data)
                .str("event_type", event_type)
                .str("id", id)
                .node("origin", me)
                .i64("timestamp", *timestamp)
                .u64("ttl", (*ttl).into())
                .str("type", "event")
                .unsigned(&["ttl"]),
        }
    }
}

/// Wraps a signed message for a tracker to pass on.
pub fn relay(target: &NodeId, source: &NodeId, hops: u8, frame: &Object) -> Object {
    Builder::new("relay")
        .str("target", &target.to_string())
        .str("source", &source.to_string())
        .u64("hops", hops.into())
        .object("frame", frame)
        .build()
}

/// Tells `source` that a frame of its could not be passed on.
pub fn relay_error(target: &NodeId, source: &NodeId, id: &str, error: &WireError) -> Object {
    Builder::new("relay_error")
        .str("target", &target.to_string())
        .str("source", &source.to_string())
        .str("id", id)
        .str("code", &error.code)
        .str("message", &error.message)
        .build()
}

/// Tells a tracker this node's addresses in its own network, and asks it for help to a connection with `target`.
pub fn punch(id: &str, target: Option<&NodeId>, addrs: &[SocketAddr]) -> Object {
    let b = Builder::new("punch").str("id", id).strings("addrs", &texts(addrs));
    b.opt_str("target", target.map(ToString::to_string).as_deref()).build()
}

/// Tells one of two nodes to connect to the other.
pub fn punch_start(id: &str, peer: &NodeId, addrs: &[SocketAddr], wait_ms: u64) -> Object {
    Builder::new("punch_start")
        .str("id", id)
        .str("peer", &peer.to_string())
        .strings("addrs", &texts(addrs))
        .u64("wait_ms", wait_ms)
        .build()
}

/// Tells a node that the tracker can't help.
pub fn punch_error(id: &str, target: &NodeId, error: &WireError) -> Object {
    Builder::new("punch_error")
        .str("id", id)
        .str("target", &target.to_string())
        .str("code", &error.code)
        .str("message", &error.message)
        .build()
}

fn texts(addrs: &[SocketAddr]) -> Vec<String> {
    addrs.iter().map(ToString::to_string).collect()
}

/// Passes a record on.
pub fn announce(record: &Object, ttl: u8) -> Object {
    Builder::new("announce").object("record", record).u64("ttl", ttl.into()).build()
}

/// Answers a query.
pub fn query_resp<'a>(
    id: &str,
    origin: &NodeId,
    hops: u32,
    records: impl Iterator<Item = &'a Object>,
    error: Option<&WireError>,
) -> Object {
    let b = Builder::new("query_resp")
        .str("id", id)
        .str("origin", &origin.to_string())
        .u64("hops", hops.into())
        .objects("nodes", records);
    match error {
        Some(error) => b.raw("error", &error.to_json()).build(),
        None => b.build(),
    }
}

/// A sign of life; `ask` wants an answer, `answer` is one.
pub fn heartbeat(me: &NodeId, unix_s: i64, ask: Option<u64>, answer: Option<u64>) -> Object {
    let b = Builder::new("heartbeat").str("node_id", &me.to_string()).i64("ts", unix_s);
    let b = ask.into_iter().fold(b, |b, n| b.u64("ask", n));
    answer.into_iter().fold(b, |b, n| b.u64("answer", n)).build()
}

/// Closes a connection, and says why.
pub fn bye(reason: CloseReason, message: &str) -> Object {
    Builder::new("bye").str("code", reason.as_str()).str("reason", message).build()
}
