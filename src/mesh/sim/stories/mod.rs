//! What the mesh is for, told step by step.

mod calls;
mod links;
mod reachability;
mod relay;
mod spread;
