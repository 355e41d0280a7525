//! A tracker dials back: for whom, how often, and where it never does.
//!
//! It dials the address that the asker's own connection comes from, so it can be made to knock at nobody's door but the
//! asker's, or that of who shares its address. That is why addresses are counted as well as nodes: keys cost nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::action::{Action, OnFull, What};
use super::clock::Now;
use super::conn_id::ConnId;
use super::origin::Origin;
use super::state::State;
use super::throttle::Bucket;
use crate::error::ErrorCode;
use crate::identity::NodeId;
use crate::limits::{
    DIAL_BACK_BURST, DIAL_BACK_EVERY_S, DIAL_BACK_IP_BURST, DIAL_BACK_IP_EVERY_S, DIAL_BACK_TOTAL_BURST,
    DIAL_BACKS_PER_SECOND, MAX_DIAL_BACK_BUCKETS, MAX_DIAL_BACKS, MAX_DIAL_BACKS_PER_IP,
};
use crate::wire::dialback::dial_back_result;
use crate::wire::{DialBack, TrackerRole, WireError};

/// The feature of trackers that dial back.
pub const FEATURE: &str = "dialback";

/// Ports that are never dialled, whoever asks: the "bad ports" of the WHATWG's Fetch standard, which browsers refuse for
/// the same reason, that of a line meant for one protocol reaching another; and 9100, where printers print what comes.
const NEVER: &[u16] = &[
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
    111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532,
    540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061,
    6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9100, 10080,
];

/// Whose dials are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Node(NodeId),
    Ip(Origin),
}

impl Who {
    fn at(ip: IpAddr) -> Self {
        Self::Ip(Origin::of(ip))
    }

    /// A full bucket, and by what its time is slowed: buckets count whole tokens a second.
    fn bucket(self) -> Bucket {
        match self {
            Self::Node(_) => Bucket::new(1, DIAL_BACK_BURST),
            Self::Ip(_) => Bucket::new(1, DIAL_BACK_IP_BURST),
        }
    }

    fn every(self) -> u32 {
        match self {
            Self::Node(_) => DIAL_BACK_EVERY_S,
            Self::Ip(_) => DIAL_BACK_IP_EVERY_S,
        }
    }
}

/// A bucket is full again after this, and what is kept of it tells nothing more.
const FULL_AFTER: Duration =
    Duration::from_secs((DIAL_BACK_BURST * DIAL_BACK_EVERY_S + DIAL_BACK_IP_BURST * DIAL_BACK_IP_EVERY_S) as u64);

/// What a tracker remembers of the dials it makes for others.
#[derive(Debug)]
pub struct DialBacks {
    buckets: BTreeMap<Who, (Bucket, Duration)>,
    total: Bucket,
    /// Under way: for each address.
    running: BTreeMap<Who, usize>,
}

impl Default for DialBacks {
    fn default() -> Self {
        Self {
            buckets: BTreeMap::new(),
            total: Bucket::new(DIAL_BACKS_PER_SECOND, DIAL_BACK_TOTAL_BURST),
            running: BTreeMap::new(),
        }
    }
}

/// Why a dial is not made, and when it could be.
#[derive(Debug, PartialEq, Eq)]
enum NotNow {
    TooOften(Duration),
    Busy,
}

impl DialBacks {
    /// Takes a dial's place, if there is one. Nothing is spent on a dial that is refused.
    fn begin(&mut self, node: NodeId, ip: IpAddr, now: Duration) -> Result<(), NotNow> {
        let (node, ip) = (Who::Node(node), Who::at(ip));
        let at_ip = self.running.get(&ip).copied().unwrap_or(0);
        if at_ip >= MAX_DIAL_BACKS_PER_IP || self.running.values().sum::<usize>() >= MAX_DIAL_BACKS {
            return Err(NotNow::Busy);
        }
        let mut spent = Vec::with_capacity(2);
        for who in [node, ip] {
            let mut bucket = self.buckets.get(&who).map_or_else(|| who.bucket(), |(bucket, _)| bucket.clone());
            let slow = who.every();
            bucket.take(now / slow).map_err(|wait| NotNow::TooOften(wait.saturating_mul(slow)))?;
            spent.push((who, (bucket, now)));
        }
        if self.buckets.len() + 2 > MAX_DIAL_BACK_BUCKETS {
            self.buckets.retain(|_, (_, used)| now.saturating_sub(*used) < FULL_AFTER);
            if self.buckets.len() + 2 > MAX_DIAL_BACK_BUCKETS {
                return Err(NotNow::Busy);
            }
        }
        self.total.take(now).map_err(NotNow::TooOften)?;
        self.buckets.extend(spent);
        *self.running.entry(ip).or_default() += 1;
        Ok(())
    }

    fn end(&mut self, ip: IpAddr) {
        let ip = Who::at(ip);
        if let Some(running) = self.running.get_mut(&ip) {
            *running -= 1;
            if *running == 0 {
                self.running.remove(&ip);
            }
        }
    }
}

impl State {
    /// A peer wants to know whether it can be dialled.
    pub(super) fn on_dial_back(&mut self, ask: &DialBack, conn: ConnId, now: Now, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get(conn) else { return };
        let (node, ip) = (peer.arrival.node, peer.arrival.addr.ip().to_canonical());
        // The address is that of the connection, whatever else the message says.
        let addr = SocketAddr::new(ip, ask.port);
        let refusal = if self.config.tracker == TrackerRole::None {
            WireError::new(ErrorCode::NoTracker, "this node is not a tracker: it dials back for nobody")
        } else if NEVER.contains(&ask.port) {
            let message = format!("port {} belongs to another service and is never dialled: use another", ask.port);
            WireError::new(ErrorCode::BadRequest, message)
        } else {
            match self.dial_backs.begin(node, ip, now.mono) {
                Ok(()) => {
                    self.counters.dial_backs += 1;
                    let id = ask.id.clone();
                    return out.push(Action::DialBack { conn, id, addr, nonce: ask.nonce });
                }
                Err(NotNow::TooOften(wait)) => {
                    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                    let message = "too many dial-backs for this node, its address or this tracker";
                    WireError::new(ErrorCode::RateLimited, message).retry_after_s(seconds)
                }
                Err(NotNow::Busy) => {
                    WireError::new(ErrorCode::Overloaded, "too many dial-backs are under way").retry_after_s(5)
                }
            }
        };
        self.refuse("dial_back_refused");
        let answer = dial_back_result(&ask.id, addr, &Err(refusal));
        out.push(Action::Send { to: conn, what: What::Ready(answer), on_full: OnFull::Drop });
    }

    /// A dial for a peer is over: `Ok` when the line was taken there.
    pub fn dialled_back(
        &mut self,
        conn: ConnId,
        id: &str,
        addr: SocketAddr,
        done: Result<(), &str>,
        out: &mut Vec<Action>,
    ) {
        self.dial_backs.end(addr.ip());
        let outcome = done.map_err(|why| WireError::new(ErrorCode::NoPeer, why));
        let answer = dial_back_result(id, addr, &outcome);
        out.push(Action::Send { to: conn, what: What::Ready(answer), on_full: OnFull::Drop });
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

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// As often as it is let, each dial ending at once.
    fn let_through(backs: &mut DialBacks, asks: impl Iterator<Item = (NodeId, IpAddr, Duration)>) -> usize {
        let begun = asks.filter(|(node, ip, now)| {
            let begun = backs.begin(*node, *ip, *now).is_ok();
            if begun {
                backs.end(*ip);
            }
            begun
        });
        begun.count()
    }

    #[test]
    fn a_node_gets_three_and_then_one_in_ten_seconds() {
        let mut backs = DialBacks::default();
        let ip: IpAddr = [192, 0, 2, 1].into();
        assert_eq!(let_through(&mut backs, (0..100).map(|_| (node(1), ip, secs(1)))), 3);
        assert_eq!(backs.begin(node(1), ip, secs(1)), Err(NotNow::TooOften(secs(10))));
        assert_eq!(let_through(&mut backs, (0..1000).map(|s| (node(1), ip, secs(1) + secs(s)))), 99);
    }

    #[test]
    fn many_keys_behind_one_address_get_no_more_than_the_address() {
        let mut backs = DialBacks::default();
        let ip: IpAddr = [192, 0, 2, 1].into();
        assert_eq!(let_through(&mut backs, (0..1000).map(|n| (node(n), ip, secs(1)))), DIAL_BACK_IP_BURST as usize);
        let later = (0..1000u32).map(|n| (node(1000 + n), ip, secs(1) + Duration::from_millis(100) * n));
        assert_eq!(let_through(&mut backs, later), 49, "100 s at one in two seconds");
        // Nor do the addresses that one IPv6 host gives itself.
        let hosts = (0..1000u32).map(|n| {
            let ip = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n as u16);
            (node(5000 + n), IpAddr::from(ip), secs(500))
        });
        assert_eq!(let_through(&mut backs, hosts), DIAL_BACK_IP_BURST as usize);
    }

    #[test]
    fn what_is_remembered_and_what_is_dialled_in_all_is_bounded() {
        let mut backs = DialBacks::default();
        let asks = (0..100_000u32).map(|n| (node(n), IpAddr::from(n.to_be_bytes()), Duration::from_millis(n.into())));
        let through = let_through(&mut backs, asks);
        let most = (DIAL_BACK_TOTAL_BURST + 100 * DIAL_BACKS_PER_SECOND) as usize;
        assert!((most - 10..=most).contains(&through), "{through}");
        assert!(backs.buckets.len() <= MAX_DIAL_BACK_BUCKETS, "{}", backs.buckets.len());
        assert!(backs.running.is_empty());
    }

    #[test]
    fn a_few_at_once_and_none_of_one_address_takes_all_places() {
        let mut backs = DialBacks::default();
        let ip = |n: u32| IpAddr::from((n + 0x0a00_0000).to_be_bytes());
        let at_one = (0..50).filter(|n| backs.begin(node(*n), ip(1), secs(1)).is_ok()).count();
        assert_eq!(at_one, MAX_DIAL_BACKS_PER_IP);
        let others = (2..50).filter(|n| backs.begin(node(*n), ip(*n), secs(1)).is_ok()).count();
        assert_eq!(at_one + others, MAX_DIAL_BACKS);
        assert_eq!(backs.begin(node(99), ip(99), secs(60)), Err(NotNow::Busy));
        backs.end(ip(1));
        assert_eq!(backs.begin(node(99), ip(99), secs(60)), Ok(()));
    }

    #[test]
    fn no_ipv4_address_counts_as_an_ipv6_one() {
        let v6: IpAddr = "2001:db8::".parse().unwrap();
        assert_ne!(Who::at(v6), Who::at([32, 1, 13, 184].into()));
        assert_eq!(Who::at("::ffff:1.2.3.4".parse().unwrap()), Who::at([1, 2, 3, 4].into()));
    }
}
