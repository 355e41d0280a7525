//! `elo init`: a new identity.

use clap::Args;
use serde_json::json;

use crate::control::connect;
use crate::identity::{Identity, IdentityError};

use super::App;
use super::failure::{Failure, OK};

const AFTER_HELP: &str = "\
Examples:
  elo init              make the key, if there is none
  elo init --force      make a new one; the old key is kept beside it

The key is HOME/identity.seed (PKCS#8 PEM, readable by its owner only). \
`elo serve` makes it as well.

Exit codes: 0 made, 1 there is one already or it can't be made.";

/// Make this home's identity
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct InitArgs {
    /// Replace the key that is there; it is kept as a backup
    #[arg(long)]
    force: bool,
}

pub(super) fn run(app: &App, args: InitArgs) -> Result<u8, Failure> {
    if args.force {
        refuse_under_a_running_node(app)?;
    }
    let (identity, backup) = Identity::create(&app.home, args.force).map_err(|e| match e {
        IdentityError::Exists { .. } => Failure::from(e).hint("`elo init --force` replaces it and keeps a backup"),
        e => e.into(),
    })?;
    let id = identity.id().to_string();
    let backup = backup.map(|path| path.display().to_string());
    if app.out.json {
        app.out.json(&json!({ "node_id": id, "home": app.home.display().to_string(), "backup": backup }))?;
    } else {
        if let Some(backup) = backup {
            app.out.line(&format!("the old key is kept as {backup}"))?;
        }
        app.out.line(&format!("new identity {id} in {}", app.home.display()))?;
    }
    Ok(OK)
}

/// The running node would go on with the old key, and everything about the home would contradict it.
fn refuse_under_a_running_node(app: &App) -> Result<u8, Failure> {
    app.block_on(async {
        match connect(&app.home).await {
            Ok(_) => Err(Failure::new("a node is running with this identity").hint("stop it first: `elo stop`")),
            // No socket to be had means no node.
            Err(_) => Ok(OK),
        }
    })
}
