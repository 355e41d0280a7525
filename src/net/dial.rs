//! Connecting to an address.

use std::io;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::NetConfig;
use super::handshake::{Established, HandshakeError, fresh_nonce, part};
use super::stream::Stream;
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::mesh::handshake::{Dialer, Proven, Refusal, Welcome, legacy_hello, read_legacy_hello, read_welcome};
use crate::wire::Framing;

/// The most addresses of one name that are tried.
const MAX_RESOLVED: usize = 8;

/// Connects to `addr` (`HOST:PORT`) and does the dialer's side of the handshake, `welcome` included. With `expected`
/// no other node is accepted.
///
/// Where nodes of the Python package are admitted, an address that hangs up on our `hello` is tried again in their
/// framing; but not with `expected`, as they can't prove who they are.
///
/// # Errors
///
/// When nobody answers, or not as it must.
pub async fn dial(addr: &str, expected: Option<NodeId>, cfg: &NetConfig) -> Result<Established, HandshakeError> {
    let native = shake(connect(addr, cfg).await?, Framing::Line, expected, cfg).await;
    match native {
        Err(error) if cfg.legacy && expected.is_none() && hung_up(&error) => {
            shake(connect(addr, cfg).await?, Framing::Length, None, cfg).await
        }
        Err(error) if !cfg.legacy && hung_up(&error) => Err(HandshakeError::HungUp),
        other => other,
    }
}

/// The same for an address that nobody vouches for: in the native framing only, so that whoever answers has to prove
/// who it is.
///
/// # Errors
///
/// When nobody answers, or not as it must.
#[cfg(feature = "dht")]
pub async fn dial_candidate(
    addr: std::net::SocketAddr,
    expected: Option<NodeId>,
    cfg: &NetConfig,
) -> Result<Established, HandshakeError> {
    shake(connect(&addr.to_string(), cfg).await?, Framing::Line, expected, cfg).await
}

/// Whether the other side closed the stream without a word: the Python package takes our first bytes for a length that
/// is too large.
fn hung_up(error: &HandshakeError) -> bool {
    matches!(error, HandshakeError::Ended { heard: false })
}

async fn connect(addr: &str, cfg: &NetConfig) -> Result<TcpStream, HandshakeError> {
    let patience = cfg.limits.connect_timeout;
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"));
    let resolve = |source| HandshakeError::Resolve { addr: addr.to_owned(), source };
    let resolved = timeout(patience, lookup_host(addr)).await.map_err(|_| resolve(late()))?.map_err(resolve)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in resolved.take(MAX_RESOLVED) {
        match timeout(patience, cfg.port.connect(resolved)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = late(),
        }
    }
    Err(HandshakeError::Connect { addr: addr.to_owned(), source: last })
}

/// The dialler's side of the handshake on a stream.
pub(super) async fn shake(
    tcp: TcpStream,
    framing: Framing,
    expected: Option<NodeId>,
    cfg: &NetConfig,
) -> Result<Established, HandshakeError> {
    let mut stream = Stream::new(tcp, framing);
    stream.give_up_after(cfg.limits.unacked_timeout);
    let patience = cfg.limits.handshake_timeout;
    let speak = async {
        match framing {
            Framing::Line => {
                introduce(&mut stream, expected, cfg).await.map(|(proven, welcome)| (proven, Some(welcome)))
            }
            Framing::Length => introduce_legacy(&mut stream, cfg).await.map(|proven| (proven, None)),
        }
    };
    let ended = timeout(patience, speak).await.unwrap_or(Err(HandshakeError::Timeout(patience)));
    let ended = ended.and_then(|done| Ok((done, stream.addrs()?)));
    match ended {
        Ok(((proven, welcome), (addr, local))) => {
            stream.trusted();
            Ok(Established { proven, addr, local, inbound: false, pinned: expected, welcome, stream })
        }
        Err(error) => {
            part(stream, &error).await;
            Err(error)
        }
    }
}

async fn introduce(
    stream: &mut Stream,
    expected: Option<NodeId>,
    cfg: &NetConfig,
) -> Result<(Proven, Welcome), HandshakeError> {
    let (dialer, hello) = Dialer::new(&cfg.local(), fresh_nonce(), cfg.now(), expected);
    let answer = stream.ask(&hello).await?;
    let answered = dialer.on_hello_ack(&cfg.local(), &answer, cfg.now())?;
    let binding = match answered.tls {
        true => Some(stream.secure(cfg.tls_keys.dialer(answered.proven.node)).await?),
        false => None,
    };
    let (auth, proven) = (answered.auth(&cfg.local(), binding.as_ref()), answered.proven);
    // The listener has shown who it is, and `welcome` names other nodes: it may be long.
    stream.trusted();
    let answer = stream.ask(&auth).await?;
    let welcome = read_welcome(&answer, &proven.node).map_err(|refusal| match refusal.reason {
        CloseReason::Duplicate if refusal.by_peer => HandshakeError::Duplicate(proven.node),
        _ => refusal.into(),
    })?;
    Ok((proven, welcome))
}

async fn introduce_legacy(stream: &mut Stream, cfg: &NetConfig) -> Result<Proven, HandshakeError> {
    let me = cfg.identity.id();
    let own = (cfg.legacy_hello)();
    // A tracker's `hello_ack` names all nodes it knows.
    stream.trusted();
    let answer = stream.ask(&legacy_hello(&me, &own.version, &own.caps, &own.interests, own.tracker)).await?;
    if answer.str("type").ok().flatten().as_deref() == Some("hello") {
        return Err(Refusal::new(CloseReason::BadHandshake, "expected hello_ack, got hello").into());
    }
    Ok(read_legacy_hello(&answer, &me)?)
}
