//! `elo wake`: asks an agent for a sign of life, through the whole path.

use std::time::Duration;

use clap::Args;

use crate::control::{WakeArgs as Request, op};

use super::App;
use super::failure::{Failure, NOT_DELIVERED, OK};
use super::waiting::Waiting;
use super::{mesh, render, values};

const AFTER_HELP: &str = "\
Examples:
  elo wake box review              is the agent behind `review` on box there?
  elo wake box review --json       each step's time, for a program
  elo wake box review --peer 10.0.0.5    through a short-lived node

A probe goes to the node and on to its agent: a program is looked for, a web hook is asked, an agent that comes for its \
tasks is there if it was heard of within half a minute. No task is run.

Exit codes: 0 the agent is there, 1 failed (or the node does not provide that), 2 wrong usage, 3 the node can't be reached, \
or its agent is away, 4 the node did not answer in time, 130 interrupted.";

/// Ask an agent for a sign of life, and see how long each step takes
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct WakeArgs {
    /// The node: its name, its id or the beginning of it
    #[arg(value_name = "NODE", value_parser = values::node, allow_hyphen_values = true)]
    node: String,
    /// The capability whose agent is asked
    #[arg(value_parser = values::name)]
    capability: String,
    /// Go through a short-lived node connected to this peer; may be repeated
    #[arg(long, value_name = "[ID@]HOST[:PORT]", value_parser = values::peer, value_delimiter = ',',
        allow_hyphen_values = true)]
    peer: Vec<String>,
    /// How long that may take: 500ms, 10s
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "10s")]
    timeout: Duration,
}

pub(super) fn run(app: &App, args: WakeArgs) -> Result<u8, Failure> {
    app.block_on(async {
        tokio::select! {
            done = wake(app, args) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        }
    })
}

async fn wake(app: &App, args: WakeArgs) -> Result<u8, Failure> {
    let waiting = Waiting::start(app, "waiting for a sign of life");
    let mut way = mesh::any(app, &args.peer, args.timeout).await?;
    let request = Request {
        node: args.node,
        capability: args.capability,
        timeout_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let woken = way.ask(op::WAKE, &request, |_| Ok(())).await;
    drop(waiting);
    way.close().await;
    let woken = woken?;
    let told = mesh::value(&woken)?;
    if app.out.json {
        app.out.json(&woken)?;
    } else {
        app.out.block(&render::wake(app.out.terminal, &told))?;
    }
    let reach = &told["agent"]["reach"];
    match reach["ok"] == false || reach["by"] == "nobody" {
        true => {
            let note = reach["note"].as_str().filter(|note| !note.is_empty()).map(|note| format!(": {note}"));
            let message = format!("the agent behind {:?} is away{}", request.capability, note.unwrap_or_default());
            let failure = Failure::new(message).code("AGENT_AWAY").exit(NOT_DELIVERED);
            Err(failure.hint("`elo call --wait 10m` waits for it"))
        }
        false => Ok(OK),
    }
}
