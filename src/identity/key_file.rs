//! `identity.seed`: the file a node's key is kept in.
//!
//! It appears whole or not at all, readable by its owner only from the first byte on, and never in the place of
//! another key unless that was asked for.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use rand::Rng;

use zeroize::Zeroizing;

use super::{Identity, IdentityError, NodeId, locked};
use crate::private_file::{create_folder, sync_folder, write_new};

/// The key file's name in a node's home folder.
const NAME: &str = "identity.seed";

/// A key takes 119 bytes; whatever is much longer isn't one, and is not read to its end.
const MAX_FILE: u64 = 16 * 1024;

/// Reads the key in `home`, which may be under that passphrase.
pub(super) fn load(home: &Path, passphrase: Option<&str>) -> Result<Identity, IdentityError> {
    open(&home.join(NAME), passphrase)
}

/// Reads the key in a file.
pub(super) fn open(path: &Path, passphrase: Option<&str>) -> Result<Identity, IdentityError> {
    let path = path.to_owned();
    let text = read(&path)?;
    if locked::is_locked(&text) {
        let passphrase = passphrase.ok_or_else(|| IdentityError::Locked { path: path.clone() })?;
        return locked::unlock(&text, passphrase).map_err(|fault| unusable(fault, path));
    }
    Identity::from_pem(&text).map_err(|error| match error {
        IdentityError::InvalidPem { reason } => IdentityError::Damaged { path, reason },
        other => other,
    })
}

/// Whose key is in `home`, and whether it is under a passphrase.
pub(super) fn peek(home: &Path) -> Result<(NodeId, bool), IdentityError> {
    let path = home.join(NAME);
    let text = read(&path)?;
    if locked::is_locked(&text) {
        return Ok((locked::owner(&text).map_err(|fault| unusable(fault, path))?, true));
    }
    Ok((load(home, None)?.id(), false))
}

fn unusable(fault: locked::Fault, path: PathBuf) -> IdentityError {
    match fault {
        locked::Fault::Wrong => IdentityError::WrongPassphrase { path },
        locked::Fault::Damaged(reason) => IdentityError::Damaged { path, reason },
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    let path = path.to_owned();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(IdentityError::Missing { path });
        }
        Err(error) => return Err(failed("read", &path, error)),
    };
    let metadata = file.metadata().map_err(|error| failed("read", &path, error))?;
    let damaged = |reason: String| IdentityError::Damaged { path: path.clone(), reason };
    if !metadata.is_file() {
        return Err(damaged("it is not a file".into()));
    }
    if is_open_to_others(&metadata) {
        return Err(IdentityError::TooOpen { path });
    }
    // As large as it may get: a buffer that grows leaves pieces of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|error| failed("read", &path, error))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(damaged("it is not text".into())),
    }
}

/// Writes the key in the place of the same key, under that passphrase or none. Nothing is kept of the file before.
pub(super) fn rewrite(home: &Path, identity: &Identity, passphrase: Option<&str>) -> Result<(), IdentityError> {
    let path = home.join(NAME);
    let draft = draft_name(home);
    let result = write_draft(&draft, identity, passphrase)
        .map_err(|error| failed("write", &draft, error))
        .and_then(|()| fs::rename(&draft, &path).map_err(|error| failed("write", &path, error)));
    let _ = fs::remove_file(&draft);
    result?;
    sync_folder(home).map_err(|error| failed("save", home, error))
}

/// Writes the key to `home`, under that passphrase if there is one; returns where the one it replaced is kept.
pub(super) fn store(
    home: &Path,
    identity: &Identity,
    force: bool,
    passphrase: Option<&str>,
) -> Result<Option<PathBuf>, IdentityError> {
    let path = home.join(NAME);
    // Only to say so before anything is touched. What counts is that `publish` doesn't replace.
    if !force && path.symlink_metadata().is_ok() {
        return Err(IdentityError::Exists { path });
    }
    create_folder(home).map_err(|error| failed("create the folder", home, error))?;
    let draft = draft_name(home);
    let result = write_draft(&draft, identity, passphrase)
        .map_err(|error| failed("write", &draft, error))
        .and_then(|()| if force { replace(&draft, &path) } else { publish(&draft, &path).map(|()| None) });
    // Gone already after a rename; a left-over would be a second copy of a secret.
    let _ = fs::remove_file(&draft);
    let backup = result?;
    sync_folder(home).map_err(|error| failed("save", home, error))?;
    Ok(backup)
}

/// Gives the draft its name unless there is something of that name.
fn publish(draft: &Path, path: &Path) -> Result<(), IdentityError> {
    let result = match fs::hard_link(draft, path) {
        Err(error) if lacks_links(&error) => rename_if_free(draft, path),
        result => result,
    };
    result.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => IdentityError::Exists { path: path.into() },
        _ => failed("write", path, error),
    })
}

/// Puts the draft in the place of what has its name, which is kept under another.
fn replace(draft: &Path, path: &Path) -> Result<Option<PathBuf>, IdentityError> {
    let backup = if path.symlink_metadata().is_ok() {
        Some(back_up(path).map_err(|error| failed("back up", path, error))?)
    } else {
        None
    };
    fs::rename(draft, path).map_err(|error| failed("write", path, error))?;
    Ok(backup)
}

fn back_up(path: &Path) -> io::Result<PathBuf> {
    for number in 1..=u32::MAX {
        let backup = path.with_file_name(format!("{NAME}.bak-{number}"));
        let result = match fs::hard_link(path, &backup) {
            Err(error) if lacks_links(&error) => copy_if_free(path, &backup),
            result => result,
        };
        match result {
            Ok(()) => return Ok(backup),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Whether the error says that the file system can't do hard links (FAT, some network shares, Android).
fn lacks_links(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::StorageFull)
}

/// The next best without hard links: another process could still slip in between the two steps.
fn rename_if_free(draft: &Path, path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    fs::rename(draft, path)
}

fn copy_if_free(from: &Path, to: &Path) -> io::Result<()> {
    let content = fs::read(from)?;
    write_new(to, &content)
}

fn draft_name(home: &Path) -> PathBuf {
    home.join(format!(".{NAME}.{:016x}", rand::rng().next_u64()))
}

fn write_draft(draft: &Path, identity: &Identity, passphrase: Option<&str>) -> io::Result<()> {
    match passphrase {
        Some(passphrase) => write_new(draft, locked::lock(identity, passphrase).as_bytes()),
        None => write_new(draft, Zeroizing::new(identity.to_pem()).as_bytes()),
    }
}

#[cfg(unix)]
fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0
}

#[cfg(not(unix))]
fn is_open_to_others(_: &fs::Metadata) -> bool {
    false
}

pub(super) fn failed(action: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { action, path: path.into(), source }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(home: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(home).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_key_is_private_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("a/b");
        assert!(matches!(Identity::load(&home), Err(IdentityError::Missing { .. })));
        let (made, created) = Identity::load_or_create(&home).unwrap();
        assert!(created);
        assert_eq!(mode(&home), 0o700);
        assert_eq!(mode(&home.join(NAME)), 0o600);
        assert_eq!(names(&home), [NAME]);
        let (read, created) = Identity::load_or_create(&home).unwrap();
        assert!(!created);
        assert_eq!(read.id(), made.id());
    }

    #[test]
    fn a_key_is_replaced_only_by_force_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        let (first, backup) = Identity::create(home, false).unwrap();
        assert_eq!(backup, None);
        assert!(matches!(Identity::create(home, false), Err(IdentityError::Exists { .. })));
        assert_eq!(Identity::load(home).unwrap().id(), first.id());

        let (second, backup) = Identity::create(home, true).unwrap();
        let backup = backup.unwrap();
        assert_eq!(backup, home.join("identity.seed.bak-1"));
        assert_eq!(mode(&backup), 0o600);
        let kept = Identity::from_pem(&fs::read_to_string(&backup).unwrap()).unwrap();
        assert_eq!(kept.id(), first.id());

        let (third, backup) = Identity::create(home, true).unwrap();
        let kept = Identity::from_pem(&fs::read_to_string(backup.unwrap()).unwrap()).unwrap();
        assert_eq!(kept.id(), second.id());
        assert_eq!(Identity::load(home).unwrap().id(), third.id());
        assert_eq!(names(home), [NAME, "identity.seed.bak-1", "identity.seed.bak-2"]);
    }

    #[test]
    fn a_key_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        Identity::create(home, false).unwrap();
        let path = home.join(NAME);
        for open in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            let error = Identity::load_or_create(home).unwrap_err();
            let remedy = format!("chmod 600 {}", path.display());
            assert!(error.to_string().contains(&remedy), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Identity::load(home).unwrap();
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path();
        Identity::create(home, false).unwrap();
        let path = home.join(NAME);
        let whole = fs::read(&path).unwrap();
        let cut = &whole[..whole.len() / 2];
        for content in [&b""[..], cut, b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----"] {
            fs::write(&path, content).unwrap();
            let error = Identity::load_or_create(home).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn many_at_once_get_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("new");
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| Identity::load_or_create(&home).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|(_, created)| *created).count(), 1);
        let id = Identity::load(&home).unwrap().id();
        assert!(results.iter().all(|(identity, _)| identity.id() == id));
        assert_eq!(names(&home), [NAME]);
    }
}
