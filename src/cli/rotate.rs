//! `elo rotate`: a new key in place of the home's, with a statement of both that the new one took the old one's place.

use clap::Args;
use serde_json::{Value, json};

#[cfg(not(unix))]
use crate::control::DoorError;
use crate::control::{Door, RotateArgs as Request, op};
use crate::identity::{Identity, Rotated};

use super::App;
use super::failure::{Failure, OK};
use super::waiting::Waiting;
use super::{mesh, unlock};

const AFTER_HELP: &str = "\
Example:
  elo rotate

The node gets another id. Others that named the old one (ID@HOST:PORT, --to ID, --allow, deny) follow it to the new one \
when they see the node again, and refuse the old id from then on. The old key is kept as HOME/identity.seed.bak-N: it \
signs no second rotation that anybody who saw the first believes, but to who did not see it it is still the node's. \
`elo revoke --self --key HOME/identity.seed.bak-N` ends it for everybody.

A node that runs in this home takes the new key by itself: it finishes its tasks (up to 5 seconds), says goodbye, and is \
back at the same address with its new id.

A key that others have may have been rotated by them already: then who saw theirs first follows theirs. See \
docs/security.md.

Exit codes: 0 done, 1 failed, 5 wrong passphrase, or none to be had.";

/// Give this node a new key; others follow
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RotateArgs {}

/// What was done, for people and programs.
pub(super) fn report(rotated: &Rotated, restarted: bool) -> Value {
    json!({
        "old": rotated.old,
        "new": rotated.identity.id(),
        "backup": rotated.backup.display().to_string(),
        "restarted": restarted,
    })
}

pub(super) fn run(app: &App, _args: RotateArgs) -> Result<u8, Failure> {
    unlock::id(app)?;
    let passphrase = unlock::passphrase(&app.home)?;
    let done = app.block_on(async {
        if let Some(mut way) = mesh::running_or_none(app).await? {
            let waiting = Waiting::start(app, "waiting for the tasks at work");
            let request = Request { passphrase: passphrase.as_ref().map(|p| p.to_string()) };
            let done = way.ask(op::ROTATE, &request, |_| Ok(())).await;
            drop(waiting);
            return mesh::value(&done?);
        }
        // Nobody starts a node here meanwhile.
        let door = match Door::open(&app.home) {
            Ok(door) => Some(door),
            #[cfg(not(unix))]
            Err(DoorError::Unsupported) => None,
            Err(e) => return Err(e.into()),
        };
        let rotated = Identity::rotate(&app.home, passphrase.as_ref().map(|p| p.as_str()))?;
        drop(door);
        Ok(report(&rotated, false))
    })?;
    if app.out.json {
        app.out.json(&done)?;
    } else {
        let text = |member: &str| done[member].as_str().unwrap_or_default().to_owned();
        app.out.line(&format!("new id {}", text("new")))?;
        app.out.line(&format!("instead of {}, whose key is kept as {}", text("old"), text("backup")))?;
        if done["restarted"] == true {
            app.out.line("the running node has taken it")?;
        }
    }
    Ok(OK)
}
