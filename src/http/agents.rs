//! Others: who can do what, who is connected, and whether an agent is there.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{InPath, Params, seconds, timeout};
use super::problem::Problem;
use super::{Api, problems, schemas};
use crate::agent::reach::Reach;
use crate::error::Attempt;
use crate::identity::NodeId;
use crate::info::{ConfiguredPeer, FoundNode, PeerInfo, Route};
use crate::node::Timings;

/// The longest search.
const MAX_SEARCH: Duration = Duration::from_secs(30);

/// How long a wake may take, unless said otherwise, and at most.
const WAKE: Duration = Duration::from_secs(20);
const MAX_WAKE: Duration = Duration::from_secs(300);

/// Whom to look for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// What they can do. Default: everybody.
    #[param(value_type = schemas::MaybeName, required = false, inline, example = "summarize")]
    capability: Option<String>,
    /// How long to ask the mesh, in seconds. Default: 0, only what is known here.
    #[param(value_type = f64, required = false, minimum = 0, maximum = 30)]
    wait_s: Option<f64>,
}

/// Who was found, and how.
#[derive(Serialize, ToSchema)]
pub(super) struct Agents {
    /// This node first, then by name.
    #[schema(value_type = Vec<schemas::Agent>)]
    agents: Vec<FoundNode>,
    /// What was tried, in order.
    #[schema(value_type = Vec<schemas::Attempt>)]
    tried: Vec<Attempt>,
}

/// Who can do what. How each agent is reached, as its own node saw it, is in the capability's `details.reach`.
#[utoipa::path(
    get, path = "/v1/agents", tag = "agents",
    params(Wanted),
    responses((status = 200, description = "Who was found.", body = Agents), problems::QueryProblems)
)]
pub(super) async fn find(State(api): State<Api>, Params(wanted): Params<Wanted>) -> Result<Json<Agents>, Problem> {
    let wait = seconds("wait_s", wanted.wait_s, Duration::ZERO, MAX_SEARCH)?;
    let wait = (!wait.is_zero()).then_some(wait);
    let search = api.service().node().search(wanted.capability.as_deref().unwrap_or_default(), wait).await?;
    Ok(Json(Agents { agents: search.nodes, tried: search.tried }))
}

/// Whom this node is connected to.
#[derive(Serialize, ToSchema)]
pub(super) struct Peers {
    /// Those connected, and those reached through a tracker.
    #[schema(value_type = Vec<schemas::Peer>)]
    peers: Vec<PeerInfo>,
    /// Those that were configured and are not connected.
    #[schema(value_type = Vec<schemas::MissingPeer>)]
    missing: Vec<ConfiguredPeer>,
}

/// Whom this node is connected to.
#[utoipa::path(
    get, path = "/v1/peers", tag = "agents",
    responses((status = 200, description = "The peers.", body = Peers))
)]
pub(super) async fn peers(State(api): State<Api>) -> Json<Peers> {
    let node = api.service().node();
    let peers = node.peers().into_iter().chain(node.contacts()).collect();
    let missing = node.configured_peers().into_iter().filter(|peer| !peer.connected).collect();
    Json(Peers { peers, missing })
}

/// How long it may take.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Patience {
    /// How long the whole way there and back may take, in seconds. Default: 20.
    #[param(value_type = f64, required = false, exclusive_minimum = 0, maximum = 300)]
    timeout_s: Option<f64>,
}

/// How an agent was found to be.
#[derive(Serialize, ToSchema)]
pub(super) struct Awake {
    /// The capability.
    capability: String,
    /// How its agent is reached, as its node saw it just now.
    #[schema(value_type = schemas::Reach)]
    reach: Reach,
    /// How long its node took to find out, in milliseconds.
    agent_ms: f64,
    /// The node that answered.
    #[schema(value_type = String)]
    responder: NodeId,
    /// Its name.
    responder_name: String,
    /// Which way the answer came.
    #[schema(value_type = String)]
    route: Route,
    /// How many links away it is.
    hops: u32,
    /// How long each step took, in milliseconds from the beginning.
    #[schema(value_type = schemas::Timings)]
    timings: Timings,
    /// What was tried, in order.
    #[schema(value_type = Vec<schemas::Attempt>)]
    tried: Vec<Attempt>,
}

/// Asks the agent behind a capability of a node for a sign of life, all the way there and back.
#[utoipa::path(
    get, path = "/v1/wake/{node}/{capability}", tag = "agents",
    params(
        ("node" = inline(schemas::Name), Path, description = "The node: its id, the beginning of its id, or its name."),
        ("capability" = inline(schemas::Name), Path, description = "The capability."),
        Patience,
    ),
    responses((status = 200, description = "How it is.", body = Awake), problems::WakeProblems)
)]
pub(super) async fn wake(
    State(api): State<Api>,
    InPath((node, capability)): InPath<(String, String)>,
    Params(patience): Params<Patience>,
) -> Result<Json<Awake>, Problem> {
    let timeout = timeout("timeout_s", patience.timeout_s, WAKE, MAX_WAKE)?;
    let woken = api.service().wake(&node, &capability, timeout).await?;
    let (outcome, answer) = (woken.outcome, woken.answer);
    Ok(Json(Awake {
        capability: answer.capability,
        reach: answer.reach,
        agent_ms: answer.agent_ms,
        responder: outcome.responder,
        responder_name: outcome.responder_name,
        route: outcome.route,
        hops: outcome.hops,
        timings: outcome.timings,
        tried: outcome.tried,
    }))
}
