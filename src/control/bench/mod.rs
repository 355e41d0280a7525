//! `elo bench`: calls made in the process that holds the connection, so that what is measured is the way between two nodes, and not
//! the way from a command to its node.
//!
//! The load is a closed loop: each of so many workers makes its next call when its last one has ended.

mod advice;
mod load;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::{CallError, Delivery};
use crate::identity::NodeId;
use crate::info::{Metrics, PeerInfo, Route, millis};
use crate::limits::{MAX_BENCH, MAX_BENCH_CALLS, MAX_BENCH_IN_FLIGHT, MAX_BENCH_WARM_UP};
use crate::node::{Call, Node};

use super::protocol::BenchArgs;
use load::Load;
use tally::{Bar, ErrorsSeen, Latency, RouteTaken};

/// How often it is told how far it is.
const NEWS_EVERY: Duration = Duration::from_millis(250);

/// How long calls that are under way at the end may still be answered; then they are cancelled.
const GRACE: Duration = Duration::from_secs(2);

/// One at a time in a process: two would measure each other.
static PLACE: Semaphore = Semaphore::const_new(1);

/// How far it is.
#[derive(Debug, Serialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(super) enum News {
    /// The node was found, and answered: now it begins.
    Found(Target),
    /// Calls are made that don't count.
    WarmUp(Snapshot),
    /// Calls are made that count.
    Running(Snapshot),
    /// No more calls are made; those under way are waited for.
    Ending(Snapshot),
}

/// Whom it is about.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Target {
    node_id: NodeId,
    /// The name it gives itself; empty if it has not said.
    name: String,
}

/// What was counted so far.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot {
    elapsed_ms: f64,
    answered: u64,
    failed: u64,
    /// Since the last news.
    calls_per_s: f64,
    latency_ms: Option<Latency>,
}

/// What made it end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ended {
    /// Its time was over.
    Duration,
    /// All calls were made.
    Calls,
    /// Somebody had enough of it.
    Interrupted,
    /// It went on failing, in a way that repeating doesn't help.
    Failing,
    /// The calls were not all made in the time that there is at most.
    TooLong,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    target: Target,
    capability: String,
    via: Option<String>,
    in_flight: usize,
    payload_bytes: usize,
    ended: Ended,
    warm_up_ms: f64,
    elapsed_ms: f64,
    answered: u64,
    failed: u64,
    /// Calls that were under way at the end, and were cancelled.
    cut_off: usize,
    /// Calls answered in the time above, by the second.
    calls_per_s: f64,
    payload_out_bytes_per_s: f64,
    payload_in_bytes_per_s: f64,
    /// All that this node sent meanwhile, to whomever.
    wire_out_bytes_per_s: f64,
    wire_in_bytes_per_s: f64,
    latency_ms: Option<Latency>,
    histogram: Vec<Bar>,
    routes: Vec<RouteTaken>,
    errors: Vec<ErrorsSeen>,
}

/// Why nothing was measured.
#[derive(Debug)]
pub(super) enum Refused {
    /// It can't be done as it was put.
    Bad(String),
    /// Another one is under way.
    Busy,
    /// Somebody had enough before it began.
    Interrupted,
    /// The node was not reached.
    Call(Box<CallError>),
}

/// Measures; `enough` ends it early, with what was measured. Dropping the future ends it with nothing, and cancels the calls.
pub(super) async fn run(
    node: Node,
    args: BenchArgs,
    enough: CancellationToken,
    news: mpsc::Sender<News>,
) -> Result<Report, Refused> {
    check(&args)?;
    let _place = PLACE.try_acquire().map_err(|_| Refused::Busy)?;
    let target = tokio::select! {
        found = find(&node, &args) => found?,
        () = enough.cancelled() => return Err(Refused::Interrupted),
    };
    let call = prepared(&node, &args, &args.capability, args.payload.get()).to(target.node_id.to_string());
    // What goes out is the canonical form, which may be shorter than what was given.
    let payload_bytes = call.payload.as_ref().map_or(0, bytes::Bytes::len);
    drop(news.try_send(News::Found(target.clone())));
    let load = Arc::new(Load::new(call, args.in_flight, args.calls));
    let mut bench = Bench { node, args, target, payload_bytes, load, workers: JoinSet::new(), news, last: None };
    bench.measure(&enough).await
}

/// The same bounds as those of the command: anybody may speak to the socket who is its owner.
fn check(args: &BenchArgs) -> Result<(), Refused> {
    let bad = |message: String| Err(Refused::Bad(message));
    if args.in_flight == 0 || args.in_flight > MAX_BENCH_IN_FLIGHT {
        return bad(format!("1 to {MAX_BENCH_IN_FLIGHT} calls may be in flight"));
    }
    if args.calls.is_some_and(|calls| calls == 0 || calls > MAX_BENCH_CALLS) {
        return bad(format!("1 to {MAX_BENCH_CALLS} calls may be made"));
    }
    if args.duration_ms == 0 || Duration::from_millis(args.duration_ms) > MAX_BENCH {
        return bad(format!("it may take 1 ms to {} s", MAX_BENCH.as_secs()));
    }
    if Duration::from_millis(args.warm_up_ms) > MAX_BENCH_WARM_UP {
        return bad(format!("the warm-up may take {} s", MAX_BENCH_WARM_UP.as_secs()));
    }
    Ok(())
}

fn prepared(node: &Node, args: &BenchArgs, capability: &str, payload: &str) -> Call {
    let call = node.call_json(capability, payload).timeout(Duration::from_millis(args.timeout_ms.max(1)));
    match &args.via {
        Some(via) => call.via(via),
        None => call,
    }
}

/// Makes sure that the node is there, and finds out who it is: names may be shared, and the load is for one.
async fn find(node: &Node, args: &BenchArgs) -> Result<Target, Refused> {
    let to = match &args.to {
        Some(to) => to.clone(),
        None => match &node.peers()[..] {
            [only] => only.node_id.to_string(),
            peers => return Err(Refused::Bad(format!("{} peers are connected: say which node", peers.len()))),
        },
    };
    if to == node.id().to_string() || to == node.name() {
        return Err(Refused::Bad(format!("{to} is the node that the calls would come from; a bench needs another")));
    }
    match prepared(node, args, "ping", "null").to(to).await {
        Ok(outcome) => Ok(Target { node_id: outcome.responder, name: outcome.responder_name }),
        // It is there, and its owner has rules for `ping`: what it is asked for may be another thing.
        Err(CallError { delivery: Delivery::Answered, responder: Some(node_id), .. }) if args.capability != "ping" => {
            let name = named(&node.peers(), &node_id);
            Ok(Target { node_id, name })
        }
        Err(error) => Err(Refused::Call(Box::new(error))),
    }
}

fn named(peers: &[PeerInfo], id: &NodeId) -> String {
    peers.iter().find(|peer| peer.node_id == *id).map(|peer| peer.name.clone()).unwrap_or_default()
}

/// One that is under way.
struct Bench {
    node: Node,
    args: BenchArgs,
    target: Target,
    payload_bytes: usize,
    load: Arc<Load>,
    workers: JoinSet<()>,
    news: mpsc::Sender<News>,
    /// When there was news last, and how many calls had been answered then.
    last: Option<(Instant, u64)>,
}

/// What was counted when the time was over.
struct Window {
    elapsed: Duration,
    answered: u64,
    bytes_in: u64,
    traffic: (u64, u64),
}

fn traffic(metrics: &Metrics) -> (u64, u64) {
    (metrics.bytes_out, metrics.bytes_in)
}

impl Bench {
    async fn measure(&mut self, enough: &CancellationToken) -> Result<Report, Refused> {
        let warm_up = Duration::from_millis(self.args.warm_up_ms);
        let (mut began, mut before) = (Instant::now(), traffic(&self.node.metrics()));
        if warm_up.is_zero() {
            self.load.count();
        }
        for _ in 0..self.args.in_flight {
            self.workers.spawn(load::work(Arc::clone(&self.load)));
        }
        let mut ended = None;
        let mut warmed_up = Duration::ZERO;
        if !warm_up.is_zero() {
            ended = self.until(began, began + warm_up, enough, News::WarmUp).await;
            if ended.is_none() {
                warmed_up = began.elapsed();
                self.load.count();
                (began, before, self.last) = (Instant::now(), traffic(&self.node.metrics()), None);
            }
        }
        let duration = Duration::from_millis(self.args.duration_ms);
        let ended = match ended {
            Some(early) => early,
            None => match self.until(began, began + duration, enough, News::Running).await {
                Some(early) => early,
                None if self.args.calls.is_some() => Ended::TooLong,
                None => Ended::Duration,
            },
        };
        let window = self.close_window(began, before);
        self.load.stop.cancel();
        if matches!(ended, Ended::Duration | Ended::TooLong) {
            self.until_answered(began, enough).await;
        }
        let cut_off = self.load.under_way();
        // Dropping a call cancels it.
        self.workers.shutdown().await;
        Ok(self.report(ended, warmed_up, cut_off, &window))
    }

    /// Lets it run, with news, until that time; `Some`: something ended it earlier.
    async fn until(
        &mut self,
        began: Instant,
        end: Instant,
        enough: &CancellationToken,
        stage: impl Fn(Snapshot) -> News,
    ) -> Option<Ended> {
        loop {
            tokio::select! {
                biased;
                () = enough.cancelled() => return Some(Ended::Interrupted),
                () = self.load.hopeless.cancelled() => return Some(Ended::Failing),
                next = self.workers.join_next() => if next.is_none() { return Some(Ended::Calls) },
                () = sleep_until(end) => return None,
                () = sleep(NEWS_EVERY) => self.tell(began, &stage),
            }
        }
    }

    /// Lets those under way be answered, for a moment.
    async fn until_answered(&mut self, began: Instant, enough: &CancellationToken) {
        let end = Instant::now() + GRACE;
        while !self.workers.is_empty() {
            tokio::select! {
                biased;
                () = enough.cancelled() => return,
                _ = self.workers.join_next() => {}
                () = sleep_until(end) => return,
                () = sleep(NEWS_EVERY) => self.tell(began, News::Ending),
            }
        }
    }

    fn tell(&mut self, began: Instant, stage: impl Fn(Snapshot) -> News) {
        if !self.args.progress {
            return;
        }
        let now = Instant::now();
        let mut snapshot = self.load.tally(|tally| Snapshot {
            elapsed_ms: millis(began.elapsed()),
            answered: tally.answered,
            failed: tally.failed,
            calls_per_s: 0.0,
            latency_ms: tally.latency(),
        });
        let (since, answered) = self.last.unwrap_or((began, 0));
        snapshot.calls_per_s = per_second(snapshot.answered.saturating_sub(answered), now - since);
        self.last = Some((now, snapshot.answered));
        // Who is slow to read misses some.
        drop(self.news.try_send(stage(snapshot)));
    }

    fn close_window(&self, began: Instant, before: (u64, u64)) -> Window {
        let elapsed = began.elapsed();
        let after = traffic(&self.node.metrics());
        let (answered, bytes_in) = self.load.tally(|tally| (tally.answered, tally.bytes_in));
        let traffic = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        Window { elapsed, answered, bytes_in, traffic }
    }

    fn report(&self, ended: Ended, warmed_up: Duration, cut_off: usize, window: &Window) -> Report {
        let mut peers = self.node.peers();
        // A node that is reached through a tracker stands there as well, with the tracker's connection.
        peers.retain(|peer| peer.via.is_none());
        let encrypted = |id: &NodeId| peers.iter().find(|peer| peer.node_id == *id).map(|peer| peer.encrypted);
        let (answered, failed, latency_ms, histogram, mut routes, mut errors) = self.load.tally(|tally| {
            (tally.answered, tally.failed, tally.latency(), tally.bars(), tally.routes(), tally.errors())
        });
        for taken in &mut routes {
            let (name, encrypted) = match taken.via {
                Some(tracker) => (named(&peers, &tracker), encrypted(&tracker)),
                None => (String::new(), encrypted(&self.target.node_id)),
            };
            (taken.via_name, taken.encrypted) = (name, if taken.route == Route::Local { None } else { encrypted });
        }
        for seen in &mut errors {
            seen.advice = advice::on(seen.code, seen.delivery, &seen.message);
        }
        let rate = |count: u64| per_second(count, window.elapsed);
        Report {
            target: self.target.clone(),
            capability: self.args.capability.clone(),
            via: self.args.via.clone(),
            in_flight: self.args.in_flight,
            payload_bytes: self.payload_bytes,
            ended,
            warm_up_ms: millis(warmed_up),
            elapsed_ms: millis(window.elapsed),
            answered,
            failed,
            cut_off,
            calls_per_s: rate(window.answered),
            payload_out_bytes_per_s: rate(window.answered * self.payload_bytes as u64),
            payload_in_bytes_per_s: rate(window.bytes_in),
            wire_out_bytes_per_s: rate(window.traffic.0),
            wire_in_bytes_per_s: rate(window.traffic.1),
            latency_ms,
            histogram,
            routes,
            errors,
        }
    }
}

/// To a tenth: what is behind it changes from run to run.
fn per_second(count: u64, time: Duration) -> f64 {
    (count as f64 / time.as_secs_f64().max(1e-6) * 10.0).round() / 10.0
}
