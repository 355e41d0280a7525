//! Peers of earlier runs: addresses at which this node once met somebody, kept in a file.
//!
//! The order, best first: nodes that failed less often since they were last met (three times and more count alike), then
//! trackers, then those met last. Whoever is last in it makes room.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::identity::NodeId;
use crate::limits::{MAX_REMEMBERED, MAX_REMEMBERED_ADDRS, MAX_REMEMBERED_FILE};

/// The file's name in a home.
#[cfg(feature = "cli")]
pub(crate) const NAME: &str = "peers.json";

/// The form of the file.
const VERSION: u64 = 1;

/// More failures than this are no worse: the node is away.
const AWAY: u32 = 3;

/// Whom nobody has met for so long is forgotten: 90 days.
const FORGET_S: u64 = 90 * 86_400;

/// A node that was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Met {
    /// Who.
    pub(crate) id: NodeId,
    /// Where, the latest first.
    pub(crate) addrs: Vec<SocketAddr>,
    /// Whether it was a tracker.
    #[serde(default)]
    pub(crate) tracker: bool,
    /// How often a dial has worked.
    #[serde(default)]
    worked: u32,
    /// How many dials have failed since one worked.
    #[serde(default)]
    failed: u32,
    /// When it was met last, in UNIX seconds.
    #[serde(default)]
    last: u64,
}

impl Met {
    fn rank(&self) -> (u32, bool, Reverse<u64>, Reverse<u32>, NodeId) {
        (self.failed.min(AWAY), !self.tracker, Reverse(self.last), Reverse(self.worked), self.id)
    }
}

/// All that were met, best first.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    met: Vec<Met>,
    /// Whether the file says something else.
    changed: bool,
}

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// Its content is not what this program writes.
    #[error("it is damaged, or not a list of remembered peers ({0})")]
    Damaged(String),
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Io(#[from] io::Error),
}

impl Remembered {
    /// Reads the file. That there is none is no fault.
    pub(crate) fn read(path: &Path, me: &NodeId, unix_s: u64) -> Result<Self, Unusable> {
        match fs::metadata(path) {
            // Opening a pipe would wait for its other end.
            Ok(meta) if !meta.is_file() => return Err(io::Error::other("it is not a file").into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(e.into()),
        }
        let mut bytes = Vec::new();
        // One byte more than allowed tells "too large" from "just fits".
        fs::File::open(path)?.take(MAX_REMEMBERED_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_REMEMBERED_FILE {
            return Err(Unusable::Damaged(format!("more than {MAX_REMEMBERED_FILE} bytes")));
        }
        Self::parse(&bytes, me, unix_s).map_err(Unusable::Damaged)
    }

    fn parse(bytes: &[u8], me: &NodeId, unix_s: u64) -> Result<Self, String> {
        let file: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        match file["version"].as_u64() {
            Some(VERSION) => {}
            Some(other) => return Err(format!("version {other}, this program reads {VERSION}")),
            None => return Err("it has no version".to_owned()),
        }
        let nodes = file["nodes"].as_array().ok_or("it has no nodes")?;
        let mut all = Self::default();
        let mut known = HashSet::new();
        // What one entry has wrong is no reason to lose the others.
        for met in nodes.iter().filter_map(|node| Met::deserialize(node).ok()) {
            let mut met = Met { last: met.last.min(unix_s), ..met };
            met.addrs.retain(|addr| addr.port() != 0);
            met.addrs.truncate(MAX_REMEMBERED_ADDRS);
            let fresh = met.last.saturating_add(FORGET_S) >= unix_s;
            if fresh && met.id != *me && !met.addrs.is_empty() && known.insert(met.id) {
                all.met.push(met);
            }
        }
        all.order();
        Ok(all)
    }

    /// Best first, and no more than may be.
    fn order(&mut self) {
        self.met.sort_by_key(Met::rank);
        self.met.truncate(MAX_REMEMBERED);
    }

    /// A dial of this node has ended with a proof of who is there.
    pub(crate) fn worked(&mut self, id: NodeId, addr: SocketAddr, tracker: bool, unix_s: u64) {
        let mut met = match self.met.iter().position(|met| met.id == id) {
            Some(at) => self.met.remove(at),
            None => Met { id, addrs: Vec::new(), tracker, worked: 0, failed: 0, last: 0 },
        };
        met.addrs.retain(|other| *other != addr);
        met.addrs.insert(0, addr);
        met.addrs.truncate(MAX_REMEMBERED_ADDRS);
        met.tracker = tracker;
        met.worked = met.worked.saturating_add(1);
        met.failed = 0;
        met.last = unix_s;
        // It is the best of all but trackers: who goes is somebody else.
        self.met.insert(0, met);
        self.order();
        self.changed = true;
    }

    /// Nobody, or somebody else, answered where a node was met before.
    pub(crate) fn failed(&mut self, id: &NodeId, addr: &SocketAddr) {
        let Some(met) = self.met.iter_mut().find(|met| met.id == *id) else { return };
        met.failed = met.failed.saturating_add(1);
        // The others are tried first next time.
        if let Some(at) = met.addrs.iter().position(|other| other == addr) {
            let addr = met.addrs.remove(at);
            met.addrs.push(addr);
        }
        self.order();
        self.changed = true;
    }

    /// All of them, best first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Met> {
        self.met.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.met.len()
    }

    /// What the file is to say, if it doesn't say it yet.
    pub(crate) fn unsaved(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        #[derive(Serialize)]
        struct File<'a> {
            version: u64,
            nodes: &'a [Met],
        }
        serde_json::to_vec_pretty(&File { version: VERSION, nodes: &self.met }).ok()
    }
}

/// Puts a file that can't be used out of the way, and says where to.
pub(crate) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".damaged");
    let aside = path.with_file_name(name);
    fs::rename(path, &aside)?;
    Ok(aside)
}

pub(crate) use crate::private_file::replace as save;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn id(n: u16) -> NodeId {
        let mut bytes = [9; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    fn addr(n: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], n))
    }

    fn ids(all: &Remembered) -> Vec<NodeId> {
        all.iter().map(|met| met.id).collect()
    }

    #[test]
    fn what_is_saved_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        let mut all = Remembered::read(&path, &id(0), NOW).unwrap();
        assert_eq!((all.len(), all.unsaved()), (0, None));
        all.worked(id(1), addr(1), false, NOW - 5);
        all.worked(id(1), "[fe80::1%3]:7".parse().unwrap(), false, NOW);
        all.worked(id(2), addr(2), true, NOW - 50);
        save(&path, &all.unsaved().unwrap()).unwrap();
        assert_eq!(all.unsaved(), None, "nothing has changed since");
        let again = Remembered::read(&path, &id(0), NOW).unwrap();
        assert_eq!(again.met, all.met);
        assert_eq!(ids(&again), [id(2), id(1)], "the tracker first");
        assert_eq!(again.met[1].addrs, ["[fe80::1%3]:7".parse().unwrap(), addr(1)], "the latest address first");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no draft is left");
        assert!(Remembered::read(&path, &id(2), NOW).unwrap().met.iter().all(|met| met.id != id(2)), "not itself");
        assert_eq!(Remembered::read(&path, &id(0), NOW + 2 * FORGET_S).unwrap().len(), 0, "after all that time");
    }

    #[test]
    fn there_is_room_for_so_many_and_the_worst_go() {
        let mut all = Remembered::default();
        all.worked(id(1000), addr(1), false, NOW);
        for _ in 0..AWAY {
            all.failed(&id(1000), &addr(1));
        }
        for n in 0..MAX_REMEMBERED as u16 + 10 {
            for port in 1..10 {
                all.worked(id(n), addr(port), false, NOW + u64::from(n));
            }
        }
        assert_eq!(all.len(), MAX_REMEMBERED);
        assert!(all.iter().all(|met| met.id != id(1000) && met.addrs.len() == MAX_REMEMBERED_ADDRS));
        assert_eq!(ids(&all)[0], id(MAX_REMEMBERED as u16 + 9), "met last, so first");
        assert!((all.unsaved().unwrap().len() as u64) < MAX_REMEMBERED_FILE / 4);
    }

    #[test]
    fn who_fails_goes_back_and_who_works_comes_forward() {
        let mut all = Remembered::default();
        all.worked(id(1), addr(1), false, NOW);
        all.worked(id(1), addr(2), false, NOW);
        all.worked(id(2), addr(3), false, NOW - 100);
        all.failed(&id(1), &addr(2));
        assert_eq!(ids(&all), [id(2), id(1)]);
        assert_eq!(all.met[1].addrs, [addr(1), addr(2)], "its other address first");
        all.failed(&id(7), &addr(2));
        all.worked(id(1), addr(2), false, NOW);
        assert_eq!(ids(&all), [id(1), id(2)]);
    }

    #[test]
    fn any_content_is_read_or_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        for content in
            ["", "{", "[]", "null", "{\"nodes\":[]}", "{\"version\":1}", "{\"version\":2,\"nodes\":[]}", "\u{0}"]
        {
            fs::write(&path, content).unwrap();
            assert!(matches!(Remembered::read(&path, &id(0), NOW), Err(Unusable::Damaged(_))), "{content}");
        }
        fs::write(&path, vec![b' '; MAX_REMEMBERED_FILE as usize + 1]).unwrap();
        assert!(matches!(Remembered::read(&path, &id(0), NOW), Err(Unusable::Damaged(_))));
        fs::write(&path, "[".repeat(100_000)).unwrap();
        assert!(matches!(Remembered::read(&path, &id(0), NOW), Err(Unusable::Damaged(_))));
        let good = format!(r#"{{"id":"{}","addrs":["10.0.0.1:5"],"last":{NOW},"new":{{}}}}"#, id(1));
        let bad = [
            "7".to_owned(),
            r#"{"id":"x","addrs":[]}"#.to_owned(),
            format!(r#"{{"id":"{}","addrs":["nowhere"]}}"#, id(2)),
            format!(r#"{{"id":"{}","addrs":[],"last":{NOW}}}"#, id(3)),
            format!(r#"{{"id":"{}","addrs":["10.0.0.1:5"],"last":{NOW},"worked":-1}}"#, id(4)),
            good.clone(),
        ];
        let content = format!(r#"{{"version":1,"extra":[1],"nodes":[{good},{}]}}"#, bad.join(","));
        fs::write(&path, content).unwrap();
        assert_eq!(ids(&Remembered::read(&path, &id(0), NOW).unwrap()), [id(1)], "the good one, once");
        fs::create_dir(dir.path().join("folder")).unwrap();
        assert!(matches!(Remembered::read(&dir.path().join("folder"), &id(0), NOW), Err(Unusable::Io(_))));
    }

    #[test]
    fn a_damaged_file_is_kept_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peers.json");
        fs::write(&path, "one").unwrap();
        let aside = put_aside(&path).unwrap();
        assert_eq!(aside, dir.path().join("peers.json.damaged"));
        assert_eq!(fs::read_to_string(aside).unwrap(), "one");
        assert!(!path.exists());
    }
}
