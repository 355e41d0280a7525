//! How each tracker sees this node: what it was asked, what it answered, when it is asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::Rng;

use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::MAX_VIEWS;
use crate::mesh::conn_id::ConnId;
use crate::mesh::handshake::tellable;
use crate::wire::{DialBackResult, ProbeNonce};

/// How long the line and the answer are waited for. A tracker gives up after 3 s; the rest is for the way.
pub(super) const WAIT: Duration = Duration::from_secs(10);

/// How often an address is verified again.
pub(super) const AGAIN: Duration = Duration::from_secs(600);

/// How soon an address is verified again that failed once: a lost packet is no reason to take it back.
pub(super) const DOUBT: Duration = Duration::from_secs(15);

/// The least wait after failing; it doubles up to [`AGAIN`].
pub(super) const BACKOFF: Duration = Duration::from_secs(30);

/// How long an address is believed after the tracker that verified it was lost: three rounds.
pub(super) const KEPT: Duration = Duration::from_secs(1800);

/// How one tracker sees this node.
#[derive(Debug)]
pub(super) struct View {
    /// `None`: the tracker is lost.
    pub(super) conn: Option<ConnId>,
    /// From where it sees this node come, if it said.
    pub(super) observed: Option<IpAddr>,
    /// Whether it is this machine itself: it can tell nothing of the world.
    pub(super) loopback: bool,
    pub(super) question: Option<Question>,
    /// When it is asked again.
    pub(super) next: Duration,
    /// What it verified, and until when that is believed.
    pub(super) verified: Option<(SocketAddr, Duration)>,
    /// Why not.
    pub(super) failed: Option<String>,
    /// How often in a row.
    pub(super) failures: u32,
}

/// A question that is out.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) id: String,
    pub(super) port: u16,
    pub(super) nonce: ProbeNonce,
    pub(super) until: Duration,
    /// Whether the nonce came in over the listener.
    pub(super) arrived: bool,
    /// What the tracker says it dialled.
    pub(super) confirmed: Option<SocketAddr>,
}

/// A tracker that may be asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) conn: ConnId,
    pub(super) node: NodeId,
    pub(super) observed: Option<IpAddr>,
    pub(super) loopback: bool,
}

/// A question to be sent.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) conn: ConnId,
    pub(super) id: String,
    pub(super) port: u16,
    pub(super) nonce: ProbeNonce,
}

/// What is known of whether this node can be dialled.
#[derive(Debug, Default)]
pub struct Reach {
    pub(super) views: BTreeMap<NodeId, View>,
    /// The address of this node's port on its gateway.
    pub(super) mapped: Option<SocketAddr>,
}

impl Reach {
    /// These are the trackers connected now.
    pub(super) fn look(&mut self, offering: &[Asked], now: Duration) {
        let connected: BTreeSet<NodeId> = offering.iter().map(|a| a.node).collect();
        for (node, view) in &mut self.views {
            if !connected.contains(node) {
                (view.conn, view.question, view.failed, view.failures) = (None, None, None, 0);
            }
        }
        self.views.retain(|_, v| v.conn.is_some() || v.verified.is_some());
        for asked in offering {
            if let Some(view) = self.views.get_mut(&asked.node) {
                if view.conn == Some(asked.conn) {
                    continue;
                }
                // Seen from elsewhere than before: what was true there is not any more.
                if asked.observed.is_some() && view.verified.is_some_and(|(addr, _)| Some(addr.ip()) != asked.observed)
                {
                    view.verified = None;
                }
                (view.conn, view.question, view.next) = (Some(asked.conn), None, now);
                (view.observed, view.loopback) = (asked.observed, asked.loopback);
                continue;
            }
            if self.views.len() >= MAX_VIEWS {
                // Room is made by those that are gone; else there are enough.
                let gone = self.views.iter().find(|(_, v)| v.conn.is_none()).map(|(n, _)| *n);
                let Some(gone) = gone else { return };
                self.views.remove(&gone);
            }
            let view = View {
                conn: Some(asked.conn),
                observed: asked.observed,
                loopback: asked.loopback,
                question: None,
                next: now,
                verified: None,
                failed: None,
                failures: 0,
            };
            self.views.insert(asked.node, view);
        }
    }

    /// The port to be asked for: the one on the gateway where that is what the tracker sees.
    pub(super) fn port(&self, own: u16, observed: Option<IpAddr>) -> u16 {
        self.mapped.filter(|mapped| Some(mapped.ip()) == observed).map_or(own, |mapped| mapped.port())
    }

    /// What time brings: questions that nobody answered, addresses that are too old, and who is asked now.
    pub(super) fn due(&mut self, own: u16, now: Duration, rng: &mut impl Rng) -> Vec<Ask> {
        let mapped = self.mapped;
        let port = |observed| Self { mapped, ..Self::default() }.port(own, observed);
        let mut asks = Vec::new();
        for view in self.views.values_mut() {
            if let Some(question) = view.question.take_if(|q| q.until <= now) {
                let why = match question.confirmed {
                    Some(addr) => format!("the tracker says that it reached {addr}, but nothing came from there"),
                    None => "the tracker did not answer".to_owned(),
                };
                view.fail(why, now, rng);
            }
            view.verified.take_if(|(_, until)| *until <= now);
            let Some(conn) = view.conn else { continue };
            if view.question.is_none() && view.next <= now {
                let (mut nonce, mut id) = ([0; 16], [0; 8]);
                rng.fill_bytes(&mut nonce);
                rng.fill_bytes(&mut id);
                let (port, nonce) = (port(view.observed), ProbeNonce::new(nonce));
                let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
                let ask = Ask { conn, id: id.clone(), port, nonce };
                view.question = Some(Question { id, port, nonce, until: now + WAIT, arrived: false, confirmed: None });
                asks.push(ask);
            }
        }
        self.views.retain(|_, v| v.conn.is_some() || v.verified.is_some());
        asks
    }

    /// When [`due`](Self::due) is wanted next.
    pub(super) fn next_due(&self) -> Option<Duration> {
        let of = |v: &View| {
            let ask = match (&v.question, v.conn) {
                (Some(question), _) => Some(question.until),
                (None, Some(_)) => Some(v.next),
                (None, None) => None,
            };
            ask.into_iter().chain(v.verified.map(|(_, until)| until)).min()
        };
        self.views.values().filter_map(of).min()
    }

    /// Whether there is a next time.
    #[cfg(any(test, fuzzing))]
    pub fn waits(&self) -> bool {
        self.next_due().is_some()
    }

    /// A nonce came in over the listener. `false`: nobody was asked to bring it.
    pub(super) fn arrived(&mut self, nonce: ProbeNonce, now: Duration, rng: &mut impl Rng) -> bool {
        let of = |q: &Question| q.nonce == nonce && q.until > now && !q.arrived;
        let view = self.views.values_mut().find(|v| v.question.as_ref().is_some_and(of));
        let Some(view) = view else { return false };
        if let Some(question) = &mut view.question {
            question.arrived = true;
        }
        view.settle(now, rng);
        true
    }

    /// A tracker answered. `false`: it was not asked that, or not any more.
    pub(super) fn answered(&mut self, conn: ConnId, answer: DialBackResult, now: Duration, rng: &mut impl Rng) -> bool {
        let Some(view) = self.views.values_mut().find(|v| v.conn == Some(conn)) else { return false };
        let (observed, loopback) = (view.observed, view.loopback);
        let Some(question) = view.question.as_mut().filter(|q| q.id == answer.id && q.until > now) else {
            return false;
        };
        let addr = SocketAddr::new(answer.addr.ip().to_canonical(), answer.addr.port());
        match answer.outcome {
            Ok(()) => {
                let ours = addr.port() == question.port
                    && observed.is_none_or(|ip| ip == addr.ip())
                    && can_be_ours(addr.ip(), loopback);
                if ours {
                    question.confirmed = Some(addr);
                    view.settle(now, rng);
                } else {
                    view.fail(format!("the tracker names an address that is not this node's: {addr}"), now, rng);
                }
            }
            Err(error) if [ErrorCode::RateLimited, ErrorCode::Overloaded].iter().any(|c| c.as_str() == error.code) => {
                // Nothing is learned by that.
                let wait = error.retry_after().unwrap_or(DOUBT).clamp(DOUBT, AGAIN);
                view.question = None;
                view.next = now + jittered(wait, rng);
            }
            Err(error) => view.fail(tellable(&error.message), now, rng),
        }
        true
    }

    /// Another address on the gateway, or none any more; gives whether that is news.
    #[cfg(any(feature = "port-map", test, fuzzing))]
    pub(super) fn set_mapped(&mut self, mapped: Option<SocketAddr>, now: Duration) -> bool {
        if self.mapped == mapped {
            return false;
        }
        let before = std::mem::replace(&mut self.mapped, mapped);
        let at = |addr: Option<SocketAddr>, ip: IpAddr| addr.is_some_and(|addr| addr.ip() == ip);
        for view in self.views.values_mut() {
            view.verified.take_if(|(addr, _)| Some(*addr) == before);
            // Only who sees the gateway's address is asked for another port now.
            if view.observed.is_some_and(|ip| at(before, ip) || at(mapped, ip)) {
                (view.question, view.next) = (None, now);
            }
        }
        true
    }

    /// What was verified, each with who did.
    pub(super) fn verified(&self) -> BTreeMap<SocketAddr, Vec<NodeId>> {
        let mut addrs: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (node, view) in &self.views {
            if let Some((addr, _)) = view.verified {
                addrs.entry(addr).or_default().push(*node);
            }
        }
        addrs
    }
}

impl View {
    /// Both must be there: the nonce, which only who was dialled has, and the address that was dialled.
    fn settle(&mut self, now: Duration, rng: &mut impl Rng) {
        let both = self.question.as_ref().filter(|q| q.arrived).and_then(|q| q.confirmed);
        let Some(addr) = both else { return };
        (self.question, self.failed, self.failures) = (None, None, 0);
        self.verified = Some((addr, now + KEPT));
        self.next = now + jittered(AGAIN, rng);
    }

    fn fail(&mut self, why: String, now: Duration, rng: &mut impl Rng) {
        self.question = None;
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 && self.verified.is_some() {
            self.next = now + jittered(DOUBT, rng);
            return;
        }
        (self.verified, self.failed) = (None, Some(why));
        let doublings = (self.failures - 1).min(10);
        self.next = now + jittered((BACKOFF * (1 << doublings)).min(AGAIN), rng);
    }
}

/// Three quarters to five quarters of it: nodes that came at once don't come back at once.
fn jittered(wait: Duration, rng: &mut impl Rng) -> Duration {
    wait * 3 / 4 + (wait / 2).mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX))
}

/// Whether an address that a tracker names can be one of a host at all.
fn can_be_ours(ip: IpAddr, loopback: bool) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_unspecified() || ip.is_multicast() || broadcast) && (loopback || !ip.is_loopback())
}
