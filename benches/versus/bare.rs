//! The least client there is: it does the handshake, plain or under TLS, and then sits. What it costs is the other
//! side's to bear; that is what is measured with it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Fault;
use crate::bare_tls::only;

/// A connection that stays as long as this is held.
pub enum Connection {
    Plain { _stream: TcpStream },
    Tls { _stream: Box<TlsStream<TcpStream>> },
}

/// The longest line in a handshake.
const LONGEST: usize = 64 * 1024;

/// A TCP connection from an address of one's choice.
pub async fn stream(from: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to a node of elo and proves a new key.
pub async fn connect(from: IpAddr, to: SocketAddr, tls: bool) -> Result<Connection, Fault> {
    let key = Key::new();
    let mut stream = stream(from, to).await?;
    let nonce = encode(&rand::random::<[u8; 32]>());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let features = if tls { json!(["tls"]) } else { json!([]) };
    let hello = [
        ("type", json!("hello")),
        ("node_id", json!(key.id)),
        ("version", json!("1")),
        ("nonce", json!(nonce)),
        ("timestamp", json!(now)),
        ("features", features),
    ];
    stream.write_all(&key.signed(hello)).await?;
    let ack = message(&mut stream, "hello_ack").await?;
    let node = ack["node_id"].as_str().ok_or("a hello_ack without an id")?.to_owned();
    let auth = [
        ("type", json!("auth")),
        ("node_id", json!(key.id)),
        ("peer", json!(node)),
        ("hello_nonce", json!(nonce)),
        ("ack_nonce", ack["nonce"].clone()),
    ];
    if !tls {
        stream.write_all(&key.signed(auth)).await?;
        message(&mut stream, "welcome").await?;
        return Ok(Connection::Plain { _stream: stream });
    }
    let config = Arc::new(only(&URL_SAFE_NO_PAD.decode(&node)?)?);
    let name = IpAddr::from([0, 0, 0, 0]).into();
    let mut stream = Box::new(TlsConnector::from(config).connect(name, stream).await?);
    let binding = stream.get_ref().1.export_keying_material([0u8; 32], b"EXPORTER-Channel-Binding", None)?;
    let auth = auth.into_iter().chain([("binding", json!(encode(&binding)))]);
    stream.write_all(&key.signed(auth)).await?;
    message(&mut stream, "welcome").await?;
    Ok(Connection::Tls { _stream: stream })
}

/// Connects to nats-server as its clients do: its INFO, a CONNECT, and a PING that is answered.
pub async fn connect_nats(from: IpAddr, to: SocketAddr) -> Result<Connection, Fault> {
    let mut stream = stream(from, to).await?;
    let info = line(&mut stream).await?;
    if !info.starts_with(b"INFO ") {
        return Err("not a NATS server".into());
    }
    stream
        .write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"lang\":\"bare\",\"version\":\"0\"}\r\nPING\r\n")
        .await?;
    loop {
        let said = line(&mut stream).await?;
        if said.starts_with(b"PONG") {
            return Ok(Connection::Plain { _stream: stream });
        }
        if said.starts_with(b"-ERR") {
            return Err(String::from_utf8_lossy(&said).into());
        }
    }
}

struct Key {
    key: SigningKey,
    id: String,
}

impl Key {
    fn new() -> Self {
        let key = SigningKey::from_bytes(&rand::random());
        let id = encode(key.verifying_key().as_bytes());
        Self { key, id }
    }

    /// A line. Members in the order of their names: these texts have one form then, the canonical one.
    fn signed(&self, members: impl IntoIterator<Item = (&'static str, Value)>) -> Vec<u8> {
        let mut message: BTreeMap<&str, Value> = members.into_iter().collect();
        let text = json!(message).to_string();
        message.insert("signature", json!(encode(&self.key.sign(text.as_bytes()).to_bytes())));
        (json!(message).to_string() + "\n").into()
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The next message, of which it is known what it must be.
async fn message(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), kind: &str) -> Result<Value, Fault> {
    let line = line(stream).await?;
    let message: Value = serde_json::from_slice(&line)?;
    if message["type"] != kind {
        return Err(format!("not a {kind}: {}", String::from_utf8_lossy(&line)).into());
    }
    Ok(message)
}

/// A line, byte by byte off what has come: nothing behind it is taken, which may be TLS.
async fn line(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, Fault> {
    let mut line = Vec::with_capacity(1024);
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(line),
            _ if line.len() == LONGEST => return Err("a line without an end".into()),
            byte => line.push(byte),
        }
    }
}
