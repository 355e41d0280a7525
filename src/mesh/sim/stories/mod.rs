//! What the mesh is for, told step by step.

mod calls;
mod floods;
mod impostors;
mod links;
mod punch;
mod reachability;
mod relay;
mod sealed;
mod spread;
mod thousand;
mod trackers;
