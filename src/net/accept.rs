//! Taking connections in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::stream::Stream;
use crate::error::CloseReason;
use crate::wire::Framing;

/// The most that are told `FULL` at once; further ones are just closed.
const MAX_TOLD: usize = 32;

/// How long one that is told `FULL` may take to show its framing.
const FIRST_BYTE: Duration = Duration::from_millis(500);

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Accepts connections until `cancel`, each with a permit to be kept for as long as the connection lives. When there
/// is none left, the other side is told `FULL`.
pub async fn accept_loop(
    listener: TcpListener,
    max_connections: Arc<Semaphore>,
    cancel: CancellationToken,
    on_stream: impl Fn(TcpStream, SocketAddr, OwnedSemaphorePermit) + Send,
) {
    let mut telling = JoinSet::new();
    let mut backoff = BACKOFF_MIN;
    loop {
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while telling.try_join_next().is_some() {}
        match accepted {
            Ok((stream, addr)) => {
                backoff = BACKOFF_MIN;
                match Arc::clone(&max_connections).try_acquire_owned() {
                    Ok(permit) => on_stream(stream, addr, permit),
                    Err(_) if telling.len() < MAX_TOLD => {
                        telling.spawn(tell_full(stream));
                    }
                    Err(_) => drop(stream),
                }
            }
            // The one that connected is gone again: nothing to do with the next.
            Err(error) if is_of_the_stream(&error) => {}
            // No file handles or memory left, most likely: it passes when something is closed.
            Err(error) => {
                tracing::warn!(%error, "can't accept connections; trying again in {backoff:?}");
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                }
            }
        }
    }
}

fn is_of_the_stream(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn tell_full(stream: TcpStream) {
    let mut stream = Stream::new(stream, Framing::Line);
    // A `bye` in the wrong framing would not be understood.
    let _ = timeout(FIRST_BYTE, stream.detect()).await;
    stream.refuse(CloseReason::Full, "this node has all the connections it can take; try again later").await;
}
