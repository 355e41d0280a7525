//! The answering side: one client, one request.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, duplex, split};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use crate::error::{CallError, Error};
use crate::identity::NodeId;
use crate::node::{CallHandle, Node};
use crate::service::{self, Current, Fault, Service};

use super::bench::{self, Refused};
use super::client::Client;
use super::framing::{hung_up, read_line};
use super::protocol::{
    AccessArgs, Answer, BenchArgs, CallArgs, EventsArgs, FindArgs, Kind, MAX_REQUEST, Progress, PublishArgs, Request,
    RevokeArgs, RotateArgs, Stage, VERSION, op,
};

/// How long a client may take to say what it wants: a program does it at once, and a silent one takes up a place.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may not read before it is let go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How much may be on the way between two tasks of one process.
const PIPE: usize = 64 * 1024;

/// How often it is looked how far a call is.
const LOOK: Duration = Duration::from_millis(250);

/// Somebody wants the node to have a new key.
pub(crate) struct Rotation {
    /// The passphrase that the key is under, if it is under one.
    pub(crate) passphrase: Option<Zeroizing<String>>,
    /// What was done; or the code and the words of what went wrong.
    pub(crate) done: oneshot::Sender<Result<Value, (String, String)>>,
}

/// What every session of a node shares.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// The node asked.
    pub(crate) node: Current,
    /// What the doors have in common.
    pub(crate) service: Arc<Service>,
    /// Who gives the node another key; `None` where nobody does.
    pub(crate) rotations: Option<mpsc::Sender<Rotation>>,
    /// Cancelled when somebody asks the node to stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled when it has stopped, and let go of its port and home.
    pub(crate) stopped: CancellationToken,
}

/// A client to a node in this process, and the owner of the task that answers it.
pub(crate) fn attach(shared: &Shared) -> (Client, AbortOnDropHandle<()>) {
    let (here, there) = duplex(PIPE);
    let task = tokio::spawn(answer(there, shared.clone()));
    (Client::over(here), AbortOnDropHandle::new(task))
}

/// Why a session ends early: the client hung up, or reads too slowly.
pub(super) struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

/// Answers one client.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, shared: Shared) {
    let (reader, writer) = split(stream);
    // One kind for all streams: what answers is 50 kB of program for each kind.
    let writer: Box<dyn AsyncWrite + Send + Unpin> = Box::new(writer);
    let mut reader = BufReader::new(reader);
    let mut replies = Replies { writer };
    let request = match timeout(REQUEST_TIMEOUT, read_line(&mut reader, MAX_REQUEST)).await {
        Ok(Ok(Some(line))) => line,
        Ok(Err(e)) if e.kind() == io::ErrorKind::InvalidData => {
            drop(replies.error("TOO_LARGE", &format!("a request may have at most {MAX_REQUEST} bytes")).await);
            return;
        }
        Ok(Ok(None) | Err(_)) => return,
        Err(_) => {
            drop(replies.error("TIMEOUT", "no request came within 30 s").await);
            return;
        }
    };
    let enough = CancellationToken::new();
    tokio::select! {
        // Either way nobody is left to be told.
        _ = handle(&request, &shared, &enough, &mut replies) => {}
        () = hung_up(&mut reader, || enough.cancel()) => {}
    }
}

/// Tells a client that there is no room for it.
pub(super) async fn turn_away<S: AsyncRead + AsyncWrite + Send + Unpin>(stream: S, clients: usize) {
    let (_, writer) = split(stream);
    let message = format!("{clients} commands are connected to this node already; try again when some have ended");
    drop(Replies { writer }.error("OVERLOADED", &message).await);
}

async fn handle<W: AsyncWrite + Unpin>(
    request: &[u8],
    shared: &Shared,
    enough: &CancellationToken,
    replies: &mut Replies<W>,
) -> Result<(), Gone> {
    let request: Request = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(e) => return replies.error("BAD_REQUEST", &format!("a request is {{\"v\", \"op\", \"args\"}}: {e}")).await,
    };
    if request.v != VERSION {
        let message = format!("this node speaks control version {VERSION}, the command version {}", request.v);
        return replies.error("BAD_REQUEST", &format!("{message}: use the same version of elo for both")).await;
    }
    let node = &shared.node.get();
    match request.op.as_str() {
        op::STATUS => replies.done(&node.status()).await,
        op::PEERS => {
            for peer in node.peers().into_iter().chain(node.contacts()) {
                replies.item(&peer).await?;
            }
            for peer in node.configured_peers().into_iter().filter(|peer| !peer.connected) {
                replies.item(&peer).await?;
            }
            replies.done(&()).await
        }
        op::ACCESS => match args::<AccessArgs>(&request.args) {
            Ok(args) => access(node, &args, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::FIND => match args::<FindArgs>(&request.args) {
            Ok(args) => find(node, args, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::CALL => match args::<CallArgs>(&request.args) {
            Ok(args) => call(node, args, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::BENCH => match args::<BenchArgs>(&request.args) {
            Ok(args) => measure(node, args, enough, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::EVENTS => match args::<EventsArgs>(&request.args) {
            Ok(args) => events(node, &args, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::ACTIVITY => {
            let mut activity = node.activity();
            while let Some(what) = activity.recv().await {
                replies.item(&what).await?;
            }
            replies.done(&()).await
        }
        op::PUBLISH => match args::<PublishArgs>(&request.args) {
            Ok(args) => publish(node, &args, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::ROTATE => match args::<RotateArgs>(&request.args) {
            Ok(args) => rotate(shared, args, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::REVOKE => match args::<RevokeArgs>(&request.args) {
            Ok(args) => revoke(shared, node, &args, replies).await,
            Err(e) => replies.error("BAD_REQUEST", &e).await,
        },
        op::STOP => {
            shared.stop.cancel();
            shared.stopped.cancelled().await;
            replies.done(&()).await
        }
        op::OFFER
        | op::WITHDRAW
        | op::OFFERS
        | op::NEXT_TASK
        | op::REPLY
        | op::TASK_PROGRESS
        | op::START_CALL
        | op::CHECK_CALL
        | op::CANCEL_CALL
        | op::NEXT_EVENTS
        | op::RECENT_EVENTS
        | op::WAKE => super::service::handle(&request, &shared.service, enough, replies).await,
        other => replies.error("BAD_REQUEST", &format!("unknown operation {other:?}")).await,
    }
}

pub(super) fn args<T: DeserializeOwned>(raw: &RawValue) -> Result<T, String> {
    serde_json::from_str(raw.get()).map_err(|e| format!("the request's args can't be read: {e}"))
}

async fn find<W: AsyncWrite + Unpin>(node: &Node, args: FindArgs, replies: &mut Replies<W>) -> Result<(), Gone> {
    let wait = (args.wait_ms > 0).then(|| Duration::from_millis(args.wait_ms));
    match node.search(&args.capability, wait).await {
        Ok(search) => {
            for node in search.nodes {
                replies.item(&node).await?;
            }
            replies.done(&json!({ "tried": search.tried })).await
        }
        Err(e) => replies.fault(&e).await,
    }
}

async fn call<W: AsyncWrite + Unpin>(node: &Node, args: CallArgs, replies: &mut Replies<W>) -> Result<(), Gone> {
    let capability = args.capability.clone();
    let mut call =
        node.call_json(args.capability, args.payload.get()).timeout(Duration::from_millis(args.timeout_ms.max(1)));
    let target = args.to.clone();
    let local = args.local && node.status().capabilities.iter().any(|cap| cap.name == capability);
    if let Some(to) = args.to {
        call = call.to(to);
    }
    if let Some(via) = args.via {
        call = call.via(via);
    }
    if args.once {
        call = call.once();
    }
    call = call.wait(Duration::from_millis(args.wait_ms));
    if args.local {
        call = call.allow_local();
    }
    // Dropped with this future when the client hangs up: that cancels the call.
    let follow = args.progress.then(|| Follow { node, target, local, busy: Follow::busy(node) });
    let mut handle = match call.start().await {
        Ok(handle) => handle,
        Err(e) => return replies.call_error(&e).await,
    };
    if let Some(follow) = follow {
        follow.until_accepted(&mut handle, replies).await?;
    }
    if args.stream {
        while let Some(chunk) = handle.next_chunk_json().await {
            // It was checked when it came.
            if let Ok(chunk) = RawValue::from_string(chunk) {
                replies.item(&chunk).await?;
            }
        }
    }
    match handle.outcome().await {
        Ok(outcome) => replies.done(&service::outcome_with_digits(&outcome)).await,
        Err(e) => replies.call_error(&e).await,
    }
}

/// Tells somebody how far a call is.
struct Follow<'a> {
    node: &'a Node,
    target: Option<String>,
    local: bool,
    /// What the peers were working on for us before.
    busy: HashMap<NodeId, usize>,
}

impl Follow<'_> {
    fn busy(node: &Node) -> HashMap<NodeId, usize> {
        node.peers().into_iter().map(|peer| (peer.node_id, peer.in_flight)).collect()
    }

    /// The one that has the task, as far as the peers' work shows: a hint for a person, not more.
    fn with(&self) -> Option<String> {
        let busier = |id: &NodeId, now: usize| now > self.busy.get(id).copied().unwrap_or(0);
        let peers = self.node.peers().into_iter().filter(|peer| busier(&peer.node_id, peer.in_flight));
        let mut names = peers.map(|peer| if peer.name.is_empty() { peer.node_id.to_string() } else { peer.name });
        match (names.next(), names.next()) {
            (Some(name), None) => Some(name),
            _ => None,
        }
    }

    /// Tells what changes, until the responder has the task or it is over.
    async fn until_accepted<W: AsyncWrite + Unpin>(
        &self,
        handle: &mut CallHandle,
        replies: &mut Replies<W>,
    ) -> Result<(), Gone> {
        let mut told = None;
        loop {
            match timeout(LOOK, handle.accepted()).await {
                Ok(true) => {
                    let with = self.with().or_else(|| self.target.clone());
                    let with = with.or_else(|| self.local.then(|| "the node here".to_owned()));
                    return replies.send(Kind::Progress, &Progress { stage: Stage::Accepted, with }).await;
                }
                Ok(false) => return Ok(()),
                Err(_) => {
                    let with = self.with();
                    let stage = if with.is_some() { Stage::Sent } else { Stage::Looking };
                    let now = Progress { stage, with: with.or_else(|| self.target.clone()) };
                    if told.as_ref() != Some(&now) {
                        replies.send(Kind::Progress, &now).await?;
                        told = Some(now);
                    }
                }
            }
        }
    }
}

async fn measure<W: AsyncWrite + Unpin>(
    node: &Node,
    args: BenchArgs,
    enough: &CancellationToken,
    replies: &mut Replies<W>,
) -> Result<(), Gone> {
    let (sender, mut news) = mpsc::channel(1);
    // A task of its own, so that a client that is slow to read holds nothing up. Dropped, it ends.
    let mut run = AbortOnDropHandle::new(tokio::spawn(bench::run(node.clone(), args, enough.clone(), sender)));
    loop {
        tokio::select! {
            biased;
            Some(news) = news.recv() => replies.item(&news).await?,
            done = &mut run => {
                return match done {
                    Ok(Ok(report)) => replies.done(&report).await,
                    Ok(Err(Refused::Call(error))) => replies.call_error(&error).await,
                    Ok(Err(Refused::Bad(message))) => replies.error("BAD_REQUEST", &message).await,
                    Ok(Err(Refused::Busy)) => {
                        replies.error("OVERLOADED", "another bench is under way in this node: they would measure each other").await
                    }
                    Ok(Err(Refused::Interrupted)) => replies.error("CANCELLED", "it ended before it began").await,
                    Err(e) => replies.error("INTERNAL", &format!("the bench did not end well: {e}")).await,
                };
            }
        }
    }
}

async fn events<W: AsyncWrite + Unpin>(node: &Node, args: &EventsArgs, replies: &mut Replies<W>) -> Result<(), Gone> {
    let mut subscription = match node.subscribe(&args.pattern) {
        Ok(subscription) => subscription,
        Err(e) => return replies.fault(&e).await,
    };
    while let Some(event) = subscription.recv().await {
        replies.item(&event).await?;
    }
    replies.done(&()).await
}

async fn access<W: AsyncWrite + Unpin>(node: &Node, args: &AccessArgs, replies: &mut Replies<W>) -> Result<(), Gone> {
    if args.reload
        && let Err(e) = node.reload_access().await
    {
        return replies.error("ACCESS_FILE", &e.to_string()).await;
    }
    if args.list {
        let set = node.set_by_program();
        let allowed = set.allowed().map(|node| ("allow", node));
        for (access, node_id) in allowed.chain(set.denied().map(|node| ("deny", node))) {
            replies
                .item(&json!({ "access": access, "node_id": node_id, "source": "settings", "line": null, "note": "" }))
                .await?;
        }
        for statement in node.statements() {
            replies.item(&statement).await?;
        }
    }
    let access = node.access();
    let decisions: Vec<_> =
        args.ids.iter().map(|id| json!({ "node_id": id, "decision": access.decides(id) })).collect();
    replies.done(&json!({ "access": node.status().access, "decisions": decisions })).await
}

async fn publish<W: AsyncWrite + Unpin>(node: &Node, args: &PublishArgs, replies: &mut Replies<W>) -> Result<(), Gone> {
    let data = match serde_json::from_str(args.data.get()) {
        Ok(data) => data,
        Err(e) => return replies.error("BAD_REQUEST", &format!("the event's data can't be read: {e}")).await,
    };
    if !args.to.is_empty() {
        return match node.publish_to(&args.to, &args.event_type, data).await {
            Ok(p) => {
                let (id, event_type) = (&p.id, &args.event_type);
                let published = json!({ "id": id, "event_type": event_type, "sent": p.sent, "not_sent": p.not_sent });
                replies.done(&published).await
            }
            Err(e) => replies.fault(&e).await,
        };
    }
    match node.publish(&args.event_type, data) {
        Ok(id) => replies.done(&json!({ "id": id, "event_type": args.event_type })).await,
        Err(e) => replies.fault(&e).await,
    }
}

async fn rotate<W: AsyncWrite + Unpin>(
    shared: &Shared,
    args: RotateArgs,
    replies: &mut Replies<W>,
) -> Result<(), Gone> {
    let Some(rotations) = &shared.rotations else {
        return replies.error("BAD_REQUEST", "this node has no home, and so no key to replace").await;
    };
    let (done, answer) = oneshot::channel();
    let rotation = Rotation { passphrase: args.passphrase.map(Zeroizing::new), done };
    // What was asked for is done also when nobody waits for it any more.
    match rotations.try_send(rotation) {
        Ok(()) => match answer.await {
            Ok(Ok(report)) => replies.done(&report).await,
            Ok(Err((code, message))) => replies.error(&code, &message).await,
            Err(_) => replies.error("STOPPED", "the node stopped before it had a new key").await,
        },
        Err(_) => replies.error("OVERLOADED", "this node's key is being replaced already").await,
    }
}

async fn revoke<W: AsyncWrite + Unpin>(
    shared: &Shared,
    node: &Node,
    args: &RevokeArgs,
    replies: &mut Replies<W>,
) -> Result<(), Gone> {
    match node.revoke(&args.statement) {
        Ok(told) => {
            let done = replies.done(&json!({ "told": told })).await;
            if node.is_revoked() {
                // Nobody talks to it any more.
                shared.stop.cancel();
            }
            done
        }
        Err(e) => replies.fault(&e).await,
    }
}

/// The way back to the client.
pub(super) struct Replies<W> {
    writer: W,
}

impl<W: AsyncWrite + Unpin> Replies<W> {
    async fn send(&mut self, kind: Kind, data: &impl Serialize) -> Result<(), Gone> {
        let data = to_raw_value(data).map_err(io::Error::from)?;
        let mut line = serde_json::to_vec(&Answer { v: VERSION, kind, data }).map_err(io::Error::from)?;
        line.push(b'\n');
        let written = async {
            self.writer.write_all(&line).await?;
            self.writer.flush().await
        };
        Ok(timeout(WRITE_TIMEOUT, written).await.map_err(|_| Gone)??)
    }

    pub(super) async fn item(&mut self, data: &impl Serialize) -> Result<(), Gone> {
        self.send(Kind::Item, data).await
    }

    pub(super) async fn done(&mut self, data: &impl Serialize) -> Result<(), Gone> {
        self.send(Kind::Done, data).await
    }

    pub(super) async fn error(&mut self, code: &str, message: &str) -> Result<(), Gone> {
        self.send(Kind::Error, &json!({ "code": code, "message": message })).await
    }

    /// A fault with all that is known of it: of a call as calls have it.
    pub(super) async fn refused(&mut self, fault: &Fault) -> Result<(), Gone> {
        match &fault.call {
            Some(call) => self.send(Kind::Error, call).await,
            None => self.send(Kind::Error, fault).await,
        }
    }

    async fn call_error(&mut self, error: &CallError) -> Result<(), Gone> {
        self.send(Kind::Error, error).await
    }

    async fn fault(&mut self, error: &Error) -> Result<(), Gone> {
        let code = match error {
            Error::Invalid(_) | Error::Config(_) => "BAD_REQUEST",
            Error::TooLarge { .. } => "TOO_LARGE",
            Error::Stopped => "STOPPED",
            _ => "INTERNAL",
        };
        self.error(code, &error.to_string()).await
    }
}
