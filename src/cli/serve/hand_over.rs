//! A served node gets a new key while it runs: it finishes what it is at, says goodbye, and is back with its new id.

use std::time::Duration;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::App;
use crate::cli::failure::Failure;
use crate::cli::rotate;
use crate::cli::settings::Settings;
use crate::error::Error;
use crate::identity::Identity;
use crate::node::Node;

use super::answer::Agents;
use super::builder;

/// How long the address is waited for when somebody else has it.
const REBIND: Duration = Duration::from_secs(5);

/// How often it is tried meanwhile.
const AGAIN: Duration = Duration::from_millis(100);

/// Gives the home a new key and the node its successor. The error says as well whether the node goes on as it was.
pub(super) async fn to_a_new_key(
    app: &App,
    settings: &Settings,
    agents: &Agents,
    node: &Node,
    passphrase: Option<Zeroizing<String>>,
) -> Result<(Node, Value), (Failure, bool)> {
    // A fault of the settings is told before anything is done.
    drop(builder(&app.home, settings.clone(), agents).map_err(|failure| (failure, true))?);
    let home = app.home.clone();
    // A passphrase takes work.
    let rotated = tokio::task::spawn_blocking(move || Identity::rotate(&home, passphrase.as_ref().map(|p| p.as_str())));
    let rotated = rotated
        .await
        .map_err(|e| (Failure::new(format!("the new key could not be made: {e}")), true))?
        .map_err(|e| (e.into(), true))?;
    node.shutdown().await;
    let deadline = tokio::time::Instant::now() + REBIND;
    loop {
        let builder = builder(&app.home, settings.clone(), agents).map_err(|failure| (failure, false))?;
        match builder.identity(rotated.identity.clone()).start().await {
            Ok(node) => {
                let mut report = rotate::report(&rotated, true);
                report["listen"] = json!(node.listen_addrs());
                return Ok((node, report));
            }
            // Another program may have taken the port in that moment.
            Err(Error::Listen { .. }) if tokio::time::Instant::now() < deadline => tokio::time::sleep(AGAIN).await,
            Err(e) => {
                let failure = Failure::from(e);
                let message = format!("the new key is in place, but the node can't start again: {}", failure.message);
                return Err((Failure { message, ..failure }, false));
            }
        }
    }
}

/// The code of a failure, for the command that asked.
pub(super) fn code(failure: &Failure) -> String {
    failure.detail.get("code").and_then(Value::as_str).unwrap_or("INTERNAL").to_owned()
}
