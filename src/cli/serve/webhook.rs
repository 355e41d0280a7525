//! The web hooks of a served node: the one that answers its tasks, and those that are told of events.

use std::path::Path;
use std::sync::Arc;

use crate::agent::reach::By;
use crate::agent::webhook::{Hold, Later, Poster, Secrets, Webhook};
use crate::error::ErrorCode;
use crate::node::{Builder, TaskError};
use crate::service::{EventHooks, Service, event_hooks};

use crate::cli::doors::Doors;
use crate::cli::failure::Failure;

use super::answer::Agents;

/// The secrets in a file, if one is named.
fn secrets(file: Option<&Path>) -> Result<Secrets, Failure> {
    let Some(file) = file else { return Ok(Secrets::default()) };
    Secrets::load(file).map_err(|why| {
        Failure::usage(format!("--webhook-secret: {why}"))
            .hint("one secret a line, as Standard Webhooks has them: whsec_ and base64 of 24 to 64 random bytes")
    })
}

/// Gives the node its handler.
pub(super) fn install(
    builder: Builder,
    url: &str,
    secret: Option<&Path>,
    agents: &Agents,
    names: &[String],
) -> Result<Builder, Failure> {
    let poster = Poster::new(url, secrets(secret)?).map_err(|why| Failure::usage(format!("--webhook: {why}")))?;
    let hook = Arc::new(Webhook::new(poster, Arc::clone(&agents.reaches), Arc::clone(&agents.later)));
    for name in names {
        // What was seen of it stands when the node gets a new key.
        if agents.reaches.of(name).is_none() {
            agents.reaches.observed(name, By::Webhook, None, "");
        }
        agents.reaches.probe_with(name, Arc::clone(&hook).probe(name.clone()));
    }
    Ok(builder.default_handler(move |task, context| {
        let hook = Arc::clone(&hook);
        async move { hook.run(task, context).await }
    }))
}

/// Answers that come later are taken by the HTTP API at this base, such as `http://127.0.0.1:7880`, and given to the desk.
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "there is nobody who takes them"))]
pub(super) fn take_replies(later: &Later, base: &str, service: &Arc<Service>) {
    let desk = Arc::downgrade(service.desk());
    let hold: Hold = Arc::new(move |task, context, id| {
        let desk = desk.upgrade();
        Box::pin(async move {
            match desk {
                Some(desk) => desk.hold(&task, &context, &id).await,
                None => Err(TaskError::with_code(ErrorCode::AgentAway, "the node is going down").not_run()),
            }
        })
    });
    later.at(base, hold);
}

/// Starts to post events.
pub(super) fn post_events(doors: &Doors, service: &Arc<Service>) -> Result<EventHooks, Failure> {
    if doors.event_hooks.is_empty() {
        return Ok(EventHooks::default());
    }
    let secrets = secrets(doors.webhook_secret.as_deref())?;
    event_hooks(service, &doors.event_hooks, &secrets)
        .map_err(|fault| Failure::usage(format!("--event-hook: {}", fault.message)))
}
