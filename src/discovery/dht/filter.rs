//! How much of a DHT server's time one host gets: `mainline` has no limit of its own.

use std::hash::{BuildHasher, RandomState};
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

/// How many counts there are. Addresses share them, by a hash that nobody outside knows: whoever asks in many names doesn't
/// have one of them counted anew.
const COUNTS: usize = 1024;

/// Shared by the copies that `mainline` makes.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    start: Instant,
    hash: RandomState,
    counts: Arc<Mutex<Vec<Bucket>>>,
}

impl Default for Filter {
    fn default() -> Self {
        let counts = vec![Bucket::new(PER_SECOND, BURST); COUNTS];
        Self { start: Instant::now(), hash: RandomState::new(), counts: Arc::new(Mutex::new(counts)) }
    }
}

impl Filter {
    fn admits(&self, ip: Ipv4Addr) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (self.hash.hash_one(ip) % COUNTS as u64) as usize;
        counts.get_mut(at).is_some_and(|count| count.take(self.start.elapsed()).is_ok())
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
        // Others have their shares: few fall in with it. And what they ask in many names doesn't give it another one.
        let others = (0..10_000).filter(|n| filter.admits(Ipv4Addr::from(0x0b00_0000 + n))).count();
        assert!(others > 9_900, "{others}");
        let admitted = (0..BURST).filter(|_| filter.admits(greedy)).count();
        assert!(admitted < BURST as usize / 2, "{admitted}");
    }
}
