//! Opens the doors of a served node, and holds them open.

use std::path::Path;
use std::sync::Arc;

use crate::cli::doors::Doors;
use crate::cli::failure::Failure;
use crate::service::Service;

use super::answer::Agents;

/// The doors that are open; dropping it closes them.
#[derive(Default)]
pub(super) struct Open {
    #[cfg(feature = "http")]
    http: Option<crate::http::Server>,
    #[cfg(feature = "webhook")]
    _event_hooks: crate::service::EventHooks,
    #[cfg(feature = "a2a")]
    _a2a: crate::agent::a2a::Joined,
}

impl Open {
    /// What else is to be said when the node is ready: names and values.
    pub(super) fn told(&self) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        #[cfg(feature = "http")]
        told.extend(self.http.as_ref().map(|http| ("http", http.url().to_owned())));
        told
    }

    /// Closes them: whoever waits there is told, within a moment.
    pub(super) async fn close(self) {
        #[cfg(feature = "http")]
        if let Some(http) = self.http {
            http.close().await;
        }
    }
}

/// Opens them.
pub(super) async fn open(home: &Path, doors: &Doors, service: &Arc<Service>, agents: &Agents) -> Result<Open, Failure> {
    let mut open = Open::default();
    #[cfg(feature = "http")]
    if let Some(door) = &doors.http {
        let settings = crate::http::Settings { listen: door.listen, hosts: door.hosts.clone(), tls: door.tls.clone() };
        let server = crate::http::Server::start(home, &settings, Arc::clone(service)).await;
        let server = server.map_err(|e| Failure::new(format!("--http: {e}")))?;
        #[cfg(feature = "webhook")]
        super::webhook::take_replies(&agents.later, server.url(), service);
        open.http = Some(server);
    }
    #[cfg(not(feature = "http"))]
    if doors.http.is_some() {
        return Err(Failure::usage("--http: this program was built without the HTTP API")
            .hint("build it with the feature `http`"));
    }
    #[cfg(feature = "webhook")]
    {
        open._event_hooks = super::webhook::post_events(doors, service)?;
    }
    #[cfg(not(feature = "webhook"))]
    if !doors.event_hooks.is_empty() {
        return Err(Failure::usage("--event-hook: this program was built without web hooks")
            .hint("build it with the feature `webhook`"));
    }
    #[cfg(feature = "a2a")]
    if !doors.a2a_agents.is_empty() {
        use crate::agent::a2a::{Tokens, join};
        let told = |why: String| Failure::usage(format!("--a2a-agent: {why}"));
        let tokens = Tokens::load(home).map_err(told)?;
        open._a2a = join(&doors.a2a_agents, &tokens, service).map_err(told)?;
    }
    #[cfg(not(feature = "a2a"))]
    if !doors.a2a_agents.is_empty() {
        return Err(
            Failure::usage("--a2a-agent: this program was built without A2A").hint("build it with the feature `a2a`")
        );
    }
    let _ = (home, service, agents);
    Ok(open)
}
