//! Who a node is: its ed25519 key, its public id, and the file the key is kept in.

mod key_file;
mod locked;
mod node_id;
mod succession;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand::Rng;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;

pub use node_id::{InvalidNodeId, NodeId};

use crate::limits::MAX_ROTATIONS;
use crate::wire::{Revocation, Rotation};

/// A node's secret key. Whoever has it *is* the node.
///
/// With it go the statements by which the node's earlier keys handed over to this one: others who knew an earlier id
/// follow them.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    /// The last of them leads to this key.
    rotations: Arc<[Rotation]>,
}

/// What became of a home's key: see [`Identity::rotate`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Rotated {
    /// The new key, with the statements that lead to it.
    pub identity: Identity,
    /// The id that the node had.
    pub old: NodeId,
    /// Where the old key is kept.
    pub backup: PathBuf,
}

/// Why there is no identity to be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no key file yet.
    #[error("there is no key at {}", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
    /// There is a key already, and it was not asked to be replaced.
    #[error("there is a key at {} already; it was left as it is", path.display())]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// Others than the owner can read or change the key file.
    #[error("others can read the key; run: chmod 600 {}", shell_quoted(path))]
    TooOpen {
        /// The key file.
        path: PathBuf,
    },
    /// The file holds no ed25519 key. It is never overwritten.
    #[error("the key file {} is damaged: {reason}; restore it, or move it away for a new identity", path.display())]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is under a passphrase.
    #[error("the key {} is under a passphrase", path.display())]
    Locked {
        /// The key file.
        path: PathBuf,
    },
    /// The passphrase is not the key's; or the file was changed.
    #[error("wrong passphrase for the key {}", path.display())]
    WrongPassphrase {
        /// The key file.
        path: PathBuf,
    },
    /// The passphrase is too short to be worth anything, or too long.
    #[error("a passphrase has 8 to 1024 characters")]
    UnfitPassphrase,
    /// The statements that lead from the node's earlier ids to this one can't be read. They are never overwritten.
    #[error(
        "{} is damaged: {reason}; restore it, or move it away (then who knows only an earlier id of this node can't follow it)",
        path.display()
    )]
    DamagedSuccession {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A text is not an ed25519 key in PKCS#8 PEM.
    #[error("not an ed25519 private key in PKCS#8 PEM: {reason}")]
    InvalidPem {
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Identity {
    /// A new key from the operating system's random generator.
    ///
    /// # Panics
    ///
    /// When the operating system has no random numbers to give; nothing could be secure then.
    pub fn generate() -> Self {
        let mut seed = [0; 32];
        UnwrapErr(SysRng).fill_bytes(&mut seed);
        Self::from_seed(seed)
    }

    /// The key that belongs to this 32-byte seed. The seed must be secret and random (except in tests).
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(&seed), rotations: Arc::from([]) }
    }

    /// The ids that this node had before, the oldest first: those of its last eight keys.
    pub fn former_ids(&self) -> Vec<NodeId> {
        self.rotations.iter().map(|step| step.old).collect()
    }

    /// The statements that lead to this key, the oldest first.
    pub(crate) fn rotations(&self) -> &Arc<[Rotation]> {
        &self.rotations
    }

    /// A new key that takes this one's place, with the statement of both that says so. For those who keep keys
    /// elsewhere: [`rotate`](Self::rotate) does it in a home.
    ///
    /// Hand over once: of two successors of one key, others follow the one they see first and refuse the other.
    pub fn successor(&self) -> Self {
        let new = Self::generate();
        let mut rotations: Vec<Rotation> = self.rotations.to_vec();
        rotations.push(Rotation::make(self, &new, unix_s()));
        let from = rotations.len().saturating_sub(MAX_ROTATIONS);
        Self { rotations: rotations.split_off(from).into(), ..new }
    }

    /// The statement that this key is void, as JSON text. It does nothing until it is published:
    /// [`Node::revoke`](crate::Node::revoke). Whoever has the text can publish it, at any time. Of the reason
    /// 128 characters are kept.
    pub fn revocation(&self, reason: &str) -> String {
        let statement = Revocation::make(self, unix_s(), reason);
        String::from_utf8_lossy(statement.object.raw()).into_owned()
    }

    /// The public id that belongs to the key.
    pub fn id(&self) -> NodeId {
        NodeId::from_bytes(self.key.verifying_key().to_bytes())
    }

    /// The ed25519 signature over the message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The secret key as PKCS#8 PEM, as OpenSSL and Python's `cryptography` read it.
    pub fn to_pem(&self) -> String {
        let key = KeypairBytes {
            secret_key: self.key.to_bytes(),
            // With the public key in it the file would be PKCS#8 version 2, which OpenSSL refuses.
            public_key: None,
        };
        let pem = key.to_pkcs8_pem(LineEnding::LF);
        pem.expect("48 bytes of fixed layout always have a PEM form").to_string()
    }

    /// Reads a secret key from PKCS#8 PEM, with or without the public key in it.
    ///
    /// # Errors
    ///
    /// [`IdentityError::InvalidPem`].
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let invalid = |reason: String| IdentityError::InvalidPem { reason };
        let pair = KeypairBytes::from_pkcs8_pem(pem.trim()).map_err(|error| invalid(error.to_string()))?;
        let identity = Self::from_seed(pair.secret_key);
        match &pair.public_key {
            Some(public) if public.to_bytes() != *identity.id().as_bytes() => {
                Err(invalid("its public key belongs to another private key".into()))
            }
            _ => Ok(identity),
        }
    }

    /// Reads the key in `home`.
    ///
    /// # Errors
    ///
    /// When there is none, it is under a passphrase ([`IdentityError::Locked`]), others can read it, it is damaged, or the
    /// file system refuses.
    pub fn load(home: &Path) -> Result<Self, IdentityError> {
        succession::follow(home, key_file::load(home, None)?)
    }

    /// Reads the key in `home`, which may be under that passphrase; one that is under none is read as well. This takes a
    /// tenth of a second or more and 64 MiB: on an async runtime use its way to run what blocks.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load), and [`IdentityError::WrongPassphrase`].
    pub fn unlock(home: &Path, passphrase: &str) -> Result<Self, IdentityError> {
        succession::follow(home, key_file::load(home, Some(passphrase))?)
    }

    /// Reads the key in a file, such as a backup, which may be under that passphrase. Of what led to it nothing is known.
    ///
    /// # Errors
    ///
    /// As [`unlock`](Self::unlock).
    pub fn open(path: &Path, passphrase: Option<&str>) -> Result<Self, IdentityError> {
        key_file::open(path, passphrase)
    }

    /// Whose key is in `home`, and whether it is under a passphrase. Of one that is, the id is what the file says.
    ///
    /// # Errors
    ///
    /// When there is none, others can read it, it is damaged, or the file system refuses.
    pub fn peek(home: &Path) -> Result<(NodeId, bool), IdentityError> {
        key_file::peek(home)
    }

    /// Puts the key in `home` under the passphrase `to`, or under none; `from` is the one it is under now, if any. The
    /// old file is not kept, but its bytes may stay on the disk, and in copies.
    ///
    /// # Errors
    ///
    /// As [`unlock`](Self::unlock), and [`IdentityError::UnfitPassphrase`].
    pub fn set_passphrase(home: &Path, from: Option<&str>, to: Option<&str>) -> Result<Self, IdentityError> {
        fit(to)?;
        let identity = key_file::load(home, from)?;
        key_file::rewrite(home, &identity, to)?;
        succession::follow(home, identity)
    }

    /// Gives `home` a new key in place of the one there, and a statement of both keys that the new one took the old
    /// one's place. The old key is kept beside it, as with [`create`](Self::create). A key under a passphrase stays under it.
    /// A node that runs with the old key goes on with it: stop it first.
    ///
    /// # Errors
    ///
    /// As [`unlock`](Self::unlock).
    pub fn rotate(home: &Path, passphrase: Option<&str>) -> Result<Rotated, IdentityError> {
        let locked = Self::peek(home)?.1;
        let old = succession::follow(home, key_file::load(home, passphrase)?)?;
        let identity = old.successor();
        // First what leads to the new key: if this ends halfway the old key is still the node's, and nobody has seen it.
        succession::write(home, &identity)?;
        let backup = key_file::store(home, &identity, true, passphrase.filter(|_| locked))?;
        let backup = backup.unwrap_or_else(|| home.to_owned());
        Ok(Rotated { identity, old: old.id(), backup })
    }

    /// Reads the key in `home`, or makes a new one there; true if it is new. Of several processes doing this at once,
    /// all get the same key.
    ///
    /// # Errors
    ///
    /// When others can read the key, it is damaged, or the file system refuses.
    pub fn load_or_create(home: &Path) -> Result<(Self, bool), IdentityError> {
        match Self::load(home) {
            Err(IdentityError::Missing { .. }) => {}
            found => return found.map(|identity| (identity, false)),
        }
        match Self::create(home, false) {
            // Another process was quicker.
            Err(IdentityError::Exists { .. }) => Self::load(home).map(|identity| (identity, false)),
            created => created.map(|(identity, _)| (identity, true)),
        }
    }

    /// Makes a new key in `home`. With `force` it replaces one that is there, which is kept beside it as
    /// `identity.seed.bak-1` (or the next number that is free) and whose path is returned.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Exists`] without `force`, or when the file system refuses.
    pub fn create(home: &Path, force: bool) -> Result<(Self, Option<PathBuf>), IdentityError> {
        let identity = Self::generate();
        let backup = key_file::store(home, &identity, force, None)?;
        Ok((identity, backup))
    }

    /// The same under a passphrase of 8 to 1024 characters.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create), and [`IdentityError::UnfitPassphrase`].
    pub fn create_locked(home: &Path, force: bool, passphrase: &str) -> Result<(Self, Option<PathBuf>), IdentityError> {
        fit(Some(passphrase))?;
        let identity = Self::generate();
        let backup = key_file::store(home, &identity, force, Some(passphrase))?;
        Ok((identity, backup))
    }
}

/// Whether a passphrase is worth setting.
fn fit(passphrase: Option<&str>) -> Result<(), IdentityError> {
    match passphrase.map(|text| text.chars().count()) {
        None | Some(8..=1024) => Ok(()),
        Some(_) => Err(IdentityError::UnfitPassphrase),
    }
}

fn unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs().try_into().unwrap_or(i64::MAX))
}

/// Never tells the secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// Whether `signature` is `id`'s over `message`. False as well if `id` is no public key at all, or one of the few for
/// which signatures prove nothing.
pub fn verify(id: &NodeId, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(id.as_bytes()).is_ok_and(|key| {
        // Strict: one signature can't be turned into another valid one, and keys of small order are refused.
        key.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    })
}

/// The path as it can be pasted into a shell.
fn shell_quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_and_verifies() {
        let identity = Identity::from_seed([7; 32]);
        let signature = identity.sign(b"hello");
        assert!(verify(&identity.id(), b"hello", &signature));
        assert!(!verify(&identity.id(), b"hullo", &signature));
        let other = Identity::from_seed([8; 32]);
        assert!(!verify(&other.id(), b"hello", &signature));
    }

    #[test]
    fn keys_that_prove_nothing_are_refused() {
        // The neutral element: under it, a signature of zeros with the neutral R fits every message.
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(!verify(&NodeId::from_bytes(weak), b"anything", &signature));
        assert!(!verify(&NodeId::from_bytes([0xff; 32]), b"x", &signature));
    }

    #[test]
    fn debug_keeps_the_secret() {
        let identity = Identity::from_seed([42; 32]);
        let text = format!("{identity:?}");
        assert!(text.contains(&identity.id().to_string()), "{text}");
        assert!(!text.contains("42, 42") && !text.contains("2a2a"), "{text}");
    }

    #[test]
    fn pem_round_trip_in_version_1() {
        let identity = Identity::from_seed([7; 32]);
        let pem = identity.to_pem();
        assert_eq!(pem.lines().count(), 3, "48 bytes fit one line:\n{pem}");
        assert_eq!(Identity::from_pem(&pem).unwrap().id(), identity.id());
        let windows = pem.replace('\n', "\r\n");
        assert_eq!(Identity::from_pem(&windows).unwrap().id(), identity.id());
    }

    #[test]
    fn pem_with_a_public_key_is_read_if_it_fits() {
        let identity = Identity::from_seed([7; 32]);
        let with_public = |public: NodeId| {
            let mut pair = [0; 64];
            pair[..32].copy_from_slice(&[7; 32]);
            pair[32..].copy_from_slice(public.as_bytes());
            let pair = KeypairBytes::from_bytes(&pair);
            pair.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
        };
        let read = Identity::from_pem(&with_public(identity.id())).unwrap();
        assert_eq!(read.id(), identity.id());
        let other = Identity::from_seed([8; 32]).id();
        let error = Identity::from_pem(&with_public(other)).unwrap_err();
        assert!(matches!(error, IdentityError::InvalidPem { .. }), "{error}");
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(shell_quoted(Path::new("/a/b.c")), "/a/b.c");
        assert_eq!(shell_quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
