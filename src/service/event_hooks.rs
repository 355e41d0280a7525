//! Events posted to URLs: one after the other for each hook, again and again while nobody takes them.
//!
//! What a hook has not posted yet is in its feed, which is bounded: the oldest make room, and the next one posted says how
//! many were lost. The feed goes on when the node's key is replaced, and so does the hook.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rand::RngExt as _;
use reqwest::StatusCode;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::feeds::MAX_WAIT;
use super::{Cursor, Fault, Feeds, Service};
use crate::agent::webhook::{Poster, Secrets, iso8601, quoted};
use crate::identity::NodeId;
use crate::info::Event;

/// The most hooks of one node.
const MAX_HOOKS: usize = 32;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(15);

/// The first pause between attempts, and the longest. Each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long an event is posted again; then it is lost, and the next one has its turn. Within the time that a feed waits for
/// its reader.
const PATIENCE: Duration = Duration::from_secs(240);

/// The hooks at work; dropping it ends them.
#[derive(Debug, Default)]
pub(crate) struct EventHooks {
    _at_work: Vec<AbortOnDropHandle<()>>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    id: &'a str,
    event_type: &'a str,
    data: &'a Value,
    origin: NodeId,
    proven: bool,
    /// How many events before this one were lost, as far as is known.
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's way")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Starts to post events: for each hook its pattern and its URL.
pub(crate) fn event_hooks(
    service: &Arc<Service>,
    hooks: &[(String, String)],
    secrets: &Secrets,
) -> Result<EventHooks, Fault> {
    if hooks.len() > MAX_HOOKS {
        return Err(Fault::bad_request(format!("{} event hooks, more than the {MAX_HOOKS} there may be", hooks.len())));
    }
    let started = hooks.iter().map(|(pattern, url)| {
        let wrong = |why| Fault::bad_request(format!("the event hook of {pattern:?}: {why}"));
        let poster = Poster::new(url, secrets.clone()).map_err(wrong)?;
        let feeds = Arc::clone(service.feeds());
        // From now on, not from when the task below has its first turn.
        let place = feeds.open(pattern)?;
        let hook = Hook { pattern: pattern.clone(), poster, feeds, lost: 0 };
        Ok(AbortOnDropHandle::new(tokio::spawn(hook.work(place))))
    });
    Ok(EventHooks { _at_work: started.collect::<Result<_, Fault>>()? })
}

struct Hook {
    pattern: String,
    poster: Poster,
    feeds: Arc<Feeds>,
    /// Events lost since the last one that was taken.
    lost: u64,
}

impl Hook {
    async fn work(mut self, mut place: Cursor) {
        loop {
            let batch = match self.feeds.next(&self.pattern, Some(place), MAX_WAIT).await {
                Ok(batch) => batch,
                Err(fault) => {
                    tracing::debug!(%fault, pattern = self.pattern, "the event hook's feed");
                    tokio::time::sleep(PAUSE_MAX).await;
                    continue;
                }
            };
            self.lost += batch.lost;
            for kept in &batch.events {
                match self.post(&kept.event).await {
                    Ok(()) => self.lost = 0,
                    Err(why) => {
                        self.lost += 1;
                        let to = self.poster.origin();
                        tracing::warn!(
                            pattern = self.pattern,
                            to,
                            why,
                            "an event was not taken, and is lost to its hook"
                        );
                    }
                }
            }
            place = batch.next;
        }
    }

    /// Until it is taken, or given up; the error says why.
    async fn post(&self, event: &Event) -> Result<(), String> {
        let (id, began) = (delivery_id(event), Instant::now());
        let body = self.body(event);
        let mut pause = PAUSE_MIN;
        loop {
            // The feed waits for a reader who is only slow.
            drop(self.feeds.open(&self.pattern));
            let (why, after) = match self.attempt(&id, body.clone()).await {
                Taken::Yes => return Ok(()),
                Taken::No(why) => return Err(why),
                Taken::NotYet(why, after) => (why, after),
            };
            let wait = pause.mul_f64(rand::rng().random_range(0.5..=1.0)).max(after);
            if began.elapsed() + wait > PATIENCE {
                return Err(why);
            }
            tracing::debug!(pattern = self.pattern, why, "an event is posted again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt(&self, id: &str, body: Vec<u8>) -> Taken {
        let response = match tokio::time::timeout(ATTEMPT, self.poster.post(id, body)).await {
            Ok(Ok(response)) => response,
            Ok(Err(missed)) => return Taken::NotYet(missed.why().to_owned(), Duration::ZERO),
            Err(_) => return Taken::NotYet(format!("no answer within {} s", ATTEMPT.as_secs()), Duration::ZERO),
        };
        let status = response.status;
        if status.is_success() {
            return Taken::Yes;
        }
        let why = format!("it answered {status}{}", quoted(&response.body, response.cut));
        match status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            true => Taken::NotYet(why, response.retry_after.unwrap_or_default()),
            false => Taken::No(why),
        }
    }

    fn body(&self, event: &Event) -> Vec<u8> {
        let body = Body {
            r#type: &event.event_type,
            timestamp: iso8601(event.timestamp.saturating_mul(1000)),
            data: Data {
                id: &event.id,
                event_type: &event.event_type,
                data: &event.data,
                origin: event.origin,
                proven: event.proven,
                lost: self.lost,
            },
        };
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// What came of an attempt.
enum Taken {
    Yes,
    /// It was refused, and will be.
    No(String),
    /// It may be taken after that time.
    NotYet(String, Duration),
}

/// The id of an event's delivery: the same however often, and by whomever, it is posted. Its own id is whatever its origin
/// chose.
fn delivery_id(event: &Event) -> String {
    let hash =
        Sha256::new().chain_update(event.origin.to_string()).chain_update([0]).chain_update(&event.id).finalize();
    format!("e_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&hash[..12]))
}
