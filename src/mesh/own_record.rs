//! What this node says of itself: what it provides and wants, its addresses and trackers, and when that is signed anew.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::peers::Arrival;
use super::state::{State, Timer};
use super::throttle::Bucket;
use crate::identity::NodeId;
use crate::info::Source;
use crate::limits::{FLOOD_TTL, MAX_ADDRS, MAX_CAPS, MAX_RECORD, MAX_TRACKERS};
use crate::wire::{Capability, Record, RecordDraft, TrackerRole, draft};

/// How often the record is written anew at most because of its trackers alone: they come several at a time.
const TRACKERS_SETTLE: Duration = Duration::from_secs(1);

/// How often for good: 8 times, and then once in 10 s. Anybody can connect, call itself a tracker, and leave.
const TRACKERS_BURST: u32 = 8;
const TRACKERS_EVERY: u32 = 10;

/// What was given to be signed, and when there may be more.
#[derive(Debug)]
pub struct Drafts {
    /// The addresses of the last one.
    addrs: Vec<SocketAddr>,
    /// Its seq.
    last_seq: u64,
    /// How far the two clocks were apart at that time.
    clock_ms: i64,
    /// Whether the trackers are others since.
    trackers_dirty: bool,
    /// When there may be one because of the trackers.
    trackers_told: Duration,
    trackers_news: Bucket,
}

impl Default for Drafts {
    fn default() -> Self {
        Self {
            addrs: Vec::new(),
            last_seq: 0,
            clock_ms: 0,
            trackers_dirty: false,
            trackers_told: Duration::ZERO,
            trackers_news: Bucket::new(1, TRACKERS_BURST),
        }
    }
}

/// How far the wall clock is ahead of the one that only goes on, in milliseconds: it changes when the wall clock is set.
fn clock_ms(now: Now) -> i64 {
    now.unix_ms as i64 - now.mono.as_millis() as i64
}

impl State {
    /// Provides a capability from now on. `false`: no room, or the name is not valid.
    pub fn register(&mut self, cap: Capability, now: Now, out: &mut Vec<Action>) -> bool {
        let before = self.caps.clone();
        let done = self.caps.insert(cap);
        self.mark_changed(before != self.caps, now, out);
        done
    }

    /// Whether the record has room for a capability.
    pub fn fits(&self, cap: &Capability) -> bool {
        self.record_size_with(cap) <= MAX_RECORD
    }

    /// How large the record would be with a capability, in bytes: at most, whatever addresses and trackers come.
    pub fn record_size_with(&self, cap: &Capability) -> usize {
        /// The other members of a record, its signature, 8 addresses and 4 trackers.
        const AROUND: usize = 1024;
        let mut caps = self.caps.clone();
        caps.insert(cap.clone());
        let caps = crate::wire::canonicalize_value(&caps.to_value()).map_or(usize::MAX / 2, |c| c.len());
        let interests: usize = self.interests.keys().map(|i| i.len() * 6 + 3).sum();
        AROUND + self.config.name.len() * 6 + caps + interests
    }

    /// Its tracker role.
    pub fn tracker_role(&self) -> TrackerRole {
        self.config.tracker
    }

    /// Provides it no longer.
    pub fn unregister(&mut self, name: &str, now: Now, out: &mut Vec<Action>) -> bool {
        let done = self.caps.remove(name);
        self.mark_changed(done, now, out);
        done
    }

    /// Whether it announces that capability.
    pub fn announces(&self, capability: &str) -> bool {
        self.caps.provides(capability)
    }

    /// Answers tasks for that capability, announced or not.
    pub fn handles(&mut self, capability: &str) {
        self.handled.insert(capability.to_owned());
    }

    /// Is interested once more. `false`: no room.
    pub fn add_interest(&mut self, pattern: &str, now: Now, out: &mut Vec<Action>) -> bool {
        if let Some(count) = self.interests.get_mut(pattern) {
            *count += 1;
            return true;
        }
        if self.interests.len() >= MAX_CAPS {
            return false;
        }
        self.interests.insert(pattern.to_owned(), 1);
        self.mark_changed(true, now, out);
        true
    }

    /// Is interested once less.
    pub fn remove_interest(&mut self, pattern: &str, now: Now, out: &mut Vec<Action>) -> bool {
        let Some(count) = self.interests.get_mut(pattern) else { return false };
        *count -= 1;
        if *count == 0 {
            self.interests.remove(pattern);
            self.mark_changed(true, now, out);
        }
        true
    }

    fn mark_changed(&mut self, changed: bool, now: Now, out: &mut Vec<Action>) {
        self.record_dirty |= changed;
        self.flush_record(now, out);
        if changed {
            self.tell_legacy_all(now, out);
        }
    }

    /// Asks for a signature now: the node starts.
    pub fn publish_record(&mut self, now: Now, out: &mut Vec<Action>) {
        self.record_dirty = true;
        self.flush_record(now, out);
    }

    /// The record is half its age, or its trackers have changed.
    pub(super) fn record_due(&mut self, now: Now, out: &mut Vec<Action>) {
        // Trackers that changed have their own pace; without them it is half its age.
        self.record_dirty |= !self.drafts.trackers_dirty;
        self.flush_record(now, out);
    }

    /// Looks whether the clock was set by more than clocks may differ: then one of the two times was wrong, and if it was the
    /// earlier one, nobody has this node's record.
    pub(super) fn look_at_clock(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.drafts.clock_ms.abs_diff(clock_ms(now)) > self.skew_ms() {
            self.record_dirty = true;
            self.flush_record(now, out);
        }
    }

    fn skew_ms(&self) -> u64 {
        u64::try_from(self.config.limits.clock_skew.as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether the last record is dated further in the future than clocks may differ.
    fn is_ahead(&self, now: Now) -> bool {
        self.drafts.last_seq.saturating_sub(now.unix_ms) > self.skew_ms()
    }

    /// Asks for a new signature when the record is out of date.
    pub fn flush_record(&mut self, now: Now, out: &mut Vec<Action>) {
        if !self.record_dirty {
            if !self.drafts.trackers_dirty {
                return;
            }
            if now.mono >= self.drafts.trackers_told
                && let Err(wait) = self.drafts.trackers_news.take(now.mono / TRACKERS_EVERY)
            {
                self.drafts.trackers_told = now.mono + wait.saturating_mul(TRACKERS_EVERY);
            }
            if now.mono < self.drafts.trackers_told {
                return self.timers.set(Timer::Record, self.drafts.trackers_told);
            }
        }
        if self.drafts.trackers_dirty {
            self.drafts.trackers_told = now.mono + TRACKERS_SETTLE;
        }
        (self.record_dirty, self.drafts.trackers_dirty) = (false, false);
        // Never the same seq twice, also when the clock stands or goes back. But where it went back by more than clocks may
        // differ, it was wrong before: nobody took that record, and nobody would take one of a later seq.
        self.drafts.last_seq = match self.is_ahead(now) {
            true => now.unix_ms,
            false => now.unix_ms.max(self.drafts.last_seq + 1),
        };
        self.drafts.clock_ms = clock_ms(now);
        let draft = self.record_draft(self.drafts.last_seq);
        self.drafts.addrs.clone_from(&draft.addrs);
        out.push(Action::SignRecord(Box::new(draft)));
        self.timers.set(Timer::Record, now.mono + self.config.limits.record_ttl / 2);
    }

    /// The addresses may have changed: then the record has.
    pub(super) fn flush_addrs(&mut self, now: Now, out: &mut Vec<Action>) {
        self.record_dirty |= self.addrs() != self.drafts.addrs;
        self.flush_record(now, out);
    }

    fn record_draft(&self, seq: u64) -> RecordDraft {
        RecordDraft {
            name: self.config.name.clone(),
            caps: self.caps.clone(),
            interests: self.interests.keys().cloned().collect(),
            addrs: self.addrs(),
            trackers: self.trackers.clone(),
            tracker: self.config.tracker,
            features: self.config.features.clone(),
            version: self.config.version.clone(),
            instance: self.config.instance.clone(),
            dht: self.dht_port,
            seal: self.seal_key,
            seq,
            ttl_s: self.config.limits.record_ttl.as_secs().clamp(1, crate::wire::MAX_RECORD_TTL_S),
        }
    }

    /// The addresses to publish: those the owner named, else those that trackers verified where there are some to ask,
    /// else those found out.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        if !self.config.advertise.is_empty() {
            return self.config.advertise.iter().copied().take(MAX_ADDRS).collect();
        }
        let Some(port) = self.config.port else { return Vec::new() };
        // A tracker is found at its address or not at all: it stands by it.
        if self.config.tracker == TrackerRole::None
            && let Some(verified) = self.verified_addrs()
        {
            return verified;
        }
        let local = self.local_addrs(port);
        let mapped = self.mapped_addr().filter(|addr| !local.contains(addr));
        mapped.into_iter().chain(local).take(MAX_ADDRS).collect()
    }

    fn local_addrs(&self, port: u16) -> Vec<SocketAddr> {
        match self.config.bound {
            Some(ip) => vec![SocketAddr::new(ip, port)],
            None => {
                // Loopback says something only to this machine: it is named when there is nothing else.
                let beyond = self.local_ips.iter().any(|ip| !ip.is_loopback());
                let ips = self.local_ips.iter().filter(|ip| !(beyond && ip.is_loopback()));
                ips.take(MAX_ADDRS).map(|ip| SocketAddr::new(*ip, port)).collect()
            }
        }
    }

    /// A node that listens everywhere learns its addresses from its own connections.
    pub(super) fn learn_local_addr(&mut self, arrival: &Arrival) {
        self.near.note(arrival.addr.ip());
        self.note_local_ip(arrival.local.ip());
    }

    pub(super) fn note_local_ip(&mut self, ip: IpAddr) {
        if self.config.port.is_none() || self.config.bound.is_some() || !self.config.advertise.is_empty() {
            return;
        }
        let ip = ip.to_canonical();
        if !ip.is_unspecified() && self.local_ips.len() < MAX_ADDRS && self.local_ips.insert(ip) {
            self.record_dirty = true;
        }
    }

    /// Which trackers the record names: the configured ones, then those this node chose, those named before first, then
    /// those that came to it.
    pub(super) fn refresh_trackers(&mut self, now: Now) {
        let mut connected: Vec<(bool, bool, bool, NodeId)> = Vec::new();
        for (_, peer) in self.peers.trackers() {
            let node = peer.arrival.node;
            let (configured, own) = (peer.arrival.how.found == Source::Peer, self.is_own_tracker(peer));
            connected.push((!configured, !own, !self.trackers.contains(&node), node));
        }
        connected.sort();
        let mut named: Vec<NodeId> = connected.into_iter().take(MAX_TRACKERS).map(|(.., node)| node).collect();
        // Their order says nothing, so it is no news.
        let is_named = |t: &NodeId| self.trackers.contains(t);
        if named.len() == self.trackers.len() && named.iter().all(is_named) {
            named.clone_from(&self.trackers);
        }
        if named != self.trackers {
            self.trackers = named;
            self.drafts.trackers_dirty = true;
        }
        self.look_for_trackers(now);
    }

    /// The record was signed; peers are told.
    pub fn record_signed(&mut self, record: Record, out: &mut Vec<Action>) {
        // Two changes may be signed at once; the later one wins, whichever is ready first. What has a seq beyond the last
        // draft's is from before the clock was set back.
        let last = self.drafts.last_seq;
        if record.seq > last || self.record.as_ref().is_some_and(|r| r.seq >= record.seq && r.seq <= last) {
            return;
        }
        let announce = draft::announce(&record.object, FLOOD_TTL);
        self.record = Some(Arc::new(record));
        for (conn, _) in self.peers.all_proven() {
            out.push(Action::Send { to: conn, what: What::Ready(announce.clone()), on_full: OnFull::Drop });
        }
    }
}
