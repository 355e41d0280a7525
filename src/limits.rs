//! Every bound of a node, with its reason.
//!
//! The constants are part of the protocol or of the node's memory budget. [`Limits`] holds those that a
//! node's owner may want to change.

use std::time::Duration;

use crate::error::Error;

/// The most bytes of one message, without its line end: 1 MiB. The wire's cap; a longer one closes the connection.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// The most bytes of a message before the handshake is done: 16 KiB. A stranger gets no more memory than that.
pub const MAX_HANDSHAKE_MESSAGE: usize = 16 * 1024;

/// The deepest nesting of a message's JSON: 64. Deeper than any honest payload, shallow enough for any parser's stack.
pub const MAX_JSON_DEPTH: usize = 64;

/// The most digits of an integer: 4300. Python's `int()` refuses longer ones (`sys.int_info`), so an agent written in
/// Python could not read them.
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// The most bytes of a payload or a chunk's data, as canonical JSON: what fits into [`MAX_MESSAGE`] when it is sealed and
/// relayed. In base64 everything takes four bytes for three; the members around it, the envelope's and the relay's get
/// 16 KiB. It is the same whichever way a message goes, since that may change on the way.
pub const MAX_PAYLOAD: usize = MAX_MESSAGE / 4 * 3 - 16 * 1024;

/// How many messages are sealed in one context before another is agreed on: 2^32, far from what the AEAD bears.
pub const SEAL_CONTEXT_MESSAGES: u64 = 1 << 32;

/// How long a context is used for sealing: 10 minutes. Agreeing on another costs a tenth of a millisecond, and what it
/// sealed can't be opened with what is in the sender's memory afterwards.
pub const SEAL_CONTEXT_FOR: Duration = Duration::from_secs(600);

/// With how many nodes contexts for sealing, and for opening, are kept: 1024 each, of some 200 bytes. With more they are
/// agreed on again.
pub const MAX_SEAL_CONTEXTS: usize = 1024;

/// How many contexts for opening are kept of one node: it has one at a time, two when its clock says so, and another for
/// each key of ours that is valid. Whoever makes more pushes out its own.
pub const MAX_SEAL_CONTEXTS_OF_ONE: usize = 4;

/// How many seal keys that were replaced still open what is sealed to them. One at a time is valid, unless the limits
/// have keys replaced faster than records end.
pub const MAX_SEAL_KEYS: usize = 4;

/// The most bytes of an event's data, as canonical JSON: 64 KiB. Events go to many and wait for slow subscribers; what is
/// large is better asked for with a call.
pub const MAX_EVENT: usize = 64 * 1024;

/// The most bytes of a record: 8 KiB, the wire's cap. Records are what a node keeps of others.
pub const MAX_RECORD: usize = 8 * 1024;

/// The most characters of a message id.
pub const MAX_ID: usize = 64;

/// The most characters of a capability, an interest, an event type or a node's name.
pub const MAX_NAME: usize = 128;

/// The most capabilities, and the most interests, in one record. A record has 8 KiB.
pub const MAX_CAPS: usize = 256;

/// The most addresses in one record: a host has a handful of interfaces; more are somebody else's to be dialled.
pub const MAX_ADDRS: usize = 8;

/// The most trackers in one record.
pub const MAX_TRACKERS: usize = 4;

/// How far a query or an event travels: 5 hops reach everyone in a mesh of small-world shape.
pub const FLOOD_TTL: u8 = 5;

/// How many trackers a relayed frame may pass.
pub const MAX_RELAY_HOPS: u8 = 3;

/// The most bytes of what a node says of itself in the DHT: 1000, BEP 44's cap for a value.
pub const MAX_DHT_ITEM: usize = 1000;

/// The most capabilities of its own that a node announces in the DHT: 64. Each is a put to the 20 nodes nearest to the
/// key, every [`DHT_ANNOUNCE`]; the first by name are taken.
pub const MAX_DHT_CAPS: usize = 64;

/// The most capabilities that a tracker announces in the DHT for nodes registered with it that can't be dialled: 256.
pub const MAX_DHT_TRACKED_CAPS: usize = 256;

/// How often what stands in the DHT is put there again: 10 minutes, less up to a fifth by chance. A mainline server
/// accepts a token for 5 to 10 minutes and other implementations drop a peer after 15 to 30 minutes, so two in a row
/// may get lost.
pub const DHT_ANNOUNCE: Duration = Duration::from_secs(600);

/// How long what a node says of itself in the DHT is valid: 30 minutes, three announces.
pub const DHT_ITEM_TTL_S: u64 = 1800;

/// The most lookups of the DHT under way at once: 64. Calls and searches for the same share one.
pub const MAX_LOOKUPS: usize = 64;

/// The most addresses that one lookup dials: 16. The DHT's word is worth nothing until a handshake: more would make
/// every caller a scanner of whatever somebody put there.
pub const MAX_LOOKUP_DIALS: usize = 16;

/// How many of them at once: 4. The first that answers is used; more at once would be dialled in vain.
pub const LOOKUP_DIALS_AT_ONCE: usize = 4;

/// How long one of them may take, handshake included: 1 s. Three round trips between any two places fit, and dead
/// addresses can't use a lookup's time up.
pub const LOOKUP_DIAL: Duration = Duration::from_secs(1);

/// The most addresses that the DHT named which a node dials in a second, for good: 4, and 64 at once, for all lookups
/// together.
pub const DHT_DIALS_PER_SECOND: u32 = 4;

/// See [`DHT_DIALS_PER_SECOND`].
pub const DHT_DIAL_BURST: u32 = 64;

/// How long an address that led nowhere is not dialled for another lookup: 15 s.
pub const DHT_DEAD_ADDR: Duration = Duration::from_secs(15);

/// How long a connection to somebody the DHT named stays when nothing comes of it: 10 s.
pub const DHT_UNUSED: Duration = Duration::from_secs(10);

/// The most DHT contacts remembered to join with again: 64, the newest staying.
pub const MAX_DHT_CONTACTS: usize = 64;

/// To how many others a public tracker connects by itself. With 8 links chosen at random a mesh of trackers holds together
/// when most of them are lost, and a record crosses it in 2 or 3 links.
pub const MAX_FEDERATED: usize = 8;

/// The most trackers remembered to register with: several times what is needed, when many of them are gone.
pub const MAX_TRACKER_CANDIDATES: usize = 32;

/// The most of them that one peer told of: a peer that makes trackers up does not crowd out what others know.
pub const MAX_TRACKER_CANDIDATES_OF_ONE: usize = 8;

/// How many other nodes' records a tracker puts into a `welcome` beyond those of trackers and those that are wanted: a few
/// to begin with. Everybody else is found by asking.
pub const MAX_WELCOME_SAMPLE: usize = 2;

/// The most trackers' records in a `welcome`: twice what a node registers with.
pub const MAX_WELCOME_TRACKERS: usize = 8;

/// Records a second that a tracker sends another one: half of what a peer takes by default, so that queries and events
/// have room beside them.
pub const SHARE_PER_SECOND: u32 = 50;

/// Records that a tracker sends another one at once: a quarter of what a peer takes by default.
pub const SHARE_BURST: u32 = 100;

/// The most queries that wait for a moment before they are passed on; further ones are passed on at once.
pub const MAX_WAITING_QUERIES: usize = 1024;

/// The longest query that waits before it is passed on, in bytes: with [`MAX_WAITING_QUERIES`] it bounds what waits to
/// 2 MiB. An honest one has some 500.
pub const MAX_WAITING_QUERY: usize = 2048;

/// The most records in one `welcome` or `query_resp`: 64 of 8 KiB fit in half a message.
pub const MAX_RECORDS_PER_MESSAGE: usize = 64;

/// The most bytes of records in one `welcome` or `query_resp`.
pub const MAX_RECORD_BYTES_PER_MESSAGE: usize = 512 * 1024;

/// The longest time to live of a task: a day. A node remembers a task until its deadline, so it is bounded.
pub const MAX_TTL_S: u64 = 86_400;

/// How many dial-backs a tracker makes for one node at once; then one in [`DIAL_BACK_EVERY_S`]. A node asks when it connects,
/// when its address or mapping changes, and then every ten minutes.
pub const DIAL_BACK_BURST: u32 = 3;

/// Seconds between dial-backs for one node.
pub const DIAL_BACK_EVERY_S: u32 = 10;

/// How many dial-backs a tracker makes to one address (IPv6: to one /64) at once; then one in [`DIAL_BACK_IP_EVERY_S`]. A
/// hundred nodes behind one carrier's NAT ask once in 6 s together. Whoever wants to know all ports of an address it
/// shares needs a day and a half.
pub const DIAL_BACK_IP_BURST: u32 = 20;

/// Seconds between dial-backs to one address.
pub const DIAL_BACK_IP_EVERY_S: u32 = 2;

/// How many dial-backs a tracker makes in a second for all: a thousand nodes that come back at once are through in 50 s.
pub const DIAL_BACKS_PER_SECOND: u32 = 20;

/// How many on top of that at once.
pub const DIAL_BACK_TOTAL_BURST: u32 = 40;

/// How many dial-backs of a tracker are under way at once. One that nobody answers takes 3 s, so five in a second, when a
/// thousand nodes that can't be dialled ask for two in a second.
pub const MAX_DIAL_BACKS: usize = 16;

/// How many of them to one address.
pub const MAX_DIAL_BACKS_PER_IP: usize = 4;

/// How many nodes and addresses a tracker remembers to have dialled. At the rates above no more than 2880 entries tell
/// something; 100 bytes each.
pub const MAX_DIAL_BACK_BUCKETS: usize = 4096;

/// How many trackers a node asks to dial it: it names four in its record, and needs no more views of itself than that;
/// the rest is for those it changed from.
pub const MAX_VIEWS: usize = 8;

/// The most candidates kept: addresses at which somebody may be, of whom nothing is proven yet. 256 of some hundred
/// bytes; [`LAN_CANDIDATES`] and [`REMEMBERED_CANDIDATES`] are the shares that one source can't take from another.
pub const MAX_CANDIDATES: usize = 256;

/// The share of [`MAX_CANDIDATES`] for what the local network announces: more nodes than a LAN has as a rule. Whoever
/// announces ten thousand fills this share and no other.
pub const LAN_CANDIDATES: usize = 128;

/// The share of [`MAX_CANDIDATES`] for peers of earlier runs. They are taken from the file as places become free.
pub const REMEMBERED_CANDIDATES: usize = 64;

/// The most candidates of one node id from one source. A host has a handful of interfaces, and somebody who announces
/// another's id at wrong addresses gets no more room than that.
pub const MAX_CANDIDATE_ADDRS: usize = 4;

/// The most candidates from one source at one IP address: several nodes may share a machine, but a hundred ports of one
/// machine are a scan.
pub const MAX_CANDIDATES_PER_IP: usize = 32;

/// The most dials of candidates under way at once. Somebody who accepts and says nothing holds one for
/// [`Limits::handshake_timeout`].
pub const CANDIDATE_DIALS: usize = 8;

/// How many of [`CANDIDATE_DIALS`] one source may take: what the local network announces can't keep a node from the peers
/// it remembers.
pub const CANDIDATE_DIALS_PER_SOURCE: usize = 6;

/// How many candidates are dialled at once after a quiet time: the peers wanted, in one go.
pub const CANDIDATE_DIAL_BURST: u32 = 8;

/// How many candidates a second are dialled for good: enough to come through a share of bogus ones within a minute or
/// two, too few to be a scan or a flood of anybody.
pub const CANDIDATE_DIALS_PER_SECOND: u32 = 2;

/// The least wait before a candidate that failed is dialled again; it doubles with each failure.
pub const CANDIDATE_BACKOFF_MIN: Duration = Duration::from_secs(2);

/// The longest wait before a candidate is dialled again.
pub const CANDIDATE_BACKOFF_MAX: Duration = Duration::from_secs(600);

/// The longest wait while nobody is connected, and for two minutes or so for whoever was met in this run: after a cut the
/// mesh is to be whole again within ten seconds. [`CANDIDATE_DIALS_PER_SECOND`] bounds what that costs.
pub const CANDIDATE_BACKOFF_SOON: Duration = Duration::from_secs(8);

/// The longest that failures of one address of a node hold back its others.
pub const CANDIDATE_BACKOFF_NODE: Duration = Duration::from_secs(30);

/// How many peers found on the local network a node connects to by itself. The others are a hop or two away, or are
/// connected to when a call wants them.
pub const LAN_PEERS: usize = 8;

/// Remembered peers are dialled while fewer than this are connected: enough that losing one doesn't cut a node off.
pub const ENOUGH_PEERS: usize = 3;

/// The most nodes remembered from one run to the next: with [`MAX_REMEMBERED_ADDRS`] addresses each, 100 kB.
pub const MAX_REMEMBERED: usize = 256;

/// The most addresses remembered of one node.
pub const MAX_REMEMBERED_ADDRS: usize = 4;

/// The most bytes read of the file of remembered peers: ten times what a full one has.
pub const MAX_REMEMBERED_FILE: u64 = 1024 * 1024;

/// The most records that the multicast DNS daemon may have cached before it is started anew without them: a LAN of two
/// hundred nodes has a thousand. Somebody can fill it with records of 9 kB, the most that a datagram holds.
pub const MAX_LAN_RECORDS: usize = 2048;

/// The most times that the multicast DNS daemon may have noted for its records before it is started anew. It notes two
/// each time a record is heard again, until the record's time to live is over; 4 MiB of them.
pub const MAX_LAN_TIMERS: usize = 256 * 1024;

/// The most addresses in its own network that a node tells a tracker for hole punching: a host has a handful of them.
pub const MAX_PUNCH_CANDIDATES: usize = 4;

/// The most holes a node punches at once. Each holds five sockets for some seconds.
pub const MAX_PUNCHING: usize = 16;

/// The most nodes a node remembers attempts to punch through to. What is forgotten may be tried again early, which a
/// tracker's own bound covers.
pub const MAX_PUNCHES: usize = 256;

/// The most nodes remembered as reached only through a tracker: what a person reads in a listing.
pub const MAX_CONTACTS: usize = 256;

/// The most nodes and pairs of nodes whose rate of punching a tracker remembers, of about 100 bytes each; past that it
/// helps nobody new for a minute.
pub const MAX_PUNCH_PAIRS: usize = 4096;

/// The most ids in the access file, in one list of a rule for capabilities, and served by name: 100000. A set of them takes
/// 5 MB; looking one up takes a microsecond.
pub const MAX_ACCESS_ENTRIES: usize = 100_000;

/// The most bytes read of the access file: room for [`MAX_ACCESS_ENTRIES`] with a note of a hundred bytes each.
pub const MAX_ACCESS_FILE: u64 = 16 * 1024 * 1024;

/// The most rules for capabilities: each task looks through them in their order. As many as a node has capabilities.
pub const MAX_POLICIES: usize = 256;

/// Of how many callers it is remembered how often they asked, under rules with a rate: 150 bytes each.
pub const MAX_POLICY_CALLERS: usize = 16 * 1024;

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
    /// The most connections that others make to this node, proven or not; further ones are told `FULL`. Also the most
    /// that this node makes for its calls; beyond that they go through trackers or fail. Configured peers don't count.
    /// Default 1024.
    pub max_connections: usize,
    /// The most bytes waiting for one peer. Default 8 MiB: eight messages of the largest size.
    pub outbox_bytes: usize,
    /// The most messages waiting for one peer. Default 4096.
    pub outbox_messages: usize,
    /// Messages a second a peer may send for good. Default 2000.
    pub messages_per_second: u32,
    /// Messages a peer may send at once on top of that. Default 4000.
    pub message_burst: u32,
    /// Floods (queries, events, announces) a second a peer may send for good. Default 100.
    pub floods_per_second: u32,
    /// Floods a peer may send at once on top of that. Default 400.
    pub flood_burst: u32,
    /// The most records of other nodes kept. Default 4096, of at most 8 KiB each; the ones longest unheard go first.
    pub max_records: usize,
    /// How long a node's own record is valid, and a tracker's lease. Default 300 s, renewed at half of it.
    pub record_ttl: Duration,
    /// The most query and event ids remembered against loops and duplicates. Default 16384.
    pub max_seen: usize,
    /// The most calls of this node in flight. Default 4096; further ones fail with `OVERLOADED`.
    pub max_calls: usize,
    /// The most tasks running at once for all callers. Default 1024; further ones are answered `OVERLOADED`.
    pub max_tasks: usize,
    /// The most tasks running at once for one caller. Default 256, a quarter of [`max_tasks`](Self::max_tasks): one
    /// caller that asks for much leaves room for others. Further ones are answered `OVERLOADED`.
    pub max_tasks_per_caller: usize,
    /// The most tasks running or remembered until their deadlines, so that none runs twice. Default 1048576, of about
    /// 40 bytes each (those whose answers are kept apart). None is forgotten before its deadline: a caller is answered `OVERLOADED`
    /// instead when it has a third as many here as there is room left for. One caller alone gets a quarter, which at
    /// the most messages a second that a peer may send is two minutes of tasks; many greedy ones leave room for the next.
    pub max_remembered_tasks: usize,
    /// The most answers of finished tasks remembered, for callers that ask again. Default 16384; the oldest go first, and
    /// asked again the node says `DUPLICATE`.
    pub max_answers: usize,
    /// The most bytes of finished tasks' answers remembered. Default 64 MiB.
    pub remembered_bytes: usize,
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
        match durations.into_iter().find(|(_, value, least)| value < least || *value > year) {
            Some((name, value, least)) => {
                Err(Error::Config(format!("the limit {name} is {value:?}; it must be {least:?} to a year")))
            }
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
            max_connections: 1024,
            outbox_bytes: 8 * 1024 * 1024,
            outbox_messages: 4096,
            messages_per_second: 2000,
            message_burst: 4000,
            floods_per_second: 100,
            flood_burst: 400,
            max_records: 4096,
            record_ttl: Duration::from_secs(300),
            max_seen: 16 * 1024,
            max_calls: 4096,
            max_tasks: 1024,
            max_tasks_per_caller: 256,
            max_remembered_tasks: 1024 * 1024,
            max_answers: 16 * 1024,
            remembered_bytes: 64 * 1024 * 1024,
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
