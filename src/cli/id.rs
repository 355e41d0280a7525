//! `elo id`: this home's node id.

use clap::Args;
use serde_json::json;

use super::App;
use super::failure::{Failure, OK};
use super::unlock;

const AFTER_HELP: &str = "\
Examples:
  elo id
  elo serve --peer \"$(elo --home ~/other id)@10.0.0.5\"   that node and no other

Exit codes: 0 success, 1 there is no key or it can't be used.";

/// Print the node id
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct IdArgs {}

pub(super) fn run(app: &App, _args: IdArgs) -> Result<u8, Failure> {
    let id = unlock::id(app)?.to_string();
    if app.out.json {
        app.out.json(&json!({ "node_id": id }))?
    } else {
        app.out.line(&id)?
    }
    Ok(OK)
}
