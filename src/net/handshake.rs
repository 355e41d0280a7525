//! The handshake on a socket, the listener's side; what comes out of either side.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rand::Rng;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::NetConfig;
use super::stream::Stream;
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::mesh::handshake::{Listener, Proven, Refusal, Welcome, read_legacy_hello};
use crate::wire::dialback::read_probe;
use crate::wire::{Framing, ProbeNonce};

/// A connection came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// One of the two sides refused; [`Refusal::by_peer`] says which.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// What was dialled has proven who it is, and keeps another connection between the two nodes.
    #[error("{} keeps another connection", .0.short())]
    Duplicate(NodeId),
    /// It is a tracker that brings a nonce, and wants no place.
    #[error("a tracker brought a nonce")]
    Probe(ProbeNonce),
    /// It took too long.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
    /// The other side closed the stream in the middle.
    #[error("the other side closed the connection during the handshake")]
    Ended {
        /// Whether it had sent anything before.
        heard: bool,
    },
    /// What was dialled closed the stream without a word, as the Python package does it.
    #[error(
        "the other side hung up without a word: if it is a node of the Python package, this one must admit those (the setting `legacy`)"
    )]
    HungUp,
    /// The stream broke.
    #[error("the connection broke during the handshake: {0}")]
    Io(#[from] io::Error),
    /// The address is not one, or nobody knows it.
    #[error("can't resolve {addr}: {source}")]
    Resolve {
        /// What was to be resolved.
        addr: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("can't connect to {addr}: {source}")]
    Connect {
        /// Where.
        addr: String,
        /// What the system said of the last address tried.
        source: io::Error,
    },
}

impl HandshakeError {
    /// The code, when one of the two sides gave one.
    pub fn reason(&self) -> Option<CloseReason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            Self::Duplicate(_) => Some(CloseReason::Duplicate),
            Self::Timeout(_) => Some(CloseReason::BadHandshake),
            _ => None,
        }
    }
}

/// A stream whose other end is known: see [`Established::start`](Self::start).
#[derive(Debug)]
pub struct Established {
    /// Who it is.
    pub proven: Proven,
    /// The other end's address.
    pub addr: SocketAddr,
    /// This end's address.
    pub local: SocketAddr,
    /// Whether the other side dialled.
    pub inbound: bool,
    /// Whom this side dialled, if it was to be a certain node: itself, or one that it had the id of before.
    pub pinned: Option<NodeId>,
    /// How the listener let us in, when we dialled a node that isn't the Python package's.
    pub welcome: Option<Welcome>,
    pub(super) stream: Stream,
}

impl Established {
    /// Whether only the two ends can read it.
    pub fn encrypted(&self) -> bool {
        self.stream.io.encrypted()
    }

    /// Closes instead of starting: says `bye` and why, within a second.
    pub async fn refuse(self, reason: CloseReason, message: &str) {
        self.stream.refuse(reason, message).await;
    }
}

/// Does the listener's side of the handshake, up to a checked `auth`. The first message on the connection is then up to
/// the caller: `welcome`, or `hello_ack` for a node of the Python package.
///
/// # Errors
///
/// When there is no proof in time. The other side was told, and the stream closed.
pub async fn handshake_inbound(stream: TcpStream, cfg: &NetConfig) -> Result<Established, HandshakeError> {
    let mut stream = Stream::new(stream, Framing::Line);
    stream.give_up_after(cfg.limits.unacked_timeout);
    let patience = cfg.limits.handshake_timeout;
    let ended = timeout(patience, listen(&mut stream, cfg)).await.unwrap_or(Err(HandshakeError::Timeout(patience)));
    let ended = ended.and_then(|proven| Ok((proven, stream.addrs()?)));
    match ended {
        Ok((proven, (addr, local))) => {
            stream.trusted();
            Ok(Established { proven, addr, local, inbound: true, pinned: None, welcome: None, stream })
        }
        Err(error) => {
            part(stream, &error).await;
            Err(error)
        }
    }
}

async fn listen(stream: &mut Stream, cfg: &NetConfig) -> Result<Proven, HandshakeError> {
    match stream.detect().await? {
        Some(Framing::Line) => {}
        Some(Framing::Length) if cfg.legacy => {
            let hello = stream.read().await?;
            return Ok(read_legacy_hello(&hello, &cfg.identity.id())?);
        }
        Some(Framing::Length) => {
            let message = "nodes of the Python package are not admitted here (unless its owner sets `legacy`)";
            return Err(Refusal::new(CloseReason::BadHandshake, message).into());
        }
        None => {
            let message = "an elo node expects a hello: one JSON object on one line";
            return Err(Refusal::new(CloseReason::BadHandshake, message).into());
        }
    }
    let hello = stream.read().await?;
    if let Some(nonce) = read_probe(&hello) {
        return Err(nonce.map_or_else(|malformed| Refusal::from(malformed).into(), HandshakeError::Probe));
    }
    let (listener, ack) = Listener::on_hello(&cfg.local(), &hello, fresh_nonce(), cfg.now())?;
    stream.write(&ack).await?;
    let binding = match listener.tls() {
        true => Some(stream.secure(cfg.tls_keys.listener()).await?),
        false => None,
    };
    let auth = stream.read().await?;
    Ok(listener.on_auth(&auth, binding.as_ref())?)
}

/// Tells the other side why, if that is ours to tell and it can still hear it.
pub(super) async fn part(stream: Stream, error: &HandshakeError) {
    match error {
        HandshakeError::Refused(refusal) if refusal.by_peer => {}
        HandshakeError::Refused(refusal) => stream.refuse(refusal.reason, &refusal.message).await,
        HandshakeError::Timeout(_) => stream.refuse(CloseReason::BadHandshake, &error.to_string()).await,
        _ => {}
    }
}

/// # Panics
///
/// When the operating system has no random numbers: no handshake would prove anything.
pub(super) fn fresh_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    UnwrapErr(SysRng).fill_bytes(&mut nonce);
    nonce
}
