//! What the mesh is for, told step by step.

mod calls;
mod links;
mod punch;
mod relay;
mod spread;
