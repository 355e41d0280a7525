//! How many bytes a tracker relays from one node to another.
//!
//! There is a fixed number of counts, and pairs share them by a hash that nobody outside knows: no number of keys takes up
//! more memory, or has somebody's count begun anew.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::throttle::Bucket;
use crate::identity::NodeId;
use crate::limits::{Limits, MAX_MESSAGE, RELAY_COUNTS, RELAY_FREE, RELAY_WAIT_MAX};

#[derive(Clone, Debug)]
struct Count {
    bucket: Bucket,
    /// Until when what was refused is promised room. Each that is refused is told a later time than the one before it, or
    /// all would come back at once, and all but a few in vain.
    promised: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct RelayRate {
    new: Bucket,
    per_second: u64,
    secret: u64,
    /// None until something is relayed: most nodes are no trackers.
    counts: Vec<Count>,
}

impl RelayRate {
    /// Nothing was relayed yet.
    pub fn new(limits: &Limits, secret: u64) -> Self {
        let per_second = limits.relay_bytes_per_second.max(1);
        let new = Bucket::new(per_second, limits.relay_byte_burst.max(MAX_MESSAGE as u32));
        Self { new, per_second: per_second.into(), secret, counts: Vec::new() }
    }

    /// Takes a frame of so many bytes, or tells after which time to send it again.
    pub fn take(&mut self, source: &NodeId, target: &NodeId, bytes: usize, now: Duration) -> Result<(), Duration> {
        if self.counts.is_empty() {
            self.counts = vec![Count { bucket: self.new.clone(), promised: Duration::ZERO }; RELAY_COUNTS];
        }
        let mut hasher = DefaultHasher::new();
        (self.secret, source, target).hash(&mut hasher);
        let at = (hasher.finish() % RELAY_COUNTS as u64) as usize;
        let Some(count) = self.counts.get_mut(at) else { return Ok(()) };
        if bytes <= RELAY_FREE {
            count.bucket.take_up_to(bytes as u64, now);
            return Ok(());
        }
        let Err(wait) = count.bucket.take_many(bytes as u64, now) else { return Ok(()) };
        let takes = Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.per_second);
        // The first waits until there are enough for it, whoever comes after it for its own as well.
        let promised = if count.promised > now { count.promised.saturating_add(takes) } else { now + wait };
        count.promised = promised.max(now + wait).min(now + RELAY_WAIT_MAX);
        Err(count.promised - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        NodeId::from_bytes(bytes)
    }

    fn rate() -> RelayRate {
        RelayRate::new(
            &Limits::default().with(|l| (l.relay_bytes_per_second, l.relay_byte_burst) = (1 << 20, 4 << 20)),
            7,
        )
    }

    #[test]
    fn a_pair_has_its_bytes_and_those_refused_are_told_one_after_the_other() {
        let mut rate = rate();
        let at = Duration::from_secs;
        let mut send = |bytes, now| rate.take(&node(1), &node(2), bytes, now);
        for _ in 0..4 {
            assert_eq!(send(1 << 20, at(0)), Ok(()));
        }
        assert_eq!(
            [send(1 << 20, at(0)), send(1 << 20, at(0)), send(1 << 20, at(0))],
            [Err(at(1)), Err(at(2)), Err(at(3))]
        );
        assert_eq!(send(RELAY_FREE, at(0)), Ok(()), "what is short passes");
        assert_eq!(send(RELAY_FREE, at(1)), Ok(()));
        assert!(send(1 << 20, at(1)).is_err(), "it counted");
        assert_eq!(send(1 << 20, at(2)), Ok(()));
        assert!((0..100).all(|_| send(1 << 20, at(2)).is_err_and(|wait| wait <= RELAY_WAIT_MAX)));
        assert_eq!(send(1 << 20, at(70)), Ok(()));
    }

    #[test]
    fn many_keys_cost_no_memory_and_hardly_slow_others() {
        let mut rate = rate();
        for n in 0..200 {
            while rate.take(&node(n), &node(n + 1), 1 << 20, Duration::ZERO).is_ok() {}
        }
        assert_eq!(rate.counts.len(), RELAY_COUNTS);
        let others =
            (0..2000).filter(|n| rate.take(&node(1_000_000 + n), &node(1), 2048, Duration::ZERO).is_ok()).count();
        assert!(others > 1800, "{others}");
        // The other way round is another pair.
        assert!(rate.take(&node(8), &node(7), 1 << 20, Duration::ZERO).is_ok());
    }
}
