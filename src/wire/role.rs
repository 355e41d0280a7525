//! A node's tracker role, as the member `tracker` says it.

use serde::Serialize;

use super::fields::Fields;
use super::json::Builder;
use super::message::Malformed;

/// Whether a node is a tracker, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackerRole {
    /// Not a tracker.
    #[default]
    None,
    /// Anybody may register.
    Public,
    /// Only nodes on the allowlist may connect.
    Private,
}

impl Fields<'_> {
    /// The role; absent or null: no tracker.
    pub(crate) fn tracker(&self) -> Result<TrackerRole, Malformed> {
        match self.opt_text("tracker")?.as_deref() {
            None => Ok(TrackerRole::None),
            Some("public") => Ok(TrackerRole::Public),
            Some("private") => Ok(TrackerRole::Private),
            Some(_) => Err(self.malformed("tracker: null, \"public\" or \"private\"")),
        }
    }
}

impl Builder {
    /// Writes the role.
    pub(crate) fn tracker(self, role: TrackerRole) -> Self {
        match role {
            TrackerRole::None => self.null("tracker"),
            TrackerRole::Public => self.str("tracker", "public"),
            TrackerRole::Private => self.str("tracker", "private"),
        }
    }
}
