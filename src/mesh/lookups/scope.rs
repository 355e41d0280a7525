//! Which addresses are worth a dial, whoever named them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Which addresses may be what they claim, going by who could have named them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The DHT is on this host only: its loopback addresses are ours.
    Host,
    /// It is a network's own: addresses of private networks, but nobody's loopback,
    /// nor link-local ones, under which clouds keep what only their hosts may ask.
    Network,
    /// It is the world's: public addresses only, or strangers would have us knock at the doors of our own network.
    Public,
}

impl Scope {
    /// Whether an address may be dialled.
    pub fn admits(self, addr: SocketAddr) -> bool {
        if addr.port() == 0 {
            return false;
        }
        // Where nobody's node is, where only this host's are, and where only this network's.
        let (never, here, own) = match addr.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let never = ip.octets()[0] == 0 || ip.octets()[0] >= 224;
                (never, ip.is_loopback() || ip.is_link_local(), ip.is_private() || is_shared(ip))
            }
            IpAddr::V6(ip) => {
                let never = ip.is_unspecified() || ip.is_multicast();
                (never, ip.is_loopback() || ip.is_unicast_link_local(), ip.is_unique_local())
            }
        };
        !never && (self == Self::Host || !here) && (self != Self::Public || !own)
    }
}

/// Addresses behind a provider's NAT (RFC 6598).
fn is_shared(ip: Ipv4Addr) -> bool {
    ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64
}
