//! Connecting to a node while it connects to us: TCP simultaneous open, through both sides' NATs.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::NetConfig;
use super::dial::shake;
use super::handshake::{Established, HandshakeError, handshake_inbound};
use super::port::at;
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::wire::Framing;

/// How long it is tried to connect.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the first attempt waits for an answer, and each later one. An attempt sends one SYN at once, and the kernel
/// the next after a second. A SYN that arrived before the other NAT had its mapping is lost, so the next had better not
/// wait that long; and on a slow way the answer must have the time to come.
const FIRST: Duration = Duration::from_millis(600);
const LATER: Duration = Duration::from_millis(1000);

/// The pause after a refusal: the other side was not there yet, or its NAT refuses what it does not expect.
const PAUSE: Duration = Duration::from_millis(250);

/// The most attempts at one address. With it, five addresses and [`PATIENCE`] a tracker's lie costs somebody a dozen
/// packets of 60 bytes.
const MAX_TRIES: u32 = 12;

/// The most streams to one address on which nobody proved who they are.
const MAX_STREAMS: u32 = 3;

/// The most connections taken meanwhile, strangers' included, and how many may wait.
const MAX_ACCEPTED: usize = 16;
const BACKLOG: u32 = 4;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Punch {
    /// Where from: this end of the connection to the tracker.
    pub local: SocketAddr,
    /// Where to.
    pub addrs: Vec<SocketAddr>,
    /// When to begin.
    pub wait: Duration,
    /// Whether this side says hello.
    pub dialler: bool,
}

/// Connects to `node`. The first stream that comes through the handshake is kept; which that is the listening side
/// decides, as the dialler's handshake ends with its `welcome`.
///
/// # Errors
///
/// Why none did, in words.
pub async fn punch(punch: Punch, node: NodeId, cfg: &Arc<NetConfig>) -> Result<Established, String> {
    sleep(punch.wait).await;
    let until = Instant::now() + PATIENCE;
    let mut attempts = JoinSet::new();
    let ips: BTreeSet<IpAddr> = punch.addrs.iter().map(SocketAddr::ip).collect();
    for any in [SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))] {
        let ips: BTreeSet<IpAddr> = ips.iter().filter(|ip| ip.is_ipv4() == any.is_ipv4()).copied().collect();
        // Without it a SYN that is early is refused; that may still end well.
        if let Some(Ok(listener)) =
            (!ips.is_empty()).then(|| at(punch.local.port(), any).and_then(|s| s.listen(BACKLOG)))
        {
            let (cfg, dialler) = (Arc::clone(cfg), punch.dialler);
            attempts.spawn(async move { accept(listener, &ips, dialler, node, until, &cfg).await });
        }
    }
    for addr in punch.addrs {
        let (cfg, port, dialler) = (Arc::clone(cfg), punch.local.port(), punch.dialler);
        attempts.spawn(async move { one(addr, port, dialler, node, until, &cfg).await });
    }
    let mut last = None;
    while let Some(done) = attempts.join_next().await {
        match done {
            Ok(Ok(established)) => return Ok(established),
            Ok(Err(why)) => last = why.or(last),
            Err(_) => {} // It panicked: a fault of ours, of which the log tells.
        }
    }
    Err(last.unwrap_or_else(|| format!("no answer within {} s (a NAT with changing ports?)", PATIENCE.as_secs())))
}

/// One address, again and again. An error without words: nobody answered.
async fn one(
    addr: SocketAddr,
    port: u16,
    dialler: bool,
    node: NodeId,
    until: Instant,
    cfg: &NetConfig,
) -> Result<Established, Option<String>> {
    let (mut streams, mut last) = (0, None);
    for attempt in 0..MAX_TRIES {
        if Instant::now() >= until {
            break;
        }
        let socket = at(port, addr).map_err(|error| Some(format!("can't use local port {port} again: {error}")))?;
        let patience = (Instant::now() + if attempt == 0 { FIRST } else { LATER }).min(until);
        let connected = timeout_at(patience, socket.connect(addr)).await;
        tracing::debug!(%addr, port, attempt, ?connected, "punching");
        match connected {
            Ok(Ok(stream)) => {
                streams += 1;
                match meet(stream, dialler, node, cfg).await {
                    Ok(established) => return Ok(established),
                    // Somebody else is there, or the node does not want it.
                    Err(HandshakeError::Refused(refusal)) => return Err(Some(format!("{addr}: {}", refusal.message))),
                    Err(error @ HandshakeError::Duplicate(_)) => return Err(Some(error.to_string())),
                    // One side gave up an attempt that came to life on the other: the next one meets.
                    Err(error) => last = Some(format!("{addr}: {error}")),
                }
                if streams >= MAX_STREAMS {
                    break;
                }
            }
            // Refused; or there is such a connection already: theirs, which was accepted.
            Ok(Err(_)) => sleep(PAUSE).await,
            Err(_) => {}
        }
    }
    Err(last)
}

/// Takes connections at the local port. On a short way theirs is here before ours has left, and some NATs let it in.
async fn accept(
    listener: TcpListener,
    from: &BTreeSet<IpAddr>,
    dialler: bool,
    node: NodeId,
    until: Instant,
    cfg: &NetConfig,
) -> Result<Established, Option<String>> {
    let mut last = None;
    for _ in 0..MAX_ACCEPTED {
        let Ok(accepted) = timeout_at(until, listener.accept()).await else { break };
        // Others have no business at this port.
        let Some((stream, _)) = accepted.ok().filter(|(_, addr)| from.contains(&addr.ip())) else { continue };
        match meet(stream, dialler, node, cfg).await {
            Ok(established) => return Ok(established),
            Err(error) => last = Some(error.to_string()),
        }
    }
    Err(last)
}

/// The handshake on a stream that both sides opened.
async fn meet(stream: TcpStream, dialler: bool, node: NodeId, cfg: &NetConfig) -> Result<Established, HandshakeError> {
    let patience = cfg.limits.handshake_timeout.min(PATIENCE);
    let meet = async {
        if dialler {
            return shake(stream, Framing::Line, Some(node), cfg).await;
        }
        let established = handshake_inbound(stream, cfg).await?;
        if established.proven.node == node {
            return Ok(established);
        }
        let message = format!("expected node {node} at this address, {} answered", established.proven.node);
        established.refuse(CloseReason::BadHandshake, &message).await;
        Err(crate::mesh::handshake::Refusal::new(CloseReason::BadHandshake, message).into())
    };
    timeout(patience, meet).await.unwrap_or(Err(HandshakeError::Timeout(patience)))
}
