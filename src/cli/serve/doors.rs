//! Opens the doors of a served node, and holds them open.

use std::path::Path;
use std::sync::Arc;

use crate::cli::doors::Doors;
use crate::cli::failure::Failure;
use crate::service::Service;

/// The doors that are open; dropping it closes them.
#[derive(Default)]
pub(super) struct Open {}

impl Open {
    /// What else is to be said when the node is ready: names and values.
    pub(super) fn told(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Opens them.
pub(super) async fn open(_home: &Path, _doors: &Doors, _service: &Arc<Service>) -> Result<Open, Failure> {
    Ok(Open::default())
}
