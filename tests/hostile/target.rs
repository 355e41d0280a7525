//! The node under attack, and the honest peer that must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use elo::{Builder, Context, Limits, Node, Task, TaskResult};
use serde_json::json;

use crate::mesh::{addr_of, eventually, meets, node};

pub struct Target {
    pub node: Node,
    pub honest: Node,
    runs: Arc<AtomicUsize>,
}

async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

pub async fn target() -> Target {
    Target::of(|builder| builder).await
}

pub async fn limited(set: impl FnOnce(&mut Limits)) -> Target {
    let mut limits = Limits::default();
    set(&mut limits);
    Target::of(|builder| builder.limits(limits)).await
}

impl Target {
    /// Provides `work` (counted, answers its payload), `wait` (counted, waits until it is stopped), `stream` (as many
    /// chunks as it is told) and `echo`, which is for the honest peer.
    pub async fn of(set: impl FnOnce(Builder) -> Builder) -> Self {
        let runs = Arc::new(AtomicUsize::new(0));
        let (works, waits) = (Arc::clone(&runs), Arc::clone(&runs));
        let builder = node("target")
            .agent("work")
            .agent("echo")
            .handler("echo", echo)
            .handler("work", move |task, _| {
                works.fetch_add(1, Ordering::SeqCst);
                async move { Ok(task.payload) }
            })
            .handler("wait", move |_, context: Context| {
                waits.fetch_add(1, Ordering::SeqCst);
                async move {
                    context.cancelled().await;
                    Ok(json!("stopped"))
                }
            })
            .handler("stream", |task: Task, context: Context| async move {
                for n in 0..task.payload.as_u64().unwrap_or(0) {
                    context.chunk(json!(n)).await.map_err(|e| e.to_string())?;
                }
                Ok(json!("done"))
            });
        let node = set(builder).start().await.unwrap();
        let honest = crate::mesh::node("honest").agent("kind").default_handler(echo).peer(addr_of(&node));
        let honest = honest.start().await.unwrap();
        meets(&honest, &[&node]).await;
        Self { node, honest, runs }
    }

    /// How often the handlers that are there for the attacker ran.
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    pub fn refused(&self, reason: &str) -> u64 {
        self.node.metrics().refused.get(reason).copied().unwrap_or(0)
    }

    pub fn closed(&self, reason: &str) -> u64 {
        self.node.metrics().closed.get(reason).copied().unwrap_or(0)
    }

    pub async fn closes(&self, reason: &str, times: u64) {
        eventually(&format!("{times} closed as {reason}"), || self.closed(reason) == times).await;
    }

    /// The honest peer is served.
    pub async fn serves(&self) {
        let outcome = self.honest.call("echo", json!("still there?")).to(self.node.id().to_string()).await.unwrap();
        assert_eq!((outcome.payload.into_value(), outcome.responder), (json!("still there?"), self.node.id()));
    }

    /// The attackers are gone: the honest peer is served, and of the others nothing is left.
    pub async fn unharmed(&self) {
        self.serves().await;
        let left = || {
            let m = self.node.metrics();
            (m.connections, m.peers, m.records, m.tasks_running, m.calls_running)
        };
        eventually("nothing is left of the attackers", || left() == (1, 1, 1, 0, 0)).await;
        self.serves().await;
    }
}
