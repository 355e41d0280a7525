//! Checking what a message's author signed, before anybody uses the message.

use super::json::{Object, SignatureError, verify_object};
use super::message::Message;
use super::record::Record;
use crate::identity::NodeId;

/// A message whose signatures were checked: the only kind that `mesh` takes.
#[derive(Clone, Debug)]
pub struct Checked {
    message: Message,
    forged_records: usize,
    signed: bool,
}

impl Checked {
    pub(super) fn from_parts(message: Message, forged_records: usize, signed: bool) -> Self {
        Self { message, forged_records, signed }
    }

    /// The message.
    pub fn into_message(self) -> Message {
        self.message
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// How many records in it were left out because their signatures don't verify.
    pub fn forged_records(&self) -> usize {
        self.forged_records
    }

    /// Whether the message carries a signature of its author, which verified.
    pub fn is_signed(&self) -> bool {
        self.signed
    }
}

/// Who speaks on a connection, for what that means for signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// A peer that proved its id.
    Proven,
    /// A node of the Python package, and the id it claims: it signs tasks and results only, and doesn't name itself
    /// in results.
    Legacy(NodeId),
}

/// Checks a message's signature, and those of the records in it: wrong records are left out, any other wrong
/// signature refuses the message.
pub fn check(message: Message, speaker: Speaker) -> Result<Checked, SignatureError> {
    let mut forged_records = 0;
    let mut signed = true;
    let message = match message {
        Message::Announce(record, ttl) => {
            verify_object(&record.object, &record.node_id, &[])?;
            Message::Announce(record, ttl)
        }
        Message::QueryResp(mut resp) => {
            let before = resp.nodes.len();
            resp.nodes.retain(|r| verify_object(&r.object, &r.node_id, &[]).is_ok());
            forged_records = before - resp.nodes.len();
            signed = false;
            Message::QueryResp(resp)
        }
        message => {
            signed = match author(&message, speaker)? {
                Some((object, author, uncovered)) => {
                    verify_object(object, &author, uncovered)?;
                    true
                }
                None => false,
            };
            message
        }
    };
    Ok(Checked { message, forged_records, signed })
}

/// How many signatures are looked at when a message is [checked](check), and for its node to open what it seals.
pub fn signatures(message: &Message) -> u64 {
    match message {
        Message::QueryResp(resp) => resp.nodes.len() as u64,
        // The envelope's, and that of the message in it.
        Message::Sealed(_) => 2,
        Message::Relay(relay) => signatures(&relay.frame),
        Message::Task(_)
        | Message::Accepted(_)
        | Message::Chunk(_)
        | Message::ChunkAck(_)
        | Message::Cancel(_)
        | Message::Result(_)
        | Message::Query(_)
        | Message::Event(_)
        | Message::Announce(..) => 1,
        Message::InterestUpdate(_)
        | Message::RelayError(_)
        | Message::Punch(_)
        | Message::PunchStart(_)
        | Message::PunchError(_)
        | Message::Heartbeat(_)
        | Message::DialBack(_)
        | Message::DialBackResult(_)
        // They have a rate of their own, and are checked when they are news.
        | Message::Revoked(_)
        | Message::Bye(..)
        | Message::Unknown(_) => 0,
    }
}

/// Checks the signatures of records that came in a list, and leaves the wrong ones out.
pub fn check_records(objects: &[Object]) -> Vec<Record> {
    let parse = |o: &Object| Record::parse(o).ok().filter(|r| verify_object(&r.object, &r.node_id, &[]).is_ok());
    objects.iter().filter_map(parse).collect()
}

type Author<'a> = (&'a Object, NodeId, &'static [&'static str]);

/// Who must have signed it, and what the signature doesn't cover; `None` for what nobody signs.
fn author(message: &Message, speaker: Speaker) -> Result<Option<Author<'_>>, SignatureError> {
    const NONE: &[&str] = &[];
    const TTL: &[&str] = &["ttl"];
    let legacy = matches!(speaker, Speaker::Legacy(_));
    Ok(match message {
        Message::Task(m) => Some((&m.object, m.caller, NONE)),
        Message::Accepted(m) => Some((&m.object, m.responder, NONE)),
        Message::Chunk(m) => Some((&m.object, m.responder, NONE)),
        Message::ChunkAck(m) => Some((&m.object, m.caller, NONE)),
        Message::Cancel(m) => Some((&m.object, m.caller, NONE)),
        Message::Sealed(m) => Some((&m.object, m.source, NONE)),
        Message::Result(m) => match (m.responder, speaker) {
            // The package doesn't sign its errors; they are told apart by `Checked::is_signed`.
            (None, Speaker::Legacy(_)) if m.body.is_err() && m.object.get("signature").is_none() => None,
            (None, Speaker::Legacy(claimed)) => Some((&m.object, claimed, NONE)),
            (None, Speaker::Proven) => return Err(SignatureError::Missing),
            (Some(responder), _) => Some((&m.object, responder, NONE)),
        },
        Message::Query(_) | Message::Event(_) if legacy => None,
        Message::Query(m) => Some((&m.object, m.origin.ok_or(SignatureError::Missing)?, TTL)),
        Message::Event(m) => Some((&m.object, m.origin.ok_or(SignatureError::Missing)?, TTL)),
        Message::Relay(m) => match author(&m.frame, Speaker::Proven)? {
            // A frame may only travel under the name of whoever signed it.
            Some((_, author, _)) if author != m.source => return Err(SignatureError::Invalid),
            signed => signed,
        },
        Message::Announce(..)
        | Message::InterestUpdate(_)
        | Message::QueryResp(_)
        | Message::RelayError(_)
        | Message::Punch(_)
        | Message::PunchStart(_)
        | Message::PunchError(_)
        | Message::Heartbeat(_)
        | Message::DialBack(_)
        | Message::DialBackResult(_)
        // Its statements carry signatures of their own, which are looked at when they are news.
        | Message::Revoked(_)
        | Message::Bye(..)
        | Message::Unknown(_) => None,
    })
}
