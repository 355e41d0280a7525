//! Places for those who connect to this node: how many there are in all, before they have proven who they are, and for
//! each address; and how often an address may try.
//!
//! Nothing here waits, and the lock is held for a look into one table: once when a connection comes, once when it
//! proves who it is, once when it goes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::CloseReason;
use crate::limits::{Limits, MAX_ORIGINS};
use crate::memory::{Level, Memory};
use crate::mesh::origin::Origin;
use crate::mesh::throttle::Bucket;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// So many have proven who they are that there is room for no more.
    Full,
    /// So many have yet to prove who they are.
    HalfOpen,
    /// So many come from that address.
    OfAddress,
    /// That address tries too often; until when.
    TooOften(Duration),
    /// There is no memory for more.
    Memory,
}

impl NoPlace {
    /// What the other side is told.
    pub fn reason(self) -> CloseReason {
        match self {
            Self::TooOften(_) => CloseReason::RateLimited,
            _ => CloseReason::Full,
        }
    }

    /// In words.
    pub fn message(self) -> String {
        match self {
            Self::Full => "this node has all the connections it can take; try again later".to_owned(),
            Self::HalfOpen => {
                "too many connections to this node have yet to prove who they are; try again in a few seconds"
                    .to_owned()
            }
            Self::OfAddress => {
                "this node has all the connections it takes from your address; try again later".to_owned()
            }
            Self::TooOften(wait) => {
                let seconds = wait.as_secs() + 1;
                format!("your address connects too often; try again in {seconds} s")
            }
            Self::Memory => "this node is short of memory and takes no new connections; try again later".to_owned(),
        }
    }

    /// What it is counted as.
    fn counter(self) -> &'static str {
        match self {
            Self::Full => "connections_full",
            Self::HalfOpen => "half_open_full",
            Self::OfAddress => "connections_per_ip",
            Self::TooOften(_) => "handshakes_per_ip",
            Self::Memory => "memory_connections",
        }
    }
}

/// What is known of one origin.
#[derive(Debug)]
struct Known {
    /// Its connections.
    live: usize,
    /// Those of them that have proven nothing yet.
    half_open: usize,
    handshakes: Bucket,
}

#[derive(Debug, Default)]
struct Counts {
    origins: HashMap<Origin, Known>,
    half_open: usize,
    proven: usize,
    refused: [(&'static str, u64); 5],
}

/// All places.
#[derive(Debug)]
pub struct Places {
    max_proven: usize,
    max_half_open: usize,
    max_of_origin: usize,
    handshakes: Bucket,
    began: Instant,
    memory: Arc<Memory>,
    counts: Mutex<Counts>,
}

impl Places {
    /// None is taken.
    pub fn new(limits: &Limits, memory: Arc<Memory>) -> Arc<Self> {
        Arc::new(Self {
            max_proven: limits.max_connections,
            max_half_open: limits.max_half_open,
            max_of_origin: limits.max_connections_per_ip,
            handshakes: Bucket::new(limits.handshakes_per_second_per_ip, limits.handshake_burst_per_ip),
            began: Instant::now(),
            memory,
            counts: Mutex::default(),
        })
    }

    /// Nothing in here panics half-way through a change, so what a poisoned lock guards is still sound.
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many that have proven nothing yet have a place.
    pub fn half_open(&self) -> usize {
        self.counts().half_open
    }

    /// How many were refused, and why.
    pub fn refused(&self) -> Vec<(&'static str, u64)> {
        self.counts().refused.into_iter().filter(|(_, n)| *n > 0).collect()
    }

    /// Somebody connected.
    ///
    /// # Errors
    ///
    /// Why there is no place.
    pub fn take(self: &Arc<Self>, from: IpAddr) -> Result<Place, NoPlace> {
        let origin = Origin::of(from);
        let taken = self.try_take(origin, self.began.elapsed());
        match taken {
            Ok(()) => Ok(Place { places: Arc::clone(self), origin, proven: false }),
            Err(why) => {
                self.count(why);
                Err(why)
            }
        }
    }

    fn try_take(&self, origin: Origin, now: Duration) -> Result<(), NoPlace> {
        if self.memory.level() >= Level::Connections {
            return Err(NoPlace::Memory);
        }
        let counts = &mut *self.counts();
        // Who would be refused after the proof is so at once: it costs both sides less.
        if counts.proven >= self.max_proven {
            return Err(NoPlace::Full);
        }
        let free = self.max_half_open.saturating_sub(counts.half_open);
        if free == 0 {
            return Err(NoPlace::HalfOpen);
        }
        if !counts.origins.contains_key(&origin) {
            let room = MAX_ORIGINS.saturating_add(counts.proven).saturating_add(counts.half_open);
            if counts.origins.len() >= room {
                counts.origins.retain(|_, known| known.live > 0 || !known.handshakes.is_full(now));
            }
            if counts.origins.len() >= room {
                return Err(NoPlace::HalfOpen);
            }
        }
        let known = counts.origins.entry(origin).or_insert_with(|| Known {
            live: 0,
            half_open: 0,
            handshakes: self.handshakes.clone(),
        });
        if known.live >= self.max_of_origin {
            return Err(NoPlace::OfAddress);
        }
        // As many as it leaves free: one alone gets half of all, and whoever comes next finds room. See `no_room` in
        // `mesh/tasks/memory.rs` for where this rule comes from.
        if known.half_open >= free {
            return Err(NoPlace::HalfOpen);
        }
        known.handshakes.take(now).map_err(NoPlace::TooOften)?;
        known.live += 1;
        known.half_open += 1;
        counts.half_open += 1;
        Ok(())
    }

    fn count(&self, why: NoPlace) {
        if why == NoPlace::Memory {
            self.memory.count(Level::Connections, 1);
        }
        let mut counts = self.counts();
        let name = why.counter();
        if let Some(slot) = counts.refused.iter_mut().find(|(n, _)| *n == name || n.is_empty()) {
            *slot = (name, slot.1 + 1);
        }
    }
}

/// One place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    origin: Origin,
    proven: bool,
}

impl Place {
    /// Who has it has proven who it is: its place among those that have not is free again.
    ///
    /// # Errors
    ///
    /// There is no room among those that have; it keeps the place it has.
    pub fn prove(&mut self) -> Result<(), NoPlace> {
        {
            let counts = &mut *self.places.counts();
            if self.proven {
                return Ok(());
            }
            if counts.proven < self.places.max_proven {
                counts.proven += 1;
                counts.half_open = counts.half_open.saturating_sub(1);
                if let Some(known) = counts.origins.get_mut(&self.origin) {
                    known.half_open = known.half_open.saturating_sub(1);
                }
                self.proven = true;
                return Ok(());
            }
        }
        self.places.count(NoPlace::Full);
        Err(NoPlace::Full)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &mut *self.places.counts();
        let Some(known) = counts.origins.get_mut(&self.origin) else { return };
        known.live = known.live.saturating_sub(1);
        if self.proven {
            counts.proven = counts.proven.saturating_sub(1);
        } else {
            counts.half_open = counts.half_open.saturating_sub(1);
            known.half_open = known.half_open.saturating_sub(1);
        }
        if known.live == 0 && known.handshakes.is_full(self.places.began.elapsed()) {
            counts.origins.remove(&self.origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(set: impl FnOnce(&mut Limits)) -> Arc<Places> {
        let limits = Limits::default().with(set);
        Places::new(&limits, Memory::new(limits.memory_budget))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn half_open_connections_have_places_of_their_own_and_one_address_leaves_as_many_as_it_takes() {
        let places = places(|l| (l.max_half_open, l.max_connections) = (8, 2));
        let mut flood: Vec<_> = (0..4).map(|_| places.take(ip("192.0.2.1")).unwrap()).collect();
        assert_eq!(places.take(ip("192.0.2.1")).unwrap_err(), NoPlace::HalfOpen);
        let mut other = places.take(ip("192.0.2.2")).unwrap();
        other.prove().unwrap();
        assert_eq!(places.half_open(), 4);
        let _second = places.take(ip("192.0.2.2")).unwrap();
        flood[0].prove().unwrap();
        assert_eq!(flood[1].prove(), Err(NoPlace::Full));
        assert_eq!(places.take(ip("192.0.2.3")).unwrap_err(), NoPlace::Full);
        drop(other);
        flood[1].prove().unwrap();
        drop(flood);
        assert_eq!((places.half_open(), places.counts().proven), (1, 0));
        assert_eq!(places.refused(), [("half_open_full", 1), ("connections_full", 2)]);
    }

    #[test]
    fn an_address_has_no_more_than_its_share_and_another_gets_in() {
        let places = places(|l| l.max_connections_per_ip = 2);
        let held: Vec<_> = ["2001:db8::1", "2001:db8::2"].map(|a| places.take(ip(a)).unwrap()).into();
        assert_eq!(places.take(ip("2001:db8::3")).unwrap_err(), NoPlace::OfAddress);
        assert!(places.take(ip("2001:db8:0:1::3")).is_ok() && places.take(ip("192.0.2.1")).is_ok());
        drop(held);
        assert!(places.take(ip("2001:db8::3")).is_ok());
    }

    #[test]
    fn handshakes_have_a_rate_for_each_address_and_what_is_known_of_it_is_forgotten() {
        let places = places(|l| (l.handshakes_per_second_per_ip, l.handshake_burst_per_ip) = (10, 3));
        let origin = Origin::of(ip("192.0.2.1"));
        let at = Duration::from_millis;
        let tries = |ms| {
            places.try_take(origin, at(ms)).map(|()| drop(Place { places: places.clone(), origin, proven: false }))
        };
        assert_eq!([tries(0), tries(0), tries(0)], [Ok(()); 3]);
        assert_eq!(tries(40), Err(NoPlace::TooOften(at(60))));
        assert_eq!(tries(100), Ok(()));
        assert_eq!(tries(100), Err(NoPlace::TooOften(at(100))));
        assert_eq!(places.try_take(Origin::of(ip("192.0.2.2")), at(100)), Ok(()));
        let counts = &mut *places.counts();
        assert_eq!(counts.origins.len(), 2);
        counts.origins.retain(|_, known| known.live > 0 || !known.handshakes.is_full(at(400)));
        assert_eq!(counts.origins.len(), 1, "only the one that is connected");
    }

    #[test]
    fn the_table_of_addresses_is_bounded() {
        let places = places(|_| {});
        let mut last = Ok(());
        for n in 0..2 * MAX_ORIGINS as u64 {
            // All in one moment: nothing of it is forgotten yet.
            let origin = Origin::V6(n);
            last = places.try_take(origin, Duration::ZERO);
            if last.is_ok() {
                let mut counts = places.counts();
                counts.half_open -= 1;
                let known = counts.origins.get_mut(&origin).unwrap();
                (known.live, known.half_open) = (0, 0);
            }
        }
        assert_eq!(last, Err(NoPlace::HalfOpen));
        assert_eq!(places.counts().origins.len(), MAX_ORIGINS);
        assert_eq!(places.try_take(Origin::V4(1), Duration::from_secs(1)), Ok(()), "what is old makes room");
    }

    #[test]
    fn without_memory_nobody_gets_in() {
        let limits = Limits::default();
        let memory = Memory::new(limits.memory_budget);
        let places = Places::new(&limits, Arc::clone(&memory));
        memory.add(crate::memory::Kind::Input, limits.memory_budget);
        assert_eq!(places.take(ip("192.0.2.1")).unwrap_err(), NoPlace::Memory);
        assert_eq!((memory.shed(Level::Connections), places.refused()), (1, vec![("memory_connections", 1)]));
        memory.sub(crate::memory::Kind::Input, limits.memory_budget);
        assert!(places.take(ip("192.0.2.1")).is_ok());
    }
}
