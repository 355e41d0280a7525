//! Real sockets; the other side is written by hand, byte by byte where it matters.

#![allow(clippy::duplicate_mod, reason = "what a connection does is tested in plain text and under TLS")]

mod accept;
mod batches;
mod encrypted;
mod handshake;
mod late;
mod legacy;
mod outbox;
mod plain;
#[cfg(unix)]
mod punch;
mod tls;
mod trickery;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::error::CloseReason;
use crate::identity::NodeId;
use crate::mesh::ConnId;
use crate::mesh::handshake::welcome;
use crate::wire::{Builder, Checked, Draft, Message, Object, Roots, TaskDraft, TrackerRole};

/// The time all clocks show.
const NOW: i64 = 1_800_000_000;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it must happen soon")
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn config(seed: u8, change: impl FnOnce(&mut NetConfig)) -> Arc<NetConfig> {
    let mut cfg = NetConfig {
        identity: identity(seed),
        version: "1.2.3".into(),
        features: vec!["one".into()],
        instance: format!("run-{seed}"),
        limits: Limits::default(),
        memory: crate::memory::Memory::new(Limits::default().memory_budget),
        tls: Tls::Preferred,
        tls_keys: TlsKeys::new(&identity(seed)),
        legacy: false,
        legacy_hello: Arc::new(LegacyHello::default),
        port: Arc::default(),
        unix_now: Arc::new(|| NOW),
    };
    change(&mut cfg);
    Arc::new(cfg)
}

/// A node that encrypts.
fn encrypting(seed: u8, change: impl FnOnce(&mut NetConfig)) -> Arc<NetConfig> {
    config(seed, |cfg| {
        cfg.features.push("tls".into());
        change(cfg);
    })
}

/// Hooks that write down what they are told.
#[derive(Default)]
struct Notes {
    notes: Mutex<NotesInner>,
    changed: Notify,
}

#[derive(Default)]
struct NotesInner {
    messages: Vec<Message>,
    refused: Vec<Refused>,
    closed: Vec<(Option<CloseReason>, String)>,
}

impl Notes {
    /// Waits until the notes give an answer.
    async fn wait<T>(&self, find: impl Fn(&NotesInner) -> Option<T>) -> T {
        soon(async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(found) = find(&self.notes.lock().unwrap()) {
                    return found;
                }
                changed.await;
            }
        })
        .await
    }

    async fn closed(&self) -> (Option<CloseReason>, String) {
        self.wait(|n| n.closed.first().cloned()).await
    }

    fn note(&self, write: impl FnOnce(&mut NotesInner)) {
        write(&mut self.notes.lock().unwrap());
        self.changed.notify_waiters();
    }
}

impl Hooks for Notes {
    fn opened(&self, message: Checked, _: &mut Roots) -> Checked {
        message
    }

    fn heard(&self, _: ConnId, news: Vec<Heard>) {
        self.note(|n| {
            assert!(n.closed.is_empty(), "a message after the end");
            for heard in news {
                match heard {
                    Heard::Message(message) => n.messages.push(message.into_message()),
                    Heard::Refused(refused) => n.refused.push(refused),
                }
            }
        });
    }

    fn closed(&self, _: ConnId, reason: Option<CloseReason>, message: String) {
        self.note(|n| n.closed.push((reason, message)));
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// The far side: a socket or TLS on one, and what was read from it.
struct Raw {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
}

impl Raw {
    async fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).await.unwrap())
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream: Box::new(stream), buffer: BytesMut::new() }
    }

    async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Ends it as one does who means it.
    async fn end(mut self) {
        self.stream.shutdown().await.unwrap();
    }

    /// Reads up to where the stream is over; whether it was meant to be doesn't matter.
    async fn is_over(&mut self) {
        while soon(self.stream.read_buf(&mut self.buffer)).await.is_ok_and(|read| read > 0) {}
    }

    async fn line(&mut self, line: impl AsRef<[u8]>) {
        let mut bytes = line.as_ref().to_vec();
        bytes.push(b'\n');
        self.bytes(&bytes).await;
    }

    async fn send(&mut self, object: &Object) {
        self.line(object.raw()).await;
    }

    async fn frame(&mut self, object: &Object) {
        let mut bytes = u32::try_from(object.raw().len()).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(object.raw());
        self.bytes(&bytes).await;
    }

    async fn fill(&mut self) -> usize {
        soon(self.stream.read_buf(&mut self.buffer)).await.unwrap()
    }

    async fn read(&mut self) -> Object {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(end);
                self.buffer.advance(1);
                return Object::parse(line.freeze()).unwrap();
            }
            assert!(self.fill().await > 0, "the stream ended");
        }
    }

    async fn read_frame(&mut self) -> Object {
        loop {
            if let Some(length) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if self.buffer.len() >= 4 + length {
                    self.buffer.advance(4);
                    return Object::parse(self.buffer.split_to(length).freeze()).unwrap();
                }
            }
            assert!(self.fill().await > 0, "the stream ended");
        }
    }

    /// Reads a `bye` with that code and the end of the stream; gives the reason in words.
    async fn bye(&mut self, code: CloseReason) -> String {
        let bye = self.read().await;
        self.is_bye(&bye, code).await
    }

    async fn is_bye(&mut self, bye: &Object, code: CloseReason) -> String {
        assert_eq!(bye.str("type").unwrap().unwrap(), "bye", "{:?}", bye.raw());
        let reason = bye.str("reason").unwrap().unwrap();
        assert_eq!(bye.str("code").unwrap().unwrap(), code.as_str(), "{reason}");
        assert!(self.buffer.is_empty());
        assert_eq!(self.fill().await, 0, "the stream goes on after bye");
        reason
    }
}

fn kind(object: &Object) -> String {
    object.str("type").unwrap().unwrap()
}

/// A `hello` of the wire, by hand.
fn hello(id: &Identity, nonce: &str) -> Builder {
    Builder::new("hello")
        .str("node_id", &id.id().to_string())
        .str("version", "9")
        .str("nonce", nonce)
        .i64("timestamp", NOW)
        .strings::<&str>("features", &[])
}

/// An `auth` of the wire, by hand.
fn auth(id: &Identity, hello_nonce: &str, ack: &Object) -> Builder {
    Builder::new("auth")
        .str("node_id", &id.id().to_string())
        .str("peer", &ack.str("node_id").unwrap().unwrap())
        .str("hello_nonce", hello_nonce)
        .str("ack_nonce", &ack.str("nonce").unwrap().unwrap())
}

/// 32 bytes in base64.
fn nonce(letter: char) -> String {
    // The 43rd character ends in two zero bits whatever its letter: A is one that does.
    letter.to_string().repeat(42) + "A"
}

struct Server {
    addr: SocketAddr,
    notes: Arc<Notes>,
    task: tokio::task::JoinHandle<Result<Connection, HandshakeError>>,
}

/// Takes in one connection.
async fn serve(cfg: Arc<NetConfig>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let notes = Arc::new(Notes::default());
    let hooks: Arc<dyn Hooks> = notes.clone();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let established = handshake_inbound(stream, &cfg).await?;
        assert!(established.inbound);
        let me = cfg.identity.id();
        let first = match &established.proven.hello {
            None => welcome(&me, established.addr, TrackerRole::Public, std::iter::empty()),
            Some(_) => crate::mesh::handshake::legacy_hello_ack(
                &me,
                "1.2.3",
                &crate::wire::Caps::default(),
                &[],
                TrackerRole::None,
                &["127.0.0.1:9".into()],
            ),
        };
        Ok(established.start(ConnId(7), Some(first), hooks, &cfg))
    });
    Server { addr, notes, task }
}

impl Server {
    async fn connection(self) -> (Connection, Arc<Notes>) {
        (soon(self.task).await.unwrap().unwrap(), self.notes)
    }

    async fn error(self) -> HandshakeError {
        soon(self.task).await.unwrap().unwrap_err()
    }
}

/// A connection, and its far side by hand.
async fn connected(change: impl FnOnce(&mut NetConfig)) -> (Connection, Arc<Notes>, Raw) {
    connected_by(config(1, change)).await
}

/// The same for a node with that configuration; encrypted, if it encrypts.
async fn connected_by(cfg: Arc<NetConfig>) -> (Connection, Arc<Notes>, Raw) {
    let encrypts = cfg.features.iter().any(|feature| feature == "tls");
    let server = serve(cfg).await;
    let me = identity(2);
    let mut raw = if encrypts {
        let (mut raw, ack, binding) = tls::connect(server.addr, &me).await;
        raw.send(&auth(&me, &nonce('x'), &ack).str("binding", &binding).sign(&me, &[])).await;
        raw
    } else {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&hello(&me, &nonce('x')).sign(&me, &[])).await;
        let ack = raw.read().await;
        raw.send(&auth(&me, &nonce('x'), &ack).sign(&me, &[])).await;
        raw
    };
    assert_eq!(kind(&raw.read().await), "welcome");
    let (connection, notes) = server.connection().await;
    (connection, notes, raw)
}

fn task(id: &str, caller: &Identity, target: NodeId, payload: &str) -> Object {
    let draft = TaskDraft {
        id: id.into(),
        target,
        capability: "echo".into(),
        payload: Bytes::from(format!("\"{payload}\"")),
        timestamp: NOW,
        ttl_s: 60,
        wait_s: None,
        window: None,
        instance: None,
    };
    Draft::Task(draft).sign(caller)
}

fn beat(number: u64) -> Object {
    crate::wire::draft::heartbeat(&identity(2).id(), NOW, Some(number), None)
}

fn asks(notes: &NotesInner) -> Vec<u64> {
    let ask = |m: &Message| match m {
        Message::Heartbeat(beat) => beat.ask,
        _ => None,
    };
    notes.messages.iter().filter_map(ask).collect()
}
