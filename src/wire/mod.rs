//! What goes over the wire.

mod caps;

pub use caps::{Capability, CapabilityKind, Caps, is_name, matches_pattern};
