//! A tracker by hand: it does what a tracker does for the nodes that dial it, remembers every line, and has each relayed
//! frame changed as a test wants.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use elo::wire::Builder;
use elo::{Identity, NodeId};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What becomes of a relayed frame: none, one or several in its place.
pub type Twist = Box<dyn FnMut(Value) -> Vec<Value> + Send>;

pub struct Evil {
    pub addr: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    identity: Identity,
    features: &'static [&'static str],
    twist: Mutex<Twist>,
    nodes: Mutex<HashMap<String, mpsc::UnboundedSender<String>>>,
    records: Mutex<HashMap<String, Value>>,
    withholds: Mutex<bool>,
    lines: Mutex<Vec<String>>,
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

impl Evil {
    pub async fn start() -> Self {
        Self::listing(&["sealed"]).await
    }

    /// One that lists those features.
    pub async fn listing(features: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            identity: Identity::generate(),
            features,
            twist: Mutex::new(Box::new(|frame| vec![frame])),
            nodes: Mutex::default(),
            records: Mutex::default(),
            withholds: Mutex::new(false),
            lines: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(Arc::clone(&accepting).serve(stream));
            }
        });
        Self { addr, shared, task }
    }

    /// From now on every relayed frame, as it is about to be passed on, goes through this.
    pub fn twist(&self, twist: impl FnMut(Value) -> Vec<Value> + Send + 'static) {
        *self.shared.twist.lock().unwrap() = Box::new(twist);
    }

    /// Says nothing of any node any more.
    pub fn withhold(&self) {
        *self.shared.withholds.lock().unwrap() = true;
    }

    pub fn knows(&self, node: &NodeId) -> bool {
        self.shared.records.lock().unwrap().contains_key(&node.to_string())
    }

    /// What it has heard, every line of it.
    pub fn heard(&self) -> String {
        self.shared.lines.lock().unwrap().concat()
    }

    /// The frames it was to pass on, of that kind.
    pub fn frames(&self, kind: &str) -> Vec<Value> {
        let lines = self.shared.lines.lock().unwrap();
        let relays = lines.iter().filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let frames = relays.filter(|m| m["type"] == "relay").map(|m| m["frame"].clone());
        frames.filter(|f| f["type"] == kind || f["kind"] == kind).collect()
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let me = self.identity.id().to_string();
        let Ok(Some(hello)) = lines.next_line().await else { return };
        let hello: Value = serde_json::from_str(&hello).unwrap();
        let node = hello["node_id"].as_str().unwrap_or_default().to_owned();
        let ack = Builder::new("hello_ack")
            .str("node_id", &me)
            .str("version", "0")
            .str("nonce", &Identity::generate().id().to_string())
            .i64("timestamp", unix_s())
            .strings("features", self.features)
            .str("instance", "run")
            .str("hello_nonce", hello["nonce"].as_str().unwrap())
            .sign(&self.identity, &[]);
        let line = |bytes: &[u8]| [bytes, b"\n"].concat();
        let _ = write.write_all(&line(ack.raw())).await;
        let Ok(Some(_auth)) = lines.next_line().await else { return };
        let welcome =
            Builder::new("welcome").str("node_id", &me).str("tracker", "public").strings::<&str>("peers", &[]);
        let _ = write.write_all(&line(welcome.build().raw())).await;
        let (sender, mut outbox) = mpsc::unbounded_channel::<String>();
        self.nodes.lock().unwrap().insert(node.clone(), sender.clone());
        loop {
            tokio::select! {
                heard = lines.next_line() => {
                    let Ok(Some(heard)) = heard else { break };
                    self.lines.lock().unwrap().push(heard.clone());
                    let Ok(message) = serde_json::from_str::<Value>(&heard) else { break };
                    self.take(message, &sender);
                }
                Some(out) = outbox.recv() => {
                    if write.write_all(&line(out.as_bytes())).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.nodes.lock().unwrap().remove(&node);
    }

    fn take(&self, message: Value, back: &mpsc::UnboundedSender<String>) {
        match message["type"].as_str() {
            Some("announce") => {
                let record = message["record"].clone();
                self.records.lock().unwrap().insert(record["node_id"].as_str().unwrap().to_owned(), record);
            }
            Some("query") if !*self.withholds.lock().unwrap() => {
                let records = self.records.lock().unwrap();
                let fits = |r: &&Value| {
                    let named = [&r["node_id"], &r["name"]].contains(&&message["node"]) || message["node"] == "";
                    let provides = r["caps"]["agents"].as_array().unwrap().iter();
                    let mut names = provides.map(|c| &c["name"]);
                    named && (message["capability"] == "" || names.any(|n| *n == message["capability"]))
                };
                let nodes: Vec<&Value> = records.values().filter(fits).collect();
                let resp = serde_json::json!({"type": "query_resp", "id": message["id"],
                    "origin": message["origin"], "hops": 1, "nodes": nodes});
                let _ = back.send(resp.to_string());
            }
            Some("relay") => {
                let hops = message["hops"].as_u64().unwrap_or(0) + 1;
                let frames = self.twist.lock().unwrap()(message["frame"].clone());
                for frame in frames {
                    let relay = serde_json::json!({"type": "relay", "target": message["target"],
                        "source": message["source"], "hops": hops, "frame": frame});
                    let nodes = self.nodes.lock().unwrap();
                    if let Some(to) = nodes.get(message["target"].as_str().unwrap_or_default()) {
                        let _ = to.send(relay.to_string());
                    }
                }
            }
            _ => {}
        }
    }
}
