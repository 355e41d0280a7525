//! A man in the middle: takes connections for a node, dials it, and passes on what both say, recorded and changed as it
//! likes.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::task::AbortOnDropHandle;

use crate::attacker::{LAIR, connect_from};

/// From the dialer, or from the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Dialer,
    Listener,
}

/// Who said what, in order.
type Heard = Vec<(From, Vec<u8>)>;

type Change = Arc<dyn Fn(From, Vec<u8>) -> Vec<u8> + Send + Sync>;

pub struct Wiretap {
    pub addr: String,
    /// What went through, line by line (of a stream that is encrypted: piece by piece).
    heard: Arc<Mutex<Heard>>,
    _taking: AbortOnDropHandle<()>,
}

impl Wiretap {
    /// Listens, and passes everything on as it is.
    pub async fn on(node: &str) -> Self {
        Self::changing(node, |_, line| line).await
    }

    /// Listens; each line is passed on as `change` makes it.
    pub async fn changing(node: &str, change: impl Fn(From, Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::from(LAIR), 0)).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let (record, node, change): (_, _, Change) = (Arc::clone(&heard), node.to_owned(), Arc::new(change));
        let taking = tokio::spawn(async move {
            let mut streams = tokio::task::JoinSet::new();
            while let Ok((dialer, _)) = listener.accept().await {
                let Ok(listener) = connect_from(LAIR, &node).await else { continue };
                let (from_dialer, to_dialer) = dialer.into_split();
                let (from_listener, to_listener) = listener.into_split();
                let (record, change) = (Arc::clone(&record), Arc::clone(&change));
                streams.spawn(async move {
                    tokio::select! {
                        () = pass(From::Dialer, from_dialer, to_listener, &record, &change) => {}
                        () = pass(From::Listener, from_listener, to_dialer, &record, &change) => {}
                    }
                });
            }
        });
        Self { addr, heard, _taking: AbortOnDropHandle::new(taking) }
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().unwrap().clone()
    }
}

async fn pass(from: From, read: OwnedReadHalf, mut write: OwnedWriteHalf, heard: &Mutex<Heard>, change: &Change) {
    let mut read = BufReader::new(read);
    let mut lines = true;
    loop {
        let mut piece = Vec::new();
        // Lines are taken whole; once the stream is encrypted, bytes go on as they come.
        let Ok(bytes) = read.fill_buf().await else { return };
        lines &= bytes.first() == Some(&b'{');
        if lines {
            if read.read_until(b'\n', &mut piece).await.is_err() {
                return;
            }
        } else {
            piece.extend_from_slice(bytes);
            read.consume(piece.len());
        }
        if piece.is_empty() {
            return;
        }
        heard.lock().unwrap().push((from, piece.clone()));
        if write.write_all(&change(from, piece)).await.is_err() {
            return;
        }
    }
}
