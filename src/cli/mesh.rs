//! The way into the mesh: the node that runs in this home, or one that lives as long as the command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::{BoolishValueParser, TypedValueParser};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::control::{Client, ControlError, DoorError, Progress, Reply, Shared, attach, connect};
use crate::discovery::remembered::{self, Remembered};
use crate::identity::Identity;
use crate::info::Activity;
use crate::node::{ActivityStream, Node};
use crate::service::{Current, Service};

use super::App;
use super::failure::{Failure, NOT_DELIVERED};
use super::{settings, unlock, values};

/// How long further peers are waited for once one is connected.
const MORE_PEERS: Duration = Duration::from_secs(2);

/// How many remembered peers a command tries: the best few, as a person waits.
const REMEMBERED: usize = 4;

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Gone => Self::new(error.to_string()).code("GONE").exit(NOT_DELIVERED),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<DoorError> for Failure {
    fn from(error: DoorError) -> Self {
        let failure = Self::new(error.to_string());
        #[cfg(unix)]
        if matches!(error, DoorError::PathTooLong(_)) {
            return Failure { exit: super::failure::USAGE, ..failure }.hint("choose a shorter --home");
        }
        match error {
            DoorError::Running { .. } => {
                failure.code("ALREADY_RUNNING").hint("stop it with `elo stop`, or run this one with another --home")
            }
            #[cfg(unix)]
            DoorError::Io { .. } => failure.hint("a running node writes in its home: name another folder with --home"),
            _ => failure,
        }
    }
}

/// A way to a node: at most one request goes over it.
pub(super) struct Way {
    client: Client,
    /// What answers, when it is in this process.
    _session: Option<AbortOnDropHandle<()>>,
    /// The command's own node, stopped with it.
    own: Option<Node>,
}

impl Way {
    fn to_running(client: Client) -> Self {
        Self { client, _session: None, own: None }
    }
}

/// Goes to the node running in this home.
pub(super) async fn running(app: &App) -> Result<Way, Failure> {
    running_or_none(app).await?.ok_or_else(|| Failure::not_running(&app.home))
}

/// Goes to the node running in this home, if one does.
pub(super) async fn running_or_none(app: &App) -> Result<Option<Way>, Failure> {
    match connect(&app.home).await {
        Ok(client) => Ok(Some(Way::to_running(client))),
        Err(DoorError::NotRunning) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Goes to a node that is at hand, in this process.
pub(super) fn inside(shared: &Shared) -> Way {
    let (client, session) = attach(shared);
    Way { client, _session: Some(session), own: None }
}

/// Goes to the running node; or, with peers named, or none running and peers in the settings or remembered from an
/// earlier run, through a short-lived node connected to them.
pub(super) async fn any(app: &App, peers: &[String], within: Duration) -> Result<Way, Failure> {
    let running = match connect(&app.home).await {
        Ok(client) if peers.is_empty() => return Ok(Way::to_running(client)),
        Ok(_) => true,
        Err(DoorError::NotRunning) => false,
        Err(e) if peers.is_empty() => return Err(e.into()),
        Err(_) => false,
    };
    let configured;
    let peers = if peers.is_empty() {
        configured = configured_peers(app)?;
        &configured[..]
    } else {
        peers
    };
    let met = if peers.is_empty() { remembered_peers(app)? } else { Vec::new() };
    let node = match (peers.is_empty(), met.is_empty()) {
        (false, _) => short_lived(app, peers, running, peers.len(), within).await.map_err(|failure| {
            match running && failure.message.contains("NOT_ALLOWED") {
                true => failure.hint(
                    "a node runs in this home, so the command went with a key of its own, which nobody allowed: without \
                     --peer it goes through that node",
                ),
                false => failure,
            }
        })?,
        (true, true) => {
            return Err(Failure::not_running(&app.home)
                .exit(NOT_DELIVERED)
                .hint("start one with `elo serve`, or say whom to go through: --peer HOST:PORT"));
        }
        (true, false) => through_remembered(app, &met, within).await?,
    };
    let current = Current::new(node.clone());
    let (client, session) = attach(&Shared {
        service: Service::new(current.clone(), Arc::default()),
        node: current,
        rotations: None,
        stop: CancellationToken::new(),
        stopped: CancellationToken::new(),
    });
    Ok(Way { client, _session: Some(session), own: Some(node) })
}

/// The peers that `serve` would have: `ELO_PEER`, else those of the settings file.
fn configured_peers(app: &App) -> Result<Vec<String>, Failure> {
    let file = app.file()?.list("peer", values::peer)?;
    match std::env::var("ELO_PEER") {
        Ok(list) if !list.is_empty() => list
            .split(',')
            .map(|peer| values::peer(peer.trim()).map_err(|e| Failure::usage(format!("ELO_PEER: {peer:?}: {e}"))))
            .collect(),
        _ => Ok(file),
    }
}

/// The best of the peers that this home's node met in earlier runs, unless it is not to remember any.
fn remembered_peers(app: &App) -> Result<Vec<String>, Failure> {
    let off = match std::env::var("ELO_NO_REMEMBER").ok().filter(|value| !value.is_empty()) {
        Some(value) => BoolishValueParser::new().parse_ref(&clap::Command::new("elo"), None, value.as_ref()).ok(),
        None => app.file()?.flag("no-remember")?,
    };
    let Ok((me, _)) = Identity::peek(&app.home) else { return Ok(Vec::new()) };
    if off == Some(true) {
        return Ok(Vec::new());
    }
    let path = app.home.join(remembered::NAME);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match Remembered::read(&path, &me, now) {
        Ok(known) => {
            let peers =
                known.iter().take(REMEMBERED).filter_map(|met| Some(format!("{}@{}", met.id, met.addrs.first()?)));
            Ok(peers.collect())
        }
        // The next `serve` puts it aside.
        Err(e) => {
            tracing::warn!("the remembered peers in {} are not used: {e}", path.display());
            Ok(Vec::new())
        }
    }
}

/// Nobody was named: says through whom it goes.
async fn through_remembered(app: &App, met: &[String], within: Duration) -> Result<Node, Failure> {
    let node = short_lived(app, met, false, 1, within).await.map_err(|failure| {
        let hint = "no node runs here, and those met in earlier runs are away: start one with `elo serve`, or say whom to \
                    go through: --peer HOST:PORT";
        failure.hint(hint)
    })?;
    if !app.out.json && !app.quiet {
        for peer in node.peers() {
            app.out.note(&format!(
                "no node runs here; going through {} at {}, met in an earlier run",
                peer.node_id.short(),
                peer.addr
            ));
        }
    }
    Ok(node)
}

async fn short_lived(
    app: &App,
    peers: &[String],
    running: bool,
    enough: usize,
    within: Duration,
) -> Result<Node, Failure> {
    let identity = if running {
        // The same key must not be in the mesh twice: the tracker would take the second for a restart of the first.
        tracing::info!("a node runs in this home; this command goes through a node of its own, with a key of its own");
        Identity::generate()
    } else {
        unlock::identity_if_any(&app.home)?.unwrap_or_else(Identity::generate)
    };
    let file = app.file()?;
    let (tls, sealing) = (settings::configured_tls(&file)?, settings::sealing(&file)?);
    let mut builder = Node::builder().identity(identity).tls(tls).sealing(sealing).no_listen();
    for peer in peers {
        builder = builder.peer(peer);
    }
    let node = builder.start().await?;
    match settle(&node, peers.len(), enough, within).await {
        Ok(()) => Ok(node),
        Err(failure) => {
            node.shutdown().await;
            Err(failure)
        }
    }
}

/// Waits until `enough` peers are connected, or every one is or has failed once; one that is connected is enough after a
/// moment.
async fn settle(node: &Node, peers: usize, enough: usize, within: Duration) -> Result<(), Failure> {
    let mut activity = node.activity();
    let deadline = Instant::now() + within;
    let soon = deadline.min(Instant::now() + MORE_PEERS);
    let mut failed: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let connected = node.peers().len();
        if connected >= enough || connected + failed.len() >= peers {
            break;
        }
        let until = if connected > 0 { soon } else { deadline };
        match tokio::time::timeout_at(until, next_fault(&mut activity)).await {
            Ok(Some((peer, fault))) => {
                failed.insert(peer, fault);
            }
            Ok(None) => {}
            Err(_) => break,
        }
    }
    if !node.peers().is_empty() {
        return Ok(());
    }
    let faults: Vec<String> = failed.iter().map(|(peer, fault)| format!("{peer}: {fault}")).collect();
    let faults = if faults.is_empty() { "no answer in time".to_owned() } else { faults.join("; ") };
    let failure = Failure::new(format!("NO_PEER: no peer could be connected ({faults})"));
    let failure = failure.code("NO_PEER").exit(NOT_DELIVERED);
    // Who was refused reached a node, and is told why.
    let refused = !failed.is_empty() && failed.values().all(|fault| fault.contains("the other side refused"));
    Err(if refused { failure } else { failure.hint("check the address, and that a node serves there") })
}

/// The next thing that happens: a peer's fault, or `None` for anything that changes who is connected.
async fn next_fault(activity: &mut ActivityStream) -> Option<(String, String)> {
    loop {
        match activity.recv().await {
            Some(Activity::DialFailed { peer, message, .. }) => return Some((peer, message)),
            Some(Activity::PeerConnected { .. } | Activity::PeerLost { .. }) => return None,
            Some(_) => {}
            // Stopped: nothing will happen any more.
            None => std::future::pending().await,
        }
    }
}

impl Way {
    /// Whether a person's own agents answer here: it is the node of a home, not one made for a command.
    pub(super) fn is_of_a_home(&self) -> bool {
        self.own.is_none()
    }

    /// Asks, and hands each item to `each`; gives what ends the answer.
    pub(super) async fn ask(
        &mut self,
        op: &str,
        args: &impl Serialize,
        each: impl FnMut(Box<RawValue>) -> Result<(), Failure>,
    ) -> Result<Box<RawValue>, Failure> {
        self.ask_and_watch(op, args, each, |_| {}).await
    }

    /// The same, and hands on how far it is.
    pub(super) async fn ask_and_watch(
        &mut self,
        op: &str,
        args: &impl Serialize,
        mut each: impl FnMut(Box<RawValue>) -> Result<(), Failure>,
        mut watch: impl FnMut(Progress),
    ) -> Result<Box<RawValue>, Failure> {
        self.client.ask(op, args).await?;
        loop {
            match self.client.reply().await? {
                Reply::Item(item) => each(item)?,
                Reply::Progress(progress) => watch(progress),
                Reply::Done(data) => return Ok(data),
                Reply::Error(error) => {
                    return Err(Failure::from_reply(serde_json::from_str(error.get()).unwrap_or_default()));
                }
            }
        }
    }

    /// Asks, and hands each item to `each`; when `enough` completes, the node is told to come to an end with what it has.
    pub(super) async fn ask_until(
        &mut self,
        op: &str,
        args: &impl Serialize,
        mut each: impl FnMut(Box<RawValue>) -> Result<(), Failure>,
        enough: impl Future<Output = ()>,
    ) -> Result<Box<RawValue>, Failure> {
        self.client.ask(op, args).await?;
        let mut enough = Some(Box::pin(enough));
        loop {
            match self.client.reply_unless(&mut enough).await? {
                Reply::Item(item) => each(item)?,
                Reply::Progress(_) => {}
                Reply::Done(data) => return Ok(data),
                Reply::Error(error) => {
                    return Err(Failure::from_reply(serde_json::from_str(error.get()).unwrap_or_default()));
                }
            }
        }
    }

    /// Asks for a list.
    pub(super) async fn list(&mut self, op: &str, args: &impl Serialize) -> Result<Vec<Value>, Failure> {
        let mut items = Vec::new();
        self.ask(op, args, |item| {
            items.push(value(&item)?);
            Ok(())
        })
        .await?;
        Ok(items)
    }

    /// Hangs up; a node of the command's own leaves the mesh in good order.
    pub(super) async fn close(self) {
        let Self { client, _session: session, own } = self;
        // Hanging up is what cancels a call.
        drop(client);
        drop(session);
        if let Some(node) = own {
            node.shutdown().await;
        }
    }
}

/// A value for `render`.
pub(super) fn value(raw: &RawValue) -> Result<Value, Failure> {
    serde_json::from_str(raw.get()).map_err(|e| Failure::new(format!("the node's answer can't be read: {e}")))
}
