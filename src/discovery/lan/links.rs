//! Which interfaces are used, and what is on their links.

use std::net::{IpAddr, SocketAddr};

use crate::identity::NodeId;

/// What is to be done on the local network.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// This node.
    pub(crate) me: NodeId,
    /// Where it listens. A node that doesn't is not announced.
    pub(crate) listen: Option<SocketAddr>,
    /// Names or addresses of the interfaces to use. Empty: all but loopback; of a node that listens on one address, the
    /// one that has it.
    pub(crate) interfaces: Vec<String>,
}

impl Settings {
    /// Whether there is nobody who could use it: a node that listens on loopback only, when that was not asked for.
    pub(crate) fn is_senseless(&self) -> bool {
        self.interfaces.is_empty() && self.listen.is_some_and(|addr| addr.ip().is_loopback())
    }

    /// Whether an interface's address is one to be used.
    pub(super) fn selects(&self, name: &str, ip: IpAddr, loopback: bool) -> bool {
        let bound = self.listen.map(|addr| addr.ip());
        // Nobody reaches a listener for IPv4 by IPv6.
        if bound
            .is_some_and(|bound| if bound.is_ipv4() { ip.is_ipv6() } else { !bound.is_unspecified() && ip.is_ipv4() })
        {
            return false;
        }
        if !self.interfaces.is_empty() {
            return self.interfaces.iter().any(|wanted| wanted == name || wanted.parse() == Ok(ip));
        }
        match bound.filter(|bound| !bound.is_unspecified()) {
            Some(bound) => ip == bound,
            None => !loopback,
        }
    }
}

/// An address on an interface that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) ip: IpAddr,
    pub(super) prefix: u8,
}

impl Link {
    /// Whether an address is reached over this interface without a router.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                u32::from(own) & mask == u32::from(other) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                u128::from(own) & mask == u128::from(other) & mask
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    /// Which of a machine's addresses are used.
    fn used(listen: Option<&str>, interfaces: &[&str]) -> Vec<&'static str> {
        let all =
            [("lo", "127.0.0.1"), ("lo", "::1"), ("eth0", "10.0.0.5"), ("eth0", "fe80::5"), ("wlan0", "10.1.0.5")];
        let settings = settings(listen, interfaces);
        let selected = all.into_iter().filter(|(name, ip)| settings.selects(name, ip.parse().unwrap(), *name == "lo"));
        selected.map(|(_, ip)| ip).collect()
    }

    #[test]
    fn which_interfaces_are_used() {
        assert_eq!(used(None, &[]), ["10.0.0.5", "fe80::5", "10.1.0.5"]);
        assert_eq!(used(Some("0.0.0.0:1"), &[]), ["10.0.0.5", "10.1.0.5"], "nobody reaches it by IPv6");
        assert_eq!(used(Some("[::]:1"), &[]), ["10.0.0.5", "fe80::5", "10.1.0.5"]);
        assert_eq!(used(Some("10.1.0.5:1"), &[]), ["10.1.0.5"]);
        assert_eq!(used(Some("127.0.0.1:1"), &["lo"]), ["127.0.0.1"]);
        assert_eq!(used(Some("0.0.0.0:1"), &["lo", "10.0.0.5"]), ["127.0.0.1", "10.0.0.5"]);
        assert_eq!(used(Some("0.0.0.0:1"), &["eth7"]), [""; 0]);
        assert!(settings(Some("127.0.0.1:1"), &[]).is_senseless());
        assert!(!settings(Some("127.0.0.1:1"), &["lo"]).is_senseless());
        assert!(!settings(None, &[]).is_senseless());
    }

    #[test]
    fn an_announcement_is_about_the_links_it_came_to() {
        let link = |ip: &str, prefix| Link { name: "eth0".into(), index: 2, ip: ip.parse().unwrap(), prefix };
        let has = |link: &Link, ip: &str| link.has(ip.parse().unwrap());
        let four = link("192.168.1.5", 24);
        assert!(has(&four, "192.168.1.200") && !has(&four, "192.168.2.1") && !has(&four, "::1"));
        let six = link("2001:db8::5", 64);
        assert!(has(&six, "2001:db8::1:2") && !has(&six, "2001:db8:1::1"));
        assert!(has(&link("10.0.0.1", 0), "1.2.3.4") && !has(&link("10.0.0.1", 32), "10.0.0.2"));
        assert!(has(&link("::1", 0), "::7"));
    }
}
