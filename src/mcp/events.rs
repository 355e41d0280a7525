//! Tools for events.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::refusal::Refusal;
use super::server::{Session, handed_over, raw};
use super::tools::{MAX_WAIT_S, NextEvents, PublishTool, millis, seconds};
use super::watch::Watch;
use crate::control::{NextEventsArgs, PublishArgs, Reply, op};

/// How long an event is waited for: less than the minute that most clients wait for a tool.
const WAIT_S: f64 = 45.0;

/// The most patterns whose places a session remembers: as many as a node has feeds.
const MAX_PLACES: usize = 64;

pub(super) async fn publish(session: &Session, args: PublishTool) -> Result<Box<RawValue>, Refusal> {
    let data = handed_over("data", &args.data, None)?;
    session.link.answer(op::PUBLISH, &PublishArgs { event_type: args.event_type, data, to: Vec::new() }).await
}

pub(super) async fn next_events(
    session: &Session,
    args: NextEvents,
    mut watch: Watch,
) -> Result<Box<RawValue>, Refusal> {
    let wait = seconds("wait_s", args.wait_s, WAIT_S, MAX_WAIT_S)?;
    let after = args.after.or_else(|| session.places().get(&args.pattern).cloned());
    let first = after.is_none();
    if first {
        // Its place is kept before anything is waited for: a request that is taken back loses nothing.
        let now = NextEventsArgs { pattern: args.pattern.clone(), after: None, wait_ms: 0 };
        let now = ask(session, &now, &mut watch).await?;
        remember(session, &args.pattern, &now)?;
    }
    let after = after.or_else(|| session.places().get(&args.pattern).cloned());
    let wanted = NextEventsArgs { pattern: args.pattern.clone(), after, wait_ms: millis(wait) };
    let mut batch = ask(session, &wanted, &mut watch).await?;
    remember(session, &args.pattern, &batch)?;
    let number = |batch: &BTreeMap<String, Box<RawValue>>, member: &str| -> u64 {
        batch.get(member).and_then(|raw| raw.get().parse().ok()).unwrap_or(0)
    };
    let restarted = batch.remove("restarted").is_some_and(|raw| raw.get() == "true");
    let note = match (number(&batch, "lost"), restarted) {
        (_, true) => Some(
            "The node was started anew, or nobody listened for minutes: events in between were not heard.".to_owned(),
        ),
        (0, false) if first => {
            Some("Heard from now on. Where sessions are not kept, give `next` as `after`.".to_owned())
        }
        (0, false) => None,
        (lost, false) => Some(format!("{lost} events in between came too fast, or too long ago, and were lost.")),
    };
    if let Some(note) = note {
        batch.insert("note".to_owned(), raw(&note)?);
    }
    raw(&batch)
}

async fn ask(
    session: &Session,
    wanted: &NextEventsArgs,
    watch: &mut Watch,
) -> Result<BTreeMap<String, Box<RawValue>>, Refusal> {
    let mut client = session.link.ask(op::NEXT_EVENTS, wanted).await?;
    loop {
        match watch.reply(&mut client).await? {
            Reply::Done(batch) => return serde_json::from_str(batch.get()).map_err(Refusal::unreadable),
            Reply::Error(error) => return Err(Refusal::from_reply(&error)),
            Reply::Item(_) | Reply::Progress(_) => {}
        }
    }
}

fn remember(session: &Session, pattern: &str, batch: &BTreeMap<String, Box<RawValue>>) -> Result<(), Refusal> {
    let next = batch.get("next").ok_or_else(|| Refusal::unreadable("a place is missing"))?;
    let next: String = serde_json::from_str(next.get()).map_err(Refusal::unreadable)?;
    let mut places = session.places();
    if places.len() >= MAX_PLACES && !places.contains_key(pattern) {
        let message =
            format!("this session hears {MAX_PLACES} patterns already: hear several with one, such as build.*");
        return Err(Refusal::new("OVERLOADED", message));
    }
    places.insert(pattern.to_owned(), next);
    Ok(())
}
