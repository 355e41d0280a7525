//! What goes through trackers sealed, over real sockets: everything that can be said of a task, and trackers that would
//! rather read it.
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod batches;
mod evil;
#[path = "../mesh/mod.rs"]
mod mesh;
mod tampering;
mod whole;
