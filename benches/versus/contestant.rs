//! Who is measured by calls: each a caller in this process and, apart from it, whoever answers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use elo::{Node, Route};
use serde_json::{Value, json};

use crate::Fault;
use crate::command::Serve;
use crate::elo_side::Setting;
use crate::figures::Round;
use crate::limit::Echo;
use crate::load::{self, TooShort};
use crate::nats::Server;
use crate::process::Process;
use crate::python::Pair;

/// What is asked with: the same text for everybody.
#[derive(Clone, Debug)]
pub struct Message {
    /// For those that move JSON.
    pub value: Value,
    /// For those that move bytes.
    pub bytes: Bytes,
}

/// The usual message: NATS' payload, the echo's line, what is signed for the limit.
pub const USUAL: usize = 350;

/// elo's payload in it. What a task of elo has around its payload comes to about as much as the whole of the usual message.
const USUAL_PAYLOAD: usize = 30;

impl Message {
    /// A JSON object of so many bytes.
    pub fn of(bytes: usize) -> Self {
        let around = json!({ "text": "" }).to_string().len();
        let value = json!({ "text": "x".repeat(bytes.saturating_sub(around)) });
        Self { bytes: value.to_string().into(), value }
    }

    /// The usual message. For elo and the Python package, which have envelopes of their own, a short payload.
    pub fn usual() -> Self {
        Self { value: Self::of(USUAL_PAYLOAD).value, bytes: Self::of(USUAL).bytes }
    }
}

/// A call, made anew each time.
pub type Operation = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>> + Send + Sync>;

/// Nodes of elo: the caller's, and the processes of all others that take part.
pub struct Elo {
    node: Node,
    provider: Process,
    /// The tracker that all goes through.
    tracker: Option<Serve>,
}

/// One of them.
pub enum Contestant {
    Echo(Echo),
    Elo(Elo),
    Nats { client: Client, server: Server, responder: Process },
    Python(Pair),
}

impl Contestant {
    pub async fn echo() -> Result<Self, Fault> {
        Ok(Self::Echo(Echo::start().await?))
    }

    /// Two nodes and nothing in between.
    pub async fn elo(setting: Setting) -> Result<Self, Fault> {
        let (provider, addr) = setting.provider().await?;
        Ok(Self::Elo(Elo { node: setting.caller(&addr).await?, provider, tracker: None }))
    }

    /// Two nodes that are not connected but through a tracker, the command `elo serve --tracker`.
    pub async fn relayed(setting: Setting) -> Result<Self, Fault> {
        let tracker = Serve::tracker(!setting.default_limits).await?;
        let provider = setting.provider_at(&tracker.addr).await?;
        let node = setting.caller(&tracker.addr).await?;
        Ok(Self::Elo(Elo { node, provider, tracker: Some(tracker) }))
    }

    pub async fn nats() -> Result<Self, Fault> {
        let server = Server::start().await?;
        let responder = server.responder().await?;
        Ok(Self::Nats { client: server.client().await?, server, responder })
    }

    pub async fn python() -> Result<Self, Fault> {
        Ok(Self::Python(Pair::start().await?))
    }

    /// So many calls in flight for a time; for a longer one when none ended in it, as on a busy machine in the short form.
    pub async fn run(&mut self, in_flight: usize, message: &Message, window: Duration) -> Result<Round, Fault> {
        for longer in [1, 4] {
            match self.run_once(in_flight, message, window * longer).await {
                Err(fault) if fault.is::<TooShort>() => {}
                result => return result,
            }
        }
        self.run_once(in_flight, message, window * 16).await
    }

    async fn run_once(&mut self, in_flight: usize, message: &Message, window: Duration) -> Result<Round, Fault> {
        if let Some(operation) = self.operation(message) {
            return load::run(in_flight, window, &self.others(), move || operation()).await;
        }
        match self {
            Self::Echo(echo) => echo.run(in_flight, message.bytes.len(), window).await,
            Self::Python(pair) => pair.run(in_flight, window, &message.value).await,
            Self::Elo(_) | Self::Nats { .. } => Err("it has an operation".into()),
        }
    }

    /// One call, of those who make them here.
    pub fn operation(&self, message: &Message) -> Option<Operation> {
        match self {
            Self::Echo(_) | Self::Python(_) => None,
            Self::Elo(elo) => Some(elo.call(message)),
            Self::Nats { client, .. } => {
                let (client, bytes) = (client.clone(), message.bytes.clone());
                Some(Arc::new(move || {
                    let (client, bytes) = (client.clone(), bytes.clone());
                    Box::pin(async move { client.request("echo", bytes).await.map(drop).map_err(Into::into) })
                }))
            }
        }
    }

    /// The other processes that take part.
    fn others(&self) -> Vec<u32> {
        match self {
            Self::Echo(_) | Self::Python(_) => Vec::new(),
            Self::Elo(elo) => {
                let tracker = elo.tracker.as_ref().map(|tracker| &tracker.process);
                [Some(&elo.provider), tracker].into_iter().flatten().map(Process::id).collect()
            }
            Self::Nats { server, responder, .. } => vec![server.process.id(), responder.id()],
        }
    }
}

impl Elo {
    /// How many bytes go out for a call, and how many come back.
    pub async fn bytes_of(&self, message: &Message) -> Result<(u64, u64), Fault> {
        let before = self.node.metrics();
        self.call(message)().await?;
        let after = self.node.metrics();
        Ok((after.bytes_out - before.bytes_out, after.bytes_in - before.bytes_in))
    }

    fn call(&self, message: &Message) -> Operation {
        let (node, payload) = (self.node.clone(), message.value.clone());
        let via = self.tracker.as_ref().map(|tracker| tracker.id.clone());
        Arc::new(move || {
            let mut call = node.call("echo", payload.clone());
            if let Some(tracker) = &via {
                call = call.via(tracker);
            }
            let relayed = via.is_some();
            Box::pin(async move {
                let outcome = call.await?;
                if matches!(outcome.route, Route::Relay) != relayed {
                    return Err(format!("it went another way: {:?}", outcome.route).into());
                }
                Ok(())
            })
        })
    }
}
