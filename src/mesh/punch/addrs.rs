//! Which addresses may be tried, and which are told.

use std::net::{IpAddr, SocketAddr};

use crate::limits::MAX_PUNCH_CANDIDATES;
use crate::mesh::conn_id::ConnId;
use crate::mesh::peers::Arrival;
use crate::mesh::state::State;

/// Ports below it are those of services, and never that of a connection a node made.
const FIRST_PORT: u16 = 1024;

/// Whether an address is one that a network keeps for itself: RFC 1918, RFC 6598 (carriers' NATs), link-local, ULA.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whether a connection can be made to it at all, and may: not to this machine itself.
fn is_unicast(addr: &SocketAddr) -> bool {
    let ip = addr.ip();
    let reserved = match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 0 || ip.octets()[0] >= 240,
        IpAddr::V6(_) => false,
    };
    addr.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_loopback() && !reserved
}

/// Whether two addresses may be in one private network: the same first 16 bits, or 48 of IPv6. A home's or an office's
/// is no larger, and others' are nobody's to knock at.
fn is_near(a: IpAddr, b: IpAddr) -> bool {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => a.octets()[..2] == b.octets()[..2],
        (IpAddr::V6(a), IpAddr::V6(b)) => a.segments()[..3] == b.segments()[..3],
        _ => false,
    }
}

/// Of the addresses a tracker gave, those that may be tried; `tracker` is the connection to it.
pub(super) fn usable(given: &[SocketAddr], tracker: &Arrival) -> Vec<SocketAddr> {
    let plain = |addr: &SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let given: Vec<SocketAddr> = given.iter().map(plain).collect();
    let observed = tracker.observed.map(|addr| addr.ip());
    let same_nat = given.iter().any(|addr| Some(addr.ip()) == observed);
    let may = |addr: &SocketAddr| {
        let private_too = is_private(tracker.addr.ip())
            || (same_nat && addr.port() >= FIRST_PORT && is_near(addr.ip(), tracker.local.ip()));
        let own = *addr == tracker.local || Some(*addr) == tracker.observed;
        is_unicast(addr) && !own && (!is_private(addr.ip()) || private_too)
    };
    let mut usable: Vec<SocketAddr> = Vec::new();
    for addr in given.iter().filter(|a| may(a)) {
        if !usable.contains(addr) {
            usable.push(*addr);
        }
    }
    usable
}

/// Of the addresses a node told, those that a tracker passes on.
pub(super) fn passed_on(told: &[SocketAddr]) -> Vec<SocketAddr> {
    told.iter().filter(|a| is_unicast(a) && is_private(a.ip()) && a.port() >= FIRST_PORT).copied().collect()
}

impl State {
    /// Where this node's end of a connection is in its own network.
    pub(super) fn own_candidates(&self, conn: ConnId) -> Vec<SocketAddr> {
        let Some(peer) = self.peers.get(conn) else { return Vec::new() };
        let local = peer.arrival.local;
        let others = self.local_ips.iter().map(|ip| SocketAddr::new(*ip, local.port()));
        let mut candidates: Vec<SocketAddr> = Vec::new();
        for addr in std::iter::once(local).chain(others) {
            // A link-local address of IPv6 means nothing without the interface, which others can't know.
            let scoped = matches!(addr.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local());
            if is_private(addr.ip()) && !scoped && !candidates.contains(&addr) {
                candidates.push(addr);
            }
        }
        candidates.truncate(MAX_PUNCH_CANDIDATES);
        candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::punch::tests::arrival;

    fn usable(tracker: &str, local: &str, observed: &str, given: &[&str]) -> Vec<String> {
        let mut arrival = arrival(tracker, local);
        arrival.observed = Some(observed.parse().unwrap());
        let given: Vec<SocketAddr> = given.iter().map(|a| a.parse().unwrap()).collect();
        super::usable(&given, &arrival).iter().map(ToString::to_string).collect()
    }

    const PUBLIC: &str = "198.51.100.1:7878";
    const LOCAL: &str = "192.168.1.5:40000";
    const SEEN: &str = "203.0.113.5:40000";

    #[test]
    fn nothing_but_unicast_addresses_of_others_is_tried() {
        for wrong in [
            "0.0.0.0:1",
            "0.1.2.3:9",
            "224.0.0.1:5000",
            "255.255.255.255:5000",
            "240.0.0.1:5000",
            "127.0.0.1:5000",
            "127.9.9.9:5000",
            "[::]:5000",
            "[::1]:5000",
            "[ff02::1]:5000",
            "[::ffff:127.0.0.1]:5000",
            "203.0.113.9:0",
            SEEN,
            LOCAL,
        ] {
            assert_eq!(usable(PUBLIC, LOCAL, SEEN, &[wrong]), [""; 0], "{wrong}");
        }
        let fine = ["203.0.113.9:5000", "203.0.113.5:41000", "[2001:db8::1]:80"];
        assert_eq!(usable(PUBLIC, LOCAL, SEEN, &fine), fine);
        assert_eq!(usable(PUBLIC, LOCAL, SEEN, &[fine[0]; 5]), [fine[0]]);
    }

    #[test]
    fn private_addresses_are_tried_near_this_node_and_with_its_own_public_address_only() {
        let same = "203.0.113.5:41000";
        for (given, tried) in [
            ("192.168.7.9:5000", true),
            ("192.168.7.9:80", false),
            ("10.0.0.1:5000", false),
            ("100.64.0.1:5000", false),
            ("169.254.0.1:5000", false),
            ("[fd00::1]:5000", false),
            ("127.0.0.1:5000", false),
        ] {
            assert_eq!(usable(PUBLIC, LOCAL, SEEN, &[same, given]).len(), 1 + usize::from(tried), "{given}");
            assert_eq!(usable(PUBLIC, LOCAL, SEEN, &["203.0.113.9:41000", given]).len(), 1, "{given}");
        }
        // A tracker in a private network sees private addresses.
        assert_eq!(usable("10.0.0.1:7878", "10.0.0.5:40000", "10.0.0.5:40000", &["10.0.0.9:5000"]).len(), 1);
    }

    #[test]
    fn a_tracker_passes_on_private_addresses_only() {
        let told = ["192.168.1.5:40000", "8.8.8.8:40000", "127.0.0.1:40000", "10.0.0.1:22", "[fd00::1]:4000"];
        let told: Vec<SocketAddr> = told.iter().map(|a| a.parse().unwrap()).collect();
        assert_eq!(passed_on(&told), [told[0], told[4]]);
    }
}
