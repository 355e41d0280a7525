//! `elo mcp`: the mesh as tools for MCP clients, such as Claude Code, Codex and Cursor.
//!
//! `docs/mcp.md` describes it for those who use it. A tool call is one request, or a few, over the control socket of the node
//! that runs in this home ([`link`]): a node that was started anew is found again. [`tools`] says which tools there are and
//! what they take; one file for each group of them does the work. [`refusal`] is how a tool says no, [`http`] the transport
//! beside stdin and stdout.

mod calls;
mod digits;
mod events;
mod http;
mod link;
mod look;
mod refusal;
mod resources;
mod server;
mod stdio;
mod tasks;
mod tools;
mod watch;

pub(crate) use http::{HttpServer, HttpSettings};
pub(crate) use link::Link;
pub(crate) use stdio::serve as serve_stdio;

/// The file with the token of the HTTP transport, in the home.
pub(crate) const TOKEN: &str = "mcp.token";
