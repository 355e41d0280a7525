//! Agents outside of the mesh that speak A2A: what they offer, this node provides.
//!
//! [`card`]: what an agent tells of itself; [`client`]: what is sent to it; [`news`]: what it sends back; [`work`]: a task
//! of the mesh as a task of A2A; [`join`]: its skills as this node's capabilities.

mod card;
mod client;
mod join;
mod news;
mod sse;
mod tokens;
mod work;

pub(crate) use join::{Joined, join};
pub(crate) use tokens::{NAME as TOKENS, Tokens};
