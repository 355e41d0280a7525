//! Every bound of a node, with its reason.
//!
//! The constants are part of the protocol or of the node's memory budget. [`Limits`] holds those that a
//! node's owner may want to change.

mod settable;

use std::time::Duration;

pub use settable::Limits;

/// The most bytes of one message, without its line end: 1 MiB. The wire's cap; a longer one closes the connection.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// The most bytes of a message before the handshake is done: 16 KiB. A stranger gets no more memory than that.
pub const MAX_HANDSHAKE_MESSAGE: usize = 16 * 1024;

/// The deepest nesting of a message's JSON: 64. Deeper than any honest payload, shallow enough for any parser's stack.
pub const MAX_JSON_DEPTH: usize = 64;

/// The most digits of an integer: 4300. Python's `int()` refuses longer ones (`sys.int_info`), so an agent written in
/// Python could not read them.
pub const MAX_INTEGER_DIGITS: usize = 4300;

/// The most messages that share one signature: 256. Signing and checking one takes 68 µs together, so among 256 each has a
/// quarter of a microsecond of it, less than its hashes cost; every doubling makes each message 43 bytes longer.
pub const BATCH_MAX: usize = 256;

/// The most signed roots that a connection's reader remembers, of some 150 bytes each: what comes over one connection at a time
/// is of a few authors. What was forgotten is checked again.
pub const MAX_ROOTS: usize = 16;

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

/// The most rotations that a node shows: 8 statements of some 370 bytes fit into a record and into the handshake beside all
/// else. Who knew only an id before the last eight can't follow it.
pub const MAX_ROTATIONS: usize = 8;

/// The most bytes of a rotation or a revocation: with a reason all of whose characters are escaped it has 1 KiB.
pub const MAX_STATEMENT: usize = 2048;

/// The most characters of a revocation's reason: a line for people.
pub const MAX_REASON: usize = 128;

/// The most revocations in one message.
pub const MAX_STATEMENTS: usize = 16;

/// The most revocations that a peer is told of when it connects: 256, some 100 KB. Those about ids that this node has to
/// do with come first.
pub const MAX_TOLD_REVOCATIONS: usize = 256;

/// The most rotations, and the most revocations, kept about ids that the owner named: 2048 of each. The lists of who may
/// connect are of people's making.
pub const MAX_NAMED_STATEMENTS: usize = 2048;

/// The most rotations, and the most revocations, kept about ids that this node met: 512 of each.
pub const MAX_MET_STATEMENTS: usize = 512;

/// The most rotations, and the most revocations, kept about ids that mean nothing to this node: 512 of each, so that it
/// can tell others. Anybody can make any number of keys and revoke them.
pub const MAX_OTHER_STATEMENTS: usize = 512;

/// Statements a second about ids that mean nothing to this node which one peer may bring for good. What is over that is
/// not looked at.
pub const STATEMENTS_PER_SECOND: u32 = 5;

/// How many on top of that at once: what a peer tells when it connects.
pub const STATEMENT_BURST: u32 = 256;

/// The most bytes read of the file of statements: what there may be of them at their longest.
pub const MAX_STATEMENT_FILE: u64 = 16 * 1024 * 1024;

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

/// Refusals a second for good that one peer is answered for tasks and queries above its rate: 2000, of some 20 µs for each
/// signature. Who sends even more is read no faster than that.
pub const REFUSALS_PER_SECOND: u32 = 2000;

/// How many on top of that at once.
pub const REFUSAL_BURST: u32 = 4000;

/// The most records in one `welcome` or `query_resp`: 64 of 8 KiB fit in half a message.
pub const MAX_RECORDS_PER_MESSAGE: usize = 64;

/// The most bytes of records in one `welcome` or `query_resp`.
pub const MAX_RECORD_BYTES_PER_MESSAGE: usize = 512 * 1024;

/// The longest time to live of a task: a day. A node remembers a task until its deadline, so it is bounded.
pub const MAX_TTL_S: u64 = 86_400;

/// The most calls that `elo bench` has in flight: 4096, what a node makes by default ([`Limits::max_calls`]).
#[cfg(feature = "cli")]
pub(crate) const MAX_BENCH_IN_FLIGHT: usize = 4096;

/// The longest that `elo bench` makes calls: 10 minutes. It is load for somebody else, and may be forgotten in a terminal.
#[cfg(feature = "cli")]
pub(crate) const MAX_BENCH: Duration = Duration::from_secs(600);

/// The longest that `elo bench` makes calls which don't count: a minute, in which any cache is warm.
#[cfg(feature = "cli")]
pub(crate) const MAX_BENCH_WARM_UP: Duration = Duration::from_secs(60);

/// The most calls that `elo bench` is asked for: 100 million, more than are made in [`MAX_BENCH`].
#[cfg(feature = "cli")]
pub(crate) const MAX_BENCH_CALLS: u64 = 100_000_000;

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

/// How many places beyond those of live connections the table has that counts connections and handshakes by address, of
/// some 100 bytes each. An address is forgotten when its handshakes are within its rate again, after 5 s at the latest,
/// so only 80,000 connections a second from ever new addresses would fill it; further ones are then told `FULL`.
pub const MAX_ORIGINS: usize = 4096;

/// How many counts a tracker has for the relayed bytes of pairs of nodes. Pairs share them, by a hash that nobody outside
/// knows: the memory is the same however many keys somebody makes, and who uses up a hundred of them slows one pair
/// in forty down.
pub const RELAY_COUNTS: usize = 4096;

/// A relayed frame of so many bytes passes whatever its pair has sent: 1 KiB, what acknowledgements, cancels and short errors
/// have. Without them what is under way could not end. They count, and messages have a rate of their own.
pub const RELAY_FREE: usize = 1024;

/// The longest that a tracker tells a caller to wait until its pair may be relayed for again.
pub const RELAY_WAIT_MAX: Duration = Duration::from_secs(60);

/// What a connection is taken to cost at rest, in bytes: 32 KiB, the buffer it reads into and its two tasks.
pub const CONNECTION_BYTES: usize = 32 * 1024;

/// What a record is taken to cost beside twice its text: 1 KiB, for what was read from it and its places in the tables.
pub const RECORD_BYTES: usize = 1024;

/// The most ids in the access file, in one list of a rule for capabilities, and served by name: 100000. A set of them takes
/// 5 MB; looking one up takes a microsecond.
pub const MAX_ACCESS_ENTRIES: usize = 100_000;

/// The most bytes read of the access file: room for [`MAX_ACCESS_ENTRIES`] with a note of a hundred bytes each.
pub const MAX_ACCESS_FILE: u64 = 16 * 1024 * 1024;

/// The most rules for capabilities: each task looks through them in their order. As many as a node has capabilities.
pub const MAX_POLICIES: usize = 256;

/// Of how many callers it is remembered how often they asked, under rules with a rate: 150 bytes each.
pub const MAX_POLICY_CALLERS: usize = 16 * 1024;

/// From how many bytes on a message is long: it waits apart, so that short ones pass it, and is signed and checked alone, on a
/// task of its own. To sign or check so much costs about as much for its length as for the signature.
pub const LONG_MESSAGE: usize = 32 * 1024;

/// How many messages are signed and written at once. More would hardly be cheaper for each, and the first of them would wait.
pub const ROUND_MESSAGES: usize = 256;

/// And how many bytes.
pub const ROUND_BYTES: usize = 256 * 1024;

/// What every node answers without announcing it.
pub(crate) const BUILT_IN: &[&str] = &["ping", "health", WAKE];

/// The capability by which a node is asked how the agent behind another one is reached.
pub(crate) const WAKE: &str = "wake";
