//! `elo status`: the identity, and the running node.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use crate::control::{NoArgs, op};
use crate::identity::{Identity, IdentityError};

use crate::node::keys;

use super::App;
use super::failure::{FAILED, Failure, OK};
use super::{mesh, render};

const AFTER_HELP: &str = "\
Examples:
  elo status
  elo status --json | jq .node.metrics.peers

Exit codes: 0 a node is running, 1 none is.";

/// Show the identity and the running node's state
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct StatusArgs {}

pub(super) fn run(app: &App, _args: StatusArgs) -> Result<u8, Failure> {
    let identity = match Identity::peek(&app.home) {
        Ok((id, _)) => Some(id.to_string()),
        Err(IdentityError::Missing { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    app.block_on(async {
        let node = match mesh::running_or_none(app).await? {
            Some(mut way) => Some(way.ask(op::STATUS, &NoArgs {}, |_| Ok(())).await?),
            None => None,
        };
        let running = node.is_some();
        if app.out.json {
            let mut object = BTreeMap::from([
                ("identity", json!(identity)),
                ("home", json!(app.home.display().to_string())),
                ("running", json!(running)),
                ("node", json!(null)),
            ]);
            if let Some(node) = node {
                object.insert("node", mesh::value(&node)?);
            }
            app.out.json(&object)?;
        } else {
            let home = app.home.display();
            let void = || {
                let known = keys::listed_in(&app.home.join(keys::NAME)).unwrap_or_default();
                let id = identity.as_deref();
                known.into_iter().any(|s| s["access"] == "revoked" && s["node_id"].as_str() == id)
            };
            match &identity {
                // The node tells its id itself.
                Some(_) if running => {}
                Some(id) => {
                    app.out.line(&format!("identity   {id}"))?;
                    if void() {
                        app.out
                            .line("           revoked: nobody will talk to it (`elo init --force` makes another)")?;
                    }
                }
                None => app.out.line("identity   none yet (`elo init` makes one, and so does `elo serve`)")?,
            }
            app.out.line(&format!("home       {home}"))?;
            match node {
                Some(node) => app.out.block(&render::status(app.out.terminal, &mesh::value(&node)?))?,
                None => app.out.line("node       not running (`elo serve` starts it)")?,
            }
        }
        Ok(if running { OK } else { FAILED })
    })
}
