//! What can go wrong, whose fault it is, and what to do about it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::identity::{IdentityError, NodeId};

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as it stands on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads a code as it stands on the wire.
            pub fn from_wire(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = String::deserialize(d)?;
                Self::from_wire(&text)
                    .ok_or_else(|| serde::de::Error::custom(format!("unknown code {text:?}")))
            }
        }
    };
}

codes! {
    /// Why a task or a request was not answered with success.
    ErrorCode {
        /// Nobody was found who could take the task; nothing was sent.
        NoPeer = "NO_PEER",
        /// A relay was needed and no tracker is connected.
        NoTracker = "NO_TRACKER",
        /// The other side does not admit the asker.
        NotAllowed = "NOT_ALLOWED",
        /// A signature is missing or does not verify.
        BadSignature = "BAD_SIGNATURE",
        /// The message is malformed; sending it again will not help.
        BadRequest = "BAD_REQUEST",
        /// The node does not provide that capability (any more).
        UnknownCapability = "UNKNOWN_CAPABILITY",
        /// The task is past its deadline, or dated too far in the future.
        Expired = "EXPIRED",
        /// The task ran before and its answer is no longer kept.
        Duplicate = "DUPLICATE",
        /// No answer within the task's time to live.
        Timeout = "TIMEOUT",
        /// The caller took the task back.
        Cancelled = "CANCELLED",
        /// Too many messages; `retry_after_s` says when to come back.
        RateLimited = "RATE_LIMITED",
        /// The responder is full of work; `retry_after_s` says when to come back.
        Overloaded = "OVERLOADED",
        /// The node is there, and the agent that works on this for it is not: nothing was done.
        AgentAway = "AGENT_AWAY",
        /// The message does not fit in what the wire carries.
        TooLarge = "TOO_LARGE",
        /// The peer was lost, or restarted, before it answered.
        PeerGone = "PEER_GONE",
        /// The handler returned an error or panicked.
        HandlerError = "HANDLER_ERROR",
        /// A fault of the node that says so.
        Internal = "INTERNAL",
    }
}

impl ErrorCode {
    /// Whether the same request may succeed later, unchanged.
    ///
    /// It says nothing about whether the task ran: see [`CallError::delivery`].
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::NoPeer
                | Self::NoTracker
                | Self::Timeout
                | Self::RateLimited
                | Self::Overloaded
                | Self::AgentAway
                | Self::PeerGone
                | Self::Expired
        )
    }
}

codes! {
    /// Why a connection was closed: sent to the peer in `bye`, logged and counted.
    CloseReason {
        /// The node is going down.
        Shutdown = "SHUTDOWN",
        /// The handshake was malformed, late, or did not prove the identity.
        BadHandshake = "BAD_HANDSHAKE",
        /// The node is not on the allowlist.
        NotAllowed = "NOT_ALLOWED",
        /// Another connection between the same two nodes is kept.
        Duplicate = "DUPLICATE",
        /// A node connected to itself.
        SelfConnection = "SELF",
        /// Nothing was heard for too long.
        Idle = "IDLE",
        /// It was made for calls, and there were none for a while: no fault, it is made again when it is needed.
        Unused = "UNUSED",
        /// The peer does not read what is sent to it.
        TooSlow = "TOO_SLOW",
        /// A message was longer than allowed.
        TooLarge = "TOO_LARGE",
        /// A message was not valid.
        BadMessage = "BAD_MESSAGE",
        /// The peer kept sending far above its rate.
        RateLimited = "RATE_LIMITED",
        /// No room for another connection.
        Full = "FULL",
    }
}

/// A node could not start, or was asked for something it can't do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The key file is missing, damaged or readable by others.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The address to listen on can't be had.
    #[error(
        "can't listen on {addr}: {source} (choose an address of this machine and another port, or port 0 for any free one)"
    )]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A setting is not valid; the text says which and why.
    #[error("{0}")]
    Config(String),
    /// The node was shut down; start a new one.
    #[error("the node is stopped")]
    Stopped,
    /// A name, pattern or payload is not valid; the text says which and why.
    #[error("{0}")]
    Invalid(String),
    /// The message does not fit in what the wire carries.
    #[error("{what} is {size} bytes, the limit is {limit}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size in bytes.
        size: usize,
        /// The most bytes it may have.
        limit: usize,
    },
}

/// How far a task is known to have come when its call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delivery {
    /// It never left this node: nobody can have run it.
    NotSent,
    /// It was sent and no sign of its arrival came back: it may have run or not.
    Unconfirmed,
    /// The responder said that it has it: it may have run, wholly or in part.
    Accepted,
    /// The responder answered, with the error reported here.
    Answered,
}

/// One step of finding somebody for a call, and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attempt {
    /// The step: `local`, `table`, `connect`, `flood`, `dht` or `relay`.
    pub step: &'static str,
    /// The node it concerned, if one.
    pub node: Option<NodeId>,
    /// What came of it, in words.
    pub result: String,
    /// When it ended, counted from the start of the call.
    #[serde(rename = "at_ms", serialize_with = "as_millis")]
    pub at: Duration,
}

fn as_millis<S: serde::Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_f64((d.as_secs_f64() * 1e6).round() / 1e3)
}

/// A call that did not succeed.
#[derive(Clone, Debug, thiserror::Error, Serialize)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct CallError {
    /// The code, as on the wire.
    pub code: ErrorCode,
    /// What happened, and what to do about it.
    pub message: String,
    /// How long to wait before trying again, if the other side said so.
    #[serde(serialize_with = "as_secs", rename = "retry_after_s", skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
    /// How far the task is known to have come.
    pub delivery: Delivery,
    /// Who answered or was to answer, if somebody was chosen.
    pub responder: Option<NodeId>,
    /// What was tried, in order.
    pub tried: Vec<Attempt>,
}

fn as_secs<S: serde::Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match d {
        Some(d) => s.serialize_f64(d.as_secs_f64()),
        None => s.serialize_none(),
    }
}

impl CallError {
    /// Whether the same call may succeed later. When [`delivery`](Self::delivery) is
    /// [`Delivery::Unconfirmed`] or [`Delivery::Accepted`], a new call may run the work twice.
    pub fn is_retryable(&self) -> bool {
        self.code.is_retryable()
    }
}
