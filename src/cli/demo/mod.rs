//! `elo demo`: the main job in one command, on loopback.

mod forged;
mod stage;

use std::cell::Cell;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::info::Route;
use crate::node::Outcome;

use super::App;
use super::failure::{Failure, OK};
use super::output::{Output, Tone};
use super::text;
use stage::Stage;

/// When something hangs, the demo says so rather than hang with it.
const OVERALL: Duration = Duration::from_secs(20);

const AFTER_HELP: &str = "\
Examples:
  elo demo
  elo demo --json | jq .route

Six nodes in this process, on 127.0.0.1: a tracker; an asker and a writer that can't dial each other; a translator \
the asker is connected to; and behind it, three hops from the asker, an archive. Nothing is kept afterwards.

Exit codes: 0 everything happened as it should, 1 something did not (it says what).";

/// See the mesh work, on this machine alone
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct DemoArgs {}

pub(super) fn run(app: &App, _args: DemoArgs) -> Result<u8, Failure> {
    app.block_on(async {
        let report = Report { out: app.out.clone(), step: Cell::new("start") };
        let start = Instant::now();
        let played = tokio::time::timeout(OVERALL, play(&report)).await;
        let played = played.unwrap_or_else(|_| Err(format!("not done within {} s", OVERALL.as_secs()).into()));
        match played {
            Ok(()) => {
                report.end(start.elapsed())?;
                Ok(OK)
            }
            Err(Fault::Printing(failure)) => Err(failure),
            Err(Fault::Step(reason)) => {
                Err(Failure::new(format!("the demo failed at the step {:?}: {reason}", report.step.get()))
                    .hint("run it again with -vv to see what the nodes did"))
            }
        }
    })
}

/// Why the demo ends early.
enum Fault {
    Step(String),
    Printing(Failure),
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Step(reason)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Printing(failure)
    }
}

async fn play(report: &Report) -> Result<(), Fault> {
    let stage = Stage::set().await?;
    let acted = act(report, &stage).await;
    stage.clear().await;
    acted
}

async fn act(report: &Report, stage: &Stage) -> Result<(), Fault> {
    report.line("six nodes: tracker, asker, writer, translator, middle, archive")?;

    report.begin("by capability");
    let outcome = stage.asker.call("translate", json!("good morning")).await.map_err(|e| e.to_string())?;
    expect(&outcome, Route::Direct, 1, &json!("GOOD MORNING"))?;
    report.call(&outcome, "asker -> translator, connected to each other")?;

    report.begin("streamed");
    let mut call = stage.asker.call("count", json!(3)).start().await.map_err(|e| e.to_string())?;
    let mut chunks = Vec::new();
    while let Some(chunk) = call.next_chunk().await {
        chunks.push(chunk);
    }
    let outcome = call.outcome().await.map_err(|e| e.to_string())?;
    expect(&outcome, Route::Direct, 1, &json!("counted"))?;
    if chunks != [json!(1), json!(2), json!(3)] || outcome.chunks != 3 {
        return Err(format!("the parts that came are {chunks:?}").into());
    }
    report.call(&outcome, "asker -> translator, 3 parts before the result")?;

    report.begin("flooded");
    let outcome = stage.asker.call("archive", json!({"year": 1969})).await.map_err(|e| e.to_string())?;
    expect(&outcome, Route::Flood, 3, &json!({"found": {"year": 1969}}))?;
    report.call(&outcome, "asker -> archive, three hops away, found through translator and middle")?;

    report.begin("relayed");
    let outcome = stage.asker.call("write", json!("a poem")).await.map_err(|e| e.to_string())?;
    expect(&outcome, Route::Relay, 2, &json!("wrote a poem"))?;
    if outcome.via != Some(stage.tracker.id()) {
        return Err("it did not come through the tracker".to_owned().into());
    }
    report.call(&outcome, "asker -> writer, through the tracker: neither can dial the other")?;

    report.begin("forged");
    let before = stage.translated();
    let start = Instant::now();
    let code = forged::send(&stage.translator).await?;
    if code != "BAD_SIGNATURE" {
        return Err(format!("the forged task was answered with {code}, not BAD_SIGNATURE").into());
    }
    if stage.translated() != before {
        return Err("the forged task was run".to_owned().into());
    }
    report.refused(&code, start.elapsed(), "a task changed after it was signed; its handler did not run")?;
    Ok(())
}

/// Whether the answer is the right one and came the right way.
fn expect(outcome: &Outcome, route: Route, hops: u32, payload: &serde_json::Value) -> Result<(), String> {
    if outcome.route != route || outcome.hops != hops {
        return Err(format!("the route was {:?} over {} hops, not {route:?} over {hops}", outcome.route, outcome.hops));
    }
    if !outcome.verified {
        return Err("the result's signature was not verified".to_owned());
    }
    if outcome.payload != *payload {
        return Err(format!("the answer was {}, not {payload}", outcome.payload));
    }
    Ok(())
}

/// Tells each step as it succeeds.
struct Report {
    out: Output,
    step: Cell<&'static str>,
}

impl Report {
    fn begin(&self, step: &'static str) {
        self.step.set(step);
    }

    fn line(&self, line: &str) -> Result<(), Failure> {
        if self.out.json { Ok(()) } else { self.out.line(line) }
    }

    fn call(&self, outcome: &Outcome, detail: &str) -> Result<(), Failure> {
        let step = self.step.get();
        if self.out.json {
            return self.out.json(&json!({
                "step": step, "ok": true, "route": outcome.route, "hops": outcome.hops, "via": outcome.via,
                "responder": outcome.responder, "chunks": outcome.chunks, "ms": outcome.timings.total_ms,
                "verified": outcome.verified, "detail": detail,
            }));
        }
        let route = format!("{:?}", outcome.route).to_lowercase();
        let hops = format!("{} hop{}", outcome.hops, if outcome.hops == 1 { "" } else { "s" });
        let time = text::millis(outcome.timings.total_ms);
        self.out
            .toned_line(Tone::Good, &format!("ok  {step:<14} {route:<6} {hops:<7} {time:>8}  signature verified"))?;
        self.out.toned_line(Tone::Dim, &format!("    {detail}"))
    }

    fn refused(&self, code: &str, took: Duration, detail: &str) -> Result<(), Failure> {
        let step = self.step.get();
        let ms = took.as_secs_f64() * 1e3;
        if self.out.json {
            return self.out.json(&json!({ "step": step, "ok": true, "refused": code, "ms": ms, "detail": detail }));
        }
        let time = text::millis(ms);
        self.out.toned_line(Tone::Good, &format!("ok  {step:<14} {:<14} {time:>8}  refused: {code}", "direct"))?;
        self.out.toned_line(Tone::Dim, &format!("    {detail}"))
    }

    fn end(&self, took: Duration) -> Result<(), Failure> {
        let ms = took.as_secs_f64() * 1e3;
        if self.out.json {
            self.out.json(&json!({ "step": "end", "ok": true, "ms": ms }))
        } else {
            self.out.line(&format!("all of it happened, in {}", text::millis(ms)))
        }
    }
}
