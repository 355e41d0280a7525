//! Calls that are looked after here while whoever made them comes and goes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Fault;
use crate::node::{Call, CallHandle, Node, Outcome};

/// The most calls that are remembered, those that ended included.
const MAX_CALLS: usize = 1024;

/// How long a call that ended is remembered.
const KEEP: Duration = Duration::from_secs(600);

/// The most parts of an answer that are kept until they are read, and their bytes. Older ones make room, and are told of.
const MAX_CHUNKS: usize = 1024;
const MAX_CHUNK_BYTES: usize = 2 * 1024 * 1024;

/// The longest that somebody may wait for news of a call in one go.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(600);

/// A call as it is asked for.
#[derive(Debug)]
pub(crate) struct StartCall {
    /// What is asked for.
    pub(crate) capability: String,
    /// With what, digit for digit.
    pub(crate) payload: Box<RawValue>,
    /// Whom to ask: id, beginning of the id, or name.
    pub(crate) to: Option<String>,
    /// The tracker to go through.
    pub(crate) via: Option<String>,
    /// Whether it rather fails than may run twice on a tracker's word.
    pub(crate) once: bool,
    /// Whether the node itself may answer.
    pub(crate) local: bool,
    /// How long the answer may take.
    pub(crate) timeout: Duration,
    /// How much of that an agent that is away may be waited for.
    pub(crate) wait: Duration,
}

impl StartCall {
    /// As a call of a node.
    pub(crate) fn on(self, node: &Node) -> Call {
        let mut call =
            node.call_json(self.capability, self.payload.get()).timeout(self.timeout.max(Duration::from_millis(1)));
        call = call.wait(self.wait);
        if let Some(to) = self.to {
            call = call.to(to);
        }
        if let Some(via) = self.via {
            call = call.via(via);
        }
        if self.once {
            call = call.once();
        }
        if self.local {
            call = call.allow_local();
        }
        call
    }
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
pub(crate) enum CallState {
    /// Somebody is looked for, or the task is on its way.
    Sent,
    /// The responder said that it has it.
    Accepted,
    /// It was answered with success.
    Done,
    /// It ended with an error.
    Failed,
}

impl CallState {
    /// Whether it has ended.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// What is known of a call.
#[derive(Debug, Serialize)]
pub(crate) struct Progress {
    /// What it is asked for by.
    pub(crate) id: String,
    /// What was asked for.
    pub(crate) capability: String,
    /// How far it is.
    pub(crate) state: CallState,
    /// Parts of the answer that were not read before.
    pub(crate) chunks: Vec<Box<RawValue>>,
    /// The number of the next part: to be given as `after`, for those that come later.
    pub(crate) next: u64,
    /// How many parts were lost because nobody read them in time.
    pub(crate) lost: u64,
    /// The outcome, its payload digit for digit, when it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Box<RawValue>>,
    /// What went wrong, when it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Fault>,
    /// When it came to its state.
    #[serde(skip)]
    #[cfg_attr(not(feature = "a2a"), allow(dead_code, reason = "for the A2A gateway"))]
    pub(crate) since: SystemTime,
}

#[derive(Debug)]
struct Kept {
    capability: String,
    state: CallState,
    /// When it came to that state.
    since: SystemTime,
    chunks: VecDeque<Box<RawValue>>,
    chunk_bytes: usize,
    /// The number of the first one kept.
    first: u64,
    outcome: Option<Result<Box<RawValue>, Fault>>,
    ended: Option<Instant>,
    cancel: CancellationToken,
    /// Changes with every news.
    news: watch::Sender<u64>,
}

impl Kept {
    fn come_to(&mut self, state: CallState) {
        if self.state != state {
            self.state = state;
            self.since = SystemTime::now();
        }
    }

    fn told(&self) {
        self.news.send_modify(|n| *n += 1);
    }

    fn next(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    fn progress(&self, id: &str, after: u64) -> Progress {
        let skip = usize::try_from(after.saturating_sub(self.first)).unwrap_or(usize::MAX);
        Progress {
            id: id.to_owned(),
            capability: self.capability.clone(),
            state: self.state,
            chunks: self.chunks.iter().skip(skip).cloned().collect(),
            next: self.next(),
            lost: self.first.saturating_sub(after),
            outcome: self.outcome.as_ref().and_then(|outcome| outcome.as_ref().ok().cloned()),
            error: self.outcome.as_ref().and_then(|outcome| outcome.as_ref().err().cloned()),
            since: self.since,
        }
    }
}

/// How far a call is, without what was said.
#[derive(Debug)]
#[cfg_attr(not(feature = "a2a"), allow(dead_code, reason = "for the A2A gateway"))]
pub(crate) struct Head {
    /// How far it is.
    pub(crate) state: CallState,
    /// When it came to that.
    pub(crate) since: SystemTime,
    /// What went wrong, when it failed.
    pub(crate) error: Option<Fault>,
}

/// Calls by their id.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    kept: Mutex<HashMap<String, Kept>>,
}

impl Calls {
    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a call, and gives its id.
    pub(crate) async fn start(self: &Arc<Self>, node: &Node, call: StartCall) -> Result<String, Fault> {
        self.make_room()?;
        let capability = call.capability.clone();
        let handle = call.on(node).start().await?;
        let id = handle.id().to_owned();
        let cancel = CancellationToken::new();
        let entry = Kept {
            capability,
            state: CallState::Sent,
            since: SystemTime::now(),
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            first: 0,
            outcome: None,
            ended: None,
            cancel: cancel.clone(),
            news: watch::Sender::new(0),
        };
        self.kept().insert(id.clone(), entry);
        // Ends with the call, which has a deadline and ends with its node.
        tokio::spawn(Arc::clone(self).follow(id.clone(), handle, cancel));
        Ok(id)
    }

    fn make_room(&self) -> Result<(), Fault> {
        let mut kept = self.kept();
        kept.retain(|_, call| call.ended.is_none_or(|ended| ended.elapsed() < KEEP));
        if kept.len() < MAX_CALLS {
            return Ok(());
        }
        let oldest = kept.iter().filter_map(|(id, call)| call.ended.map(|ended| (ended, id.clone()))).min();
        match oldest {
            Some((_, id)) => {
                kept.remove(&id);
                Ok(())
            }
            None => Err(Fault::overloaded(format!("{MAX_CALLS} calls are under way here already"))),
        }
    }

    async fn follow(self: Arc<Self>, id: String, mut handle: CallHandle, cancel: CancellationToken) {
        tokio::select! {
            has_it = handle.accepted() => if has_it {
                self.change(&id, |call| call.come_to(CallState::Accepted));
            },
            () = cancel.cancelled() => {}
        }
        loop {
            let chunk = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    // Dropping the handle takes the task back.
                    drop(handle);
                    return self.end(&id, Err(Fault::new("CANCELLED", "the call was taken back by who made it")));
                }
                chunk = handle.next_chunk_json() => chunk,
            };
            match chunk.map(RawValue::from_string) {
                Some(Ok(chunk)) => self.chunk(&id, chunk),
                Some(Err(_)) => {}
                None => break,
            }
        }
        let outcome = match handle.outcome().await {
            Ok(outcome) => outcome_with_digits(&outcome)
                .and_then(|members| to_raw_value(&members).ok())
                .ok_or_else(|| Fault::new("INTERNAL", "the outcome can't be written as JSON")),
            Err(error) => Err(Fault::from(error)),
        };
        self.end(&id, outcome);
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Kept)) {
        if let Some(call) = self.kept().get_mut(id) {
            change(call);
            call.told();
        }
    }

    fn chunk(&self, id: &str, chunk: Box<RawValue>) {
        self.change(id, |call| {
            call.come_to(CallState::Accepted);
            call.chunk_bytes += chunk.get().len();
            call.chunks.push_back(chunk);
            while call.chunks.len() > MAX_CHUNKS || (call.chunk_bytes > MAX_CHUNK_BYTES && call.chunks.len() > 1) {
                if let Some(oldest) = call.chunks.pop_front() {
                    call.chunk_bytes -= oldest.get().len();
                    call.first += 1;
                }
            }
        });
    }

    fn end(&self, id: &str, outcome: Result<Box<RawValue>, Fault>) {
        self.change(id, |call| {
            call.come_to(if outcome.is_ok() { CallState::Done } else { CallState::Failed });
            call.outcome = Some(outcome);
            call.ended = Some(Instant::now());
        });
    }

    /// What is known of a call, with the parts of its answer from number `after` on. Waits for news for that long: for
    /// the end, or for parts not seen yet.
    pub(crate) async fn check(&self, id: &str, after: u64, wait: Duration) -> Result<Progress, Fault> {
        let deadline = tokio::time::Instant::now() + wait.min(MAX_WAIT);
        loop {
            let (progress, mut news) = {
                let kept = self.kept();
                let call = kept.get(id).ok_or_else(|| no_call(id))?;
                (call.progress(id, after), call.news.subscribe())
            };
            if progress.state.is_over() || !progress.chunks.is_empty() || wait.is_zero() {
                return Ok(progress);
            }
            if tokio::time::timeout_at(deadline, news.changed()).await.is_err() {
                return Ok(progress);
            }
        }
    }

    /// How far a call is, if it is remembered.
    #[cfg_attr(not(feature = "a2a"), allow(dead_code, reason = "for the A2A gateway"))]
    pub(crate) fn head(&self, id: &str) -> Option<Head> {
        self.kept().get(id).map(|call| Head {
            state: call.state,
            since: call.since,
            error: call.outcome.as_ref().and_then(|outcome| outcome.as_ref().err().cloned()),
        })
    }

    /// What is known of a call now, if it is remembered, with the parts of its answer from number `after` on.
    #[cfg_attr(not(feature = "a2a"), allow(dead_code, reason = "for the A2A gateway"))]
    pub(crate) fn look(&self, id: &str, after: u64) -> Option<Progress> {
        self.kept().get(id).map(|call| call.progress(id, after))
    }

    /// Changes with every news of a call; ends when the call is forgotten.
    #[cfg_attr(not(feature = "a2a"), allow(dead_code, reason = "for the A2A gateway"))]
    pub(crate) fn news(&self, id: &str) -> Option<watch::Receiver<u64>> {
        self.kept().get(id).map(|call| call.news.subscribe())
    }

    /// Waits for the end of a call for that long; gives what is known of it then.
    pub(crate) async fn end_of(&self, id: &str, wait: Duration) -> Result<Progress, Fault> {
        let deadline = tokio::time::Instant::now() + wait.min(MAX_WAIT);
        loop {
            let (progress, mut news) = {
                let kept = self.kept();
                let call = kept.get(id).ok_or_else(|| no_call(id))?;
                (call.progress(id, 0), call.news.subscribe())
            };
            if progress.state.is_over() || tokio::time::timeout_at(deadline, news.changed()).await.is_err() {
                return Ok(progress);
            }
        }
    }

    /// Takes a call back. One that has ended stays as it ended.
    pub(crate) async fn cancel(&self, id: &str) -> Result<Progress, Fault> {
        self.kept().get(id).ok_or_else(|| no_call(id))?.cancel.cancel();
        self.end_of(id, Duration::from_secs(5)).await
    }

    /// How many are under way, and how many are remembered in all.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let kept = self.kept();
        (kept.values().filter(|call| call.ended.is_none()).count(), kept.len())
    }
}

fn no_call(id: &str) -> Fault {
    Fault::not_found(format!("no call has the id {id:?}: calls are forgotten 10 minutes after their end"))
}

/// The outcome as an object, its payload digit for digit as the responder wrote it.
pub(crate) fn outcome_with_digits(outcome: &Outcome) -> Option<BTreeMap<String, Box<RawValue>>> {
    let Value::Object(members) = serde_json::to_value(outcome).ok()? else { return None };
    let mut object = BTreeMap::new();
    for (name, value) in members {
        object.insert(name, to_raw_value(&value).ok()?);
    }
    if let Ok(payload) = RawValue::from_string(outcome.payload_json().to_owned()) {
        object.insert("payload".to_owned(), payload);
    }
    Some(object)
}
