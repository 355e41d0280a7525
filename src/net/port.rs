//! The local port that a node's outgoing connections share.
//!
//! A NAT that deserves the name cone gives them one public port then, whatever end they go to. Where two trackers see two
//! different ones, the NAT takes a new port for each end, and hole punching won't work: a node can tell before it tries.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::net::{TcpSocket, TcpStream};

/// The most ends that one port is used for: far more than trackers. After that another port begins.
const MAX_ENDS: usize = 64;

#[derive(Debug)]
struct Used {
    port: u16,
    ends: BTreeSet<SocketAddr>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct SharedPort {
    v4: Mutex<Option<Used>>,
    v6: Mutex<Option<Used>>,
}

impl SharedPort {
    fn of(&self, to: SocketAddr) -> &Mutex<Option<Used>> {
        if to.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    /// A socket at the port, if that was not used for this end yet: the other side, or a NAT, or the kernel may remember
    /// the connection before. Else one at a new port, which is the one to share from now on. It is known at once, before
    /// anything is connected: a node dials its trackers all at the same time.
    fn socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let mut used = self.of(to).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = used.as_mut()
            && used.ends.len() < MAX_ENDS
            && used.ends.insert(to)
            && let Ok(socket) = at(used.port, to)
        {
            return Ok(socket);
        }
        let socket = at(0, to)?;
        *used = Some(Used { port: socket.local_addr()?.port(), ends: BTreeSet::from([to]) });
        Ok(socket)
    }

    /// Connects from the shared port if that can be, else from any. Further sockets may be bound to the port while the
    /// connection lives: see [`at`].
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        // There are no NATs on the way to oneself.
        let shares = cfg!(unix) && !to.ip().to_canonical().is_loopback();
        if shares && let Ok(socket) = self.socket(to) {
            match socket.connect(to).await {
                Err(error) if is_taken(&error) => {}
                done => return done,
            }
        }
        shared(to)?.connect(to).await
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// A socket for connecting to `to`, or for listening to whatever comes from there, at a local port that others have too.
pub(super) fn at(port: u16, to: SocketAddr) -> io::Result<TcpSocket> {
    let socket = shared(to)?;
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    };
    socket.bind(any)?;
    Ok(socket)
}

/// A socket whose local port others may have as well, one that listens included: only such as ask for it too, and only of
/// the same user.
fn shared(to: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Elsewhere it means something else.
    #[cfg(unix)]
    {
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_shared_by_different_ends_and_never_used_twice_for_one() {
        let end = |n: u16| SocketAddr::from(([198, 51, 100, 1], n));
        let shared = SharedPort::default();
        let port = |n: u16| shared.socket(end(n)).unwrap().local_addr().unwrap().port();
        let first = port(1);
        assert_eq!((port(2), port(3)), (first, first));
        let second = port(2);
        assert_ne!(second, first);
        assert_eq!((port(1), port(3)), (second, second));
        let ports: BTreeSet<u16> = (10..200).map(port).collect();
        assert!((2..=5).contains(&ports.len()), "so many ends have one each: {ports:?}");
    }
}
