//! The way to the node that runs in this home.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::refusal::Refusal;
use crate::control::{Client, ControlError, DoorError, Reply, connect};

/// Connects to the home's node for each request: a node that was started anew is found again.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    home: PathBuf,
}

impl Link {
    /// To the node of this home.
    pub(crate) fn new(home: &Path) -> Self {
        Self { home: home.to_owned() }
    }

    /// Asks. Dropping what is given hangs up, which ends the request.
    pub(super) async fn ask(&self, op: &str, args: &impl Serialize) -> Result<Client, Refusal> {
        let mut client = connect(&self.home).await.map_err(|e| match e {
            DoorError::NotRunning => Refusal::not_running(&self.home),
            e => Refusal::new("NOT_RUNNING", e.to_string()),
        })?;
        client.ask(op, args).await?;
        Ok(client)
    }

    /// Asks, and gives what ends the answer.
    pub(super) async fn answer(&self, op: &str, args: &impl Serialize) -> Result<Box<RawValue>, Refusal> {
        let mut client = self.ask(op, args).await?;
        loop {
            match client.reply().await? {
                Reply::Done(done) => return Ok(done),
                Reply::Error(error) => return Err(Refusal::from_reply(&error)),
                Reply::Item(_) | Reply::Progress(_) => {}
            }
        }
    }

    /// Asks for a list. Its length is the node's to bound.
    pub(super) async fn list(&self, op: &str, args: &impl Serialize) -> Result<Vec<Value>, Refusal> {
        let mut client = self.ask(op, args).await?;
        let mut items = Vec::new();
        loop {
            match client.reply().await? {
                Reply::Done(_) => return Ok(items),
                Reply::Error(error) => return Err(Refusal::from_reply(&error)),
                Reply::Item(item) => items.push(serde_json::from_str(item.get()).map_err(Refusal::unreadable)?),
                Reply::Progress(_) => {}
            }
        }
    }
}

impl From<ControlError> for Refusal {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Gone => Self::new("NODE_GONE", error.to_string()),
            ControlError::TooLarge(_) => Self::new("TOO_LARGE", error.to_string()),
            other => Self::new("INTERNAL", other.to_string()),
        }
    }
}
