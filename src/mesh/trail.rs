//! The way of a message about a task: what answers it goes back the same way.

use super::sealing::Seal;
use crate::identity::NodeId;

/// The way of a message, here or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trail {
    /// Through that tracker. `None`: over the connection of who signed it.
    pub via: Option<NodeId>,
    /// How it was sealed; and how what goes back is, should a tracker pass it on.
    pub seal: Seal,
}

impl Trail {
    /// Over its signer's own connection. What goes back is sealed as its record says, if that connection is gone.
    pub const DIRECT: Self = Self { via: None, seal: Seal::ByRecord };

    /// Through a tracker that could read it.
    pub fn open(tracker: NodeId) -> Self {
        Self { via: Some(tracker), seal: Seal::Plain }
    }
}
