//! Doors for the benches of what lies inside. Not part of the API.

pub use crate::info::Source;
pub use crate::mesh::{Action, Arrival, CallEvent, CallSpec, Config, ConnId, How, Now, State, TaskId, TaskKey, What};
pub use crate::wire::TrackerRole;
