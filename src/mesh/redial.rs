//! When somebody is dialled again.

use std::time::Duration;

use crate::limits::Limits;

/// A connection that lived for so long was a good one: the wait before the next dial is the shortest again.
const GOOD: Duration = Duration::from_secs(10);

/// The waits between the dials to one peer: they double, but stay short for a while after a good connection. Whoever was
/// there two minutes ago is likely behind a cut that heals, and nobody should wait a minute for it then.
#[derive(Clone, Copy, Debug)]
pub struct Redial {
    wait: Duration,
    /// When the last good connection ended.
    good: Option<Duration>,
}

impl Redial {
    /// Nobody was there yet.
    pub fn new(limits: &Limits) -> Self {
        Self { wait: limits.redial_min, good: None }
    }

    /// A connection ended that had lasted so long.
    pub fn lost(&mut self, lasted: Duration, now: Duration, limits: &Limits) {
        if lasted >= GOOD {
            *self = Self { wait: limits.redial_min, good: Some(now) };
        }
    }

    /// Whether it was ever connected for long.
    pub fn was_good(&self) -> bool {
        self.good.is_some()
    }

    /// How long to wait before the next dial: between half and all of the wait, as `chance` (0 to 1) says, so that many
    /// nodes don't come back at the same moment.
    pub fn next(&mut self, now: Duration, limits: &Limits, chance: f64) -> Duration {
        let soon = self.good.is_some_and(|good| now.saturating_sub(good) < limits.redial_soon_for);
        let most = if soon { limits.redial_soon.min(limits.redial_max) } else { limits.redial_max };
        let wait = self.wait.min(most);
        self.wait = wait.saturating_mul(2);
        wait.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_waits_double_up_to_the_longest() {
        let limits = Limits::default();
        let mut redial = Redial::new(&limits);
        let waits: Vec<_> = (0..8).map(|_| redial.next(secs(0), &limits, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(redial.next(secs(0), &limits, 0.0), secs(30), "half of it at the least");
    }

    #[test]
    fn who_was_there_lately_is_tried_every_few_seconds_and_later_less_often() {
        let limits = Limits::default();
        let mut redial = Redial::new(&limits);
        // It was away for a long time, came for a while, and is cut off.
        for _ in 0..20 {
            redial.next(secs(0), &limits, 1.0);
        }
        redial.lost(secs(60), secs(1000), &limits);
        let mut now = secs(1000);
        let mut waits = Vec::new();
        while now < secs(1119) {
            waits.push(redial.next(now, &limits, 1.0).as_secs());
            now += secs(waits.last().copied().unwrap());
        }
        assert!(waits.iter().all(|w| *w <= 4), "{waits:?}");
        let waits: Vec<_> = (0..6).map(|_| redial.next(secs(1120), &limits, 1.0).as_secs()).collect();
        assert_eq!(waits, [8, 16, 32, 60, 60, 60]);
        // A connection that ends at once is no reason to hope.
        redial.lost(secs(1), secs(1200), &limits);
        assert_eq!(redial.next(secs(1200), &limits, 1.0), secs(60));
    }
}
