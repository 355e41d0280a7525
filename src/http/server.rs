//! The listener: connections, their bounds and their end.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Api, Guard, Token, TokenError, token};
use crate::private_file;
use crate::service::Service;

/// The most connections at once: 16,384. Ten thousand agents may wait for a task, each on its own.
const MAX_CONNECTIONS: usize = 16 * 1024;

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long the head of a request may take, and how long a connection may be without one.
const HEAD: Duration = Duration::from_secs(30);

/// The most bytes of a head.
const MAX_HEAD: usize = 32 * 1024;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// How long connections have to finish what they are at when the node stops.
const PARTING: Duration = Duration::from_secs(2);

/// How long nobody is let in after the system had no room for a connection.
const NO_ROOM: Duration = Duration::from_millis(100);

/// The most bytes of a file of certificates or of a key.
const MAX_PEM: u64 = 256 * 1024;

/// Said to who comes when there is no room.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 141\r\n\r\n{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
    \"detail\":\"too many connections\",\"code\":\"OVERLOADED\",\"retry_after_s\":1.0}\r\n\r\n";

/// Where and how it listens.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where.
    pub(crate) listen: SocketAddr,
    /// By which names it may be called, beside localhost and its address.
    pub(crate) hosts: Vec<String>,
    /// The files of the certificate chain and its key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
}

/// Why it is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// There is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The address can't be had.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The certificate or its key can't be used.
    #[error("{0}: {1}")]
    Tls(PathBuf, String),
}

/// The API, being served. Dropped, it ends at once.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    stop: CancellationToken,
    running: AbortOnDropHandle<()>,
}

impl Server {
    /// Serves the API from now on.
    pub(crate) async fn start(home: &Path, settings: &Settings, service: Arc<Service>) -> Result<Self, ServeError> {
        let api = |guard: Guard, url: &str, stop: CancellationToken| super::router(Api::new(service, stop), guard, url);
        Self::open(home, token::NAME, settings, api).await
    }

    /// Serves what `router` makes, to whom the guard lets in. The token is in this file of the home.
    pub(crate) async fn open(
        home: &Path,
        token: &'static str,
        settings: &Settings,
        router: impl FnOnce(Guard, &str, CancellationToken) -> Router,
    ) -> Result<Self, ServeError> {
        let tls = match &settings.tls {
            Some((chain, key)) => Some(acceptor(chain, key)?),
            None => None,
        };
        let secret = Token::load_or_create(home, token)?;
        let listening = async {
            let listener = TcpListener::bind(settings.listen).await?;
            let addr = listener.local_addr()?;
            Ok((listener, addr))
        };
        let (listener, addr) = listening.await.map_err(|e| ServeError::Listen(settings.listen, e))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = match settings.hosts.first().filter(|_| addr.ip().is_unspecified()) {
            Some(name) => format!("{scheme}://{name}:{}", addr.port()),
            None => format!("{scheme}://{addr}"),
        };
        let stop = CancellationToken::new();
        let guard = Guard::new(secret, token, addr, &settings.hosts);
        let router = router(guard, &url, stop.clone());
        let running = tokio::spawn(accept(listener, tls, router, stop.clone()));
        Ok(Self { url, stop, running: AbortOnDropHandle::new(running) })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Ends it: whoever waits is told, and what is being answered is answered, within a moment.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        // What doesn't end by then is dropped.
        drop(tokio::time::timeout(PARTING, self.running).await);
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Of one connection that is gone already, or of the whole system: then others have to end first.
                tracing::warn!(%error, "the HTTP API can't let a connection in");
                tokio::time::sleep(NO_ROOM).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            if tls.is_none() {
                // As far as that goes at once: nobody waits for it.
                drop(tcp.try_write(FULL));
            }
            continue;
        };
        let (tls, router, stop) = (tls.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            connection(tcp, tls, router, &stop).await;
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(tcp: TcpStream, tls: Option<TlsAcceptor>, router: Router, stop: &CancellationToken) {
    // Answers are small, and somebody waits for each.
    drop(tcp.set_nodelay(true));
    match tls {
        None => requests(tcp, router, stop).await,
        Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(tcp)).await {
            Ok(Ok(stream)) => requests(stream, router, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the HTTP API failed"),
            Err(_) => tracing::debug!("a TLS handshake with the HTTP API took too long"),
        },
    }
}

async fn requests<S>(stream: S, router: Router, stop: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the HTTP API ended early");
    }
}

/// TLS with that certificate.
fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor, ServeError> {
    let failed = |path: &Path, why: String| ServeError::Tls(path.to_owned(), why);
    let read = |path: &Path| match private_file::read_bounded(path, MAX_PEM) {
        Ok(Some(bytes)) => Ok(zeroize::Zeroizing::new(bytes)),
        Ok(None) => Err(failed(path, "there is no such file".to_owned())),
        Err(e) => Err(failed(path, e.to_string())),
    };
    let shown: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(&read(chain)?).collect();
    let shown = shown.map_err(|e| failed(chain, format!("it is no chain of certificates in PEM: {e}")))?;
    if shown.is_empty() {
        return Err(failed(chain, "there is no certificate in PEM in it".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|e| failed(key, format!("there is no key in PEM in it: {e}")))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(chain, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(shown, secret)
        .map_err(|e| failed(key, format!("it does not go with the certificate in {}: {e}", chain.display())))?;
    let mut config = config;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_when_it_is_full_is_as_long_as_it_says() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{} bytes", body.len());
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(problem["code"], "OVERLOADED");
    }
}
