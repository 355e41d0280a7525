//! What a node says of itself in the DHT: a short form of its record, under its own key.
//!
//! The DHT carries it as the value of a mutable item (BEP 44), whose signature is the node's. It says where the node, or
//! a tracker of its, may be dialled, and nothing else is done with it: whoever answers there has to prove who it is.

use std::net::SocketAddr;

use super::fields::Fields;
use super::json::{Builder, Object};
use super::role::TrackerRole;
use crate::identity::NodeId;
use crate::limits::{MAX_ADDRS, MAX_DHT_ITEM, MAX_TRACKERS};

/// The form's version.
const VERSION: u64 = 1;

/// The longest validity such a record may claim, in seconds: an hour, as for the long ones.
const MAX_TTL_S: u64 = 3600;

/// The short record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compact {
    /// The name it gives itself; left out when there is no room.
    pub name: String,
    /// Where it can be dialled; empty behind a NAT.
    pub addrs: Vec<SocketAddr>,
    /// Through whom it is reached, and where that one was seen.
    pub trackers: Vec<(NodeId, Option<SocketAddr>)>,
    /// Whether it is a tracker.
    pub tracker: TrackerRole,
    /// UNIX milliseconds when it was written: the item's `seq` as well.
    pub seq: u64,
    /// How long it is valid from then, in seconds.
    pub ttl_s: u64,
}

impl Compact {
    /// The item's value: canonical JSON of at most [`MAX_DHT_ITEM`] bytes. What has no room is left out, the name first,
    /// then addresses from the end.
    pub fn write(mut self) -> Vec<u8> {
        loop {
            let text = self.object();
            if text.len() <= MAX_DHT_ITEM {
                return text;
            }
            if !self.name.is_empty() {
                self.name.clear();
            } else if self.addrs.pop().is_none() && self.trackers.pop().is_none() {
                return text;
            }
        }
    }

    fn object(&self) -> Vec<u8> {
        let addrs: Vec<String> = self.addrs.iter().map(ToString::to_string).collect();
        let trackers: Vec<String> = self.trackers.iter().map(|(id, _)| id.to_string()).collect();
        let via: Vec<String> =
            self.trackers.iter().map(|(_, at)| at.map(|a| a.to_string()).unwrap_or_default()).collect();
        Builder::untyped()
            .u64("v", VERSION)
            .str("name", &self.name)
            .strings("addrs", &addrs)
            .strings("trackers", &trackers)
            .strings("via", &via)
            .tracker(self.tracker)
            .u64("seq", self.seq)
            .u64("ttl_s", self.ttl_s)
            .build()
            .raw()
            .to_vec()
    }

    /// Reads an item's value; `seq` is the item's. `None`: it is not one of ours, or not as it must be.
    pub fn read(value: &[u8], seq: i64) -> Option<Self> {
        if value.len() > MAX_DHT_ITEM {
            return None;
        }
        let object = Object::parse(bytes::Bytes::copy_from_slice(value)).ok()?;
        let f = Fields::inner(&object, "item");
        let read = || -> Result<Option<Self>, super::message::Malformed> {
            let tracker = f.tracker()?;
            let trackers = f.nodes("trackers", MAX_TRACKERS)?;
            let via = f.strings("via")?;
            let (version, written, ttl_s) = (f.u64("v")?, f.u64("seq")?, f.u64("ttl_s")?);
            let fits = version == VERSION
                && u64::try_from(seq) == Ok(written)
                && (1..=MAX_TTL_S).contains(&ttl_s)
                && via.len() <= MAX_TRACKERS;
            if !fits {
                return Ok(None);
            }
            let at = |n: usize| via.get(n).and_then(|text| text.parse().ok());
            Ok(Some(Self {
                name: f.opt_short("name")?.unwrap_or_default(),
                addrs: f.addrs("addrs", MAX_ADDRS)?,
                trackers: trackers.into_iter().enumerate().map(|(n, id)| (id, at(n))).collect(),
                tracker,
                seq: written,
                ttl_s,
            }))
        };
        read().ok().flatten()
    }

    /// Whether it counts at this time: neither past its validity nor dated in the future, by more than clocks may differ.
    pub fn is_current(&self, unix_ms: u64, skew_ms: u64) -> bool {
        let until = self.seq.saturating_add(self.ttl_s * 1000).saturating_add(skew_ms);
        unix_ms < until && self.seq <= unix_ms.saturating_add(skew_ms)
    }
}

/// What the signature of a mutable item covers (BEP 44, without salt): its `seq` and its value, in bencoding.
pub fn item_signing_bytes(seq: i64, value: &[u8]) -> Vec<u8> {
    let mut bytes = format!("3:seqi{seq}e1:v{}:", value.len()).into_bytes();
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        crate::identity::Identity::from_seed([n; 32]).id()
    }

    fn compact() -> Compact {
        Compact {
            name: "ann".into(),
            addrs: vec!["10.0.0.1:7878".parse().unwrap(), "[2001:db8::1]:7878".parse().unwrap()],
            trackers: vec![(id(2), Some("10.0.0.2:7878".parse().unwrap())), (id(3), None)],
            tracker: TrackerRole::None,
            seq: 1_700_000_000_000,
            ttl_s: 1800,
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let text = compact().write();
        assert_eq!(Compact::read(&text, 1_700_000_000_000), Some(compact()));
        assert!(text.starts_with(br#"{"addrs":["10.0.0.1:7878","#), "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let long = Compact {
            name: "\u{1F600}".repeat(128),
            addrs: (0..8).map(|n| format!("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:{n}]:65535").parse().unwrap()).collect(),
            trackers: (1..=4).map(|n| (id(n), Some("[2001:db8:1:2:3:4:5:6]:1".parse().unwrap()))).collect(),
            ..compact()
        };
        let text = long.clone().write();
        assert!(text.len() <= MAX_DHT_ITEM, "{}", text.len());
        let read = Compact::read(&text, 1_700_000_000_000).unwrap();
        assert_eq!((read.name.as_str(), read.trackers.len()), ("", 4));
        assert!(read.addrs.len() >= 6 && long.addrs.starts_with(&read.addrs), "{:?}", read.addrs);
    }

    #[test]
    fn what_is_not_as_it_must_be_is_refused() {
        let good = String::from_utf8(compact().write()).unwrap();
        let seq = 1_700_000_000_000;
        assert!(Compact::read(good.as_bytes(), seq + 1).is_none(), "another seq than the item's");
        for (from, to) in [
            ("\"v\":1", "\"v\":2"),
            ("\"v\":1", "\"v\":1,\"v\":1"),
            ("\"ttl_s\":1800", "\"ttl_s\":0"),
            ("\"ttl_s\":1800", "\"ttl_s\":3601"),
            ("10.0.0.1:7878", "host:7878"),
            ("\"tracker\":null", "\"tracker\":\"both\""),
            ("\"via\":[", "\"via\":[\"\",\"\",\"\","),
            ("\"addrs\":[", "\"addrs\":[1,"),
            ("\"seq\":1700000000000", "\"seq\":-1"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(Compact::read(bad.as_bytes(), seq).is_none(), "{to}");
        }
        let padded = format!("{good}{}", " ".repeat(MAX_DHT_ITEM));
        assert!(Compact::read(padded.as_bytes(), seq).is_none(), "too long");
        assert!(Compact::read(b"d1:ad2:id20:e", 0).is_none());
    }

    #[test]
    fn it_counts_for_its_time() {
        let (c, seq) = (compact(), 1_700_000_000_000);
        for (at, counts) in
            [(seq, true), (seq - 9, true), (seq - 11, false), (seq + 1_800_009, true), (seq + 1_800_010, false)]
        {
            assert_eq!(c.is_current(at, 10), counts, "{at}");
        }
        assert!(!Compact { seq: u64::MAX, ..c }.is_current(seq, 10));
    }
}
