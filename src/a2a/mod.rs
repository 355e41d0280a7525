//! The A2A gateway: any client of the Agent2Agent protocol, version 1.0, calls any agent of the mesh.
//!
//! `docs/a2a.md` describes it for those who use it. [`target`]: whom a path names; [`cards`]: what is told of agents;
//! [`methods`]: what may be asked for; [`rpc`] and [`rest`]: the two bindings; [`parts`] and [`view`]: messages and tasks
//! of A2A as payloads and calls of the mesh, and back.

mod cards;
mod fault;
mod methods;
pub(crate) mod parts;
mod push;
mod rest;
mod rpc;
mod stream;
mod target;
mod tasks;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use crate::http::Guard;
use crate::service::Service;
use push::Sender;
use tasks::Tasks;

/// Where a card is, below the base of its agent.
pub(crate) const CARD_PATH: &str = "/.well-known/agent-card.json";

/// The name of the member of a message's or a request's metadata that says what is asked for, where the path doesn't.
pub(crate) const CAPABILITY: &str = "elo.capability";

/// The one that names the node.
const NODE: &str = "elo.node";

/// How long the answer may take, and how long an agent that is away may be waited for, in seconds.
pub(crate) const TIMEOUT: &str = "elo.timeout_s";
const WAIT: &str = "elo.wait_s";

/// Set on the artifact of what came before the result: whoever takes both would have it twice.
pub(crate) const CHUNKS: &str = "elo.chunks";

/// What every endpoint has at hand.
#[derive(Debug)]
struct Gateway {
    service: Arc<Service>,
    guard: Arc<Guard>,
    /// Where others find it, unless they name it otherwise.
    base_url: String,
    tasks: Tasks,
    sender: Sender,
    stopping: CancellationToken,
}

/// The routes for everybody, and those for who has the token.
pub(crate) fn routes(
    service: &Arc<Service>,
    guard: &Arc<Guard>,
    base_url: &str,
    stopping: &CancellationToken,
) -> (Router, Router) {
    let gateway = Arc::new(Gateway {
        service: Arc::clone(service),
        guard: Arc::clone(guard),
        base_url: base_url.to_owned(),
        tasks: Tasks::default(),
        sender: Sender::new(service),
        stopping: stopping.clone(),
    });
    let open = Router::new()
        .route(CARD_PATH, get(cards::of_this_node))
        .route("/a2a/.well-known/agent-card.json", get(cards::of_this_node))
        .route("/a2a/{agent}/.well-known/agent-card.json", get(cards::of_an_agent))
        .with_state(Arc::clone(&gateway));
    let rest = rest::routes();
    let closed = Router::new()
        .route("/a2a", post(rpc::of_this_node))
        .route("/a2a/{agent}", post(rpc::of_an_agent))
        .nest("/a2a/v1", rest.clone())
        .nest("/a2a/{agent}/v1", rest)
        .with_state(gateway);
    (open, closed)
}
