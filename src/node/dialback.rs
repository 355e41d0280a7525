//! What makes a node dialable and shows it: dialling back for others, and a port on the gateway.

use std::io;
use std::net::SocketAddr;

use super::driver::Shared;
#[cfg(feature = "port-map")]
use super::driver::lock;
#[cfg(feature = "port-map")]
use crate::info::PortMapping;
use crate::mesh::ConnId;
use crate::wire::ProbeNonce;

impl Shared {
    /// Keeps this node's port mapped on the gateway for as long as it runs.
    #[cfg(feature = "port-map")]
    pub(crate) fn keep_port_mapped(&self) {
        let tell = |shared: &Self, news: PortMapping| *lock(&shared.port_map) = Some(news);
        let why = match self.listen.first() {
            None => "this node does not listen",
            Some(addr) if addr.ip().is_loopback() => "this node listens on loopback only: nothing outside leads there",
            Some(_) => "",
        };
        let (Some(addr), "", Some(shared)) = (self.listen.first(), why, self.strong()) else {
            tracing::warn!(why, "no port is mapped on the gateway");
            return tell(self, PortMapping::Failed { why: why.to_owned() });
        };
        let map = crate::discovery::portmap::PortMap::new(addr.port());
        self.spawn(async move {
            let closing = shared.closing.clone();
            let news = |news: PortMapping| {
                let mapped = match &news {
                    PortMapping::Mapped { external, .. } => Some(*external),
                    PortMapping::Looking | PortMapping::Failed { .. } => None,
                };
                tell(&shared, news);
                shared.with(|state, now, out| state.mapped(mapped, now, out));
            };
            map.keep(closing, news).await;
        });
    }

    #[cfg(not(feature = "port-map"))]
    pub(crate) fn keep_port_mapped(&self) {}

    pub(crate) fn dial_back(&self, conn: ConnId, id: String, addr: SocketAddr, nonce: ProbeNonce) {
        let Some(shared) = self.strong() else { return };
        // How many there are at once is the state's to say.
        self.spawn(async move {
            let done = tokio::select! {
                () = shared.stop.cancelled() => return,
                done = crate::net::probe(addr, &nonce) => done,
            };
            let done = done.map_err(|error| in_words(&error));
            shared.with(|state, _, out| state.dialled_back(conn, &id, addr, done, out));
        });
    }
}

/// What a stranger is told: no more than the kind of it.
fn in_words(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::TimedOut => "nobody answered within 3 s",
        io::ErrorKind::ConnectionRefused => "the connection was refused",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no way there",
        _ => "the connection broke",
    }
}
