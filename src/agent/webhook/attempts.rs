//! A task's way to the web hook and back: attempts until there is an answer, or it is too late.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::answer::{Again, Said, read};
use super::body;
use super::later::{Later, Open};
use super::post::{Missed, Poster};
use crate::agent::RETRY_AFTER_S;
use crate::agent::gate::{Gate, Refused};
use crate::agent::reach::{By, Probe, Reaches};
use crate::error::ErrorCode;
use crate::node::{Context, Payload, Task, TaskError};

/// Requests under way at once, and tasks that wait for their turn. An agent behind a URL usually waits for others itself, and
/// has more at once than there are cores.
const AT_ONCE: usize = 64;
const MAX_WAITING: usize = 256;

/// For how long an agent that is not reached any more is taken to be just starting again, so that it is tried again although
/// the caller doesn't wait. After that whoever calls is told at once.
const RESTART: Duration = Duration::from_secs(2);

/// The first pause between attempts, and the longest. Each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// After so many attempts that were answered with an error of its own, or broken off, that is the answer. Somebody who
/// fails is not made well by asking until the deadline, and the caller waits meanwhile.
const MAX_FAILED: u32 = 6;

/// How long before its deadline a task is given up, so that its caller hears why.
const BEFORE_DEADLINE: Duration = Duration::from_millis(250);

/// How long a question whether anybody is there may take.
const PROBE: Duration = Duration::from_secs(10);

/// Posts tasks to a URL.
#[derive(Debug)]
pub(crate) struct Webhook {
    poster: Poster,
    gate: Gate,
    reaches: Arc<Reaches>,
    later: Arc<Later>,
    /// When it was first not reached, if it was not since.
    away_since: Mutex<Option<Instant>>,
}

/// A task on its way.
struct Delivery<'a> {
    task: &'a Task,
    context: &'a Context,
    id: &'a str,
    reply_url: Option<String>,
    began: Instant,
    /// Since when the agent is not reached, as was seen last.
    away_since: Instant,
    /// When it is too late.
    give_up: Instant,
    attempt: u32,
    /// How many attempts were answered with an error of the agent's own, or broken off.
    failed: u32,
    /// Whether somebody was ever reached.
    reached: bool,
    /// Whether the agent may have begun to work on it.
    may_have_run: bool,
}

/// What came of it.
enum Outcome {
    Answer(Payload),
    Later,
}

impl Webhook {
    /// For what is posted there. How it fares is noted in `reaches`.
    pub(crate) fn new(poster: Poster, reaches: Arc<Reaches>, later: Arc<Later>) -> Self {
        Self { poster, gate: Gate::new(AT_ONCE, MAX_WAITING), reaches, later, away_since: Mutex::default() }
    }

    fn away_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent for a sign of life. Any answer but an error of the server's own shows that somebody is there: one who
    /// doesn't know such questions as well.
    pub(crate) fn probe(self: Arc<Self>, capability: String) -> Probe {
        Arc::new(move || {
            let (hook, capability) = (Arc::clone(&self), capability.clone());
            Box::pin(async move { hook.knock(&capability).await })
        })
    }

    async fn knock(&self, capability: &str) -> Result<String, String> {
        let id = body::new_id();
        match tokio::time::timeout(PROBE, self.poster.post(&id, body::probe(capability))).await {
            Ok(Ok(response)) if response.status.is_server_error() => Err(format!("it answers {}", response.status)),
            Ok(Ok(response)) => Ok(format!("it answers {}", response.status)),
            Ok(Err(missed)) => Err(missed.why().to_owned()),
            Err(_) => Err(format!("no answer within {} s", PROBE.as_secs())),
        }
    }

    /// Posts a task, and gives the result. Dropping the future drops the request.
    pub(crate) async fn run(&self, task: Task, context: Context) -> Result<Payload, TaskError> {
        let (task, context) = (Arc::new(task), Arc::new(context));
        let id = body::new_id();
        let now = Instant::now();
        let remaining = context.remaining();
        let open = self.later.open();
        let mut delivery = Delivery {
            task: &task,
            context: &context,
            id: &id,
            reply_url: open.as_ref().map(|open| open.reply_url(&id)),
            began: now,
            away_since: now,
            give_up: now + (remaining - BEFORE_DEADLINE.min(remaining / 4)),
            attempt: 0,
            failed: 0,
            reached: false,
            may_have_run: false,
        };
        // From the beginning: an answer may be on its way before the response that says so.
        let mut reply = pin!(reply(open.as_ref(), &task, &context, &id));
        let outcome = tokio::select! {
            biased;
            () = context.cancelled() => return Err(cancelled()),
            answer = &mut reply => return answer,
            outcome = self.deliver(&mut delivery) => outcome?,
        };
        match (outcome, open) {
            (Outcome::Answer(payload), _) => Ok(payload),
            (Outcome::Later, None) => Err(TaskError::new(
                "the agent's web hook answered 202, to answer later: this node has no HTTP API to take that (--http)",
            )),
            (Outcome::Later, Some(_)) => tokio::select! {
                biased;
                answer = &mut reply => answer,
                () = tokio::time::sleep_until(delivery.give_up) => Err(TaskError::with_code(
                    ErrorCode::Timeout,
                    "the agent's web hook answered 202, to answer later, and did not in its time",
                )),
            },
        }
    }

    /// Posts it until there is an answer.
    async fn deliver(&self, delivery: &mut Delivery<'_>) -> Result<Outcome, TaskError> {
        loop {
            delivery.attempt += 1;
            let again = match self.attempt(delivery).await? {
                Said::Answer(answer) => return answer.map(Outcome::Answer),
                Said::Later => return Ok(Outcome::Later),
                Said::Again(again) => again,
            };
            let pause = delivery.pause(again)?;
            tokio::time::sleep(pause).await;
        }
    }

    /// One attempt.
    async fn attempt(&self, delivery: &mut Delivery<'_>) -> Result<Said, TaskError> {
        let place = self.gate.enter(&delivery.context.token(), delivery.give_up).await;
        let _place = place.map_err(|refused| delivery.refused(refused))?;
        let reply_url = delivery.reply_url.as_deref();
        let body = body::task(delivery.task, delivery.context, delivery.id, delivery.attempt, reply_url)?;
        let posted = tokio::time::timeout_at(delivery.give_up, self.poster.post(delivery.id, body)).await;
        let seen = |ok: bool, note: &str| {
            self.reaches.observed(&delivery.task.capability, By::Webhook, Some(ok), note);
        };
        let failed = |why: &str| format!("the agent's web hook was reached, and gave no answer: {why}");
        match posted {
            Ok(Ok(response)) => {
                let well = !response.status.is_server_error();
                seen(well, &if well { String::new() } else { format!("it answers {}", response.status) });
                delivery.reached = true;
                *self.away_since() = None;
                let said = read(response);
                if let Said::Again(again) = &said {
                    delivery.may_have_run |= !again.not_run;
                }
                Ok(said)
            }
            Ok(Err(Missed::Unreached(why))) => {
                seen(false, &why);
                delivery.away_since = *self.away_since().get_or_insert_with(Instant::now);
                Ok(Said::Again(Again { why, after: None, not_run: true, passing: true }))
            }
            Ok(Err(Missed::Broken(why))) => {
                seen(false, &why);
                (delivery.reached, delivery.may_have_run) = (true, true);
                *self.away_since() = None;
                Ok(Said::Again(Again { why: failed(&why), after: None, not_run: false, passing: false }))
            }
            Err(_) => {
                seen(false, "it gave no answer in time");
                let message = "the agent's web hook was given the task, and did not answer in its time";
                Err(TaskError::with_code(ErrorCode::Timeout, message))
            }
        }
    }
}

impl Delivery<'_> {
    /// How long to wait before the next attempt; an error if there is none.
    fn pause(&mut self, again: Again) -> Result<Duration, TaskError> {
        let now = Instant::now();
        if !again.passing {
            self.failed += 1;
            if self.failed >= MAX_FAILED {
                return Err(TaskError::new(format!("{} ({})", again.why, self.attempts())));
            }
        }
        let away_at = (self.away_since + RESTART).max(self.began + self.task.wait);
        let until = if self.reached { self.give_up } else { away_at.min(self.give_up) };
        let pause = again.after.unwrap_or_default().max(jittered(self.attempt));
        if now + pause < until {
            return Ok(pause);
        }
        Err(match (self.reached, again.after) {
            (false, _) => {
                let hint = if self.task.wait.is_zero() { ". The caller may wait for it (--wait)" } else { "" };
                let (capability, attempts) = (&self.task.capability, self.attempts());
                let message = format!(
                    "the agent behind {capability:?} is away: its web hook is not reached: {} ({attempts}){hint}",
                    again.why
                );
                TaskError::with_code(ErrorCode::AgentAway, message).not_run()
            }
            // When to come back is for the caller to know.
            (true, Some(after)) => self.overloaded(again.why, after),
            (true, None) => TaskError::new(format!("{}, until it was too late ({})", again.why, self.attempts())),
        })
    }

    fn attempts(&self) -> String {
        format!("{} attempt{}", self.attempt, if self.attempt == 1 { "" } else { "s" })
    }

    fn overloaded(&self, message: String, retry_after: Duration) -> TaskError {
        let error = TaskError::overloaded(message, retry_after);
        if !self.may_have_run {
            return error;
        }
        let mut ran = TaskError::with_code(error.code, error.message);
        ran.retry_after = error.retry_after;
        ran
    }

    fn refused(&self, refused: Refused) -> TaskError {
        match refused {
            Refused::Overloaded { waiting } => self.overloaded(
                format!("{AT_ONCE} tasks are with the agent's web hook, and {waiting} wait already"),
                Duration::from_secs(RETRY_AFTER_S),
            ),
            Refused::Cancelled => cancelled(),
            Refused::DeadlineExceeded => {
                let message = "the task's deadline passed while others were with the agent's web hook";
                let error = TaskError::with_code(ErrorCode::Timeout, message);
                if self.may_have_run { error } else { error.not_run() }
            }
        }
    }
}

/// The answer that comes later, if it can.
fn reply(
    open: Option<&Open>,
    task: &Arc<Task>,
    context: &Arc<Context>,
    id: &str,
) -> Pin<Box<dyn Future<Output = Result<Payload, TaskError>> + Send>> {
    match open {
        Some(open) => (open.hold)(Arc::clone(task), Arc::clone(context), id.to_owned()),
        None => Box::pin(std::future::pending()),
    }
}

/// The pause after so many attempts: between half of what it would be and all of it, so that many don't come back at once.
pub(super) fn jittered(attempts: u32) -> Duration {
    let full = PAUSE_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(PAUSE_MAX);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn cancelled() -> TaskError {
    TaskError::with_code(ErrorCode::Cancelled, "nobody waits for it any more")
}
