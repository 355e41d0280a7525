//! What of this node belongs into the DHT, and whom it could join the DHT through.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::action::Action;
use super::clock::Now;
use super::state::State;
use crate::identity::NodeId;
use crate::limits::{DHT_ITEM_TTL_S, MAX_DHT_CAPS, MAX_DHT_CONTACTS, MAX_DHT_TRACKED_CAPS};
use crate::wire::{Compact, TrackerRole};

/// What a node wants in the DHT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The capabilities it is to be found by: its own, and on a tracker those of nodes that only it can reach.
    pub capabilities: BTreeSet<String>,
    /// The TCP port that goes with them; `None`: it can't be dialled over IPv4, and announces none.
    pub port: Option<u16>,
    /// What it says of itself.
    pub compact: Compact,
}

/// The first IPv4 address among these.
fn ipv4(addrs: &[SocketAddr]) -> Option<SocketAddr> {
    addrs.iter().copied().find(SocketAddr::is_ipv4)
}

impl State {
    /// What belongs into the DHT now. `None` until the node's record is signed.
    pub fn publication(&self) -> Option<Publication> {
        let record = self.record.as_ref()?;
        let port = ipv4(&record.addrs).map(|a| a.port());
        let mut capabilities = BTreeSet::new();
        if port.is_some() {
            capabilities.extend(record.caps.names().take(MAX_DHT_CAPS).map(str::to_owned));
            let own = capabilities.len();
            for name in self.tracked_capabilities() {
                if capabilities.len() >= own + MAX_DHT_TRACKED_CAPS {
                    break;
                }
                capabilities.insert(name.to_owned());
            }
        }
        let compact = Compact {
            name: record.name.clone(),
            addrs: record.addrs.clone(),
            trackers: record.trackers.iter().map(|t| (*t, self.tracker_addr(t))).collect(),
            tracker: record.tracker,
            seq: record.seq,
            ttl_s: DHT_ITEM_TTL_S,
        };
        Some(Publication { capabilities, port, compact })
    }

    /// What those registered here provide that nobody can dial. A private tracker doesn't tell of its nodes.
    fn tracked_capabilities(&self) -> impl Iterator<Item = &str> {
        let open = self.config.tracker == TrackerRole::Public;
        let peers = self.peers.all_proven().filter(move |_| open);
        let records = peers.filter_map(|(_, p)| self.table.get(&p.arrival.node)).filter(|r| ipv4(&r.addrs).is_none());
        records.flat_map(|r| r.caps.names())
    }

    /// Where a tracker was dialled, else where it says it can be.
    fn tracker_addr(&self, tracker: &NodeId) -> Option<SocketAddr> {
        let dialled = self.peers.proven(tracker).filter(|p| !p.arrival.inbound).map(|p| p.arrival.addr);
        dialled.or_else(|| ipv4(&self.table.get(tracker)?.addrs))
    }

    /// The network shows an address of this node by another way than a peer's connection.
    pub fn learn_local_ip(&mut self, ip: IpAddr, now: Now, out: &mut Vec<Action>) {
        self.note_local_ip(ip);
        self.flush_record(now, out);
    }

    /// The DHT server runs on that UDP port, or no longer: the record says so.
    pub fn set_dht_port(&mut self, port: Option<u16>, now: Now, out: &mut Vec<Action>) {
        self.record_dirty |= self.dht_port != port;
        self.dht_port = port;
        self.flush_record(now, out);
    }

    /// The DHT servers that connected peers say they run. This host's own addresses, and those of a link, are theirs to name
    /// only over a connection from there: others would have us send to what nobody outside can reach.
    pub fn dht_contacts(&self) -> Vec<SocketAddrV4> {
        let mut contacts = Vec::new();
        for (_, peer) in self.peers.all_proven() {
            let Some(record) = self.table.get(&peer.arrival.node) else { continue };
            let Some(port) = record.dht else { continue };
            let from = peer.arrival.addr.ip().to_canonical();
            let near = |ip: Ipv4Addr| match from {
                IpAddr::V4(from) => {
                    ip.is_loopback() == from.is_loopback() && ip.is_link_local() == from.is_link_local()
                }
                IpAddr::V6(from) => ip.is_loopback() && from.is_loopback(),
            };
            for addr in &record.addrs {
                if let IpAddr::V4(ip) = addr.ip()
                    && (near(ip) || !(ip.is_loopback() || ip.is_link_local()))
                    && !ip.is_unspecified()
                    && !ip.is_multicast()
                    && !ip.is_broadcast()
                {
                    let contact = SocketAddrV4::new(ip, port);
                    if !contacts.contains(&contact) && contacts.len() < MAX_DHT_CONTACTS {
                        contacts.push(contact);
                    }
                }
            }
        }
        contacts
    }
}
