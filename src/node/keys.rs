//! Statements about keys: their file, and publishing one.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::driver::Shared;
use crate::discovery::remembered::put_aside;
use crate::error::Error;
use crate::limits::MAX_STATEMENT_FILE;
use crate::mesh::{Share, State};
use crate::private_file::{read_bounded, replace};
use crate::wire::{Builder, Object, Revocation, Rotation};

/// The file's name in a home.
#[cfg(feature = "cli")]
pub(crate) const NAME: &str = "keylife.json";

/// How often it is written at most; the first change at once, so that it is there after a crash.
const SETTLE: Duration = Duration::from_secs(2);

/// What an earlier run kept.
#[derive(Debug, Default)]
pub(super) struct Saved {
    rotations: Vec<(Share, Rotation)>,
    revocations: Vec<(Share, Revocation)>,
}

impl Saved {
    /// Reads the file. One that can't be used is put aside: what it said comes again from others.
    pub(super) fn read(path: &Path) -> Self {
        let shown = path.display();
        let read = read_bounded(path, MAX_STATEMENT_FILE);
        let result = match read {
            Ok(None) => return Self::default(),
            Ok(Some(bytes)) => parse(&bytes),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(error.to_string()),
            Err(error) => {
                tracing::warn!("which ids were replaced or revoked can't be read from {shown}: {error}");
                return Self::default();
            }
        };
        result.unwrap_or_else(|why| {
            let aside = match put_aside(path) {
                Ok(aside) => format!("it is now {}", aside.display()),
                Err(error) => format!("it can't be put aside: {error}"),
            };
            tracing::warn!(
                "{shown} is damaged ({why}): which ids were replaced or revoked has to be learnt again; {aside}"
            );
            Self::default()
        })
    }

    pub(super) fn restore(self, state: &mut State) {
        state.restore_statements(self.rotations, self.revocations);
    }
}

fn parse(bytes: &[u8]) -> Result<Saved, String> {
    // Not by `Object`: a file may be larger than a message.
    #[derive(serde::Deserialize)]
    struct File<'a> {
        version: u64,
        #[serde(borrow)]
        statements: Vec<Entry<'a>>,
    }
    #[derive(serde::Deserialize)]
    struct Entry<'a> {
        share: String,
        #[serde(borrow)]
        statement: &'a serde_json::value::RawValue,
    }
    let file: File<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if file.version != 1 {
        return Err(format!("version {}, this program reads 1", file.version));
    }
    let mut saved = Saved::default();
    for entry in file.statements {
        let Some(share) = Share::from_name(&entry.share) else { continue };
        let Ok(object) = Object::parse(entry.statement.get().to_owned().into()) else { continue };
        // What one entry has wrong is no reason to lose the others; nothing counts that isn't signed.
        if let Ok(step) = Rotation::parse(&object) {
            if step.verify().is_ok() {
                saved.rotations.push((share, step));
            }
        } else if let Ok(revocation) = Revocation::parse(&object)
            && revocation.verify().is_ok()
        {
            saved.revocations.push((share, revocation));
        }
    }
    Ok(saved)
}

fn text(statements: &[(Share, Object)]) -> Vec<u8> {
    let mut text = b"{\"version\":1,\"statements\":[".to_vec();
    for (n, (share, statement)) in statements.iter().enumerate() {
        text.extend_from_slice(if n == 0 { b"\n" } else { b",\n" });
        let entry = Builder::untyped().str("share", share.as_str()).object("statement", statement).build();
        text.extend_from_slice(entry.raw());
    }
    text.extend_from_slice(b"\n]}\n");
    text
}

/// A statement from its text, checked.
pub(crate) fn read_revocation(text: &str) -> Result<Revocation, Error> {
    let wrong = |why: String| Error::Invalid(format!("that is no revocation: {why}"));
    let object = Object::parse(text.trim().to_owned().into()).map_err(|e| wrong(e.to_string()))?;
    let revocation = Revocation::parse(&object).map_err(|e| wrong(e.why))?;
    revocation.verify().map_err(|e| wrong(e.to_string()))?;
    Ok(revocation)
}

/// The statements for people and programs: who was followed to a new id, and who was revoked.
#[cfg(feature = "cli")]
pub(crate) fn listed(statements: &[(Share, Object)]) -> Vec<serde_json::Value> {
    let one = |(share, statement): &(Share, Object)| {
        let (share, source) = (share.as_str(), "statement");
        if let Ok(step) = Rotation::parse(statement) {
            let (old, new, at) = (step.old, step.new, step.timestamp);
            return Some(serde_json::json!({ "access": "replaced", "node_id": old, "new": new, "timestamp": at,
                "source": source, "share": share }));
        }
        let void = Revocation::parse(statement).ok()?;
        Some(serde_json::json!({ "access": "revoked", "node_id": void.node_id, "reason": void.reason,
            "timestamp": void.timestamp, "source": source, "share": share }))
    };
    statements.iter().filter_map(one).collect()
}

/// The same of a home in which no node runs. A file that can't be read is left as it is.
#[cfg(feature = "cli")]
pub(crate) fn listed_in(path: &Path) -> Result<Vec<serde_json::Value>, String> {
    let Some(bytes) = read_bounded(path, MAX_STATEMENT_FILE).map_err(|e| e.to_string())? else { return Ok(Vec::new()) };
    let saved = parse(&bytes)?;
    let rotations = saved.rotations.into_iter().map(|(share, step)| (share, step.object));
    let all: Vec<_> =
        rotations.chain(saved.revocations.into_iter().map(|(share, void)| (share, void.object))).collect();
    Ok(listed(&all))
}

/// Adds a revocation to the file of a home in which no node runs.
#[cfg(feature = "cli")]
pub(crate) fn note(path: &Path, revocation: &Revocation) -> std::io::Result<()> {
    let saved = Saved::read(path);
    let rotations = saved.rotations.into_iter().map(|(share, step)| (share, step.object));
    let mut all: Vec<(Share, Object)> = rotations.collect();
    let others = saved.revocations.into_iter().filter(|(_, other)| other.node_id != revocation.node_id);
    all.extend(others.map(|(share, other)| (share, other.object)));
    all.push((Share::Named, revocation.object.clone()));
    replace(path, &text(&all))
}

impl Shared {
    /// Saves the statements that are kept when they change, and once more at the end.
    pub(super) async fn keep_statements(self: Arc<Self>, path: PathBuf) {
        loop {
            let last = tokio::select! {
                biased;
                () = self.keys_changed.notified() => false,
                () = self.stop.cancelled() => true,
            };
            if last {
                return;
            }
            let content = text(&self.read(|state, _| state.statements()));
            let to = path.clone();
            match tokio::task::spawn_blocking(move || replace(&to, &content)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(
                    "which ids were replaced or revoked can't be saved in {}: {error}; this run remembers them",
                    path.display()
                ),
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(SETTLE) => {}
                // What waits is written below, at once.
                () = self.stop.cancelled() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn what_is_saved_comes_back_and_what_is_forged_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keylife.json");
        let id = |seed| Identity::from_seed([seed; 32]);
        let step = Rotation::make(&id(1), &id(2), 7);
        let revoked = Revocation::make(&id(3), 7, "lost");
        let forged = revoked.object.with_member("timestamp", b"8");
        let all =
            [(Share::Named, step.object.clone()), (Share::Other, revoked.object.clone()), (Share::Met, forged.clone())];
        replace(&path, &text(&all)).unwrap();
        let saved = Saved::read(&path);
        assert_eq!((saved.rotations.len(), saved.revocations.len()), (1, 1));
        assert_eq!((saved.rotations[0].0, saved.revocations[0].0), (Share::Named, Share::Other));
        note(&path, &revoked).unwrap();
        let saved = Saved::read(&path);
        assert_eq!((saved.rotations.len(), saved.revocations.len()), (1, 1));
        assert_eq!(saved.revocations[0].0, Share::Named);
        assert!(read_revocation(&id(3).revocation("x")).is_ok());
        assert!(read_revocation(std::str::from_utf8(forged.raw()).unwrap()).is_err());
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keylife.json");
        for content in ["", "{", "[]", "{\"version\":2,\"statements\":[]}", "\u{0}"] {
            std::fs::write(&path, content).unwrap();
            let saved = Saved::read(&path);
            assert!(saved.rotations.is_empty() && saved.revocations.is_empty());
            assert!(!path.exists(), "{content:?} was left");
            assert_eq!(std::fs::read_to_string(dir.path().join("keylife.json.damaged")).unwrap(), content);
        }
        std::fs::write(&path, vec![b' '; MAX_STATEMENT_FILE as usize + 1]).unwrap();
        drop(Saved::read(&path));
        assert!(!path.exists());
        assert!(Saved::read(&path).rotations.is_empty(), "none is no fault");
    }
}
