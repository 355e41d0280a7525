//! How a served node answers tasks: with a program, by a web hook, or with what it was asked.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::agent::reach::{By, Reaches};
use crate::agent::{ChunkSink, Exec, ExecFailure, ExecTask};
use crate::error::ErrorCode;
use crate::node::{Builder, Context, Payload, Task, TaskError};

use crate::cli::failure::Failure;
use crate::cli::settings::Answer;

/// What the agents behind a process's nodes have in common, whichever node it is: a key may be replaced.
#[derive(Clone, Debug, Default)]
pub(super) struct Agents {
    /// How each is reached.
    pub(super) reaches: Arc<Reaches>,
    /// Where answers come that web hooks give later.
    #[cfg(feature = "webhook")]
    pub(super) later: Arc<crate::agent::webhook::Later>,
}

/// Gives the node its handler. How it fares is noted for each of the capabilities.
pub(super) fn install(builder: Builder, answer: Answer, agents: &Agents, names: &[String]) -> Result<Builder, Failure> {
    let reaches = &agents.reaches;
    let (command, shell, stream, max_tasks) = match answer {
        Answer::Echo => {
            for name in names {
                reaches.observed(name, By::Process, Some(true), "");
            }
            return Ok(builder.default_handler(|task: Task, _| async move { Ok(Payload::json(task.payload_json())) }));
        }
        // What agents come for is put on the desk once there is a node.
        Answer::Poll => return Ok(builder),
        #[cfg(feature = "webhook")]
        Answer::Webhook { url, secret } => {
            return super::webhook::install(builder, &url, secret.as_deref(), agents, names);
        }
        #[cfg(not(feature = "webhook"))]
        Answer::Webhook { .. } => {
            return Err(Failure::usage("--webhook: this program was built without web hooks")
                .hint("build it with the feature `webhook`"));
        }
        Answer::Exec { command, shell, stream, max_tasks } => (command, shell, stream, max_tasks),
    };
    let mut exec = Exec::new(&command, shell)
        .map_err(|e| {
            Failure::usage(format!("--exec {command:?}: {e}")).hint("--exec-shell lets a shell read the command")
        })?
        .stream(stream);
    if let Some(max_tasks) = max_tasks {
        exec = exec.max_tasks(max_tasks);
    }
    let exec = Arc::new(exec);
    for name in names {
        let there = exec.is_there();
        reaches.observed(name, By::Exec, Some(there.is_ok()), there.as_ref().err().map_or("", String::as_str));
        let exec = Arc::clone(&exec);
        reaches.probe_with(
            name,
            Arc::new(move || {
                let there = exec.is_there();
                Box::pin(async move { there })
            }),
        );
    }
    let reaches = Arc::clone(reaches);
    Ok(builder.default_handler(move |task, context| {
        let (exec, reaches) = (Arc::clone(&exec), Arc::clone(&reaches));
        async move { run(&exec, &reaches, task, context).await }
    }))
}

/// The task as the program reads it: one line of JSON, the payload digit for digit as the caller wrote it.
fn stdin(task: &Task) -> Bytes {
    let quoted = |text: &str| Value::from(text).to_string();
    let line = format!(
        "{{\"capability\":{},\"caller\":{},\"id\":{},\"payload\":{},\"timestamp\":{},\"ttl_s\":{}}}",
        quoted(&task.capability),
        quoted(&task.caller.to_string()),
        quoted(&task.id),
        task.payload_json(),
        task.timestamp,
        task.ttl.as_secs(),
    );
    line.into()
}

async fn run(exec: &Exec, reaches: &Reaches, task: Task, context: Context) -> Result<Payload, TaskError> {
    let capability = task.capability.clone();
    let json = stdin(&task);
    let work = ExecTask {
        id: task.id,
        capability: task.capability,
        caller: task.caller.to_string(),
        json,
        deadline: context.deadline().into(),
        cancelled: context.token(),
    };
    let done = exec.run(work, Chunks { context: &context }).await;
    match &done {
        // That it ran is what was seen; what it makes of a task is between the two.
        Ok(_) | Err(ExecFailure::Failed { .. } | ExecFailure::TooLarge { .. }) => {
            reaches.observed(&capability, By::Exec, Some(true), "");
        }
        Err(e @ (ExecFailure::Gone(_) | ExecFailure::Spawn(_))) => {
            reaches.observed(&capability, By::Exec, Some(false), &e.to_string())
        }
        Err(_) => {}
    }
    done.map_err(task_error)
}

/// The program's lines, sent as chunks.
struct Chunks<'a> {
    context: &'a Context,
}

impl ChunkSink for Chunks<'_> {
    async fn send(&mut self, value: Payload) -> Result<(), ()> {
        self.context.chunk(value).await.map_err(drop)
    }
}

fn task_error(failure: ExecFailure) -> TaskError {
    let message = failure.to_string();
    match failure {
        ExecFailure::Overloaded { retry_after_s, .. } => {
            TaskError::overloaded(message, Duration::from_secs(retry_after_s))
        }
        ExecFailure::Cancelled | ExecFailure::NobodyListens => TaskError::with_code(ErrorCode::Cancelled, message),
        ExecFailure::DeadlineExceeded => TaskError::with_code(ErrorCode::Timeout, message),
        ExecFailure::TooLarge { .. } => TaskError::with_code(ErrorCode::TooLarge, message),
        ExecFailure::Gone(_) => TaskError::with_code(ErrorCode::AgentAway, message).not_run(),
        ExecFailure::Failed { .. } | ExecFailure::Spawn(_) | ExecFailure::Lost(_) => TaskError::new(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_program_become_the_codes_of_the_wire() {
        let failed = ExecFailure::Failed { status: "exit status: 3".into(), stderr_tail: "boom".into() };
        for (failure, code) in [
            (failed, ErrorCode::HandlerError),
            (ExecFailure::Overloaded { waiting: 64, retry_after_s: 1 }, ErrorCode::Overloaded),
            (ExecFailure::Cancelled, ErrorCode::Cancelled),
            (ExecFailure::DeadlineExceeded, ErrorCode::Timeout),
            (ExecFailure::TooLarge { limit: 9 }, ErrorCode::TooLarge),
            (ExecFailure::Spawn("no".into()), ErrorCode::HandlerError),
            (ExecFailure::Gone("no".into()), ErrorCode::AgentAway),
        ] {
            let error = task_error(failure);
            assert_eq!(error.code, code);
            assert_eq!(error.retry_after.is_some(), code == ErrorCode::Overloaded);
        }
    }
}
