//! `elo find`: who provides a capability.

use std::time::Duration;

use clap::Args;

use crate::control::{FindArgs as Request, op};

use super::App;
use super::failure::{FAILED, Failure, OK};
use super::waiting::Waiting;
use super::{mesh, render, values};

/// The longest the mesh is asked.
const LONGEST: Duration = Duration::from_secs(30);

const AFTER_HELP: &str = "\
Examples:
  elo find                      everybody who is known or answers
  elo find summarise            who provides `summarise`
  elo find --peer 10.0.0.5      through a short-lived node
  elo find summarise --trace    each step, and when it was done
  elo find --json | jq .name    one JSON object a line

Exit codes: 0 found, 1 nobody provides it, 2 wrong usage, 3 no way into the mesh.";

/// Find the nodes that provide a capability
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct FindArgs {
    /// The capability's name [default: any]
    #[arg(value_parser = values::name)]
    capability: Option<String>,
    /// Go through a short-lived node connected to this peer; may be repeated
    #[arg(long, value_name = "[ID@]HOST[:PORT]", value_parser = values::peer, value_delimiter = ',',
        allow_hyphen_values = true)]
    peer: Vec<String>,
    /// How long to ask the mesh: 500ms, 2s (at most 30s)
    #[arg(long, value_name = "TIME", value_parser = values::duration, default_value = "2s")]
    timeout: Duration,
    /// Tell on stderr what was tried, and when
    #[arg(long)]
    trace: bool,
}

pub(super) fn run(app: &App, args: FindArgs) -> Result<u8, Failure> {
    if args.timeout > LONGEST {
        return Err(
            Failure::usage("--timeout is longer than 30s").hint("the answers come within seconds; ask again later")
        );
    }
    app.block_on(async {
        tokio::select! {
            done = find(app, args) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
        }
    })
}

async fn find(app: &App, args: FindArgs) -> Result<u8, Failure> {
    let waiting = Waiting::start(app, "asking the mesh");
    // Connecting has its own time: a peer that is slow to connect should not use up the search.
    let mut way = mesh::any(app, &args.peer, Duration::from_secs(5)).await?;
    let request = Request {
        capability: args.capability.clone().unwrap_or_default(),
        wait_ms: u64::try_from(args.timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let mut found = Vec::new();
    let done = way
        .ask(op::FIND, &request, |item| {
            found.push(mesh::value(&item)?);
            Ok(())
        })
        .await;
    drop(waiting);
    // A node made for this command is nobody to be found.
    let home = way.is_of_a_home();
    way.close().await;
    let done = done?;
    if args.trace {
        app.out.note(&render::trace(&mesh::value(&done)?));
    }
    found.retain(|node| home || node["found"] != "self");
    if app.out.json {
        found.iter().try_for_each(|node| app.out.json(node))?;
    }
    match &args.capability {
        Some(capability) if found.is_empty() => Err(Failure::new(format!("nobody provides {capability:?}"))
            .code("NO_PEER")
            .exit(FAILED)
            .hint("`elo find` shows who is there and what they provide")),
        _ if app.out.json => Ok(OK),
        _ => {
            app.out.block(&render::nodes(app.out.terminal, &found))?;
            Ok(OK)
        }
    }
}
