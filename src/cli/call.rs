//! `elo call`: hands a task to somebody, and prints what comes back.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::control::{CallArgs as Request, op};

use super::App;
use super::failure::{Failure, NOT_DELIVERED, OK};
use super::signals::Signals;
use super::waiting::Waiting;
use super::{mesh, render, text, values};

/// What an agent that was waited for has for its work, at least.
const FOR_THE_WORK: Duration = Duration::from_secs(60);

/// What every node provides.
pub(super) const BUILT_IN: &[&str] = &["ping", "health"];

const AFTER_HELP: &str = "\
Examples:
  elo call summarise 'some text'             the payload is text
  elo call add '[1, 2]'                      the payload is JSON
  elo call translate --to mybox - < file     the payload comes from stdin
  elo call ping --peer 10.0.0.5              through a short-lived node
  elo call write --stream --trace 'a poem'   parts as they come, and which way
  elo call review --wait 10m 'branch fix'    also when its agent comes later

The result goes to stdout: text as text, everything else as JSON; with --json the whole outcome.

Exit codes: 0 success, 1 the task failed, 2 wrong usage, 3 not delivered (or not known to be; or its agent is away), \
4 delivered but unanswered in time, 130 interrupted (the task is cancelled).";

/// Hand a task to an agent, model or tool, and print its answer
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CallArgs {
    /// What is asked for: a capability's name
    #[arg(value_parser = values::name)]
    capability: String,
    /// JSON, else text; - reads stdin [default: null]
    #[arg(allow_negative_numbers = true)]
    payload: Option<String>,
    /// Ask this node and no other: its name, its id or the beginning of it
    #[arg(long, value_name = "NODE", value_parser = values::node, allow_hyphen_values = true)]
    to: Option<String>,
    /// Send through this tracker: its name, its id or the beginning of it
    #[arg(long, value_name = "TRACKER", value_parser = values::node, allow_hyphen_values = true)]
    via: Option<String>,
    /// Rather fail than go to another node once a tracker has had the task: it could have it done twice
    #[arg(long)]
    once: bool,
    /// Go through a short-lived node connected to this peer; may be repeated
    #[arg(long, value_name = "[ID@]HOST[:PORT]", value_parser = values::peer, value_delimiter = ',',
        allow_hyphen_values = true)]
    peer: Vec<String>,
    /// Wait that long for an agent that is away [default: the call ends with AGENT_AWAY at once]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    wait: Option<Duration>,
    /// How long the answer may take: 500ms, 10s, 2m or seconds [default: 60s; with --wait a minute more than that, at least]
    #[arg(long, env = "ELO_TIMEOUT", value_name = "TIME", value_parser = values::duration)]
    timeout: Option<Duration>,
    /// Print each part of the answer as it comes
    #[arg(long)]
    stream: bool,
    /// Tell on stderr which way the call went, and what was tried
    #[arg(long)]
    trace: bool,
}

pub(super) fn run(app: &App, args: CallArgs) -> Result<u8, Failure> {
    let timeout = match args.timeout {
        Some(given) => given,
        None => {
            let usual = app.file()?.value("timeout", values::duration)?.unwrap_or(Duration::from_secs(60));
            // Whoever comes at the last moment is to have time for the work.
            args.wait.map_or(usual, |wait| usual.max(wait + FOR_THE_WORK))
        }
    };
    if let Some(wait) = args.wait
        && wait >= timeout
    {
        return Err(Failure::usage(format!(
            "--wait {} leaves no time for the work",
            text::millis(wait.as_secs_f64() * 1e3)
        ))
        .hint("it is a part of --timeout: give that more, or leave it out"));
    }
    if args.payload.as_deref() == Some("-") && !app.out.json && !app.quiet && std::io::stdin().is_terminal() {
        app.out.note("type the payload; Ctrl-D ends it");
    }
    // Before the runtime starts: Ctrl-C while stdin is read simply ends the process.
    let payload = values::payload(args.payload.as_deref())?;
    app.block_on(call(app, args, payload, timeout))
}

async fn call(app: &App, args: CallArgs, payload: Box<RawValue>, timeout: Duration) -> Result<u8, Failure> {
    let mut signals = Signals::new()?;
    let start = Instant::now();
    let waiting = Waiting::start(app, "looking for the way into the mesh");
    let mut way = tokio::select! {
        way = mesh::any(app, &args.peer, timeout) => way?,
        () = signals.next() => return Err(Failure::interrupted()),
    };
    let left = timeout.saturating_sub(start.elapsed()).max(Duration::from_millis(1));
    let name = args.capability.clone();
    // Who calls what the node of this home provides, means it. A ping to oneself tells nothing, unless it is named.
    let meant = args.to.is_some() || !BUILT_IN.contains(&args.capability.as_str());
    let request = Request {
        payload,
        to: args.to,
        via: args.via,
        once: args.once,
        timeout_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        stream: args.stream,
        local: way.is_of_a_home() && meant,
        progress: waiting.is_seen(),
        wait_ms: args.wait.map_or(0, |wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        capability: args.capability,
    };
    let mut seq = 0u64;
    let asked = tokio::select! {
        asked = way.ask_and_watch(op::CALL, &request, |chunk| {
            waiting.hide();
            let printed = if app.out.json {
                app.out.json(&BTreeMap::from([("chunk", to_raw(&seq)?), ("data", chunk)]))
            } else {
                app.out.payload_line(&chunk)
            };
            seq += 1;
            printed
        }, |progress| waiting.say(render::progress(&name, &progress))) => asked,
        () = signals.next() => Err(Failure::interrupted()),
    };
    drop(waiting);
    // In any case: hanging up cancels what is still running, and our node says goodbye after that.
    way.close().await;
    let outcome = match asked {
        Ok(outcome) => outcome,
        Err(failure) => {
            if args.trace {
                app.out.note(&render::trace(&json!(failure.detail)));
            }
            return Err(failure);
        }
    };
    if args.trace {
        app.out.note(&render::trace(&mesh::value(&outcome)?));
    }
    if app.out.json {
        app.out.json(&outcome)?;
    } else {
        app.out.payload(&payload_of(&outcome)?)?;
    }
    Ok(OK)
}

fn to_raw(value: &u64) -> Result<Box<RawValue>, Failure> {
    to_raw_value(value).map_err(|e| Failure::new(e.to_string()))
}

/// The payload in an outcome, digit for digit.
pub(super) fn payload_of(outcome: &RawValue) -> Result<Box<RawValue>, Failure> {
    let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(outcome.get())
        .map_err(|e| Failure::new(format!("the node's answer can't be read: {e}")).exit(NOT_DELIVERED))?;
    members.remove("payload").ok_or_else(|| Failure::new("the node's answer has no payload"))
}
