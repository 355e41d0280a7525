//! The envelope of a relayed message that only its target can read.
//!
//! What trackers need stands outside: whose it is, whom it is for, which kind of message about which task. The message
//! itself, with its own signature, is in the `box`. The crypto is in [`crate::seal`]; this is the form of it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::batch::Roots;
use super::check::{Checked, Speaker, check};
use super::fields::Fields;
use super::json::{Builder, Object, Unsigned};
use super::message::{Malformed, Message, Relay};
use crate::identity::NodeId;
use crate::limits::MAX_TTL_S;

/// What a record and a handshake list when a node takes and sends sealed frames.
pub const SEALED: &str = "sealed";

/// The bytes of the AEAD's tag, by which a box is longer than what is in it.
pub const TAG: usize = 16;

/// An X25519 public key to which messages are sealed: 32 bytes, in one spelling, and none of the few with which every
/// secret would be the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SealKey([u8; 32]);

/// Text or bytes that are no usable X25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an X25519 public key has 32 bytes in URL-safe base64 (43 characters), and is not one of the weak ones")]
pub struct InvalidSealKey;

/// 2^255 - 19, the field's prime, as a key is written: the least significant byte first.
const PRIME: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// The points of small order among the u-coordinates below the prime (RFC 7748 §6.1 and its references): 0, 1, two of
/// order 8, and -1. Any secret multiplied with them gives zero.
const WEAK: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
        0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
        0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    {
        let mut p = PRIME;
        p[0] = 0xec;
        p
    },
];

impl SealKey {
    /// A key of these bytes.
    ///
    /// # Errors
    ///
    /// It is not below the field's prime, so it would be a second spelling of another key, or it is of small order.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidSealKey> {
        let is_below_prime = bytes.iter().rev().lt(PRIME.iter().rev());
        if is_below_prime && !WEAK.contains(&bytes) { Ok(Self(bytes)) } else { Err(InvalidSealKey) }
    }

    /// The 32 bytes of it.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::str::FromStr for SealKey {
    type Err = InvalidSealKey;

    fn from_str(text: &str) -> Result<Self, InvalidSealKey> {
        let mut bytes = [0; 32];
        // This engine takes neither padding nor bits that are left over: one spelling for each key.
        match URL_SAFE_NO_PAD.decode_slice(text.as_bytes(), &mut bytes) {
            Ok(32) => Self::from_bytes(bytes),
            _ => Err(InvalidSealKey),
        }
    }
}

impl fmt::Display for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({self})")
    }
}

/// What kind of message is in an envelope: what a tracker has to know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedKind {
    /// A task.
    Task,
    /// "I have it."
    Accepted,
    /// A part of an answer.
    Chunk,
    /// "I have taken so many."
    ChunkAck,
    /// The answer.
    Result,
    /// "Stop."
    Cancel,
    /// An event for its target alone.
    Event,
}

impl SealedKind {
    /// The word on the wire: the inner message's type.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Accepted => "accepted",
            Self::Chunk => "chunk",
            Self::ChunkAck => "chunk_ack",
            Self::Result => "result",
            Self::Cancel => "cancel",
            Self::Event => "event",
        }
    }

    /// The kind of that name.
    pub fn from_wire(text: &str) -> Option<Self> {
        [Self::Task, Self::Accepted, Self::Chunk, Self::ChunkAck, Self::Result, Self::Cancel, Self::Event]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// An envelope: a signed message for its target alone.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// What is in it.
    pub kind: SealedKind,
    /// The id of the task, or of the event.
    pub id: String,
    /// Who sealed and signed it.
    pub source: NodeId,
    /// Who can open it.
    pub target: NodeId,
    /// Of a task: the run of the target it is meant for, if that is known.
    pub instance: Option<String>,
    /// Of a task: for how long, in seconds.
    pub ttl_s: Option<u64>,
    /// The source's own key: what is answered is sealed to it.
    pub key: SealKey,
    /// The ephemeral key of the context it is sealed in.
    pub enc: SealKey,
    /// The message's number in that context.
    pub n: u64,
    /// Whether the source takes messages that were signed in a batch.
    pub batch: bool,
    /// As it came.
    pub object: Object,
}

impl Sealed {
    pub(super) fn read(f: &Fields<'_>) -> Result<Self, Malformed> {
        let kind =
            SealedKind::from_wire(&f.text("kind")?).ok_or_else(|| f.malformed("kind: not one that is sealed"))?;
        let (instance, ttl_s) = (f.opt_short("instance")?, f.opt_u64("ttl_s")?);
        match (kind, ttl_s) {
            (SealedKind::Task, Some(1..=MAX_TTL_S)) => {}
            (SealedKind::Task, _) => return Err(f.malformed(format!("ttl_s: 1 to {MAX_TTL_S} seconds"))),
            _ if ttl_s.is_some() || instance.is_some() => {
                return Err(f.malformed("instance and ttl_s: only of a task"));
            }
            _ => {}
        }
        let key = |name: &str| -> Result<SealKey, Malformed> {
            f.text(name)?.parse().map_err(|e: InvalidSealKey| f.malformed(format!("{name}: {e}")))
        };
        // What is in it is the target's to read; a text it must be for everybody.
        match f.object().get("box") {
            Some([b'"', inside @ .., b'"']) if inside.iter().all(is_base64) => {}
            _ => return Err(f.malformed("box: expected URL-safe base64")),
        }
        Ok(Self {
            kind,
            id: f.id()?,
            source: f.node("source")?,
            target: f.node("target")?,
            instance,
            ttl_s,
            key: key("key")?,
            enc: key("enc")?,
            n: f.u64("n")?,
            batch: f.opt_bool("batch")?.unwrap_or(false),
            object: f.object().clone(),
        })
    }

    /// What the box is bound to: the canonical form of the envelope without the box and the signature.
    pub fn associated_data(&self) -> Bytes {
        self.object.signing_bytes(&["box", "signature"]).into_owned().into()
    }

    /// What is in the box, sealed; `None`: it is not spelled as it must be.
    pub fn sealed_bytes(&self) -> Option<Vec<u8>> {
        match self.object.get("box") {
            Some([b'"', inside @ .., b'"']) => URL_SAFE_NO_PAD.decode(inside).ok().filter(|b| b.len() >= TAG),
            _ => None,
        }
    }
}

fn is_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// An envelope before there is anything in it.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// See [`Sealed::kind`].
    pub kind: SealedKind,
    /// See [`Sealed::id`].
    pub id: &'a str,
    /// See [`Sealed::target`].
    pub target: &'a NodeId,
    /// See [`Sealed::instance`].
    pub instance: Option<&'a str>,
    /// See [`Sealed::ttl_s`].
    pub ttl_s: Option<u64>,
    /// See [`Sealed::key`].
    pub key: &'a SealKey,
    /// See [`Sealed::enc`].
    pub enc: &'a SealKey,
    /// See [`Sealed::n`].
    pub n: u64,
    /// See [`Sealed::batch`].
    pub batch: bool,
}

impl Envelope<'_> {
    /// Has `seal` fill the box, which it is told what to bind to. It is `source`'s, and yet to be signed.
    ///
    /// # Errors
    ///
    /// Those of `seal`.
    pub fn close<E>(&self, source: &NodeId, seal: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Unsigned, E> {
        let open = Builder::new("sealed")
            .str("kind", self.kind.as_str())
            .str("id", self.id)
            .str("source", &source.to_string())
            .str("target", &self.target.to_string())
            .opt_str("instance", self.instance)
            .str("key", &self.key.to_string())
            .str("enc", &self.enc.to_string())
            .u64("n", self.n);
        let open = match self.ttl_s {
            Some(seconds) => open.u64("ttl_s", seconds),
            None => open,
        };
        let open = if self.batch { open.bool("batch", true) } else { open };
        let filled = seal(open.clone().build().raw())?;
        Ok(open.str("box", &URL_SAFE_NO_PAD.encode(filled)).unsigned(&[]))
    }
}

/// Whether a relayed message came sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opening {
    /// As it is, or not opened here.
    #[default]
    None,
    /// It came in an envelope, which was opened. What is answered is sealed to this key.
    Opened(SealKey),
    /// It is an envelope for this node that can't be used.
    Failed(NotOpened),
}

/// Why an envelope for this node can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// This node seals nothing.
    #[error("this node does not take sealed messages")]
    Off,
    /// None of its keys opens it: it was sealed for an earlier run, or to a key that was replaced.
    #[error("it is sealed to a key that this run of the node does not have")]
    Key,
    /// It opens, and what is in it is no message, or not what the envelope says.
    #[error("what is sealed is not what its envelope says")]
    Inner,
}

impl Checked {
    /// The envelope, if this is one relayed to that node.
    pub fn sealed_for(&self, me: &NodeId) -> Option<&Sealed> {
        match self.message() {
            Message::Relay(Relay { target, frame, opening: Opening::None, .. }) if target == me => match &**frame {
                Message::Sealed(sealed) => Some(sealed),
                _ => None,
            },
            _ => None,
        }
    }

    /// The same relay with what was in the envelope in place of it. What was in it is checked as any message is, and
    /// must be what the envelope says: of that kind, about that task, by who sealed it, and a task for its target.
    pub fn opened(self, opened: Result<Bytes, NotOpened>, roots: &mut Roots) -> Self {
        let (signed, forged_records) = (self.is_signed(), self.forged_records());
        let mut message = self.into_message();
        if let Message::Relay(relay) = &mut message
            && let Message::Sealed(sealed) = &*relay.frame
        {
            match opened.and_then(|text| inner(sealed, text, roots).ok_or(NotOpened::Inner)) {
                Ok(inner) => {
                    relay.opening = Opening::Opened(sealed.key);
                    *relay.frame = inner;
                }
                Err(why) => relay.opening = Opening::Failed(why),
            }
        }
        Self::from_parts(message, forged_records, signed)
    }
}

fn inner(sealed: &Sealed, text: Bytes, roots: &mut Roots) -> Option<Message> {
    let message = Message::parse(&Object::parse(text).ok()?).ok()?;
    let message = check(message, Speaker::Proven, roots).ok().filter(Checked::is_signed)?.into_message();
    let (kind, id, author) = match &message {
        Message::Task(m) if m.target == Some(sealed.target) => (SealedKind::Task, &m.id, m.caller),
        Message::Accepted(m) => (SealedKind::Accepted, &m.id, m.responder),
        Message::Chunk(m) => (SealedKind::Chunk, &m.id, m.responder),
        Message::ChunkAck(m) => (SealedKind::ChunkAck, &m.id, m.caller),
        Message::Result(m) => (SealedKind::Result, &m.id, m.responder?),
        Message::Cancel(m) => (SealedKind::Cancel, &m.id, m.caller),
        Message::Event(m) => (SealedKind::Event, &m.id, m.origin?),
        _ => return None,
    };
    (kind == sealed.kind && *id == sealed.id && author == sealed.source).then_some(message)
}
