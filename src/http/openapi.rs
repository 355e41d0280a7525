//! The routes, and their description in OpenAPI 3.1, which is made of the same code.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, node};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "elo: local HTTP API",
        description = "Agents in any language call, serve and listen through a running `elo serve --http`.",
        license(name = "MIT", identifier = "MIT"),
    ),
    security(("token" = [])),
    tags(
        (name = "node", description = "The node itself"),
    ),
)]
struct Description;

/// The routes for everybody, and those for who has the token.
pub(super) fn routes(api: &Api, base_url: &str) -> (Router, Router) {
    let open = OpenApiRouter::with_openapi(Description::openapi()).routes(routes!(node::health));
    let closed = OpenApiRouter::new().routes(routes!(node::status));
    let (open, mut description) = open.split_for_parts();
    let (closed, more) = closed.split_for_parts();
    description.merge(more);
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    description.servers = Some(vec![utoipa::openapi::Server::new(base_url)]);
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("The token in `http.token` in the node's home."))
        .build();
    description.components.get_or_insert_default().add_security_scheme("token", SecurityScheme::Http(token));
    let text = serde_json::to_value(&description).unwrap_or_default();
    let described = get(|State(text): State<std::sync::Arc<serde_json::Value>>| async move { Json((*text).clone()) });
    let described = Router::new().route("/openapi.json", described).with_state(std::sync::Arc::new(text));
    (open.with_state(api.clone()).merge(described), closed.with_state(api.clone()))
}
