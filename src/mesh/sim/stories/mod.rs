//! What the mesh is for, told step by step.

mod access;
mod calls;
mod clocks;
mod floods;
mod gone;
mod impostors;
mod links;
mod punch;
mod reachability;
mod relay;
mod sealed;
mod spread;
mod thousand;
mod trackers;
