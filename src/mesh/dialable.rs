//! Which of the addresses that a record names may be dialled at all.
//!
//! A record says where its node is, and nobody can know whether that is so. What is on this very machine or on its link is
//! nobody's to name but theirs who came from there: a stranger's record must not make a node talk to its own host's services,
//! nor to those that a cloud keeps at link-local addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::state::State;

/// From where peers came in this run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Near {
    host: bool,
    link: bool,
}

fn is_on_link(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

impl Near {
    /// A peer is connected, at that address.
    pub fn note(&mut self, ip: IpAddr) {
        let ip = ip.to_canonical();
        self.host |= ip.is_loopback();
        self.link |= is_on_link(ip);
    }

    fn admits(self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        let nobody = ip.is_unspecified() || ip.is_multicast() || ip == Ipv4Addr::BROADCAST;
        addr.port() != 0 && !nobody && (self.host || !ip.is_loopback()) && (self.link || !is_on_link(ip))
    }
}

impl State {
    /// Those of a record's addresses that may be dialled.
    pub(super) fn dialable(&self, addrs: &[SocketAddr]) -> Vec<SocketAddr> {
        addrs.iter().copied().filter(|addr| self.near.admits(*addr)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_and_its_link_are_for_those_from_there_to_name() {
        let admits = |near: Near, addr: &str| near.admits(addr.parse().unwrap());
        let mut near = Near::default();
        let [host, link] = [
            ["127.0.0.1:6379", "[::1]:1", "[::ffff:127.0.0.1]:1"],
            ["169.254.169.254:80", "[fe80::1]:1", "169.254.0.1:1"],
        ];
        assert!(host.iter().chain(&link).all(|addr| !admits(near, addr)));
        assert!(admits(near, "10.0.0.1:7878") && admits(near, "[2001:db8::1]:7878"));
        near.note("::1".parse().unwrap());
        assert!(host.iter().all(|addr| admits(near, addr)) && link.iter().all(|addr| !admits(near, addr)));
        near.note("fe80::2".parse().unwrap());
        assert!(link.iter().all(|addr| admits(near, addr)));
        for addr in ["0.0.0.0:1", "[::]:1", "224.0.0.1:1", "255.255.255.255:1", "10.0.0.1:0", "[ff02::1]:1"] {
            assert!(!admits(near, addr), "{addr}");
        }
    }
}
