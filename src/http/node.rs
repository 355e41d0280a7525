//! The node itself: whether it is there, and how it is.

use axum::Json;
use axum::extract::State;
use futures_util::FutureExt as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::{Details, Problem};
use super::{Api, schemas};
use crate::info::Status;
use crate::service::Fault;

/// That it is there.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the node answers. Asks for no token, and tells no more.
#[utoipa::path(
    get, path = "/health", tag = "node",
    responses(
        (status = 200, description = "It does.", body = Health),
        (status = 503, description = "It is stopped.", body = Details, content_type = "application/problem+json"),
    ),
    security(())
)]
pub(super) async fn health(State(api): State<Api>) -> Result<Json<Health>, Problem> {
    if api.service().node().stopped().now_or_never().is_some() {
        return Err(Fault::new("STOPPED", "the node is stopped").into());
    }
    Ok(Json(Health { status: "ok" }))
}

/// How agents use this node.
#[derive(Serialize, ToSchema)]
pub(super) struct Doors {
    /// Tasks that wait for an agent.
    tasks_waiting: usize,
    /// Tasks that agents have.
    tasks_leased: usize,
    /// Agents that wait for a task.
    agents_waiting: usize,
    /// Calls under way that are looked after here.
    calls_running: usize,
    /// Calls whose outcome can be asked for, those under way included.
    calls_kept: usize,
    /// Patterns of events that are listened to.
    feeds: usize,
}

/// A node's state.
#[derive(Serialize, ToSchema)]
pub(super) struct NodeState {
    /// The node.
    #[schema(value_type = schemas::Node)]
    node: Status,
    /// How agents use it.
    agents: Doors,
}

/// The node's state.
#[utoipa::path(
    get, path = "/v1/status", tag = "node",
    responses((status = 200, description = "The state.", body = NodeState))
)]
pub(super) async fn status(State(api): State<Api>) -> Json<NodeState> {
    let service = api.service();
    let (tasks_waiting, tasks_leased, agents_waiting) = service.desk().counts();
    let (calls_running, calls_kept) = service.calls().counts();
    let feeds = service.feeds().count();
    let agents = Doors { tasks_waiting, tasks_leased, agents_waiting, calls_running, calls_kept, feeds };
    Json(NodeState { node: service.node().status(), agents })
}
