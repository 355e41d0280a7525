//! `elo stop`: the running node's graceful end.

use clap::Args;
use serde_json::json;

use crate::control::{NoArgs, op};

use super::App;
use super::failure::{Failure, NOT_DELIVERED, OK};
use super::mesh;
use super::waiting::Waiting;

const AFTER_HELP: &str = "\
Example:
  elo stop

Tasks at work get up to 5 seconds. When the command returns, the port and the home are free again.

Exit codes: 0 stopped, 1 no node is running.";

/// Stop the running node gracefully
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StopArgs {}

pub(super) fn run(app: &App, _args: StopArgs) -> Result<u8, Failure> {
    app.block_on(async {
        let mut way = mesh::running(app).await?;
        let waiting = Waiting::start(app, "waiting for the tasks at work");
        let asked = way.ask(op::STOP, &NoArgs {}, |_| Ok(())).await;
        drop(waiting);
        match asked {
            Ok(_) => {}
            // It ended without a word, as it does when somebody else was more impatient.
            Err(failure) if failure.exit == NOT_DELIVERED => {}
            Err(failure) => return Err(failure),
        }
        if app.out.json {
            app.out.json(&json!({ "stopped": true }))?
        } else {
            app.out.line("stopped")?
        }
        Ok(OK)
    })
}
