//! A network that is cut in two and heals, as TCP sees it: nothing is refused, nothing arrives. What was sent waits for its
//! acknowledgement; whoever waits for too long gives the connection up, and the other side doesn't learn of it. When the
//! network heals, what waits is sent again after a while, and who speaks into a connection that the other side gave up is
//! told so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::world::{Ev, N, World, secs};

/// Silence after which a connection says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// The longest pause before a system sends again what is not acknowledged, as long as it has not given up.
const RESENT: Duration = Duration::from_secs(7);

#[derive(Debug, Default)]
pub struct Parting {
    /// On which side each node is; empty: the network is whole.
    sides: Vec<bool>,
    /// Who has sent something that is not acknowledged: link and side, and since when.
    unacked: BTreeMap<(usize, usize), Duration>,
}

impl World {
    pub fn are_apart(&self, a: N, b: N) -> bool {
        let side = |n: N| self.parting.sides.get(n).copied().unwrap_or(false);
        side(a) != side(b)
    }

    pub fn is_apart(&self, link: usize) -> bool {
        let ends = &self.links[link].ends;
        self.are_apart(ends[0].0, ends[1].0)
    }

    /// Cuts the network between those with `true` and the others.
    pub fn part(&mut self, sides: Vec<bool>) {
        self.parting.sides = sides;
        for link in 0..self.links.len() {
            if self.is_apart(link) {
                for side in 0..2 {
                    let wait = HEARTBEAT.mul_f64(self.below(1000) as f64 / 1000.0);
                    self.after(wait, Ev::Beat { link, side });
                }
            }
        }
    }

    /// The network is whole again.
    pub fn heal(&mut self) {
        self.parting.sides.clear();
        for ((link, side), since) in std::mem::take(&mut self.parting.unacked) {
            let longest = (self.now - since).min(RESENT);
            let wait = longest.mul_f64(self.below(1000) as f64 / 1000.0);
            self.after(wait, Ev::Resent { link, side });
        }
    }

    /// A side has sent something that can't arrive.
    pub fn sent_into_cut(&mut self, link: usize, side: usize) {
        let now = self.now;
        let n = self.links[link].ends[side].0;
        if self.links[link].open[side] && self.parting.unacked.insert((link, side), now).is_none() {
            let wait = self.nodes[n].spec.limits.unacked_timeout;
            self.after(wait, Ev::Unacked { link, side });
        } else if let Some(since) = self.parting.unacked.get_mut(&(link, side)) {
            *since = (*since).min(now);
        }
    }

    /// A side says that it lives.
    pub fn beat(&mut self, link: usize, side: usize) {
        if !self.links[link].open[side] {
            return;
        }
        if self.is_apart(link) {
            self.sent_into_cut(link, side);
        } else if !self.links[link].open[1 - side] {
            self.down(link, side, None);
        }
    }

    /// A side has waited for an acknowledgement for as long as it does.
    pub fn unacked(&mut self, link: usize, side: usize) {
        if self.is_apart(link) && self.parting.unacked.remove(&(link, side)).is_some() {
            self.links[link].alive = false;
            self.links[link].half = true;
            self.down(link, side, None);
        }
    }

    /// A side sends again what was lost.
    pub fn resent(&mut self, link: usize, side: usize) {
        if self.links[link].alive && !self.is_apart(link) {
            for _ in 0..self.links[link].waiting(1 - side) {
                self.at(self.now, Ev::Deliver { link, side: 1 - side });
            }
        } else if !self.is_apart(link) {
            self.down(link, side, None);
        }
    }

    /// Both sides of the mesh, a node's number deciding: even ones with even ones.
    pub fn halves(&self) -> Vec<bool> {
        (0..self.nodes.len()).map(|n| n % 2 == 1).collect()
    }

    /// How many arrived at a node in the busiest second since a moment.
    pub fn peak_of_arrivals(&self, n: N, since: Duration) -> usize {
        let times: Vec<Duration> =
            self.arrived.iter().filter(|(at, m)| *m == n && *at >= since).map(|(at, _)| *at).collect();
        times.iter().map(|t| times.iter().filter(|u| *u >= t && **u < *t + secs(1)).count()).max().unwrap_or(0)
    }
}
