//! Editing the access file: one id's line, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::path::Path;

use super::{Entry, Fault, Verb, parse, read};
use crate::identity::NodeId;
use crate::limits::MAX_ACCESS_FILE;
use crate::private_file::{create_folder, replace};

/// The first lines of a new file.
const HEADER: &str = "\
# Who may connect to this node, and whose tasks it runs: `allow ID  # note` or `deny ID  # note`.
# `elo allow`, `elo deny` and `elo revoke` write it too. A running node takes a change within seconds.
";

/// What an edit does to one id's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit<'a> {
    /// It says this from now on, with this note if one is given.
    Set(Verb, Option<&'a str>),
    /// It is taken out.
    Remove,
}

/// What was said of a node before an edit.
pub(crate) type Before = Vec<(NodeId, Option<Verb>)>;

/// Edits the file: under a lock, so that two edits at once lose nothing, and so that at every moment there is the old file or
/// the new one. A file that can't be used is left as it is. Comments, notes and the order stay.
pub(crate) fn edit(path: &Path, nodes: &[NodeId], edit: Edit<'_>) -> Result<Before, Fault> {
    let failed = |e| Fault::io("written", path)(e);
    let home = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(home) = home {
        create_folder(home).map_err(failed)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let lock_path = path.with_file_name(name);
    let lock = options.open(&lock_path).map_err(Fault::io("written", &lock_path))?;
    lock.lock().map_err(Fault::io("written", &lock_path))?;
    let text = read(path)?.map(|(text, _)| text);
    let before = text.clone().unwrap_or_else(|| HEADER.to_owned());
    let (after, said) = edited(&before, path, nodes, edit)?;
    if text.as_ref() != Some(&after) {
        // A link leads to the file: that is the one to be replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        replace(&target, after.as_bytes()).map_err(failed)?;
    }
    Ok(said)
}

/// The text after an edit, and what it said before.
fn edited(text: &str, path: &Path, nodes: &[NodeId], edit: Edit<'_>) -> Result<(String, Before), Fault> {
    let entries = parse(text, path)?;
    let wanted: BTreeSet<&NodeId> = nodes.iter().collect();
    let mut by_line: BTreeMap<usize, &Entry<'_>> = BTreeMap::new();
    let mut before: BTreeMap<NodeId, Verb> = BTreeMap::new();
    for entry in entries.iter().filter(|e| wanted.contains(&e.node)) {
        by_line.insert(entry.line, entry);
        before.insert(entry.node, entry.verb);
    }
    let mut written = BTreeSet::new();
    let mut after = String::with_capacity(text.len() + 64 * nodes.len());
    for (n, line) in text.lines().enumerate() {
        match (by_line.get(&(n + 1)), edit) {
            (None, _) => after.push_str(line),
            (Some(_), Edit::Remove) => continue,
            // The same said twice is said once from now on.
            (Some(entry), Edit::Set(..)) if !written.insert(entry.node) => continue,
            (Some(entry), Edit::Set(verb, note)) if entry.verb == verb && note.is_none() => after.push_str(line),
            (Some(entry), Edit::Set(verb, note)) => {
                after.push_str(&line_of(verb, &entry.node, note.unwrap_or(entry.note)));
            }
        }
        after.push('\n');
    }
    if let Edit::Set(verb, note) = edit {
        for node in nodes {
            if written.insert(*node) {
                after.push_str(&line_of(verb, node, note.unwrap_or_default()));
                after.push('\n');
            }
        }
    }
    // What could not be read again is not written.
    parse(&after, path)?;
    if after.len() as u64 > MAX_ACCESS_FILE {
        return Err(Fault::TooLarge(path.to_owned()));
    }
    Ok((after, nodes.iter().map(|node| (*node, before.get(node).copied())).collect()))
}

fn line_of(verb: Verb, node: &NodeId, note: &str) -> String {
    let verb = verb.as_str();
    // A note is one line, whatever it was given as.
    let note: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match note.trim() {
        "" => format!("{verb} {node}"),
        note => format!("{verb} {node}  # {note}"),
    }
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
    fn an_edit_changes_its_own_lines_and_no_others() {
        let text = format!("# mine\nallow {}  # laptop\n\ndeny {}   #   bad\nallow {}", id(1), id(2), id(1));
        let edited = |nodes: &[NodeId], edit| edited(&text, here(), nodes, edit).unwrap();
        let (after, before) = edited(&[id(1)], Edit::Set(Verb::Deny, None));
        assert_eq!(after, format!("# mine\ndeny {}  # laptop\n\ndeny {}   #   bad\n", id(1), id(2)));
        assert_eq!(before, [(id(1), Some(Verb::Allow))]);
        let (after, before) = edited(&[id(2), id(3)], Edit::Set(Verb::Deny, None));
        assert!(after.starts_with(&text) && after.ends_with(&format!("\ndeny {}\n", id(3))), "{after}");
        assert_eq!(before, [(id(2), Some(Verb::Deny)), (id(3), None)]);
        let (after, _) = edited(&[id(1), id(9)], Edit::Remove);
        assert_eq!(after, format!("# mine\n\ndeny {}   #   bad\n", id(2)));
        let (after, _) = edited(&[id(2)], Edit::Set(Verb::Deny, Some("a\nallow b")));
        assert!(after.contains(&format!("deny {}  # a allow b\n", id(2))), "{after}");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_written_for_its_owner_and_read_from_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("home").join("access");
        assert!(read(&path).unwrap().is_none());
        edit(&path, &[id(1)], Edit::Set(Verb::Allow, Some("one"))).unwrap();
        let (text, _) = read(&path).unwrap().unwrap();
        assert!(text.starts_with(HEADER) && text.ends_with(&format!("allow {}  # one\n", id(1))), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for (mode, readable) in [(0o644, true), (0o620, false), (0o602, false), (0o600, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), readable, "{mode:o}");
            assert_eq!(edit(&path, &[id(2)], Edit::Set(Verb::Deny, None)).is_ok(), readable, "{mode:o}");
        }
        // A file that can't be used is not written over.
        fs::write(&path, "nonsense\n").unwrap();
        assert!(edit(&path, &[id(1)], Edit::Remove).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"nonsense\n");
        fs::write(&path, [b'#', b'\n', 0xff]).unwrap();
        assert!(read(&path).unwrap_err().to_string().ends_with(":2: this is not UTF-8 text"));
        // Through a link the file itself is edited.
        fs::remove_file(&path).unwrap();
        let real = dir.path().join("real");
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        edit(&path, &[id(1)], Edit::Set(Verb::Allow, None)).unwrap();
        assert!(path.symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), format!("allow {}\n", id(1)));
    }
}
