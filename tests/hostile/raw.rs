//! A client that speaks the protocol by hand, and says whatever a test wants.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use elo::wire::{Builder, Object};
use elo::{Identity, Node, NodeId};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::mesh::addr_of;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

pub struct Raw {
    pub identity: Identity,
    /// The node spoken to.
    pub peer: NodeId,
    lines: BufReader<OwnedReadHalf>,
    out: OwnedWriteHalf,
    asks: u64,
}

/// A stream to somebody from an address of this machine.
pub async fn stream_from(addr: &str, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(addr.parse().unwrap()).await.unwrap()
}

pub fn unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// 32 random bytes in base64url: a node id has that form too.
pub fn nonce() -> String {
    Identity::generate().id().to_string()
}

pub fn hello(identity: &Identity, nonce: &str, instance: &str) -> Builder {
    Builder::new("hello")
        .str("node_id", &identity.id().to_string())
        .str("version", "0")
        .str("nonce", nonce)
        .i64("timestamp", unix_s())
        .str("instance", instance)
}

pub fn auth(identity: &Identity, peer: &NodeId, hello_nonce: &str, ack: &Value) -> Builder {
    Builder::new("auth")
        .str("node_id", &identity.id().to_string())
        .str("peer", &peer.to_string())
        .str("hello_nonce", hello_nonce)
        .str("ack_nonce", ack["nonce"].as_str().unwrap())
}

/// What a node says of itself; to be signed with [`sign`].
pub fn record(identity: &Identity, capability: &str) -> Builder {
    Builder::new("record")
        .str("node_id", &identity.id().to_string())
        .str("name", "mallory")
        .raw("caps", format!(r#"{{"agents":[{{"name":"{capability}"}}]}}"#).as_bytes())
        .str("instance", "run")
        .u64("seq", unix_ms())
        .u64("ttl_s", 300)
}

pub fn announce(record: &Object) -> Object {
    Builder::new("announce").object("record", record).u64("ttl", 5).build()
}

pub fn relay(target: &NodeId, source: &NodeId, frame: &Object) -> Builder {
    Builder::new("relay")
        .str("target", &target.to_string())
        .str("source", &source.to_string())
        .u64("hops", 0)
        .object("frame", frame)
}

pub fn sign(builder: Builder, identity: &Identity) -> Object {
    builder.sign(identity, &[])
}

/// What is flooded: how far it may go is not signed.
pub fn sign_flood(builder: Builder, identity: &Identity) -> Object {
    builder.sign(identity, &["ttl"])
}

impl Raw {
    /// Connected, and nothing said yet.
    pub async fn dial(node: &Node) -> Self {
        Self::over(TcpStream::connect(addr_of(node)).await.unwrap(), node)
    }

    /// The same from another address of this machine.
    pub async fn dial_from(node: &Node, from: [u8; 4]) -> Self {
        Self::over(stream_from(&addr_of(node), from).await, node)
    }

    /// From there through the handshake, with a new key.
    pub async fn connect_from(node: &Node, from: [u8; 4]) -> Self {
        let mut raw = Self::dial_from(node, from).await;
        raw.shake("run").await;
        raw
    }

    /// Through the handshake with a node of another process; `None` when it refuses.
    pub async fn connect_to(addr: &str, peer: NodeId, from: [u8; 4]) -> Option<Self> {
        let mut raw = Self::over_to(stream_from(addr, from).await, peer);
        let nonce = nonce();
        raw.sends(hello(&raw.identity, &nonce, "run")).await;
        let ack = raw.line().await.filter(|m| m["type"] == "hello_ack")?;
        raw.sends(auth(&raw.identity, &raw.peer, &nonce, &ack)).await;
        raw.line().await.filter(|m| m["type"] == "welcome")?;
        Some(raw)
    }

    fn over(stream: TcpStream, node: &Node) -> Self {
        Self::over_to(stream, node.id())
    }

    fn over_to(stream: TcpStream, peer: NodeId) -> Self {
        stream.set_nodelay(true).unwrap();
        let (lines, out) = stream.into_split();
        Self { identity: Identity::generate(), peer, lines: BufReader::new(lines), out, asks: 1 << 40 }
    }

    /// Through the handshake, with a new key.
    pub async fn connect(node: &Node) -> Self {
        Self::connect_as(node, &Identity::generate(), "run").await
    }

    pub async fn connect_as(node: &Node, identity: &Identity, instance: &str) -> Self {
        let mut raw = Self::dial(node).await;
        raw.identity = identity.clone();
        raw.shake(instance).await;
        raw
    }

    /// With little room for what it doesn't read.
    pub async fn connect_narrow(node: &Node) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut raw = Self::over(socket.connect(addr_of(node).parse().unwrap()).await.unwrap(), node);
        raw.shake("run").await;
        raw
    }

    /// As a node that can punch holes.
    pub async fn connect_punching(node: &Node) -> Self {
        let mut raw = Self::dial(node).await;
        raw.shake_with("run", &["punch"]).await;
        raw
    }

    /// As a node that lists those features.
    pub async fn connect_listing(node: &Node, features: &[&str]) -> Self {
        let mut raw = Self::dial(node).await;
        raw.shake_with("run", features).await;
        raw
    }

    /// A tracker that says it dials back.
    pub async fn connect_as_tracker(node: &Node) -> Self {
        let mut raw = Self::dial(node).await;
        raw.shake_with("run", &["dialback"]).await;
        let record = record(&raw.identity, "nothing").str("tracker", "public");
        raw.send(&announce(&sign(record, &raw.identity))).await;
        raw
    }

    /// A tracker that the node dials, and that dials back: it is one that the node chose.
    pub async fn dialled_as_tracker(listener: &TcpListener, node: &Node) -> Self {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let mut raw = Self::over(stream, node);
        let said = raw.until("hello", |m| m["type"] == "hello").await;
        let ack = Builder::new("hello_ack")
            .str("node_id", &raw.id().to_string())
            .str("version", "0")
            .str("nonce", &nonce())
            .i64("timestamp", unix_s())
            .strings("features", &["dialback"])
            .str("instance", "run")
            .str("hello_nonce", said["nonce"].as_str().unwrap());
        raw.send(&sign(ack, &raw.identity)).await;
        raw.until("auth", |m| m["type"] == "auth").await;
        let welcome = Builder::new("welcome").str("node_id", &raw.id().to_string()).str("tracker", "public");
        raw.send(&welcome.strings::<&str>("peers", &[]).build()).await;
        raw
    }

    async fn shake(&mut self, instance: &str) {
        self.shake_with(instance, &[]).await;
    }

    async fn shake_with(&mut self, instance: &str, features: &[&str]) {
        let nonce = nonce();
        let hello = hello(&self.identity, &nonce, instance).strings("features", features);
        self.send(&sign(hello, &self.identity)).await;
        let ack = self.until("hello_ack", |m| m["type"] == "hello_ack").await;
        self.send(&sign(auth(&self.identity, &self.peer, &nonce, &ack), &self.identity)).await;
        self.until("welcome", |m| m["type"] == "welcome").await;
    }

    pub fn id(&self) -> NodeId {
        self.identity.id()
    }

    /// Errors are left to the reading side: the node may have closed.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.out.write_all(bytes)).await.expect("the node reads");
    }

    pub async fn send(&mut self, message: &Object) {
        let mut line = message.raw().to_vec();
        line.push(b'\n');
        self.bytes(&line).await;
    }

    pub async fn sends(&mut self, builder: Builder) {
        let message = sign(builder, &self.identity);
        self.send(&message).await;
    }

    /// The next line; `None` when the node closed.
    pub async fn line(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        let read = timeout(PATIENCE, self.lines.read_until(b'\n', &mut line)).await;
        match read.expect("the node said nothing for 15 s") {
            Ok(0) | Err(_) => None,
            Ok(_) => {
                let message = serde_json::from_slice(&line).unwrap();
                tells_nothing_private(&message);
                Some(message)
            }
        }
    }

    /// The next message that fits; others are passed over.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        while let Some(message) = self.line().await {
            if fits(&message) {
                return message;
            }
            seen.push(message["type"].clone());
        }
        panic!("the node closed before {what}, after {seen:?}");
    }

    /// The result of a task.
    pub async fn result(&mut self, id: &str) -> Value {
        self.until(&format!("the result of {id}"), |m| m["type"] == "result" && m["id"] == id).await
    }

    /// The code of a task's error.
    pub async fn error(&mut self, id: &str) -> String {
        let result = self.result(id).await;
        assert_eq!(result["status"], "error", "{result}");
        assert!(!result["error"]["message"].as_str().unwrap().is_empty(), "an error is told in words: {result}");
        result["error"]["code"].as_str().unwrap().to_owned()
    }

    /// The code of the `bye`; the stream ends after it.
    pub async fn bye(&mut self) -> String {
        let bye = self.until("bye", |m| m["type"] == "bye").await;
        assert!(!bye["reason"].as_str().unwrap().is_empty(), "{bye}");
        assert_eq!(self.line().await, None, "nothing comes after bye");
        bye["code"].as_str().unwrap().to_owned()
    }

    /// What the node says up to its answer to a heartbeat sent now: it has handled all that was sent before by then, but for a long
    /// message of a task's course, which it may still be looking at.
    pub async fn heard(&mut self) -> Vec<Value> {
        self.asks += 1;
        let ask = self.asks;
        self.send(&Builder::new("heartbeat").str("node_id", &self.id().to_string()).u64("ask", ask).build()).await;
        let mut seen = Vec::new();
        loop {
            let message = self.line().await.expect("the connection lives");
            if message["answer"] == ask {
                return seen;
            }
            seen.push(message);
        }
    }

    /// A task for the node, in good order; to be signed.
    pub fn task(&self, id: &str) -> Builder {
        Builder::new("task")
            .str("id", id)
            .str("target", &self.peer.to_string())
            .str("caller", &self.id().to_string())
            .str("capability", "work")
            .raw("payload", br#"{"a":1}"#)
            .str("protocol", "elo.v1")
            .i64("timestamp", unix_s())
            .u64("ttl_s", 60)
    }

    pub fn query(&self, id: &str, capability: &str) -> Builder {
        Builder::new("query")
            .str("id", id)
            .str("capability", capability)
            .str("node", "")
            .str("origin", &self.id().to_string())
            .i64("timestamp", unix_s())
            .u64("limit", 8)
            .u64("ttl", 5)
    }

    pub fn event(&self, id: &str) -> Builder {
        Builder::new("event")
            .str("id", id)
            .str("event_type", "news")
            .raw("data", b"1")
            .str("origin", &self.id().to_string())
            .i64("timestamp", unix_s())
            .u64("ttl", 5)
    }

    pub fn result_of(&self, id: &str) -> Builder {
        Builder::new("result")
            .str("id", id)
            .str("status", "success")
            .raw("payload", br#""mine""#)
            .str("protocol", "elo.v1")
            .str("responder", &self.id().to_string())
    }

    /// Announces itself as a provider, and waits until the node knows it.
    pub async fn provide(&mut self, capability: &str) {
        let record = sign(record(&self.identity, capability), &self.identity);
        self.send(&announce(&record)).await;
        self.heard().await;
    }
}

/// No answer tells anything of the machine it comes from.
fn tells_nothing_private(message: &Value) {
    let texts = [&message["reason"], &message["message"], &message["error"]["message"]];
    for text in texts.into_iter().filter_map(Value::as_str) {
        for private in
            [".rs", "/home", "/tmp", "/usr", "/root", "panicked at", "PRIVATE", "Os {", "os error", "thread '"]
        {
            assert!(!text.contains(private), "{text:?} contains {private:?}");
        }
    }
}
