//! From an object to a message: which members it must have, and what they may hold.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Accepted, Cancel, Chunk, ChunkAck, Event, Heartbeat, Malformed, Message, Punch, PunchError, PunchStart, Query,
    QueryResp, Relay, RelayError, Task, TaskAnswer, WireError,
};
use crate::error::{CloseReason, ErrorCode};
use crate::limits::{MAX_NAME, MAX_PUNCH_CANDIDATES, MAX_RECORDS_PER_MESSAGE, MAX_TTL_S};
use crate::wire::caps::is_name;
use crate::wire::dialback::{DialBack, DialBackResult};
use crate::wire::fields::Fields;
use crate::wire::json::Object;
use crate::wire::keylife::Revoked;
use crate::wire::record::Record;
use crate::wire::sealed::{Opening, Sealed};

/// The longest wait that is believed: a day, as long as a task may live.
const MAX_RETRY_AFTER_S: f64 = MAX_TTL_S as f64;

/// The links an announce may travel when it doesn't say.
const DEFAULT_TTL: u8 = crate::limits::FLOOD_TTL;

impl Message {
    /// Reads a message's members. Signatures are not looked at: see [`crate::wire::check`].
    pub fn parse(object: &Object) -> Result<Self, Malformed> {
        Self::parse_at(object, false)
    }

    fn parse_at(object: &Object, inside_relay: bool) -> Result<Self, Malformed> {
        let f = Fields::new(object)?;
        let message = match f.kind() {
            "task" => Self::Task(task(&f)?),
            "accepted" => Self::Accepted(Accepted {
                id: f.id()?,
                responder: f.node("responder")?,
                caller: f.opt_node("caller")?,
                object: object.clone(),
            }),
            "chunk" => Self::Chunk(Chunk {
                id: f.id()?,
                seq: f.u64("seq")?,
                data: f.raw("data")?,
                responder: f.node("responder")?,
                caller: f.opt_node("caller")?,
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
            "sealed" if inside_relay => Self::Sealed(Sealed::read(&f)?),
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
            "revoked" => {
                let ttl = f.opt_u64("ttl")?.unwrap_or(DEFAULT_TTL.into()).min(DEFAULT_TTL.into()) as u8;
                Self::Revoked(Revoked::read(&f, ttl)?)
            }
            "bye" => Self::Bye(
                f.opt_text("code")?.as_deref().and_then(CloseReason::from_wire),
                f.opt_long_text("reason")?.unwrap_or_default(),
            ),
            other => Self::Unknown(other.to_owned()),
        };
        Ok(message)
    }
}

fn task(f: &Fields<'_>) -> Result<Task, Malformed> {
    let target_text = f.borrowed("target")?.filter(|t| !t.is_empty());
    let target = target_text.as_ref().and_then(|t| t.parse().ok());
    let target_name = target_text.filter(|_| target.is_none()).map(Cow::into_owned);
    let capability = f.text("capability")?;
    if !is_name(&capability) {
        return Err(f.malformed(format!("capability: 1 to {MAX_NAME} characters without control characters")));
    }
    if let Some(protocol) = f.borrowed("protocol")?
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
        wait_s: f.opt_u64("wait_s")?.unwrap_or(0).min(ttl_s),
        window: f.opt_u64("window")?,
        instance: f.opt_short("instance")?,
        object: f.object().clone(),
    })
}

fn answer(f: &Fields<'_>) -> Result<TaskAnswer, Malformed> {
    let status = f.borrowed("status")?.ok_or_else(|| f.missing("status"))?;
    let body = match &*status {
        "success" => Ok(f.opt_raw("payload").unwrap_or_else(|| Bytes::from_static(b"null"))),
        "error" => Err(match f.opt_raw("error") {
            Some(_) => wire_error(f)?,
            None => WireError {
                code: "INTERNAL".into(),
                message: String::new(),
                retry_after_s: None,
                not_run: false,
                instance: None,
                seal: None,
            },
        }),
        _ => return Err(f.malformed("status: \"success\" or \"error\"")),
    };
    Ok(TaskAnswer {
        id: f.id()?,
        body,
        chunks: f.opt_u64("chunks")?,
        responder: f.opt_node("responder")?,
        caller: f.opt_node("caller")?,
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
        seal: None,
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
        // One that can't be used is none.
        seal: e.opt_text("seal")?.and_then(|key| key.parse().ok().map(Box::new)),
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
    if !is_name(&event_type) {
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
    let target = f.node("target")?;
    if let Message::Sealed(sealed) = &frame
        && sealed.target != target
    {
        return Err(f.malformed("target: not that of the sealed frame"));
    }
    Ok(Relay {
        target,
        source: f.node("source")?,
        hops: f.opt_u64("hops")?.unwrap_or(0).min(u8::MAX.into()) as u8,
        frame: Box::new(frame),
        frame_object,
        opening: Opening::None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NodeId;

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
