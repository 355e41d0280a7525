//! `elo init`: a new identity.

use clap::Args;
use serde_json::json;

use crate::control::connect;
use crate::identity::{Identity, IdentityError};

use super::App;
use super::failure::{Failure, OK};
use super::unlock;

const AFTER_HELP: &str = "\
Examples:
  elo init              make the key, if there is none
  elo init --force      make a new one; the old key is kept beside it
  elo init --passphrase make it and put it under a passphrase

The key is HOME/identity.seed (PKCS#8 PEM, readable by its owner only), or under a passphrase in elo's own form. \
`elo serve` makes it as well.

Exit codes: 0 made, 1 there is one already or it can't be made.";

/// Make this home's identity
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct InitArgs {
    /// Replace the key that is there; it is kept as a backup
    #[arg(long)]
    force: bool,
    /// Put it under a passphrase: asked for, or from ELO_PASSPHRASE or the file that ELO_PASSPHRASE_FILE names
    #[arg(long)]
    passphrase: bool,
}

pub(super) fn run(app: &App, args: InitArgs) -> Result<u8, Failure> {
    if args.force {
        refuse_under_a_running_node(app)?;
    }
    let existing = Identity::peek(&app.home).is_ok();
    let passphrase = match args.passphrase && (args.force || !existing) {
        true => Some(unlock::new_passphrase("ELO_PASSPHRASE")?),
        false => None,
    };
    let created = match &passphrase {
        Some(passphrase) => Identity::create_locked(&app.home, args.force, passphrase),
        None => Identity::create(&app.home, args.force),
    };
    let (identity, backup) = created.map_err(|e| match e {
        IdentityError::Exists { .. } => Failure::from(e).hint("`elo init --force` replaces it and keeps a backup"),
        e => e.into(),
    })?;
    let id = identity.id().to_string();
    let backup = backup.map(|path| path.display().to_string());
    if app.out.json {
        app.out.json(&json!({ "node_id": id, "home": app.home.display().to_string(), "backup": backup, "locked": passphrase.is_some() }))?;
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
