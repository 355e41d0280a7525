//! The routes, and their description in OpenAPI 3.1, which is made of the same code.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::Paths;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::problem::Details;
use super::problems::{described, meaning};
use super::{Api, agents, calls, events, metrics, node, tasks};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "elo: local HTTP API",
        description = "Agents in any language call, serve and listen through a running `elo serve --http`.",
        license(name = "MIT", identifier = "MIT"),
    ),
    components(schemas(Details)),
    security(("token" = [])),
    tags(
        (name = "calls", description = "Asking others"),
        (name = "tasks", description = "Serving others: offers, and the tasks that come"),
        (name = "events", description = "Events, published and heard"),
        (name = "agents", description = "Who is there"),
        (name = "node", description = "The node itself"),
    ),
)]
struct Description;

/// The routes for everybody, and those for who has the token.
pub(super) fn routes(api: &Api, base_url: &str) -> (Router, Router) {
    let open = OpenApiRouter::with_openapi(Description::openapi()).routes(routes!(node::health));
    let closed = OpenApiRouter::new()
        .routes(routes!(calls::start))
        .routes(routes!(calls::look, calls::cancel))
        .routes(routes!(calls::follow))
        .routes(routes!(tasks::offers))
        .routes(routes!(tasks::offer, tasks::withdraw))
        .routes(routes!(tasks::next))
        .routes(routes!(tasks::reply))
        .routes(routes!(tasks::progress))
        .routes(routes!(events::publish, events::listen))
        .routes(routes!(agents::find))
        .routes(routes!(agents::peers))
        .routes(routes!(agents::wake))
        .routes(routes!(node::status))
        .routes(routes!(metrics::metrics));
    let (open, mut description) = open.split_for_parts();
    let (closed, mut more) = closed.split_for_parts();
    refusals(&mut description.paths, &[400, 403]);
    // What any of them may be refused with.
    refusals(&mut more.paths, &[400, 401, 403, 503]);
    description.merge(more);
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    description.servers = Some(vec![utoipa::openapi::Server::new(base_url)]);
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token in `http.token` in the node's home."))
        .build();
    description.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(token));
    let text = Arc::new(serde_json::to_value(&description).unwrap_or_default());
    let described = get(|State(text): State<Arc<Value>>| async move { Json((*text).clone()) });
    let described = Router::new().route("/openapi.json", described).with_state(text);
    (open.with_state(api.clone()).merge(described), closed.with_state(api.clone()))
}

fn refusals(paths: &mut Paths, statuses: &[u16]) {
    for item in paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            for status in statuses {
                let responses = &mut operation.responses.responses;
                responses.entry(status.to_string()).or_insert_with(|| described(meaning(*status)));
            }
        }
    }
}
