//! A task of the mesh as a task of A2A: sent, followed, and its end as the answer.

use std::collections::HashMap;
use std::time::Duration;

use ::a2a::{Message, Role, SendMessageConfiguration, SendMessageRequest, error_code};
use serde_json::Value;
use tokio::time::Instant;

use super::client::{Line, Missed};
use super::join::Outside;
use super::news::{News, Stand};
use crate::a2a::{CAPABILITY, TIMEOUT, parts};
use crate::agent::RETRY_AFTER_S;
use crate::agent::gate::Refused;
use crate::error::ErrorCode;
use crate::node::{ChunkError, Context, Payload, Task, TaskError};

/// How long before its deadline a task is given up, so that its caller hears why, and the agent that it is over.
const BEFORE_DEADLINE: Duration = Duration::from_millis(500);

/// How long the agent has to hear that a task is taken back, when its time is over and when its caller took it back.
const PARTING: Duration = Duration::from_millis(250);
const TAKING_BACK: Duration = Duration::from_millis(1500);

/// The first pause between two looks at a task, and the longest. Each is half as long again as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// After so many looks in a row that failed, the agent is taken for gone.
const MAX_MISSED: u32 = 8;

/// The pause before an agent that is away is tried again for a caller that waits.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// Has a task done by an outside agent. Dropping the future leaves it to itself.
pub(super) async fn run(outside: &Outside, task: Task, context: Context) -> Result<Payload, TaskError> {
    let remaining = context.remaining();
    let give_up = Instant::now() + (remaining - BEFORE_DEADLINE.min(remaining / 4));
    let place = outside.gate.enter(&context.token(), give_up).await;
    let _place = place.map_err(|refused| match refused {
        Refused::Overloaded { waiting } => TaskError::overloaded(
            format!("many tasks are with the A2A agent, and {waiting} wait already"),
            Duration::from_secs(RETRY_AFTER_S),
        ),
        Refused::Cancelled => cancelled(),
        Refused::DeadlineExceeded => {
            let message = "the task's deadline passed while others were with the A2A agent";
            TaskError::with_code(ErrorCode::Timeout, message).not_run()
        }
    })?;
    let mut news = News::default();
    let ended = tokio::select! {
        biased;
        () = context.cancelled() => None,
        ended = tokio::time::timeout_at(give_up, outside.work(&task, &context, &mut news)) => Some(ended),
    };
    let (error, parting) = match ended {
        None => (cancelled(), TAKING_BACK),
        Some(Err(_)) => {
            let message = "the A2A agent was given the task, and did not answer in its time";
            (TaskError::with_code(ErrorCode::Timeout, message), PARTING)
        }
        Some(Ok(Ok(payload))) => return Ok(payload),
        Some(Ok(Err(error))) => (error, PARTING),
    };
    // Somebody who waits for nobody's answer is told. That it can't be is no matter any more.
    if let (Stand::Open | Stand::Wants(_), Some(id), Some(line)) = (news.stand(), &news.task_id, outside.line()) {
        drop(tokio::time::timeout(parting, line.cancel(id)).await);
    }
    Err(error)
}

impl Outside {
    async fn work(&self, task: &Task, context: &Context, news: &mut News) -> Result<Payload, TaskError> {
        let began = Instant::now();
        let (line, missed) = loop {
            let line = self.line().ok_or_else(|| self.away(task, "its card was not read yet"))?;
            match self.send(&line, task, context, news).await? {
                Some(Missed::Unreached(why)) => {
                    self.observed(&task.capability, false, &why);
                    self.was_missed();
                    if began.elapsed() + AWAY_PAUSE >= task.wait {
                        return Err(self.away(task, &why));
                    }
                    tokio::time::sleep(AWAY_PAUSE).await;
                }
                missed => break (line, missed),
            }
        };
        self.observed(&task.capability, true, "");
        match missed {
            Some(missed) if news.task_id.is_none() => return Err(failed(missed)),
            // What broke off is looked after from here on.
            Some(Missed::Broken(_)) | None => {}
            Some(missed) => return Err(failed(missed)),
        }
        let mut pause = PAUSE_MIN;
        let mut failures = 0;
        loop {
            match news.stand() {
                Stand::Open => {}
                stand => return ended(stand),
            }
            let Some(id) = news.task_id.clone() else {
                return Err(TaskError::new("the A2A agent's answer ended with neither a message nor a task"));
            };
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(PAUSE_MAX);
            match line.task(&id).await {
                Ok(task) => {
                    failures = 0;
                    news.polled(task).map_err(nonsense)?;
                }
                Err(missed @ (Missed::Unreached(_) | Missed::Broken(_) | Missed::Busy(..))) => {
                    failures += 1;
                    if failures >= MAX_MISSED {
                        let why = missed.why();
                        self.observed(&task.capability, false, why);
                        let message = format!("the A2A agent has the task, and is not reached any more: {why}");
                        return Err(TaskError::with_code(ErrorCode::PeerGone, message));
                    }
                }
                Err(missed) => return Err(failed(missed)),
            }
        }
    }

    /// Sends the task, and follows it if the agent can be followed. What it gives is why that ended early.
    async fn send(
        &self,
        line: &Line,
        task: &Task,
        context: &Context,
        news: &mut News,
    ) -> Result<Option<Missed>, TaskError> {
        let streaming = self.is_streaming();
        let request = request(task, context, streaming)?;
        if !streaming {
            return match line.message(&request).await {
                Ok(response) => news.response(response).map_err(nonsense).map(|()| None),
                Err(missed) => Ok(Some(missed)),
            };
        }
        let mut followed = match line.stream(&request).await {
            Ok(followed) => followed,
            Err(missed) => return Ok(Some(missed)),
        };
        loop {
            match followed.next().await {
                Ok(Some(event)) => news.event(event).map_err(nonsense)?,
                Ok(None) => return Ok(None),
                Err(missed) => return Ok(Some(missed)),
            }
            while let Some(chunk) = news.chunk() {
                match context.chunk(chunk).await {
                    Ok(()) => {}
                    Err(ChunkError::Over) => return Err(cancelled()),
                    Err(error) => return Err(TaskError::with_code(ErrorCode::TooLarge, error.to_string())),
                }
            }
            if news.stand() != Stand::Open {
                return Ok(None);
            }
        }
    }

    fn away(&self, task: &Task, why: &str) -> TaskError {
        let hint = if task.wait.is_zero() { ". The caller may wait for it (--wait)" } else { "" };
        let message = format!("the A2A agent behind {:?} is away: {why}{hint}", task.capability);
        TaskError::with_code(ErrorCode::AgentAway, message).not_run()
    }
}

fn request(task: &Task, context: &Context, streaming: bool) -> Result<SendMessageRequest, TaskError> {
    let payload: Value = serde_json::from_str(task.payload_json())
        .map_err(|e| TaskError::with_code(ErrorCode::BadRequest, e.to_string()).not_run())?;
    let metadata = HashMap::from([
        (CAPABILITY.to_owned(), Value::from(task.capability.as_str())),
        (TIMEOUT.to_owned(), context.remaining().as_secs().max(1).into()),
    ]);
    let configuration = SendMessageConfiguration {
        accepted_output_modes: None,
        task_push_notification_config: None,
        history_length: Some(0),
        // Its task can be taken back then.
        return_immediately: (!streaming).then_some(true),
    };
    Ok(SendMessageRequest {
        message: Message::new(Role::User, parts::from_payload(payload)),
        configuration: Some(configuration),
        metadata: Some(metadata),
        tenant: None,
    })
}

fn ended(stand: Stand) -> Result<Payload, TaskError> {
    match stand {
        Stand::Done(value) => Ok(value.into()),
        Stand::Open => Err(TaskError::new("the A2A agent is not done")),
        Stand::Failed(why) | Stand::Wants(why) => Err(TaskError::new(why)),
        Stand::Rejected(why) => Err(TaskError::new(why).not_run()),
        Stand::Canceled(why) => Err(TaskError::with_code(ErrorCode::Cancelled, why)),
    }
}

fn failed(missed: Missed) -> TaskError {
    match missed {
        Missed::Busy(why, wait) => {
            let wait = wait.unwrap_or(Duration::from_secs(RETRY_AFTER_S));
            TaskError::overloaded(format!("the A2A agent is busy: {why}"), wait)
        }
        Missed::Refused(why, Some(error_code::INVALID_PARAMS | error_code::CONTENT_TYPE_NOT_SUPPORTED)) => {
            let message = format!("the A2A agent can't do anything with that: {why}");
            TaskError::with_code(ErrorCode::BadRequest, message).not_run()
        }
        Missed::Refused(why, _) => TaskError::new(format!("the A2A agent refuses it: {why}")),
        Missed::Broken(why) => TaskError::new(format!("the A2A agent was reached, and gave no answer: {why}")),
        Missed::Unreached(why) => TaskError::with_code(ErrorCode::AgentAway, why).not_run(),
        Missed::Nonsense(why) => nonsense(why),
    }
}

fn nonsense(why: String) -> TaskError {
    TaskError::new(format!("what the A2A agent says makes no sense: {why}"))
}

fn cancelled() -> TaskError {
    TaskError::with_code(ErrorCode::Cancelled, "nobody waits for it any more")
}
