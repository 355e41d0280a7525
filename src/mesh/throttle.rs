//! How much a peer may send: a token bucket, counted in whole numbers.

use std::time::Duration;

/// What one token is divided into: with one part per nanosecond and token-per-second, refilling is exact.
const PARTS: u64 = 1_000_000_000;

/// Lets through `burst` at once, and `per_second` for good.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_second: u64,
    /// The most it holds, in parts.
    full: u64,
    /// What it holds, in parts.
    level: u64,
    /// When it was filled up last.
    filled: Duration,
}

impl Bucket {
    /// A full one. At least one a second and one at once: a bucket that never fills would be a peer that is let in but
    /// never heard.
    pub fn new(per_second: u32, burst: u32) -> Self {
        // Fits: 2^32 times 10^9 is below 2^62.
        let full = u64::from(burst.max(1)) * PARTS;
        Self { per_second: per_second.max(1).into(), full, level: full, filled: Duration::ZERO }
    }

    /// Takes a token, or tells how long it takes until there is one. `now` is time since any fixed moment; a `now`
    /// before the last one counts as the last one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.take_many(1, now)
    }

    /// Takes so many tokens, or tells how long it takes until there are as many. More than it ever holds is taken for all
    /// that it holds.
    pub fn take_many(&mut self, tokens: u64, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        let wanted = tokens.saturating_mul(PARTS).min(self.full);
        match self.level.checked_sub(wanted) {
            Some(rest) => {
                self.level = rest;
                Ok(())
            }
            None => Err(Duration::from_nanos((wanted - self.level).div_ceil(self.per_second))),
        }
    }

    /// Takes so many tokens, or all there are.
    pub fn take_up_to(&mut self, tokens: u64, now: Duration) {
        self.fill(now);
        self.level = self.level.saturating_sub(tokens.saturating_mul(PARTS));
    }

    /// Whether nothing is missing: it tells no more than a new one.
    pub fn is_full(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.level == self.full
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled);
        if !passed.is_zero() {
            self.filled = now;
            let gained = passed.as_nanos().saturating_mul(self.per_second.into());
            let level = u128::from(self.level).saturating_add(gained).min(self.full.into());
            self.level = u64::try_from(level).unwrap_or(self.full);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn burst_then_rate() {
        let mut bucket = Bucket::new(10, 3);
        assert_eq!([bucket.take(at(0)), bucket.take(at(0)), bucket.take(at(0))], [Ok(()); 3]);
        assert_eq!(bucket.take(at(0)), Err(at(100)));
        assert_eq!(bucket.take(at(40)), Err(at(60)));
        assert_eq!(bucket.take(at(100)), Ok(()));
        assert_eq!(bucket.take(at(100)), Err(at(100)));
        // It never holds more than the burst.
        assert_eq!([bucket.take(at(99_000)), bucket.take(at(99_000)), bucket.take(at(99_000))], [Ok(()); 3]);
        assert!(bucket.take(at(99_000)).is_err());
    }

    #[test]
    fn many_at_once() {
        let mut bucket = Bucket::new(1000, 2000);
        assert_eq!(bucket.take_many(1500, at(0)), Ok(()));
        assert_eq!(bucket.take_many(1500, at(0)), Err(at(1000)));
        assert_eq!(bucket.take_many(u64::MAX, at(1000)), Err(at(500)), "no more than it holds");
        assert_eq!(bucket.take_many(u64::MAX, at(1500)), Ok(()));
        bucket.take_up_to(5000, at(2000));
        assert_eq!(bucket.take(at(2000)), Err(at(1)));
        assert!(!bucket.is_full(at(3999)) && bucket.is_full(at(4000)));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_and_takes_nothing() {
        let mut bucket = Bucket::new(1, 1);
        assert_eq!(bucket.take(at(5000)), Ok(()));
        assert_eq!(bucket.take(at(1000)), Err(at(1000)));
        assert_eq!(bucket.take(at(5999)), Err(at(1)));
        assert_eq!(bucket.take(at(6000)), Ok(()));
    }

    #[test]
    fn extremes() {
        let mut bucket = Bucket::new(0, 0);
        assert_eq!(bucket.take(at(0)), Ok(()));
        assert_eq!(bucket.take(at(0)), Err(at(1000)));
        let mut bucket = Bucket::new(u32::MAX, u32::MAX);
        assert_eq!(bucket.take(Duration::MAX), Ok(()));
        assert_eq!(bucket.take(Duration::ZERO), Ok(()));
    }

    proptest! {
        /// In any stretch of time no more than burst + rate x time pass, and who waits as told is let through.
        #[test]
        fn never_more_than_allowed(
            per_second in 1u32..5000,
            burst in 1u32..50,
            steps in prop::collection::vec(0u64..3_000_000, 1..300),
        ) {
            let mut bucket = Bucket::new(per_second, burst);
            let (mut now, mut passed) = (Duration::ZERO, 0u128);
            for step in steps {
                now += Duration::from_nanos(step);
                match bucket.take(now) {
                    Ok(()) => passed += 1,
                    Err(wait) => {
                        prop_assert!(bucket.clone().take(now + wait).is_ok());
                        prop_assert!(bucket.clone().take(now + wait - Duration::from_nanos(1)).is_err());
                    }
                }
                let allowed = u128::from(burst) + now.as_nanos() * u128::from(per_second) / 1_000_000_000;
                prop_assert!(passed <= allowed);
            }
        }
    }
}
