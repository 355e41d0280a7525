//! `elo peers`: who is connected to the running node.

use clap::Args;

use crate::control::{NoArgs, op};

use super::App;
use super::failure::{Failure, OK};
use super::{mesh, render};

const AFTER_HELP: &str = "\
Examples:
  elo peers
  elo peers --json | jq .node_id
  elo peers --json | jq 'select(.connected == false)'

Configured peers (--peer) that are not connected are listed below the others, with the reason that the last dial \
failed for and when they are dialled next; in JSON they have \"connected\": false.

Exit codes: 0 success, 1 no node is running.";

/// List the peers connected to the running node
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PeersArgs {}

pub(super) fn run(app: &App, _args: PeersArgs) -> Result<u8, Failure> {
    app.block_on(async {
        let peers = mesh::running(app).await?.list(op::PEERS, &NoArgs {}).await?;
        if app.out.json {
            peers.iter().try_for_each(|peer| app.out.json(peer))?;
        } else if peers.is_empty() {
            app.out.line("no peers are connected")?;
        } else {
            app.out.block(&render::peers(app.out.terminal, &peers))?;
        }
        Ok(OK)
    })
}
