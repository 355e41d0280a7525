//! Stands in for the control socket where there are no Unix sockets.

use std::path::Path;

use tokio_util::task::AbortOnDropHandle;

use super::client::Client;
use super::session::Shared;

/// There is no socket here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoorError {
    /// Another node runs here.
    #[error("a node is already running in this home")]
    Running {
        /// Its process id.
        pid: Option<u32>,
    },
    /// No node runs here.
    #[error("no node is running in this home")]
    NotRunning,
    /// Always.
    #[error("talking to a running node is not supported on this system yet: it needs Unix sockets")]
    Unsupported,
}

/// Always fails.
pub(crate) async fn connect(_home: &Path) -> Result<Client, DoorError> {
    Err(DoorError::Unsupported)
}

/// Never made.
#[derive(Debug)]
pub(crate) enum Door {}

impl Door {
    /// Always fails.
    pub(crate) fn open(_home: &Path) -> Result<Self, DoorError> {
        Err(DoorError::Unsupported)
    }

    /// Never called.
    pub(crate) fn path(&self) -> &Path {
        match *self {}
    }

    /// Never called.
    pub(crate) fn serve(&self, _shared: Shared) -> AbortOnDropHandle<()> {
        match *self {}
    }
}
