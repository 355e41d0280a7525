//! Sockets: the listener, the dialer, and the connections they make.
//!
//! A stream becomes an [`Established`] by [`handshake_inbound`] or [`dial`], and that becomes a [`Connection`]: one task
//! that reads and one that writes, so that two peers that both have much to say never wait for each other. What a
//! connection hears it tells its [`Hooks`], parsed and checked on its own task. Sending only puts a message into the
//! connection's outbox, and never waits for the peer.
//!
//! Between the introductions and the proof the stream becomes TLS when both sides can (`tls`); what lies under the messages from
//! then on only `io` knows.

mod accept;
mod connection;
mod dial;
mod express;
mod handshake;
mod hooks;
mod io;
mod late;
mod long;
mod outbox;
mod places;
mod port;
mod probe;
mod punch;
mod reader;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod writer;

use std::fmt;
use std::sync::Arc;

use crate::identity::Identity;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::mesh::handshake::{LegacyHello, Local, Tls};

pub use accept::accept_loop;
pub use connection::Connection;
pub use dial::dial;
#[cfg(feature = "dht")]
pub use dial::dial_candidate;
pub use handshake::{Established, HandshakeError, handshake_inbound};
pub use hooks::{Heard, Hooks, Refused};
pub use late::{Late, Sealing};
pub use outbox::{Outgoing, SendError};
pub use places::{Place, Places};
pub use port::SharedPort;
pub use probe::probe;
pub use punch::{Punch, punch};
pub use tls::TlsKeys;

/// What the connections of one node have in common.
#[derive(Clone)]
pub struct NetConfig {
    /// The node's key.
    pub identity: Identity,
    /// Its program version.
    pub version: String,
    /// What it can do beyond this version of the protocol.
    pub features: Vec<String>,
    /// A random text that names this run of it.
    pub instance: String,
    /// Its bounds.
    pub limits: Limits,
    /// What its connections hold in memory is counted there.
    pub memory: Arc<Memory>,
    /// Whether connections are encrypted. `features` lists `tls` unless they never are.
    pub tls: Tls,
    /// The node's key, for TLS.
    pub tls_keys: TlsKeys,
    /// Whether nodes of the Python package are admitted, and dialled.
    pub legacy: bool,
    /// What to tell a node of the Python package when dialling it.
    pub legacy_hello: Arc<dyn Fn() -> LegacyHello + Send + Sync>,
    /// The local port of outgoing connections.
    pub port: Arc<SharedPort>,
    /// The time, in UNIX seconds.
    pub unix_now: Arc<dyn Fn() -> i64 + Send + Sync>,
}

impl NetConfig {
    fn local(&self) -> Local<'_> {
        Local {
            identity: &self.identity,
            version: &self.version,
            features: &self.features,
            instance: &self.instance,
            clock_skew_s: self.limits.clock_skew.as_secs(),
            tls: self.tls,
        }
    }

    fn now(&self) -> i64 {
        (self.unix_now)()
    }
}

impl fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetConfig")
            .field("identity", &self.identity)
            .field("instance", &self.instance)
            .field("legacy", &self.legacy)
            .finish_non_exhaustive()
    }
}
