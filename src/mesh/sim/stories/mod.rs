//! What the mesh is for, told step by step.

mod calls;
mod floods;
mod links;
mod relay;
mod spread;
mod thousand;
mod trackers;
