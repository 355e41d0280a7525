//! The access file: who is allowed and who is denied, one a line, as its owner and `elo allow` write it.
//!
//! ```text
//! # machines of mine
//! allow sHBnTVfYaEWaIR1yBPyJMCcNoT0ZxVTrPQgfVMCAcKU  # laptop
//! deny  iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w  # floods us
//! ```
//!
//! It is taken whole or not at all: a list of which half was understood lets in whom its owner shut out.

#[cfg(feature = "cli")]
mod edit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::identity::NodeId;
use crate::limits::{MAX_ACCESS_ENTRIES, MAX_ACCESS_FILE};

#[cfg(feature = "cli")]
pub(crate) use edit::{Edit, edit};

/// The file's name in a home.
#[cfg(feature = "cli")]
pub(crate) const NAME: &str = "access";

/// What a line says of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// It is let in.
    Allow,
    /// It is shut out.
    Deny,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) verb: Verb,
    pub(crate) node: NodeId,
    /// What stands behind the `#`.
    pub(crate) note: &'a str,
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A line is not what may stand there.
    #[error("{path}:{line}: {what}", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what is expected.
        what: String,
    },
    /// Somebody else could let anybody in.
    #[error("{path} may be written by others: `chmod 600 {path}`", path = .0.display())]
    TooOpen(PathBuf),
    /// It is somebody else's file.
    #[error("{path} belongs to user {uid}, not to the user of this process: `chown` it, or write it anew", path = .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// It is too large to be read.
    #[error("{path} has more than {MAX_ACCESS_FILE} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// The operating system refused.
    #[error("{path} can't be {what}: {source}", path = .path.display())]
    Io {
        /// `read` or `written`.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Fault {
    fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// Tells two states of the file apart without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    #[cfg(unix)]
    inode: (u64, i64, i64, u32, u32),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt as _;
        Self {
            modified: meta.modified().ok(),
            len: meta.len(),
            // A change that keeps length and time, or of who may write it, shows in the time of the inode.
            #[cfg(unix)]
            inode: (meta.ino(), meta.ctime(), meta.ctime_nsec(), meta.mode(), meta.uid()),
        }
    }

    /// Whether another change may follow that looks the same: clocks of file systems tick coarsely.
    pub(crate) fn is_fresh(&self, now: SystemTime) -> bool {
        /// FAT's, the coarsest.
        const TICK: Duration = Duration::from_secs(2);
        self.modified.is_none_or(|at| now.duration_since(at).map_or(true, |age| age <= TICK))
    }
}

/// What the file looks like; `None`: there is none.
pub(crate) fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(Stamp::of(&meta))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reads the file; `None`: there is none.
pub(crate) fn read(path: &Path) -> Result<Option<(String, Stamp)>, Fault> {
    let failed = Fault::io("read", path);
    match fs::metadata(path) {
        // Opening a pipe would wait for its other end.
        Ok(meta) if !meta.is_file() => return Err(failed(io::Error::other("it is not a file"))),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let failed = Fault::io("read", path);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let meta = file.metadata().map_err(failed)?;
    check_owner(path, &meta)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells "too large" from "just fits".
    file.take(MAX_ACCESS_FILE + 1).read_to_end(&mut bytes).map_err(Fault::io("read", path))?;
    if bytes.len() as u64 > MAX_ACCESS_FILE {
        return Err(Fault::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        Fault::Line { path: path.to_owned(), line, what: "this is not UTF-8 text".to_owned() }
    })?;
    Ok(Some((text, Stamp::of(&meta))))
}

/// Whoever can write the file can let anybody in: it must be this user's own, or the administrator's, and no other's to
/// write.
#[cfg(unix)]
fn check_owner(path: &Path, meta: &fs::Metadata) -> Result<(), Fault> {
    use std::os::unix::fs::MetadataExt as _;
    let uid = meta.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(Fault::Foreign { path: path.to_owned(), uid });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(Fault::TooOpen(path.to_owned()));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(_: &Path, _: &fs::Metadata) -> Result<(), Fault> {
    Ok(())
}

/// The lines that say something.
pub(crate) fn parse<'a>(text: &'a str, path: &Path) -> Result<Vec<Entry<'a>>, Fault> {
    let mut entries = Vec::new();
    let mut known: BTreeMap<NodeId, (Verb, usize)> = BTreeMap::new();
    for (n, line) in text.lines().enumerate() {
        let line_number = n + 1;
        let fault = |what: String| Fault::Line { path: path.to_owned(), line: line_number, what };
        let Some((verb, node, note)) = parse_line(line).map_err(fault)? else { continue };
        match known.get(&node) {
            Some((before, at)) if *before != verb => {
                let (before, verb) = (before.as_str(), verb.as_str());
                return Err(fault(format!("{verb} {node}: line {at} says {before}; leave one of the two")));
            }
            Some(_) => {}
            None if known.len() >= MAX_ACCESS_ENTRIES => {
                return Err(fault(format!("more than {MAX_ACCESS_ENTRIES} ids")));
            }
            None => drop(known.insert(node, (verb, line_number))),
        }
        entries.push(Entry { line: line_number, verb, node, note });
    }
    Ok(entries)
}

fn parse_line(line: &str) -> Result<Option<(Verb, NodeId, &str)>, String> {
    let (said, note) = line.split_once('#').unwrap_or((line, ""));
    let mut words = said.split_whitespace();
    let Some(verb) = words.next() else { return Ok(None) };
    let verb = match verb {
        "allow" => Verb::Allow,
        "deny" => Verb::Deny,
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(format!("{other:?} is not known here; expected `allow ID` or `deny ID`"));
        }
    };
    let word = verb.as_str();
    let id = words.next().ok_or_else(|| format!("`{word}` without an id; expected `{word} ID`"))?;
    let node = id.parse().map_err(|e| format!("{word}: {e}"))?;
    match words.next() {
        None => Ok(Some((verb, node, note.trim()))),
        Some(_) => Err(format!("there is more behind the id; a note stands behind a #: `{word} ID  # note`")),
    }
}

/// Those allowed and those denied.
pub(crate) fn sets(entries: &[Entry<'_>]) -> (BTreeSet<NodeId>, BTreeSet<NodeId>) {
    let of = |verb| entries.iter().filter(|e| e.verb == verb).map(|e| e.node).collect();
    (of(Verb::Allow), of(Verb::Deny))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn id(n: u8) -> NodeId {
        Identity::from_seed([n; 32]).id()
    }

    fn here() -> &'static Path {
        Path::new("access")
    }

    #[test]
    fn lines_notes_and_comments_are_read() {
        let text = format!(
            "# mine\n\nallow {}  # laptop # blue\r\n  deny\t{}\nallow {} #\nallow {}\n   # only this\n",
            id(1),
            id(2),
            id(3),
            id(1)
        );
        let entries = parse(&text, here()).unwrap();
        let short: Vec<_> = entries.iter().map(|e| (e.line, e.verb, e.node, e.note)).collect();
        let (allow, deny) = (Verb::Allow, Verb::Deny);
        assert_eq!(
            short,
            [(3, allow, id(1), "laptop # blue"), (4, deny, id(2), ""), (5, allow, id(3), ""), (6, allow, id(1), "")]
        );
        let (allowed, denied) = sets(&entries);
        assert_eq!((allowed, denied), ([id(1), id(3)].into(), [id(2)].into()));
    }

    #[test]
    fn faults_name_the_line_and_what_is_expected() {
        for (line, said) in [
            ("permit x".to_owned(), "\"permit\" is not known here"),
            ("allow".to_owned(), "`allow` without an id"),
            ("deny abc".to_owned(), "43 characters, not 3"),
            (format!("deny {}!", &id(1).to_string()[..42]), "base64"),
            (format!("allow {} laptop", id(2)), "a note stands behind a #"),
            (format!("deny {}", id(1)), "line 2 says allow"),
            (format!("Allow {}", id(2)), "is not known here"),
        ] {
            let text = format!("# mine\nallow {}\n\n{line}\n", id(1));
            let fault = parse(&text, here()).unwrap_err().to_string();
            assert!(fault.starts_with("access:4: ") && fault.contains(said), "{line}: {fault}");
        }
    }

    #[test]
    fn a_hundred_thousand_fit_and_no_more() {
        let many = |n: usize| {
            (0..n).fold(String::new(), |mut text, n| {
                let mut bytes = [7; 32];
                bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
                text.push_str(&format!("deny {}\n", NodeId::from_bytes(bytes)));
                text
            })
        };
        let text = many(MAX_ACCESS_ENTRIES);
        assert_eq!(parse(&text, here()).unwrap().len(), MAX_ACCESS_ENTRIES);
        // The same one again is no other one.
        let again = format!("{text}{}", text.lines().next().unwrap());
        assert!(parse(&again, here()).is_ok());
        let fault = parse(&many(MAX_ACCESS_ENTRIES + 1), here()).unwrap_err().to_string();
        assert!(fault.starts_with("access:100001: more than 100000 ids"), "{fault}");
    }
}
