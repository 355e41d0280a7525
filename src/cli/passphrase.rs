//! `elo passphrase`: sets, changes or takes away the passphrase of the home's key.

use clap::Args;
use serde_json::json;

use crate::identity::Identity;

use super::App;
use super::failure::{Failure, OK};
use super::unlock;

const AFTER_HELP: &str = "\
Examples:
  elo passphrase             asks for it, or for the old one and a new one
  elo passphrase --remove    the key is readable again without

For scripts: ELO_PASSPHRASE_FILE=FILE has the one it is under, ELO_NEW_PASSPHRASE_FILE=FILE the new one, in their first \
lines. ELO_PASSPHRASE and ELO_NEW_PASSPHRASE hold them themselves, where other programs of yours can read them.

A running node goes on: it has its key. Copies of the key made before (backups, identity.seed.bak-*) stay as they are. \
Who forgets the passphrase loses the key.

Exit codes: 0 done, 1 failed, 2 wrong usage, 5 wrong passphrase, or none to be had.";

/// Set, change or remove the key's passphrase
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PassphraseArgs {
    /// Leave the key without a passphrase
    #[arg(long)]
    remove: bool,
}

pub(super) fn run(app: &App, args: PassphraseArgs) -> Result<u8, Failure> {
    unlock::id(app)?;
    let from = unlock::passphrase(&app.home)?;
    let to = if args.remove { None } else { Some(unlock::new_passphrase("ELO_NEW_PASSPHRASE")?) };
    Identity::set_passphrase(&app.home, from.as_ref().map(|p| p.as_str()), to.as_ref().map(|p| p.as_str()))?;
    let copies = copies(app);
    if app.out.json {
        app.out.json(&json!({ "locked": to.is_some(), "unlocked_copies": copies }))?;
        return Ok(OK);
    }
    app.out.line(match (&from, &to) {
        (None, Some(_)) => "the key is under a passphrase now",
        (Some(_), Some(_)) => "the key is under the new passphrase now",
        (Some(_), None) => "the key is under no passphrase any more",
        (None, None) => "the key was under no passphrase",
    })?;
    if to.is_some() && !copies.is_empty() {
        app.out.line(&format!("keys in {} are not: {}", app.home.display(), copies.join(", ")))?;
    }
    Ok(OK)
}

/// The backups in the home that anybody who has them can use.
fn copies(app: &App) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(&app.home) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let backups = names.filter(|name| name.starts_with("identity.seed.bak-"));
    let mut open: Vec<String> = backups.filter(|name| Identity::open(&app.home.join(name), None).is_ok()).collect();
    open.sort();
    open
}
