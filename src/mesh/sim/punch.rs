//! Hole punching between simulated nodes: a connection comes about when both are at it, from and to the right addresses.

use std::net::SocketAddr;
use std::time::Duration;

use super::links::Why;
use super::world::{Ev, N, World};
use crate::identity::NodeId;

/// How long a side tries.
const PATIENCE: Duration = Duration::from_secs(5);

/// One side's attempt.
#[derive(Clone, Debug)]
pub struct Hole {
    pub n: N,
    pub run: u32,
    pub node: NodeId,
    pub from: SocketAddr,
    pub to: Vec<SocketAddr>,
    pub at: Duration,
    pub dialler: bool,
}

impl World {
    pub fn punch(&mut self, hole: Hole) {
        let (at, i) = (hole.at, self.holes.len());
        self.holes.push(hole);
        self.at(at, Ev::Punch { hole: i });
        self.at(at + PATIENCE, Ev::PunchOver { hole: i });
    }

    fn lives(&self, hole: &Hole) -> bool {
        self.nodes[hole.n].up && self.nodes[hole.n].run == hole.run
    }

    pub fn punch_begins(&mut self, i: usize) {
        let own = self.holes[i].clone();
        let fits = |other: &&Hole| {
            let begun = other.at <= self.now && self.now < other.at + PATIENCE;
            let each_other = self.nodes[other.n].id == own.node && other.node == self.nodes[own.n].id;
            begun && each_other && self.lives(other)
        };
        let Some(other) = self.holes.iter().rev().find(fits).cloned() else { return };
        assert_ne!(own.dialler, other.dialler, "one says hello, the other listens");
        let aimed = own.to.contains(&other.from) && other.to.contains(&own.from);
        let open = !self.symmetric.contains(&own.n) && !self.symmetric.contains(&other.n);
        if !aimed || !open || !self.lives(&own) {
            return;
        }
        let (dialler, listener) = if own.dialler { (own, other) } else { (other, own) };
        self.meet((dialler.n, dialler.run), listener.n, Why::Punched, Vec::new());
    }

    pub fn punch_over(&mut self, i: usize) {
        let hole = self.holes[i].clone();
        if self.lives(&hole) {
            self.with(hole.n, |s, now, _| s.punch_failed(&hole.node, "no answer", now));
        }
    }

    /// How often a node began to punch.
    pub fn punched(&self, n: N) -> usize {
        self.holes.iter().filter(|h| h.n == n).count()
    }
}
