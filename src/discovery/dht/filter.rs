//! How much of a DHT server's time one host gets: `mainline` has no limit of its own.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mainline::{RequestFilter, RequestSpecific};

use crate::mesh::throttle::Bucket;

/// Requests a second that are answered to one address, for good and at once. A lookup makes two to each server it
/// visits; a host with twenty nodes that all start at the same moment makes some hundreds. Beyond that, silence: an
/// answer is up to ten times as long as a question, and a question's sender is easily forged.
const PER_SECOND: u32 = 100;
const BURST: u32 = 1000;

/// How many addresses are counted. When more ask, all are counted anew.
const HOSTS: usize = 1024;

/// Shared by the copies that `mainline` makes.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    start: Instant,
    hosts: Arc<Mutex<HashMap<Ipv4Addr, Bucket>>>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { start: Instant::now(), hosts: Arc::default() }
    }
}

impl Filter {
    fn admits(&self, ip: Ipv4Addr) -> bool {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS && !hosts.contains_key(&ip) {
            hosts.clear();
        }
        hosts.entry(ip).or_insert_with(|| Bucket::new(PER_SECOND, BURST)).take(self.start.elapsed()).is_ok()
    }
}

impl RequestFilter for Filter {
    fn allow_request(&self, _: &RequestSpecific, from: SocketAddrV4) -> bool {
        self.admits(*from.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_not_answered_without_end_and_many_cost_no_memory() {
        let filter = Filter::default();
        let greedy = Ipv4Addr::new(10, 0, 0, 1);
        let admitted = (0..10 * BURST).filter(|_| filter.admits(greedy)).count();
        assert!((BURST as usize..2 * BURST as usize).contains(&admitted), "{admitted}");
        assert!(filter.admits(Ipv4Addr::new(10, 0, 0, 2)), "another host has its own share");
        for n in 0..100_000 {
            assert!(filter.admits(Ipv4Addr::from(0x0b00_0000 + n)));
        }
        assert!(filter.hosts.lock().unwrap().len() <= HOSTS);
    }
}
