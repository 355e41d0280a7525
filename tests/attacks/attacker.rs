//! A client that speaks the protocol by hand, and says whatever an attack wants. It comes from an address of its own, as an
//! attacker does.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::canon::{Key, nonce};

/// How long an answer may take: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where attackers come from. The rest of the mesh is at 127.0.0.1.
pub const LAIR: [u8; 4] = [127, 0, 0, if cfg!(target_os = "linux") { 66 } else { 1 }];

/// What a message is carried by.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A connection from an address of the attacker's choosing.
pub async fn connect_from(ip: [u8; 4], to: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((ip, 0)))?;
    let stream = timeout(PATIENCE, socket.connect(to.parse().unwrap())).await.expect("the node takes connections")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection on which the attacker speaks.
pub struct Attacker {
    pub key: Key,
    /// The id of who is spoken to, once it has said so.
    pub peer: String,
    lines: BufReader<ReadHalf<Box<dyn Stream>>>,
    out: WriteHalf<Box<dyn Stream>>,
    asks: u64,
}

impl Attacker {
    pub fn over(stream: impl Stream + 'static, key: &Key) -> Self {
        let stream: Box<dyn Stream> = Box::new(stream);
        let (lines, out) = split(stream);
        Self { key: key.clone(), peer: String::new(), lines: BufReader::new(lines), out, asks: 1 << 40 }
    }

    /// Connected, and nothing said yet.
    pub async fn dial(addr: &str) -> Self {
        Self::dial_as(addr, &Key::fresh()).await
    }

    pub async fn dial_as(addr: &str, key: &Key) -> Self {
        Self::over(connect_from(LAIR, addr).await.unwrap(), key)
    }

    /// Through the handshake, with a new key.
    pub async fn connect(addr: &str) -> Self {
        Self::connect_as(addr, &Key::fresh()).await
    }

    pub async fn connect_as(addr: &str, key: &Key) -> Self {
        let mut attacker = Self::dial_as(addr, key).await;
        attacker.shake(&[]).await;
        attacker
    }

    /// As somebody who calls itself a tracker.
    pub async fn connect_as_tracker(addr: &str, key: &Key) -> Self {
        let mut attacker = Self::dial_as(addr, key).await;
        attacker.shake(&[]).await;
        attacker.calls_itself_tracker().await;
        attacker
    }

    /// The handshake, as the dialer.
    pub async fn shake(&mut self, features: &[&str]) {
        let hello = hello(&self.key, features);
        self.say(&hello).await;
        let ack = self.until("hello_ack", |m| m["type"] == "hello_ack").await;
        self.peer = ack["node_id"].as_str().unwrap().to_owned();
        let auth = auth(&self.key, &self.peer, &hello["nonce"], &ack["nonce"]);
        self.say(&auth).await;
        self.until("welcome", |m| m["type"] == "welcome").await;
    }

    /// The handshake, as who was dialled: a tracker, by its own words.
    pub async fn admit(listener: &TcpListener, key: &Key, features: &[&str]) -> Self {
        let (stream, _) = timeout(PATIENCE, listener.accept()).await.expect("a node dials the attacker").unwrap();
        stream.set_nodelay(true).unwrap();
        let mut attacker = Self::over(stream, key);
        let said = attacker.until("hello", |m| m["type"] == "hello").await;
        attacker.peer = said["node_id"].as_str().unwrap().to_owned();
        attacker.say(&hello_ack(key, &said, &nonce(), features)).await;
        attacker.until("auth", |m| m["type"] == "auth").await;
        attacker.say(&json!({"type": "welcome", "node_id": key.id(), "tracker": "public", "peers": []})).await;
        attacker.calls_itself_tracker().await;
        attacker
    }

    async fn calls_itself_tracker(&mut self) {
        let mut record = record(&self.key, &[], 300);
        record["tracker"] = "public".into();
        let record = self.key.sign(record);
        self.say(&announce(&record, 1)).await;
    }

    pub fn id(&self) -> String {
        self.key.id()
    }

    /// Errors are left to the reading side: the node may have closed.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let sent = timeout(PATIENCE, self.out.write_all(bytes)).await;
        drop(sent.expect("the node reads"));
        drop(self.out.flush().await);
    }

    /// A message as it is.
    pub async fn say(&mut self, message: &Value) {
        self.bytes(format!("{}\n", crate::canon::canonical(message)).as_bytes()).await;
    }

    /// A text as one line.
    pub async fn line(&mut self, text: &str) {
        self.bytes(format!("{text}\n").as_bytes()).await;
    }

    /// A message signed by the attacker.
    pub async fn sign_and_say(&mut self, message: Value) {
        let message = self.key.sign(message);
        self.say(&message).await;
    }

    /// A message signed by the attacker, in another one.
    pub async fn sign_and_say_in(&mut self, message: Value, wrap: impl Fn(&Value) -> Value) {
        let message = self.key.sign(message);
        self.say(&wrap(&message)).await;
    }

    /// The next line as it came; `None` when the node closed.
    pub async fn hear_text(&mut self) -> Option<String> {
        let mut line = Vec::new();
        let read = timeout(PATIENCE, self.lines.read_until(b'\n', &mut line)).await;
        match read.expect("the node said nothing for 30 s") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).into_owned()),
        }
    }

    pub async fn hear(&mut self) -> Option<Value> {
        Some(serde_json::from_str(&self.hear_text().await?).unwrap_or(Value::Null))
    }

    /// The next message that fits; others are passed over.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut seen = Vec::new();
        while let Some(message) = self.hear().await {
            if fits(&message) {
                return message;
            }
            seen.push(message.to_string());
        }
        panic!("the node closed before {what}, after {seen:?}");
    }

    pub async fn result(&mut self, id: &str) -> Value {
        self.until(&format!("the result of {id}"), |m| m["type"] == "result" && m["id"] == id).await
    }

    /// The code of a task's error.
    pub async fn error(&mut self, id: &str) -> String {
        let result = self.result(id).await;
        result["error"]["code"].as_str().unwrap_or_else(|| panic!("{result} is no error")).to_owned()
    }

    /// Waits for the end of the connection; the code of the `bye` before it, or nothing.
    pub async fn closed(&mut self) -> String {
        let mut code = String::new();
        while let Some(message) = self.hear().await {
            if message["type"] == "bye" {
                code = message["code"].as_str().unwrap_or_default().to_owned();
            }
        }
        code
    }

    /// What the node says up to its answer to a heartbeat sent now: by then it has handled all that was sent before.
    pub async fn heard(&mut self) -> Vec<Value> {
        self.asks += 1;
        let ask = self.asks;
        self.say(&json!({"type": "heartbeat", "node_id": self.id(), "ts": unix_s(), "ask": ask})).await;
        let mut seen = Vec::new();
        loop {
            let message = self.hear().await.expect("the connection lives");
            if message["answer"] == ask {
                return seen;
            }
            seen.push(message);
        }
    }

    /// A task for the node, to be signed.
    pub fn task(&self, id: &str) -> Value {
        task(&self.key, id, &self.peer)
    }

    pub fn query(&self, id: &str, capability: &str) -> Value {
        json!({
            "type": "query", "id": id, "capability": capability, "node": "", "ttl": 5, "origin": self.id(),
            "timestamp": unix_s(), "limit": 64
        })
    }

    pub fn event(&self, id: &str) -> Value {
        json!({
            "type": "event", "id": id, "event_type": "news", "data": id, "origin": self.id(),
            "timestamp": unix_s(), "ttl": 5
        })
    }
}

pub fn hello(key: &Key, features: &[&str]) -> Value {
    key.sign(json!({
        "type": "hello", "node_id": key.id(), "version": "0", "nonce": nonce(), "timestamp": unix_s(),
        "features": features, "instance": "run"
    }))
}

/// The answer to a `hello` that was heard.
pub fn hello_ack(key: &Key, hello: &Value, nonce: &str, features: &[&str]) -> Value {
    key.sign(json!({
        "type": "hello_ack", "node_id": key.id(), "version": "0", "nonce": nonce, "timestamp": unix_s(),
        "features": features, "instance": "run", "hello_nonce": hello["nonce"], "peer": hello["node_id"]
    }))
}

pub fn auth(key: &Key, peer: &str, hello_nonce: &Value, ack_nonce: &Value) -> Value {
    key.sign(json!({
        "type": "auth", "node_id": key.id(), "peer": peer, "hello_nonce": hello_nonce, "ack_nonce": ack_nonce
    }))
}

/// What somebody says of itself, to be signed.
pub fn record(key: &Key, capabilities: &[&str], ttl_s: u64) -> Value {
    let agents: Vec<Value> = capabilities.iter().map(|name| json!({"name": name})).collect();
    json!({
        "type": "record", "node_id": key.id(), "name": "mallory", "caps": {"agents": agents}, "interests": [],
        "addrs": [], "trackers": [], "features": [], "version": "0", "instance": "run",
        "seq": unix_ms(), "ttl_s": ttl_s
    })
}

pub fn announce(record: &Value, ttl: u64) -> Value {
    json!({"type": "announce", "record": record, "ttl": ttl})
}

pub fn task(key: &Key, id: &str, target: &str) -> Value {
    json!({
        "type": "task", "id": id, "target": target, "caller": key.id(), "capability": "work", "payload": {"a": 1},
        "protocol": "elo.v1", "timestamp": unix_s(), "ttl_s": 60
    })
}

pub fn relay(target: &str, source: &str, hops: u64, frame: &Value) -> Value {
    json!({"type": "relay", "target": target, "source": source, "hops": hops, "frame": frame})
}
