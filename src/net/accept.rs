//! Taking connections in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::places::{NoPlace, Place, Places};
use super::stream::Stream;
use crate::wire::Framing;

/// The most that are told at once why they get no place; further ones are just closed.
const MAX_TOLD: usize = 32;

/// How long one that is told may take to show its framing.
const FIRST_BYTE: Duration = Duration::from_millis(500);

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Accepts connections until `cancel`, each with a place to be kept for as long as the connection lives. When there
/// is none left, the other side is told why.
pub async fn accept_loop(
    listener: TcpListener,
    places: Arc<Places>,
    cancel: CancellationToken,
    on_stream: impl Fn(TcpStream, SocketAddr, Place) + Send,
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
                match places.take(addr.ip()) {
                    Ok(place) => on_stream(stream, addr, place),
                    Err(why) if telling.len() < MAX_TOLD => {
                        telling.spawn(tell(stream, why));
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

async fn tell(stream: TcpStream, why: NoPlace) {
    let mut stream = Stream::new(stream, Framing::Line);
    // A `bye` in the wrong framing would not be understood.
    let _ = timeout(FIRST_BYTE, stream.detect()).await;
    stream.refuse(why.reason(), &why.message()).await;
}
