//! Carrying out what a tracker does for peers that want to know whether they can be dialled.

use std::io;
use std::net::SocketAddr;

use super::driver::Shared;
use crate::mesh::ConnId;
use crate::wire::ProbeNonce;

impl Shared {
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
