//! `elo events`: published events, as they come.

use clap::Args;

use crate::control::{EventsArgs as Request, op};

use super::App;
use super::failure::{FAILED, Failure, OK};
use super::{mesh, render, values};

const AFTER_HELP: &str = "\
Examples:
  elo events                     every event
  elo events --type 'task.*'     those whose type begins with `task.`
  elo events --json | jq .data

Runs until Ctrl-C (exit code 0), or until the node stops (1).";

/// Print published events as they come
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct EventsArgs {
    /// The types wanted; * at the end covers every ending
    #[arg(long = "type", value_name = "PATTERN", value_parser = values::name, default_value = "*")]
    pattern: String,
}

pub(super) fn run(app: &App, args: EventsArgs) -> Result<u8, Failure> {
    app.block_on(async {
        let mut way = mesh::running(app).await?;
        let request = Request { pattern: args.pattern };
        let asked = way.ask(op::EVENTS, &request, |event| {
            if app.out.json { app.out.json(&event) } else { app.out.line(&render::event(&mesh::value(&event)?)) }
        });
        tokio::select! {
            ended = asked => match ended {
                Ok(_) => Err(Failure::new("the node has stopped").exit(FAILED)),
                Err(failure) => Err(failure),
            },
            _ = tokio::signal::ctrl_c() => Ok(OK),
        }
    })
}
