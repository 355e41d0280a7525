//! `elo publish`: tells whoever is interested.

use clap::Args;

use crate::control::{PublishArgs as Request, op};
use crate::identity::NodeId;

use super::App;
use super::failure::{Failure, OK};
use super::{mesh, values};

const AFTER_HELP: &str = "\
Examples:
  elo publish task.done '{\"id\": 7}'
  elo publish note 'the build is green'
  make 2>&1 | elo publish build.log -
  elo publish --to ID alarm 'look at this'   nobody else reads it

Nodes whose interests cover the type get it, and those it passes can read it.
With --to only the nodes named get it. There is no acknowledgement.

Exit codes: 0 published, 1 failed, no node runs, or one named is not reached,
2 wrong usage.";

/// Publish an event to the nodes interested in its type
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PublishArgs {
    /// The event's type, such as task.done
    #[arg(value_name = "TYPE", value_parser = values::name)]
    event_type: String,
    /// Only to this node, over a connection or sealed through a tracker; may be repeated
    #[arg(long, value_name = "ID", value_parser = values::node_id, value_delimiter = ',', allow_hyphen_values = true)]
    to: Vec<NodeId>,
    /// JSON, else text; - reads stdin [default: null]
    #[arg(allow_negative_numbers = true)]
    data: Option<String>,
}

pub(super) fn run(app: &App, args: PublishArgs) -> Result<u8, Failure> {
    let data = values::payload(args.data.as_deref())?;
    app.block_on(async {
        let request = Request { event_type: args.event_type, data, to: args.to };
        let mut way = mesh::running(app).await?;
        let published = way.ask(op::PUBLISH, &request, |_| Ok(())).await?;
        let told = mesh::value(&published)?;
        if app.out.json {
            app.out.json(&published)?;
        } else {
            app.out.line(&format!("published {}", told["id"].as_str().unwrap_or_default()))?;
        }
        let missed = told["not_sent"].as_array().map(Vec::as_slice).unwrap_or_default();
        let missed: Vec<String> = missed
            .iter()
            .map(|m| {
                let of = |member: &str| m[member].as_str().unwrap_or_default();
                format!("{}: {}", of("node_id"), of("why"))
            })
            .collect();
        if missed.is_empty() { Ok(OK) } else { Err(Failure::new(format!("not sent to {}", missed.join("; ")))) }
    })
}
