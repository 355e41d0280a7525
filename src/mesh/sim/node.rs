//! One simulated node: a run of a state, and what its driver and its owner would keep.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::work::Job;
use super::world::{Ended, N};
use crate::identity::{Identity, NodeId};
use crate::info::Sealing;
use crate::limits::Limits;
use crate::mesh::access::Access;
use crate::mesh::policy::Policy;
use crate::mesh::redial::Redial;
use crate::mesh::{CallEvent, Config, ConnId, DIALBACK, Now, State, TaskId, TaskKey};
use crate::seal::Sealer;
use crate::wire::{SEALED, TrackerRole};

/// 2026-01-01, in milliseconds: when the virtual clock starts.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Spec {
    pub name: String,
    pub caps: Vec<String>,
    pub interests: Vec<String>,
    pub tracker: TrackerRole,
    pub access: Access,
    pub policies: Vec<Policy>,
    pub listens: bool,
    /// It listens, and nobody comes through to it.
    pub nated: bool,
    pub limits: Limits,
    pub features: Vec<String>,
    /// What goes through trackers is sealed. Off unless said, for the sake of speed.
    pub sealing: Sealing,
    /// How far its clock is off, in milliseconds.
    pub offset_ms: i64,
}

impl Spec {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            caps: Vec::new(),
            interests: Vec::new(),
            tracker: TrackerRole::None,
            access: Access::default(),
            policies: Vec::new(),
            listens: true,
            nated: false,
            limits: Limits::default(),
            features: Vec::new(),
            sealing: Sealing::Off,
            offset_ms: 0,
        }
    }

    pub fn provides(mut self, cap: &str) -> Self {
        self.caps.push(cap.into());
        self
    }

    pub fn interest(mut self, pattern: &str) -> Self {
        self.interests.push(pattern.into());
        self
    }

    pub fn tracker(mut self) -> Self {
        self.tracker = TrackerRole::Public;
        self
    }

    pub fn private(mut self, allow: &[NodeId]) -> Self {
        self.tracker = TrackerRole::Private;
        self.access = allow.iter().fold(Access::private(), |access, id| access.allow(*id));
        self
    }

    pub fn policy(mut self, policy: Policy) -> Self {
        self.policies.push(policy);
        self
    }

    pub fn features(&self) -> Vec<String> {
        let dialback = (self.tracker != TrackerRole::None).then(|| DIALBACK.to_owned());
        let sealed = (self.sealing != Sealing::Off).then(|| SEALED.to_owned());
        self.features.iter().cloned().chain(dialback).chain(sealed).collect()
    }

    /// It seals what goes through trackers, so far as the other end does.
    pub fn seals(mut self, sealing: Sealing) -> Self {
        self.sealing = sealing;
        self
    }

    /// It can't be dialled.
    pub fn hidden(mut self) -> Self {
        self.listens = false;
        self
    }

    /// It doesn't know that it can't be dialled.
    pub fn nated(mut self) -> Self {
        self.nated = true;
        self
    }

    /// It can punch holes, or help to.
    pub fn punches(mut self) -> Self {
        self.features.push(crate::mesh::PUNCH.to_owned());
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }
}

/// A peer to keep connected to.
#[derive(Clone, Debug)]
pub struct Configured {
    pub addr: SocketAddr,
    pub known: Option<NodeId>,
    pub redial: Redial,
    /// Since when it is connected.
    pub since: Option<Duration>,
    pub dialing: bool,
    /// Whether the next dial is on its way to come.
    pub waiting: bool,
}

/// A call as its owner sees it.
#[derive(Debug, Default)]
pub struct OwnCall {
    pub n: u64,
    pub deadline: Duration,
    pub accepted: bool,
    pub chunks: Vec<u64>,
    pub untaken: u64,
    /// Whether the owner takes chunks as they come.
    pub takes: bool,
    pub ended: Option<Ended>,
}

pub struct Node {
    pub spec: Spec,
    pub identity: Identity,
    pub id: NodeId,
    pub state: State,
    pub sealer: Option<Sealer>,
    pub dice: StdRng,
    pub run: u32,
    pub port: u16,
    pub up: bool,
    pub started: Duration,
    pub armed: Option<Duration>,
    pub configured: Vec<Configured>,
    pub calls: BTreeMap<TaskId, OwnCall>,
    pub jobs: BTreeMap<TaskKey, Job>,
    pub events: Vec<(String, String)>,
    pub found: BTreeMap<String, Vec<(NodeId, u32)>>,
    pub find_over: HashSet<String>,
}

impl Node {
    pub fn new(n: N, spec: Spec, now: Duration) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(n as u64 + 1).to_le_bytes());
        let identity = Identity::from_seed(seed);
        let id = identity.id();
        let mut dice = StdRng::from_seed(seed);
        let (state, sealer) = Self::state(n, &spec, id, 0, 7000, now, &mut dice);
        Self {
            spec,
            identity,
            id,
            state,
            sealer,
            dice,
            run: 0,
            port: 7000,
            up: true,
            started: now,
            armed: None,
            configured: Vec::new(),
            calls: BTreeMap::new(),
            jobs: BTreeMap::new(),
            events: Vec::new(),
            found: BTreeMap::new(),
            find_over: HashSet::new(),
        }
    }

    /// Another run of it: everything but its key is forgotten.
    pub fn restart(&mut self, n: N, port: u16, now: Duration) {
        self.run += 1;
        self.port = port;
        (self.state, self.sealer) = Self::state(n, &self.spec, self.id, self.run, port, now, &mut self.dice);
        self.up = true;
        self.started = now;
        self.armed = None;
        self.calls.clear();
        self.jobs.clear();
        for peer in &mut self.configured {
            (peer.dialing, peer.waiting, peer.since) = (false, false, None);
            peer.redial = Redial::new(&self.spec.limits);
        }
    }

    fn state(
        n: N,
        spec: &Spec,
        id: NodeId,
        run: u32,
        port: u16,
        now: Duration,
        dice: &mut StdRng,
    ) -> (State, Option<Sealer>) {
        let config = Config {
            name: spec.name.clone(),
            version: "sim".into(),
            instance: format!("{n}-{run}"),
            features: spec.features(),
            tracker: spec.tracker,
            access: spec.access.clone(),
            serve_only: None,
            policies: spec.policies.clone(),
            port: spec.listens.then_some(port),
            bound: Some(ip(n)),
            advertise: Vec::new(),
            dht: false,
            sealing: spec.sealing,
            limits: spec.limits.clone(),
        };
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(n as u64).to_le_bytes());
        seed[8..12].copy_from_slice(&run.to_le_bytes());
        let now = Self::clock(spec, now, now);
        let mut state = State::new(id, config, seed, now);
        state.watch(true);
        let sealer = (spec.sealing != Sealing::Off).then(|| Sealer::new(id, dice));
        if let Some(sealer) = &sealer {
            // The record is signed when the node starts.
            state.set_seal_key(sealer.key(), now, &mut Vec::new());
            state.record_dirty = true;
        }
        (state, sealer)
    }

    fn clock(spec: &Spec, started: Duration, now: Duration) -> Now {
        let unix_ms = (EPOCH_MS + now.as_millis() as u64).saturating_add_signed(spec.offset_ms);
        Now { mono: now - started, unix_ms }
    }

    /// Its own time.
    pub fn now(&self, world: Duration) -> Now {
        Self::clock(&self.spec, self.started, world)
    }

    pub fn addr(&self, n: N) -> Option<SocketAddr> {
        (self.up && self.spec.listens && !self.spec.nated).then(|| SocketAddr::new(ip(n), self.port))
    }

    /// News of a call; gives how many chunks are to be reported as taken.
    pub fn call_event(&mut self, id: &TaskId, event: CallEvent, now: Duration) -> u64 {
        let call = self.calls.get_mut(id).unwrap_or_else(|| panic!("news of a call nobody made: {id} {event:?}"));
        assert!(call.ended.is_none(), "{id} ended before: {event:?}");
        match event {
            CallEvent::Accepted => call.accepted = true,
            CallEvent::Chunk(data) => {
                call.chunks.push(std::str::from_utf8(&data).unwrap().trim_matches('"').parse().unwrap());
                call.untaken += 1;
                assert!(call.untaken <= 32, "{id}: more chunks than its owner has room for");
                if call.takes {
                    return std::mem::take(&mut call.untaken);
                }
            }
            CallEvent::Done(result) => call.ended = Some(Ended { at: now, result: *result }),
        }
        0
    }
}

/// Every node has a host of its own.
pub fn ip(n: N) -> IpAddr {
    IpAddr::from([10, (n >> 16) as u8, (n >> 8) as u8, n as u8])
}

/// Whose host that is.
pub fn number(ip: IpAddr) -> Option<N> {
    let IpAddr::V4(ip) = ip else { return None };
    let [ten, a, b, c] = ip.octets();
    (ten == 10).then(|| N::from(a) << 16 | N::from(b) << 8 | N::from(c))
}

/// The other end's ephemeral address, and what it is good for: nothing.
pub fn ephemeral(n: N, conn: ConnId) -> SocketAddr {
    SocketAddr::new(ip(n), 40_000 + (conn.0 % 20_000) as u16)
}
