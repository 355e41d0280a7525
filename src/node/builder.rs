//! Setting a node up.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::Error;
use crate::identity::{Identity, NodeId};
use crate::info::Sealing;
use crate::limits::Limits;
use crate::mesh::access::Access;
use crate::mesh::handshake::Tls;
use crate::mesh::policy::Policy;
use crate::wire::Capability;

use super::task::{BoxHandler, boxed};
use super::{Context, Node, Payload, Task, TaskError};

/// Whether and for whom the node is a tracker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tracker {
    /// It is none.
    #[default]
    Off,
    /// For everybody.
    Public,
    /// For the nodes named; others get `bye NOT_ALLOWED`. Peers that this node dials are held to it too.
    Private {
        /// Who may connect.
        allow: Vec<NodeId>,
    },
}

/// How a node finds others on the local network, and is found there.
#[cfg(feature = "lan")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lan {
    pub(crate) interfaces: Vec<String>,
}

#[cfg(feature = "lan")]
impl Lan {
    /// On every interface but loopback; if the node listens on one address, on the interface that has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// On this interface, named or by its address, and on no others than those said so. Loopback counts only when it is
    /// said.
    pub fn interface(mut self, name_or_ip: impl Into<String>) -> Self {
        self.interfaces.push(name_or_ip.into());
        self
    }
}

/// Which Kademlia DHT the node takes part in. Over IPv4 only; it needs the cargo feature `dht`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dht {
    /// None.
    #[default]
    Off,
    /// The mesh's own: joined through the DHT servers that connected peers say they run. A node that can be dialled runs
    /// one as well.
    Mesh,
    /// The one that these nodes are in, each `HOST:PORT` of a DHT server (UDP). With none the node is the first of a new
    /// one. All nodes may have the same list: one
    /// that stands in it joins through those before it.
    Bootstrap(Vec<String>),
    /// The BitTorrent network's, which anybody can read and write: that this node runs, its IP address and, to who guesses
    /// their names, what it provides become public.
    Public,
}

/// Collects a node's settings; made by [`Node::builder`].
#[derive(Default)]
#[must_use = "a node runs when it is started"]
pub struct Builder {
    pub(crate) name: Option<String>,
    pub(crate) identity: Option<Identity>,
    pub(crate) listen: Option<Option<SocketAddr>>,
    pub(crate) advertise: Vec<SocketAddr>,
    pub(crate) peers: Vec<String>,
    pub(crate) caps: Vec<Capability>,
    pub(crate) interests: Vec<String>,
    pub(crate) handlers: Vec<(String, BoxHandler)>,
    pub(crate) default_handler: Option<BoxHandler>,
    pub(crate) handlers_here: bool,
    pub(crate) tracker: Tracker,
    pub(crate) legacy: bool,
    pub(crate) sealing: Sealing,
    pub(crate) tls: Tls,
    pub(crate) port_map: bool,
    pub(crate) dht: Dht,
    pub(crate) dht_port: Option<u16>,
    pub(crate) access: Access,
    pub(crate) access_file: Option<PathBuf>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) serve_only: Option<BTreeSet<NodeId>>,
    pub(crate) limits: Limits,
    pub(crate) remember: Option<PathBuf>,
    pub(crate) statements: Option<PathBuf>,
    #[cfg(feature = "lan")]
    pub(crate) lan: Option<Lan>,
}

impl Builder {
    /// The name shown to people, and by which the node can be called. Default: the first 12 characters of its id.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The node's key. Default: a new one that is forgotten when the node ends.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Where to listen. Default `0.0.0.0:7878`; port 0 takes any free one.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = Some(Some(addr));
        self
    }

    /// Doesn't listen: the node is reached over connections it makes itself, and through trackers.
    pub fn no_listen(mut self) -> Self {
        self.listen = Some(None);
        self
    }

    /// An address others can dial, published instead of those found out. May be said up to 8 times.
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.advertise.push(addr);
        self
    }

    /// A peer to keep connected to, `HOST:PORT` or `NODE_ID@HOST:PORT` (then no other node is accepted there).
    /// It is redialled for ever, with a backoff of 1 s to 60 s.
    pub fn peer(mut self, addr: impl Into<String>) -> Self {
        self.peers.push(addr.into());
        self
    }

    /// Provides an agent of this name.
    pub fn agent(self, name: impl Into<String>) -> Self {
        self.capability(Capability::agent(name))
    }

    /// Provides a model of this name.
    pub fn model(self, name: impl Into<String>) -> Self {
        self.capability(Capability::model(name))
    }

    /// Provides a tool of this name.
    pub fn tool(self, name: impl Into<String>) -> Self {
        self.capability(Capability::tool(name))
    }

    /// Provides a capability, with details.
    pub fn capability(mut self, cap: Capability) -> Self {
        self.caps.push(cap);
        self
    }

    /// Is interested in capabilities and events of this name, or that begin so if it ends in `*`: what providers say
    /// of themselves, and what is published, is then passed on to this node.
    pub fn interest(mut self, pattern: impl Into<String>) -> Self {
        self.interests.push(pattern.into());
        self
    }

    /// Answers tasks for one capability, each on a tokio task of its own. It is not announced by this alone: say
    /// [`agent`](Self::agent), [`model`](Self::model), [`tool`](Self::tool) or [`capability`](Self::capability) as well.
    ///
    /// Handlers run on threads that all nodes of the process share for it: twice as many as there are cores, and at least
    /// 8. What blocks its thread belongs into [`std::thread`] or tokio's `spawn_blocking` all the same: as many handlers that
    /// block as there are threads hold up the others, whose tasks are then refused as `OVERLOADED` after 5 s. Connections,
    /// calls and deadlines go on meanwhile, on a runtime with one thread too. See also
    /// [`handlers_here`](Self::handlers_here).
    pub fn handler<F, Fut, P>(mut self, capability: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Task, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<P, TaskError>> + Send + 'static,
        P: Into<Payload>,
    {
        self.handlers.push((capability.into(), boxed(handler)));
        self
    }

    /// Answers tasks for every announced capability that has no handler of its own.
    pub fn default_handler<F, Fut, P>(mut self, handler: F) -> Self
    where
        F: Fn(Task, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<P, TaskError>> + Send + 'static,
        P: Into<Payload>,
    {
        self.default_handler = Some(boxed(handler));
        self
    }

    /// Runs handlers on the runtime that starts the node, for those that need just that one, as for its paused clock. A handler that blocks then holds up the node as well; on a runtime with one thread, all of it. Default: they
    /// run on threads of their own.
    pub fn handlers_here(mut self) -> Self {
        self.handlers_here = true;
        self
    }

    /// Makes the node a tracker. Default: it is none.
    pub fn tracker(mut self, tracker: Tracker) -> Self {
        self.tracker = tracker;
        self
    }

    /// Admits nodes of the Python package elo-node, as unproven peers. Default: they are refused.
    pub fn legacy(mut self, admit: bool) -> Self {
        self.legacy = admit;
        self
    }

    /// Whether what trackers pass on is sealed. Default: [`Sealing::Preferred`].
    pub fn sealing(mut self, sealing: Sealing) -> Self {
        self.sealing = sealing;
        self
    }

    /// Whether connections are encrypted (TLS 1.3, with the nodes' own keys). Default: [`Tls::Preferred`]. Nodes of the Python
    /// package can't: [`Tls::Required`] doesn't go with [`legacy`](Self::legacy).
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Asks the gateway for a port that leads to this node, by PCP, NAT-PMP or UPnP, and keeps it. Default: it doesn't. What
    /// came of it is in [`Status::port_map`](crate::Status::port_map); failing does not keep the node from starting.
    #[cfg(feature = "port-map")]
    pub fn port_map(mut self, ask: bool) -> Self {
        self.port_map = ask;
        self
    }

    /// Takes part in a DHT, in which this node finds others and is found. Default: [`Dht::Off`].
    pub fn dht(mut self, dht: Dht) -> Self {
        self.dht = dht;
        self
    }

    /// The DHT's UDP port; 0 is any. Default: the number of the TCP port, or any if that is taken.
    pub fn dht_port(mut self, port: u16) -> Self {
        self.dht_port = Some(port);
        self
    }

    /// Whom it lets in. Default: everybody. A [private tracker](Tracker::Private) lets in those it names and those allowed here.
    /// [`Node::set_access`] changes it while the node runs.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// A file with those allowed and denied, on top of what [`access`](Self::access) says: a line is `allow ID  # note`
    /// or `deny ID  # note`. It may be missing. It is watched, and a change counts within seconds. One that can't be used (a line
    /// that is not understood, more than 100000 ids, writable by others, somebody else's) keeps the node from
    /// starting; while the node runs, what the file said before counts on, and [`Status::access`](super::Status::access) tells. So
    /// it is when the file is gone. Default: none.
    pub fn access_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.access_file = Some(path.into());
        self
    }

    /// A rule for who may ask for what. The first whose pattern covers a capability decides; without one, everybody who is
    /// let in may. At most 256.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policies.push(policy);
        self
    }

    /// Serves these nodes and nobody else: all that it provides, `ping` and `health` included. What a
    /// [policy](Self::policy) says counts on top. Others may connect, find each other and be relayed. Said again, it adds.
    /// Default: it serves everybody it lets in.
    pub fn serve_only(mut self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        self.serve_only.get_or_insert_default().extend(nodes);
        self
    }

    /// Other bounds than the default ones: `Limits::default().with(|l| l.max_tasks = 4)`.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Remembers peers from one run to the next in this file: addresses at which this node met somebody are dialled
    /// while fewer than three peers are connected. At most 256 nodes with 4 addresses each. A file that is damaged is put
    /// aside (`.damaged`), one that can't be written is done without. Default: nobody is remembered.
    pub fn remember(mut self, path: impl Into<PathBuf>) -> Self {
        self.remember = Some(path.into());
        self
    }

    /// Remembers from one run to the next in this file which ids were replaced by others and which were revoked: at most
    /// some thousand statements. Without it a run learns that anew, and may take a stolen key's word for it. A file that is
    /// damaged is put aside (`.damaged`), one that can't be written is done without. Default: they are not remembered.
    pub fn remember_keys(mut self, path: impl Into<PathBuf>) -> Self {
        self.statements = Some(path.into());
        self
    }

    /// Announces the node on the local network by multicast DNS, and connects to up to 8 nodes that are announced there.
    /// A node that doesn't listen is not announced; one that listens on loopback only does without, unless that
    /// interface is named. Where there is no multicast the node starts all the same, and [`Status`](super::Status) tells.
    /// Default: it doesn't.
    #[cfg(feature = "lan")]
    pub fn lan(mut self, lan: Lan) -> Self {
        self.lan = Some(lan);
        self
    }

    /// Starts the node. It runs until [`Node::shutdown`], or until every handle to it is dropped.
    ///
    /// # Errors
    ///
    /// The address can't be had ([`Error::Listen`]), a setting or a name is not valid ([`Error::Config`],
    /// [`Error::Invalid`]), or the capabilities don't fit in a record ([`Error::TooLarge`]).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn start(self) -> Result<Node, Error> {
        super::start::start(self).await
    }
}

/// Whether a text may name a capability, an event type, a pattern or a node.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Error> {
    if crate::wire::is_name(name) {
        return Ok(());
    }
    Err(Error::Invalid(format!("{what} has 1 to {} characters and no control characters", crate::limits::MAX_NAME)))
}
