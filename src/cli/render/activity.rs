//! What happens to a node, as it happens.

use serde_json::Value;

use super::{event, named, number, short, text_of};
use crate::cli::output::Tone;
use crate::cli::text;

/// One thing that happened to the node, without the time.
pub(in crate::cli) fn activity(what: &Value) -> (Tone, String) {
    let id = |member: &str| short(text_of(what, member));
    match text_of(what, "event") {
        "peer_connected" => {
            let direction = if what["inbound"] == true { "from" } else { "to" };
            let unproven = if what["proven"] == false { ", unproven" } else { "" };
            let line =
                format!("peer {} connected {direction} {}{unproven}", named(what, "node_id"), text_of(what, "addr"));
            (Tone::Good, line)
        }
        "peer_lost" => {
            let reason = what["reason"].as_str().map(|r| format!(": {r}")).unwrap_or_default();
            (Tone::Dim, format!("peer {} left{reason}", named(what, "node_id")))
        }
        "refused" => {
            let line =
                format!("refused {}: {} {}", text_of(what, "addr"), text_of(what, "reason"), text_of(what, "message"));
            (Tone::Bad, line)
        }
        "dial_failed" => {
            let retry = text::millis(what["retry_in_ms"].as_f64().unwrap_or_default());
            (
                Tone::Dim,
                format!("can't reach {}: {} (again in {retry})", text_of(what, "peer"), text_of(what, "message")),
            )
        }
        "access_changed" => match what["problem"].as_str() {
            Some(problem) => (Tone::Bad, problem.to_owned()),
            None => {
                let who = if what["private"] == true { "private" } else { "public" };
                let (allowed, denied) = (number(what, "allowed"), number(what, "denied"));
                (Tone::Plain, format!("access changed: {who}, {allowed} allowed, {denied} denied"))
            }
        },
        "task_received" => {
            let via = what["via"].as_str().map(|via| {
                let sealed = if what["sealed"] == true { ", sealed" } else { ", not sealed" };
                format!(" via {}{sealed}", short(via))
            });
            let via = via.unwrap_or_default();
            (
                Tone::Plain,
                format!("task {} from {}{via} ({})", text_of(what, "capability"), id("caller"), text_of(what, "id")),
            )
        }
        "task_finished" => {
            let took = match number(what, "took_ms") {
                0 => "less than 1 ms".to_owned(),
                took => text::millis(took as f64),
            };
            let task = format!("task {} for {}", text_of(what, "capability"), id("caller"));
            match what["error"].as_str() {
                Some(error) => (Tone::Bad, format!("{task} failed in {took}: {error}")),
                None => (Tone::Plain, format!("{task} done in {took}")),
            }
        }
        "id_replaced" => {
            let line = format!("{} has a new key: its id is {} now", text_of(what, "old"), text_of(what, "new"));
            (Tone::Good, line)
        }
        "id_revoked" => {
            let reason = match text_of(what, "reason") {
                "" => String::new(),
                reason => format!(" ({reason})"),
            };
            (
                Tone::Bad,
                format!("{} was revoked by its owner{reason}: nobody gets in with it", text_of(what, "node_id")),
            )
        }
        "successor_refused" => {
            let line = format!(
                "refused {} as successor of {}, which is {} now: somebody else may have its old key",
                text_of(what, "refused"),
                text_of(what, "old"),
                text_of(what, "kept")
            );
            (Tone::Bad, line)
        }
        "published" => (Tone::Plain, format!("event {}", event(what))),
        other => (Tone::Plain, format!("{other} {what}")),
    }
}
