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

    /// The port, if it was not used for that end yet. One that was may not be free for it: the other side, or a NAT, or
    /// the kernel may remember the connection before.
    fn take(&self, to: SocketAddr) -> Option<u16> {
        let mut used = self.of(to).lock().unwrap_or_else(PoisonError::into_inner);
        let used = used.as_mut().filter(|used| used.ends.len() < MAX_ENDS)?;
        used.ends.insert(to).then_some(used.port)
    }

    /// A connection was made from another port: it is the one to share now.
    fn made(&self, port: u16, to: SocketAddr) {
        let mut used = self.of(to).lock().unwrap_or_else(PoisonError::into_inner);
        *used = Some(Used { port, ends: BTreeSet::from([to]) });
    }

    /// Connects from the shared port if that can be, else from any.
    ///
    /// Further sockets may be bound to the port while the connection lives: see [`at`]. On Linux the kernel's own choice
    /// of a port will do for that; and it may be shared by connections to different ends, where a port that is bound
    /// before it is known where to may not.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        // There are no NATs on the way to oneself.
        let shares = cfg!(unix) && !to.ip().to_canonical().is_loopback();
        if shares
            && let Some(port) = self.take(to)
            && let Ok(socket) = at(port, to)
        {
            match socket.connect(to).await {
                Err(error) if is_taken(&error) => {}
                done => return done,
            }
        }
        let stream = shared(to)?.connect(to).await?;
        if shares && let Ok(local) = stream.local_addr() {
            self.made(local.port(), to);
        }
        Ok(stream)
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

    #[test]
    fn a_port_is_shared_by_different_ends_and_never_used_twice_for_one() {
        let end = |n: u16| SocketAddr::from(([198, 51, 100, 1], n));
        let shared = SharedPort::default();
        assert_eq!(shared.take(end(1)), None);
        shared.made(4000, end(1));
        assert_eq!((shared.take(end(1)), shared.take(end(2)), shared.take(end(2))), (None, Some(4000), None));
        assert_eq!(shared.take("[2001:db8::1]:1".parse().unwrap()), None, "of the other family");
        let more = (3..1000).filter(|n| shared.take(end(*n)).is_some()).count();
        assert_eq!(more, MAX_ENDS - 2);
        shared.made(4001, end(1));
        assert_eq!(shared.take(end(2)), Some(4001));
    }
}
