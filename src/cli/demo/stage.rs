//! The demo's nodes, and how they are connected.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::node::{Builder, Node, Task, TaskError, Tracker};

/// How long the nodes may take to connect: on loopback it is a matter of milliseconds.
const CONNECT: Duration = Duration::from_secs(5);

/// ```text
/// writer ── tracker ── asker ── translator ── middle ── archive
/// ```
pub(super) struct Stage {
    pub(super) tracker: Node,
    pub(super) asker: Node,
    pub(super) translator: Node,
    others: [Node; 3],
    translated: Arc<AtomicU64>,
}

fn listening(name: &str) -> Builder {
    Node::builder().name(name).listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

async fn start(builder: Builder) -> Result<Node, String> {
    builder.start().await.map_err(|e| format!("a node can't start: {e}"))
}

/// Where a node can be dialled, pinned to its id.
fn address(node: &Node) -> Result<String, String> {
    let addr = node.listen_addrs().into_iter().next().ok_or("a node doesn't listen")?;
    Ok(format!("{}@{addr}", node.id()))
}

impl Stage {
    /// Starts the nodes, and waits until they are connected.
    pub(super) async fn set() -> Result<Self, String> {
        let tracker = start(listening("tracker").tracker(Tracker::Public)).await?;
        let archive = listening("archive")
            .agent("archive")
            .default_handler(|task: Task, _| async move { Ok(json!({ "found": task.payload })) });
        let archive = start(archive).await?;
        let middle = start(listening("middle").peer(address(&archive)?)).await?;
        let translated = Arc::new(AtomicU64::new(0));
        let translator = start(Self::translator(Arc::clone(&translated)).peer(address(&middle)?)).await?;
        let writer = Node::builder().name("writer").no_listen().agent("write").peer(address(&tracker)?);
        let writer = start(writer.default_handler(|task: Task, _| async move {
            let subject = task.payload.as_str().ok_or("say what to write")?;
            Ok(Value::from(format!("wrote {subject}")))
        }))
        .await?;
        let asker = Node::builder().name("asker").no_listen().peer(address(&tracker)?).peer(address(&translator)?);
        let asker = start(asker).await?;

        let stage = Self { tracker, asker, translator, others: [archive, middle, writer], translated };
        let connected = tokio::time::timeout(CONNECT, async {
            while !stage.is_connected() {
                // The nodes have no single thing to wait for; this is when to look again.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        match connected.await {
            Ok(()) => Ok(stage),
            Err(_) => {
                stage.clear().await;
                Err(format!("the nodes did not connect within {} s", CONNECT.as_secs()))
            }
        }
    }

    fn translator(translated: Arc<AtomicU64>) -> Builder {
        listening("translator")
            .agent("translate")
            .agent("count")
            .handler("translate", move |task: Task, _| {
                translated.fetch_add(1, Ordering::SeqCst);
                async move {
                    let text = task.payload.as_str().ok_or("say what to translate")?;
                    Ok(Value::from(text.to_uppercase()))
                }
            })
            .handler("count", |task: Task, context| async move {
                for n in 1..=task.payload.as_u64().unwrap_or_default().min(100) {
                    context.chunk(json!(n)).await.map_err(|e| TaskError::new(e.to_string()))?;
                }
                Ok(json!("counted"))
            })
    }

    /// The chain of five links, whose ends provide what is asked for.
    fn is_connected(&self) -> bool {
        let [archive, middle, writer] = &self.others;
        let linked = |a: &Node, b: &Node| a.peers().iter().any(|peer| peer.node_id == b.id());
        let knows = |a: &Node, capability: &str| {
            a.peers().iter().any(|peer| peer.capabilities.iter().any(|cap| cap.name == capability))
        };
        linked(middle, archive)
            && linked(&self.translator, middle)
            && linked(&self.asker, &self.translator)
            && linked(&self.asker, &self.tracker)
            && linked(writer, &self.tracker)
            && knows(middle, "archive")
            && knows(&self.asker, "translate")
            && knows(&self.tracker, "write")
    }

    /// How often the translator's handler ran.
    pub(super) fn translated(&self) -> u64 {
        self.translated.load(Ordering::SeqCst)
    }

    /// Stops the nodes, all at once.
    pub(super) async fn clear(self) {
        let mut stops = JoinSet::new();
        for node in [self.tracker, self.asker, self.translator].into_iter().chain(self.others) {
            stops.spawn(async move { node.shutdown().await });
        }
        stops.join_all().await;
    }
}
