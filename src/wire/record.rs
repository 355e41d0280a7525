//! What a node says of itself, signed by it and passed on by others unchanged.

use std::net::SocketAddr;

use super::batch::lists_batch;
use super::caps::Caps;
use super::fields::Fields;
use super::json::{Builder, Object, canonicalize_value};
use super::keylife::{Rotation, read_chain, write_chain};
use super::message::Malformed;
use super::role::TrackerRole;
use super::sealed::{InvalidSealKey, SEALED, SealKey};
use crate::identity::{Identity, NodeId};
use crate::limits::{MAX_ADDRS, MAX_RECORD, MAX_TRACKERS};

/// The longest validity a record may claim, in seconds: an hour. What is gone must be forgotten.
pub const MAX_RECORD_TTL_S: u64 = 3600;

/// What a node says of itself.
#[derive(Clone, Debug)]
pub struct Record {
    /// Whose record it is, and who signed it.
    pub node_id: NodeId,
    /// The name it gives itself; may be empty.
    pub name: String,
    /// What it provides; where records are kept without the details, which [`details`](Self::details) reads.
    pub caps: Caps,
    /// What it wants to hear of.
    pub interests: Vec<String>,
    /// Where it can be dialled.
    pub addrs: Vec<SocketAddr>,
    /// Through whom it is reached.
    pub trackers: Vec<NodeId>,
    /// Whether it is a tracker.
    pub tracker: TrackerRole,
    /// What it can do beyond this version of the protocol.
    pub features: Vec<String>,
    /// Its program version.
    pub version: String,
    /// Which run of the node wrote it.
    pub instance: Option<String>,
    /// The UDP port of its DHT server, on its IPv4 addresses; `None`: it serves none.
    pub dht: Option<u16>,
    /// The key to which what is relayed to it is sealed.
    pub seal: Option<SealKey>,
    /// UNIX milliseconds when it was written; the highest wins.
    pub seq: u64,
    /// How long it is valid from then, in seconds.
    pub ttl_s: u64,
    /// The ids that it says it had before, the oldest first: proven by what [`rotations`](Self::rotations) are signed with,
    /// which is not looked at here.
    pub former: Vec<NodeId>,
    /// As it came.
    pub object: Object,
}

impl Record {
    /// Reads a record's members. The signature is not looked at.
    pub fn parse(object: &Object) -> Result<Self, Malformed> {
        let f = Fields::new(object)?;
        if f.kind() != "record" {
            return Err(f.malformed("type: expected \"record\""));
        }
        if object.raw().len() > MAX_RECORD {
            return Err(f.malformed(format!("longer than {MAX_RECORD} bytes")));
        }
        let tracker = f.tracker()?;
        let ttl_s = f.u64("ttl_s")?;
        if ttl_s == 0 || ttl_s > MAX_RECORD_TTL_S {
            return Err(f.malformed(format!("ttl_s: 1 to {MAX_RECORD_TTL_S} seconds")));
        }
        let node_id = f.node("node_id")?;
        let chain = read_chain(&f, &node_id)?;
        Ok(Self {
            node_id,
            name: f.opt_short("name")?.unwrap_or_default(),
            caps: caps(&f)?,
            interests: f.names("interests")?,
            addrs: f.addrs("addrs", MAX_ADDRS)?,
            trackers: f.nodes("trackers", MAX_TRACKERS)?,
            tracker,
            features: f.names("features")?,
            version: f.opt_short("version")?.unwrap_or_default(),
            instance: f.opt_short("instance")?,
            dht: dht(&f)?,
            seal: seal(&f)?,
            seq: f.u64("seq")?,
            ttl_s,
            former: chain.iter().map(|step| step.old).collect(),
            object: object.clone(),
        })
    }

    /// Whether what is relayed to it is sealed.
    pub fn takes_sealed(&self) -> bool {
        self.features.iter().any(|f| f == SEALED)
    }

    /// Whether it takes messages that were signed in a batch.
    pub fn takes_batches(&self) -> bool {
        lists_batch(&self.features)
    }

    /// What it provides, with what it says of it.
    pub fn details(&self) -> Caps {
        Fields::new(&self.object).and_then(|f| caps(&f)).unwrap_or_default()
    }

    /// The statements by which its earlier ids led to it, the oldest first. Their signatures are not looked at.
    pub fn rotations(&self) -> Vec<Rotation> {
        let chain = Fields::new(&self.object).and_then(|f| read_chain(&f, &self.node_id));
        chain.map(|chain| chain.to_vec()).unwrap_or_default()
    }

    /// Whether it says that it had this id before.
    pub fn was(&self, id: &str) -> bool {
        !self.former.is_empty() && id.parse().is_ok_and(|id| self.former.contains(&id))
    }

    /// What it holds, in bytes, with the counters of who shares it.
    #[cfg(test)]
    pub(crate) fn weight(&self) -> usize {
        let texts = [&self.name, &self.version].into_iter().chain(&self.instance);
        let texts = texts.chain(&self.interests).chain(&self.features).map(String::capacity).sum::<usize>();
        let lists = (self.interests.capacity() + self.features.capacity()) * size_of::<String>()
            + self.addrs.capacity() * size_of::<SocketAddr>()
            + (self.trackers.capacity() + self.former.capacity()) * size_of::<NodeId>();
        size_of::<Self>() + 16 + texts + lists + self.caps.weight() + self.object.weight()
    }

    /// Whether one of its interests covers a name.
    pub fn is_interested(&self, name: &str) -> bool {
        self.interests.iter().any(|p| super::matches_pattern(p, name))
    }

    /// Whether one of its interests covers one of those capabilities.
    pub fn is_interested_in(&self, caps: &Caps) -> bool {
        self.interests.iter().any(|pattern| caps.matches(pattern))
    }
}

/// A port, if one is named: 0 is none that anybody listens on.
fn dht(f: &Fields<'_>) -> Result<Option<u16>, Malformed> {
    let port = f.opt_u64("dht")?;
    port.map(|port| u16::try_from(port).ok().filter(|p| *p != 0).ok_or_else(|| f.malformed("dht: a port, 1 to 65535")))
        .transpose()
}

fn seal(f: &Fields<'_>) -> Result<Option<SealKey>, Malformed> {
    let key = f.opt_text("seal")?;
    key.map(|key| key.parse().map_err(|e: InvalidSealKey| f.malformed(format!("seal: {e}")))).transpose()
}

fn caps(f: &Fields<'_>) -> Result<Caps, Malformed> {
    let caps = f.opt_raw("caps").ok_or_else(|| f.malformed("caps: missing"))?;
    let caps = serde_json::from_slice(&caps).map_err(|_| f.malformed("caps: not readable"))?;
    Caps::from_value(&caps).map_err(|why| f.malformed(format!("caps: {why}")))
}

/// A record before it is signed.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordDraft {
    /// See [`Record::name`].
    pub name: String,
    /// See [`Record::caps`].
    pub caps: Caps,
    /// See [`Record::interests`].
    pub interests: Vec<String>,
    /// See [`Record::addrs`].
    pub addrs: Vec<SocketAddr>,
    /// See [`Record::trackers`].
    pub trackers: Vec<NodeId>,
    /// See [`Record::tracker`].
    pub tracker: TrackerRole,
    /// See [`Record::features`].
    pub features: Vec<String>,
    /// See [`Record::version`].
    pub version: String,
    /// See [`Record::instance`].
    pub instance: String,
    /// See [`Record::dht`].
    pub dht: Option<u16>,
    /// See [`Record::seal`].
    pub seal: Option<SealKey>,
    /// See [`Record::seq`].
    pub seq: u64,
    /// See [`Record::ttl_s`].
    pub ttl_s: u64,
}

impl RecordDraft {
    /// Signs it. `None` when it is longer than a record may be.
    pub fn sign(&self, identity: &Identity) -> Option<Record> {
        let caps = canonicalize_value(&self.caps.to_value()).ok()?;
        let strings = |list: &[String]| -> Vec<String> { list.to_vec() };
        let builder = Builder::new("record")
            .str("node_id", &identity.id().to_string())
            .str("name", &self.name)
            .raw("caps", &caps)
            .strings("interests", &strings(&self.interests))
            .strings("addrs", &self.addrs.iter().map(ToString::to_string).collect::<Vec<_>>())
            .strings("trackers", &self.trackers.iter().map(ToString::to_string).collect::<Vec<_>>())
            .strings("features", &strings(&self.features))
            .str("version", &self.version)
            .str("instance", &self.instance)
            .tracker(self.tracker)
            .u64("seq", self.seq)
            .u64("ttl_s", self.ttl_s);
        let builder = match self.dht {
            Some(port) => builder.u64("dht", port.into()),
            None => builder,
        };
        let builder = builder.opt_str("seal", self.seal.map(|key| key.to_string()).as_deref());
        // What names who this node was gives way to what it can do, the oldest first.
        let rotations = identity.rotations();
        let with = |from: usize| write_chain(builder.clone(), &rotations[from..]).sign(identity, &[]);
        (0..=rotations.len()).find_map(|from| Record::parse(&with(from)).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Object;

    fn record(dht: &str) -> Result<Record, Malformed> {
        let id = Identity::from_seed([1; 32]).id();
        let text = format!(r#"{{"type":"record","node_id":"{id}","caps":{{}},"seq":1,"ttl_s":1{dht}}}"#);
        Record::parse(&Object::parse(text.into_bytes().into()).unwrap())
    }

    #[test]
    fn the_port_of_the_dht_is_a_port_or_nothing() {
        for (text, port) in
            [("", None), (",\"dht\":null", None), (",\"dht\":1", Some(1)), (",\"dht\":65535", Some(65535))]
        {
            assert_eq!(record(text).unwrap().dht, port, "{text}");
        }
        for text in ["0", "65536", "-1", "1.0", "\"7878\"", "[1]", "true", "1e3"] {
            assert!(record(&format!(",\"dht\":{text}")).is_err(), "{text}");
        }
    }
}
