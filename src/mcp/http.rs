//! The transport over HTTP: the same server for several clients, behind a token.
//!
//! Who may ask is the HTTP API's business, and so are the bounds on connections and heads: see `src/http`.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::Response;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::server::{Offers, Session};
use crate::http::{Guard, Problem, ServeError, Server, Settings, guarded};

/// Where the server is.
const PATH: &str = "/mcp";

/// The most sessions at once. Each keeps what it sent last, for a client that comes back.
const MAX_SESSIONS: usize = 64;

/// How long a session may be silent: a model that thinks, or waits for its user, says nothing.
const SILENCE: Duration = Duration::from_secs(2 * 3600);

/// The most bytes of a request: a payload of 1 MiB, escaped, with what is around it.
const MAX_BODY: usize = 8 * 1024 * 1024;

/// The header that a request of a session has.
const SESSION: &str = "mcp-session-id";

pub(crate) type HttpSettings = Settings;

/// The server, being served. Dropped, it ends at once.
#[derive(Debug)]
pub(crate) struct HttpServer {
    server: Server,
    stop: CancellationToken,
}

impl HttpServer {
    /// Serves it from now on.
    pub(crate) async fn start(home: &Path, settings: &HttpSettings, link: Link) -> Result<Self, ServeError> {
        let stop = CancellationToken::new();
        let sessions = stop.clone();
        let server = Server::open(home, super::TOKEN, settings, |guard, _, _| router(link, guard, sessions)).await?;
        Ok(Self { server, stop })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("{}{PATH}", self.server.url())
    }

    /// Ends it, and its sessions.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.server.close().await;
    }
}

fn router(link: Link, guard: Guard, stop: CancellationToken) -> Router {
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(SILENCE);
    let sessions = Arc::new(sessions);
    // Hosts and origins are checked before, by the guard.
    let config = StreamableHttpServerConfig::default()
        .with_cancellation_token(stop.clone())
        .with_max_request_body_bytes(MAX_BODY)
        .disable_allowed_hosts();
    let offers = Offers::default();
    let session = move || Ok::<_, io::Error>(Session::new(link.clone(), Arc::clone(&offers), stop.child_token()));
    let service = StreamableHttpService::new(session, Arc::clone(&sessions), config);
    let router = Router::new()
        .route_service(PATH, service)
        .layer(middleware::from_fn_with_state(sessions, with_room))
        .fallback(no_such_path);
    guarded(router, guard)
}

/// No more sessions than there is room for.
async fn with_room(
    State(sessions): State<Arc<LocalSessionManager>>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let begins = request.method() == Method::POST && !request.headers().contains_key(SESSION);
    if begins && sessions.sessions.read().await.len() >= MAX_SESSIONS {
        let detail = format!("{MAX_SESSIONS} sessions are open already: end one, with DELETE {PATH}");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", detail));
    }
    Ok(next.run(request).await)
}

async fn no_such_path(request: Request) -> Problem {
    let detail = format!("there is nothing at {:?}: the MCP server is at {PATH}", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND", detail)
}
