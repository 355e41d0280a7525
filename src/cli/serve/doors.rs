//! Opens the doors of a served node, and holds them open.

use std::path::Path;
use std::sync::Arc;

use crate::cli::doors::Doors;
use crate::cli::failure::Failure;
use crate::service::Service;

/// The doors that are open; dropping it closes them.
#[derive(Default)]
pub(super) struct Open {
    #[cfg(feature = "webhook")]
    _event_hooks: crate::service::EventHooks,
}

impl Open {
    /// What else is to be said when the node is ready: names and values.
    pub(super) fn told(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Opens them.
pub(super) async fn open(_home: &Path, doors: &Doors, service: &Arc<Service>) -> Result<Open, Failure> {
    #[cfg(not(feature = "webhook"))]
    if !doors.event_hooks.is_empty() {
        return Err(Failure::usage("this elo was built without web hooks").hint("build it with the feature `webhook`"));
    }
    Ok(Open {
        #[cfg(feature = "webhook")]
        _event_hooks: super::webhook::post_events(doors, service)?,
    })
}
