//! A tracker's side of dialling back: one line to what stands at an address, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wire::{ProbeNonce, dialback};

/// How long connecting and writing may take together.
const PATIENCE: Duration = Duration::from_secs(3);

/// Brings a nonce to an address. Nothing is read there, and nothing else is written: it may be anybody's.
///
/// # Errors
///
/// When nobody takes it within 3 s.
pub async fn probe(addr: SocketAddr, nonce: &ProbeNonce) -> io::Result<()> {
    let mut line = dialback::probe(nonce).raw().to_vec();
    line.push(b'\n');
    let bring = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.write_all(&line).await?;
        stream.shutdown().await
    };
    timeout(PATIENCE, bring).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
