//! The bounds that a node's owner may change.

use std::time::Duration;

use crate::error::Error;

/// The least memory budget.
const MIN_MEMORY: usize = 2 * 1024 * 1024;

/// What a node's owner may change. The defaults are for a node on the open internet with a few hundred peers.
///
/// ```
/// let limits = elo::Limits::default().with(|l| l.max_tasks = 4);
/// let node = elo::Node::builder().limits(limits);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// How long a handshake may take. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long a TCP connect may take. Default 3 s: three SYNs; a call tries the next way after that.
    pub connect_timeout: Duration,
    /// Silence after which a heartbeat is sent. Default 30 s: below the idle timeout of common NATs.
    pub heartbeat_interval: Duration,
    /// Silence after which a peer is dead. Default 90 s: three heartbeats.
    pub idle_timeout: Duration,
    /// How long a connection that was dialled for calls stays without a task or call between the two nodes. Default
    /// 600 s: every connection makes queries and events dearer, and making one again takes milliseconds. Those to configured peers
    /// and to trackers stay.
    pub unused_timeout: Duration,
    /// How long one write may make no progress before the peer is closed as too slow. Default 10 s.
    pub write_timeout: Duration,
    /// How far clocks may differ. Default 300 s.
    pub clock_skew: Duration,
    /// The most connections of others that have proven who they are; further ones are told `FULL`. Also the most
    /// that this node makes for its calls; beyond that they go through trackers or fail. Configured peers don't count.
    /// Default 2048: two NATs with a thousand nodes each. At rest each costs some 32 KiB, and a file descriptor.
    pub max_connections: usize,
    /// The most connections of others that have proven nothing yet; further ones are told `FULL`. They have places apart from
    /// [`max_connections`](Self::max_connections), so who never proves anything takes nobody's place. One address may
    /// have as many as it leaves free: half of them alone, a third when there are two such. Default 256: a
    /// handshake takes two round trips, so a thousand a second have room.
    pub max_half_open: usize,
    /// The most connections from one address (IPv6: one /64), proven or not; further ones are told `FULL`. Default 1024, half of
    /// [`max_connections`](Self::max_connections): a thousand nodes behind one NAT, and room for the others.
    pub max_connections_per_ip: usize,
    /// Handshakes a second that one address (IPv6: one /64) may begin for good; further ones are told `RATE_LIMITED`.
    /// Default 50: each costs half a millisecond of signatures, so one address takes 3 % of a core. A thousand nodes behind
    /// one NAT that come back at once are through in some 20 s.
    pub handshakes_per_second_per_ip: u32,
    /// Handshakes that one address may begin at once on top of that. Default 250.
    pub handshake_burst_per_ip: u32,
    /// How long a peer may take for one message from its first byte, while this node reads all that comes; then it is closed as
    /// too slow. Default 60 s: the largest message over 140 kbit/s.
    pub message_timeout: Duration,
    /// Bytes a second a peer may send for good; above that it is read no faster. Default 256 MiB, two gigabits: what
    /// [`messages_per_second`](Self::messages_per_second) come to at 1 KiB each. Scanning them takes less than a core.
    pub bytes_per_second: u32,
    /// Bytes a peer may send at once on top of that. Default 512 MiB; 2 MiB at least.
    pub byte_burst: u32,
    /// The most bytes waiting for one peer. Default 8 MiB: eight messages of the largest size.
    pub outbox_bytes: usize,
    /// The most messages waiting for one peer. Default 4096.
    pub outbox_messages: usize,
    /// Messages a second a peer may send for good. Default 250000, twice what two nodes that do nothing else bring each
    /// other: it is the signatures that are dear, and they have a rate of their own. Reading a message takes 1 to 2 µs, so
    /// who sends at this rate for good takes half a core at most; what one connection brings is read by one task, which
    /// lets others have their turn after each 32 messages.
    pub messages_per_second: u32,
    /// Messages a peer may send at once on top of that. Default 500000.
    pub message_burst: u32,
    /// Signatures a second that are checked of what a peer sends, for good; above that it is read no faster. Default 10000: each
    /// takes some 45 µs, so who has as many forged ones checked takes half a core. With batches one signature covers
    /// many messages; a peer that signs each by itself spends about as much on each as this node does.
    pub signatures_per_second: u32,
    /// Signatures that are checked at once on top of that. Default 20000, a second of one core.
    pub signature_burst: u32,
    /// Floods (queries, events, announces) a second a peer may send for good. Default 100.
    pub floods_per_second: u32,
    /// Floods a peer may send at once on top of that. Default 400.
    pub flood_burst: u32,
    /// The most records of other nodes kept. Default 4096, of at most 8 KiB each. When there is no room, one goes that the
    /// peer told which told the most, the longest unheard first; those of connected peers stay.
    pub max_records: usize,
    /// The most records kept that one peer told; then its oldest go. Default 2048, half of
    /// [`max_records`](Self::max_records): a tracker knows a thousand nodes and more.
    pub max_records_per_peer: usize,
    /// How long a node's own record is valid, and a tracker's lease. Default 300 s, renewed at half of it.
    pub record_ttl: Duration,
    /// The most query and event ids remembered against loops and duplicates. Default 16384 of each. When there is no room,
    /// the oldest goes of the peer that brought the most: one peer's flood pushes out no one else's.
    pub max_seen: usize,
    /// The most subscriptions of this node's own at once. Default 1024, of 256 waiting events each.
    pub max_subscriptions: usize,
    /// The most calls of this node in flight. Default 4096; further ones fail with `OVERLOADED`.
    pub max_calls: usize,
    /// The most tasks running at once for all callers. Default 4096, as many as [`max_calls`](Self::max_calls); further
    /// ones are answered `OVERLOADED`. Each takes some kilobytes, and what its payload and its handler hold: the payloads
    /// are counted in [`memory_budget`](Self::memory_budget).
    pub max_tasks: usize,
    /// The most tasks running at once for one caller. Default 1024, a quarter of [`max_tasks`](Self::max_tasks): one
    /// caller that asks for much leaves room for others. A caller with some hundreds in flight stays below it
    /// also while answers are on their way. Further ones are answered `OVERLOADED`.
    pub max_tasks_per_caller: usize,
    /// How much is remembered of tasks until their deadlines, so that none runs twice. A task's id counts 1, or 2 for all
    /// ids together that are one of 64 in a row as elo makes them; each unit is 34 bytes at most. Default 1048576. None is
    /// forgotten before its deadline: a caller is answered `OVERLOADED` instead when it has a third as much here as there
    /// is room left for. One caller alone gets a quarter. With the usual minute of life that is room for 120000
    /// of elo's calls a second, or for 4000 with ids of any other kind; many greedy ones leave room for the next.
    pub max_remembered_tasks: usize,
    /// The most answers of finished tasks remembered, for callers that ask again. Default 16384: four times
    /// [`max_calls`](Self::max_calls), so one caller's fit that lost its connection with all its calls in flight. When there is
    /// no room, the oldest goes of the caller for whom the most is kept, and asked again the node says `DUPLICATE`: who calls
    /// at full speed makes nobody else's be forgotten.
    pub max_answers: usize,
    /// The most bytes of finished tasks' answers remembered. Default 64 MiB.
    pub remembered_bytes: usize,
    /// Bytes a second that a tracker relays from one node to another for good; more is answered `RATE_LIMITED` with the time
    /// after which to send again. Default 4 MiB: a tracker is the way when there is no other, and many share it.
    pub relay_bytes_per_second: u32,
    /// Bytes that a tracker relays from one node to another at once on top of that. Default 16 MiB; 1 MiB at least.
    pub relay_byte_burst: u32,
    /// The most relayed tasks whose results a tracker waits for, to tell the caller when the target is lost. Default 16384
    /// of about 200 bytes; of one source a sixteenth, of one address a third of what is free. Beyond that the caller's own
    /// asking finds out.
    pub max_carried: usize,
    /// Bytes of memory for what peers make this node hold: waiting messages, input that is not complete, tasks' payloads,
    /// remembered answers, records, chunks out of order, and 32 KiB for each connection. Default 512 MiB. From 70 % on the
    /// cheapest goes first: remembered answers, from 75 % records of nodes that are not connected, from 80 % gossip; from
    /// 85 % new tasks are answered `OVERLOADED`, from 90 % the peer that holds the most is closed as `TOO_SLOW`, from
    /// 95 % new connections are told `FULL`. The program itself comes on top, and what the allocator keeps for later.
    pub memory_budget: usize,
    /// How long a call waits for answers to a query flood before it tries the next step. Default 2 s.
    pub query_wait: Duration,
    /// How long a call or a search waits for the DHT, dialling whom it names included. Default 3 s.
    pub dht_wait: Duration,
    /// The least wait before a configured peer is dialled again. Default 1 s.
    pub redial_min: Duration,
    /// The longest wait before a configured peer is dialled again. Default 60 s.
    pub redial_max: Duration,
    /// The longest wait before a peer is dialled again that was connected less than [`redial_soon_for`](Self::redial_soon_for)
    /// ago. Default 4 s: when a cut network heals, the mesh is whole again within seconds.
    pub redial_soon: Duration,
    /// For how long a lost peer is believed to come back soon. Default 120 s; then the waits double up to
    /// [`redial_max`](Self::redial_max).
    pub redial_soon_for: Duration,
    /// With how many trackers the node is registered: the configured ones, and public ones that it hears of until
    /// there are that many. Default 4, which is what a record names. 0: only with those configured; a public tracker then
    /// connects to no other tracker by itself either.
    pub max_trackers: usize,
    /// How long what was sent may stay unacknowledged by the other side's system before the connection is given up.
    /// Default 15 s. Without it TCP tries for a quarter of an hour, with pauses of up to two minutes: longer than the cut that
    /// caused it. Linux only (`TCP_USER_TIMEOUT`); elsewhere the system decides.
    pub unacked_timeout: Duration,
    /// How long a node seals with one key of its own before it makes another. Default 24 h. What was sealed to it can't be
    /// opened by anybody once records that name it have ended.
    pub seal_key_lifetime: Duration,
    /// How long a task goes on after the connection that it came over was lost, while its caller has not come back. Default
    /// 30 s: a caller looks for its responder for 10 s. Then the handler is cancelled, and the answer is `PEER_GONE`.
    pub caller_timeout: Duration,
    /// How long `shutdown` lets tasks and calls in flight finish. Default 5 s.
    pub drain_timeout: Duration,
}

impl Limits {
    /// The same with some of them changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Whether a node can work with them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let year = Duration::from_secs(365 * 86_400);
        let least = Duration::from_millis(1);
        // On the wire, and when it is renewed, a record's time counts in whole seconds.
        let second = Duration::from_secs(1);
        let durations = [
            ("handshake_timeout", self.handshake_timeout, least),
            ("connect_timeout", self.connect_timeout, least),
            ("heartbeat_interval", self.heartbeat_interval, least),
            ("idle_timeout", self.idle_timeout, least),
            ("write_timeout", self.write_timeout, least),
            ("message_timeout", self.message_timeout, least),
            ("clock_skew", self.clock_skew, Duration::ZERO),
            ("record_ttl", self.record_ttl, second),
            ("query_wait", self.query_wait, Duration::ZERO),
            ("dht_wait", self.dht_wait, Duration::ZERO),
            ("redial_min", self.redial_min, least),
            ("redial_max", self.redial_max, self.redial_min),
            ("redial_soon", self.redial_soon, least),
            ("redial_soon_for", self.redial_soon_for, Duration::ZERO),
            ("unacked_timeout", self.unacked_timeout, least),
            ("seal_key_lifetime", self.seal_key_lifetime, Duration::from_millis(100)),
            ("caller_timeout", self.caller_timeout, Duration::ZERO),
            ("drain_timeout", self.drain_timeout, Duration::ZERO),
        ];
        if let Some((name, value, least)) =
            durations.into_iter().find(|(_, value, least)| value < least || *value > year)
        {
            return Err(Error::Config(format!("the limit {name} is {value:?}; it must be {least:?} to a year")));
        }
        // Ten connections at rest and a message of the largest size: with less nothing would work.
        if self.memory_budget < MIN_MEMORY {
            let message = format!(
                "the limit memory_budget is {} bytes; it must be {MIN_MEMORY} (2 MiB) at least",
                self.memory_budget
            );
            return Err(Error::Config(message));
        }
        let per_ip = [("max_half_open", self.max_half_open), ("max_connections_per_ip", self.max_connections_per_ip)];
        match per_ip.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(Error::Config(format!(
                "the limit {name} is 0, so nobody could connect; to take no connections, don't listen"
            ))),
            None => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            heartbeat_interval: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(90),
            unused_timeout: Duration::from_secs(600),
            write_timeout: Duration::from_secs(10),
            clock_skew: Duration::from_secs(300),
            max_connections: 2048,
            max_half_open: 256,
            max_connections_per_ip: 1024,
            handshakes_per_second_per_ip: 50,
            handshake_burst_per_ip: 250,
            message_timeout: Duration::from_secs(60),
            bytes_per_second: 256 * 1024 * 1024,
            byte_burst: 512 * 1024 * 1024,
            outbox_bytes: 8 * 1024 * 1024,
            outbox_messages: 4096,
            messages_per_second: 250_000,
            message_burst: 500_000,
            signatures_per_second: 10_000,
            signature_burst: 20_000,
            floods_per_second: 100,
            flood_burst: 400,
            max_records: 4096,
            max_records_per_peer: 2048,
            record_ttl: Duration::from_secs(300),
            max_seen: 16 * 1024,
            max_subscriptions: 1024,
            max_calls: 4096,
            max_tasks: 4096,
            max_tasks_per_caller: 1024,
            max_remembered_tasks: 1024 * 1024,
            max_answers: 16 * 1024,
            remembered_bytes: 64 * 1024 * 1024,
            relay_bytes_per_second: 4 * 1024 * 1024,
            relay_byte_burst: 16 * 1024 * 1024,
            max_carried: 16 * 1024,
            memory_budget: 512 * 1024 * 1024,
            query_wait: Duration::from_secs(2),
            dht_wait: Duration::from_secs(3),
            redial_min: Duration::from_secs(1),
            redial_max: Duration::from_secs(60),
            redial_soon: Duration::from_secs(4),
            redial_soon_for: Duration::from_secs(120),
            max_trackers: 4,
            unacked_timeout: Duration::from_secs(15),
            seal_key_lifetime: Duration::from_secs(24 * 3600),
            caller_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
        }
    }
}
