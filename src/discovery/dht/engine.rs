//! One run of `mainline`'s node.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use futures_lite::StreamExt;
use mainline::async_dht::AsyncDht;
use mainline::{Dht, Id, MutableItem};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::own::OwnServer;
use super::{Join, capability_key};
use crate::identity::{Identity, NodeId, verify};
use crate::mesh::Wanted;
use crate::wire::{Compact, item_signing_bytes};

/// How often the port is asked for when it is taken: an earlier run gives it back within 50 ms of its end.
const TRIES: u32 = 20;

/// The wait between two tries.
const RETRY: Duration = Duration::from_millis(50);

/// How long putting something into the DHT may take: finding the nearest nodes, and their answers.
const PUT: Duration = Duration::from_secs(10);

/// How long the thread may take to tell of itself.
const LOOK: Duration = Duration::from_secs(2);

/// How many answers of the DHT wait for the node to look at them. A lookup visits some dozens of servers.
const ANSWERS: usize = 64;

/// `mainline`'s thread has died, or says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the DHT's thread has ended")]
pub(crate) struct Gone;

/// What the DHT names.
#[derive(Debug)]
pub(crate) enum Named {
    /// Addresses.
    Addrs(Vec<SocketAddr>),
    /// What a node says of itself; its signature was checked.
    Node(NodeId, Compact),
}

/// Who keeps what was put into the DHT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// This node's own server.
    pub(crate) here: bool,
    /// Somebody else's.
    pub(crate) there: bool,
}

/// A handle to a running DHT node. The thread ends with the last one.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    dht: AsyncDht,
    /// Its UDP port.
    pub(crate) port: u16,
    /// Whether it was started as a server.
    pub(crate) server: bool,
    /// Whom it was told to join through.
    pub(crate) bootstrap: Vec<SocketAddrV4>,
    bind: Ipv4Addr,
    id: [u8; 20],
}

/// How it is.
#[derive(Debug)]
pub(crate) struct Look {
    /// The nodes in its routing table.
    pub(crate) contacts: Vec<SocketAddrV4>,
    /// Whether it serves.
    pub(crate) server: bool,
}

impl Engine {
    /// Starts it. A port that is taken is waited for, for a second.
    pub(crate) async fn start(join: &Join) -> io::Result<Self> {
        let mut tries = 0;
        let dht = loop {
            match build(join).await {
                Ok(dht) => break dht.as_async(),
                Err(e) if e.kind() == io::ErrorKind::AddrInUse && tries < TRIES => {
                    tries += 1;
                    sleep(RETRY).await;
                }
                Err(e) => return Err(e),
            }
        };
        let asked = dht.clone();
        let info = guarded(LOOK, async move { asked.info().await }).await.map_err(io::Error::other)?;
        Ok(Self {
            dht,
            port: info.local_addr().port(),
            server: join.server,
            bootstrap: join.bootstrap.clone(),
            bind: join.bind,
            id: *info.id().as_bytes(),
        })
    }

    /// The id of this run: a new one each time.
    pub(crate) fn id(&self) -> [u8; 20] {
        self.id
    }

    /// How it is.
    pub(crate) async fn look(&self) -> Result<Look, Gone> {
        let dht = self.dht.clone();
        guarded(LOOK, async move {
            let contacts = dht.to_bootstrap().await;
            let contacts = contacts.iter().filter_map(|c| c.parse().ok()).collect();
            Look { contacts, server: dht.info().await.server_mode() }
        })
        .await
        .map_err(|_| Gone)
    }

    /// Looks for the nodes near this one, and so gets to know those who came. It takes its time; it ends early with the handle.
    pub(crate) fn refresh(&self) -> AbortOnDropHandle<()> {
        /// It asks some dozens of nodes, round after round.
        const PATIENCE: Duration = Duration::from_secs(20);
        let dht = self.dht.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            // Under its own id only: a node that has joined through nobody takes whatever id is looked for as the asker's.
            let find = async { dht.find_node(*dht.info().await.id()).await.len() };
            drop(timeout(PATIENCE, find).await);
        }))
    }

    fn own(&self, ip: Option<Ipv4Addr>) -> Option<OwnServer> {
        let ip = if self.bind.is_unspecified() { ip? } else { self.bind };
        self.server.then_some(OwnServer { ip, port: self.port, id: self.id })
    }

    /// Asks for a capability's addresses or a node's item; the answers come one by one, until there are no more. The end
    /// of the channel's other side ends the asking.
    pub(crate) fn ask(&self, what: Wanted) -> Asking {
        let (sender, answers) = mpsc::channel(ANSWERS);
        let own = self.own(Some(Ipv4Addr::LOCALHOST));
        let dht = self.dht.clone();
        let task = tokio::spawn(async move {
            match what {
                Wanted::Capability(name) => {
                    let key = capability_key(&name);
                    if let Some(own) = own {
                        let addrs = own.addrs(&key).await;
                        give(&sender, Named::Addrs(addrs.into_iter().map(SocketAddr::V4).collect())).await;
                    }
                    let mut stream = dht.get_peers(Id::from(key));
                    while let Some(addrs) = stream.next().await {
                        give(&sender, Named::Addrs(addrs.into_iter().map(SocketAddr::V4).collect())).await;
                    }
                }
                Wanted::Node(node) => {
                    if let Some(own) = own {
                        let target = MutableItem::target_from_key(node.as_bytes(), None);
                        let item = own.item(&node, target.as_bytes()).await;
                        if let Some(compact) = item.and_then(|(seq, value)| Compact::read(&value, seq)) {
                            give(&sender, Named::Node(node, compact)).await;
                        }
                    }
                    let mut stream = dht.get_mutable(node.as_bytes(), None, None);
                    while let Some(item) = stream.next().await {
                        // mainline has checked it, and takes some keys that we don't.
                        let signed = item_signing_bytes(item.seq(), item.value());
                        if item.key() == node.as_bytes()
                            && verify(&node, &signed, item.signature())
                            && let Some(compact) = Compact::read(item.value(), item.seq())
                        {
                            give(&sender, Named::Node(node, compact)).await;
                        }
                    }
                }
            }
        });
        Asking { answers, task: AbortOnDropHandle::new(task) }
    }

    /// Announces that a capability is provided at this host's address, TCP port `port`. `own_ip`: this host's address as
    /// others see it, for its own server. Gives who keeps it.
    pub(crate) async fn announce(&self, name: &str, port: u16, own_ip: Option<Ipv4Addr>) -> Result<Kept, Gone> {
        let key = capability_key(name);
        let here = match self.own(own_ip) {
            Some(own) => own.announce(&key, port).await.is_some(),
            None => false,
        };
        let dht = self.dht.clone();
        guarded(PUT, async move { dht.announce_peer(Id::from(key), Some(port)).await.is_ok() })
            .await
            .or_late(false)
            .map(|there| Kept { here, there })
    }

    /// Puts what this node says of itself under its own key.
    pub(crate) async fn put(
        &self,
        identity: &Identity,
        compact: Compact,
        own_ip: Option<Ipv4Addr>,
    ) -> Result<Kept, Gone> {
        let (node, seq) = (identity.id(), i64::try_from(compact.seq).unwrap_or(i64::MAX));
        let value = compact.write();
        let signature = identity.sign(&item_signing_bytes(seq, &value));
        let item = MutableItem::new_signed_unchecked(*node.as_bytes(), signature, &value, seq, None);
        let here = match self.own(own_ip) {
            Some(own) => own.put(&node, item.target().as_bytes(), seq, &value, &signature).await.is_some(),
            None => false,
        };
        let dht = self.dht.clone();
        guarded(PUT, async move { dht.put_mutable(item, None).await.is_ok() })
            .await
            .or_late(false)
            .map(|there| Kept { here, there })
    }
}

/// Starts `mainline`'s thread, once its port is known to be free: a thread that can't have it may be gone before its maker
/// has asked it, who then panics.
async fn build(join: &Join) -> io::Result<Dht> {
    drop(UdpSocket::bind((join.bind, join.port))?);
    let config = join.config();
    // It waits for its thread.
    let built = tokio::task::spawn_blocking(move || Dht::new(config)).await;
    built.unwrap_or_else(|_| Err(io::ErrorKind::AddrInUse.into()))
}

/// What is asked for, on its way.
pub(crate) struct Asking {
    answers: mpsc::Receiver<Named>,
    task: AbortOnDropHandle<()>,
}

impl Asking {
    /// The next answer; `None`: there are no more.
    pub(crate) async fn next(&mut self) -> Option<Named> {
        self.answers.recv().await
    }

    /// Whether it came to its end as it should.
    pub(crate) async fn ended(self) -> Result<(), Gone> {
        self.task.await.map_err(|_| Gone)
    }
}

async fn give(to: &mpsc::Sender<Named>, named: Named) {
    // Nobody listens any more: the task is about to be aborted.
    drop(to.send(named).await);
}

/// A use of `mainline` that came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the DHT's thread has ended")]
    Gone,
    #[error("the DHT's thread says nothing")]
    Late,
}

trait OrLate<T> {
    /// That it took too long is an answer of its own.
    fn or_late(self, late: T) -> Result<T, Gone>;
}

impl<T> OrLate<T> for Result<T, Failed> {
    fn or_late(self, late: T) -> Result<T, Gone> {
        match self {
            Ok(done) => Ok(done),
            Err(Failed::Late) => Ok(late),
            Err(Failed::Gone) => Err(Gone),
        }
    }
}

/// Runs a use of `mainline` where its panic does no harm, and not for ever.
async fn guarded<T: Send + 'static>(
    patience: Duration,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Failed> {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    match timeout(patience, task).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Failed::Gone),
        Err(_) => Err(Failed::Late),
    }
}
