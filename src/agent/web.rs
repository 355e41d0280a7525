//! The client that speaks HTTP to agents.

use std::sync::Once;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

/// How long a connection may take to come about. A host that is there answers within a fraction of it.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);

/// Connections to one agent that are kept for the next request, and for how long: less than servers usually keep theirs, so
/// that few requests meet one that is being closed.
const IDLE: usize = 64;
const IDLE_FOR: Duration = Duration::from_secs(20);

/// A client that goes where it is told and nowhere else: it follows no redirect, asks no proxy of the environment, and keeps
/// nothing from one request to the next but connections. Certificates are checked against those that the system trusts,
/// or those in the file named by `SSL_CERT_FILE`; `https` says whether any will be met.
pub(crate) fn client(https: bool) -> Result<Client, String> {
    static PROVIDER: Once = Once::new();
    // The library's default, which nothing else here relies on; somebody else's choice stands.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let prepared = || -> ClientBuilder {
        Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(IDLE)
            .pool_idle_timeout(IDLE_FOR)
            .user_agent(concat!("elo/", env!("CARGO_PKG_VERSION")))
    };
    // Without https the system's certificates are not looked for: a small container has none.
    let builder = if https { prepared() } else { prepared().tls_certs_only([]) };
    builder.build().map_err(|error| {
        format!(
            "https can't be spoken here: {}; install the system's CA certificates, or name a file of them in SSL_CERT_FILE",
            innermost(&error)
        )
    })
}

/// What is at the bottom of an error, without the URL that those above it may tell.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut bottom = error;
    while let Some(deeper) = bottom.source() {
        bottom = deeper;
    }
    match bottom.downcast_ref::<reqwest::Error>() {
        // Nothing is under it, and its own text names the URL.
        Some(error) if error.is_timeout() => "it took too long".to_owned(),
        Some(_) => "the request can't be made".to_owned(),
        None => bottom.to_string(),
    }
}
