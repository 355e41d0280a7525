//! What a forger would try: a proper handshake, then a task that was changed after it was signed.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::identity::Identity;
use crate::limits::MAX_MESSAGE;
use crate::node::Node;
use crate::wire::Builder;

/// The forged task's id.
const ID: &str = "forged-1";

fn unix_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_secs()).ok()).unwrap_or_default()
}

/// A line of the conversation, read and written without the node library.
struct Line {
    stream: BufReader<TcpStream>,
}

impl Line {
    async fn send(&mut self, line: &[u8]) -> Result<(), String> {
        let line = [line, b"\n"].concat();
        self.stream.get_mut().write_all(&line).await.map_err(|e| format!("can't send: {e}"))
    }

    /// The next message of a type; others are passed over.
    async fn receive(&mut self, wanted: &str) -> Result<Value, String> {
        loop {
            let mut line = String::new();
            let read = (&mut self.stream).take(MAX_MESSAGE as u64 + 1).read_line(&mut line).await;
            if read.map_err(|e| format!("can't receive: {e}"))? == 0 {
                return Err(format!("the node hung up before its {wanted:?}"));
            }
            let message: Value = serde_json::from_str(&line).map_err(|e| format!("not JSON: {e}"))?;
            match message["type"].as_str() {
                Some("bye") if wanted != "bye" => return Err(format!("the node said bye: {}", message["code"])),
                Some(found) if found == wanted => return Ok(message),
                _ => {}
            }
        }
    }
}

/// Sends it to a node; gives the code of the error it is answered with.
pub(super) async fn send(node: &Node) -> Result<String, String> {
    let addr = node.listen_addrs().into_iter().next().ok_or("the node doesn't listen")?;
    let stream = TcpStream::connect(addr).await.map_err(|e| format!("can't connect to {addr}: {e}"))?;
    let mut line = Line { stream: BufReader::new(stream) };
    let forger = Identity::generate();
    shake_hands(&mut line, &forger, node).await?;

    let task = Builder::new("task")
        .str("id", ID)
        .str("target", &node.id().to_string())
        .str("caller", &forger.id().to_string())
        .str("capability", "translate")
        .raw("payload", b"\"pay 1 coin\"")
        .str("protocol", "elo.v1")
        .i64("timestamp", unix_seconds())
        .u64("ttl_s", 10)
        .sign(&forger, &[]);
    // The forger changes what the signature covers.
    let task = String::from_utf8_lossy(task.raw()).replace("pay 1 coin", "pay 9 coin");
    line.send(task.as_bytes()).await?;
    loop {
        let result = line.receive("result").await?;
        if result["id"] == ID {
            return Ok(result["error"]["code"].as_str().unwrap_or("success").to_owned());
        }
    }
}

async fn shake_hands(line: &mut Line, me: &Identity, node: &Node) -> Result<(), String> {
    // Fresh and unguessable, as a new public key is.
    let nonce = URL_SAFE_NO_PAD.encode(Identity::generate().id().as_bytes());
    let hello = Builder::new("hello")
        .str("node_id", &me.id().to_string())
        .str("version", env!("CARGO_PKG_VERSION"))
        .str("nonce", &nonce)
        .i64("timestamp", unix_seconds())
        .strings::<&str>("features", &[])
        .sign(me, &[]);
    line.send(hello.raw()).await?;
    let ack = line.receive("hello_ack").await?;
    let auth = Builder::new("auth")
        .str("node_id", &me.id().to_string())
        .str("peer", &node.id().to_string())
        .str("hello_nonce", &nonce)
        .str("ack_nonce", ack["nonce"].as_str().ok_or("the hello_ack has no nonce")?)
        .sign(me, &[]);
    line.send(auth.raw()).await?;
    line.receive("welcome").await?;
    Ok(())
}
