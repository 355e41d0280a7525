//! The nodes that are measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use elo::{Context, Json, Limits, Node, Sealing, Task, TaskError, Tls};
use serde_json::Value;

use crate::process::Process;
use crate::{Fault, roles};

/// How long a node may take to find another.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a provider is to be: `LAYER SEALING LIMITS [PEER]` on its command line.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub tls: Tls,
    pub sealing: Sealing,
    pub default_limits: bool,
}

impl Setting {
    pub fn new(tls: Tls, default_limits: bool) -> Self {
        Self { tls, sealing: Sealing::Preferred, default_limits }
    }

    fn words(self) -> [&'static str; 3] {
        [
            if self.tls == Tls::Off { "plain" } else { "tls" },
            if self.sealing == Sealing::Off { "open" } else { "sealed" },
            if self.default_limits { "default" } else { "raised" },
        ]
    }

    fn read(words: &[&str]) -> Result<Self, Fault> {
        let [tls, sealing, limits] = words else { return Err(format!("not a setting: {words:?}").into()) };
        Ok(Self {
            tls: if *tls == "plain" { Tls::Off } else { Tls::Required },
            sealing: if *sealing == "open" { Sealing::Off } else { Sealing::Required },
            default_limits: *limits == "default",
        })
    }

    /// A node that is like that.
    pub fn node(self) -> elo::Builder {
        let limits = if self.default_limits { Limits::default() } else { raised() };
        Node::builder().tls(self.tls).sealing(self.sealing).limits(limits)
    }

    /// The caller's node, connected to an address.
    pub async fn caller(self, addr: &str) -> Result<Node, Fault> {
        let node = self.node().no_listen().peer(addr).start().await?;
        reaches_echo(&node).await?;
        Ok(node)
    }

    /// A provider that listens, in a process of its own, and its address.
    pub async fn provider(self) -> Result<(Process, String), Fault> {
        let mut process = Process::role("elo", &self.words())?;
        let addr = process.line("ready ").await?;
        Ok((process, addr))
    }

    /// A provider that doesn't listen, in a process of its own, at a tracker.
    pub async fn provider_at(self, tracker: &str) -> Result<Process, Fault> {
        let [tls, sealing, limits] = self.words();
        let mut process = Process::role("elo", &[tls, sealing, limits, tracker])?;
        process.line("ready ").await?;
        Ok(process)
    }
}

/// A bench sends more than an honest peer does in the long run; what is measured is the work, not the throttle.
pub fn raised() -> Limits {
    Limits::default().with(|l| {
        l.messages_per_second = u32::MAX;
        l.message_burst = u32::MAX;
        l.signatures_per_second = u32::MAX;
        l.signature_burst = u32::MAX;
        l.bytes_per_second = u32::MAX;
        l.byte_burst = u32::MAX;
        l.relay_bytes_per_second = u32::MAX;
        l.relay_byte_burst = u32::MAX;
        l.floods_per_second = u32::MAX;
        l.flood_burst = u32::MAX;
        l.max_remembered_tasks = usize::MAX;
    })
}

/// Waits until a call is answered: that the peer is connected and its capability known.
pub async fn reaches_echo(node: &Node) -> Result<(), Fault> {
    let trying = async {
        while node.call("echo", Value::Null).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.map_err(|_| "the provider is not found")?;
    Ok(())
}

/// The answer is what was asked with.
async fn echo(task: Task, _: Context) -> Result<Json, TaskError> {
    Ok(task.payload)
}

/// The role of a provider.
pub async fn provide(words: &[&str]) -> Result<(), Fault> {
    let (setting, peer) = words.split_at(words.len().min(3));
    let node = Setting::read(setting)?.node().agent("echo").handler("echo", echo);
    let node = match peer {
        [peer] => node.no_listen().peer(*peer).start().await?,
        _ => node.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).start().await?,
    };
    let addr = node.listen_addrs().first().map_or_else(|| "-".to_owned(), ToString::to_string);
    roles::ready(&addr).await?;
    node.shutdown().await;
    Ok(())
}
