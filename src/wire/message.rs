//! Messages after the handshake: their members, checked, with the bytes they came in.

use std::net::SocketAddr;

use bytes::Bytes;

use super::dialback::{DialBack, DialBackResult};
use super::fields::Fields;
use super::json::Object;
use super::record::Record;
use crate::error::{CloseReason, ErrorCode};
use crate::identity::NodeId;
use crate::limits::{MAX_NAME, MAX_PUNCH_CANDIDATES, MAX_RECORDS_PER_MESSAGE, MAX_TTL_S};

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
    /// The other side closes, and why; `None` when it gave no code we know.
    Bye(Option<CloseReason>, String),
    /// A type this version doesn't know.
    Unknown(String),
}

/// The longest wait that is believed: a day, as long as a task may live.
const MAX_RETRY_AFTER_S: f64 = MAX_TTL_S as f64;

/// The links an announce may travel when it doesn't say.
const DEFAULT_TTL: u8 = crate::limits::FLOOD_TTL;

impl Message {
    /// Reads a message's members. Signatures are not looked at: see [`super::check`].
    pub fn parse(object: &Object) -> Result<Self, Malformed> {
        Self::parse_at(object, false)
    }

    fn parse_at(object: &Object, inside_relay: bool) -> Result<Self, Malformed> {
        let f = Fields::new(object)?;
        let message = match f.kind() {
            "task" => Self::Task(task(&f)?),
            "accepted" => {
                Self::Accepted(Accepted { id: f.id()?, responder: f.node("responder")?, object: object.clone() })
            }
            "chunk" => Self::Chunk(Chunk {
                id: f.id()?,
                seq: f.u64("seq")?,
                data: f.raw("data")?,
                responder: f.node("responder")?,
                object: object.clone(),
            }),
            "chunk_ack" => Self::ChunkAck(ChunkAck {
                id: f.id()?,
                next: f.u64("next")?,
                caller: f.node("caller")?,
                object: object.clone(),
            }),
            "result" => Self::Result(answer(&f)?),
            "cancel" => Self::Cancel(Cancel { id: f.id()?, caller: f.node("caller")?, object: object.clone() }),
            _ if inside_relay => return Err(f.malformed("a frame of this type can't be relayed")),
            "announce" => {
                let record = Record::parse(&f.child("record")?)?;
                Self::Announce(record, f.opt_u64("ttl")?.unwrap_or(DEFAULT_TTL.into()).min(DEFAULT_TTL.into()) as u8)
            }
            "interest_update" => Self::InterestUpdate(f.names("interests")?),
            "query" => Self::Query(query(&f)?),
            "query_resp" => Self::QueryResp(query_resp(&f)?),
            "event" => Self::Event(event(&f)?),
            "relay" => Self::Relay(relay(&f)?),
            "relay_error" => Self::RelayError(RelayError {
                target: f.node("target")?,
                source: f.opt_node("source")?,
                id: f.id()?,
                error: told_error(&f)?,
            }),
            "punch" => Self::Punch(Punch {
                id: f.id()?,
                target: f.opt_node("target")?,
                addrs: f.addrs("addrs", MAX_PUNCH_CANDIDATES)?,
            }),
            "punch_start" => Self::PunchStart(PunchStart {
                id: f.id()?,
                peer: f.node("peer")?,
                addrs: f.addrs("addrs", MAX_PUNCH_CANDIDATES + 1)?,
                wait_ms: f.opt_u64("wait_ms")?.unwrap_or(0),
            }),
            "punch_error" => {
                Self::PunchError(PunchError { id: f.id()?, target: f.node("target")?, error: told_error(&f)? })
            }
            "heartbeat" => Self::Heartbeat(Heartbeat { ask: f.opt_u64("ask")?, answer: f.opt_u64("answer")? }),
            "dial_back" => Self::DialBack(DialBack::read(&f)?),
            "dial_back_result" => Self::DialBackResult(DialBackResult::read(&f, || wire_error(&f))?),
            "bye" => Self::Bye(
                f.opt_text("code")?.as_deref().and_then(CloseReason::from_wire),
                f.opt_long_text("reason")?.unwrap_or_default(),
            ),
            other => Self::Unknown(other.to_owned()),
        };
        Ok(message)
    }

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
            Self::Relay(_) => "relay",
            Self::RelayError(_) => "relay_error",
            Self::Punch(_) => "punch",
            Self::PunchStart(_) => "punch_start",
            Self::PunchError(_) => "punch_error",
            Self::Heartbeat(_) => "heartbeat",
            Self::DialBack(_) => "dial_back",
            Self::DialBackResult(_) => "dial_back_result",
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
            _ => None,
        }
    }
}

fn task(f: &Fields<'_>) -> Result<Task, Malformed> {
    let target_text = f.opt_text("target")?.filter(|t| !t.is_empty());
    let target = target_text.as_ref().and_then(|t| t.parse().ok());
    let target_name = target_text.filter(|_| target.is_none());
    let capability = f.text("capability")?;
    if !super::is_name(&capability) {
        return Err(f.malformed(format!("capability: 1 to {MAX_NAME} characters without control characters")));
    }
    if let Some(protocol) = f.opt_text("protocol")?
        && protocol != "elo.v1"
    {
        return Err(f.malformed("protocol: this node speaks elo.v1"));
    }
    let ttl_s = f.u64("ttl_s")?;
    if ttl_s == 0 || ttl_s > MAX_TTL_S {
        return Err(f.malformed(format!("ttl_s: 1 to {MAX_TTL_S} seconds")));
    }
    Ok(Task {
        id: f.id()?,
        target,
        target_name,
        caller: f.node("caller")?,
        capability,
        payload: f.raw("payload")?,
        timestamp: f.i64("timestamp")?,
        ttl_s,
        window: f.opt_u64("window")?,
        instance: f.opt_short("instance")?,
        object: f.object().clone(),
    })
}

fn answer(f: &Fields<'_>) -> Result<TaskAnswer, Malformed> {
    let body = match f.text("status")?.as_str() {
        "success" => Ok(f.opt_raw("payload").unwrap_or_else(|| Bytes::from_static(b"null"))),
        "error" => Err(match f.opt_raw("error") {
            Some(_) => wire_error(f)?,
            None => WireError {
                code: "INTERNAL".into(),
                message: String::new(),
                retry_after_s: None,
                not_run: false,
                instance: None,
            },
        }),
        _ => return Err(f.malformed("status: \"success\" or \"error\"")),
    };
    Ok(TaskAnswer {
        id: f.id()?,
        body,
        chunks: f.opt_u64("chunks")?,
        responder: f.opt_node("responder")?,
        object: f.object().clone(),
    })
}

/// An error that is the message itself: `code` and `message`.
fn told_error(f: &Fields<'_>) -> Result<WireError, Malformed> {
    Ok(WireError {
        code: f.opt_short("code")?.ok_or_else(|| f.malformed("code: missing"))?,
        message: f.long_text("message")?,
        retry_after_s: None,
        not_run: false,
        instance: None,
    })
}

fn wire_error(f: &Fields<'_>) -> Result<WireError, Malformed> {
    let child = f.child("error")?;
    let e = Fields::inner(&child, f.kind());
    let code = e.opt_short("code")?.unwrap_or_else(|| ErrorCode::Internal.as_str().to_owned());
    Ok(WireError {
        code,
        message: e.opt_long_text("message")?.unwrap_or_default(),
        // A negative or an endless wait is no wait at all.
        retry_after_s: e.opt_f64("retry_after_s")?.filter(|s| (0.0..=MAX_RETRY_AFTER_S).contains(s)),
        not_run: e.opt_bool("ran")? == Some(false),
        instance: e.opt_short("instance")?,
    })
}

fn query(f: &Fields<'_>) -> Result<Query, Malformed> {
    Ok(Query {
        id: f.id()?,
        capability: f.opt_short("capability")?.unwrap_or_default(),
        node: f.opt_short("node")?.unwrap_or_default(),
        ttl: f.opt_u64("ttl")?.unwrap_or(1).min(DEFAULT_TTL.into()) as u8,
        origin: f.opt_node("origin")?,
        timestamp: f.opt_i64("timestamp")?.unwrap_or_default(),
        limit: f.opt_u64("limit")?.unwrap_or(8).clamp(1, MAX_RECORDS_PER_MESSAGE as u64),
        object: f.object().clone(),
    })
}

fn query_resp(f: &Fields<'_>) -> Result<QueryResp, Malformed> {
    let nodes = f.children("nodes")?;
    if nodes.len() > MAX_RECORDS_PER_MESSAGE {
        return Err(f.malformed(format!("nodes: at most {MAX_RECORDS_PER_MESSAGE} records")));
    }
    // The Python package answers with its own short form, which proves nothing: it is passed over.
    let nodes = nodes.iter().filter_map(|o| Record::parse(o).ok()).collect();
    Ok(QueryResp {
        id: f.id()?,
        origin: f.opt_node("origin")?,
        hops: f.opt_u64("hops")?.unwrap_or(1).clamp(1, 255) as u32,
        nodes,
        error: if f.opt_raw("error").is_some() { Some(wire_error(f)?) } else { None },
    })
}

fn event(f: &Fields<'_>) -> Result<Event, Malformed> {
    let event_type = f.text("event_type")?;
    if !super::is_name(&event_type) {
        return Err(f.malformed(format!("event_type: 1 to {MAX_NAME} characters without control characters")));
    }
    Ok(Event {
        id: f.id()?,
        event_type,
        data: f.opt_raw("data").unwrap_or_else(|| Bytes::from_static(b"null")),
        origin: f.opt_node("origin")?,
        timestamp: f.i64("timestamp")?,
        ttl: f.opt_u64("ttl")?.unwrap_or(1).min(DEFAULT_TTL.into()) as u8,
        object: f.object().clone(),
    })
}

fn relay(f: &Fields<'_>) -> Result<Relay, Malformed> {
    let frame_object = f.child("frame")?;
    let frame = Message::parse_at(&frame_object, true)?;
    Ok(Relay {
        target: f.node("target")?,
        source: f.node("source")?,
        hops: f.opt_u64("hops")?.unwrap_or(0).min(u8::MAX.into()) as u8,
        frame: Box::new(frame),
        frame_object,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<String> {
        let object = Object::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap();
        Message::parse(&object).err().map(|m| m.why)
    }

    #[test]
    fn names_and_codes_are_short_and_without_control_characters() {
        let id = NodeId::from_bytes([1; 32]);
        let long = "x".repeat(MAX_NAME + 1);
        let record = |more: &str| {
            let record = r#"{"type":"record","node_id":"ID","caps":{},"seq":1,"ttl_s":60,MORE}"#.replace("MORE", more);
            format!(r#"{{"type":"announce","record":{record}}}"#).replace("ID", &id.to_string())
        };
        let query = |more: &str| format!(r#"{{"type":"query","id":"1","origin":"{id}",{more}}}"#);
        let answer = |more: &str| {
            format!(r#"{{"type":"result","id":"1","status":"error","responder":"{id}","error":{{{more}}}}}"#)
        };
        let relay_error =
            |more: &str| format!(r#"{{"type":"relay_error","id":"1","target":"{id}","message":"m",{more}}}"#);
        type Case<'a> = (&'a dyn Fn(&str) -> String, &'a [&'a str]);
        let cases: [Case<'_>; 4] = [
            (&record, &["name", "version", "instance"]),
            (&query, &["capability", "node"]),
            (&answer, &["code", "instance"]),
            (&relay_error, &["code"]),
        ];
        for (message, members) in cases {
            for member in members {
                for wrong in [r"a\nb", r"\u001b[2J", r"\u009b", &long] {
                    let why = refusal(&message(&format!(r#""{member}":"{wrong}""#)));
                    assert!(why.is_some_and(|why| why.starts_with(&format!("{member}: "))), "{member}: {wrong}");
                }
                assert_eq!(refusal(&message(&format!(r#""{member}":"{}""#, "ü".repeat(MAX_NAME)))), None, "{member}");
            }
        }
    }
}
