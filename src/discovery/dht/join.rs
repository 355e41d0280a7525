//! Whom the DHT is joined through, and what `mainline` is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use mainline::{Config, DEFAULT_BOOTSTRAP_NODES, ServerSettings};

use super::filter::Filter;

/// How long a server of the DHT is waited for: 1 s. `mainline` waits 2 s; a lookup that has found nobody ends when the
/// last one is given up, and the whole step has 3 s.
const REQUEST: Duration = Duration::from_secs(1);

/// The most keys a server keeps addresses for, and the most items: 2000 of at most about 1.2 KB, 64 addresses of 26
/// bytes each in a map. At most some 10 MB, however much is announced.
const KEYS: usize = 2000;

/// The most addresses a server keeps for one key: 64. An answer names 10 of them. `mainline` never forgets an address
/// but for another one, and keeps one for each announce, so with its 500 those who left would be named for days.
const ADDRS: usize = 64;

/// How the DHT is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Join {
    /// Who is asked for the way. With nobody this node is the first, or waits to be found.
    pub(crate) bootstrap: Vec<SocketAddrV4>,
    /// Whether this node keeps for others what they announce.
    pub(crate) server: bool,
    /// Where its UDP socket is bound.
    pub(crate) bind: Ipv4Addr,
    /// 0: any port.
    pub(crate) port: u16,
}

impl Join {
    /// What `mainline` is told. Its own list of bootstrap nodes, which it uses when it is given none, is never left to it.
    pub(super) fn config(&self) -> Config {
        Config {
            bootstrap: Some(self.bootstrap.clone()),
            port: Some(self.port),
            request_timeout: REQUEST,
            server_settings: ServerSettings {
                max_info_hashes: KEYS,
                max_peers_per_info_hash: ADDRS,
                max_mutable_values: KEYS,
                // Nothing of elo's is immutable; one, since 0 means its default.
                max_immutable_values: 1,
                filter: Box::new(Filter::default()),
            },
            server_mode: self.server,
            public_ip: None,
            bind_address: Some(self.bind),
        }
    }
}

/// The nodes that the BitTorrent DHT is joined through: for those who asked for it in so many words.
pub(crate) fn public_bootstrap() -> Vec<String> {
    DEFAULT_BOOTSTRAP_NODES.iter().map(|&node| node.to_owned()).collect()
}

/// Looks the names of DHT nodes up, in their order; those without an IPv4 address are left out.
pub(crate) async fn resolve(nodes: &[String]) -> Vec<SocketAddrV4> {
    /// A name's address must not use up the time of the others.
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut found = Vec::new();
    for node in nodes {
        let Ok(Ok(addrs)) = tokio::time::timeout(PATIENCE, tokio::net::lookup_host(node.as_str())).await else {
            continue;
        };
        found.extend(addrs.filter_map(|addr| match addr {
            SocketAddr::V4(addr) => Some(addr),
            SocketAddr::V6(_) => None,
        }));
    }
    let mut unique = Vec::new();
    found.retain(|addr| {
        !unique.contains(addr) && {
            unique.push(*addr);
            true
        }
    });
    found
}

/// This host's address on the way to another: what the system would send from. Nothing is sent.
pub(crate) fn own_ip_towards(addr: SocketAddrV4) -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(addr).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mainline_is_never_left_to_its_own_bootstrap_nodes() {
        let somebody = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        for (bootstrap, server) in [(vec![], false), (vec![], true), (vec![somebody], false), (vec![somebody], true)] {
            let join = Join { bootstrap: bootstrap.clone(), server, bind: Ipv4Addr::LOCALHOST, port: 0 };
            let config = join.config();
            assert_eq!(config.bootstrap, Some(bootstrap));
            assert_eq!(
                (config.port, config.bind_address, config.server_mode),
                (Some(0), Some(Ipv4Addr::LOCALHOST), server)
            );
        }
    }

    #[tokio::test]
    async fn names_without_an_ipv4_address_are_left_out() {
        let names = ["127.0.0.1:5", "[::1]:5", "nonsense", "127.0.0.1:5"].map(str::to_owned);
        assert_eq!(resolve(&names).await, [SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5)]);
    }
}
