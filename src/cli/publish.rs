//! `elo publish`: tells whoever is interested.

use clap::Args;

use crate::control::{PublishArgs as Request, op};

use super::App;
use super::failure::{Failure, OK};
use super::{mesh, values};

const AFTER_HELP: &str = "\
Examples:
  elo publish task.done '{\"id\": 7}'
  elo publish note 'the build is green'
  make 2>&1 | elo publish build.log -

Nodes whose interests cover the type get it; there is no acknowledgement.

Exit codes: 0 published, 1 failed or no node is running, 2 wrong usage.";

/// Publish an event to the nodes interested in its type
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PublishArgs {
    /// The event's type, such as task.done
    #[arg(value_name = "TYPE", value_parser = values::name)]
    event_type: String,
    /// JSON, else text; - reads stdin [default: null]
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
}

pub(super) fn run(app: &App, args: PublishArgs) -> Result<u8, Failure> {
    let data = values::payload(args.data.as_deref())?;
    app.block_on(async {
        let request = Request { event_type: args.event_type, data };
        let mut way = mesh::running(app).await?;
        let published = way.ask(op::PUBLISH, &request, |_| Ok(())).await?;
        if app.out.json {
            app.out.json(&published)?;
        } else {
            let published = mesh::value(&published)?;
            app.out.line(&format!("published {}", published["id"].as_str().unwrap_or_default()))?;
        }
        Ok(OK)
    })
}
