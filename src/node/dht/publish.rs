//! Putting into the DHT what belongs there, again and again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{DhtPart, LOOK};
use crate::discovery::dht::{Engine, Gone, Kept};
use crate::limits::DHT_ANNOUNCE;
use crate::mesh::Publication;
use crate::node::driver::{Shared, lock};
use crate::wire::Compact;

/// How many announces are under way at once: each asks some dozens of servers.
const ANNOUNCES: usize = 4;

/// The longest wait of a first announce: many nodes that start together don't ask all at once.
const JITTER_MS: u64 = 200;

/// The wait before something that nobody took is put into the DHT again; doubled up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_secs(2);

/// The longest such wait.
const AGAIN_MAX: Duration = Duration::from_secs(60);

impl Shared {
    /// Puts there what changes, and the rest when its time comes, for ever.
    pub(super) async fn keep_published(&self, part: &DhtPart) {
        let mut changed = part.changed.subscribe();
        let mut plan = Plan::default();
        loop {
            changed.mark_unchanged();
            let publication = self.read(|state, _| state.publication());
            if let (Some(engine), Some(publication)) = (part.engine(), publication) {
                let alone = lock(&part.seen).nodes == 0;
                plan.company(!alone, Instant::now());
                let due = plan.due(&publication, engine.id(), Instant::now());
                self.publish(part, &mut plan, &engine, publication, due).await;
                let mut seen = lock(&part.seen);
                seen.announced = plan.kept.values().filter(|k| k.there).count();
                seen.kept_here = plan.kept.values().filter(|k| k.here).count();
                seen.last_announce = plan.last;
            }
            let next = plan.next().unwrap_or_else(|| Instant::now() + DHT_ANNOUNCE);
            tokio::select! {
                // Who is registered here may change without a word to this task.
                () = tokio::time::sleep_until(next.min(Instant::now() + 5 * LOOK)) => {}
                _ = changed.changed() => {}
            }
        }
    }

    async fn publish(
        &self,
        part: &DhtPart,
        plan: &mut Plan,
        engine: &Engine,
        publication: Publication,
        due: Vec<Entry>,
    ) {
        let own_ip = publication.compact.addrs.iter().find_map(|a| match a.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        let mut under_way: JoinSet<(Entry, Result<Kept, Gone>)> = JoinSet::new();
        let mut due = due.into_iter();
        loop {
            while under_way.len() < ANNOUNCES
                && let Some(entry) = due.next()
            {
                let (engine, identity) = (engine.clone(), self.identity.clone());
                let (compact, port) = (publication.compact.clone(), publication.port);
                under_way.spawn(async move {
                    let result = match (&entry, port) {
                        (Entry::Item, _) => engine.put(&identity, compact, own_ip).await,
                        (Entry::Capability(name), Some(port)) => engine.announce(name, port, own_ip).await,
                        (Entry::Capability(_), None) => Ok(Kept::default()),
                    };
                    (entry, result)
                });
            }
            let Some(joined) = under_way.join_next().await else { return };
            let Ok((entry, result)) = joined else { continue };
            let Ok(kept) = result else { return part.lost(engine) };
            plan.done(&entry, kept, Instant::now());
        }
    }
}

/// One thing that stands in the DHT.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Item,
    Capability(String),
}

/// What stands there, and when it is to be put there again.
#[derive(Debug, Default)]
struct Plan {
    entries: BTreeMap<Entry, (Instant, Duration)>,
    /// What the item said last, its `seq` aside.
    item: Option<Compact>,
    port: Option<u16>,
    company: bool,
    /// Which run of the DHT it was put through.
    engine: Option<[u8; 20]>,
    /// When somebody else last took something.
    last: Option<Instant>,
    /// Who keeps what.
    kept: BTreeMap<Entry, Kept>,
}

impl Plan {
    /// What is due now. What is wanted no longer is forgotten: it fades in the DHT.
    fn due(&mut self, wanted: &Publication, engine: [u8; 20], now: Instant) -> Vec<Entry> {
        let said = Compact { seq: 0, ..wanted.compact.clone() };
        if self.engine != Some(engine) || self.port != wanted.port {
            self.entries.clear();
            self.kept.clear();
            (self.engine, self.port) = (Some(engine), wanted.port);
        }
        if self.item.as_ref() != Some(&said) {
            self.entries.remove(&Entry::Item);
            self.item = Some(said);
        }
        self.entries.retain(|entry, _| match entry {
            Entry::Item => true,
            Entry::Capability(name) => wanted.capabilities.contains(name),
        });
        self.kept.retain(|entry, _| self.entries.contains_key(entry));
        let all = wanted.capabilities.iter().cloned().map(Entry::Capability).chain([Entry::Item]);
        for entry in all {
            let jitter = Duration::from_millis(rand::rng().random_range(0..JITTER_MS));
            self.entries.entry(entry).or_insert((now + jitter, AGAIN));
        }
        self.entries.iter().filter(|(_, (at, _))| *at <= now).map(|(entry, _)| entry.clone()).collect()
    }

    /// Whether there is anybody to keep it. What nobody kept is put there at once when somebody comes.
    fn company(&mut self, company: bool, now: Instant) {
        if company && !std::mem::replace(&mut self.company, true) {
            for (entry, due) in &mut self.entries {
                if !self.kept.get(entry).is_some_and(|k| k.there) {
                    *due = (now, AGAIN);
                }
            }
        }
        self.company = company;
    }

    /// One was put there. Own servers are few: it is put there again soon when nobody else keeps it.
    fn done(&mut self, entry: &Entry, kept: Kept, now: Instant) {
        let Some((at, wait)) = self.entries.get_mut(entry) else { return };
        self.kept.insert(entry.clone(), kept);
        if kept.there {
            *wait = AGAIN;
            *at = now + DHT_ANNOUNCE.mul_f64(rand::rng().random_range(0.8..1.0));
            self.last = Some(now);
        } else {
            *at = now + *wait;
            *wait = (*wait * 2).min(AGAIN_MAX);
        }
    }

    fn next(&self) -> Option<Instant> {
        self.entries.values().map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::TrackerRole;

    fn publication(capabilities: &[&str], port: u16, seq: u64) -> Publication {
        Publication {
            capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
            port: Some(port),
            compact: Compact {
                name: String::new(),
                addrs: Vec::new(),
                trackers: Vec::new(),
                tracker: TrackerRole::None,
                seq,
                ttl_s: 1800,
            },
        }
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|e| if let Entry::Capability(name) = e { name } else { "" }).collect()
    }

    #[tokio::test]
    async fn what_changes_is_put_there_at_once_and_the_rest_when_its_time_comes() {
        let (mut plan, start) = (Plan::default(), Instant::now());
        let soon = start + Duration::from_secs(1);
        let kept = Kept { here: false, there: true };
        assert!(plan.due(&publication(&["a", "b"], 1, 1), [0; 20], start).len() <= 3);
        let due = plan.due(&publication(&["a", "b"], 1, 1), [0; 20], soon);
        assert_eq!(names(&due), ["", "a", "b"]);
        for entry in &due {
            plan.done(entry, kept, soon);
        }
        // Another seq alone is no change.
        assert!(plan.due(&publication(&["a", "b"], 1, 2), [0; 20], soon).is_empty());
        // Nobody is told that `b` is gone; it is not renewed.
        plan.due(&publication(&["a", "c"], 1, 2), [0; 20], soon);
        let later = soon + Duration::from_secs(1);
        assert_eq!(names(&plan.due(&publication(&["a", "c"], 1, 2), [0; 20], later)), ["c"]);
        plan.done(&Entry::Capability("c".into()), Kept::default(), later);
        assert_eq!(plan.next(), Some(later + AGAIN));
        // Another address, and another run of the DHT: everything anew.
        plan.due(&publication(&["a", "c"], 2, 2), [0; 20], later);
        let much_later = later + Duration::from_secs(1);
        assert_eq!(names(&plan.due(&publication(&["a", "c"], 2, 2), [0; 20], much_later)), ["", "a", "c"]);
        let due = plan.due(&publication(&["a", "c"], 2, 2), [1; 20], much_later + Duration::from_secs(1));
        assert!(due.len() <= 3 && plan.entries.len() == 3);
        for entry in [Entry::Item, Entry::Capability("a".into()), Entry::Capability("c".into())] {
            plan.done(&entry, kept, much_later);
        }
        let due = plan.due(&publication(&["a", "c"], 2, 2), [1; 20], much_later + DHT_ANNOUNCE);
        assert_eq!(names(&due), ["", "a", "c"]);
    }
}
